//! Which rules cover the local address of a packet, for ACLs with quintuple rules.

use crate::acl::bit_matrix::{BitMatrix, RowCollector, put_bit, row_bytes};
use crate::acl::service_rows::Numbered;
use crate::config::desired::DesiredRule;
use crate::packet::headers::Addresses;
use crate::tables::lpm::PrefixMap;
use alloc::vec::Vec;
use ipnet::IpNet;

/// Rows by local address.
#[derive(Clone, Debug)]
pub(super) struct LocalRows {
    matrix: BitMatrix,
    map: PrefixMap<u32>,
}

/// The restrictions of a direction's rules on the local address.
#[derive(Clone, Debug)]
pub(super) enum LocalAddress {
    /// No rule has one.
    Any,
    /// There is a row for each address.
    Rows(LocalRows),
    /// The rows would be too large: each rule that is found has to be confirmed.
    Checked,
}

impl LocalAddress {
    /// Makes rows of `words` words for the rules, of at most about `bytes_max`.
    pub(super) fn compile(rules: &[Numbered<'_>], words: usize, bytes_max: usize) -> Self {
        let restricted: Vec<(IpNet, u32)> =
            rules.iter().filter_map(|rule| Some((rule.rule.conditions.local?, rule.bit))).collect();
        if restricted.is_empty() {
            return Self::Any;
        }
        // Each prefix adds at most two pieces.
        if restricted.len() * 2 * row_bytes(rules.len()) > bytes_max {
            return Self::Checked;
        }
        let mut rows = RowCollector::new(words, restricted.len() * 2);
        let mut everywhere = rows.empty();
        // A rule without a local prefix covers every address and therefore is in every row.
        for rule in rules.iter().filter(|rule| rule.rule.conditions.local.is_none()) {
            put_bit(&mut everywhere, rule.bit, true);
        }
        let map = PrefixMap::build(&restricted, |covering| {
            let mut row = everywhere.clone();
            for &bit in covering {
                put_bit(&mut row, bit, true);
            }
            rows.add(&row)
        });
        Self::Rows(LocalRows { matrix: rows.finish(), map })
    }

    /// Sets or clears the bit of a rule. Returns whether the rows can express the rule's local address.
    pub(super) fn put(&mut self, bit: u32, rule: &DesiredRule, is_there: bool) -> bool {
        match self {
            Self::Any => rule.conditions.local.is_none(),
            Self::Checked => true,
            Self::Rows(rows) => {
                rows.matrix.put_in_all(bit, is_there);
                // Adding a prefix would cut the map anew; a rule without one is in every row and needs no cut.
                rule.conditions.local.is_none() || !is_there
            }
        }
    }

    /// The row of the rules that cover the source of `addresses`, or `None` if there are no rows.
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
