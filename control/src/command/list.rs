//! The commands for prefix lists and port lists.

use super::vocabulary;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::str::FromStr;

vocabulary! {
    /// Changes a prefix list. Absent fields stay.
    #[derive(Args)]
    PrefixListModify {
        /// The list.
        prefix_list: String,
        /// A new name.
        #[arg(long)]
        name: Option<String>,
        /// A new description; empty for none.
        #[arg(long)]
        description: Option<String>,
        /// Entries to add; an entry that exists gets the new description.
        #[serde(default)]
        #[arg(long)]
        add: Vec<PrefixListEntry>,
        /// Prefixes to take out, before the others are added.
        #[serde(default)]
        #[arg(long)]
        remove: Vec<String>,
    }

    /// Makes a prefix list.
    #[derive(Args)]
    PrefixListCreate {
        /// `pl-…`; made up if absent.
        #[arg(long)]
        id: Option<String>,
        /// A name for people: 2 to 128 characters.
        #[arg(long)]
        name: String,
        /// What it is for: 2 to 256 characters.
        #[arg(long)]
        description: Option<String>,
        /// `ipv4` or `ipv6`. Fixed from then on.
        #[arg(long, default_value = "ipv4")]
        family: String,
        /// Room for this many entries, 1 to 200; what the list weighs in quotas. Fixed from then on.
        #[arg(long, default_value_t = 20)]
        max_entries: u32,
        /// The entries.
        #[serde(default)]
        #[arg(long = "entry")]
        entries: Vec<PrefixListEntry>,
    }

    /// One entry of a prefix list.
    #[derive(Args)]
    PrefixListEntry {
        /// A prefix without host bits, or an address.
        #[arg(long)]
        cidr: String,
        /// What it is for: 2 to 32 characters.
        #[arg(long)]
        description: Option<String>,
    }

    /// Removes a prefix list.
    #[derive(Args)]
    PrefixListDelete {
        /// The list.
        prefix_list: String,
    }

    /// Makes a port list.
    #[derive(Args)]
    PortListCreate {
        /// `prl-…`; made up if absent.
        #[arg(long)]
        id: Option<String>,
        /// A name for people: 2 to 128 characters.
        #[arg(long)]
        name: String,
        /// What it is for: 2 to 256 characters.
        #[arg(long)]
        description: Option<String>,
        /// Room for this many entries, 1 to 2,000; what the list weighs in quotas. Fixed from then on.
        #[arg(long, default_value_t = 20)]
        max_entries: u32,
        /// The entries, at most 200 per request.
        #[serde(default)]
        #[arg(long = "entry")]
        entries: Vec<PortListEntry>,
    }

    /// One entry of a port list.
    #[derive(Args)]
    PortListEntry {
        /// `first/last`.
        #[arg(long)]
        ports: String,
        /// What it is for: 2 to 32 characters.
        #[arg(long)]
        description: Option<String>,
    }

    /// Changes a port list. Absent fields stay.
    #[derive(Args)]
    PortListModify {
        /// The list.
        port_list: String,
        /// A new name.
        #[arg(long)]
        name: Option<String>,
        /// A new description; empty for none.
        #[arg(long)]
        description: Option<String>,
        /// Entries to add; an entry that exists gets the new description.
        #[serde(default)]
        #[arg(long)]
        add: Vec<PortListEntry>,
        /// Ranges to take out, before the others are added.
        #[serde(default)]
        #[arg(long, value_parser = port_range)]
        remove: Vec<String>,
    }

    /// Removes a port list.
    #[derive(Args)]
    PortListDelete {
        /// The list.
        port_list: String,
    }
}

impl FromStr for PrefixListEntry {
    type Err = Infallible;

    fn from_str(cidr: &str) -> Result<Self, Infallible> {
        Ok(Self { cidr: cidr.into(), description: None })
    }
}

impl FromStr for PortListEntry {
    type Err = Infallible;

    fn from_str(ports: &str) -> Result<Self, Infallible> {
        Ok(Self { ports: port_range(ports)?, description: None })
    }
}

/// Ports as people write them: `80` becomes `80/80`, and `80-90` becomes `80/90`; anything else is unchanged.
///
/// # Errors
/// None.
pub fn port_range(text: &str) -> Result<String, Infallible> {
    let is_list = text.starts_with("prl-");
    Ok(match text.split_once('-') {
        _ if text.contains('/') || is_list => text.to_owned(),
        Some((first, last)) => format!("{first}/{last}"),
        None => format!("{text}/{text}"),
    })
}
