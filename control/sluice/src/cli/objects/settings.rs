//! `sluice settings`.

use crate::cli::output::fields;
use crate::cli::{CliError, CliSession};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use control::command::{Command, SettingsModify};
use control::socket::query::{Answer, Nothing, Query};
use vswitch_core::config::desired::{PmtudExempt, Settings, TimeoutProfile};

/// What can be done with settings.
#[derive(Debug, Subcommand)]
pub(crate) enum SettingsVerb {
    /// The settings in force.
    Show,
    /// Change settings: `sluice settings modify --smtp-closed true`.
    Modify(SettingsModifyOptions),
}

/// Changes to settings.
#[derive(Debug, Args)]
pub(crate) struct SettingsModifyOptions {
    /// Members of an open group reach each other past their outbound rules too.
    #[arg(long)]
    intra_group_egress_bypass: Option<bool>,
    /// A session that the present rules refuse ends with its next packet.
    #[arg(long)]
    cut_sessions_on_deny: Option<bool>,
    /// TCP to port 25 of Internet addresses is closed whatever the rules say.
    #[arg(long)]
    smtp_closed: Option<bool>,
    /// Later fragments share the fate of the first.
    #[arg(long)]
    follow_first_fragment: Option<bool>,
    /// A TCP packet from the middle of a connection opens a session where rules let it pass.
    #[arg(long)]
    tcp_pick_up: Option<bool>,
    /// A packet without a session is evaluated by who opened its connection, as far as flags, type and ports tell.
    #[arg(long)]
    pick_up_by_ports: Option<bool>,
    /// IPv4 packets with a source route option drop.
    #[arg(long)]
    drop_source_routed: Option<bool>,
    /// Nearly all packets take the fast path. Without it every packet takes the slow one, with the same result: for incidents.
    #[arg(long)]
    fast_path: Option<bool>,
    /// Which path-MTU reports pass whatever the rules say: those about a session of their receiver, or all.
    #[arg(long, value_parser = pmtud_parser())]
    pmtud_exempt: Option<PmtudExempt>,
    /// Whose idle timeouts sessions have that start from now on.
    #[arg(long, value_parser = profile_parser())]
    timeout_profile: Option<TimeoutProfile>,
    /// How long a TCP session may idle before its handshake is complete, seconds.
    #[arg(long)]
    tcp_half_open_timeout_s: Option<u16>,
    /// How long an ICMP session may idle, seconds.
    #[arg(long)]
    icmp_timeout_s: Option<u16>,
}

pub(crate) fn run(session: &CliSession, verb: SettingsVerb) -> Result<(), CliError> {
    match verb {
        SettingsVerb::Show => {
            if let Answer::Settings(settings) = session.ask(Query::SettingsShow(Nothing {}))? {
                session.output.show(&settings, told);
            }
            Ok(())
        }
        SettingsVerb::Modify(modify) => session.change(Command::SettingsModify(SettingsModify {
            intra_group_egress_bypass: modify.intra_group_egress_bypass,
            cut_sessions_on_deny: modify.cut_sessions_on_deny,
            smtp_closed: modify.smtp_closed,
            follow_first_fragment: modify.follow_first_fragment,
            tcp_pick_up: modify.tcp_pick_up,
            pick_up_by_ports: modify.pick_up_by_ports,
            drop_source_routed: modify.drop_source_routed,
            fast_path: modify.fast_path,
            pmtud_exempt: modify.pmtud_exempt,
            timeout_profile: modify.timeout_profile,
            tcp_half_open_timeout_s: modify.tcp_half_open_timeout_s,
            icmp_timeout_s: modify.icmp_timeout_s,
        })),
    }
}

fn told(settings: &Settings) -> String {
    fields(&[
        ("intra-group egress bypass", settings.intra_group_egress_bypass.to_string()),
        ("cut sessions on deny", settings.cut_sessions_on_deny.to_string()),
        ("smtp closed", settings.smtp_closed.to_string()),
        ("follow first fragment", settings.follow_first_fragment.to_string()),
        ("tcp pick-up", settings.tcp_pick_up.to_string()),
        ("pick-up by ports", settings.pick_up_by_ports.to_string()),
        ("drop source-routed", settings.drop_source_routed.to_string()),
        ("fast path", settings.fast_path.to_string()),
        ("pmtud exempt", settings.pmtud_exempt.name().to_owned()),
        ("timeout profile", settings.timeout_profile.name().to_owned()),
        ("tcp half-open timeout", format!("{} s", settings.tcp_half_open_timeout_s)),
        ("icmp timeout", format!("{} s", settings.icmp_timeout_s)),
    ])
}

fn pmtud_parser() -> impl TypedValueParser<Value = PmtudExempt> {
    PossibleValuesParser::new(PmtudExempt::NAMES.map(|(_, name)| name)).map(|chosen| {
        let choice = PmtudExempt::NAMES.into_iter().find(|(_, name)| *name == chosen);
        choice.map(|(choice, _)| choice).unwrap_or_default()
    })
}

fn profile_parser() -> impl TypedValueParser<Value = TimeoutProfile> {
    PossibleValuesParser::new(TimeoutProfile::NAMES.map(|(_, name)| name)).map(|chosen| {
        let profile = TimeoutProfile::NAMES.into_iter().find(|(_, name)| *name == chosen);
        profile.map(|(profile, _)| profile).unwrap_or_default()
    })
}
