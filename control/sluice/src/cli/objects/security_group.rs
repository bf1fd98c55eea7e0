//! `sluice sg`.

use super::rule::rule_table;
use crate::cli::output::{fields, list};
use crate::cli::{CliError, CliSession};
use clap::{Args, Subcommand};
use control::command::{self, Command};
use control::socket::query::{Answer, GroupFilter, GroupShow, Query};
use control::socket::view::GroupView;
use vswitch_core::config::desired::{GroupKind, Policy};

/// What can be done with security groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupVerb {
    /// Make a group, without rules: `sluice sg create --vpc vpc-lab --name web`.
    Create(GroupCreateOptions),
    /// All groups.
    List {
        /// Only those of this VPC.
        #[arg(long)]
        vpc: Option<String>,
    },
    /// One group with its rules and members.
    Show {
        /// The group.
        group: String,
    },
    /// Change a group's name, description, or whether its members reach each other.
    Modify(GroupModifyOptions),
    /// Remove a group without members that no other group's rule names.
    Delete {
        /// The group.
        group: String,
    },
    /// Make an ENI a member of one more group.
    Join {
        /// The group.
        group: String,
        /// The ENI.
        eni: String,
    },
    /// Take an ENI out of a group.
    Leave {
        /// The group.
        group: String,
        /// The ENI.
        eni: String,
    },
}

/// A new group.
#[derive(Debug, Args)]
pub(crate) struct GroupCreateOptions {
    /// Its identifier, sg-…; made up if absent.
    #[arg(long)]
    id: Option<String>,
    /// The VPC it has effect in.
    #[arg(long)]
    vpc: String,
    /// basic (open outbound) or advanced (closed both ways).
    #[arg(long)]
    kind: Option<String>,
    /// accept or drop: whether members of a basic group reach each other without rules.
    #[arg(long)]
    inner_access: Option<String>,
    /// Let it belong to a cloud service: users may look at it, and not change it.
    #[arg(long)]
    service_managed: bool,
    /// A name for people.
    #[arg(long)]
    name: Option<String>,
    /// What it is for.
    #[arg(long)]
    description: Option<String>,
}

/// Changes to a group.
#[derive(Debug, Args)]
pub(crate) struct GroupModifyOptions {
    /// The group.
    group: String,
    /// A new name.
    #[arg(long)]
    name: Option<String>,
    /// A new description.
    #[arg(long)]
    description: Option<String>,
    /// accept or drop: whether members of a basic group reach each other without rules.
    #[arg(long)]
    inner_access: Option<String>,
    /// Whether it belongs to a cloud service: true lets users only look at it, false gives it back to them.
    #[arg(long, value_name = "BOOL")]
    service_managed: Option<bool>,
}

pub(crate) fn run(session: &CliSession, verb: GroupVerb) -> Result<(), CliError> {
    match verb {
        GroupVerb::Create(GroupCreateOptions { id, vpc, kind, inner_access, service_managed, name, description }) => {
            let create = command::GroupCreate { id, vpc, kind, inner_access, service_managed, name, description };
            session.change(Command::GroupCreate(create))
        }
        GroupVerb::Modify(GroupModifyOptions { group, name, description, inner_access, service_managed }) => {
            let modify = command::GroupModify { group, name, description, inner_access, service_managed };
            session.change(Command::GroupModify(modify))
        }
        GroupVerb::Delete { group } => session.change(Command::GroupDelete(command::GroupDelete { group })),
        GroupVerb::Join { group, eni } => session.change(Command::GroupJoin(command::GroupJoin { group, eni })),
        GroupVerb::Leave { group, eni } => session.change(Command::GroupLeave(command::GroupLeave { group, eni })),
        GroupVerb::List { vpc } => {
            if let Answer::Groups(groups) = session.ask(Query::GroupList(GroupFilter { vpc }))? {
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
        GroupVerb::Show { group } => {
            if let Answer::Group(group) = session.ask(Query::GroupShow(GroupShow { group }))? {
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
