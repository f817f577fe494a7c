//! HTTP: extract, load, decide, record, answer.

pub(crate) mod address_limit;
mod assets;
pub(crate) mod connection;
mod dev;
mod encoding;
mod error;
mod extract;
pub(crate) mod health;
mod home;
mod login;
pub(crate) mod oidc;
mod pages;
pub(crate) mod request_log;
pub mod routes;
mod security_headers;
pub(crate) mod state;
mod texts;
mod visit;
pub(crate) mod waiting;
mod wrong_address;

/// What reads strangers' headers, for tests that send bytes of every kind.
pub mod headers {
    pub use super::extract::browser::{cookie, sign_ins};
    pub use super::extract::client_ip::resolve;
}
