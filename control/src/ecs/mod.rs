//! The actions of the HTTP interface: a table with a row for each, which turns calls into plans.
//!
//! A call is first checked against the published parameters of its row ([`schema`]). Then the row's function parses the
//! rest, looks up what the caller may see, and returns what to change and to respond. Nothing here changes anything:
//! the server does, once it has a [`Plan`].

mod actions;
mod catalogue;
pub mod client;
mod dialect;
mod guest_record;
mod reference_page;

pub use actions::{ACTIONS, find_action};
pub use catalogue::{Catalogue, Image, InstanceType};
pub use dialect::*;
pub use guest_record::{enis_affected, guest_record};
pub use reference_page::reference_page;

use crate::error::ApiError;
use serde_json::{Map, Value};

/// Refuses a call for reasons that do not depend on the state.
///
/// # Errors
/// A refusal in the action's terms.
pub fn check(input: &CallInput<'_>) -> Result<(), ApiError> {
    let checked = dialect::validate::check_parameters(input.call.action.schema(), &input.call.parameters);
    checked.and_then(|()| input.context().check_region()).map_err(|error| refusal(input.call, error))
}

/// The plan of a call that was checked.
///
/// # Errors
/// A refusal in the action's terms.
pub fn plan(input: &CallInput<'_>) -> Result<Plan, ApiError> {
    (input.call.action.perform)(&input.context()).map_err(|error| refusal(input.call, error))
}

/// A response with all published members.
pub fn completed(action: &Action, answer: Map<String, Value>) -> Map<String, Value> {
    // Members about pages and purchases are only added where they have a meaning.
    const OWN: [&str; 7] = ["RequestId", "NextToken", "TotalCount", "PageNumber", "PageSize", "OrderId", "TradePrice"];
    let mut types = action.schema().response.clone();
    if let Value::Object(members) = &mut types {
        members.retain(|name, _| !OWN.contains(&name.as_str()));
    }
    let mut answer = Value::Object(answer);
    complete(&mut answer, &types);
    dialect::call::members(answer)
}
