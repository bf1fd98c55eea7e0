//! Choices that the specification leaves open (`semantics.md` §10).

use super::{Event, Model};
use crate::command::SettingsModify;
use crate::error::{ApiError, INVALID_PARAMETER};

/// The longest idle time of any session, seconds (§4.2).
const TIMEOUT_S_MAX: u16 = 910;

impl Model {
    pub(super) fn settings_modify(&self, modify: &SettingsModify) -> Result<Vec<Event>, ApiError> {
        let old = &self.settings;
        let mut new = old.clone();
        new.intra_group_egress_bypass = modify.intra_group_egress_bypass.unwrap_or(old.intra_group_egress_bypass);
        new.cut_sessions_on_deny = modify.cut_sessions_on_deny.unwrap_or(old.cut_sessions_on_deny);
        new.smtp_closed = modify.smtp_closed.unwrap_or(old.smtp_closed);
        new.follow_first_fragment = modify.follow_first_fragment.unwrap_or(old.follow_first_fragment);
        new.tcp_pick_up = modify.tcp_pick_up.unwrap_or(old.tcp_pick_up);
        new.pick_up_by_ports = modify.pick_up_by_ports.unwrap_or(old.pick_up_by_ports);
        new.drop_source_routed = modify.drop_source_routed.unwrap_or(old.drop_source_routed);
        new.fast_path = modify.fast_path.unwrap_or(old.fast_path);
        new.pmtud_exempt = modify.pmtud_exempt.unwrap_or(old.pmtud_exempt);
        new.timeout_profile = modify.timeout_profile.unwrap_or(old.timeout_profile);
        let half_open = timeout(modify.tcp_half_open_timeout_s, "tcp_half_open_timeout_s")?;
        new.tcp_half_open_timeout_s = half_open.unwrap_or(old.tcp_half_open_timeout_s);
        new.icmp_timeout_s = timeout(modify.icmp_timeout_s, "icmp_timeout_s")?.unwrap_or(old.icmp_timeout_s);
        Ok(if new == *old { vec![] } else { vec![Event::Settings(new)] })
    }
}

fn timeout(value: Option<u16>, field: &str) -> Result<Option<u16>, ApiError> {
    match value {
        Some(value) if !(1..=TIMEOUT_S_MAX).contains(&value) => {
            let message = format!("{value} s is no timeout: choose 1 to {TIMEOUT_S_MAX} seconds");
            Err(INVALID_PARAMETER.error(message).field(field))
        }
        value => Ok(value),
    }
}
