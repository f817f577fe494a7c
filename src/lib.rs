//! Latchkey: a standalone OpenID Connect identity provider.
//!
//! | where | what | may use |
//! |---|---|---|
//! | [`protocol`] | rules of OAuth and OpenID Connect: values in, values out | nothing of the others |
//! | [`identity`] | rules of accounts, passwords, sessions, throttling | `protocol` |
//! | [`store`] | rows of SQLite and PostgreSQL, one function an intent | `protocol`, `identity` |
//! | [`web`] | HTTP: extract, load, decide, record, answer | all of them |
//! | [`cli`], [`startup`], `waiting`, [`jobs`] | the command line, the start of a server and what it answers meanwhile, periodic work | all of them |
//! | [`config`], [`keys`], [`client_cache`], [`hashing`] | configuration; signing keys; clients kept in memory; threads for passwords | `protocol`, `identity`, `store` |
//! | [`audit`] | what is written down of what happens | `protocol`, `clock`, `random` |
//! | [`metrics`], [`telemetry`] | what monitoring sees | `store`, `config` |
//! | `http_client`, `causes` | how others are asked, and how an error reads | nothing |
//! | [`listening`] | sockets that are no plain address | nothing |
//! | [`clock`], [`random`] | the only readers of time and of randomness | nothing |

pub mod audit;
mod causes;
pub mod cli;
pub mod client_cache;
pub mod clock;
mod compressed;
pub mod config;
pub mod hashing;
mod http_client;
pub mod identity;
pub mod jobs;
pub mod keys;
pub mod listening;
pub mod metrics;
pub mod protocol;
pub mod random;
pub mod seed;
pub mod startup;
pub mod store;
pub mod telemetry;
mod waiting;
pub mod web;
