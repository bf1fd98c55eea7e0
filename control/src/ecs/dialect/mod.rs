//! What all actions share: authentication, parameters, access to the state, paging, responses.

pub(in crate::ecs) mod action;
pub(in crate::ecs) mod auth;
pub(in crate::ecs) mod call;
pub(in crate::ecs) mod nonces;
pub(in crate::ecs) mod paging;
pub(in crate::ecs) mod parameters;
pub(in crate::ecs) mod response;
pub(in crate::ecs) mod schema;
pub(in crate::ecs) mod scope;
pub(in crate::ecs) mod settings;
pub(in crate::ecs) mod signature;
pub(in crate::ecs) mod validate;

pub use action::{Action, Product};
pub use auth::{Authenticator, RequestEnvelope};
pub use call::{Call, CallInput, Plan};
pub use parameters::{PARAMETERS_MAX, Parameters, canonical, encode, read_pairs};
pub use response::{Format, complete, failure, success};
pub use schema::{ActionSchema, ErrorSchema, ParameterSchema, Schema, Support, schema};
pub use settings::{AccessKey, ApiSettings, FIRST_ACCOUNT};
pub use signature::{
    Authorization, V3_ALGORITHM, V3Request, hash, hex, v1_sign, v1_string_to_sign, v3_sign, v3_string_to_sign,
};
pub use validate::refusal;
