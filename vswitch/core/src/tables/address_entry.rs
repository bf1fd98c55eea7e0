//! What a VPC knows of one address.

use super::address_class::{AddressClass, SetCombinationId};
use super::route::{AddressRoute, PackedRoute};

/// What a VPC knows of an address, from one look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressEntry {
    route: PackedRoute,
    /// What rules can tell about it as a peer.
    pub(crate) class: AddressClass,
}

impl AddressEntry {
    /// That of an address that nobody speaks of.
    pub(crate) const NOWHERE: Self =
        Self::new(AddressRoute::Nowhere, AddressClass { by_prefix: SetCombinationId(0), by_host: SetCombinationId(0) });
    /// No place, not even [`AddressEntry::NOWHERE`].
    pub(crate) const NONE: Self = Self { route: PackedRoute::NONE, ..Self::NOWHERE };

    pub(crate) const fn new(route: AddressRoute, class: AddressClass) -> Self {
        Self { route: PackedRoute::pack(route), class }
    }

    /// Where packets for it go.
    #[inline(always)]
    pub(crate) const fn route(self) -> AddressRoute {
        self.route.unpack()
    }

    #[inline(always)]
    pub(crate) const fn is_none(self) -> bool {
        self.route.is_none()
    }
}
