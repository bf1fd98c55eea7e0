//! The commands for instances and for objects' metadata, and commands on behalf of an account.

use super::{Command, EniCreate, vocabulary};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

vocabulary! {
    /// Makes an instance.
    InstanceCreate {
        /// `i-…`; made up if absent.
        id: Option<String>,
        /// Its primary interface, if a new one is made.
        #[serde(default)]
        primary: EniCreate,
        /// An existing free interface to be its primary one, in place of a new one.
        primary_eni: Option<String>,
        /// What kind of port its interfaces get while it runs.
        port: PortKind,
        /// The folder of the sockets of such ports; `/run/sluice` if absent.
        sockets: Option<String>,
        /// Whether it runs from the start.
        #[serde(default)]
        running: bool,
        /// A name for people; the identifier if absent.
        name: Option<String>,
        /// What it is for.
        description: Option<String>,
        /// Its host name.
        host_name: Option<String>,
        /// Its type, as in `ecs.g7.large`. Without effect.
        instance_type: Option<String>,
        /// Its image. Without effect.
        image: Option<String>,
        /// Whether it is protected: it can only be deleted once this is off.
        #[serde(default)]
        deletion_protection: bool,
    }

    /// Changes an instance. Absent fields stay.
    InstanceModify {
        /// The instance.
        instance: String,
        /// A new name.
        name: Option<String>,
        /// A new description; empty for none.
        description: Option<String>,
        /// A new host name.
        host_name: Option<String>,
        /// Whether it is protected against deletion.
        deletion_protection: Option<bool>,
        /// A new type. Without effect.
        instance_type: Option<String>,
        /// A new image. Without effect.
        image: Option<String>,
    }

    /// Starts or stops an instance.
    InstanceRun {
        /// The instance.
        instance: String,
        /// Whether it runs from now on.
        running: bool,
        /// Whether a running instance is restarted.
        #[serde(default)]
        again: bool,
    }

    /// Removes an instance.
    InstanceDelete {
        /// The instance.
        instance: String,
        /// Also if it runs.
        #[serde(default)]
        force: bool,
    }

    /// An instance and an interface to attach or detach.
    InstanceAttach {
        /// The instance.
        instance: String,
        /// The interface.
        eni: String,
    }

    /// Moves an instance to another subnet.
    InstanceMove {
        /// The instance, stopped.
        instance: String,
        /// The subnet it moves to.
        vswitch: String,
        /// Its new primary address; the lowest free one if absent.
        primary_ip: Option<String>,
        /// Its new groups; the present ones if empty.
        #[serde(default)]
        groups: Vec<String>,
    }

    /// Changes the metadata of an object. Absent fields stay.
    LabelModify {
        /// The object, by its identifier.
        object: String,
        /// Tags to set.
        #[serde(default)]
        tags: std::collections::BTreeMap<String, String>,
        /// Tags to remove first.
        #[serde(default)]
        untag: BTreeSet<String>,
        /// Whether all tags are removed first.
        #[serde(default)]
        untag_all: bool,
        /// Its resource group.
        resource_group: Option<String>,
        /// Its zone.
        zone: Option<String>,
        /// Attributes without effect on packets, by name; an empty value removes one.
        #[serde(default)]
        attributes: std::collections::BTreeMap<String, String>,
    }

    /// Makes a record: an object that has nothing to do with packets, such as a key pair. Only its kind and its
    /// attributes are kept.
    RecordCreate {
        /// Its identifier.
        id: String,
        /// Its kind, as in `key-pair`.
        kind: String,
    }

    /// Removes a record.
    RecordDelete {
        /// The record.
        record: String,
    }
}

/// What kind of port the interfaces of an instance get while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortKind {
    /// A TAP device in a network namespace named after the instance, configured and up.
    #[default]
    Namespace,
    /// A TAP device of the switch's own namespace, for a virtual machine to use.
    Device,
    /// A socket of a virtual machine that shares its memory; the switch listens.
    VhostUser,
    /// A stream socket; the switch listens.
    Stream,
    /// None; ports are attached manually.
    None,
}

/// A change made for an account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnBehalf {
    /// The account; empty for the default one.
    pub owner: String,
    /// The region; empty for the default one.
    pub region: String,
    /// The change.
    pub command: Box<Command>,
}
