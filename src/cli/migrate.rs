//! `latchkey migrate …`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::failure::{Failure, heard_or_not};
use super::output::{self, Format};
use crate::audit::Trail;
use crate::clock::Clock;
use crate::config::Config;
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
    let (url, options) = (&config.database.url, Options::default());
    let (names, state, code) = match verb {
        Verb::Up => {
            let trail = Trail::of_command(Clock::system().now());
            let names = Store::open(url, options)?.migrate(&trail)?;
            (names, "applied", ExitCode::SUCCESS)
        }
        // Looking must not make a database.
        Verb::Status => {
            let pending = Store::open_existing(url, options)?.pending_migrations()?;
            let code = if pending.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
            (pending, "pending", code)
        }
    };
    heard_or_not(print(&names, state, format, out))?;
    Ok(code)
}

fn print(names: &[String], state: &str, format: Format, out: &mut dyn Write) -> io::Result<()> {
    for name in names {
        match format {
            Format::Table => writeln!(out, "{state} {name}")?,
            Format::Json => output::object(out, &json!({ "migration": name, "state": state }))?,
        }
    }
    if names.is_empty() && format == Format::Table {
        writeln!(out, "the database is up to date")?;
    }
    Ok(())
}
