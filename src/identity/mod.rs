//! Accounts and what proves that somebody owns one. The same layer as `protocol`, for people: values in, values out.
//!
//! - `email`: addresses, and the one key under which a typed login is looked up and throttled
//! - `group`: what may be said of a group
//! - `password`: what may be a password, and how it is kept
//! - `session`, `throttle`, `user`: who is signed in, how fast somebody may guess, who may sign in at all

pub mod email;
pub mod group;
pub mod password;
pub mod session;
pub mod throttle;
pub mod user;
