//! From a protocol and a port to the number of a row: the ports of each table are cut into pieces and expanded to
//! pages, so that a packet does not have to search the pieces.

use crate::packet::headers::{Addresses, Tuple, protocol};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use hashbrown::HashMap;

/// The table of all protocols without ports. It is indexed by protocol number in place of the port's low byte, and by
/// family in place of its high byte.
pub(super) const OTHERS: usize = 2;
/// The first of the tables of TCP and UDP by source port, which follow those by destination port and [`OTHERS`].
pub(super) const SOURCES: usize = 3;
/// How many tables there are.
pub(super) const TABLES: usize = 5;

/// The table of a protocol by destination port.
pub(super) const fn table_of(number: u8) -> usize {
    match number {
        protocol::TCP => 0,
        protocol::UDP => 1,
        _ => OTHERS,
    }
}

/// [`table_of`] for every protocol.
static TABLE_OF: [u8; 256] = {
    let mut tables = [0; 256];
    let mut number = 0;
    while number < tables.len() {
        tables[number] = table_of(number as u8) as u8;
        number += 1;
    }
    tables
};

/// The index of a protocol without ports in its table.
pub(super) const fn place_of(number: u8, is_v6: bool) -> u16 {
    (is_v6 as u16) << 8 | number as u16
}

/// The ports from `first` to the beginning of the next piece, which share a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) first: u16,
    pub(super) row: u16,
}

/// The number of the page for each high byte. A page has the row for each low byte.
type HighBytes = [u16; 256];
type PortPage = [u16; 256];

/// All tables.
#[derive(Clone, Debug)]
pub(super) struct PortTables {
    destinations: Box<[HighBytes; 4]>,
    /// `None` where no rule looks at source ports.
    sources: [Option<Box<HighBytes>>; 2],
    /// Each page belongs to one table.
    pages: Vec<PortPage>,
    /// Ascending; the first piece of a table starts at port 0.
    pieces: [Vec<Piece>; TABLES],
}

impl PortTables {
    /// Makes the tables of these pieces. A source table without pieces is one that no rule looks at.
    pub(super) fn new(pieces: [Vec<Piece>; TABLES]) -> Self {
        let mut pages = Vec::with_capacity(pieces.iter().map(|pieces| pieces.len().min(256)).sum());
        let mut destinations = Box::new([[0; 256]; 4]);
        for (high_bytes, pieces) in destinations.iter_mut().zip(&pieces[..SOURCES]) {
            // A table begins with a piece at port 0, so the first page always has a row.
            *high_bytes = painted(pieces, &mut pages);
        }
        let sources = [&pieces[SOURCES], &pieces[SOURCES + 1]]
            .map(|pieces| (!pieces.is_empty()).then(|| Box::new(painted(pieces, &mut pages))));
        Self { destinations, sources, pages, pieces }
    }

    /// The number of the row for a packet's protocol and destination port.
    #[inline(always)]
    pub(super) fn row(&self, tuple: &Tuple) -> u32 {
        // Selected without a branch: the protocol of the next packet is unpredictable.
        let table = usize::from(TABLE_OF[tuple.protocol as usize]);
        let other = place_of(tuple.protocol, matches!(tuple.addresses, Addresses::V6 { .. }));
        let place = if table == OTHERS { other } else { tuple.destination_port };
        self.on_page(&self.destinations[table % self.destinations.len()], place)
    }

    /// The number of the row for a packet's source port, if a rule of the protocol looks at it.
    #[inline]
    pub(super) fn source_row(&self, tuple: &Tuple) -> Option<u32> {
        let high_bytes = self.sources.get(table_of(tuple.protocol))?.as_ref()?;
        Some(self.on_page(high_bytes, tuple.source_port))
    }

    #[inline(always)]
    fn on_page(&self, high_bytes: &HighBytes, place: u16) -> u32 {
        let [high, low] = place.to_be_bytes();
        u32::from(self.pages[high_bytes[high as usize] as usize][low as usize])
    }

    /// The pieces of a table.
    pub(super) fn pieces(&self, table: usize) -> &[Piece] {
        &self.pieces[table]
    }

    /// Splits pieces so that one begins at each end of a port range. Returns the pieces in the range and all pieces of
    /// the table; `split` gets the row of each piece that is split. After changing them, [`paint`](PortTables::paint)
    /// them.
    pub(super) fn cut(
        &mut self,
        table: usize,
        ports: (u16, u16),
        mut split: impl FnMut(u16),
    ) -> (Range<usize>, &mut [Piece]) {
        let pieces = &mut self.pieces[table];
        let mut begin = |first: u16| {
            let after = pieces.partition_point(|piece| piece.first <= first);
            let piece = pieces[after - 1];
            if piece.first == first {
                return after - 1;
            }
            split(piece.row);
            pieces.insert(after, Piece { first, ..piece });
            after
        };
        let start = begin(ports.0);
        // Port 65535 has no successor: the range then extends to the last piece.
        let end = ports.1.checked_add(1).map(&mut begin);
        (start..end.unwrap_or(pieces.len()), pieces)
    }

    /// The pieces that overlap a port range.
    pub(super) fn touched(&self, table: usize, (first, last): (u16, u16)) -> &[Piece] {
        let pieces = &self.pieces[table];
        let at_most = |bound: u16| pieces.partition_point(|piece| piece.first <= bound);
        &pieces[at_most(first) - 1..at_most(last)]
    }

    /// Renews the pages that a port range touches.
    pub(super) fn paint(&mut self, table: usize, (first, last): (u16, u16)) {
        let Self { destinations, sources, pages, pieces } = self;
        let high_bytes = match table.checked_sub(SOURCES) {
            None => Some(&mut destinations[table]),
            Some(table) => sources[table].as_deref_mut(),
        };
        let Some(high_bytes) = high_bytes else { return };
        for high in first >> 8..=last >> 8 {
            let after_first = pieces[table].partition_point(|piece| piece.first <= high << 8);
            let page = page_of(&pieces[table][after_first - 1..], high);
            let number = high_bytes[high as usize];
            // A page that several high bytes share must not be changed for one of them.
            if high_bytes.iter().filter(|other| **other == number).count() == 1 {
                pages[number as usize] = page;
            } else {
                high_bytes[high as usize] = pages.len() as u16;
                pages.push(page);
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let sources = self.sources.iter().flatten().map(|high_bytes| size_of_val(&**high_bytes));
        let pieces = self.pieces.iter().map(|pieces| size_of_val(&**pieces));
        size_of_val(&*self.destinations) + size_of_val(&*self.pages) + sources.chain(pieces).sum::<usize>()
    }
}

/// Expands all pieces of a table to pages. Identical pages with one row are stored once.
fn painted(pieces: &[Piece], pages: &mut Vec<PortPage>) -> HighBytes {
    let mut uniform = HashMap::<u16, u16>::new();
    let mut position = 0;
    core::array::from_fn(|high| {
        let high = high as u16;
        position += pieces[position + 1..].iter().take_while(|piece| piece.first <= high << 8).count();
        let next = pages.len() as u16;
        let is_uniform = pieces.get(position + 1).is_none_or(|piece| piece.first >> 8 != high);
        // Most high bytes lie within one piece: sharing their pages keeps a table in few cache lines.
        let number = if is_uniform { *uniform.entry(pieces[position].row).or_insert(next) } else { next };
        if number == next {
            pages.push(page_of(&pieces[position..], high));
        }
        number
    })
}

/// The page of a high byte. The first of `pieces` contains its first port.
fn page_of(pieces: &[Piece], high: u16) -> PortPage {
    let mut page = [pieces[0].row; 256];
    for piece in pieces[1..].iter().take_while(|piece| piece.first >> 8 == high) {
        page[(piece.first & 0xff) as usize..].fill(piece.row);
    }
    page
}
