//! `latchkey backup` and `latchkey restore`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::keys::wait_until_servers_have_seen;
use super::output::{self, Format};
use crate::audit::{Event, Kind, Trail};
use crate::causes::with_causes;
use crate::clock::Clock;
use crate::config::{Config, DatabaseUrl};
use crate::keys::Keys;
use crate::random;
use crate::startup;
use crate::store::backup::Kept;
use crate::store::{OpenError, Options, Store, audit_events, backup, signing_keys, with_suffix};

#[derive(Args)]
pub(super) struct Restoring {
    /// What `latchkey backup` wrote.
    #[arg(required_unless_present = "epoch_only")]
    file: Option<PathBuf>,
    /// Only end what belongs to the timeline before: after PostgreSQL's own restore. Servers that run have seen it when this returns.
    #[arg(long, conflicts_with = "file")]
    epoch_only: bool,
}

/// Copies the database, beside a server, to a file that is not there yet.
pub(super) fn back_up(
    config: &Config,
    file: &Path,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    if let DatabaseUrl::Postgres(_) = config.database.url {
        return Err(Failure::new(
            "this copies SQLite; a PostgreSQL database is backed up with pg_dump".to_owned(),
        ));
    }
    if file.try_exists()? {
        return Err(exists(file));
    }
    // In full: SQLite would take "file:name" for a URI.
    let whole = std::path::absolute(file)?;
    if let Some(folder) = whole.parent().filter(|folder| !folder.is_dir()) {
        let text = format!(
            "{} is no folder that a backup could go to",
            folder.display()
        );
        return Err(Failure::new(text));
    }
    let store = startup::open_existing(config, false)?.store;
    let draft = sibling(&whole, "part");
    let made = store
        .copy_into(&draft)
        .map_err(Failure::from)
        .and_then(|()| {
            if let Some(problem) = backup::problem_of(&draft)? {
                return Err(Failure::new(format!("the copy is broken: {problem}")));
            }
            backup::publish(&draft, file).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => exists(file),
                _ => error.into(),
            })
        });
    backup::discard(&draft);
    made?;
    let trail = Trail::of_command(Clock::system().now());
    let told = store.write_blocking(move |tx| {
        audit_events::record(tx, &trail, &Event::new(Kind::DatabaseBackedUp))
    });
    // A full disk is a reason to want a backup, and here it is.
    if let Err(error) = told {
        tracing::warn!(error = %with_causes(&error), "the backup is made, but the event could not be written");
    }
    let bytes = std::fs::metadata(file)?.len();
    let key = config
        .default_secret_key_file()
        .filter(|_| config.secret_key.is_none());
    match format {
        Format::Table => {
            writeln!(out, "wrote {} ({bytes} bytes)", file.display())?;
            match key {
                Some(key) => writeln!(
                    out,
                    "It is of no use without {}: keep a copy of that, and somewhere else.",
                    key.display()
                )?,
                None => writeln!(
                    out,
                    "It is of no use without secret_key: keep a copy of that, and somewhere else."
                )?,
            }
        }
        Format::Json => output::object(out, &json!({ "file": file, "bytes": bytes }))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts a backup in the place of the database, which must not be served, and begins a new epoch.
pub(super) fn restore(
    config: &Config,
    restoring: Restoring,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let kept = match (restoring.file, &config.database.url) {
        (None, _) => {
            begin_epoch(&startup::open_existing(config, true)?.store)?;
            if let DatabaseUrl::Postgres(_) = config.database.url {
                wait_until_servers_have_seen();
            }
            Kept::default()
        }
        (Some(_), DatabaseUrl::Postgres(_)) => {
            return Err(Failure::new(
                "a PostgreSQL database is restored with pg_restore; then: latchkey restore --epoch-only"
                    .to_owned(),
            ));
        }
        (Some(file), DatabaseUrl::Sqlite(path)) => put_back(config, &file, path)?,
    };
    match format {
        Format::Table => {
            if let Some(file) = &kept.database {
                writeln!(out, "the database of before is {}", file.display())?;
            }
            for file in &kept.beside {
                writeln!(out, "what lay beside it is {}", file.display())?;
            }
            writeln!(
                out,
                "A new epoch has begun: all sign-ins, codes and tokens of before have ended. People, apps and keys are as they were."
            )?;
        }
        Format::Json => output::object(
            out,
            &json!({ "kept": kept.database, "kept_beside": kept.beside }),
        )?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything is judged and changed in a draft; the database itself is replaced at the very end, in one step.
fn put_back(config: &Config, backup_file: &Path, path: &Path) -> Result<Kept, Failure> {
    let (file, _lock) = backup::reserve(path)?;
    let root = startup::existing_root_key(config)?;
    let draft = sibling(&file, "restore");
    let done = (|| {
        backup::copy(backup_file, &draft, &file).map_err(|error| {
            let cause = with_causes(&error);
            Failure::new(format!("{}: {cause}", backup_file.display()))
        })?;
        if let Some(problem) = backup::problem_of(&draft)? {
            let name = backup_file.display();
            return Err(Failure::new(format!(
                "{name} is no backup of Latchkey: {problem}; nothing was changed"
            )));
        }
        let opened = Store::open(&DatabaseUrl::Sqlite(draft.clone()), Options::default());
        let store = opened.map_err(|error| match error {
            OpenError::Migrations(error) => {
                let (name, cause) = (backup_file.display(), with_causes(&error));
                Failure::new(format!("{name}: {cause}; nothing was changed"))
            }
            error => error.into(),
        })?;
        store.migrate(&Trail::of_command(Clock::system().now()))?;
        let stored = store.read_blocking(signing_keys::list)?;
        Keys::read(stored, &root, &config.keys.algorithms).map_err(|error| {
            Failure::new(format!(
                "the secret key is not the one that this backup was made with ({error}); put that one back first"
            ))
        })?;
        begin_epoch(&store)?;
        drop(store);
        backup::settle(&draft)?;
        Ok(backup::replace(&draft, &file)?)
    })();
    backup::discard(&draft);
    done
}

/// Times are whole seconds. What a server issues after this is of a later one than the epoch, so that nobody has to guess on
/// which side of it a token of the same second lies.
#[allow(
    clippy::disallowed_methods,
    reason = "waits for the second to end by which other processes go too"
)]
fn begin_epoch(store: &Store) -> Result<(), Failure> {
    let clock = Clock::system();
    let now = clock.now();
    let trail = Trail::of_command(now);
    store.write_blocking(move |tx| {
        backup::begin_epoch(tx, now)?;
        audit_events::record(tx, &trail, &Event::new(Kind::DatabaseRestored))
    })?;
    while clock.now() <= now {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn exists(file: &Path) -> Failure {
    let name = file.display();
    Failure::new(format!(
        "{name} exists already, and a backup overwrites nothing"
    ))
}

fn sibling(file: &Path, purpose: &str) -> PathBuf {
    with_suffix(file, &format!(".{purpose}-{}", random::id()))
}
