//! Around every request: an id, one log line, headers that protect, and an answer even when a handler panics.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, HttpResponse, web};
use futures_util::FutureExt as _;
use opentelemetry::Context;

use super::connection::Exchanges;
use super::error;
use super::routes;
use super::security_headers;
use super::state::AppState;
use crate::config::Config;
use crate::random;
use crate::telemetry::{self, Answered};

/// What a person can quote and an operator can search for.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) String);

/// The client a request is about, for the log.
#[derive(Clone, Debug)]
pub(super) struct LoggedClient(pub(super) String);

/// The person a request is about, for the log.
#[derive(Clone, Debug)]
pub(super) struct LoggedUser(pub(super) String);

/// The middleware. Neither path nor query is logged, since links and codes travel in them; the route's pattern is.
pub(crate) async fn around<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let started = Instant::now();
    let id = short_id();
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().clone();
    let state = request
        .app_data::<web::Data<AppState>>()
        .expect("every application is built with its state")
        .clone();
    let parent = state.telemetry.is_some().then(|| parent_of(&request));
    // Taken now: the request itself belongs to the router until it is answered.
    let path = routes::path_of(request.request()).to_owned();

    let exchange = Exchange(request.conn_data::<Rc<Exchanges>>().cloned());
    let outcome = AssertUnwindSafe(next.call(request)).catch_unwind().await;
    drop(exchange);
    let took = started.elapsed();
    let duration_ms = took.as_micros() as f64 / 1000.0;
    let mut response = match outcome {
        Ok(Ok(response)) => response,
        Ok(Err(refusal)) => {
            let status = refusal.as_response_error().status_code();
            state.metrics.request(&method, None, status.as_u16(), took);
            trace(
                &state,
                parent.as_ref(),
                &answered(&method, &id, status.as_u16(), took),
            );
            tracing::info!(request_id = %id, %method, status = status.as_u16(), duration_ms, "request");
            return Err(finished(
                error::outside_a_handler(&state, &path, &id, status),
                &state,
                &id,
            ));
        }
        Err(_panic) => {
            tracing::error!(request_id = %id, %method, duration_ms, "a handler panicked");
            state.metrics.request(&method, None, 500, took);
            trace(&state, parent.as_ref(), &answered(&method, &id, 500, took));
            let response =
                error::outside_a_handler(&state, &path, &id, StatusCode::INTERNAL_SERVER_ERROR);
            return Err(finished(response, &state, &id));
        }
    };
    protect(response.headers_mut(), &state.config, &id);

    let request = response.request();
    let extensions = request.extensions();
    let route = request.match_pattern();
    let client_id = extensions
        .get::<LoggedClient>()
        .map(|client| client.0.as_str());
    let user_id = extensions.get::<LoggedUser>().map(|user| user.0.as_str());
    let status = response.status().as_u16();
    state
        .metrics
        .request(&method, route.as_deref(), status, took);
    let told = Answered {
        route: route.as_deref(),
        client_id,
        ..answered(&method, &id, status, took)
    };
    trace(&state, parent.as_ref(), &told);
    tracing::info!(request_id = %id, %method, route, status, duration_ms, client_id, user_id, "request");
    drop(extensions);
    Ok(response)
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

fn parent_of(request: &ServiceRequest) -> Context {
    let header = |name: &str| request.headers().get(name)?.to_str().ok();
    telemetry::parent_of(header("traceparent"), header("tracestate"))
}

fn answered<'a>(method: &'a Method, id: &'a str, status: u16, took: Duration) -> Answered<'a> {
    Answered {
        method: method.as_str(),
        route: None,
        status,
        request_id: id,
        client_id: None,
        took,
    }
}

fn trace(state: &AppState, parent: Option<&Context>, answered: &Answered<'_>) {
    if let (Some(telemetry), Some(parent)) = (&state.telemetry, parent) {
        telemetry.request(parent, answered);
    }
}

/// An answer that was made without the request, on its way past the router.
fn finished(mut response: HttpResponse, state: &AppState, id: &str) -> Error {
    protect(response.headers_mut(), &state.config, id);
    InternalError::from_response("answered outside a handler", response).into()
}

/// What every answer has.
pub(super) fn protect(headers: &mut HeaderMap, config: &Config, id: &str) {
    let value = HeaderValue::from_str(id).expect("an id is made of letters and digits");
    headers.insert(HeaderName::from_static("x-request-id"), value);
    security_headers::protect(headers, config.issuer.is_https());
}

/// Eight characters that can be read out on the telephone.
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
