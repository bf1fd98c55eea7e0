//! Every bound of the switch, and how the bounds depend on each other.

/// Packets that a worker takes from one port in one turn.
pub const BURST_PACKETS: usize = 32;
/// Bytes of frames that end a burst early. The frames in progress then fit into a core's own cache, and a port of long
/// frames delays its neighbours no longer than a port of short ones.
pub const BURST_BYTES: usize = 256 << 10;
/// The longest frame that the switch accepts: the longest IP packet and the Ethernet header, rounded up. On the wire
/// such a frame is many packets, each within the MTU.
pub const FRAME_BYTES_MAX: usize = 65_600;
/// Packets that one TCP frame may be segmented into: with fewer than 64 bytes per packet, headers would outweigh the
/// payload.
pub const SEGMENTS_MAX_TCP: usize = 1024;
/// Packets that one UDP frame may be segmented into; Linux has the same bound (`UDP_MAX_SEGMENTS`).
pub const SEGMENTS_MAX_UDP: usize = 128;
/// Bytes of an Ethernet header.
pub const ETHERNET_HEADER_BYTES: usize = 14;
/// The largest MTU a port may have, bytes.
pub const MTU_BYTES_MAX: usize = 9000;
/// The smallest MTU a port may have, bytes: IPv4's own minimum (RFC 791 §3.1).
pub const MTU_BYTES_MIN: usize = 576;
/// The first port from which the kernel picks client ports (`ip_local_port_range`). Ports below it count as service
/// ports.
pub const EPHEMERAL_PORT_MIN: u16 = 32_768;
/// The longest ICMP error that a session admits, as bytes of the IPv4 packet (RFC 1812 §4.3.2.3).
pub const ICMP_ERROR_BYTES_MAX_V4: usize = 576;
/// The longest ICMPv6 error that a session admits, bytes: no error exceeds the minimum MTU (RFC 4443 §2.4).
pub const ICMP_ERROR_BYTES_MAX_V6: usize = 1280;
/// ICMP errors about its sessions that reach one ENI per second.
pub const ICMP_ERRORS_PER_S: u32 = 1000;
/// Extension headers that the parser walks before it drops an IPv6 packet.
pub const IPV6_EXTENSION_HEADERS_MAX: usize = 8;
/// ENIs that one switch may hold.
pub const ENIS_MAX: usize = 65_536;
/// Groups one ENI may be a member of, above any quota the control plane enforces (§6 names up to 16).
pub const GROUPS_PER_ENI_MAX: usize = 16;
/// Rules of one direction in one compiled ACL.
pub const RULES_PER_FILTER_MAX: usize = 131_072;
/// Bytes of bit rows of each kind that every compiled ACL may have per direction, whatever its rules.
pub const ROWS_BYTES_FREE: usize = 4 << 10;
/// Bytes of bit rows of each kind that an ACL may have per direction for each of its rules.
pub const ROWS_BYTES_PER_RULE: usize = 4 << 10;
/// Bytes of bit rows of each kind that an ACL may have per direction, however many rules it has.
pub const ROWS_BYTES_MAX: usize = 32 << 20;
/// Addresses and delegated prefixes of one ENI.
pub const ADDRESSES_PER_ENI_MAX: usize = 256;
/// Bytes of one control message, newline included. A whole desired state has to fit.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// Links of a session table's collision chain. With as many connections as buckets, one chain in 10^15 would be longer.
pub const FLOW_CHAIN_MAX: usize = 16;
/// Fragmented IP packets that one worker keeps track of.
pub const FRAGMENTED_PACKETS_MAX: usize = 4096;
/// Gaps between the fragments of one packet.
pub const FRAGMENT_RUNS_MAX: usize = 16;
/// Fragments that wait for the first of their packet, per worker.
pub const FRAGMENTS_WAITING_MAX: usize = 256;
/// Fragments of one ENI that wait: as many as the longest packet has over Ethernet.
pub const FRAGMENTS_WAITING_PER_ENI_MAX: usize = 48;
/// Connection records examined to find one that can be evicted from a full table, besides those on the new connection's
/// own path.
pub const EVICTION_CANDIDATES: usize = 32;
/// Sessions that an ENI opened most recently and that are remembered, so that one of them can give way to a new one.
pub const RECENT_SESSIONS_MAX: usize = 4096;
/// Remembered sessions that are examined to find some that can give way.
pub const RECLAIM_WINDOW: usize = 64;
/// Examined sessions that give way at once where an ENI may hold many, so that not every new session has to search.
pub const RECLAIM_BATCH: usize = 48;
/// Connection records that the sweep visits in one turn.
pub const SWEEP_RECORDS_PER_TURN: usize = 256;
/// The time in which the sweep visits every record, ns.
pub const SWEEP_ROUND_NS: u64 = 1_000_000_000;
/// Replies and reports that the virtual router sends one ENI per second, and in one burst after an idle second. A guest
/// that talks to as many peers as its kernel can remember needs a tenth.
pub const ANSWERS_PER_S: u32 = 1000;
/// DHCP messages and router solicitations of one ENI that the switch answers per second, and in one burst after an idle
/// second.
pub const SERVICE_REQUESTS_PER_S: u32 = 8;
/// Such messages of all ENIs together per second.
pub const SERVICE_REQUESTS_ALL_PER_S: u32 = 2000;
/// Such messages that wait for the service thread.
pub const SERVICE_REQUESTS_MAX: usize = 64;
/// The longest frame with such a message, bytes: what Ethernet carries in one piece.
pub const SERVICE_FRAME_BYTES_MAX: usize = ETHERNET_HEADER_BYTES + 1500;
/// Packets of one ENI that go to the services process per second, and in one burst after an idle second. A guest that
/// reads all its metadata at boot sends a few hundred.
pub const SERVICE_PACKETS_PER_S: u32 = 2000;
/// Such packets of all ENIs together per second.
pub const SERVICE_PACKETS_ALL_PER_S: u32 = 50_000;
/// Such packets that wait for the services process.
pub const SERVICE_PACKETS_MAX: usize = 256;
/// Buckets of the session table that one query examines per turn: the packet path waits meanwhile.
pub const LISTED_PLACES_PER_TURN: usize = 1024;
/// Sessions that one query reports per turn: the packet path waits meanwhile.
pub const LISTED_FLOWS_PER_TURN: usize = 128;
/// Occupancy of a session table, or of an ENI's share of it, that is worth a warning, percent.
pub const TABLE_WARNING_PERCENT: usize = 80;
/// Packets in transit from one worker to another.
pub const HANDOFF_PACKETS: usize = 1024;
/// Ports of an external address in a block, which one ENI has at a time.
pub const NAT_BLOCK_PORTS: u16 = 64;
/// Port blocks that one ENI may have: all of an external address.
pub const NAT_PORT_BLOCKS_PER_ENI_MAX: u16 = 1008;
/// External addresses of an uplink.
pub const NAT_EXTERNAL_ADDRESSES_MAX: usize = 4096;
/// Port forwards of an uplink.
pub const NAT_FORWARDS_MAX: usize = 4096;
/// Address pairs whose path a worker caches.
pub const PATHS_CACHED_MAX: usize = 2048;
/// Workers of one switch.
pub const WORKERS_MAX: usize = 64;

const _: () = assert!(MTU_BYTES_MAX + ETHERNET_HEADER_BYTES <= FRAME_BYTES_MAX);
const _: () =
    assert!(u16::MAX as usize + ETHERNET_HEADER_BYTES + 40 <= FRAME_BYTES_MAX, "IPv6 counts after its header");
const _: () = assert!(FRAME_BYTES_MAX <= BURST_BYTES);
const _: () = assert!(RECLAIM_BATCH <= RECLAIM_WINDOW && RECLAIM_WINDOW <= RECENT_SESSIONS_MAX);
const _: () = assert!(MTU_BYTES_MIN < MTU_BYTES_MAX);
/// The first external port that an ENI may get: those below are for services (RFC 6335 §6).
pub const NAT_PORT_MIN: u16 = 1024;
const _: () = assert!((1 << 16) - NAT_PORT_MIN as u32 == NAT_PORT_BLOCKS_PER_ENI_MAX as u32 * NAT_BLOCK_PORTS as u32);
const _: () = assert!(BURST_PACKETS.is_power_of_two() && BURST_PACKETS <= HANDOFF_PACKETS);
const _: () = assert!(BURST_PACKETS <= SWEEP_RECORDS_PER_TURN, "a sweep outruns the flows one turn can open");
