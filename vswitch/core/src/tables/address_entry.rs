//! What a VPC knows of one address.

use super::address_class::{AddressClass, SetCombinationId};
use super::route::{AddressRoute, PackedRoute};

/// What a VPC knows of an address, found in one lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressEntry {
    route: PackedRoute,
    /// What rules can tell about it as a peer.
    pub(crate) class: AddressClass,
}

impl AddressEntry {
    /// The entry of an address that nothing refers to.
    pub(crate) const NOWHERE: Self =
        Self::new(AddressRoute::Nowhere, AddressClass { by_prefix: SetCombinationId(0), by_host: SetCombinationId(0) });
    /// No entry, not even [`AddressEntry::NOWHERE`].
    pub(crate) const NONE: Self = Self { route: PackedRoute::NONE, ..Self::NOWHERE };

    pub(crate) const fn new(route: AddressRoute, class: AddressClass) -> Self {
        Self { route: PackedRoute::pack(route), class }
    }

    /// Where packets for the address go.
    #[inline(always)]
    pub(crate) const fn route(self) -> AddressRoute {
        self.route.unpack()
    }

    #[inline(always)]
    pub(crate) const fn is_none(self) -> bool {
        self.route.is_none()
    }
}
