//! Rows of bits, one bit a rule, and the maps that choose a row.

use crate::desired::{PortRange, Ports, Protocol, Rule};
use crate::headers::{Addresses, Tuple, protocol};
use crate::prefix_map::PrefixMap;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use ipnet::IpNet;

/// Rows of equal width; equal rows are kept once.
#[derive(Debug, Default)]
pub(super) struct RowMatrix {
    words: usize,
    bits: Vec<u64>,
}

impl RowMatrix {
    /// The row with this number.
    pub(super) fn row(&self, number: u32) -> &[u64] {
        let start = number as usize * self.words;
        &self.bits[start..start + self.words]
    }
}

/// Collects rows and numbers the different ones.
pub(super) struct RowCollector {
    matrix: RowMatrix,
    numbers: BTreeMap<Box<[u64]>, u32>,
}

impl RowCollector {
    pub(super) fn new(rules: usize) -> Self {
        Self { matrix: RowMatrix { words: rules.div_ceil(64), bits: Vec::new() }, numbers: BTreeMap::new() }
    }

    /// A row without a bit.
    pub(super) fn empty(&self) -> Vec<u64> {
        vec![0; self.matrix.words]
    }

    /// The number of a row with these bits.
    pub(super) fn add(&mut self, row: &[u64]) -> u32 {
        let next = self.numbers.len() as u32;
        if let Some(&number) = self.numbers.get(row) {
            return number;
        }
        self.matrix.bits.extend_from_slice(row);
        self.numbers.insert(row.into(), next);
        next
    }

    pub(super) fn finish(self) -> RowMatrix {
        self.matrix
    }
}

pub(super) fn set_bit(row: &mut [u64], bit: usize) {
    row[bit / 64] |= 1 << (bit % 64);
}

fn clear_bit(row: &mut [u64], bit: usize) {
    row[bit / 64] &= !(1 << (bit % 64));
}

/// Rows by protocol and ports (§2): `ALL` rules are in every row, the others in those of their protocol and family.
#[derive(Debug)]
pub(super) struct Services {
    matrix: RowMatrix,
    /// The row of every protocol without ports, by family and number.
    by_protocol: Box<[u32; 512]>,
    tcp: PortRows,
    udp: PortRows,
}

/// Rows of one protocol with ports.
#[derive(Debug)]
struct PortRows {
    destination: Pieces,
    /// Present if some rule cares.
    source: Option<Pieces>,
}

/// The port space cut into pieces, each with its row.
#[derive(Debug)]
struct Pieces {
    starts: Box<[u16]>,
    rows: Box<[u32]>,
}

impl Pieces {
    fn row(&self, port: u16) -> u32 {
        self.rows[self.starts.partition_point(|&start| start <= port).saturating_sub(1)]
    }
}

impl Services {
    /// The row of rules whose protocol and destination port match, and that of those whose source port does.
    pub(super) fn rows(&self, tuple: &Tuple) -> (&[u64], Option<&[u64]>) {
        let ports = match tuple.protocol {
            protocol::TCP => &self.tcp,
            protocol::UDP => &self.udp,
            number => {
                let family = matches!(tuple.addresses, Addresses::V6 { .. }) as usize;
                return (self.matrix.row(self.by_protocol[family << 8 | number as usize]), None);
            }
        };
        let source = ports.source.as_ref().map(|pieces| self.matrix.row(pieces.row(tuple.source_port)));
        (self.matrix.row(ports.destination.row(tuple.destination_port)), source)
    }

    /// Rows for rules in their deciding order. `ranges_of` resolves the destination ports of a TCP or UDP rule.
    pub(super) fn compile(rules: &[&Rule], ranges_of: impl Fn(&Ports) -> Vec<PortRange>) -> Self {
        let mut rows = RowCollector::new(rules.len());
        let mut by_protocol = Box::new([0; 512]);
        let numbers = || rules.iter().map(|rule| rule.protocol);
        for (place, slot) in by_protocol.iter_mut().enumerate() {
            let (number, is_v6) = (place as u8, place >= 256);
            let mut row = rows.empty();
            for (bit, covered) in numbers().enumerate() {
                if covers(covered, number, is_v6) {
                    set_bit(&mut row, bit);
                }
            }
            *slot = rows.add(&row);
        }
        let mut with_ports = |number: u8| {
            let of_protocol = |rule: &Rule| rule.protocol == Protocol::Number(number);
            let destination = cut(rules, &mut rows, |rule| match rule.protocol {
                Protocol::All => Some(vec![EVERY_PORT]),
                _ if of_protocol(rule) => Some(ranges_of(&rule.ports)),
                _ => None,
            });
            let cares = rules.iter().any(|rule| of_protocol(rule) && rule.source_ports.is_some());
            let source = cares.then(|| {
                cut(rules, &mut rows, |rule| match rule.source_ports {
                    Some(range) if of_protocol(rule) => Some(vec![range]),
                    _ => Some(vec![EVERY_PORT]),
                })
            });
            PortRows { destination, source }
        };
        let (tcp, udp) = (with_ports(protocol::TCP), with_ports(protocol::UDP));
        Self { matrix: rows.finish(), by_protocol, tcp, udp }
    }
}

/// Port 0 is covered by rules that do not look at ports, and by no other (§1.3).
const EVERY_PORT: PortRange = PortRange { first: 0, last: u16::MAX };

/// Whether a rule's protocol covers a packet's. ICMP is IPv4 alone, ICMPv6 is IPv6 alone (§2).
pub(super) const fn covers(rule: Protocol, number: u8, is_v6: bool) -> bool {
    match rule {
        Protocol::All => true,
        Protocol::Number(protocol::ICMP) => number == protocol::ICMP && !is_v6,
        Protocol::Number(protocol::ICMPV6) => number == protocol::ICMPV6 && is_v6,
        Protocol::Number(covered) => covered == number,
    }
}

/// Cuts the port space at the borders of every rule's ranges, sweeping one row along.
fn cut(rules: &[&Rule], rows: &mut RowCollector, ranges: impl Fn(&Rule) -> Option<Vec<PortRange>>) -> Pieces {
    let mut borders: BTreeMap<u32, Vec<(usize, bool)>> = BTreeMap::new();
    borders.entry(0).or_default();
    for (bit, rule) in rules.iter().enumerate() {
        for range in merged(ranges(rule).unwrap_or_default()) {
            borders.entry(range.first as u32).or_default().push((bit, true));
            borders.entry(range.last as u32 + 1).or_default().push((bit, false));
        }
    }
    let mut row = rows.empty();
    let (mut starts, mut numbers) = (Vec::new(), Vec::new());
    for (port, changes) in borders {
        for (bit, begins) in changes {
            if begins { set_bit(&mut row, bit) } else { clear_bit(&mut row, bit) }
        }
        let Ok(port) = u16::try_from(port) else { break };
        let number = rows.add(&row);
        if numbers.last() != Some(&number) {
            starts.push(port);
            numbers.push(number);
        }
    }
    Pieces { starts: starts.into(), rows: numbers.into() }
}

/// The same ports in ranges that neither overlap nor touch, so that a rule's bit begins and ends once for each.
fn merged(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.first as u32 <= last.last as u32 + 1 => last.last = last.last.max(range.last),
            _ => merged.push(range),
        }
    }
    merged
}

/// Rows by local address, for filters with quintuple rules.
#[derive(Debug)]
pub(super) struct LocalRows {
    matrix: RowMatrix,
    map: PrefixMap<u32>,
}

impl LocalRows {
    /// The row of rules whose local side holds the source of `addresses`.
    pub(super) fn row(&self, addresses: Addresses) -> &[u64] {
        self.matrix.row(match addresses {
            Addresses::V4 { source, .. } => self.map.find_v4(source),
            Addresses::V6 { source, .. } => self.map.find_v6(source),
        })
    }

    /// Rows for rules in their deciding order; none if no rule has a local side.
    pub(super) fn compile(rules: &[&Rule]) -> Option<Self> {
        let restricted: Vec<(IpNet, usize)> =
            rules.iter().enumerate().filter_map(|(bit, rule)| Some((rule.local?, bit))).collect();
        if restricted.is_empty() {
            return None;
        }
        let mut rows = RowCollector::new(rules.len());
        let mut everywhere = rows.empty();
        for (bit, rule) in rules.iter().enumerate() {
            if rule.local.is_none() {
                set_bit(&mut everywhere, bit);
            }
        }
        let map = PrefixMap::build(&restricted, |covering| {
            let mut row = everywhere.clone();
            for &bit in covering {
                set_bit(&mut row, bit);
            }
            rows.add(&row)
        });
        Some(Self { matrix: rows.finish(), map })
    }
}
