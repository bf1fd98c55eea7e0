//! Actions, and the products that share the API.

use super::call::{Context, Plan};
use super::schema::{ActionSchema, schema};
use crate::error::ApiError;
use std::collections::HashMap;
use std::sync::LazyLock;

/// One of the products that share the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Instances, interfaces and security groups.
    Ecs,
    /// Private networks.
    Vpc,
    /// Who a caller is.
    Sts,
    /// Resource groups.
    ResourceManager,
}

impl Product {
    /// Its API version, by which requests name it.
    pub fn version(self) -> &'static str {
        match self {
            Self::Ecs => "2014-05-26",
            Self::Vpc => "2016-04-28",
            Self::Sts => "2015-04-01",
            Self::ResourceManager => "2020-03-31",
        }
    }

    /// Its name in the published interface.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ecs => "ECS",
            Self::Vpc => "VPC",
            Self::Sts => "STS",
            Self::ResourceManager => "RESOURCEMANAGER",
        }
    }
}

/// One action.
#[derive(Debug)]
pub struct Action {
    /// Its product.
    pub product: Product,
    /// Its name.
    pub name: &'static str,
    /// Turns a call into a plan.
    pub(in crate::ecs) perform: fn(&Context<'_>) -> Result<Plan, ApiError>,
}

impl Action {
    /// The published description of the action.
    ///
    /// # Panics
    /// If the published API does not have the action, which a test rules out.
    pub fn schema(&self) -> &'static ActionSchema {
        static FACTS: LazyLock<HashMap<(&str, &str), &ActionSchema>> = LazyLock::new(|| {
            // The product belongs to the key: two products can have an action of the same name.
            schema().actions.iter().map(|fact| ((fact.product.as_str(), fact.action.as_str()), fact)).collect()
        });
        FACTS.get(&(self.product.name(), self.name)).expect("every row is an action of the published interface")
    }

    /// Whether it is a query.
    pub fn is_question(&self) -> bool {
        ["Describe", "List", "Get"].iter().any(|verb| self.name.starts_with(verb))
    }

    /// Whether it supports a dry run.
    pub fn has_dry_run(&self) -> bool {
        self.schema().params.iter().any(|fact| fact.name == "DryRun")
    }
}
