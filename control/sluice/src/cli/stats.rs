//! `sluice stats`.

use super::output::{columns, line};
use super::{CliError, CliSession};
use clap::Args;
use control::socket::query::{Answer, Nothing, Query, StatsFilter};
use vswitch_core::config::phase_times::PhaseTimes;
use vswitch_core::config::protocol::{DirectionStats, EniStats};

/// Which counters.
#[derive(Debug, Args)]
pub(crate) struct StatsArguments {
    #[command(flatten)]
    filter: StatsFilter,
    /// Show where the workers' time goes instead: ns per packet in each phase, from one burst in 64.
    #[arg(long, conflicts_with = "eni")]
    workers: bool,
}

pub(super) fn run(session: &CliSession, arguments: StatsArguments) -> Result<(), CliError> {
    if arguments.workers {
        return tell_workers(session);
    }
    if let Answer::Stats(stats) = session.ask(Query::Stats(arguments.filter))? {
        if session.output.json {
            session.output.show(&stats, |_| String::new());
        } else {
            line(&told(&stats));
        }
    }
    Ok(())
}

fn tell_workers(session: &CliSession) -> Result<(), CliError> {
    let Answer::Status(status) = session.ask(Query::Status(Nothing {}))? else { return Ok(()) };
    let Some(forwarding) = status.forwarding else {
        return Err(CliError::Usage(format!("the forwarding plane does not answer at {}", status.link.socket)));
    };
    let phases: Vec<PhaseTimes> = forwarding.workers.iter().map(|worker| worker.phases).collect();
    session.output.show(&phases, |phases| {
        let rows = phases.iter().enumerate().map(|(number, times)| {
            let one =
                |place: usize| times.per_packet().map_or_else(|| "-".into(), |all| format!("{:.0}", all[place].1));
            [number.to_string(), one(0), one(1), one(2), one(3), times.packets.to_string()]
        });
        columns(["worker", "receive ns", "admit ns", "judge ns", "send ns", "packets timed"], rows)
    });
    Ok(())
}

fn told(stats: &[EniStats]) -> String {
    if stats.is_empty() {
        return "none".into();
    }
    let headings = ["eni", "sessions", "direction", "passed", "bytes", "answered", "dropped"];
    let rows = stats.iter().flat_map(|eni| {
        let row = |sessions: String, direction: &str, counters: &DirectionStats| {
            let drops: Vec<String> = counters.drops.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            [
                eni.eni.to_string(),
                sessions,
                direction.to_owned(),
                counters.packets.to_string(),
                counters.bytes.to_string(),
                counters.answered.to_string(),
                if drops.is_empty() { "0".into() } else { drops.join(", ") },
            ]
        };
        [row(eni.flows.to_string(), "egress", &eni.egress), row(String::new(), "ingress", &eni.ingress)]
    });
    columns(headings, rows)
}
