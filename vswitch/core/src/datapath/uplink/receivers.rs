//! The ENIs to which packets from outside go, as the fast path needs them, kept until the configuration changes.

use crate::compile::snapshot::Snapshot;
use crate::config::desired::Direction;
use crate::config::ids::{EniEpoch, EniIndex};
use crate::config::limits::ETHERNET_HEADER_BYTES;
use crate::datapath::eligibility;
use crate::policy::eni_context::EniContext;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// An ENI to which packets from outside go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receiver {
    pub(super) epoch: EniEpoch,
    /// The value that live sessions are compared with.
    pub(super) live: u64,
    /// Its first address.
    pub(super) ipv4: Option<u32>,
    /// The longest frame that it takes; zero if all its packets take the slow path.
    pub(super) frame_bytes_max: usize,
    /// The addresses in the Ethernet header of the last hop.
    pub(super) ethernet_then: [u8; 12],
}

impl Receiver {
    fn new(context: &EniContext<'_>) -> Self {
        let mut ethernet_then = [0; 12];
        ethernet_then[..6].copy_from_slice(&context.eni.mac.0);
        ethernet_then[6..].copy_from_slice(&context.network.gateway_mac.0);
        let longest = ETHERNET_HEADER_BYTES + usize::from(context.eni.mtu_bytes);
        Self {
            epoch: context.eni.epoch,
            live: context.live_side(),
            ipv4: context.eni.ipv4,
            frame_bytes_max: if eligibility::crosses(context) { longest } else { 0 },
            ethernet_then,
        }
    }
}

/// The ENIs that were asked for under one configuration.
#[derive(Debug, Default)]
pub(crate) struct Receivers {
    /// By index.
    known: Vec<Option<Receiver>>,
    identity: Option<Arc<()>>,
}

impl Receivers {
    /// Forgets all if the configuration is not the one that they are of.
    #[inline]
    pub(super) fn invalidate_if_stale(&mut self, snapshot: &Snapshot) {
        if !self.identity.as_ref().is_some_and(|identity| Arc::ptr_eq(identity, &snapshot.identity)) {
            self.identity = Some(Arc::clone(&snapshot.identity));
            self.known.clear();
        }
    }

    /// An ENI of the configuration that the others are of; `None` if there is none.
    #[inline(always)]
    pub(super) fn of(&mut self, snapshot: &Snapshot, eni: EniIndex) -> Option<&Receiver> {
        if self.known(eni).is_none() {
            self.find(snapshot, eni)?;
        }
        self.known(eni)
    }

    /// An ENI that was asked for before.
    #[inline(always)]
    pub(super) fn known(&self, eni: EniIndex) -> Option<&Receiver> {
        self.known.get(eni.0 as usize)?.as_ref()
    }

    #[cold]
    fn find(&mut self, snapshot: &Snapshot, eni: EniIndex) -> Option<()> {
        let context = EniContext::new(snapshot, eni, Direction::Ingress)?;
        let place = eni.0 as usize;
        if self.known.len() <= place {
            self.known.resize(place + 1, None);
        }
        self.known[place] = Some(Receiver::new(&context));
        Some(())
    }
}
