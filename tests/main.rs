//! The product, driven from outside through its real start-up.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test that panics is a test that fails"
)]

mod support;

mod architecture;
mod authorization_code;
mod chromium;
mod cli;
mod dev_app;
mod migrations;
mod store;
mod store_engine;
