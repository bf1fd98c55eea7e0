//! Models of what the control thread and workers share, run through every order in which they can meet:
//! `scripts/nightly models`. The rings, the doorbell and the publication are the product's; a worker is reduced to the order
//! in which `Worker::turn` and `WorkerLoop::sleep` touch them.
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use loom::sync::{Mutex, Notify};
use loom::thread;
use std::sync::{Arc, LazyLock};
use vswitch::exchange::doorbell::{Doorbell, Waker};
use vswitch::exchange::handoff::{self, Handoff, WorkerLink, WorkerLinks};
use vswitch::exchange::publish::{Publication, Published};
use vswitch::worker::pause::PauseRequest;
use vswitch_core::compile::compile;
use vswitch_core::compile::snapshot::Snapshot;
use vswitch_core::config::desired::Desired;
use vswitch_core::config::ids::EniIndex;
use vswitch_core::packet::{FrameBuffer, Packet};
use vswitch_core::tables::cow_array::CowArray;

static SNAPSHOT: LazyLock<Arc<Snapshot>> = LazyLock::new(|| Arc::new(compile(&Desired::default(), 1).unwrap()));

fn published(sequence: u64) -> Published {
    Published { sequence, snapshot: Arc::clone(&SNAPSHOT), locations: CowArray::default() }
}

/// A packet that egress let pass by the snapshot of this sequence.
fn evaluated_by(sequence: u64) -> Handoff {
    let packet = Packet::new(FrameBuffer::with_capacity(0));
    Handoff { packet, to: EniIndex(0), eni_generation: sequence as u32 }
}

/// What workers and the control thread share.
#[derive(Clone)]
struct Shared {
    publication: Arc<Publication>,
    doorbells: Arc<[Doorbell]>,
}

/// A worker as far as others meet it.
struct ModelWorker {
    number: usize,
    shared: Shared,
    links: WorkerLinks,
    wake: Arc<Notify>,
    current: Arc<Published>,
    drained: u64,
}

/// Two workers, and what they share.
fn two_workers() -> (Shared, [ModelWorker; 2]) {
    let wakes = [Arc::new(Notify::new()), Arc::new(Notify::new())];
    let doorbells = wakes.each_ref().map(|wake| Doorbell::new(Some(Waker::of(Arc::clone(wake)))));
    let shared = Shared { publication: Arc::new(Publication::new(2, published(0))), doorbells: Arc::new(doorbells) };
    let worker = |((number, links), wake)| {
        let current = shared.publication.newest();
        ModelWorker { number, shared: shared.clone(), links, wake, current, drained: 0 }
    };
    let workers: Vec<_> = handoff::connect(2).into_iter().enumerate().zip(wakes).map(worker).collect();
    (shared, workers.try_into().ok().unwrap())
}

impl ModelWorker {
    /// In the order of `Worker::turn`. What is taken from the ring is given back; how much that was.
    fn turn(&mut self, poll_ports: impl FnOnce(&Self)) -> usize {
        let publication = Arc::clone(&self.shared.publication);
        if publication.is_newer_than(self.current.sequence) {
            self.current = publication.newest();
            publication.cross(self.number, self.current.sequence);
        }
        let drain = publication.drain_requested();
        let link = self.inbound();
        let mut taken = 0;
        for _ in 0..link.packets.len() {
            let Some(handoff) = link.packets.pop() else { break };
            link.returns.push(handoff.packet.buffer).unwrap();
            taken += 1;
        }
        poll_ports(self);
        if drain != self.drained {
            self.drained = drain;
            publication.drained(self.number, drain);
        }
        taken
    }

    /// In the order of `WorkerLoop::sleep`.
    fn sleep(&self) {
        let publication = &self.shared.publication;
        self.shared.doorbells[self.number].declare_asleep();
        let has_input = publication.is_newer_than(self.current.sequence)
            || publication.drain_requested() != self.drained
            || !self.inbound().packets.is_empty();
        if !has_input {
            self.wake.wait();
        }
        self.shared.doorbells[self.number].declare_awake();
    }

    fn inbound(&self) -> Arc<WorkerLink> {
        Arc::clone(self.links.inbound[1 - self.number].as_ref().unwrap())
    }

    /// Hands a packet to the other worker.
    fn hand_off(&self) {
        let link = self.links.outbound[1 - self.number].as_ref().unwrap();
        link.packets.push(evaluated_by(self.current.sequence)).unwrap();
        self.shared.doorbells[1 - self.number].ring();
    }
}

impl Shared {
    /// In the order of the control thread.
    fn publish(&self) {
        self.publication.publish(published(1));
        self.ring_all();
        while self.publication.first_not_crossed(2, 1).is_some() {
            thread::park();
        }
    }

    fn drain(&self) {
        self.publication.request_drain(1);
        self.ring_all();
        while self.publication.first_not_drained(2, 1).is_some() {
            thread::park();
        }
    }

    fn ring_all(&self) {
        self.doorbells.iter().for_each(Doorbell::ring);
    }
}

/// Runs these threads, of which the control thread is one: `loom` confuses who is unparked with who waits for an end.
fn together(threads: Vec<Box<dyn FnOnce() + Send>>) {
    let running: Vec<_> = threads.into_iter().map(thread::spawn).collect();
    running.into_iter().for_each(|thread| thread.join().unwrap());
}

/// One worker evaluates packets and hands them to another. Once a change is drained, none that the old snapshot let pass is
/// left in the ring between them, and nobody holds the old snapshot.
#[test]
fn nothing_by_the_old_snapshot_is_on_its_way_once_a_change_is_drained() {
    loom::model(|| {
        let (shared, [mut sender, mut receiver]) = two_workers();
        let link = receiver.inbound();
        let send = move || {
            sender.turn(ModelWorker::hand_off);
            while sender.drained == 0 {
                sender.sleep();
                sender.turn(|_| ());
            }
        };
        let receive = move || {
            while receiver.drained == 0 {
                receiver.turn(|_| ());
                if receiver.drained == 0 {
                    receiver.sleep();
                }
            }
        };
        let change = move || {
            shared.publish();
            shared.drain();
            while let Some(handoff) = link.packets.pop() {
                assert_eq!(handoff.eni_generation, 1, "evaluated by the old snapshot");
            }
            assert_eq!(shared.publication.free_retired(), 0, "the old snapshot is held");
        };
        together(vec![Box::new(send), Box::new(receive), Box::new(change)]);
    });
}

/// A port's ring that the kernel empties when it likes: by which snapshot the packets in it were evaluated.
#[derive(Default)]
struct PortRing {
    inside: Mutex<Vec<u64>>,
    is_closed: Mutex<bool>,
}

impl PortRing {
    /// The kernel takes what is there; nothing of a port that is closed.
    fn take(&self) -> Vec<u64> {
        let is_closed = self.is_closed.lock().unwrap();
        if *is_closed { Vec::new() } else { std::mem::take(&mut *self.inside.lock().unwrap()) }
    }
}

/// The only worker's port has a packet by the old snapshot in its ring, and the kernel takes it at any moment or not
/// in time. Once a change is drained and the control thread has closed the ports that were given to it, none can come
/// out any more.
#[test]
fn what_a_port_holds_is_out_or_ends_with_it_once_a_change_is_drained() {
    loom::model(|| {
        let (shared, [mut worker, _other]) = two_workers();
        let ring = Arc::new(PortRing::default());
        let (failed, is_replied) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(false)));
        let (its_ring, its_failed, publication) =
            (Arc::clone(&ring), Arc::clone(&failed), Arc::clone(&shared.publication));
        // In the order of `Worker::turn` and `Worker::drain`; a single try before the port is given back.
        let turn = move || {
            its_ring.inside.lock().unwrap().push(worker.current.sequence);
            while worker.drained == 0 {
                if publication.is_newer_than(worker.current.sequence) {
                    worker.current = publication.newest();
                    publication.cross(0, worker.current.sequence);
                }
                let drain = publication.drain_requested();
                if drain != worker.drained && drain <= worker.current.sequence {
                    let is_held = !its_ring.inside.lock().unwrap().is_empty();
                    if is_held {
                        *its_failed.lock().unwrap() = Some(Arc::clone(&its_ring));
                    }
                    worker.drained = drain;
                    publication.drained(0, drain);
                } else {
                    worker.sleep();
                }
            }
        };
        let (kernels_ring, kernels_view) = (Arc::clone(&ring), Arc::clone(&is_replied));
        let kernel = move || {
            let is_replied = kernels_view.lock().unwrap();
            let taken = kernels_ring.take();
            assert!(!*is_replied || taken.iter().all(|sequence| *sequence == 1), "by the old snapshot");
        };
        let change = move || {
            shared.publication.publish(published(1));
            shared.publication.request_drain(1);
            shared.doorbells[0].ring();
            while shared.publication.first_not_crossed(1, 1).is_some() {
                thread::park();
            }
            while shared.publication.first_not_drained(1, 1).is_some() {
                thread::park();
            }
            let port: Option<Arc<PortRing>> = failed.lock().unwrap().take();
            if let Some(port) = port {
                *port.is_closed.lock().unwrap() = true;
            }
            *is_replied.lock().unwrap() = true;
        };
        together(vec![Box::new(turn), Box::new(kernel), Box::new(change)]);
    });
}

/// Whatever others put in place for a worker, it takes, though it goes to sleep: a packet in its ring, a newer snapshot.
#[test]
fn no_wake_up_is_lost() {
    loom::model(|| {
        let (shared, [sender, mut sleeper]) = two_workers();
        let sleep = move || {
            let mut taken = 0;
            loop {
                taken += sleeper.turn(|_| ());
                if taken == 1 && sleeper.current.sequence == 1 {
                    break;
                }
                sleeper.sleep();
            }
        };
        let change = move || {
            shared.publication.publish(published(1));
            shared.ring_all();
        };
        together(vec![Box::new(sleep), Box::new(move || sender.hand_off()), Box::new(change)]);
    });
}

/// A thread is asked for its worker, and the one who asked may think better of it at any moment and ask again: each time
/// the worker comes, or it goes on turning, and whoever waits for it in the end gets it though it sleeps.
#[test]
fn a_worker_that_is_asked_for_comes_or_goes_on_turning() {
    loom::model(|| {
        let wake = Arc::new(Notify::new());
        let doorbell = Arc::new(Doorbell::new(Some(Waker::of(Arc::clone(&wake)))));
        let (pause, returned) = (Arc::new(PauseRequest::default()), Arc::new((Mutex::new(false), Notify::new())));
        pause.start();
        let (its_doorbell, its_pause, its_returned) =
            (Arc::clone(&doorbell), Arc::clone(&pause), Arc::clone(&returned));
        // In the order of `WorkerLoop::run_until_paused`.
        let turn = move || {
            loop {
                while its_pause.is_running() {
                    its_doorbell.declare_asleep();
                    if its_pause.is_running() {
                        wake.wait();
                    }
                    its_doorbell.declare_awake();
                }
                if its_pause.confirm() {
                    break;
                }
            }
            assert!(!std::mem::replace(&mut *its_returned.0.lock().unwrap(), true), "it comes once");
            its_returned.1.notify();
        };
        let ask = move || {
            pause.request(&doorbell);
            let has_come = *returned.0.lock().unwrap();
            if !has_come && pause.cancel() {
                assert!(!*returned.0.lock().unwrap(), "it goes on turning");
                pause.request(&doorbell);
            }
            while !*returned.0.lock().unwrap() {
                returned.1.wait();
            }
            assert!(!pause.has_worker());
        };
        together(vec![Box::new(turn), Box::new(ask)]);
    });
}
