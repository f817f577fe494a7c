//! `latchkey migrate …`.

use std::io::Write;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::failure::Failure;
use super::output::{self, Format};
use crate::config::{Config, DatabaseUrl};
use crate::store::{Options, Store};

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Bring the database to this version, as a start does.
    Up,
    /// Show what `up` would run; exit code 1 when there is something.
    Status,
}

pub(super) fn run(
    config: &Config,
    verb: Verb,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    // Looking must not make a database.
    if let (Verb::Status, DatabaseUrl::Sqlite(path)) = (&verb, &config.database.url)
        && !path.exists()
    {
        return Err(Failure::new(format!(
            "there is no database {} yet",
            path.display()
        )));
    }
    let store = Store::open(&config.database.url, Options::default())?;
    let (names, state, code) = match verb {
        Verb::Up => (store.migrate()?, "applied", ExitCode::SUCCESS),
        Verb::Status => {
            let pending = store.pending_migrations()?;
            let code = if pending.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
            (pending, "pending", code)
        }
    };
    for name in &names {
        match format {
            Format::Table => writeln!(out, "{state} {name}")?,
            Format::Json => output::object(out, &json!({ "migration": name, "state": state }))?,
        }
    }
    if names.is_empty() && format == Format::Table {
        writeln!(out, "the database is up to date")?;
    }
    Ok(code)
}
