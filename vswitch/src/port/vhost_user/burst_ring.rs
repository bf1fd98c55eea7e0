//! What a burst does with a ring, whatever its format.

use super::chain::{Chain, Chains, RingFault};
use super::guest_memory::GuestMemory;

/// What a burst does with a ring of one format.
pub(super) trait BurstRing {
    /// Reads chains that are available, until `chains_max` wait to be used or no more are available.
    ///
    /// # Errors
    /// A chain breaks a rule.
    fn read(&mut self, memory: &GuestMemory, chains: &mut Chains, chains_max: usize) -> Result<(), RingFault>;

    /// Reads the chains of the next burst, as far as they are known to be available, and has what the one after that begins with
    /// fetched.
    ///
    /// # Errors
    /// A chain breaks a rule.
    fn read_ahead(&mut self, memory: &GuestMemory, chains: &mut Chains) -> Result<(), RingFault>;

    /// Gives chains back, with so many bytes written in each. Chains are given back in their order; the guest sees them
    /// once they are published.
    fn put_used(&mut self, chains: &[Chain], written_bytes: impl Fn(&Chain) -> u32);
}
