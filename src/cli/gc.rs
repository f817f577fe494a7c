//! `latchkey gc`.

use std::io::Write;
use std::process::ExitCode;

use serde_json::json;

use super::failure::Failure;
use super::output::{self, Format};
use crate::audit::Trail;
use crate::clock::Clock;
use crate::config::Config;
use crate::jobs::prune_expired;
use crate::startup;

/// What a server does every few minutes, at once.
pub(super) fn run(
    config: &Config,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let store = startup::open_existing(config, false)?.store;
    let now = Clock::system().now();
    let run = prune_expired::run(&store, config, now, Trail::of_command);
    let outcome = actix_web::rt::System::new().block_on(run)?;
    let counts = [
        ("sessions", outcome.sessions),
        ("grants and refresh tokens", outcome.grants),
        ("access tokens", outcome.access_tokens),
        ("tokens of clients", outcome.client_tokens),
        ("used client assertions", outcome.client_assertions),
        ("counters of failures", outcome.throttles),
        ("audit events", outcome.audit_events),
    ];
    match format {
        Format::Table => {
            for (what, count) in counts {
                writeln!(out, "{count} {what} deleted")?;
            }
        }
        Format::Json => output::object(out, &json!({ "deleted": outcome }))?,
    }
    Ok(ExitCode::SUCCESS)
}
