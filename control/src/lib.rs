//! The control plane: VPCs, ENIs and security groups as customers see them.

pub mod conform;
