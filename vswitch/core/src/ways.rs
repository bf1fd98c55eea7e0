//! What is the same for all packets from one address to another: found out once, and kept from burst to burst until the
//! configuration changes.

use crate::desired::Direction;
use crate::eni::Desk;
use crate::headers::{Addresses, METADATA_SERVICE};
use crate::ids::{EniIndex, FlowScope};
use crate::judge::Seat;
use crate::limits::{ETHERNET_HEADER_BYTES, WAYS};
use crate::route::Route;
use crate::snapshot::{Place, Snapshot};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// From one ENI to another between two addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    sender: EniIndex,
    /// The addresses of the Ethernet header as the sender writes it.
    ethernet: [u8; 12],
    addresses: Addresses,
    /// What the network knows of the destination.
    pub(crate) place: Place,
    pub(crate) receiver: EniIndex,
    /// Whose sessions the receiver's are.
    pub(crate) receiver_scope: FlowScope,
    /// The longest frame of which nothing but the Ethernet header changes; none where more changes of all.
    pub(crate) frame_bytes_max: usize,
    /// What their sessions look like, the sender's first.
    pub(crate) live: [u64; 2],
    /// The addresses of the Ethernet header of the last hop.
    pub(crate) ethernet_then: [u8; 12],
}

impl Way {
    /// None where a packet with these addresses has to go the long way.
    fn survey(sender: &Seat<'_>, ethernet: [u8; 12], addresses: Addresses) -> Option<Self> {
        let is_to_group = ethernet[0] & 1 == 1;
        let is_to_metadata = matches!(addresses, Addresses::V4 { destination: METADATA_SERVICE, .. });
        if is_to_group || is_to_metadata || ethernet[6..] != sender.eni.mac.0 || !sender.eni.is_first_address(addresses)
        {
            return None;
        }
        let place = sender.network.destination(addresses);
        let Route::Owner(receiver) = place.route() else { return None };
        if receiver == sender.index {
            return None;
        }
        let seat = Desk::new(sender.snapshot, receiver, Direction::Ingress)?.seat;
        let mut ethernet_then = [0; 12];
        ethernet_then[..6].copy_from_slice(&seat.eni.mac.0);
        ethernet_then[6..].copy_from_slice(&seat.network.gateway_mac.0);
        let is_within_subnet = sender.eni.vswitch == seat.eni.vswitch;
        let is_short = is_within_subnet && !sender.eni.tcp_window_check && !seat.eni.tcp_window_check;
        Some(Self {
            sender: sender.index,
            ethernet,
            addresses,
            place,
            receiver,
            receiver_scope: seat.eni.scope,
            frame_bytes_max: if is_short { ETHERNET_HEADER_BYTES + usize::from(seat.eni.mtu_bytes) } else { 0 },
            live: [sender.live_side(), seat.live_side()],
            ethernet_then,
        })
    }

    /// Whether it is that of its sender's packets with these addresses.
    #[inline(always)]
    pub(crate) fn is_between(&self, ethernet: &[u8; 12], addresses: Addresses) -> bool {
        self.ethernet == *ethernet && self.addresses == addresses
    }
}

/// The ways that were found lately, each where its addresses belong among so many.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    /// Each with the epoch that it was found in.
    found: Vec<Option<(u32, Way)>>,
    /// Goes on with every other configuration.
    epoch: u32,
    identity: Option<Arc<()>>,
}

impl Ways {
    /// Forgets all ways if this is another configuration than that of the last burst.
    #[inline]
    pub(crate) fn follow(&mut self, snapshot: &Snapshot) {
        if !self.identity.as_ref().is_some_and(|identity| Arc::ptr_eq(identity, &snapshot.identity)) {
            self.start_anew(snapshot);
        }
    }

    #[cold]
    fn start_anew(&mut self, snapshot: &Snapshot) {
        self.identity = Some(Arc::clone(&snapshot.identity));
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 || self.found.is_empty() {
            self.found = alloc::vec![None; WAYS];
        }
    }

    /// The way of a packet with these addresses; none where it is the long one.
    pub(crate) fn between(&mut self, sender: &Seat<'_>, ethernet: &[u8; 12], addresses: Addresses) -> Option<Way> {
        let place = spread(addresses) as usize % WAYS;
        if let Some((epoch, way)) = &self.found[place]
            && (*epoch, way.sender) == (self.epoch, sender.index)
            && way.is_between(ethernet, addresses)
        {
            return Some(*way);
        }
        let way = Way::survey(sender, *ethernet, addresses)?;
        self.found[place] = Some((self.epoch, way));
        Some(way)
    }
}

/// A number in which both addresses have a part.
#[inline(always)]
pub(crate) const fn spread(addresses: Addresses) -> u32 {
    let mixed = match addresses {
        Addresses::V4 { source, destination } => source.rotate_left(16) ^ destination,
        Addresses::V6 { source, destination } => (source as u32).rotate_left(16) ^ destination as u32,
    };
    mixed.wrapping_mul(0x9e37_79b9) >> 16
}
