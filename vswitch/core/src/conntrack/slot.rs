//! Where a connection's record is, and where it can be looked up.

/// The index of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub(super) u32);

impl Slot {
    /// The first slot.
    pub(crate) const FIRST: Self = Self(0);
}

/// Where a connection can be found as long as it exists: its record may move, but its bucket and ports stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) bucket: u32,
    pub(crate) ports: u32,
}
