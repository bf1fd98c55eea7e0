//! `sluice port-list`.

use super::prefix_list::entries_told;
use super::rule::range;
use crate::cli::output::{fields, list};
use crate::cli::{CliError, CliSession};
use clap::{Args, Subcommand};
use control::command::{self, Command, PortListEntry};
use control::socket::query::{Answer, Nothing, PortListShow, Query};
use control::socket::view::PortListView;

/// What can be done with port lists.
#[derive(Debug, Subcommand)]
pub(crate) enum PortListVerb {
    /// Make a list: `sluice port-list create --name web --entry 80/80 --entry 443/443`.
    Create(PortListCreateOptions),
    /// All port lists.
    List,
    /// One port list.
    Show {
        /// The list.
        port_list: String,
    },
    /// Change name, description or entries, and with the entries every rule that names the list.
    Modify(PortListModifyOptions),
    /// Remove a list that no rule names.
    Delete {
        /// The list.
        port_list: String,
    },
}

/// A new list.
#[derive(Debug, Args)]
pub(crate) struct PortListCreateOptions {
    /// Its identifier, prl-…; made up if absent.
    #[arg(long)]
    id: Option<String>,
    /// A name for people.
    #[arg(long)]
    name: String,
    /// What it is for.
    #[arg(long)]
    description: Option<String>,
    /// Room for this many entries; what the list weighs in quotas.
    #[arg(long, default_value_t = 20)]
    max_entries: u32,
    /// A range of ports; may be repeated.
    #[arg(long = "entry")]
    entries: Vec<String>,
}

/// Changes to a list.
#[derive(Debug, Args)]
pub(crate) struct PortListModifyOptions {
    /// The list.
    port_list: String,
    /// A new name.
    #[arg(long)]
    name: Option<String>,
    /// A new description.
    #[arg(long)]
    description: Option<String>,
    /// A range to add; may be repeated.
    #[arg(long)]
    add: Vec<String>,
    /// A range to take out; may be repeated.
    #[arg(long)]
    remove: Vec<String>,
}

pub(crate) fn run(session: &CliSession, verb: PortListVerb) -> Result<(), CliError> {
    let entry = |ports: String| PortListEntry { ports: range(&ports), description: None };
    match verb {
        PortListVerb::Create(PortListCreateOptions { id, name, description, max_entries, entries }) => {
            let entries = entries.into_iter().map(entry).collect();
            let create = command::PortListCreate { id, name, description, max_entries, entries };
            session.change(Command::PortListCreate(create))
        }
        PortListVerb::Modify(PortListModifyOptions { port_list, name, description, add, remove }) => {
            let add = add.into_iter().map(entry).collect();
            let remove = remove.iter().map(|ports| range(ports)).collect();
            let modify = command::PortListModify { port_list, name, description, add, remove };
            session.change(Command::PortListModify(modify))
        }
        PortListVerb::Delete { port_list } => {
            session.change(Command::PortListDelete(command::PortListDelete { port_list }))
        }
        PortListVerb::List => {
            if let Answer::PortLists(lists) = session.ask(Query::PortListList(Nothing {}))? {
                session.output.table(&lists, ["port list", "name", "entries", "room", "groups"], |view| {
                    [
                        view.id.to_string(),
                        view.name.clone(),
                        view.entries.len().to_string(),
                        view.max_entries.to_string(),
                        list(&view.groups),
                    ]
                });
            }
            Ok(())
        }
        PortListVerb::Show { port_list } => {
            if let Answer::PortList(list) = session.ask(Query::PortListShow(PortListShow { port_list }))? {
                session.output.show(&list, told);
            }
            Ok(())
        }
    }
}

fn told(view: &PortListView) -> String {
    let head = fields(&[
        ("port list", view.id.to_string()),
        ("name", view.name.clone()),
        ("description", view.description.clone()),
        ("room for", view.max_entries.to_string()),
        ("groups", list(&view.groups)),
        ("created", view.created.clone()),
    ]);
    format!("{head}\n\n{}", entries_told(&view.entries))
}
