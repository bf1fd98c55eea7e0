//! Desired state to snapshot, or every reason why not.

use crate::desired::Desired;
use crate::protocol::Refusal;
use crate::snapshot::Snapshot;
use alloc::vec::Vec;

/// Compiles one generation.
///
/// # Errors
/// Every refusal found.
pub fn compile(_desired: &Desired, _generation: u64, _previous: Option<&Snapshot>) -> Result<Snapshot, Vec<Refusal>> {
    Ok(Snapshot {})
}
