//! Options of a TCP header.

/// The window scale that a SYN offers (RFC 7323 §2.2), if the options up to it are well-formed. `segment` begins with
/// the TCP header.
#[inline(always)]
pub(crate) fn window_scale(segment: &[u8]) -> Option<u8> {
    const FIXED_BYTES: usize = 20;
    let header_bytes = (segment.get(12)? >> 4) as usize * 4;
    let options = segment.get(FIXED_BYTES..header_bytes)?;
    if options.is_empty() { None } else { window_scale_in(options) }
}

#[inline(never)]
fn window_scale_in(mut options: &[u8]) -> Option<u8> {
    const END: u8 = 0;
    const PADDING: u8 = 1;
    const WINDOW_SCALE: u8 = 3;
    while let [kind, rest @ ..] = options {
        options = match (*kind, rest) {
            (END, _) => return None,
            (PADDING, rest) => rest,
            (WINDOW_SCALE, [3, scale, ..]) => return Some(*scale),
            (_, [length, ..]) if *length >= 2 => options.get(*length as usize..)?,
            _ => return None,
        };
    }
    None
}

/// Where in a segment the maximum segment size of a SYN stands (RFC 9293 §3.2), if the options up to it are well-formed.
pub(crate) fn maximum_segment_size(segment: &[u8]) -> Option<usize> {
    const FIXED_BYTES: usize = 20;
    const MAXIMUM_SEGMENT_SIZE: u8 = 2;
    let header_bytes = (segment.get(12)? >> 4) as usize * 4;
    let options = segment.get(..header_bytes)?;
    let mut at = FIXED_BYTES;
    while let [kind, rest @ ..] = options.get(at..)? {
        at += match (*kind, rest) {
            (0, _) => return None,
            (1, _) => 1,
            (MAXIMUM_SEGMENT_SIZE, [4, _, _, ..]) => return Some(at + 2),
            (_, [length, ..]) if *length >= 2 => usize::from(*length),
            _ => return None,
        };
    }
    None
}
