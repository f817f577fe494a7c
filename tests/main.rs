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

mod address_limit;
mod apply;
mod architecture;
mod audit_events;
mod audit_of_upkeep;
mod audit_seals;
mod authorization_code;
mod authorization_request;
mod authorization_response;
mod backup;
mod bad_input;
mod browser_session;
mod chromium;
mod cli;
mod client_assertion;
mod client_credentials;
mod clients;
mod connections;
mod cors;
mod crash;
mod db_copy;
mod deploy;
mod dev_app;
mod discovery;
mod doctor;
mod end_session;
mod examples;
mod existing_database;
mod export;
mod faults;
mod faults_database;
mod faults_keys;
mod faults_load;
mod faults_panics;
mod faults_postgres;
mod faults_process;
mod full_queue;
mod init;
mod introspection;
mod keys;
mod listening;
mod logs;
mod lost_answer;
mod malformed;
mod metrics;
mod migrations;
mod nodes;
mod openid_connect_rp;
mod pages;
mod parsers;
mod pgbouncer;
mod prompt;
mod pruning;
mod refresh_model;
mod refresh_token;
mod revocation;
mod scopes;
mod secrets_at_rest;
mod selftest;
mod silent_postgres;
mod soak;
mod soundness;
mod steps;
mod stolen_token;
mod store;
mod store_engine;
mod telemetry;
mod throttle;
mod unheard;
mod unreadable;
mod users;
