//! Where a record of a connection is, and where it is looked for.

/// The place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub(super) u32);

impl Slot {
    /// The first there is.
    pub(crate) const FIRST: Self = Self(0);
}

/// Where a connection is looked for as long as it lives: a record moves, its home and its ports stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) bucket: u32,
    pub(crate) ports: u32,
}
