//! What is answered while a server starts: it lives, and is not ready.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;

use super::{error, health, request_log};
use crate::config::Config;
use crate::protocol::time::Timestamp;

/// The answer at this path of either listener.
pub(crate) async fn answer(config: &Config, path: &str, now: Timestamp) -> HttpResponse {
    let id = request_log::short_id();
    let own = path.strip_prefix(config.issuer.path()).unwrap_or(path);
    let mut response = match own {
        "/livez" => health::live().await,
        _ => error::before_there_is_state(config, path, &id, StatusCode::SERVICE_UNAVAILABLE, now),
    };
    request_log::protect(response.headers_mut(), config, &id);
    let status = response.status().as_u16();
    tracing::info!(request_id = %id, status, "request before the start was done");
    response
}
