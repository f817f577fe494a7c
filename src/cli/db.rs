//! `latchkey db copy`.

use std::io::Write;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::database_argument::DatabaseArgument;
use super::failure::Failure;
use super::output::{self, Format};
use crate::audit::Trail;
use crate::clock::Clock;
use crate::config::DatabaseUrl;
use crate::store::copy::APPLICATION_NAME;
use crate::store::{Options, Store};

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
    if let DatabaseUrl::Sqlite(file) = &from
        && !file.try_exists()?
    {
        let name = file.display();
        return Err(Failure::new(format!("{name} does not exist")));
    }
    let source = open(&from)?;
    if !source.pending_migrations()?.is_empty() {
        return Err(Failure::new(
            "the database to copy from has an older schema; run `latchkey migrate up` on it first",
        ));
    }
    let target = open(&to)?;
    target.migrate()?;
    let trail = Trail::of_command(Clock::system().now());
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

fn open(url: &DatabaseUrl) -> Result<Store, Failure> {
    let url = match url {
        DatabaseUrl::Sqlite(_) => url.clone(),
        // So that PostgreSQL tells our own connections from a server's.
        DatabaseUrl::Postgres(url) => {
            let sign = if url.contains('?') { '&' } else { '?' };
            DatabaseUrl::Postgres(format!("{url}{sign}application_name={APPLICATION_NAME}"))
        }
    };
    let options = Options {
        exclusive: true,
        ..Options::default()
    };
    Ok(Store::open(&url, options)?)
}
