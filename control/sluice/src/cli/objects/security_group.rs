//! `sluice sg`.

use super::rule::rule_table;
use crate::cli::output::{fields, list};
use crate::cli::{CliError, CliSession};
use clap::Subcommand;
use control::command::{Command, GroupCreate, GroupDelete, GroupJoin, GroupLeave, GroupModify};
use control::socket::query::{Answer, GroupFilter, GroupShow, Query};
use control::socket::view::GroupView;
use vswitch_core::config::desired::{GroupKind, Policy};

/// The verbs of `sluice sg`.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupVerb {
    /// Make a group, without rules: `sluice sg create --vpc vpc-lab --name web`.
    Create(GroupCreate),
    /// All groups.
    List(GroupFilter),
    /// One group with its rules and members.
    Show(GroupShow),
    /// Change a group's name, description, or whether its members reach each other.
    Modify(GroupModify),
    /// Remove a group without members that no other group's rule names.
    Delete(GroupDelete),
    /// Make an ENI a member of one more group.
    Join(GroupJoin),
    /// Take an ENI out of a group.
    Leave(GroupLeave),
}

pub(crate) fn run(session: &CliSession, verb: GroupVerb) -> Result<(), CliError> {
    match verb {
        GroupVerb::Create(create) => session.change(Command::GroupCreate(create)),
        GroupVerb::Modify(modify) => session.change(Command::GroupModify(modify)),
        GroupVerb::Delete(delete) => session.change(Command::GroupDelete(delete)),
        GroupVerb::Join(join) => session.change(Command::GroupJoin(join)),
        GroupVerb::Leave(leave) => session.change(Command::GroupLeave(leave)),
        GroupVerb::List(filter) => {
            if let Answer::Groups(groups) = session.ask(Query::GroupList(filter))? {
                let headings = ["group", "name", "vpc", "kind", "members reach each other", "rules", "members"];
                session.output.table(&groups, headings, |group| {
                    [
                        group.id.to_string(),
                        group.name.clone(),
                        group.vpc.to_string(),
                        kind(group.kind).into(),
                        inner_access(group).into(),
                        group.rule_count.to_string(),
                        group.members.len().to_string(),
                    ]
                });
            }
            Ok(())
        }
        GroupVerb::Show(show) => {
            if let Answer::Group(group) = session.ask(Query::GroupShow(show))? {
                session.output.show(&group, told);
            }
            Ok(())
        }
    }
}

fn kind(kind: GroupKind) -> &'static str {
    match kind {
        GroupKind::Basic => "basic",
        GroupKind::Advanced => "advanced",
    }
}

fn inner_access(group: &GroupView) -> &'static str {
    if group.kind == GroupKind::Basic && group.inner_access == Policy::Accept { "yes" } else { "no" }
}

fn told(group: &GroupView) -> String {
    let rules = group.rules.as_deref().unwrap_or_default();
    let outbound = if group.kind == GroupKind::Basic { "accept" } else { "drop" };
    let head = fields(&[
        ("group", group.id.to_string()),
        ("name", group.name.clone()),
        ("description", group.description.clone()),
        ("vpc", group.vpc.to_string()),
        ("kind", kind(group.kind).into()),
        ("members reach each other", inner_access(group).into()),
        ("members", list(&group.members)),
        ("created", group.created.clone()),
    ]);
    let defaults = format!("no rule matches: ingress drop, egress {outbound}");
    if rules.is_empty() {
        format!("{head}\n\n{defaults}")
    } else {
        format!("{head}\n\n{}\n{defaults}", rule_table(rules))
    }
}
