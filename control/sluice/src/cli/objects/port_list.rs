//! `sluice port-list`.

use super::prefix_list::entries_told;
use crate::cli::output::{fields, list};
use crate::cli::{CliError, CliSession};
use clap::Subcommand;
use control::command::{Command, PortListCreate, PortListDelete, PortListModify};
use control::socket::query::{Answer, Nothing, PortListShow, Query};
use control::socket::view::PortListView;

/// The verbs of `sluice port-list`.
#[derive(Debug, Subcommand)]
pub(crate) enum PortListVerb {
    /// Make a list: `sluice port-list create --name web --entry 80/80 --entry 443/443`.
    Create(PortListCreate),
    /// All port lists.
    List,
    /// One port list.
    Show(PortListShow),
    /// Change name, description or entries, and with the entries every rule that names the list.
    Modify(PortListModify),
    /// Remove a list that no rule names.
    Delete(PortListDelete),
}

pub(crate) fn run(session: &CliSession, verb: PortListVerb) -> Result<(), CliError> {
    match verb {
        PortListVerb::Create(create) => session.change(Command::PortListCreate(create)),
        PortListVerb::Modify(modify) => session.change(Command::PortListModify(modify)),
        PortListVerb::Delete(delete) => session.change(Command::PortListDelete(delete)),
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
        PortListVerb::Show(show) => {
            if let Answer::PortList(list) = session.ask(Query::PortListShow(show))? {
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
