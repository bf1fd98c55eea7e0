//! A front end and a guest that say and write anything, in any order, to a port that shares memory.

#[path = "../../../vswitch/tests/virtio/mod.rs"]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod virtio;

use arbitrary::{Arbitrary as _, Unstructured};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use virtio::socket_rig::{SocketRig, frame};
use virtio::{FrameLayout, MEMORY_BYTES, MODERN, PACKED, VirtualMachine};
use vswitch_core::packet::offload::Offload;

/// What happens in one run.
const STEPS_MAX: usize = 48;
/// Bytes of guest memory with rings in them.
const RING_BYTES: u64 = 0x2_0000;

/// Runs one sequence of steps. Afterwards another guest must be served as ever.
pub fn vhost_user(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let mut rig = SocketRig::new();
    let features = if bool::arbitrary(&mut input).unwrap_or_default() { MODERN | PACKED } else { MODERN };
    let mut guest = VirtualMachine::new(features, 1, 16);
    guest.connect(&rig.path());
    for _ in 0..STEPS_MAX {
        if input.is_empty() || step(&mut input, &mut rig, &mut guest).is_err() {
            break;
        }
    }
    guest.socket = None;
    let mut next = VirtualMachine::new(MODERN, 1, 64);
    rig.start(&mut next);
    rig.check_traffic(&mut next);
}

fn step(input: &mut Unstructured, rig: &mut SocketRig, guest: &mut VirtualMachine) -> arbitrary::Result<()> {
    match input.int_in_range(0..=9)? {
        0 | 1 => {
            let (request, flags) = (input.int_in_range(0..=45)?, input.choose(&[1, 9, 5, 0])?);
            let length = input.int_in_range(0..=64)?;
            let body = input.bytes(usize::min(length, input.len()))?;
            let (kick, call) = &guest.counters[0];
            let descriptors = [guest.memory.as_fd(), kick.as_fd(), call.as_fd()];
            guest.message_with_flags(request, *flags, body, &descriptors[..input.int_in_range(0..=3)?]);
        }
        2 | 3 => {
            let place = input.int_in_range(0..=RING_BYTES - 1)?;
            let length = input.int_in_range(0..=32)?;
            let written = input.bytes(usize::min(length, input.len()))?;
            guest.memory.write_all_at(written, place).expect("memory takes bytes");
        }
        4 => {
            guest.start();
            guest.fill();
        }
        5 => {
            guest.connect(&rig.path());
        }
        6 => drop(rig.send(&[frame(input.int_in_range(0..=15)?), frame(0)])),
        7 => {
            let layout = *input.choose(&[FrameLayout::One, FrameLayout::Pieces, FrameLayout::Indirect])?;
            if guest.queues[1].free() > 8 {
                guest.send(1, &frame(input.int_in_range(0..=15)?), Offload::NONE, layout);
            }
        }
        8 => {
            let bytes = *input.choose(&[0, 4096, MEMORY_BYTES / 2, MEMORY_BYTES])?;
            rustix::fs::ftruncate(&guest.memory, bytes).expect("a file of memory takes any length");
        }
        _ => guest.kick(input.int_in_range(0..=1)?),
    }
    drop(rig.receive());
    Ok(())
}
