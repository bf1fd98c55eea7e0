//! The commands for security groups; those for their rules are in `rule.rs`.

use super::vocabulary;
use clap::Args;
use serde::{Deserialize, Serialize};

vocabulary! {
    /// Makes a security group.
    #[derive(Args)]
    GroupCreate {
        /// `sg-…`; made up if absent.
        #[arg(long)]
        id: Option<String>,
        /// The VPC it has effect in; empty for a classic group.
        #[arg(long)]
        vpc: String,
        /// Whether it belongs to the classic network instead of a VPC. There is no such network here: the group keeps
        /// rules and has no members.
        #[serde(default)]
        #[arg(skip)]
        classic: bool,
        /// `normal` or `basic` (the default), `enterprise` or `advanced`. Fixed from then on.
        #[arg(long)]
        kind: Option<String>,
        /// `accept` (the default) or `drop`: whether members of a basic group reach each other without rules.
        #[arg(long)]
        inner_access: Option<String>,
        /// Whether a cloud service owns the group, so that users may only look at it.
        #[arg(long, num_args = 0..=1, default_missing_value = "true")]
        service_managed: Option<bool>,
        /// A name for people: 2 to 128 characters, beginning with a letter.
        #[arg(long)]
        name: Option<String>,
        /// What it is for: 2 to 256 characters.
        #[arg(long)]
        description: Option<String>,
    }

    /// Changes a group. Absent fields stay.
    #[derive(Args)]
    GroupModify {
        /// The group.
        group: String,
        /// A new name; empty for none.
        #[arg(long)]
        name: Option<String>,
        /// A new description; empty for none.
        #[arg(long)]
        description: Option<String>,
        /// `accept` or `drop`; basic groups only.
        #[arg(long)]
        inner_access: Option<String>,
        /// Whether a cloud service owns the group, so that users may only look at it. While it does, nothing else about
        /// the group can be changed.
        #[arg(long)]
        service_managed: Option<bool>,
    }

    /// Removes a group.
    #[derive(Args)]
    GroupDelete {
        /// The group.
        group: String,
    }

    /// Makes an ENI a member.
    #[derive(Args)]
    GroupJoin {
        /// The group.
        group: String,
        /// The ENI.
        eni: String,
    }

    /// Ends an ENI's membership.
    #[derive(Args)]
    GroupLeave {
        /// The group.
        group: String,
        /// The ENI.
        eni: String,
    }
}
