//! Which rules cover a protocol and its ports (§2). Rules for `ALL` are in every row, the others in those of their
//! protocol and family.

use crate::acl::bit_matrix::{BitMatrix, RowCollector, put_bit, row_bytes};
use crate::acl::port_rows::{OTHERS, Piece, PortTables, SOURCES, TABLES, place_of, table_of};
use crate::config::desired::{DesiredRule, PortRange, Protocol};
use crate::packet::headers::{Tuple, protocol};
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

/// Only rules that do not look at ports cover port 0 (§1.3).
const EVERY_PORT: PortRange = PortRange { first: 0, last: u16::MAX };

/// Rows by protocol and ports.
#[derive(Clone, Debug)]
pub(super) struct ServiceRows {
    matrix: BitMatrix,
    tables: PortTables,
    /// How many pieces, of all tables, use each row. A row that has the bit of a rule is used only for ports that the
    /// rule covers.
    uses: Vec<u32>,
    rows_max: usize,
    /// Whether a set bit means that the rule matches; if not, it means that the rule may match.
    pub(super) is_exact: bool,
}

/// A rule for which rows are made: its bit, and its destination ports if it has any.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbered<'a> {
    pub(super) bit: u32,
    pub(super) rule: &'a DesiredRule,
    pub(super) ranges: &'a [PortRange],
}

impl ServiceRows {
    /// The row of the rules that match the packet's protocol and destination port.
    #[inline]
    pub(super) fn row(&self, tuple: &Tuple) -> &[u64] {
        self.matrix.row(self.tables.row(tuple))
    }

    /// The rows, and the tables that map packets to their numbers.
    pub(super) fn rows(&self) -> (&PortTables, &BitMatrix) {
        (&self.tables, &self.matrix)
    }

    /// The row of the rules that match the packet's source port, if a rule of its protocol looks at it.
    #[inline]
    pub(super) fn sources(&self, tuple: &Tuple) -> Option<&[u64]> {
        Some(self.matrix.row(self.tables.source_row(tuple)?))
    }

    /// Whether no rule looks at source ports.
    pub(super) fn is_by_destination(&self) -> bool {
        (SOURCES..TABLES).all(|table| self.tables.pieces(table).is_empty())
    }

    /// Makes rows of `words` words. If exact rows would take more than `bytes_max`, rows are made by high byte only and
    /// without source ports, and are inexact.
    pub(super) fn compile(rules: &[Numbered<'_>], words: usize, bytes_max: usize) -> Self {
        // The row numbers have 16 bits, whatever room there is.
        let rows_max = (bytes_max / row_bytes(rules.len()).max(1)).clamp(1, u16::MAX as usize);
        let exact = Cutting { rules, words, rows_max, is_exact: true };
        let coarse = Cutting { rows_max: usize::from(u16::MAX), is_exact: false, ..exact };
        exact
            .services()
            .or_else(|| coarse.services())
            .expect("coarse rows are few: each is of 256 ports or of a protocol")
    }

    /// Sets the bit of a rule wherever it matches. If there was no room for that, returns false; some rows then lack
    /// the bit.
    pub(super) fn insert(&mut self, Numbered { bit, rule, ranges }: Numbered<'_>) -> bool {
        // A rule for all protocols is in every row, so no piece has to be split for it.
        let Protocol::Number(number) = rule.conditions.protocol else {
            self.matrix.put_in_all(bit, true);
            return true;
        };
        let by_source = self.source_ports(number, rule);
        // No table by source port exists, because no rule needed one: only compiling anew makes it.
        if by_source.is_none() && rule.conditions.source_ports.is_some() && self.is_exact {
            return false;
        }
        let mut places = places_of(number, ranges, self.is_exact).into_iter().chain(by_source);
        places.all(|(table, ports)| self.cover(table, ports, bit))
    }

    /// Clears the bit of a rule.
    pub(super) fn remove(&mut self, Numbered { bit, rule, ranges }: Numbered<'_>) {
        let Protocol::Number(number) = rule.conditions.protocol else { return self.matrix.put_in_all(bit, false) };
        let by_source = self.source_ports(number, rule);
        for (table, ports) in places_of(number, ranges, self.is_exact).into_iter().chain(by_source) {
            for piece in self.tables.touched(table, ports) {
                self.matrix.put(piece.row.into(), bit, false);
            }
        }
    }

    /// The source ports of a rule, if a rule of its protocol looks at them.
    fn source_ports(&self, number: u8, rule: &DesiredRule) -> Option<(usize, (u16, u16))> {
        let table = SOURCES + table_of(number);
        let cares = table < TABLES && !self.tables.pieces(table).is_empty();
        let ports = rule.conditions.source_ports.unwrap_or(EVERY_PORT);
        cares.then_some((table, (ports.first, ports.last)))
    }

    /// Sets a bit in the rows of these ports and of no others.
    fn cover(&mut self, table: usize, ports: (u16, u16), bit: u32) -> bool {
        let Self { matrix, tables, uses, rows_max, .. } = self;
        let mut is_other = false;
        // A split piece has the row of its other half, so one more piece uses that row.
        let (inside, pieces) = tables.cut(table, ports, |row| {
            uses[row as usize] += 1;
        });
        for piece in &mut pieces[inside] {
            // A row that others use as well would let the rule match their ports too.
            if uses[piece.row as usize] > 1 {
                if matrix.len() >= *rows_max {
                    return false;
                }
                uses[piece.row as usize] -= 1;
                uses.push(1);
                piece.row = matrix.push_copy(piece.row.into()) as u16;
                is_other = true;
            }
            matrix.put(piece.row.into(), bit, true);
        }
        if is_other {
            tables.paint(table, ports);
        }
        true
    }

    pub(super) fn bytes(&self) -> usize {
        self.matrix.bytes() + self.tables.bytes() + size_of_val(&*self.uses)
    }
}

/// The tables, and the ranges in them, for a protocol number and a rule's destination ports.
fn places_of(number: u8, ranges: &[PortRange], is_exact: bool) -> Vec<(usize, (u16, u16))> {
    match table_of(number) {
        OTHERS => {
            let families = [false, true].into_iter().filter(|is_v6| covers_family(number, *is_v6));
            let places = families.map(|is_v6| place_of(number, is_v6));
            places.map(|place| (OTHERS, (place, place))).collect()
        }
        table => {
            let shaped = |range: &PortRange| match is_exact {
                true => (range.first, range.last),
                // Coarse rows know high bytes only; the rounding may cover too much, which confirmation corrects.
                false => (range.first & 0xff00, range.last | 0xff),
            };
            ranges.iter().map(|range| (table, shaped(range))).collect()
        }
    }
}

/// ICMP exists in IPv4 only, ICMPv6 in IPv6 only (§2).
const fn covers_family(number: u8, is_v6: bool) -> bool {
    match number {
        protocol::ICMP => !is_v6,
        protocol::ICMPV6 => is_v6,
        _ => true,
    }
}

/// Makes rows from scratch.
#[derive(Clone, Copy)]
struct Cutting<'a> {
    rules: &'a [Numbered<'a>],
    words: usize,
    rows_max: usize,
    is_exact: bool,
}

impl Cutting<'_> {
    /// Returns `None` if there would be more than `rows_max` rows.
    fn services(self) -> Option<ServiceRows> {
        // Most rules have one port range, and each of its ends starts a row.
        let mut rows = RowCollector::new(self.words, self.rows_max.min(self.rules.len() * 2));
        let others = self.others(&mut rows);
        let [tcp, udp] = [protocol::TCP, protocol::UDP].map(|number| {
            let shaped = |rule: &Numbered<'_>| match rule.rule.conditions.protocol {
                Protocol::All => vec![(EVERY_PORT.first, EVERY_PORT.last)],
                Protocol::Number(other) if other == number => {
                    places_of(number, rule.ranges, self.is_exact).into_iter().map(|(_, ports)| ports).collect()
                }
                Protocol::Number(_) => Vec::new(),
            };
            self.pieces(&mut rows, shaped)
        });
        let (tcp, udp) = (tcp?, udp?);
        let [tcp_sources, udp_sources] = [protocol::TCP, protocol::UDP].map(|number| self.sources(&mut rows, number));
        let tables = PortTables::new([tcp, udp, others, tcp_sources?, udp_sources?]);
        let matrix = rows.finish();
        let mut uses = vec![0; matrix.len()];
        for piece in (0..TABLES).flat_map(|table| tables.pieces(table)) {
            uses[usize::from(piece.row)] += 1;
        }
        Some(ServiceRows { matrix, tables, uses, rows_max: self.rows_max, is_exact: self.is_exact })
    }

    /// The pieces for protocols without ports.
    fn others(self, rows: &mut RowCollector) -> Vec<Piece> {
        let mut row_of = |first: u16, is_covered: &dyn Fn(Protocol) -> bool| {
            let mut row = rows.empty();
            let covering = self.rules.iter().filter(|rule| is_covered(rule.rule.conditions.protocol));
            covering.for_each(|rule| put_bit(&mut row, rule.bit, true));
            Piece { first, row: rows.add(&row) as u16 }
        };
        let named = |rule: &Numbered<'_>| match rule.rule.conditions.protocol {
            Protocol::Number(number) if table_of(number) == OTHERS => Some(number),
            _ => None,
        };
        let named: BTreeSet<u8> = self.rules.iter().filter_map(named).collect();
        let nameless = |protocol: Protocol| protocol == Protocol::All;
        let mut pieces = vec![row_of(0, &nameless)];
        // The families are apart because ICMP exists in one and ICMPv6 in the other.
        for is_v6 in [false, true] {
            for &number in &named {
                let place = place_of(number, is_v6);
                // Two protocol numbers in a row: the piece behind the first would be empty.
                pieces.pop_if(|last| last.first == place);
                pieces.push(row_of(place, &|protocol| {
                    nameless(protocol) || (protocol == Protocol::Number(number) && covers_family(number, is_v6))
                }));
                pieces.push(row_of(place + 1, &nameless));
            }
        }
        pieces
    }

    /// The pieces for source ports; empty if no rule looks at them.
    fn sources(self, rows: &mut RowCollector, number: u8) -> Option<Vec<Piece>> {
        let is_of_protocol = |rule: &Numbered<'_>| rule.rule.conditions.protocol == Protocol::Number(number);
        if !self.is_exact
            || !self.rules.iter().any(|rule| is_of_protocol(rule) && rule.rule.conditions.source_ports.is_some())
        {
            return Some(Vec::new());
        }
        self.pieces(rows, |rule| {
            // A rule that does not look at source ports covers all of them.
            let ports = rule.rule.conditions.source_ports.filter(|_| is_of_protocol(rule)).unwrap_or(EVERY_PORT);
            let is_asked = is_of_protocol(rule) || rule.rule.conditions.protocol == Protocol::All;
            is_asked.then_some((ports.first, ports.last)).into_iter().collect()
        })
    }

    /// Cuts the port space at the borders of every rule's ports while updating a single row; `None` if there are too
    /// many rows.
    fn pieces(self, rows: &mut RowCollector, ports: impl Fn(&Numbered<'_>) -> Vec<(u16, u16)>) -> Option<Vec<Piece>> {
        // The port at which a rule begins or ends, packed into one number because that sorts fastest.
        let border =
            |port: u32, bit: u32, begins: bool| u64::from(port) << 32 | u64::from(bit) << 1 | u64::from(begins);
        let mut borders: Vec<u64> = Vec::with_capacity(self.rules.len() * 2);
        for rule in self.rules {
            for (first, last) in merged(ports(rule)) {
                borders.push(border(first.into(), rule.bit, true));
                // The end is 65,536 for a range up to the last port, hence 32 bits.
                borders.push(border(u32::from(last) + 1, rule.bit, false));
            }
        }
        borders.sort_unstable();
        let port = |border: u64| (border >> 32) as u32;
        let mut row = rows.empty();
        let mut pieces: Vec<Piece> = Vec::new();
        // Every table begins at port 0, even where no rule begins.
        if borders.first().is_none_or(|first| port(*first) > 0) {
            pieces.push(Piece { first: 0, row: rows.add(&row) as u16 });
        }
        for of_port in borders.chunk_by(|one, other| port(*one) == port(*other)) {
            for border in of_port {
                put_bit(&mut row, *border as u32 >> 1, border & 1 == 1);
            }
            // The border behind the last port ends rules but begins no piece.
            let Ok(first) = u16::try_from(port(of_port[0])) else { break };
            let number = rows.add(&row) as u16;
            // Checked while cutting: rules that need too many rows cost no more than the rows that fit.
            if rows.len() > self.rows_max {
                return None;
            }
            if pieces.last().is_none_or(|last| last.row != number) {
                pieces.push(Piece { first, row: number });
            }
        }
        Some(pieces)
    }
}

/// The same ports as ranges that neither overlap nor touch, so that a rule's bit begins and ends once in each.
fn merged(mut ports: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ports.sort_unstable();
    ports.dedup_by(|next, last| {
        // Adding one in 32 bits, since a range may end with the last port.
        let touches = u32::from(next.0) <= u32::from(last.1) + 1;
        if touches {
            last.1 = last.1.max(next.1);
        }
        touches
    });
    ports
}

/// Confirms the ports of a rule whose rows are inexact.
#[derive(Clone, Debug, Default)]
pub(super) struct PortCheck {
    destinations: Box<[PortRange]>,
    source: Option<PortRange>,
    has_ports: bool,
}

impl PortCheck {
    pub(super) fn new(rule: &DesiredRule, ranges: &[PortRange]) -> Self {
        let has_ports = rule.conditions.protocol.has_ports();
        Self { destinations: ranges.into(), source: rule.conditions.source_ports, has_ports }
    }

    /// Whether the rule covers the packet's ports, given that it covers the protocol.
    pub(super) fn covers(&self, tuple: &Tuple) -> bool {
        !self.has_ports
            || (self.destinations.iter().any(|range| range.contains(tuple.destination_port))
                && self.source.is_none_or(|range| range.contains(tuple.source_port)))
    }
}
