//! Log lines on standard error: one an event.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat, LogLevel};

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
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        // A line that can't be written would be reported on standard error, which panics where that is what is full.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Pretty => false,
        LogFormat::Json => true,
    };
    // The error says that logging was started before, as when a test runs two commands in one process.
    let _started_before = if json {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init()
    } else {
        let colours = terminal && std::env::var_os("NO_COLOR").is_none();
        builder.with_ansi(colours).try_init()
    };
}

fn filter(level: LogLevel) -> EnvFilter {
    if let Ok(filter) = EnvFilter::try_from_default_env()
        && std::env::var_os("RUST_LOG").is_some_and(|value| !value.is_empty())
    {
        return filter;
    }
    // Libraries below us log what passes through them at their lower levels, secrets too.
    let libraries = if level == LogLevel::Error {
        "error"
    } else {
        "warn"
    };
    // It calls every request that is no HTTP an error of ours: strangers would fill the log, and wake people up.
    let strangers = "actix_http::h1::dispatcher=off";
    EnvFilter::new(format!(
        "{libraries},{strangers},latchkey={}",
        level.as_str()
    ))
}
