//! `latchkey db copy`.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::database_argument::DatabaseArgument;
use super::failure::Failure;
use super::output::{self, Format};
use crate::audit::Trail;
use crate::causes::with_causes;
use crate::clock::Clock;
use crate::config::DatabaseUrl;
use crate::store::copy::APPLICATION_NAME;
use crate::store::{OpenError, Options, Store};

/// No server may write meanwhile.
const ALONE: Options = Options {
    exclusive: true,
    threads: None,
};

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Copy everything to an empty database, of either kind, and compare every row. No server may run meanwhile.
    Copy {
        /// Where everything is now: `sqlite://PATH` or `postgres://…`; a password may come from PGPASSWORD or PGPASSFILE.
        #[arg(long, value_name = "URL", value_parser = DatabaseArgument)]
        from: DatabaseUrl,
        /// Where it is to be, in the same words.
        #[arg(long, value_name = "URL", value_parser = DatabaseArgument)]
        to: DatabaseUrl,
    },
}

pub(super) fn run(verb: Verb, format: Format, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let Verb::Copy { from, to } = verb;
    let told = |error: &dyn Error| Failure::new(format!("--from: {}", with_causes(error)));
    let source = Store::open_existing(&named(&from), ALONE).map_err(|error| told(&error))?;
    match source.pending_migrations() {
        Ok(pending) if pending.is_empty() => {}
        Ok(_) => {
            return Err(Failure::new(
                "--from: the database has no tables of Latchkey, or those of an older version; if it is the right one, run \
                 `latchkey migrate up` on it first",
            ));
        }
        Err(error) => return Err(told(&error)),
    }
    let trail = Trail::of_command(Clock::system().now());
    let target = Store::open(&named(&to), ALONE)
        .and_then(|target| {
            target
                .migrate(&trail)
                .map(|_names| target)
                .map_err(OpenError::from)
        })
        .map_err(|error| Failure::new(format!("--to: {}", with_causes(&error))))?;
    let copied = source.copy_to(&target, &trail)?;
    let row = |(name, rows): &(&str, usize)| vec![(*name).to_owned(), rows.to_string()];
    let describe = |(name, rows): &(&str, usize)| json!({ "table": name, "rows": rows });
    output::list(out, format, &copied, &["TABLE", "ROWS"], row, describe)?;
    if format == Format::Table {
        writeln!(
            out,
            "Every row was compared. The secret key is the same as before: the new place needs it too (secret_key_file)."
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// So that PostgreSQL tells our own connections from a server's.
fn named(url: &DatabaseUrl) -> DatabaseUrl {
    match url {
        DatabaseUrl::Sqlite(_) => url.clone(),
        DatabaseUrl::Postgres(url) => {
            let sign = if url.contains('?') { '&' } else { '?' };
            DatabaseUrl::Postgres(format!("{url}{sign}application_name={APPLICATION_NAME}"))
        }
    }
}
