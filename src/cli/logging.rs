//! Log lines on standard error: one an event.

use std::io::{self, IsTerminal as _};

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Config, LogFormat, LogLevel};

/// Libraries that log the cookies and tokens that we send, and those that come back, below this level.
const SENDERS: &[&str] = &[
    "cookie_store",
    "h2",
    "hyper",
    "hyper_util",
    "oauth2",
    "openidconnect",
    "reqwest",
];

/// For a server: what its configuration says.
pub(super) fn for_server(config: &Config) {
    start(config.log.level, config.log.format);
}

/// For a command: nothing but warnings, since its answer is what counts.
pub(super) fn for_command() {
    start(LogLevel::Warn, LogFormat::Auto);
}

fn start(level: LogLevel, format: LogFormat) {
    let terminal = io::stderr().is_terminal();
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Pretty => false,
        LogFormat::Json => true,
    };
    let (filter, problem) = filter(level);
    let lines = tracing_subscriber::fmt::layer()
        // A line that can't be written would be reported on standard error, which panics where that is what is full.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    let lines = if json {
        let lines = lines.json().flatten_event(true);
        lines.with_current_span(false).with_span_list(false).boxed()
    } else {
        let colours = terminal && std::env::var_os("NO_COLOR").is_none();
        lines.with_ansi(colours).boxed()
    };
    let registry = tracing_subscriber::registry().with(filter);
    // The error says that logging was started before, as when a test runs two commands in one process.
    let _started_before = registry.with(FilterFn::new(is_fit)).with(lines).try_init();
    if let Some(problem) = problem {
        tracing::error!("RUST_LOG is not followed: {problem}");
    }
}

/// Whether it may be logged even if `RUST_LOG` asks for it.
fn is_fit(event: &Metadata<'_>) -> bool {
    let library = event.target().split("::").next().unwrap_or_default();
    !SENDERS.contains(&library) || *event.level() <= Level::INFO
}

/// What `RUST_LOG` asks for, else the level; and what is wrong with `RUST_LOG`.
fn filter(level: LogLevel) -> (EnvFilter, Option<String>) {
    let asked = std::env::var("RUST_LOG").unwrap_or_default();
    let problem = match EnvFilter::try_new(&asked) {
        Ok(filter) if !asked.is_empty() => return (filter, None),
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    };
    // Libraries below us log what passes through them at their lower levels.
    let libraries = if level == LogLevel::Error {
        "error"
    } else {
        "warn"
    };
    // It calls every request that is no HTTP an error of ours: strangers would fill the log, and wake people up.
    let strangers = "actix_http::h1::dispatcher=off";
    let level = level.as_str();
    let filter = EnvFilter::new(format!("{libraries},{strangers},latchkey={level}"));
    (filter, problem)
}
