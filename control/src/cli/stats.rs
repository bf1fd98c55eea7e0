//! `sluice stats`.

use super::output::{columns, line};
use super::{CliError, Session};
use crate::query::{Answer, Query, StatsFilter};
use clap::Args;
use vswitch_core::protocol::{DirectionStats, EniStats};

/// Which counters.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only those of this ENI.
    eni: Option<String>,
}

pub(super) fn run(session: &Session, arguments: Arguments) -> Result<(), CliError> {
    if let Answer::Stats(stats) = session.ask(Query::Stats(StatsFilter { eni: arguments.eni }))? {
        if session.output.json {
            session.output.show(&stats, |_| String::new());
        } else {
            line(&told(&stats));
        }
    }
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
