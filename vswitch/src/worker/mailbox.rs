//! Commands of the control thread to a worker, and the answers, in bounded queues that are served within a turn.

use crate::port::Port;
use crate::worker::stats::TurnStats;
use crossbeam::queue::{ArrayQueue, SegQueue};
use parking_lot::Mutex;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Thread;
use vswitch_core::compile::snapshot::Snapshot;
use vswitch_core::config::desired::Direction;
use vswitch_core::config::explanation::DecisionReport;
use vswitch_core::config::ids::EniIndex;
use vswitch_core::config::limits::TABLE_WARNING_PERCENT;
use vswitch_core::config::phase_times::PhaseTimes;
use vswitch_core::config::protocol::{EniStats, FlowSelection, PacketDescription};
use vswitch_core::config::refusal::Refusal;
use vswitch_core::datapath::shard::Shard;
use vswitch_core::hw::time::Time;
use vswitch_core::observe::flow_dump::FlowPage;
use vswitch_core::packet::verdict::Verdict;

/// Commands that may wait for one worker. The control thread waits for room, so this only limits how far it runs ahead.
const COMMANDS_MAX: usize = 64;
/// Answers that may wait for the control thread, which sends one query at a time and may have given up on a few.
const ANSWERS_MAX: usize = 64;

/// A command to a worker.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Take over this port. It stays closed until the snapshot is in force that names the slot for the ENI.
    Attach {
        /// The port's slot.
        slot: u32,
        /// The ENI behind it.
        eni: EniIndex,
        /// Distinguishes the ENIs that have had this index.
        eni_generation: u32,
        /// The number of the port's rx queue.
        rx_queue: usize,
        /// The open port, or an rx queue of it.
        port: Box<dyn Port>,
        /// The longest frame that may be sent to it, bytes.
        frame_bytes_max: usize,
    },
    /// The port's MTU has changed.
    Adjust {
        /// The port's slot.
        slot: u32,
        /// The longest frame that may be sent to it, bytes.
        frame_bytes_max: usize,
    },
    /// Return the port, if it is not down, and free the slot.
    Detach {
        /// The port's slot.
        slot: u32,
        /// Repeated in the answer.
        ticket: u64,
    },
    /// Answer a query.
    Query {
        /// The query.
        query: WorkerQuery,
        /// Repeated in the answer.
        ticket: u64,
    },
}

/// A query about a worker's shard.
#[derive(Clone, Debug)]
pub enum WorkerQuery {
    /// The load of the worker.
    Load,
    /// The counters of these ENIs. They must be few, since packets wait meanwhile.
    Stats(Vec<EniIndex>),
    /// Lists some sessions.
    Flows {
        /// Which sessions.
        selection: FlowSelection,
        /// Where in the tables to begin.
        place: u64,
        /// The most to return.
        limit: usize,
    },
    /// Ends some sessions.
    Flush {
        /// Which sessions.
        selection: FlowSelection,
        /// Where in the tables to begin.
        place: u64,
    },
    /// Explains what would happen to a packet.
    Explain {
        /// The ENI that evaluates it.
        eni: EniIndex,
        /// The direction.
        direction: Direction,
        /// The packet.
        packet: Box<PacketDescription>,
    },
}

impl WorkerQuery {
    pub(crate) fn run(self, shard: &mut Shard, snapshot: &Snapshot, turn_stats: TurnStats, now: Time) -> WorkerAnswer {
        match self {
            Self::Load => WorkerAnswer::Load {
                flows: shard.connection_count(snapshot),
                flows_max: shard.flows_max(),
                turn_stats,
                phases: shard.stopwatch.times(),
            },
            Self::Stats(enis) => {
                WorkerAnswer::Stats(enis.iter().filter_map(|eni| shard.stats(snapshot, *eni)).collect())
            }
            Self::Flows { selection, place, limit } => {
                WorkerAnswer::Flows(shard.list_flows((snapshot, now), &selection, (place, limit)))
            }
            Self::Flush { selection, place } => {
                let (flows, next) = shard.flush_flows((snapshot, now), &selection, place);
                WorkerAnswer::Flushed { flows, next }
            }
            Self::Explain { eni, direction, packet } => {
                WorkerAnswer::Explained(shard.explain(snapshot, (eni, direction), &packet, now))
            }
        }
    }
}

/// A worker's answer.
#[derive(Debug)]
pub enum WorkerAnswer {
    /// To [`WorkerCommand::Detach`]: the port, unless it was down.
    Detached(Option<Box<dyn Port>>),
    /// To [`WorkerQuery::Load`].
    Load {
        /// How many sessions it has.
        flows: usize,
        /// How many sessions it has room for.
        flows_max: usize,
        /// Counts of its turns.
        turn_stats: TurnStats,
        /// Where its time goes.
        phases: PhaseTimes,
    },
    /// To [`WorkerQuery::Stats`].
    Stats(Vec<EniStats>),
    /// To [`WorkerQuery::Flows`].
    Flows(FlowPage),
    /// To [`WorkerQuery::Flush`].
    Flushed {
        /// How many sessions ended.
        flows: u64,
        /// Where to continue; `None` at the end of the tables.
        next: Option<u64>,
    },
    /// To [`WorkerQuery::Explain`].
    Explained(Result<(Option<DecisionReport>, Verdict), Refusal>),
}

/// A failed port. The worker returns it, because closing takes time.
#[derive(Debug)]
pub struct PortFailure {
    /// The port's slot.
    pub slot: u32,
    /// The failed port.
    pub port: Box<dyn Port>,
    /// The reason.
    pub error: io::Error,
}

/// The queues between the control thread and one worker.
pub struct Mailbox {
    commands: ArrayQueue<WorkerCommand>,
    answers: ArrayQueue<(u64, WorkerAnswer)>,
    /// Bounded by the number of ports: a failed port is reported once and is then gone from the worker until it is
    /// attached again, which happens only after the report was read.
    failures: SegQueue<PortFailure>,
    /// The thread that waits for an answer.
    waiter: Mutex<Option<Thread>>,
    /// Wakes the control thread when it waits for its sockets.
    control: Option<Arc<mio::Waker>>,
    /// The fill level of the worker's connection table, percent.
    table_percent: AtomicUsize,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Mailbox").field("commands", &self.commands.len()).finish_non_exhaustive()
    }
}

impl Mailbox {
    /// An empty mailbox whose failures wake the control thread through `control`.
    pub fn new(control: Option<Arc<mio::Waker>>) -> Self {
        Self {
            commands: ArrayQueue::new(COMMANDS_MAX),
            answers: ArrayQueue::new(ANSWERS_MAX),
            failures: SegQueue::new(),
            waiter: Mutex::default(),
            control,
            table_percent: AtomicUsize::new(0),
        }
    }

    /// The fill level of the worker's connection table, percent.
    pub fn table_percent(&self) -> usize {
        self.table_percent.load(Ordering::Relaxed)
    }

    /// Reports the fill level of the worker's table, and wakes the control thread if it calls for a warning.
    pub(crate) fn note_table(&self, percent: usize) {
        // Exchanged rather than stored, so that the warning wakes the control thread once per crossing of the limit.
        let before = self.table_percent.swap(percent, Ordering::Relaxed);
        if before < TABLE_WARNING_PERCENT && percent >= TABLE_WARNING_PERCENT {
            self.wake_control();
        }
    }

    fn wake_control(&self) {
        if let Some(control) = &self.control {
            // This only fails if the wake-up is already pending.
            let _ = control.wake();
        }
    }

    /// Queues a command, or returns it if there is no room. The caller rings the doorbell.
    ///
    /// # Errors
    /// The command, so that it can be tried again.
    pub fn command(&self, command: WorkerCommand) -> Result<(), WorkerCommand> {
        // Known before the command can be answered, so that the answer finds whom to wake.
        *self.waiter.lock() = Some(std::thread::current());
        self.commands.push(command)
    }

    /// The answer with this ticket, if it has arrived. Older ones, which nobody waits for any more, are discarded.
    pub fn take_answer(&self, ticket: u64) -> Option<WorkerAnswer> {
        while let Some((number, answer)) = self.answers.pop() {
            if number == ticket {
                return Some(answer);
            }
        }
        None
    }

    /// The next failure.
    pub fn take_failure(&self) -> Option<PortFailure> {
        self.failures.pop()
    }

    pub(crate) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    pub(crate) fn next_command(&self) -> Option<WorkerCommand> {
        self.commands.pop()
    }

    pub(crate) fn answer(&self, ticket: u64, answer: WorkerAnswer) {
        // The queue is only full if the control thread gave up on its queries long ago.
        self.answers.force_push((ticket, answer));
        if let Some(waiter) = &*self.waiter.lock() {
            waiter.unpark();
        }
    }

    pub(crate) fn answer_detached(&self, ticket: u64, port: Option<Box<dyn Port>>) {
        self.answer(ticket, WorkerAnswer::Detached(port));
    }

    pub(crate) fn report_failure(&self, failure: PortFailure) {
        self.failures.push(failure);
        self.wake_control();
    }
}
