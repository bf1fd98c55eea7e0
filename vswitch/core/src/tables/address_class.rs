//! What rules can tell about an address: the sets that it belongs to.

/// A set of addresses that rules refer to: a prefix, a prefix list, or the members of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub u32);

/// The sets that an address belongs to, as two numbers of its VPC: one for the sets of prefixes around it, one for the
/// sets that name it itself. They are separate so that neither multiplies the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressClass {
    /// The sets of the prefixes around it.
    pub by_prefix: SetCombinationId,
    /// The sets that name the address itself.
    pub by_host: SetCombinationId,
}

/// A number for a combination of sets of one VPC. Zero is no set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SetCombinationId(pub u32);
