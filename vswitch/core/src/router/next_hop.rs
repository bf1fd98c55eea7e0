//! The next hop of an uplink: its hardware address is asked for by ARP (RFC 826) and neighbour discovery (RFC 4861), again
//! from time to time, and only an answer to a question is believed.

use super::icmp::write_icmpv6;
use super::reply::{NETWORK, write};
use crate::compile::snapshot::UplinkEntry;
use crate::config::ids::{EniEpoch, EniIndex, MacAddress};
use crate::hw::time::Tick;
use crate::packet::FrameBuffer;
use crate::packet::headers::Addresses;
use core::net::Ipv6Addr;
use etherparse::Icmpv6Type;

/// How long one question waits for its answer, seconds.
const ANSWER_S: u32 = 1;
/// How old an answer may be before the question is asked again, seconds.
const FRESH_S: u32 = 30;
/// How old an answer may be, seconds.
const STALE_S: u32 = 120;

/// The next hops of one uplink.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UplinkNextHops {
    pub(crate) index: EniIndex,
    pub(crate) epoch: EniEpoch,
    v4: NextHop,
    v6: NextHop,
}

#[derive(Clone, Copy, Debug, Default)]
struct NextHop {
    mac: Option<(MacAddress, Tick)>,
    asked: Option<Tick>,
}

impl NextHop {
    fn is_due(&self, now: Tick) -> bool {
        let is_fresh = self.mac.is_some_and(|(_, learnt)| !learnt.is_older_than(FRESH_S, now));
        let is_waiting = self.asked.is_some_and(|asked| !asked.is_older_than(ANSWER_S, now));
        !is_fresh && !is_waiting
    }

    fn mac(&self, now: Tick) -> Option<MacAddress> {
        self.mac.filter(|(_, learnt)| !learnt.is_older_than(STALE_S, now)).map(|(mac, _)| mac)
    }

    fn learn(&mut self, mac: MacAddress, now: Tick) {
        if self.asked.take().is_some() && !mac.is_group() {
            self.mac = Some((mac, now));
        }
    }
}

impl UplinkNextHops {
    /// Next hops that nothing is known of.
    pub(crate) fn new(index: EniIndex, epoch: EniEpoch) -> Self {
        Self { index, epoch, v4: NextHop::default(), v6: NextHop::default() }
    }

    /// The hardware address of the next hop of a packet.
    pub(crate) fn mac(&self, addresses: Addresses, now: Tick) -> Option<MacAddress> {
        match addresses {
            Addresses::V4 { .. } => self.v4.mac(now),
            Addresses::V6 { .. } => self.v6.mac(now),
        }
    }

    /// Writes a question whose time has come into `buffer`. False if there is none.
    pub(crate) fn ask(&mut self, uplink: &UplinkEntry, buffer: &mut FrameBuffer, now: Tick) -> bool {
        if uplink.next_hop_mac.is_some() {
            return false;
        }
        if let Some(ipv4) = uplink.ipv4.filter(|_| self.v4.is_due(now)) {
            self.v4.asked = Some(now);
            return ask_ipv4(uplink.mac, [ipv4.address.addr().octets(), ipv4.next_hop.octets()], buffer).is_some();
        }
        if let Some(ipv6) = uplink.ipv6.filter(|_| self.v6.is_due(now)) {
            self.v6.asked = Some(now);
            return ask_ipv6(uplink.mac, [ipv6.address.addr(), ipv6.next_hop], buffer).is_some();
        }
        false
    }

    /// Takes up an ARP packet of a station with these addresses.
    pub(crate) fn hear_ipv4(&mut self, uplink: &UplinkEntry, address: [u8; 4], mac: MacAddress, now: Tick) {
        if uplink.ipv4.is_some_and(|ipv4| ipv4.next_hop.octets() == address) {
            self.v4.learn(mac, now);
        }
    }

    /// Takes up an advertisement of a station with these addresses.
    pub(crate) fn hear_ipv6(&mut self, uplink: &UplinkEntry, address: [u8; 16], mac: MacAddress, now: Tick) {
        if uplink.ipv6.is_some_and(|ipv6| ipv6.next_hop.octets() == address) {
            self.v6.learn(mac, now);
        }
    }
}

fn ethernet(buffer: &mut FrameBuffer, to: [u8; 6], from: MacAddress, ether_type: [u8; 2]) -> Option<()> {
    let header = buffer.frame_mut().get_mut(..NETWORK)?;
    header[..6].copy_from_slice(&to);
    header[6..12].copy_from_slice(&from.0);
    header[12..].copy_from_slice(&ether_type);
    Some(())
}

fn ask_ipv4(mac: MacAddress, [own, asked]: [[u8; 4]; 2], buffer: &mut FrameBuffer) -> Option<()> {
    write(buffer, &[&[0, 1, 8, 0, 6, 4, 0, 1], &mac.0, &own, &[0; 6], &asked])?;
    ethernet(buffer, [0xff; 6], mac, [0x08, 0x06])
}

fn ask_ipv6(mac: MacAddress, [own, asked]: [Ipv6Addr; 2], buffer: &mut FrameBuffer) -> Option<()> {
    let [.., a, b, c] = asked.octets();
    // The solicited-node address (RFC 4291 §2.7.1).
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut payload = [0; 24];
    payload[..16].copy_from_slice(&asked.octets());
    payload[16..18].copy_from_slice(&[1, 1]);
    payload[18..].copy_from_slice(&mac.0);
    let kind = Icmpv6Type::Unknown { type_u8: 135, code_u8: 0, bytes5to8: [0; 4] };
    write_icmpv6(buffer, kind, (own.octets(), group.octets()), (&payload, 255))?;
    ethernet(buffer, [0x33, 0x33, 0xff, a, b, c], mac, [0x86, 0xdd])
}
