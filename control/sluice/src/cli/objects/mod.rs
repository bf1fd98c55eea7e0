//! The objects of customers, with one file per noun.

pub(crate) mod eni;
pub(crate) mod nat;
pub(crate) mod port_list;
pub(crate) mod prefix_list;
pub(crate) mod rule;
pub(crate) mod security_group;
pub(crate) mod settings;
pub(crate) mod uplink;
pub(crate) mod vpc;
pub(crate) mod vswitch;
