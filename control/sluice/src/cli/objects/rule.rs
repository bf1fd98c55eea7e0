//! `sluice rule`.

use crate::cli::output::columns;
use crate::cli::{CliError, CliSession};
use clap::{Args, Subcommand};
use control::command::{Command, RuleAuthorize, RuleChange, RuleModify, RuleRevoke, RuleSpec, choice};
use control::socket::query::{Answer, Query, RuleFilter};
use control::socket::view::RuleView;
use vswitch_core::config::desired::{Direction, Policy};

/// The verbs of `sluice rule`.
#[derive(Debug, Subcommand)]
pub(crate) enum RuleVerb {
    /// Add a rule: `sluice rule add sg-web ingress --protocol tcp --ports 80 --peer 0.0.0.0/0`.
    #[command(visible_alias = "authorize")]
    Add {
        /// The group.
        #[arg(id = "of_group", value_name = "GROUP")]
        group: String,
        /// The direction of the traffic.
        #[arg(value_parser = choice(Direction::NAMES))]
        direction: Direction,
        #[command(flatten)]
        rule: Box<RuleSpec>,
        #[command(flatten)]
        far: FarSide,
    },
    /// Remove rules; live sessions that only they admitted end at once: `sluice rule revoke sg-web sgr-…`.
    Revoke {
        /// The group.
        group: String,
        /// The rules.
        #[arg(required = true)]
        rules: Vec<String>,
    },
    /// Change one rule in place.
    Modify {
        #[command(flatten)]
        modify: Box<RuleModify>,
        #[command(flatten)]
        far: FarSide,
    },
    /// List rules in the order in which they decide.
    List(RuleFilter),
}

/// The far side of a rule, in short.
#[derive(Debug, Args)]
pub(crate) struct FarSide {
    /// The far side in short: an address, a prefix, a group `sg-…` or a prefix list `pl-…`.
    #[arg(long, visible_aliases = ["from", "to"], conflicts_with_all = ["cidr", "ipv6_cidr", "group", "prefix_list"])]
    peer: Option<String>,
}

impl FarSide {
    /// Assigns it to the right field, which its first characters tell; likewise a list `prl-…` among the ports.
    fn place(self, [cidr, group, prefix_list, ports, port_list]: [&mut Option<String>; 5]) {
        match &self.peer {
            None => {}
            Some(text) if text.starts_with("sg-") => *group = self.peer,
            Some(text) if text.starts_with("pl-") => *prefix_list = self.peer,
            Some(_) => *cidr = self.peer,
        }
        if let Some(list) = ports.take_if(|text| text.starts_with("prl-")) {
            *port_list = Some(list);
        }
    }
}

pub(crate) fn run(session: &CliSession, verb: RuleVerb) -> Result<(), CliError> {
    match verb {
        RuleVerb::Add { group, direction, mut rule, far } => {
            let RuleSpec { cidr, group: peer_group, prefix_list, ports, port_list, .. } = &mut *rule;
            far.place([cidr, peer_group, prefix_list, ports, port_list]);
            session.change(Command::RuleAuthorize(RuleAuthorize { group, direction, rules: vec![*rule] }))
        }
        RuleVerb::Revoke { group, rules } => {
            let ids = rules.into_iter().collect();
            session.change(Command::RuleRevoke(RuleRevoke { group, direction: None, ids, rules: Vec::new() }))
        }
        RuleVerb::Modify { mut modify, far } => {
            let RuleChange { cidr, group, prefix_list, ports, port_list, .. } = &mut modify.change;
            far.place([cidr, group, prefix_list, ports, port_list]);
            session.change(Command::RuleModify(*modify))
        }
        RuleVerb::List(filter) => {
            if let Answer::Rules(rules) = session.ask(Query::RuleList(filter))? {
                let text = |rules: &Vec<RuleView>| if rules.is_empty() { "none".into() } else { rule_table(rules) };
                session.output.show(&rules, text);
            }
            Ok(())
        }
    }
}

/// Rules in the order in which they decide.
pub(crate) fn rule_table(rules: &[RuleView]) -> String {
    let headings = ["direction", "priority", "policy", "protocol", "ports", "peer", "rule", "group", "description"];
    columns(
        headings,
        rules.iter().map(|rule| {
            [
                rule.direction.to_string(),
                rule.priority.to_string(),
                if rule.policy == Policy::Accept { "accept" } else { "drop" }.into(),
                rule.protocol.to_lowercase(),
                rule.ports_text(),
                rule.peer_text(),
                rule.id.to_string(),
                rule.group.to_string(),
                rule.description.clone(),
            ]
        }),
    )
}
