//! What the test app remembers between its request and the answer: a sealed cookie of its own.

use std::time::Duration;

use actix_web::cookie::{Cookie, SameSite, time};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};

use super::app;
use crate::protocol::time::Timestamp;
use crate::web::state::AppState;

const COOKIE: &str = "latchkey-dev-app";
const PLACE: &[u8] = b"cookie.dev-app";
const LIFETIME: Duration = Duration::from_secs(600);

/// The choices of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Choices {
    /// Beside `openid`, which is always sent.
    pub(super) scopes: Vec<String>,
    pub(super) prompt: Option<String>,
    pub(super) id_token_claims: bool,
}

/// A sign-in whose answer is awaited.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) state: String,
    pub(super) nonce: String,
    pub(super) code_verifier: String,
    pub(super) choices: Choices,
    /// The authorization request, to show it later.
    pub(super) request: String,
    pub(super) begun_at: Timestamp,
}

/// Hands it to the browser. It stays there after the answer, so that a reload shows what the server says to a used code.
pub(super) fn remember(response: &mut HttpResponse, state: &AppState, pending: &Pending) {
    let plain = serde_json::to_vec(pending).expect("texts and a number have a JSON form");
    let cookie = Cookie::build(COOKIE, state.cookies.seal_text(&plain, PLACE))
        .path(format!("{}{}", state.base(), app::START))
        .http_only(true)
        .secure(state.config.issuer.is_https())
        .same_site(SameSite::Lax)
        .max_age(time::Duration::try_from(LIFETIME).unwrap_or(time::Duration::MINUTE))
        .finish();
    response
        .add_cookie(&cookie)
        .expect("the value is base64url, which a header can hold");
}

/// The sign-in that this browser began, unless it is too long ago.
pub(super) fn recall(request: &HttpRequest, state: &AppState, now: Timestamp) -> Option<Pending> {
    let plain = state
        .cookies
        .open_text(request.cookie(COOKIE)?.value(), PLACE)?;
    let pending: Pending = serde_json::from_slice(&plain).ok()?;
    (now < pending.begun_at.plus(LIFETIME)).then_some(pending)
}
