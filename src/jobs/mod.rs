//! Periodic work, callable from a test and from the command line.

pub mod rotate_keys;
