//! What rules can tell about an address: the sets that it is in.

/// A set of addresses that rules speak of: a prefix, a prefix list, or the members of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub u32);

/// The sets that an address is in, as two numbers of its VPC: those that prefixes around it are in, and those that it is
/// in by itself. Kept apart, so that neither multiplies the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressClass {
    /// The sets of the prefixes around it.
    pub by_prefix: SetCombinationId,
    /// The sets that name it alone.
    pub by_host: SetCombinationId,
}

/// A number for some sets, of one VPC. Zero is no set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SetCombinationId(pub u32);
