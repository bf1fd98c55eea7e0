//! `sluice prefix-list`.

use crate::cli::output::{columns, fields, list};
use crate::cli::{CliError, CliSession};
use clap::Subcommand;
use control::command::{Command, PrefixListCreate, PrefixListDelete, PrefixListModify};
use control::socket::query::{Answer, Nothing, PrefixListShow, Query};
use control::socket::view::{ListEntryView, PrefixListView};

/// The verbs of `sluice prefix-list`.
#[derive(Debug, Subcommand)]
pub(crate) enum PrefixListVerb {
    /// Make a list: `sluice prefix-list create --name offices --entry 192.0.2.0/24 --entry 198.51.100.0/24`.
    Create(PrefixListCreate),
    /// All prefix lists.
    List,
    /// One prefix list.
    Show(PrefixListShow),
    /// Change name, description or entries, and with the entries every rule that names the list.
    Modify(PrefixListModify),
    /// Remove a list that no rule names.
    Delete(PrefixListDelete),
}

pub(crate) fn run(session: &CliSession, verb: PrefixListVerb) -> Result<(), CliError> {
    match verb {
        PrefixListVerb::Create(create) => session.change(Command::PrefixListCreate(create)),
        PrefixListVerb::Modify(modify) => session.change(Command::PrefixListModify(modify)),
        PrefixListVerb::Delete(delete) => session.change(Command::PrefixListDelete(delete)),
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
        PrefixListVerb::Show(show) => {
            if let Answer::PrefixList(list) = session.ask(Query::PrefixListShow(show))? {
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
