//! The HTTP interface, call by call: what each action does, refuses, lists and answers, and who reaches what by it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod cases;
mod dialect;
mod dialect_law;
mod golden;
mod lab;
mod lists;
mod networks;
mod parameters;
mod refusals;
mod table;
mod walls;
