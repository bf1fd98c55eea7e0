//! The words for settings.

use super::{choice, vocabulary};
use clap::Args;
use serde::{Deserialize, Serialize};
use vswitch_core::config::desired::{PmtudExempt, Settings, TimeoutProfile};

/// Makes of one list of settings the command that changes them, and what is derived from it.
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
            /// What becomes of `old`.
            pub fn over(&self, old: &Settings) -> Settings {
                let Settings { $($field,)* } = old.clone();
                Settings { $($field: self.$field.unwrap_or($field),)* }
            }

            /// Every setting and its value, by the names that change them.
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
    /// Members of an open group reach each other past their outbound rules too.
    intra_group_egress_bypass: bool,
    /// A session that the present rules refuse ends with its next packet.
    cut_sessions_on_deny: bool,
    /// TCP to port 25 of Internet addresses is closed whatever the rules say.
    smtp_closed: bool,
    /// Later fragments share the fate of the first.
    follow_first_fragment: bool,
    /// A TCP packet from the middle of a connection opens a session where rules let it pass.
    tcp_pick_up: bool,
    /// A packet without a session is evaluated by who opened its connection, as far as flags, type and ports tell.
    pick_up_by_ports: bool,
    /// IPv4 packets with a source route option drop.
    drop_source_routed: bool,
    /// Nearly all packets take the fast path. Without it every packet takes the slow one, with the same result: for incidents.
    fast_path: bool,
    /// Which path-MTU reports pass whatever the rules say: `session`, those about a session of their receiver, or
    /// `always`.
    #[arg(value_parser = choice(PmtudExempt::NAMES))]
    pmtud_exempt: PmtudExempt,
    /// Whose idle timeouts sessions have that start from now on: `alibaba`, `aws` or `linux`.
    #[arg(value_parser = choice(TimeoutProfile::NAMES))]
    timeout_profile: TimeoutProfile,
    /// How long a TCP session may idle before its handshake is complete: 1 to 910 seconds.
    tcp_half_open_timeout_s: u16,
    /// How long an ICMP session may idle: 1 to 910 seconds.
    icmp_timeout_s: u16,
}
