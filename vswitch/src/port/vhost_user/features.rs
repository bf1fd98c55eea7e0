//! Features of a virtio network device (VIRTIO 1.2 §5.1.3, §6) and of the vhost-user protocol.

use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vswitch_core::packet::offload::Offloads;

/// Bytes of the header in front of each frame: `virtio_net_hdr_v1`, or without the count of buffers in a legacy device.
const HEADER_BYTES: usize = 12;
const HEADER_BYTES_LEGACY: usize = 10;

/// A set of features that device and driver agreed on, or that the device offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Features(pub(super) u64);

/// The number of a feature is its bit.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Feature {
    /// The device completes checksums.
    Csum = 0,
    /// The driver takes frames whose checksum is not complete.
    GuestCsum = 1,
    Mtu = 3,
    Mac = 5,
    GuestTso4 = 7,
    GuestTso6 = 8,
    GuestEcn = 9,
    HostTso4 = 11,
    HostTso6 = 12,
    HostEcn = 13,
    /// A frame may take several chains of the receive ring.
    MergeableBuffers = 15,
    Status = 16,
    ControlQueue = 17,
    ControlReceive = 18,
    GuestAnnounce = 21,
    MultiQueue = 22,
    /// The front end wants a log of the pages that are written.
    LogAll = 26,
    IndirectDescriptors = 28,
    EventIndex = 29,
    /// The vhost-user protocol has features of its own, and rings start disabled.
    ProtocolFeatures = 30,
    Version1 = 32,
    PackedRing = 34,
    InOrder = 35,
    GuestUso4 = 54,
    GuestUso6 = 55,
    HostUso = 56,
}

use Feature::*;

/// All that the port offers, whatever its MTU and queues.
const OFFERED: [Feature; 26] = [
    Csum,
    GuestCsum,
    Mtu,
    Mac,
    GuestTso4,
    GuestTso6,
    GuestEcn,
    HostTso4,
    HostTso6,
    HostEcn,
    MergeableBuffers,
    Status,
    ControlQueue,
    ControlReceive,
    GuestAnnounce,
    MultiQueue,
    LogAll,
    IndirectDescriptors,
    EventIndex,
    ProtocolFeatures,
    Version1,
    PackedRing,
    InOrder,
    GuestUso4,
    GuestUso6,
    HostUso,
];

impl Features {
    /// What the port offers.
    pub(super) fn offered() -> Self {
        Self(OFFERED.iter().fold(0, |bits, feature| bits | 1 << *feature as u8))
    }

    /// Whether the feature is in the set.
    pub(super) const fn has(self, feature: Feature) -> bool {
        self.0 >> feature as u8 & 1 != 0
    }

    /// Bytes of the header in front of each frame.
    pub(super) const fn header_bytes(self) -> usize {
        if self.has(Version1) || self.has(MergeableBuffers) { HEADER_BYTES } else { HEADER_BYTES_LEGACY }
    }

    /// What frames to the guest may leave undone.
    pub(super) fn offloads(self) -> Offloads {
        if !self.has(GuestCsum) {
            return Offloads::NONE;
        }
        let some = |is_agreed, offloads| if is_agreed { offloads } else { Offloads::NONE };
        Offloads::CHECKSUM
            .with(some(self.has(GuestTso4), Offloads::TCP_V4))
            .with(some(self.has(GuestTso6), Offloads::TCP_V6))
            .with(some(self.has(GuestUso4) && self.has(GuestUso6), Offloads::UDP))
    }
}

/// Features of the protocol that the port has.
pub(super) fn offered_protocol() -> VhostUserProtocolFeatures {
    VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::LOG_SHMFD
        | VhostUserProtocolFeatures::RARP
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::MTU
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
        | VhostUserProtocolFeatures::RESET_DEVICE
        | VhostUserProtocolFeatures::STATUS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(features: &[Feature]) -> Features {
        Features(features.iter().fold(0, |bits, feature| bits | 1 << *feature as u8))
    }

    #[test]
    fn a_guest_gets_undone_only_what_it_agreed_to_take() {
        assert_eq!(agreed(&[GuestTso4, GuestUso4, GuestUso6]).offloads(), Offloads::NONE, "no checksum, nothing");
        assert_eq!(agreed(&[GuestCsum]).offloads(), Offloads::CHECKSUM);
        assert_eq!(agreed(&[GuestCsum, GuestTso4]).offloads(), Offloads::CHECKSUM.with(Offloads::TCP_V4));
        assert_eq!(agreed(&[GuestCsum, GuestUso4]).offloads(), Offloads::CHECKSUM, "UDP of both families or none");
        assert_eq!(Features::offered().offloads(), Offloads::ALL);
    }

    #[test]
    fn the_header_has_the_agreed_size() {
        assert_eq!(agreed(&[]).header_bytes(), 10);
        assert_eq!(agreed(&[MergeableBuffers]).header_bytes(), 12);
        assert_eq!(agreed(&[Version1]).header_bytes(), 12);
    }
}
