//! Addresses outside: floating addresses, NAT gateways and their entries.

pub(in crate::ecs) mod eip;
pub(in crate::ecs) mod forward;
pub(in crate::ecs) mod nat_gateway;
pub(in crate::ecs) mod snat;

use super::vpc::sibling;
use crate::ecs::dialect::call::Context;
use crate::error::{ApiError, ErrorKind};
use crate::model::NatGateway;

/// The identifier of a gateway's table of entries for sources.
fn snat_table(nat: &str) -> String {
    sibling("stb", nat)
}

/// The identifier of a gateway's table of forwards.
fn forward_table(nat: &str) -> String {
    sibling("ftb", nat)
}

/// The gateway whose table the call names.
fn named_table<'a>(
    context: &Context<'a>,
    parameter: &str,
    table_of: fn(&str) -> String,
    not_found: ErrorKind,
) -> Result<(&'a String, &'a NatGateway), ApiError> {
    let table = context.parameters().text(parameter).unwrap_or_default();
    let found = context.scope.nat_gateways().find(|(nat, _)| table_of(nat) == table);
    found.ok_or_else(|| not_found.error("there is none of that name.").field(parameter))
}

/// Whether a parameter is absent, or asks for this value.
fn asks_for(context: &Context<'_>, parameter: &str, value: &str) -> bool {
    context.parameters().text(parameter).is_none_or(|wanted| wanted == value)
}
