//! `latchkey export`.

use std::io::Write;
use std::process::ExitCode;

use super::failure::Failure;
use super::output::{self, Format};
use crate::audit::{Event, Kind, Trail};
use crate::clock::Clock;
use crate::config::Config;
use crate::seed;
use crate::startup;
use crate::store::{Store, audit_events};

/// Prints what `apply` reads: TOML for people, JSON for scripts. Of secrets it has the hashes.
pub(super) fn run(
    config: &Config,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let now = Clock::system().now();
    let store = startup::open_existing(config, false)?.store;
    let everything = store.read_blocking(move |conn| seed::export(conn, now))?;
    write_down(
        &store,
        Event::new(Kind::DataExported).noting("what", "everything"),
    );
    match format {
        Format::Table => {
            writeln!(
                out,
                "# What `latchkey apply` reads. Hashes of passwords and secrets are in it: keep it as you keep a backup."
            )?;
            let text = toml::to_string_pretty(&everything)
                .map_err(|error| Failure::new(format!("this has no form in TOML: {error}")))?;
            out.write_all(text.as_bytes())?;
        }
        Format::Json => output::object(out, &everything)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Before anything is printed. What can only be read, such as a replica, is exported all the same.
pub(super) fn write_down(store: &Store, event: Event) {
    let trail = Trail::of_command(Clock::system().now());
    let recorded = store.write_blocking(move |tx| audit_events::record(tx, &trail, &event));
    if let Err(error) = recorded {
        tracing::warn!(%error, "this export is in no audit event");
    }
}
