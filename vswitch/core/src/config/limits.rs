//! Every bound of the switch, and how the bounds depend on each other.

/// Packets a worker takes from one port in one turn.
pub const BURST_PACKETS: usize = 32;
/// Bytes of frames that end a burst early. What is in work then fits into a core's own cache, and a port of long frames
/// holds its neighbours up no longer than one of short ones.
pub const BURST_BYTES: usize = 256 << 10;
/// The longest frame that the switch takes: the longest IP packet and the Ethernet header, rounded up. On a wire it is
/// many packets, each within the MTU.
pub const FRAME_BYTES_MAX: usize = 65_600;
/// Packets that one TCP frame may be cut into: with fewer than 64 bytes each, headers would outweigh what they carry.
pub const SEGMENTS_MAX_TCP: usize = 1024;
/// Packets that one UDP frame may be cut into, as Linux bounds it (`UDP_MAX_SEGMENTS`).
pub const SEGMENTS_MAX_UDP: usize = 128;
/// Bytes of an Ethernet header.
pub const ETHERNET_HEADER_BYTES: usize = 14;
/// The largest MTU a port may have, bytes.
pub const MTU_BYTES_MAX: usize = 9000;
/// The smallest MTU a port may have, bytes: IPv4's own minimum (RFC 791 §3.1).
pub const MTU_BYTES_MIN: usize = 576;
/// The first port that clients take for a connection where nobody chooses one (the kernel's `ip_local_port_range`): what
/// is below is the port of a service.
pub const EPHEMERAL_PORT_MIN: u16 = 32_768;
/// The longest ICMP error that a session admits, bytes of the IPv4 packet (RFC 1812 §4.3.2.3).
pub const ICMP_ERROR_BYTES_MAX_V4: usize = 576;
/// The same of IPv6: no error is longer than the smallest MTU (RFC 4443 §2.4).
pub const ICMP_ERROR_BYTES_MAX_V6: usize = 1280;
/// ICMP errors about its sessions that reach one ENI in a second.
pub const ICMP_ERRORS_PER_S: u32 = 1000;
/// Extension headers the parser walks before it gives up on an IPv6 packet.
pub const IPV6_EXTENSION_HEADERS_MAX: usize = 8;
/// ENIs one switch may hold.
pub const ENIS_MAX: usize = 65_536;
/// Groups one ENI may be a member of, above any quota the control plane enforces (§6 names up to 16).
pub const GROUPS_PER_ENI_MAX: usize = 16;
/// Rules of one direction in one compiled filter.
pub const RULES_PER_FILTER_MAX: usize = 131_072;
/// Bytes of each kind of rows that every compiled filter may have in each direction, whatever its rules.
pub const ROWS_BYTES_FREE: usize = 4 << 10;
/// Bytes of each kind of rows that a filter may have in each direction for each of its rules.
pub const ROWS_BYTES_PER_RULE: usize = 4 << 10;
/// Bytes of each kind of rows that a filter may have in each direction, however many rules it has.
pub const ROWS_BYTES_MAX: usize = 32 << 20;
/// Addresses and delegated prefixes of one ENI.
pub const ADDRESSES_PER_ENI_MAX: usize = 256;
/// Bytes of one control message, newline included. A whole desired state has to fit.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// Links of a flow table's collision chain. Where there are as many connections as homes, one in 10^15 would need more.
pub const FLOW_CHAIN_MAX: usize = 16;
/// IP packets in parts that one worker keeps in mind.
pub const FRAGMENTED_PACKETS_MAX: usize = 4096;
/// Gaps between the parts of one packet.
pub const FRAGMENT_RUNS_MAX: usize = 16;
/// Parts that wait for the first of their packet, at one worker.
pub const FRAGMENTS_WAITING_MAX: usize = 256;
/// Of those, one ENI's: as many as the longest packet has over Ethernet.
pub const FRAGMENTS_WAITING_PER_ENI_MAX: usize = 48;
/// Connection records looked at to find one that may give way in a full table, besides those where the new one belongs.
pub const EVICTION_CANDIDATES: usize = 32;
/// Sessions that an ENI opened last that are kept in mind, for the one that gives way to another of its own.
pub const RECENT_SESSIONS_MAX: usize = 4096;
/// Of those, how many are looked at for it.
pub const RECLAIM_WINDOW: usize = 64;
/// Of those, how many give way at once where an ENI may hold many, so that not every new one has to look.
pub const RECLAIM_BATCH: usize = 48;
/// Connection records that the sweep goes on by in one turn.
pub const SWEEP_RECORDS_PER_TURN: usize = 256;
/// Within how long the sweep comes to every record, ns.
pub const SWEEP_ROUND_NS: u64 = 1_000_000_000;
/// Answers and reports that the virtual router gives one ENI in a second, and at once after a pause of a second. A
/// guest that talks to all peers that its kernel has room to remember needs a tenth.
pub const ANSWERS_PER_S: u32 = 1000;
/// Homes of flow records looked at for one question, in a turn: the packet path waits meanwhile.
pub const LISTED_PLACES_PER_TURN: usize = 1024;
/// Sessions told of in an answer to one question, for the same reason.
pub const LISTED_FLOWS_PER_TURN: usize = 128;
/// From how full a flow table, or an ENI's share of it, is worth a warning, percent.
pub const TABLE_WARNING_PERCENT: usize = 80;
/// Packets waiting on their way from one worker to another.
pub const HANDOFF_PACKETS: usize = 1024;
/// Pairs of addresses that a worker keeps in mind.
pub const PATHS_CACHED_MAX: usize = 2048;
/// Workers of one switch.
pub const WORKERS_MAX: usize = 64;

const _: () = assert!(MTU_BYTES_MAX + ETHERNET_HEADER_BYTES <= FRAME_BYTES_MAX);
const _: () =
    assert!(u16::MAX as usize + ETHERNET_HEADER_BYTES + 40 <= FRAME_BYTES_MAX, "IPv6 counts after its header");
const _: () = assert!(FRAME_BYTES_MAX <= BURST_BYTES);
const _: () = assert!(RECLAIM_BATCH <= RECLAIM_WINDOW && RECLAIM_WINDOW <= RECENT_SESSIONS_MAX);
const _: () = assert!(MTU_BYTES_MIN < MTU_BYTES_MAX);
const _: () = assert!(BURST_PACKETS.is_power_of_two() && BURST_PACKETS <= HANDOFF_PACKETS);
const _: () = assert!(BURST_PACKETS <= SWEEP_RECORDS_PER_TURN, "a sweep outruns the flows one turn can open");
