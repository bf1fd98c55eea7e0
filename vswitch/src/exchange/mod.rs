//! What threads share: packets between workers, wake-ups, and the newest snapshot with its barrier.

pub mod doorbell;
pub mod handoff;
pub mod publish;
pub mod services;
pub(crate) mod sync;
