//! The HTTP interface's actions: one row each, from a call to a plan.
//!
//! A call goes through the row's parameters as the published interface has them ([`schema`]), then its own function,
//! which reads the rest, looks up what the caller may see and says what to change and to answer. Nothing here changes
//! anything: the server does, once it has a [`Plan`].

mod actions;
mod catalogue;
pub mod client;
mod dialect;
mod reference_page;

pub use actions::{ACTIONS, find_action};
pub use catalogue::{Catalogue, Image, InstanceType};
pub use dialect::*;
pub use reference_page::reference_page;

use crate::error::ApiError;
use serde_json::{Map, Value};

/// Refuses a call for what can be seen without looking at the state.
///
/// # Errors
/// A refusal in the action's words.
pub fn check(input: &CallInput<'_>) -> Result<(), ApiError> {
    let checked = dialect::validate::check_parameters(input.call.action.schema(), &input.call.parameters);
    checked.and_then(|()| input.context().check_region()).map_err(|error| refusal(input.call, error))
}

/// What a call that was checked comes to.
///
/// # Errors
/// A refusal in the action's words.
pub fn plan(input: &CallInput<'_>) -> Result<Plan, ApiError> {
    (input.call.action.perform)(&input.context()).map_err(|error| refusal(input.call, error))
}

/// An answer with everything that the published interface has in it.
pub fn completed(action: &Action, answer: Map<String, Value>) -> Map<String, Value> {
    // What pages say and what is bought is there only where it means something.
    const OWN: [&str; 7] = ["RequestId", "NextToken", "TotalCount", "PageNumber", "PageSize", "OrderId", "TradePrice"];
    let mut types = action.schema().response.clone();
    if let Value::Object(members) = &mut types {
        members.retain(|name, _| !OWN.contains(&name.as_str()));
    }
    let mut answer = Value::Object(answer);
    complete(&mut answer, &types);
    dialect::call::members(answer)
}
