//! Log lines on standard error: one an event, each with the ids of the request that it belongs to.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::panic::{self, PanicHookInfo};

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::fmt::format::{Format, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::failure::Failure;
use crate::config::{Config, LogFormat, LogLevel};
use crate::web::request_log;

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
    panic::set_hook(Box::new(tell));
}

/// Writes down where a panic happened.
fn tell(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    // What stands in the source is no secret; a text that was put together may hold what somebody typed.
    let reason = panic.payload().downcast_ref::<&'static str>().copied();
    tracing::error!(location, reason, "something panicked");
}

/// A server that does not start says so as its log would: whoever reads that as JSON can read this too.
pub(super) fn start_failed(config: &Config, failure: Failure) -> Failure {
    match failure {
        Failure::Text(error) if is_json(config.log.format) && tracing::enabled!(Level::ERROR) => {
            tracing::error!(error, "the server could not start");
            Failure::Told
        }
        other => other,
    }
}

/// For a command: nothing but warnings, since its answer is what counts.
pub(super) fn for_command() {
    start(LogLevel::Warn, LogFormat::Auto);
}

fn start(level: LogLevel, format: LogFormat) {
    let (filter, problem) = filter(level);
    let lines = tracing_subscriber::fmt::layer()
        // A line that can't be written would be reported on standard error, which panics where that is what is full.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    let lines = if is_json(format) {
        let lines = lines.json().flatten_event(true);
        let lines = lines.with_current_span(false).with_span_list(false);
        lines.map_event_format(WithRequest).boxed()
    } else {
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        lines.with_ansi(colours).boxed()
    };
    let registry = tracing_subscriber::registry().with(filter);
    // The error says that logging was started before, as when a test runs two commands in one process.
    let _started_before = registry.with(FilterFn::new(is_fit)).with(lines).try_init();
    if let Some(problem) = problem {
        tracing::error!("RUST_LOG is not followed: {problem}");
    }
}

fn is_json(format: LogFormat) -> bool {
    match format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Pretty => false,
        LogFormat::Json => true,
    }
}

/// A line as JSON. The library would put what a request's span holds one level below; here it stands among the fields of the
/// line itself, where people look for it.
struct WithRequest(Format<Json>);

impl<S, N> FormatEvent<S, N> for WithRequest
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let is_request =
            |span: &tracing_subscriber::registry::SpanRef<'_, S>| span.name() == request_log::SPAN;
        let request = context
            .event_scope()
            .and_then(|mut scope| scope.find(is_request));
        let Some(request) = request else {
            return self.0.format_event(context, writer, event);
        };
        let extensions = request.extensions();
        let ids = extensions.get::<FormattedFields<N>>();
        // An object of its own, which goes on with the line's.
        let Some(ids) = ids.and_then(|ids| ids.strip_suffix('}')) else {
            return self.0.format_event(context, writer, event);
        };
        writer.write_str(ids)?;
        writer.write_char(',')?;
        let mut rest = WithoutBrace {
            writer,
            is_begun: false,
        };
        self.0.format_event(context, Writer::new(&mut rest), event)
    }
}

/// Leaves the first character out.
struct WithoutBrace<'a> {
    writer: Writer<'a>,
    is_begun: bool,
}

impl fmt::Write for WithoutBrace<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.is_begun {
            return self.writer.write_str(text);
        }
        self.is_begun = !text.is_empty();
        self.writer
            .write_str(text.strip_prefix('{').unwrap_or(text))
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

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::sync::{Arc, Mutex, PoisonError};
    use std::thread;

    use serde_json::Value;

    use super::*;

    /// Keeps the lines of a log.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of three panics in the middle of a request, in a thread of its own.
    fn logged(typed: &'static str) -> String {
        const THREAD: &str = "panics as this test wants it";
        let kept = Kept::default();
        let writer = kept.clone();
        let lines = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(move || writer.clone())
            .map_event_format(WithRequest);
        // Other tests panic as they always do.
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| match thread::current().name() {
            Some(THREAD) => tell(panic),
            _ => usual(panic),
        }));
        let panicking = move || {
            let _span = tracing::error_span!(request_log::SPAN, request_id = "an-id").entered();
            let panics: [&dyn Fn(); 3] = [
                &|| panic!("a text of the source"),
                &|| panic!("nobody is called {typed}"),
                &|| assert!([true].get(typed.len()).copied().expect(typed)),
            ];
            for panics in panics {
                let caught = panic::catch_unwind(AssertUnwindSafe(panics));
                assert!(caught.is_err());
            }
        };
        let registry = tracing_subscriber::registry().with(lines);
        let thread = thread::Builder::new().name(THREAD.to_owned());
        let thread = thread.spawn(move || tracing::subscriber::with_default(registry, panicking));
        let joined = thread.expect("a thread").join();
        drop(panic::take_hook());
        assert!(joined.is_ok());
        let kept = kept.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8(kept.clone()).expect("text")
    }

    #[test]
    fn a_panic_is_a_line_with_its_place_and_without_what_somebody_typed() {
        let log = logged("hunter2");
        let lines: Vec<Value> = log
            .lines()
            .map(|line| serde_json::from_str(line).expect("an object"))
            .collect();
        assert_eq!(lines.len(), 3, "{log}");
        for line in &lines {
            assert_eq!(line["level"], "ERROR");
            assert_eq!(line["message"], "something panicked");
            assert_eq!(line["request_id"], "an-id");
            let location = line["location"].as_str().expect("a place");
            assert!(location.starts_with("src/cli/logging.rs:"), "{location}");
        }
        let reasons: Vec<_> = lines.iter().map(|line| line["reason"].as_str()).collect();
        assert_eq!(reasons, [Some("a text of the source"), None, None]);
        assert!(!log.contains("hunter2"), "{log}");
    }
}
