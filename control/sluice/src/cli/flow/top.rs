//! `sluice flow top`: who holds and opens most sessions.

use super::super::output::columns;
use super::super::{CliError, CliSession};
use clap::Args;
use control::socket::query::{Answer, Nothing, Query, StatsFilter};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use vswitch_core::config::limits::TABLE_WARNING_PERCENT;
use vswitch_core::config::protocol::{EniStats, WorkerStatus};

/// Options of `sluice flow top`.
#[derive(Debug, Args)]
pub(crate) struct FlowTopArguments {
    /// Seconds between the two looks.
    #[arg(long, default_value_t = 1.0)]
    interval_s: f64,
    /// Most ENIs to show.
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

/// What is shown.
#[derive(Debug, Serialize)]
struct Top {
    interval_s: f64,
    warnings: Vec<String>,
    enis: Vec<Talker>,
}

/// One ENI.
#[derive(Debug, Serialize)]
struct Talker {
    eni: String,
    sessions: u64,
    /// How many sessions it may hold.
    sessions_max: u64,
    /// Its share of its worker's table, percent.
    table_percent: f64,
    new_per_s: f64,
    /// Packets per second that passed, in both directions.
    packets_per_s: f64,
    bits_per_s: f64,
    drops_per_s: f64,
}

pub(super) fn run(session: &CliSession, arguments: &FlowTopArguments) -> Result<(), CliError> {
    if !(0.05..=3600.0).contains(&arguments.interval_s) {
        return Err(CliError::Usage("choose an interval from 0.05 to 3600 seconds".into()));
    }
    let started = Instant::now();
    let before = stats(session)?;
    std::thread::sleep(Duration::from_secs_f64(arguments.interval_s));
    let after = stats(session)?;
    // The time is measured, since the second look takes time of its own.
    let interval_s = started.elapsed().as_secs_f64();
    let workers = match session.ask(Query::Status(Nothing {}))? {
        Answer::Status(status) => status.forwarding.map_or_else(Vec::new, |forwarding| forwarding.workers),
        _ => Vec::new(),
    };
    let mut top = top_of(&before, after.into_values(), &workers, interval_s);
    top.enis.truncate(arguments.limit);
    session.output.show(&top, told);
    Ok(())
}

fn stats(session: &CliSession) -> Result<BTreeMap<String, EniStats>, CliError> {
    Ok(match session.ask(Query::Stats(StatsFilter { eni: None }))? {
        Answer::Stats(stats) => stats.into_iter().map(|stats| (stats.eni.to_string(), stats)).collect(),
        _ => BTreeMap::new(),
    })
}

/// Sorted by new sessions, then by sessions.
fn top_of(
    before: &BTreeMap<String, EniStats>,
    after: impl Iterator<Item = EniStats>,
    workers: &[WorkerStatus],
    interval_s: f64,
) -> Top {
    // The tables of all workers have the same size.
    let room = workers.first().map_or(0, |worker| worker.flows_max);
    let mut enis: Vec<Talker> = after
        .map(|now| {
            let past = before.get(now.eni.as_str());
            let rate = |count: &dyn Fn(&EniStats) -> u64| {
                // The counters of an ENI that was attached again start from zero.
                let past = past.map_or(0, count);
                count(&now).checked_sub(past).unwrap_or(count(&now)) as f64 / interval_s
            };
            Talker {
                eni: now.eni.to_string(),
                sessions: now.flows,
                sessions_max: now.flows_max,
                table_percent: percent(now.flows, room as u64),
                new_per_s: rate(&|stats| stats.flows_opened),
                packets_per_s: rate(&|stats| stats.egress.packets + stats.ingress.packets),
                bits_per_s: rate(&|stats| 8 * (stats.egress.bytes + stats.ingress.bytes)),
                drops_per_s: rate(&|stats| {
                    stats.egress.drops.values().sum::<u64>() + stats.ingress.drops.values().sum::<u64>()
                }),
            }
        })
        .collect();
    enis.sort_by(|one, other| {
        (other.new_per_s, other.sessions)
            .partial_cmp(&(one.new_per_s, one.sessions))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let full = enis.iter().filter(|eni| percent(eni.sessions, eni.sessions_max) >= TABLE_WARNING_PERCENT as f64);
    let full_enis =
        full.map(|eni| format!("{} holds {} of the {} sessions it may", eni.eni, eni.sessions, eni.sessions_max));
    let full_workers = workers.iter().enumerate().filter_map(|(number, worker)| {
        let is_full = worker.table_percent >= TABLE_WARNING_PERCENT;
        is_full.then(|| format!("the session table of worker {number} is {} % full", worker.table_percent))
    });
    Top { interval_s, warnings: full_workers.chain(full_enis).collect(), enis }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

fn told(top: &Top) -> String {
    let headings = ["eni", "new/s", "sessions", "of its own", "of the table", "packets/s", "Mbit/s", "drops/s"];
    let rows = top.enis.iter().map(|eni| {
        [
            eni.eni.clone(),
            format!("{:.1}", eni.new_per_s),
            eni.sessions.to_string(),
            format!("{:.1} %", percent(eni.sessions, eni.sessions_max)),
            format!("{:.1} %", eni.table_percent),
            format!("{:.0}", eni.packets_per_s),
            format!("{:.2}", eni.bits_per_s / 1e6),
            format!("{:.1}", eni.drops_per_s),
        ]
    });
    let table = if top.enis.is_empty() { "none".to_owned() } else { columns(headings, rows) };
    top.warnings.iter().fold(table, |text, warning| format!("{text}\nWARNING: {warning}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(eni: &str, flows: u64, opened: u64) -> EniStats {
        EniStats {
            eni: eni.into(),
            flows,
            flows_max: 100,
            flows_opened: opened,
            flows_evicted: 0,
            nat_mappings: 0,
            nat_port_blocks: 0,
            asked: Default::default(),
            egress: Default::default(),
            ingress: Default::default(),
        }
    }

    #[test]
    fn rates_shares_and_warnings_come_of_two_looks() {
        let before = [stats("eni-a", 10, 50), stats("eni-b", 70, 500)];
        let before = before.into_iter().map(|stats| (stats.eni.to_string(), stats)).collect();
        let after = [stats("eni-a", 20, 90), stats("eni-b", 80, 510), stats("eni-c", 5, 5)];
        let worker = |flows| WorkerStatus {
            core: None,
            enis: 1,
            flows,
            flows_max: 200,
            table_percent: flows / 2,
            turns_busy: 0,
            turns_idle: 0,
            sleeps: 0,
            phases: Default::default(),
        };
        let top = top_of(&before, after.into_iter(), &[worker(100), worker(160)], 2.0);
        let told: Vec<(&str, f64, f64)> =
            top.enis.iter().map(|eni| (eni.eni.as_str(), eni.new_per_s, eni.table_percent)).collect();
        assert_eq!(told, [("eni-a", 20.0, 10.0), ("eni-b", 5.0, 40.0), ("eni-c", 2.5, 2.5)]);
        assert_eq!(
            top.warnings,
            ["the session table of worker 1 is 80 % full", "eni-b holds 80 of the 100 sessions it may"]
        );
    }
}
