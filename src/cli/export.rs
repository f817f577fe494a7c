//! `latchkey export`.

use std::io::Write;
use std::process::ExitCode;

use super::failure::Failure;
use super::output::{self, Format};
use crate::clock::Clock;
use crate::config::Config;
use crate::seed;
use crate::startup;

/// Prints what `apply` reads: TOML for people, JSON for scripts. Of secrets it has the hashes.
pub(super) fn run(
    config: &Config,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let now = Clock::system().now();
    let store = startup::open_existing(config, false)?.store;
    let everything = store.read_blocking(move |conn| seed::export(conn, now))?;
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
