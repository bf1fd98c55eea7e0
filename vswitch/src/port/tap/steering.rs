//! Which queue of a TAP device with several a frame waits in.
//!
//! A program in the kernel decides by both addresses alone. So all packets of a flow wait in one queue, fragments and the
//! errors of ICMP that its ends exchange too, and leave it in order. The kernel's own choice follows the queue that the
//! other direction was written to: it moves flows while packets wait, and those that come later may overtake them.

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

/// Where IPv4 and IPv6 headers behind an Ethernet header have their addresses, bytes.
const ADDRESSES_V4: [i32; 2] = [26, 30];
const ADDRESSES_V6: [i32; 8] = [22, 26, 30, 34, 38, 42, 46, 50];
/// The golden ratio in 32 bits: spreads neighbouring addresses.
const MULTIPLIER: i32 = 0x9e37_79b1_u32 as i32;

/// Gives the program to the kernel.
///
/// # Errors
/// What the kernel says, as `EPERM` without the capability for BPF.
pub fn load() -> io::Result<OwnedFd> {
    load_frame_program(&program())
}

/// A frame that is too short for what is loaded ends the program with zero: the first queue, as what is not IP.
fn program() -> Vec<Instruction> {
    let xor_words = |offsets: &[i32]| -> Vec<Instruction> {
        let one = |offset: &i32| [Instruction(LOAD_WORD, 0, 0, *offset), Instruction(XOR_32, 0x07, 0, 0)];
        offsets.iter().flat_map(one).collect()
    };
    let (v4, v6) = (xor_words(&ADDRESSES_V4), xor_words(&ADDRESSES_V6));
    // The frame is where register 6 says; what is loaded comes into register 0; register 7 gathers.
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
        Instruction(SHIFT_RIGHT_32, 0x00, 0, 16),
        Instruction(EXIT, 0, 0, 0),
    ]);
    list
}
