//! Where an audit event comes from: the request's id and the sender's address.

use actix_web::{HttpMessage as _, HttpRequest};

use super::client_ip::client_ip;
use crate::audit::Trail;
use crate::protocol::time::Timestamp;
use crate::web::request_log::RequestId;
use crate::web::state::AppState;

/// The trail of one request.
pub(in crate::web) fn trail(request: &HttpRequest, state: &AppState, now: Timestamp) -> Trail {
    let address = client_ip(request, &state.config.trusted_proxies);
    let id = request
        .extensions()
        .get::<RequestId>()
        .map(|id| id.0.clone());
    Trail::of_request(id.unwrap_or_default(), address, now)
}
