//! Which rules cover a protocol and its ports (§2): `ALL` rules are in every row, the others in those of their protocol
//! and family.

use super::rows::{RowCollector, RowMatrix, clear_bit, row_bytes, set_bit};
use crate::desired::{PortRange, Protocol, Rule};
use crate::headers::{Addresses, Tuple, protocol};
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use hashbrown::HashMap;

/// Port 0 is covered by rules that do not look at ports, and by no other (§1.3).
const EVERY_PORT: &[PortRange] = &[PortRange { first: 0, last: u16::MAX }];

/// Rows by protocol and ports.
#[derive(Debug)]
pub(super) struct Services {
    matrix: RowMatrix,
    destinations: Destinations,
    /// The rows of TCP and of UDP by source port, if some rule cares.
    sources: [Option<PortPages>; 2],
}

/// The rows of TCP and of UDP by destination port, and those of all other protocols, whose number stands in the place of
/// the port and whose family in that of its high byte.
#[derive(Debug)]
pub(super) struct Destinations {
    /// The page of each high byte, by [`table_of`] the protocol.
    pages_of: Box<[[u16; 256]; 4]>,
    pages: Box<[[u16; 256]]>,
}

impl Destinations {
    fn new(tables: [&PortPages; 3]) -> Self {
        let pages = tables.iter().map(|table| table.pages.len()).sum();
        let (mut pages_of, mut pages) = (Box::new([[0; 256]; 4]), Vec::with_capacity(pages));
        for (table, pages_of) in tables.into_iter().zip(pages_of.iter_mut()) {
            let before = pages.len() as u16;
            *pages_of = table.by_high_byte.map(|page| page + before);
            pages.extend_from_slice(&table.pages);
        }
        Self { pages_of, pages: pages.into() }
    }

    /// The number of the row of a packet's protocol and destination port.
    #[inline(always)]
    pub(super) fn row(&self, tuple: &Tuple) -> u32 {
        // Chosen by arithmetic: which protocol comes next cannot be foreseen.
        let table = usize::from(TABLES[tuple.protocol as usize]);
        let family = u16::from(matches!(tuple.addresses, Addresses::V6 { .. }));
        let other = family << 8 | u16::from(tuple.protocol);
        let [high, low] = if table == OTHERS { other } else { tuple.destination_port }.to_be_bytes();
        let page = self.pages_of[table % self.pages_of.len()][high as usize];
        u32::from(self.pages[page as usize][low as usize])
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.pages_of) + size_of_val(&*self.pages)
    }
}

/// The table of all protocols without ports.
const OTHERS: usize = 2;

/// Where the rows of a protocol are.
const fn table_of(number: u8) -> usize {
    match number {
        protocol::TCP => 0,
        protocol::UDP => 1,
        _ => OTHERS,
    }
}

/// [`table_of`] every protocol.
static TABLES: [u8; 256] = {
    let mut tables = [0; 256];
    let mut number = 0;
    while number < tables.len() {
        tables[number] = table_of(number as u8) as u8;
        number += 1;
    }
    tables
};

/// The row of every port: a page for each high byte; those of one row are kept once.
#[derive(Debug)]
struct PortPages {
    by_high_byte: Box<[u16; 256]>,
    pages: Box<[[u16; 256]]>,
}

impl PortPages {
    #[inline]
    fn row(&self, port: u16) -> u32 {
        let [high, low] = port.to_be_bytes();
        self.pages[self.by_high_byte[high as usize] as usize][low as usize] as u32
    }

    /// Pages of ascending `pieces`, each a first port and a row; of two with the same port the later counts. The first is
    /// that of port 0.
    fn of_pieces(pieces: &[(u16, u16)]) -> Self {
        let mut pages: Vec<[u16; 256]> = Vec::with_capacity(pieces.len().min(256));
        let mut uniform = HashMap::<u16, u16>::new();
        let mut by_high_byte = Box::new([0; 256]);
        let mut position = 0;
        for (high, number) in by_high_byte.iter_mut().enumerate() {
            let inside = pieces[position + 1..].iter().take_while(|piece| piece.0 as usize >> 8 == high).count();
            let inside = &pieces[position..][..=inside];
            position += inside.len() - 1;
            let at_start = inside.iter().rposition(|piece| piece.0 as usize <= high << 8).unwrap_or(0);
            let (first, inside) = (inside[at_start].1, &inside[at_start + 1..]);
            let next = pages.len() as u16;
            *number = if inside.is_empty() { *uniform.entry(first).or_insert(next) } else { next };
            if *number != next {
                continue;
            }
            let mut page = [first; 256];
            for &(start, row) in inside {
                page[(start & 0xff) as usize..].fill(row);
            }
            pages.push(page);
        }
        Self { by_high_byte, pages: pages.into() }
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.by_high_byte) + size_of_val(&*self.pages)
    }
}

impl Services {
    /// The row of rules whose protocol and destination port match.
    #[inline]
    pub(super) fn row(&self, tuple: &Tuple) -> &[u64] {
        self.matrix.row(self.destinations.row(tuple))
    }

    /// The same by their numbers; and the rows.
    pub(super) fn side(&self) -> (&Destinations, &RowMatrix) {
        (&self.destinations, &self.matrix)
    }

    /// The row of rules whose source port matches, if some rule of the protocol cares.
    #[inline]
    pub(super) fn sources(&self, tuple: &Tuple) -> Option<&[u64]> {
        let pages = self.sources.get(table_of(tuple.protocol))?.as_ref()?;
        Some(self.matrix.row(pages.row(tuple.source_port)))
    }

    /// Whether no rule cares for source ports.
    pub(super) fn is_by_destination(&self) -> bool {
        self.sources.iter().all(Option::is_none)
    }

    /// Rows for rules in their deciding order. `ranges` are the destination ports of the rules that have some. If exact
    /// rows would take more than `bytes_max`, they are cut at high bytes only, have no sources, and hold more than they
    /// should: the flag tells that each bit has to be confirmed.
    pub(super) fn compile(rules: &[&Rule], ranges: &[Vec<PortRange>], bytes_max: usize) -> (Self, bool) {
        let exact = |range: PortRange| range;
        if let Some(services) = Self::cut(rules, ranges, exact, true, bytes_max) {
            return (services, true);
        }
        let widened = |range: PortRange| PortRange { first: range.first & 0xff00, last: range.last | 0xff };
        let services = Self::cut(rules, ranges, widened, false, usize::MAX);
        (services.unwrap_or_else(|| Self::every(rules.len())), false)
    }

    /// Every rule in every row.
    fn every(rules: usize) -> Self {
        let mut rows = RowCollector::new(rules, 1);
        let mut row = rows.empty();
        (0..rules).for_each(|bit| set_bit(&mut row, bit));
        rows.add(&row);
        let destinations = Destinations::new([&PortPages::of_pieces(&[(0, 0)]); 3]);
        Self { matrix: rows.finish(), destinations, sources: [None, None] }
    }

    fn cut(
        rules: &[&Rule],
        ranges: &[Vec<PortRange>],
        shape: impl Fn(PortRange) -> PortRange,
        with_sources: bool,
        bytes_max: usize,
    ) -> Option<Self> {
        let rows_max = (bytes_max / row_bytes(rules.len()).max(1)).clamp(1, u16::MAX as usize);
        // Most rules have one range of ports, whose ends begin a row each.
        let mut rows = RowCollector::new(rules.len(), rows_max.min(rules.len() * 2));
        let mut row_of = |number: u8, is_v6: bool| {
            let mut row = rows.empty();
            let covering = rules.iter().enumerate().filter(|(_, rule)| covers(rule.protocol, number, is_v6));
            covering.for_each(|(bit, _)| set_bit(&mut row, bit));
            rows.add(&row) as u16
        };
        let named: BTreeSet<u8> = rules.iter().filter_map(|rule| number_of(rule.protocol)).collect();
        let unnamed = (0..=u8::MAX).find(|number| !named.contains(number)).unwrap_or(0);
        let mut by_protocol = vec![(0, row_of(unnamed, false))];
        for is_v6 in [false, true] {
            for number in &named {
                let place = (is_v6 as u16) << 8 | u16::from(*number);
                by_protocol.extend([(place, row_of(*number, is_v6)), (place + 1, row_of(unnamed, false))]);
            }
        }
        let mut with_ports = |number: u8| -> Option<(PortPages, Option<PortPages>)> {
            let of_protocol = |rule: &Rule| rule.protocol == Protocol::Number(number);
            let destinations = |bit: usize| match rules[bit].protocol {
                Protocol::All => Cow::Borrowed(EVERY_PORT),
                _ if of_protocol(rules[bit]) => ranges[bit].iter().map(|range| shape(*range)).collect(),
                _ => Cow::default(),
            };
            let destination = pieces(rules.len(), &mut rows, destinations, rows_max)?;
            let cares = with_sources && rules.iter().any(|rule| of_protocol(rule) && rule.source_ports.is_some());
            let sources = |bit: usize| match rules[bit].source_ports {
                Some(range) if of_protocol(rules[bit]) => Cow::Owned(vec![range]),
                _ => Cow::Borrowed(EVERY_PORT),
            };
            let source = if cares { Some(pieces(rules.len(), &mut rows, sources, rows_max)?) } else { None };
            let pages = |pieces: Vec<(u16, u16)>| PortPages::of_pieces(&pieces);
            Some((pages(destination), source.map(pages)))
        };
        let (tcp, udp) = (with_ports(protocol::TCP)?, with_ports(protocol::UDP)?);
        let destinations = Destinations::new([&tcp.0, &udp.0, &PortPages::of_pieces(&by_protocol)]);
        Some(Self { matrix: rows.finish(), destinations, sources: [tcp.1, udp.1] })
    }

    pub(super) fn bytes(&self) -> usize {
        let sources = self.sources.iter().flatten();
        self.matrix.bytes() + self.destinations.bytes() + sources.map(PortPages::bytes).sum::<usize>()
    }
}

const fn number_of(protocol: Protocol) -> Option<u8> {
    match protocol {
        Protocol::All => None,
        Protocol::Number(number) => Some(number),
    }
}

/// Whether a rule's protocol covers a packet's. ICMP is IPv4 alone, ICMPv6 is IPv6 alone (§2).
const fn covers(rule: Protocol, number: u8, is_v6: bool) -> bool {
    match rule {
        Protocol::All => true,
        Protocol::Number(protocol::ICMP) => number == protocol::ICMP && !is_v6,
        Protocol::Number(protocol::ICMPV6) => number == protocol::ICMPV6 && is_v6,
        Protocol::Number(covered) => covered == number,
    }
}

/// Cuts the port space at the borders of every rule's ranges, sweeping one row along; none if there are more than
/// `rows_max` rows.
fn pieces<'r>(
    rules: usize,
    rows: &mut RowCollector,
    ranges: impl Fn(usize) -> Cow<'r, [PortRange]>,
    rows_max: usize,
) -> Option<Vec<(u16, u16)>> {
    // The first port, whose rule begins or ends: as one number each, which are sorted soonest.
    let border = |port: u32, bit: usize, begins: bool| u64::from(port) << 32 | (bit as u64) << 1 | u64::from(begins);
    let mut borders: Vec<u64> = Vec::with_capacity(rules * 2);
    for bit in 0..rules {
        for range in &*merged(ranges(bit)) {
            borders.push(border(range.first.into(), bit, true));
            borders.push(border(u32::from(range.last) + 1, bit, false));
        }
    }
    borders.sort_unstable();
    let port = |border: u64| (border >> 32) as u32;
    let mut row = rows.empty();
    let mut pieces: Vec<(u16, u16)> = Vec::new();
    let starts_later = borders.first().is_none_or(|first| port(*first) > 0);
    if starts_later {
        pieces.push((0, rows.add(&row) as u16));
    }
    for of_port in borders.chunk_by(|one, other| port(*one) == port(*other)) {
        for border in of_port {
            let bit = (*border as u32 >> 1) as usize;
            if border & 1 == 1 { set_bit(&mut row, bit) } else { clear_bit(&mut row, bit) }
        }
        let Ok(port) = u16::try_from(port(of_port[0])) else { break };
        let number = rows.add(&row) as u16;
        if rows.len() > rows_max {
            return None;
        }
        if pieces.last().is_none_or(|last| last.1 != number) {
            pieces.push((port, number));
        }
    }
    Some(pieces)
}

/// The same ports in ranges that neither overlap nor touch, so that a rule's bit begins and ends once for each.
fn merged(ranges: Cow<'_, [PortRange]>) -> Cow<'_, [PortRange]> {
    if ranges.len() < 2 {
        return ranges;
    }
    let mut ranges = ranges.into_owned();
    ranges.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.first as u32 <= last.last as u32 + 1 => last.last = last.last.max(range.last),
            _ => merged.push(range),
        }
    }
    merged.into()
}

/// What confirms a rule whose rows hold more than they should.
#[derive(Debug)]
pub(super) struct PortCheck {
    destinations: Box<[PortRange]>,
    source: Option<PortRange>,
    has_ports: bool,
}

impl PortCheck {
    pub(super) fn new(rule: &Rule, ranges: &[PortRange]) -> Self {
        let has_ports = rule.protocol.has_ports();
        Self { destinations: ranges.into(), source: rule.source_ports, has_ports }
    }

    /// Whether the rule's ports cover the packet's, whose protocol the rule covers.
    pub(super) fn covers(&self, tuple: &Tuple) -> bool {
        !self.has_ports
            || (self.destinations.iter().any(|range| range.contains(tuple.destination_port))
                && self.source.is_none_or(|range| range.contains(tuple.source_port)))
    }
}
