//! What the test app remembers between one request and the next: sealed cookies of its own.

use std::time::Duration;

use actix_web::cookie::{Cookie, SameSite, time};
use actix_web::{HttpRequest, HttpResponse};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::app;
use crate::protocol::time::Timestamp;
use crate::web::state::AppState;

/// Something that a cookie holds for a while.
pub(super) trait Remembered: Serialize + DeserializeOwned {
    const COOKIE: &'static str;
    const LIFETIME: Duration;

    fn since(&self) -> Timestamp;
}

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

/// Stays there after the answer, so that a reload shows what the server says to a used code.
impl Remembered for Pending {
    const COOKIE: &'static str = "latchkey-dev-app";
    const LIFETIME: Duration = Duration::from_secs(600);

    fn since(&self) -> Timestamp {
        self.begun_at
    }
}

/// What the app has once somebody signed in.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Connection {
    pub(super) subject: String,
    pub(super) id_token: String,
    pub(super) refresh_token: Option<String>,
    pub(super) choices: Choices,
    pub(super) since: Timestamp,
}

impl Remembered for Connection {
    const COOKIE: &'static str = "latchkey-dev-app-tokens";
    const LIFETIME: Duration = Duration::from_secs(86_400);

    fn since(&self) -> Timestamp {
        self.since
    }
}

/// A sign-out whose answer is awaited.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Leaving {
    pub(super) state: String,
    pub(super) choices: Choices,
    pub(super) request: String,
    pub(super) begun_at: Timestamp,
}

impl Remembered for Leaving {
    const COOKIE: &'static str = "latchkey-dev-app-sign-out";
    const LIFETIME: Duration = Duration::from_secs(600);

    fn since(&self) -> Timestamp {
        self.begun_at
    }
}

/// Hands it to the browser.
pub(super) fn remember<R: Remembered>(response: &mut HttpResponse, state: &AppState, value: &R) {
    let plain = serde_json::to_vec(value).expect("texts and a number have a JSON form");
    let sealed = state.cookies.seal_text(&plain, place::<R>().as_bytes());
    let mut cookie = build::<R>(state, sealed);
    cookie.set_max_age(time::Duration::try_from(R::LIFETIME).unwrap_or(time::Duration::MINUTE));
    set(response, &cookie);
}

/// Takes it from the browser.
pub(super) fn forget<R: Remembered>(response: &mut HttpResponse, state: &AppState) {
    let mut cookie = build::<R>(state, String::new());
    cookie.make_removal();
    set(response, &cookie);
}

/// What this browser was handed, unless it is too long ago.
pub(super) fn recall<R: Remembered>(
    request: &HttpRequest,
    state: &AppState,
    now: Timestamp,
) -> Option<R> {
    let cookie = request.cookie(R::COOKIE)?;
    let plain = state
        .cookies
        .open_text(cookie.value(), place::<R>().as_bytes())?;
    let value: R = serde_json::from_slice(&plain).ok()?;
    (now < value.since().plus(R::LIFETIME)).then_some(value)
}

fn place<R: Remembered>() -> String {
    format!("cookie.{}", R::COOKIE)
}

fn build<R: Remembered>(state: &AppState, value: String) -> Cookie<'static> {
    Cookie::build(R::COOKIE, value)
        .path(format!("{}{}", state.base(), app::START))
        .http_only(true)
        .secure(state.config.issuer.is_https())
        .same_site(SameSite::Lax)
        .finish()
}

fn set(response: &mut HttpResponse, cookie: &Cookie<'_>) {
    response
        .add_cookie(cookie)
        .expect("the value is base64url, which a header can hold");
}
