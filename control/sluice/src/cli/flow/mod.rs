//! `sluice flow`.

mod top;

use super::output::{Columns, fields, line, lines, list};
use super::{CliError, CliSession};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use control::socket::query::{Answer, FlowFlush, FlowList, Query};
use ipnet::IpNet;
use std::net::IpAddr;
use vswitch_core::config::protocol::{FlowCursor, FlowDescription, FlowSelection};
use vswitch_core::observe::flow_dump::STATE_NAMES;

/// Sessions requested at once.
const FLOWS_PER_PAGE: usize = 1000;

/// The verbs of `sluice flow`.
#[derive(Debug, Subcommand)]
pub(crate) enum FlowVerb {
    /// List live sessions: `sluice flow list --eni eni-web --port 443 --state established`. With --json each is printed
    /// as it is found.
    List {
        #[command(flatten)]
        filter: Filter,
        /// The most sessions to show; all if absent.
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Show everything about some sessions: `sluice flow show --eni eni-web --address 10.0.1.20 --port 55288`.
    Show {
        #[command(flatten)]
        filter: Filter,
        /// The most sessions to show.
        #[arg(long, default_value_t = 10)]
        limit: usize,
    },
    /// End sessions; later packets of theirs are evaluated as new. Returns once every worker has ended them.
    Flush {
        #[command(flatten)]
        filter: Filter,
        /// End all sessions, if no filter is given.
        #[arg(long)]
        all: bool,
    },
    /// Show who opens and holds most sessions, by two looks at the counters.
    Top(top::FlowTopArguments),
}

/// Selects sessions that match all given conditions.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only those of this ENI.
    #[arg(long)]
    eni: Option<String>,
    /// Only those with an end at this address or inside this prefix.
    #[arg(long, value_name = "ADDRESS|PREFIX", value_parser = prefix)]
    address: Option<IpNet>,
    /// Only those of TCP or UDP with this port at an end.
    #[arg(long)]
    port: Option<u16>,
    /// Only those of this protocol: tcp, udp, icmp, icmpv6, gre or a number.
    #[arg(long)]
    protocol: Option<String>,
    /// Only those in this state.
    #[arg(long, value_parser = PossibleValuesParser::new(STATE_NAMES))]
    state: Option<String>,
    /// Only those that this rule admitted.
    #[arg(long)]
    rule: Option<String>,
}

impl Filter {
    fn selection(self) -> Result<FlowSelection, CliError> {
        Ok(FlowSelection {
            eni: self.eni.as_deref().map(Into::into),
            prefix: self.address,
            port: self.port,
            protocol: self.protocol.as_deref().map(super::explain::protocol_number).transpose()?,
            state: self.state,
            rule: self.rule.as_deref().map(Into::into),
        })
    }
}

fn prefix(text: &str) -> Result<IpNet, String> {
    let bare = text.parse::<IpAddr>().map(IpNet::from);
    bare.or_else(|_| text.parse()).map_err(|_| format!("{text} is neither an address nor a prefix"))
}

pub(super) fn run(session: &CliSession, verb: FlowVerb) -> Result<(), CliError> {
    match verb {
        FlowVerb::List { filter, limit } => {
            let mut listing = Listing::begin(session.output.json);
            walk(session, &filter.selection()?, limit, |flows| listing.page(&flows))?;
            listing.end();
            Ok(())
        }
        FlowVerb::Show { filter, limit } => {
            let mut all = Vec::new();
            walk(session, &filter.selection()?, Some(limit), |flows| all.extend(flows))?;
            session.output.show(&all, |all| match all.as_slice() {
                [] => "none".into(),
                all => all.iter().map(told).collect::<Vec<_>>().join("\n\n"),
            });
            Ok(())
        }
        FlowVerb::Flush { filter, all } => flush(session, filter.selection()?, all),
        FlowVerb::Top(arguments) => top::run(session, &arguments),
    }
}

/// Requests page after page, until there are no more sessions or as many as wanted.
fn walk(
    session: &CliSession,
    selection: &FlowSelection,
    limit: Option<usize>,
    mut page: impl FnMut(Vec<FlowDescription>),
) -> Result<(), CliError> {
    let mut client = session.connect()?;
    let (mut cursor, mut left) = (None, limit.unwrap_or(usize::MAX));
    while left > 0 {
        let limit = Some(left.min(FLOWS_PER_PAGE));
        let query = Query::Flows(FlowList { selection: Some(selection.clone()), cursor, limit });
        let Answer::Flows { mut flows, next } = client.ask(&query)? else { break };
        // Both sessions of a connection are on the same page.
        flows.truncate(left);
        left -= flows.len();
        page(flows);
        match next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    Ok(())
}

fn flush(session: &CliSession, selection: FlowSelection, all: bool) -> Result<(), CliError> {
    // A forgotten filter must not end every session of the switch.
    if selection == FlowSelection::default() && !all {
        return Err(CliError::Usage("select the sessions to end with a filter, or give --all".into()));
    }
    let mut client = session.connect()?;
    let (mut ended, mut cursor): (u64, Option<FlowCursor>) = (0, None);
    loop {
        let query = Query::FlowFlush(FlowFlush { selection: selection.clone(), cursor });
        let Answer::Flushed { flows, next } = client.ask(&query)? else { break };
        ended += flows;
        match next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    session.output.show(&serde_json::json!({ "ended": ended }), |_| match ended {
        1 => "1 session ended".into(),
        ended => format!("{ended} sessions ended"),
    });
    Ok(())
}

/// A JSON array whose elements are printed as they arrive, or a table with columns aligned over all pages.
struct Listing {
    json: bool,
    is_empty: bool,
    table: Columns<10>,
}

impl Listing {
    fn begin(json: bool) -> Self {
        Self { json, is_empty: true, table: Columns::under(HEADINGS) }
    }

    fn page(&mut self, flows: &[FlowDescription]) {
        for flow in flows {
            let is_first = std::mem::take(&mut self.is_empty);
            if self.json {
                let text = serde_json::to_string(flow).unwrap_or_else(|error| error.to_string());
                line(&format!("{}{text}", if is_first { "[" } else { "," }));
            } else {
                self.table.push(row(flow));
            }
        }
    }

    fn end(self) {
        match (self.json, self.is_empty) {
            (true, true) => line("[]"),
            (true, false) => line("]"),
            (false, true) => line("none"),
            (false, false) => lines(self.table.lines()),
        }
    }
}

const HEADINGS: [&str; 10] =
    ["eni", "opened", "protocol", "source", "destination", "state", "by", "idle", "packets", "bytes"];

fn row(flow: &FlowDescription) -> [String; 10] {
    [
        flow.eni.to_string(),
        flow.opened.to_string(),
        protocol_name(flow.protocol),
        endpoint(flow.source, flow.source_port, flow.protocol),
        endpoint(flow.destination, flow.destination_port, flow.protocol),
        flow.state.clone(),
        admitted_by(flow),
        format!("{:.1} of {} s", flow.idle_ms as f64 / 1e3, flow.timeout_s),
        list(flow.packets),
        list(flow.bytes),
    ]
}

fn told(flow: &FlowDescription) -> String {
    let [forward, backward] = [0, 1].map(|way| format!("{} packets, {} bytes", flow.packets[way], flow.bytes[way]));
    let generation = match flow.generation {
        Some(generation) => generation.to_string(),
        None => "before the present rules; its next packet is evaluated by them".into(),
    };
    fields(&[
        ("eni", flow.eni.to_string()),
        ("opened", flow.opened.to_string()),
        ("protocol", protocol_name(flow.protocol)),
        ("source", endpoint(flow.source, flow.source_port, flow.protocol)),
        ("destination", endpoint(flow.destination, flow.destination_port, flow.protocol)),
        ("state", flow.state.clone()),
        ("admitted by", admitted_by(flow)),
        ("generation", generation),
        ("age", seconds(flow.age_ms)),
        ("idle", format!("{} of {} s", seconds(flow.idle_ms), flow.timeout_s)),
        ("from its opener", forward),
        ("to its opener", backward),
    ])
}

fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1e3)
}

/// The rule or step that admits a session. After a change it is unknown until the session's next packet.
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

fn endpoint(address: IpAddr, port: u16, protocol: u8) -> String {
    match protocol {
        6 | 17 => std::net::SocketAddr::new(address, port).to_string(),
        _ => address.to_string(),
    }
}
