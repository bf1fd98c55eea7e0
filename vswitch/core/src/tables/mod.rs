//! Lookup structures: from an address to its route and class, and arrays that generations share.

pub mod address_class;
pub(crate) mod address_entry;
pub(crate) mod address_table;
pub mod cow_array;
pub(crate) mod host_table;
pub mod lpm;
pub(crate) mod number_hasher;
pub mod route;
