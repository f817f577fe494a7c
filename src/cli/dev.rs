//! `latchkey dev`: a server to try things with, which needs no file, variable or network.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use super::failure::Failure;
use super::output::Format;
use super::{logging, serve};
use crate::config::{Config, DatabaseUrl, Sources};
use crate::startup::StartError;
use crate::store::{Options, Store, properties};

const DATABASE: &str = "latchkey.db";
const LOCK: &str = "latchkey.db.lock";
/// Everything that a development server makes.
const OURS: &[&str] = &[
    DATABASE,
    "latchkey.db-wal",
    "latchkey.db-shm",
    "latchkey.db-journal",
    LOCK,
    "secret.key",
];
/// Only these variables count: a production server's must not reach into a trial.
const LOG_VARIABLES: &str = "LATCHKEY_LOG__";

#[derive(Args)]
pub(super) struct Flags {
    /// Start over: forget everybody and everything.
    #[arg(long)]
    fresh: bool,
    /// The port on loopback.
    #[arg(long, default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Where the state lives.
    #[arg(long, default_value = "./latchkey-dev", value_name = "DIRECTORY")]
    data_dir: PathBuf,
}

/// Serves until SIGTERM or SIGINT.
pub(super) fn run(flags: &Flags, format: Format, began: Instant) -> Result<ExitCode, Failure> {
    let config = configure(flags)?;
    logging::for_server(&config);
    start(flags, config.clone(), format, began)
        .map_err(|failure| logging::start_failed(&config, failure))
}

fn start(
    flags: &Flags,
    config: Config,
    format: Format,
    began: Instant,
) -> Result<ExitCode, Failure> {
    // Before anything is removed or made.
    refuse_taken_port(flags.port)?;
    make_directory(&flags.data_dir)?;
    if flags.fresh {
        start_over(&flags.data_dir)?;
    }
    match serve::until_stopped(config, None, format, began)? {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Somebody was quicker since the look above.
        Err(StartError::Listen { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => {
            Err(taken(flags.port))
        }
        Err(error) => Err(error.into()),
    }
}

fn configure(flags: &Flags) -> Result<Config, Failure> {
    let Some(directory) = flags.data_dir.to_str() else {
        return Err(Failure::new("the name of --data-dir is not UTF-8 text"));
    };
    let port = flags.port;
    let overrides = [
        ("issuer", format!("http://localhost:{port}")),
        ("listen", format!("127.0.0.1:{port}")),
        // Not served in development, and so never in the way of --port.
        ("management.listen", "127.0.0.1:0".to_owned()),
        (
            "database.url",
            format!("sqlite://{}/{DATABASE}", directory.trim_end_matches('/')),
        ),
    ];
    let mut environment = Sources::from_process(None, Vec::new()).environment;
    environment.retain(|(name, _)| name.starts_with(LOG_VARIABLES));
    let overrides = overrides
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    let mut config = Config::load(Sources {
        file: None,
        environment,
        overrides,
    })?;
    config.development = true;
    Ok(config)
}

fn refuse_taken_port(port: u16) -> Result<(), Failure> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_free) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(taken(port)),
        Err(error) => Err(Failure::new(format!(
            "can't listen on port {port}: {error}; choose another with --port"
        ))),
    }
}

fn taken(port: u16) -> Failure {
    Failure::new(format!(
        "port {port} is taken by another program; choose another with --port"
    ))
}

fn make_directory(directory: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made.map_err(|error| {
        Failure::new(format!(
            "can't make the directory {}: {error}",
            directory.display()
        ))
    })
}

/// Removes what a development server made here, and nothing else.
fn start_over(directory: &Path) -> Result<(), Failure> {
    let place = directory.display();
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !OURS.contains(&name.as_str()) || entry.file_type()?.is_dir() {
            return Err(Failure::new(format!(
                "--fresh removes nothing: {place} holds {name}, which is not ours"
            )));
        }
        found.push(entry.path());
    }
    // Held until the files are gone. A running server's database would otherwise vanish below it.
    let lock = directory.join(LOCK);
    let _held = if lock.exists() {
        let file = File::open(&lock)?;
        match file.try_lock() {
            Ok(()) => Some(file),
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::new(format!(
                    "--fresh removes nothing: another server is using {place}"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    } else {
        None
    };
    refuse_other_databases(&directory.join(DATABASE))?;
    for path in found {
        match fs::remove_file(path) {
            // SQLite removes its own files when the last connection closes.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// The file names of a production server are the same; what it was used for stands inside.
fn refuse_other_databases(database: &Path) -> Result<(), Failure> {
    let is_empty = fs::metadata(database).map_or(true, |metadata| metadata.len() == 0);
    if is_empty {
        return Ok(());
    }
    let store = Store::open(
        &DatabaseUrl::Sqlite(database.to_owned()),
        Options::default(),
    )?;
    let mode = store.read_blocking(|conn| properties::find(conn, "mode"))?;
    if mode.as_deref() == Some("development") {
        return Ok(());
    }
    let place = database.display();
    Err(Failure::new(format!(
        "--fresh removes nothing: {place} was not made by latchkey dev"
    )))
}
