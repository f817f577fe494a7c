//! What is answered while a server starts: it lives, and is not ready.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;

use super::{assets, error, health, request_log, routes};
use crate::config::Config;
use crate::protocol::time::Timestamp;

/// The answer at this path of either listener.
pub(crate) async fn answer(config: &Config, path: &str, now: Timestamp) -> HttpResponse {
    let id = request_log::short_id();
    let own = path.strip_prefix(config.issuer.path()).unwrap_or(path);
    let refusal =
        || error::before_there_is_state(config, path, &id, StatusCode::SERVICE_UNAVAILABLE, now);
    let mut response = match own {
        "/livez" => health::live().await,
        // What the page that says so is made of needs no state.
        _ => assets::at(own).unwrap_or_else(refusal),
    };
    request_log::protect(response.headers_mut(), config, &id);
    let status = response.status().as_u16();
    if routes::is_probe(own) {
        tracing::debug!(request_id = %id, status, "request before the start was done");
    } else {
        tracing::info!(request_id = %id, status, "request before the start was done");
    }
    response
}
