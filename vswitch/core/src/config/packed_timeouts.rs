//! An ENI's idle timeouts in two bytes, as sessions and snapshots carry them.

use crate::config::desired::{TimeoutProfile, Timeouts};

/// The idle timeouts that a session was opened with, in two bytes: the profile, and indices into the lists of permitted
/// values (§4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackedTimeouts(u16);

impl PackedTimeouts {
    const PROFILE_SHIFT: u16 = 12;
    /// The timeouts of no session.
    pub(crate) const NONE: Self = Self(u16::MAX);

    /// Packs timeouts; `None` if a value is not permitted.
    pub fn pack(timeouts: Timeouts) -> Option<Self> {
        let (closed_min, closed_max) = Timeouts::TCP_CLOSED_S;
        let established = Timeouts::TCP_ESTABLISHED_S.iter().position(|&s| s == timeouts.tcp_established_s)?;
        let udp = Timeouts::UDP_S.iter().position(|&s| s == timeouts.udp_s)?;
        if !(closed_min..=closed_max).contains(&timeouts.tcp_closed_s) {
            return None;
        }
        Some(Self(established as u16 | timeouts.tcp_closed_s << 4 | (udp as u16) << 8))
    }

    /// The same timeouts under another profile.
    pub const fn under(self, profile: TimeoutProfile) -> Self {
        Self(self.0 & ((1 << Self::PROFILE_SHIFT) - 1) | (profile as u16) << Self::PROFILE_SHIFT)
    }

    #[inline]
    pub(crate) const fn profile(self) -> TimeoutProfile {
        match self.0 >> Self::PROFILE_SHIFT {
            1 => TimeoutProfile::Aws,
            2 => TimeoutProfile::Linux,
            _ => TimeoutProfile::Alibaba,
        }
    }

    /// Idle timeout of established TCP, seconds.
    #[inline]
    pub(crate) const fn tcp_established_s(self) -> u16 {
        // Only `pack` makes values other than zero, and zero means the first of each list.
        const CHOICES: [u16; 16] = padded(Timeouts::TCP_ESTABLISHED_S);
        CHOICES[(self.0 & 0xf) as usize]
    }

    /// Idle timeout of closed TCP, seconds.
    #[inline]
    pub(crate) const fn tcp_closed_s(self) -> u16 {
        self.0 >> 4 & 0xf
    }

    /// Idle timeout of UDP, seconds.
    #[inline]
    pub(crate) const fn udp_s(self) -> u16 {
        const CHOICES: [u16; 16] = padded(Timeouts::UDP_S);
        CHOICES[(self.0 >> 8 & 0xf) as usize]
    }
}

/// The choices, padded so that an index of four bits is always inside.
const fn padded<const N: usize>(choices: [u16; N]) -> [u16; 16] {
    let mut list = [choices[0]; 16];
    let mut place = 0;
    while place < N {
        list[place] = choices[place];
        place += 1;
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_of_timeouts_survives_packing() {
        for (profile, _) in TimeoutProfile::NAMES {
            for tcp_established_s in Timeouts::TCP_ESTABLISHED_S {
                for tcp_closed_s in 3..=15 {
                    for udp_s in Timeouts::UDP_S {
                        let timeouts = Timeouts { tcp_established_s, tcp_closed_s, udp_s };
                        let packed = PackedTimeouts::pack(timeouts).unwrap().under(profile);
                        let (tcp_established_s, tcp_closed_s) = (packed.tcp_established_s(), packed.tcp_closed_s());
                        assert_eq!(Timeouts { tcp_established_s, tcp_closed_s, udp_s: packed.udp_s() }, timeouts);
                        assert_eq!(packed.profile(), profile);
                    }
                }
            }
        }
        assert_eq!(PackedTimeouts::pack(Timeouts { udp_s: 31, ..Timeouts::default() }), None);
        assert_eq!(PackedTimeouts::pack(Timeouts { tcp_closed_s: 2, ..Timeouts::default() }), None);
    }
}
