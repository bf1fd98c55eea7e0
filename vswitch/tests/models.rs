//! Models of what the control thread and workers share, run through every order in which they can meet:
//! `RUSTFLAGS="--cfg loom" cargo test --release -p vswitch --test models`.
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use loom::sync::Mutex;
use loom::thread;
use std::sync::{Arc, LazyLock};
use vswitch::publish::{Publication, Published};
use vswitch_core::chunks::Chunks;
use vswitch_core::compile::compile;
use vswitch_core::desired::Desired;
use vswitch_core::snapshot::Snapshot;

static SNAPSHOT: LazyLock<Arc<Snapshot>> = LazyLock::new(|| Arc::new(compile(&Desired::default(), 1).unwrap()));

fn published(sequence: u64) -> Published {
    Published { sequence, snapshot: Arc::clone(&SNAPSHOT), places: Chunks::default() }
}

/// A worker as far as publication is concerned, in the order of `Worker::turn`.
struct Worker {
    number: usize,
    publication: Arc<Publication>,
    current: Arc<Published>,
    settled: u64,
}

impl Worker {
    fn new(number: usize, publication: &Arc<Publication>) -> Self {
        Self { number, publication: Arc::clone(publication), current: publication.newest(), settled: 0 }
    }

    /// One turn, with `empty_rings` and `poll_ports` between what is read and what is told.
    fn turn(&mut self, empty_rings: impl FnOnce(), poll_ports: impl FnOnce(u64)) {
        if self.publication.is_newer_than(self.current.sequence) {
            self.current = self.publication.newest();
            self.publication.cross(self.number, self.current.sequence);
        }
        let settle = self.publication.settle_requested();
        empty_rings();
        poll_ports(self.current.sequence);
        if settle != self.settled {
            self.settled = settle;
            self.publication.settled(self.number, settle);
        }
    }
}

/// One worker judges packets and hands them to another. Once a change is settled, none that the old snapshot let pass is
/// left in the ring between them, and nobody holds the old snapshot.
#[test]
fn nothing_by_the_old_snapshot_is_on_its_way_once_a_change_is_settled() {
    loom::model(|| {
        let publication = Arc::new(Publication::new(2, published(0)));
        let ring: Arc<Mutex<Vec<u64>>> = Arc::new(Mutex::new(Vec::new()));
        let sender = {
            let (mut worker, ring) = (Worker::new(0, &publication), Arc::clone(&ring));
            thread::spawn(move || {
                let mut left = 2;
                while worker.settled == 0 {
                    worker.turn(
                        || (),
                        |sequence| {
                            if left > 0 {
                                left -= 1;
                                ring.lock().unwrap().push(sequence);
                            }
                        },
                    );
                    thread::yield_now();
                }
            })
        };
        let receiver = {
            let (mut worker, ring) = (Worker::new(1, &publication), Arc::clone(&ring));
            thread::spawn(move || {
                while worker.settled == 0 {
                    worker.turn(|| ring.lock().unwrap().clear(), |_| ());
                    thread::yield_now();
                }
            })
        };
        publication.publish(published(1));
        while publication.first_not_crossed(1).is_some() {
            thread::yield_now();
        }
        publication.request_settle(1);
        while publication.first_not_settled(1).is_some() {
            thread::yield_now();
        }
        assert!(ring.lock().unwrap().iter().all(|sequence| *sequence == 1), "judged by the old snapshot");
        assert_eq!(publication.free_retired(), 0, "the old snapshot is held");
        sender.join().unwrap();
        receiver.join().unwrap();
    });
}
