//! Rules alone, over a burst: which rule decides about packets without a session. The packet path asks the same
//! questions in its own phases.

use crate::acl::{BatchMatcher, BatchRows};
use crate::compile::snapshot::{Snapshot, VpcNetwork};
use crate::config::desired::Direction;
use crate::config::ids::{EniIndex, RuleId};
use crate::config::limits::BURST_PACKETS;
use crate::packet::headers::{Addresses, Tuple};
use crate::packet::verdict::Decision;
use crate::policy::eni_context::EniContext;
use crate::policy::evaluate::from_peer;
use crate::tables::address_entry::AddressEntry;
use crate::tables::address_table::AddressTable;
use crate::tables::host_table::{Bucket, Probe};
use crate::tables::lpm::Address;
use alloc::vec::Vec;

impl Snapshot {
    /// Judges packets at an ENI as first packets are: by its rules alone. Empty if there is no such ENI.
    pub fn decide_by_rules(
        &self,
        (eni, direction): (EniIndex, Direction),
        tuples: &[Tuple],
        decisions: &mut Vec<Decision>,
    ) {
        decisions.clear();
        let Some(context) = EniContext::new(self, eni, direction) else { return };
        for burst in tuples.chunks(BURST_PACKETS) {
            match context.batch_matcher() {
                Some(BatchMatcher::Narrow(rows)) => decide_burst(&context, rows, burst, decisions),
                Some(BatchMatcher::Wide(rows)) => decide_burst(&context, rows, burst, decisions),
                None => decisions.extend(burst.iter().map(|tuple| context.decide_by_rules(direction, tuple))),
            }
        }
    }

    /// The name of the rule that a decision by the rules of an ENI names as its ground.
    pub fn rule_of(&self, eni: EniIndex, direction: Direction, ground: u32) -> Option<&RuleId> {
        Some(self.network(self.eni(eni)?)?.1.acl.rule(direction, ground)?.0)
    }

    /// Bytes that the rules of an ENI take, compiled, with their rows for both directions and without names. Other ENIs
    /// with the same groups share them.
    pub fn filter_bytes(&self, eni: EniIndex) -> Option<usize> {
        Some(self.network(self.eni(eni)?)?.1.acl.bytes())
    }
}

/// [`EniContext::decide_by_rules`] of the packets of a burst, step by step for all of them: each step asks for the memory that the
/// next one reads, and none has a branch that depends on what the packet before it was.
fn decide_burst<const WORDS: usize>(
    context: &EniContext<'_>,
    rows: BatchRows<'_, WORDS>,
    burst: &[Tuple],
    decisions: &mut Vec<Decision>,
) {
    let (mut services, mut peers) = ([0; BURST_PACKETS], [[0; 2]; BURST_PACKETS]);
    let mut places = [AddressEntry::NOWHERE; BURST_PACKETS];
    for (service, tuple) in services.iter_mut().zip(burst) {
        *service = rows.service(tuple);
    }
    context.network.peers(context.direction, burst, &mut places);
    for (peer, place) in peers[..burst.len()].iter_mut().zip(&places) {
        *peer = rows.peer(place.class);
    }
    decisions.extend(burst.iter().zip(&services).zip(&peers).zip(&places).map(|(((tuple, service), peer), place)| {
        rows.decide(*service, *peer).unwrap_or_else(|| context.decide_by_entry(context.direction, tuple, *place))
    }));
}

impl VpcNetwork {
    /// What is known of the far sides of packets that cross an ENI in `direction`: of the first of a burst.
    fn peers(&self, direction: Direction, tuples: &[Tuple], places: &mut [AddressEntry; BURST_PACKETS]) {
        let tuples = &tuples[..tuples.len().min(BURST_PACKETS)];
        let mut buckets = Lines { v4: [None; BURST_PACKETS], v6: [None; BURST_PACKETS] };
        for (number, tuple) in tuples.iter().enumerate() {
            match from_peer(direction, tuple) {
                Addresses::V4 { source, .. } => self.v4.reach(source, &mut buckets.v4[number]),
                Addresses::V6 { source, .. } => self.v6.reach(source, &mut buckets.v6[number]),
            }
        }
        // Hosts first, then the others together: whether the next address is a host cannot be foreseen.
        let (mut v4, mut v6) = (Others::default(), Others::default());
        for (number, tuple) in tuples.iter().enumerate() {
            places[number] = match from_peer(direction, tuple) {
                Addresses::V4 { source, .. } => v4.host(&self.v4, (number, source), buckets.v4[number]),
                Addresses::V6 { source, .. } => v6.host(&self.v6, (number, source), buckets.v6[number]),
            };
        }
        v4.find(&self.v4, places);
        v6.find(&self.v6, places);
    }
}

/// Addresses of a burst that are no hosts.
struct Others<A> {
    addresses: [A; BURST_PACKETS],
    numbers: [u8; BURST_PACKETS],
    count: usize,
}

impl<A: Address> Default for Others<A> {
    fn default() -> Self {
        Self { addresses: [A::default(); BURST_PACKETS], numbers: [0; BURST_PACKETS], count: 0 }
    }
}

impl<A: Address> Others<A> {
    /// The place of a host; if it is none, it is noted, and the place says nothing.
    #[inline(always)]
    fn host(
        &mut self,
        all: &AddressTable<A>,
        (number, address): (usize, A),
        bucket: Option<&Bucket<A>>,
    ) -> AddressEntry {
        let (place, is_host) = all.host(address, bucket);
        (self.addresses[self.count % BURST_PACKETS], self.numbers[self.count % BURST_PACKETS]) =
            (address, number as u8);
        self.count += usize::from(!is_host);
        place
    }

    /// The places of those that were noted.
    #[inline(always)]
    fn find(&self, all: &AddressTable<A>, places: &mut [AddressEntry; BURST_PACKETS]) {
        let found = |number: usize, place| places[usize::from(self.numbers[number]) % BURST_PACKETS] = place;
        all.prefixes.find_all(&self.addresses[..self.count.min(BURST_PACKETS)], found);
    }
}

/// Where hosts will be looked for.
struct Lines<'a> {
    v4: [Option<&'a Bucket<u32>>; BURST_PACKETS],
    v6: [Option<&'a Bucket<u128>>; BURST_PACKETS],
}

impl<A: Address> AddressTable<A> {
    #[inline(always)]
    fn reach<'a>(&'a self, address: A, bucket: &mut Option<&'a Bucket<A>>) {
        *bucket = self.hosts.bucket(address);
        bucket.iter().for_each(|bucket| bucket.prefetch());
    }

    /// Some place, and whether it is that of the address as a host.
    #[inline(always)]
    fn host(&self, address: A, bucket: Option<&Bucket<A>>) -> (AddressEntry, bool) {
        match bucket.map(|bucket| bucket.probe(address)) {
            Some(Probe { place, is_there, is_last: true }) => (place, is_there),
            _ => self.hosts.find(address).map_or((AddressEntry::NOWHERE, false), |place| (place, true)),
        }
    }
}
