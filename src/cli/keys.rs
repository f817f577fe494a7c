//! `latchkey keys …`.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::failure::Failure;
use super::output::{self, Format};
use crate::audit::Trail;
use crate::clock::Clock;
use crate::config::{Config, duration};
use crate::keys;
use crate::protocol::time::Timestamp;
use crate::startup;
use crate::store::signing_keys::{self, StoredKey};

/// Servers see a change within a second.
const SEEN_BY_SERVERS: Duration = Duration::from_millis(1_100);

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Show every signing key, oldest first.
    List,
    /// Publish the next key; it signs once caches have seen it.
    Rotate {
        /// Sign with it at once. Apps that cache the key set may refuse tokens until they read it again.
        #[arg(long)]
        now: bool,
    },
}

pub(super) fn run(
    config: &Config,
    verb: Verb,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    match verb {
        Verb::List => list(config, format, out),
        Verb::Rotate { now } => rotate(config, now, format, out),
    }
}

fn list(config: &Config, format: Format, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let stored = startup::open_existing(config, false)?
        .store
        .read_blocking(signing_keys::list)?;
    let headings = [
        "KID",
        "ALGORITHM",
        "STATE",
        "CREATED",
        "ACTIVATED",
        "RETIRED",
    ];
    output::list(out, format, &stored, &headings, row, describe)?;
    Ok(ExitCode::SUCCESS)
}

fn rotate(
    config: &Config,
    at_once: bool,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let opened = startup::open_existing(config, false)?;
    let algorithms = &config.keys.algorithms;
    let published = keys::publish_next(
        &opened.store,
        &opened.root,
        algorithms,
        // Whoever asks for a rotation gets one.
        Timestamp::from_seconds(i64::MAX),
        &Trail::of_command(Clock::system().now()),
    )?;
    // Read again, because making an RSA key takes its time and a server may have published meanwhile.
    let now = Clock::system().now();
    let promoted = if at_once {
        keys::promote(&opened.store, algorithms, now, &Trail::of_command(now))?
    } else {
        0
    };
    if at_once && promoted == 0 {
        return Err(Failure::new(
            "no key began to sign: another process is rotating at this moment",
        ));
    }
    if at_once {
        wait_until_servers_have_seen();
    }
    match format {
        Format::Table => {
            for kid in &published {
                writeln!(out, "published {kid}")?;
            }
            if !at_once && !published.is_empty() {
                let wait = duration::print(config.keys.publish_before);
                writeln!(
                    out,
                    "A running server signs with what was published in {wait} (keys.publish_before); --now does so at once."
                )?;
            }
            if at_once {
                writeln!(out, "{promoted} new keys sign now")?;
            } else if published.is_empty() {
                writeln!(
                    out,
                    "the next keys are published already; --now lets them sign"
                )?;
            }
        }
        Format::Json => output::object(
            out,
            &json!({ "published": published, "promoted": promoted }),
        )?,
    }
    Ok(ExitCode::SUCCESS)
}

fn row(key: &StoredKey) -> Vec<String> {
    vec![
        key.kid.clone(),
        key.algorithm.clone(),
        key.state.as_str().to_owned(),
        output::time(key.created_at),
        output::moment(key.activated_at),
        output::moment(key.retired_at),
    ]
}

fn describe(key: &StoredKey) -> Value {
    json!({
        "kid": key.kid,
        "algorithm": key.algorithm,
        "state": key.state.as_str(),
        "created_at": output::time(key.created_at),
        "activated_at": key.activated_at.map(output::time),
        "retired_at": key.retired_at.map(output::time),
    })
}

/// When the command returns, every running server knows what it changed.
#[allow(
    clippy::disallowed_methods,
    reason = "waits for other processes, which go by the real time"
)]
pub(super) fn wait_until_servers_have_seen() {
    std::thread::sleep(SEEN_BY_SERVERS);
}
