//! `sluice prefix-list`.

use crate::cli::output::{columns, fields, list};
use crate::cli::{CliError, CliSession};
use clap::{Args, Subcommand};
use control::command::{self, Command, PrefixListEntry};
use control::socket::query::{Answer, Nothing, PrefixListShow, Query};
use control::socket::view::{ListEntryView, PrefixListView};

/// What can be done with prefix lists.
#[derive(Debug, Subcommand)]
pub(crate) enum PrefixListVerb {
    /// Make a list: `sluice prefix-list create --name offices --entry 192.0.2.0/24 --entry 198.51.100.0/24`.
    Create(PrefixListCreateOptions),
    /// All prefix lists.
    List,
    /// One prefix list.
    Show {
        /// The list.
        prefix_list: String,
    },
    /// Change name, description or entries, and with the entries every rule that names the list.
    Modify(PrefixListModifyOptions),
    /// Remove a list that no rule names.
    Delete {
        /// The list.
        prefix_list: String,
    },
}

/// A new list.
#[derive(Debug, Args)]
pub(crate) struct PrefixListCreateOptions {
    /// Its identifier, pl-…; made up if absent.
    #[arg(long)]
    id: Option<String>,
    /// A name for people.
    #[arg(long)]
    name: String,
    /// What it is for.
    #[arg(long)]
    description: Option<String>,
    /// ipv4 or ipv6.
    #[arg(long, default_value = "ipv4")]
    family: String,
    /// Room for this many entries; what the list weighs in quotas.
    #[arg(long, default_value_t = 20)]
    max_entries: u32,
    /// A prefix; may be repeated.
    #[arg(long = "entry")]
    entries: Vec<String>,
}

/// Changes to a list.
#[derive(Debug, Args)]
pub(crate) struct PrefixListModifyOptions {
    /// The list.
    prefix_list: String,
    /// A new name.
    #[arg(long)]
    name: Option<String>,
    /// A new description.
    #[arg(long)]
    description: Option<String>,
    /// A prefix to add; may be repeated.
    #[arg(long)]
    add: Vec<String>,
    /// A prefix to take out; may be repeated.
    #[arg(long)]
    remove: Vec<String>,
}

pub(crate) fn run(session: &CliSession, verb: PrefixListVerb) -> Result<(), CliError> {
    let entry = |cidr: String| PrefixListEntry { cidr, description: None };
    match verb {
        PrefixListVerb::Create(PrefixListCreateOptions { id, name, description, family, max_entries, entries }) => {
            let entries = entries.into_iter().map(entry).collect();
            let create = command::PrefixListCreate { id, name, description, family, max_entries, entries };
            session.change(Command::PrefixListCreate(create))
        }
        PrefixListVerb::Modify(PrefixListModifyOptions { prefix_list, name, description, add, remove }) => {
            let add = add.into_iter().map(entry).collect();
            let modify = command::PrefixListModify { prefix_list, name, description, add, remove };
            session.change(Command::PrefixListModify(modify))
        }
        PrefixListVerb::Delete { prefix_list } => {
            session.change(Command::PrefixListDelete(command::PrefixListDelete { prefix_list }))
        }
        PrefixListVerb::List => {
            if let Answer::PrefixLists(lists) = session.ask(Query::PrefixListList(Nothing {}))? {
                session.output.table(
                    &lists,
                    ["prefix list", "name", "family", "entries", "room", "groups"],
                    |list_view| {
                        [
                            list_view.id.to_string(),
                            list_view.name.clone(),
                            list_view.family.clone(),
                            list_view.entries.len().to_string(),
                            list_view.max_entries.to_string(),
                            list(&list_view.groups),
                        ]
                    },
                );
            }
            Ok(())
        }
        PrefixListVerb::Show { prefix_list } => {
            if let Answer::PrefixList(list) = session.ask(Query::PrefixListShow(PrefixListShow { prefix_list }))? {
                session.output.show(&list, told);
            }
            Ok(())
        }
    }
}

fn told(view: &PrefixListView) -> String {
    let head = fields(&[
        ("prefix list", view.id.to_string()),
        ("name", view.name.clone()),
        ("description", view.description.clone()),
        ("family", view.family.clone()),
        ("room for", view.max_entries.to_string()),
        ("groups", list(&view.groups)),
        ("created", view.created.clone()),
    ]);
    format!("{head}\n\n{}", entries_told(&view.entries))
}

/// The entries of a list.
pub(crate) fn entries_told(entries: &[ListEntryView]) -> String {
    if entries.is_empty() {
        return "no entries: it matches nothing".into();
    }
    columns(["entry", "description"], entries.iter().map(|entry| [entry.value.clone(), entry.description.clone()]))
}
