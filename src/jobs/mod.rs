//! Periodic work, callable from a test and from the command line.

pub mod prune_expired;
pub mod rotate_keys;
pub(crate) mod schedule;
pub mod seal_audit;
