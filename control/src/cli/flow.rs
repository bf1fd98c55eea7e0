//! `sluice flow`.

use super::output::{line, list};
use super::{CliError, Session};
use crate::query::{Answer, FlowFilter, Query};
use clap::Subcommand;
use std::net::IpAddr;
use vswitch_core::protocol::FlowDescription;

/// What can be done with sessions.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Live sessions: who opened them, by which rule, and what they moved.
    List {
        /// Only those of this ENI.
        #[arg(long)]
        eni: Option<String>,
        /// Most sessions to show.
        #[arg(long)]
        limit: Option<usize>,
    },
}

pub(super) fn run(session: &Session, verb: Verb) -> Result<(), CliError> {
    let Verb::List { eni, limit } = verb;
    if let Answer::Flows { flows, truncated } = session.ask(Query::Flows(FlowFilter { eni, limit }))? {
        let headings =
            ["eni", "opened", "protocol", "source", "destination", "state", "by", "idle", "packets", "bytes"];
        session.output.table(&flows, headings, row);
        if truncated && !session.output.json {
            line("… and more: raise --limit to see them");
        }
    }
    Ok(())
}

fn row(flow: &FlowDescription) -> [String; 10] {
    let is_icmp = matches!(flow.protocol, 1 | 58);
    [
        flow.eni.to_string(),
        flow.opened.to_string(),
        protocol_name(flow.protocol),
        if is_icmp { flow.source.to_string() } else { endpoint(flow.source, flow.source_port) },
        if is_icmp { flow.destination.to_string() } else { endpoint(flow.destination, flow.destination_port) },
        flow.state.clone(),
        admitted_by(flow),
        format!("{:.1} of {} s", flow.idle_ms as f64 / 1e3, flow.timeout_s),
        list(flow.packets),
        list(flow.bytes),
    ]
}

/// The rule or the step that admits a session. After a change it is not known before the session's next packet.
fn admitted_by(flow: &FlowDescription) -> String {
    match &flow.rule {
        Some(rule) => rule.to_string(),
        None if flow.stage == "rule" => "(rules changed)".into(),
        None => flow.stage.clone(),
    }
}

/// A protocol by its usual name.
pub(super) fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        47 => "gre".into(),
        58 => "icmpv6".into(),
        other => other.to_string(),
    }
}

fn endpoint(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}
