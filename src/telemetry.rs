//! Traces by OTLP over HTTP, when the standard `OTEL_*` variables ask for them: a span for each request, under the trace that
//! its sender named. W3C Trace Context §3; OpenTelemetry's HTTP semantic conventions.
//!
//! A span holds what the log line of its request holds: neither path nor query, since links and codes travel in them.

use std::env;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use reqwest::StatusCode;

use crate::causes::with_causes;

use crate::config::EgressConfig;

const TIMEOUT: Duration = Duration::from_secs(10);
/// What is not sent within this time when the process ends is lost.
const LAST_CHANCE: Duration = Duration::from_secs(3);

/// Why spans can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(
        "traces are asked for, but OTEL_EXPORTER_OTLP_PROTOCOL is {0}; it is http/protobuf here"
    )]
    Protocol(String),
    #[error("traces can't be sent: {0}")]
    Exporter(#[from] ExporterBuildError),
    #[error("traces can't be sent")]
    Http(#[from] reqwest::Error),
}

/// What OpenTelemetry calls every method that is not registered.
pub const OTHER_METHOD: &str = "_OTHER";

/// Where spans go.
pub struct Telemetry {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// One request, as its span tells it.
#[derive(Debug)]
pub struct Answered<'a> {
    /// A registered one, or [`OTHER_METHOD`].
    pub method: &'static str,
    /// The route's pattern; nothing for a path that is none of ours.
    pub route: Option<&'a str>,
    pub status: u16,
    pub request_id: &'a str,
    pub client_id: Option<&'a str>,
    pub took: Duration,
}

impl Telemetry {
    /// `None` unless the environment names a place for traces.
    pub fn from_environment(egress: &EgressConfig) -> Result<Option<Self>, TelemetryError> {
        let value = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let is_off = value("OTEL_SDK_DISABLED")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || value("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        let endpoint = value("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            .or_else(|| value("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let is_asked_for = endpoint.is_some()
            || value("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "otlp");
        if is_off || !is_asked_for {
            return Ok(None);
        }
        let protocol = value("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            .or_else(|| value("OTEL_EXPORTER_OTLP_PROTOCOL"));
        if let Some(other) = protocol.filter(|protocol| protocol != "http/protobuf") {
            return Err(TelemetryError::Protocol(other));
        }
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT);
        let http = egress.trusting(http).build()?;
        // The library exports on a thread of its own, which has no reactor; the requests run in this one.
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Sender::new(http))
            .build()?;
        let mut resource = Resource::builder();
        if value("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("latchkey");
        }
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.with_attribute(version).build())
            .with_batch_exporter(exporter)
            .build();
        let tracer = provider.tracer("latchkey");
        Ok(Some(Self { provider, tracer }))
    }

    /// Writes down a request that was answered just now, under the trace that its headers name.
    pub fn request(&self, parent: &Context, answered: &Answered<'_>) {
        let Answered {
            method,
            route,
            status,
            ..
        } = *answered;
        let verb = if method == OTHER_METHOD {
            "HTTP"
        } else {
            method
        };
        let name = route.map_or_else(|| verb.to_owned(), |route| format!("{verb} {route}"));
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.response.status_code", i64::from(status)),
            KeyValue::new("latchkey.request_id", answered.request_id.to_owned()),
        ];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route.to_owned())));
        attributes.extend(
            answered
                .client_id
                .map(|id| KeyValue::new("latchkey.client_id", id.to_owned())),
        );
        let ended = now();
        let mut span = self
            .tracer
            .span_builder(name)
            .with_kind(SpanKind::Server)
            .with_start_time(ended.checked_sub(answered.took).unwrap_or(ended))
            .with_attributes(attributes)
            .start_with_context(&self.tracer, parent);
        if status >= 500 {
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(ended);
    }

    /// Sends what is still waiting.
    pub fn shut_down(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST_CHANCE) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// The trace that a request belongs to (W3C Trace Context §3.2); without a good header it begins one.
pub fn parent_of(traceparent: Option<&str>, tracestate: Option<&str>) -> Context {
    let mut headers = std::collections::HashMap::new();
    headers.extend(traceparent.map(|value| ("traceparent".to_owned(), value.to_owned())));
    headers.extend(tracestate.map(|value| ("tracestate".to_owned(), value.to_owned())));
    TraceContextPropagator::new().extract_with_context(&Context::new(), &headers)
}

#[allow(
    clippy::disallowed_methods,
    reason = "a span is a measurement, which no rule depends on"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Our own HTTP library, so that there are not two of them.
struct Sender {
    http: reqwest::Client,
    /// Whether the last attempt failed, so that the log tells of changes alone: there is an attempt every few seconds.
    is_failing: AtomicBool,
}

impl Sender {
    fn new(http: reqwest::Client) -> Self {
        Self {
            http,
            is_failing: AtomicBool::new(false),
        }
    }

    fn note(&self, problem: Option<String>) {
        let was_failing = self.is_failing.swap(problem.is_some(), Ordering::SeqCst);
        match problem {
            Some(error) if !was_failing => {
                tracing::warn!(
                    error,
                    "traces can't be sent; those that wait are lost meanwhile"
                );
            }
            None if was_failing => tracing::info!("traces can be sent again"),
            _ => {}
        }
    }
}

/// The addresses in errors may hold a key, as some collectors want it.
fn problem(sent: &Result<(StatusCode, Bytes), reqwest::Error>) -> Option<String> {
    match sent {
        Ok((status, _)) if status.is_success() => None,
        Ok((status, _)) => Some(format!("the collector answered {status}")),
        Err(error) => {
            let address = error.url().map(ToString::to_string).unwrap_or_default();
            let text = with_causes(error);
            Some(if address.is_empty() {
                text
            } else {
                text.replace(&address, "the collector")
            })
        }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (http, request) = (self.http.clone(), reqwest::Request::try_from(request)?);
        let sent = async move {
            let response = http.execute(request).await?;
            let status = response.status();
            Ok::<_, reqwest::Error>((status, response.bytes().await?))
        };
        // A reactor for this one request: there is one every few seconds, and the thread waits for it anyway.
        let reactor = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let sent = reactor.block_on(sent);
        self.note(problem(&sent));
        let (status, body) = sent?;
        Ok(Response::builder().status(status).body(body)?)
    }
}
