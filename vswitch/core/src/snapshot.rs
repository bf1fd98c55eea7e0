//! What a packet may read: one generation of the whole configuration, immutable.

use crate::ids::{EniId, EniIndex};

/// One generation, compiled.
#[derive(Debug)]
pub struct Snapshot {}

impl Snapshot {
    /// The number of this generation.
    pub fn generation(&self) -> u64 {
        0
    }
    /// The ENI's number.
    pub fn eni_index(&self, _id: &EniId) -> Option<EniIndex> {
        None
    }
    /// The ENI's name, if it exists in this generation.
    pub fn eni_id(&self, _index: EniIndex) -> Option<&EniId> {
        None
    }
    /// All ENIs.
    pub fn enis(&self) -> impl Iterator<Item = (EniIndex, &EniId)> {
        core::iter::empty()
    }
}
