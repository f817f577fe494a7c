//! `latchkey serve`, and the running of a server that `dev` shares.

use std::io;
use std::process::ExitCode;
use std::time::Instant;

use rustix::process::{self, Resource, Rlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;
use super::output::Format;
use super::{banner, logging};
use crate::clock::Clock;
use crate::config::{Config, DatabaseUrl};
use crate::listening::{self, Listener};
use crate::startup::{self, StartError, Stopper};

/// Every connection that the server takes, and what it needs besides.
const MOST_FILES: u64 = 16_384;

/// Serves until SIGTERM or SIGINT.
pub(super) fn run(config: Config, format: Format, began: Instant) -> Result<ExitCode, Failure> {
    logging::for_server(&config);
    allow_connections();
    // Before there are threads.
    let inherited = listening::inherited()?;
    let served = until_stopped(config.clone(), inherited, format, began);
    let ended = served.map_err(Failure::from).and_then(|ended| Ok(ended?));
    ended.map_err(|failure| logging::start_failed(&config, failure))?;
    Ok(ExitCode::SUCCESS)
}

/// Many shells and service managers allow 1,024 open files unless a program asks for more, and a connection is one.
fn allow_connections() {
    let limits = process::getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limits
            .maximum
            .map_or(Some(MOST_FILES), |most| Some(most.min(MOST_FILES))),
        ..limits
    };
    if limits.current.is_some_and(|now| Some(now) < wanted.current)
        && let Err(error) = process::setrlimit(Resource::Nofile, wanted)
    {
        tracing::warn!(%error, "no more files can be opened than {:?}", limits.current);
    }
}

/// Starts a server, prints where it is, and returns when it was stopped and has answered what it had accepted.
/// The outer error is about printing and waiting, the inner one about the start.
pub(super) fn until_stopped(
    config: Config,
    inherited: Option<Listener>,
    format: Format,
    began: Instant,
) -> io::Result<Result<(), StartError>> {
    actix_web::rt::System::new().block_on(async {
        // Before the start, so that a signal in the middle of it is not lost.
        let mut signals = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let starting = startup::start_on(config.clone(), Clock::system(), inherited);
        let started = tokio::select! {
            started = Box::pin(starting) => started,
            () = next(&mut signals) => stop_before_the_start(),
        };
        let running = match started {
            Ok(running) => running,
            Err(error) => return Ok(Err(error)),
        };
        let printed = banner::print(
            &mut io::stdout(),
            format,
            &config,
            running.dev_app.as_ref(),
            began.elapsed(),
        );
        if let Err(error) = printed {
            tracing::warn!(%error, "standard output could not be written");
        }
        tell_ready(&config);
        actix_web::rt::spawn(stop_on_signal(signals, running.stopper()));
        running.run().await?;
        tracing::info!("stopped");
        Ok(Ok(()))
    })
}

/// Nothing was accepted. A migration that is under way happens as a whole or not at all, and the thread that waits for it can't
/// be told to stop.
fn stop_before_the_start() -> ! {
    tracing::info!("stopped before it was ready");
    std::process::exit(0);
}

/// The log's own first line, since the banner on standard output is for people and often goes nowhere.
fn tell_ready(config: &Config) {
    let database = match config.database.url {
        DatabaseUrl::Sqlite(_) => "sqlite",
        DatabaseUrl::Postgres(_) => "postgres",
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        issuer = config.issuer.as_str(),
        listen = %config.listen,
        database,
        "ready"
    );
}

/// The first signal drains, the second one ends the process at once.
async fn stop_on_signal(mut signals: (Signal, Signal), stopper: Stopper) {
    next(&mut signals).await;
    tracing::info!("stopping");
    tokio::select! {
        () = stopper.stop() => {}
        () = next(&mut signals) => {
            tracing::warn!("stopped at once; what was in progress is lost");
            std::process::exit(1);
        }
    }
}

async fn next((terminate, interrupt): &mut (Signal, Signal)) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
