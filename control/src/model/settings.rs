//! Settings: choices that the specification leaves open (`semantics.md` §10).

use super::{Event, Model};
use crate::command::SettingsModify;
use crate::error::{ApiError, INVALID_PARAMETER};

/// The longest idle time of any session, seconds (§4.2).
const TIMEOUT_S_MAX: u16 = 910;

impl Model {
    pub(super) fn settings_modify(&self, modify: &SettingsModify) -> Result<Vec<Event>, ApiError> {
        timeout(modify.tcp_half_open_timeout_s, "tcp_half_open_timeout_s")?;
        timeout(modify.icmp_timeout_s, "icmp_timeout_s")?;
        let new = modify.over(&self.settings);
        Ok(if new == self.settings { vec![] } else { vec![Event::Settings(new)] })
    }
}

fn timeout(value: Option<u16>, field: &str) -> Result<(), ApiError> {
    match value {
        Some(value) if !(1..=TIMEOUT_S_MAX).contains(&value) => {
            let message = format!("{value} s is not a possible timeout: choose 1 to {TIMEOUT_S_MAX} seconds");
            Err(INVALID_PARAMETER.error(message).field(field))
        }
        _ => Ok(()),
    }
}
