//! `sluice explain`.

use super::{CliError, CliSession};
use clap::Args;
use control::socket::query::{Answer, EniShow, Explain, Query};
use std::net::IpAddr;
use vswitch_core::config::desired::Policy;
use vswitch_core::config::explanation::Explanation;
use vswitch_core::config::ids::EniId;
use vswitch_core::config::protocol::PacketDescription;

/// A packet: `sluice explain --from eni-client --destination 10.0.1.10 --protocol tcp --port 80`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// The ENI whose guest sends it.
    #[arg(long, required_unless_present = "to")]
    from: Option<String>,
    /// The ENI at which it arrives, for a packet that comes from elsewhere.
    #[arg(long, conflicts_with = "from")]
    to: Option<String>,
    /// Source address; the sender's primary one if absent.
    #[arg(long, required_unless_present = "from")]
    source: Option<IpAddr>,
    /// Destination address; the receiver's primary one if absent.
    #[arg(long, required_unless_present = "to")]
    destination: Option<IpAddr>,
    /// tcp, udp, icmp, icmpv6, gre or a number.
    #[arg(long, default_value = "tcp")]
    protocol: String,
    /// Destination port.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Source port.
    #[arg(long, default_value_t = 49_152)]
    source_port: u16,
}

pub(super) fn run(session: &CliSession, arguments: ExplainArguments) -> Result<(), CliError> {
    let source = address(session, arguments.source, arguments.from.as_deref(), arguments.destination)?;
    let destination = address(session, arguments.destination, arguments.to.as_deref(), arguments.source)?;
    let protocol = protocol_number(&arguments.protocol)?;
    let has_ports = matches!(protocol, 6 | 17);
    let packet = PacketDescription {
        from: arguments.from.map(EniId::from),
        to: arguments.to.map(EniId::from),
        protocol,
        source,
        destination,
        source_port: if has_ports { arguments.source_port } else { 0 },
        destination_port: arguments.port,
    };
    if let Answer::Explanation(explanation) = session.ask(Query::Explain(Explain { packet }))? {
        session.output.show(&*explanation, told);
    }
    Ok(())
}

/// The given address, or the first address of an ENI of the other end's family.
fn address(
    session: &CliSession,
    given: Option<IpAddr>,
    eni: Option<&str>,
    other: Option<IpAddr>,
) -> Result<IpAddr, CliError> {
    if let Some(address) = given {
        return Ok(address);
    }
    let eni = eni.ok_or_else(|| CliError::Usage("give --source and --destination".into()))?;
    match session.ask(Query::EniShow(EniShow { eni: eni.to_owned() }))? {
        Answer::Eni(eni) if other.is_some_and(|other| other.is_ipv6()) => {
            let first = eni.ipv6_addresses.first().copied().map(IpAddr::V6);
            first.ok_or_else(|| CliError::Usage(format!("{} has no IPv6 address", eni.id)))
        }
        Answer::Eni(eni) => Ok(eni.primary_ip.into()),
        _ => Err(CliError::Usage(format!("no answer about {eni}"))),
    }
}

pub(super) fn protocol_number(text: &str) -> Result<u8, CliError> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(6),
        "udp" => Ok(17),
        "icmp" => Ok(1),
        "icmpv6" => Ok(58),
        "gre" => Ok(47),
        number => number.parse().map_err(|_| {
            CliError::Usage(format!("{text} is not a protocol: write tcp, udp, icmp, icmpv6, gre or a number"))
        }),
    }
}

fn told(explanation: &Explanation) -> String {
    let mut lines: Vec<String> = explanation
        .decisions
        .iter()
        .map(|decision| {
            let policy = if decision.policy == Policy::Accept { "accept" } else { "drop" };
            let ground = match (&decision.rule, &decision.group) {
                (Some(rule), Some(group)) => format!("rule {rule} of {group}"),
                (None, Some(group)) => format!("both are members of {group}"),
                _ => format!("step {}", decision.stage),
            };
            format!("{} {}: {policy}, by {ground}", decision.eni, decision.direction)
        })
        .collect();
    lines.push(match (explanation.delivered, explanation.verdict.as_str()) {
        (true, _) => "delivered".into(),
        (false, "answer") => "answered by the virtual router".into(),
        (false, reason) => format!("dropped: {reason}"),
    });
    lines.join("\n")
}
