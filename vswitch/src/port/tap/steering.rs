//! Which queue of a multi-queue TAP device receives a frame.
//!
//! A program in the kernel decides by the two addresses alone. So all packets of a flow are in one queue, including
//! fragments and the ICMP errors that its ends exchange, and stay in order. The kernel's own choice follows the queue
//! to which the other direction was written: it moves flows while packets are waiting, and later packets may overtake
//! them.

use crate::os::sys::{Instruction, load_frame_program};
use std::io;
use std::os::fd::OwnedFd;

const LOAD_HALF: u8 = 0x28;
const LOAD_WORD: u8 = 0x20;
const COPY: u8 = 0xbf;
const SET: u8 = 0xb7;
const XOR_32: u8 = 0xac;
const MULTIPLY_32: u8 = 0x24;
const SHIFT_RIGHT_32: u8 = 0x74;
const JUMP: u8 = 0x05;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// The offsets of the addresses in IPv4 and IPv6 packets behind an Ethernet header, bytes.
const ADDRESSES_V4: [i32; 2] = [26, 30];
const ADDRESSES_V6: [i32; 8] = [22, 26, 30, 34, 38, 42, 46, 50];
/// The golden ratio in 32 bits: spreads adjacent addresses.
const MULTIPLIER: i32 = 0x9e37_79b1_u32 as i32;

/// Loads the program into the kernel.
///
/// # Errors
/// The kernel's error, such as `EPERM` without the capability for BPF.
pub fn load() -> io::Result<OwnedFd> {
    load_frame_program(&program())
}

/// If a frame is too short for a load, the program ends with zero: the first queue, as for anything but IP.
fn program() -> Vec<Instruction> {
    let xor_words = |offsets: &[i32]| -> Vec<Instruction> {
        // XOR makes both directions of a flow meet in one queue.
        let one = |offset: &i32| [Instruction(LOAD_WORD, 0, 0, *offset), Instruction(XOR_32, 0x07, 0, 0)];
        offsets.iter().flat_map(one).collect()
    };
    let (v4, v6) = (xor_words(&ADDRESSES_V4), xor_words(&ADDRESSES_V6));
    // Register 6 points to the frame, loads go to register 0, and register 7 accumulates the result.
    let mut list = vec![
        Instruction(COPY, 0x16, 0, 0),
        Instruction(SET, 0x07, 0, 0),
        Instruction(LOAD_HALF, 0, 0, 12),
        Instruction(JUMP_IF_EQUAL, 0, v4.len() as i16 + 2, 0x86dd),
        Instruction(JUMP_UNLESS_EQUAL, 0, (v4.len() + 1 + v6.len()) as i16, 0x0800),
    ];
    let skip = v6.len() as i16;
    list.extend(v4);
    list.push(Instruction(JUMP, 0, skip, 0));
    list.extend(v6);
    list.extend([
        Instruction(COPY, 0x70, 0, 0),
        Instruction(MULTIPLY_32, 0x00, 0, MULTIPLIER),
        // The upper half of the product has mixed bits; the lower bits of addresses alone would spread badly.
        Instruction(SHIFT_RIGHT_32, 0x00, 0, 16),
        Instruction(EXIT, 0, 0, 0),
    ]);
    list
}
