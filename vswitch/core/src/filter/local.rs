//! Which rules cover the local side of a packet, for filters with quintuple rules.

use super::rows::{RowCollector, RowMatrix, row_bytes, set_bit};
use crate::desired::Rule;
use crate::headers::Addresses;
use crate::prefix_map::PrefixMap;
use alloc::vec::Vec;
use ipnet::IpNet;

/// Rows by local address.
#[derive(Debug)]
pub(super) struct LocalRows {
    matrix: RowMatrix,
    map: PrefixMap<u32>,
}

/// What the rules of a direction say of the local side.
#[derive(Debug)]
pub(super) enum Local {
    /// Nothing.
    Any,
    /// The row of an address.
    Rows(LocalRows),
    /// The rows would take too much room: each rule has to be confirmed.
    Checked,
}

impl Local {
    /// Rows for rules in their deciding order, in about `bytes_max`.
    pub(super) fn compile(rules: &[&Rule], bytes_max: usize) -> Self {
        let restricted: Vec<(IpNet, usize)> =
            rules.iter().enumerate().filter_map(|(bit, rule)| Some((rule.local?, bit))).collect();
        if restricted.is_empty() {
            return Self::Any;
        }
        // Each prefix makes at most two pieces.
        if restricted.len() * 2 * row_bytes(rules.len()) > bytes_max {
            return Self::Checked;
        }
        let mut rows = RowCollector::new(rules.len(), restricted.len() * 2);
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
        Self::Rows(LocalRows { matrix: rows.finish(), map })
    }

    /// The row of rules whose local side holds the source of `addresses`; none if rows do not tell.
    #[inline]
    pub(super) fn row(&self, addresses: Addresses) -> Option<&[u64]> {
        let Self::Rows(LocalRows { matrix, map }) = self else { return None };
        Some(matrix.row(match addresses {
            Addresses::V4 { source, .. } => map.find_v4(source),
            Addresses::V6 { source, .. } => map.find_v6(source),
        }))
    }

    pub(super) fn bytes(&self) -> usize {
        if let Self::Rows(rows) = self { rows.matrix.bytes() } else { 0 }
    }
}
