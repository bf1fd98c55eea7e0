//! The commands for settings.

use super::{choice, vocabulary};
use clap::Args;
use serde::{Deserialize, Serialize};
use vswitch_core::config::desired::{PmtudExempt, Settings, TimeoutProfile};

/// Makes a command and what is derived from it out of one list of settings.
macro_rules! settings {
    ($($(#[$meta:meta])* $field:ident: $type:ty,)*) => {
        vocabulary! {
            /// Changes settings. Absent fields stay.
            #[derive(Args)]
            SettingsModify {
                $($(#[$meta])* #[arg(long)] $field: Option<$type>,)*
            }
        }

        impl SettingsModify {
            /// The settings that `old` becomes.
            pub fn over(&self, old: &Settings) -> Settings {
                let Settings { $($field,)* } = old.clone();
                Settings { $($field: self.$field.unwrap_or($field),)* }
            }

            /// The names and values of all settings.
            pub fn listed(settings: &Settings) -> Vec<(&'static str, String)> {
                let text = |value: Result<serde_json::Value, serde_json::Error>| {
                    let value = value.unwrap_or_default();
                    value.as_str().map_or_else(|| value.to_string(), Into::into)
                };
                vec![$((stringify!($field), text(serde_json::to_value(&settings.$field))),)*]
            }
        }
    };
}

settings! {
    /// Members of an open group also bypass each other's outbound rules.
    intra_group_egress_bypass: bool,
    /// A session that the present rules refuse ends with its next packet.
    cut_sessions_on_deny: bool,
    /// TCP to port 25 of Internet addresses is closed whatever the rules say.
    smtp_closed: bool,
    /// Later fragments share the fate of the first.
    follow_first_fragment: bool,
    /// A TCP packet from the middle of a connection opens a session if the rules admit it.
    tcp_pick_up: bool,
    /// A packet without a session is evaluated by who opened its connection, as far as flags, type and ports tell.
    pick_up_by_ports: bool,
    /// IPv4 packets with a source route option are dropped.
    drop_source_routed: bool,
    /// The maximum segment size that a SYN offers is lowered to what the ports of sender and receiver carry.
    clamp_mss: bool,
    /// Nearly all packets take the fast path. If off, every packet takes the slow path, with the same result; for
    /// incidents.
    fast_path: bool,
    /// Which path-MTU reports are admitted whatever the rules say: `session`, those about a session of their receiver,
    /// or `always`.
    #[arg(value_parser = choice(PmtudExempt::NAMES))]
    pmtud_exempt: PmtudExempt,
    /// The idle timeouts of new sessions: `alibaba`, `aws` or `linux`.
    #[arg(value_parser = choice(TimeoutProfile::NAMES))]
    timeout_profile: TimeoutProfile,
    /// How long a TCP session may idle before its handshake is complete: 1 to 910 seconds.
    tcp_half_open_timeout_s: u16,
    /// How long an ICMP session may idle: 1 to 910 seconds.
    icmp_timeout_s: u16,
}
