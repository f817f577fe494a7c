//! What all servers of this process log, and a way to fail where they do.

use std::fmt::Debug;
use std::io::Write;
use std::sync::{LazyLock, Mutex};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::DefaultFields;
use tracing_subscriber::fmt::{self, FormattedFields, MakeWriter};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, SpanRef};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

/// Where this is logged, that is a panic: in the middle of whatever was at work.
pub const PANICS: &str = "panic-where-this-is-logged";

/// Since the first test asked for it.
static LOG: LazyLock<Mutex<Vec<u8>>> = LazyLock::new(|| {
    // The browser and the client of these tests log into the same process; their words are not the product's.
    let ours = "trace,reqwest=off,hyper=off,hyper_util=off,h2=off,html5ever=off,selectors=off,scraper=off,cookie_store=off";
    tracing_subscriber::registry()
        .with(EnvFilter::new(ours))
        .with(fmt::layer().with_ansi(false).with_writer(LogWriter))
        .with(Panicking)
        .init();
    Mutex::default()
});

/// Everything from now on is kept.
pub fn begin() {
    LazyLock::force(&LOG);
}

pub fn text() -> String {
    String::from_utf8(LOG.lock().unwrap().clone()).unwrap()
}

/// What was kept so far is not any more, and takes no memory.
pub fn forget() {
    drop(std::mem::take(&mut *LOG.lock().unwrap()));
}

#[derive(Clone, Copy)]
struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

/// Comes after what writes the line, so that nothing of it is left half done.
struct Panicking;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Panicking {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // The server's own words, not those of the framework about the request that it came with, nor the line at its end.
        let target = event.metadata().target();
        let is_at_work = target.starts_with("latchkey") && target != "latchkey::web::request_log";
        if is_at_work && !std::thread::panicking() {
            event.record(&mut Self);
            // In the middle of a write it is the request that names the app, not the line.
            let thread = std::thread::current();
            let is_in_store = thread.name().is_some_and(|name| name.starts_with("store-"));
            let mut spans = context.event_scope(event).into_iter().flatten();
            let names_it = |span: SpanRef<'_, S>| {
                let extensions = span.extensions();
                let fields = extensions.get::<FormattedFields<DefaultFields>>();
                fields.is_some_and(|fields| fields.contains(PANICS))
            };
            assert!(!(is_in_store && spans.any(names_it)), "as a test wants it");
        }
    }
}

impl Visit for Panicking {
    fn record_debug(&mut self, _field: &Field, value: &dyn Debug) {
        assert!(!format!("{value:?}").contains(PANICS), "as a test wants it");
    }
}
