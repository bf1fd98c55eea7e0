//! The checksum of the Internet protocols (RFC 1071).

use crate::packet::headers::Addresses;

/// Adds the 16-bit words of `bytes` to a sum that has not been folded yet. An odd last byte is padded with zero.
pub(crate) fn add(sum: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    // A 64-bit sum of 32-bit words cannot overflow before four billion words; a frame has fewer.
    let sum = words.iter().fold(sum, |sum, word| sum + u64::from(u32::from_be_bytes(*word)));
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_be_bytes(last))
}

/// The checksum for a sum: folded and complemented.
pub(crate) fn finish(sum: u64) -> u16 {
    let mut sum = sum;
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Completes the checksum at `place`, where the sum of the pseudo-header stands, over all of `bytes`. A result of zero
/// is written as all ones, because UDP reads zero as "no checksum" (RFC 768).
pub(crate) fn complete(bytes: &mut [u8], place: usize) {
    let sum = never_zero(finish(add(0, bytes)));
    if let Some(field) = bytes.get_mut(place..place + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

/// The checksum in the form that UDP does not read as "no checksum".
pub(crate) const fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// The addresses' part of the pseudo-header sum (RFC 9293 §3.1, RFC 8200 §8.1).
pub(crate) fn of_addresses(addresses: Addresses) -> u64 {
    match addresses {
        Addresses::V4 { source, destination } => u64::from(source) + u64::from(destination),
        Addresses::V6 { source, destination } => add(add(0, &source.to_be_bytes()), &destination.to_be_bytes()),
    }
}

/// The checksum after one 16-bit word changed (RFC 1624).
pub(crate) fn update(checksum: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let word = |bytes| u16::from_be_bytes(bytes) as u32;
    let mut sum = (!word(checksum) & 0xffff) + (!word(old) & 0xffff) + word(new);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(finish(add(0, &bytes)), !0xddf2);
        assert_eq!(finish(add(0, &bytes[..7])), !0xdcfb_u16);
    }
}
