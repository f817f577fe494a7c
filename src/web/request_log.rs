//! Around every request: an id, one log line, headers that protect, and an answer even when a handler panics.
//!
//! Each request has a span with its id and, once they are known, its client and its person. Whatever is logged on its
//! behalf, on the store's threads too, stands in that span.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, HttpRequest, web};
use futures_util::FutureExt as _;
use opentelemetry::Context;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::connection::Exchanges;
use super::error;
use super::routes;
use super::security_headers;
use super::state::AppState;
use crate::config::Config;
use crate::protocol::client::ClientId;
use crate::random;
use crate::telemetry::{self, Answered};

/// The name of each request's span.
pub(crate) const SPAN: &str = "request";

/// What a person can quote and an operator can search for.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) String);

/// The client a request is about.
struct LoggedClient(String);

/// The person a request is about.
struct LoggedUser(String);

/// From here on every line of this request's log names the client. It must be one that exists: what a stranger calls a
/// client may be a secret in the wrong field.
pub(super) fn about_client(request: &HttpRequest, id: &ClientId) {
    let mut extensions = request.extensions_mut();
    let known = extensions.get::<LoggedClient>();
    if known.is_none_or(|known| known.0 != id.as_str()) {
        extensions.insert(LoggedClient(id.as_str().to_owned()));
        Span::current().record("client_id", id.as_str());
    }
}

/// From here on every line of this request's log names the person.
pub(super) fn about_user(request: &HttpRequest, id: &str) {
    let mut extensions = request.extensions_mut();
    let known = extensions.get::<LoggedUser>();
    if known.is_none_or(|known| known.0 != id) {
        extensions.insert(LoggedUser(id.to_owned()));
        about_user_of_token(id);
    }
}

/// The same where the request itself is not at hand, once a request.
pub(super) fn about_user_of_token(id: &str) {
    Span::current().record("user_id", id);
}

/// Who is served at a listener.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listener {
    Everybody,
    Operator,
}

/// The middleware. Neither path nor query is logged, since links and codes travel in them; the route's pattern is.
pub(crate) async fn around<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    answer(request, next, Listener::Everybody).await
}

/// The same for the operator's own listener, whose requests are neither counted nor told without being asked for.
pub(crate) async fn around_operator<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    answer(request, next, Listener::Operator).await
}

async fn answer<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
    listener: Listener,
) -> Result<ServiceResponse<B>, Error> {
    let started = Instant::now();
    let asked = Asked::of(&request, listener);
    // At the level of errors, so that it is there at whichever level the log is.
    let span = tracing::error_span!(
        SPAN,
        request_id = asked.id.as_str(),
        client_id = Empty,
        user_id = Empty
    );
    let exchange = Exchange(request.conn_data::<Rc<Exchanges>>().cloned());
    let answering = AssertUnwindSafe(async move { next.call(request).await });
    let outcome = answering.catch_unwind().instrument(span.clone()).await;
    drop(exchange);
    let took = started.elapsed();
    span.in_scope(|| match outcome {
        Ok(Ok(mut response)) => {
            asked.protect(response.headers_mut());
            asked.tell(&response, took);
            Ok(response)
        }
        Ok(Err(refusal)) => {
            let status = refusal.as_response_error().status_code();
            Err(asked.answer_outside_a_handler(status, took))
        }
        Err(_panic) => {
            let (method, route) = (asked.method, asked.likely_route());
            tracing::error!(method, route, "a handler panicked");
            Err(asked.answer_outside_a_handler(StatusCode::INTERNAL_SERVER_ERROR, took))
        }
    })
}

/// A request without an answer: over its connection no other one is read meanwhile. Dropped also when nobody waits any more.
struct Exchange(Option<Rc<Exchanges>>);

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(exchanges) = &self.0 {
            exchanges.answered();
        }
    }
}

/// What is known of a request before it is answered: the request itself belongs to the router until then.
struct Asked {
    id: String,
    method: &'static str,
    path: String,
    /// The trace that it belongs to, where there are traces.
    parent: Option<Context>,
    listener: Listener,
    state: web::Data<AppState>,
}

impl Asked {
    fn of(request: &ServiceRequest, listener: Listener) -> Self {
        let id = short_id();
        request.extensions_mut().insert(RequestId(id.clone()));
        let state = request
            .app_data::<web::Data<AppState>>()
            .expect("every application is built with its state")
            .clone();
        Self {
            id,
            method: registered(request.method()),
            path: routes::path_of(request.request()).to_owned(),
            parent: state.telemetry.is_some().then(|| parent_of(request)),
            listener,
            state,
        }
    }

    /// The route of a request that never came back from it.
    fn likely_route(&self) -> Option<&'static str> {
        routes::of_path(&self.path, self.state.base())
    }

    fn tell<B>(&self, response: &ServiceResponse<B>, took: Duration) {
        let pattern = response.request().match_pattern();
        let route = pattern.map(|pattern| routes::own(&pattern, self.state.base()).to_owned());
        let extensions = response.request().extensions();
        let client_id = extensions.get::<LoggedClient>();
        self.write_down(&Answered {
            method: self.method,
            route: route.as_deref(),
            status: response.status().as_u16(),
            request_id: &self.id,
            client_id: client_id.map(|client| client.0.as_str()),
            took,
        });
    }

    /// An answer that was made without the request, on its way past the router.
    fn answer_outside_a_handler(&self, status: StatusCode, took: Duration) -> Error {
        self.write_down(&Answered {
            method: self.method,
            route: self.likely_route(),
            status: status.as_u16(),
            request_id: &self.id,
            client_id: None,
            took,
        });
        let mut response = error::outside_a_handler(&self.state, &self.path, &self.id, status);
        self.protect(response.headers_mut());
        InternalError::from_response("answered outside a handler", response).into()
    }

    /// In the log, and for monitoring.
    fn write_down(&self, answered: &Answered<'_>) {
        let Answered {
            method,
            route,
            status,
            took,
            ..
        } = *answered;
        let duration_ms = took.as_micros() as f64 / 1000.0;
        // Probes come every few seconds for as long as the server lives, and say nothing of what people meet.
        if self.listener == Listener::Operator || route.is_some_and(routes::is_probe) {
            tracing::debug!(method, route, status, duration_ms, "request");
            return;
        }
        self.state.metrics.request(method, route, status, took);
        if let (Some(telemetry), Some(parent)) = (&self.state.telemetry, &self.parent) {
            telemetry.request(parent, answered);
        }
        tracing::info!(method, route, status, duration_ms, "request");
    }

    fn protect(&self, headers: &mut HeaderMap) {
        protect(headers, &self.state.config, &self.id);
    }
}

/// What every answer has.
pub(super) fn protect(headers: &mut HeaderMap, config: &Config, id: &str) {
    let value = HeaderValue::from_str(id).expect("an id is made of letters and digits");
    headers.insert(HeaderName::from_static("x-request-id"), value);
    security_headers::protect(headers, config.issuer.is_https());
}

/// The method, if it is a registered one (RFC 9110 §9, RFC 5789): a stranger may invent any number of them, of any length.
fn registered(method: &Method) -> &'static str {
    const REGISTERED: [&str; 9] = [
        "GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT",
    ];
    let known = REGISTERED.iter().find(|known| **known == method.as_str());
    known.unwrap_or(&telemetry::OTHER_METHOD)
}

fn parent_of(request: &ServiceRequest) -> Context {
    let header = |name: &str| request.headers().get(name)?.to_str().ok();
    telemetry::parent_of(header("traceparent"), header("tracestate"))
}

/// Twelve characters that can be read out on the telephone.
pub(super) fn short_id() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
    let letter = |byte: &u8| {
        LETTERS
            .get(usize::from(byte % 32))
            .copied()
            .map_or('a', char::from)
    };
    let bytes = random::bytes::<12>();
    let text: String = bytes.iter().map(letter).collect();
    text.as_bytes()
        .chunks(4)
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect::<Vec<_>>()
        .join("-")
}
