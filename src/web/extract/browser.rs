//! The browser behind a request, as its cookies tell. OWASP ASVS 5.0 §3.3.
//!
//! Three cookies, none of which means anything by itself: a random name for the browser, which binds tickets and forms
//! to it; the sign-ins, each a random token of which the database holds the hash, the current one first; and a sealed
//! list of the accounts that signed in here before, which have a failure budget of their own.

use actix_web::cookie::{Cookie, SameSite, time};
use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};

use crate::identity::session::Session;
use crate::identity::user::User;
use crate::protocol::seal::TokenHash;
use crate::random;
use crate::store::{AnyConnection, StoreError, sessions, users};
use crate::web::state::AppState;

/// The most accounts that one browser keeps signed in; the oldest gives way.
const MOST_ACCOUNTS: usize = 6;
const TOKEN_LENGTH: usize = 43;
const A_YEAR: time::Duration = time::Duration::days(365);

/// What the cookies of a request say. Anything malformed counts as absent.
#[derive(Clone, Debug)]
pub(in crate::web) struct Browser {
    id: Option<String>,
    tokens: Vec<String>,
    known: KnownAccounts,
    pub(in crate::web) language: Option<String>,
}

/// A live sign-in of this browser, with its person.
#[derive(Clone, Debug)]
pub(in crate::web) struct SignedIn {
    pub(in crate::web) token: String,
    pub(in crate::web) session: Session,
    pub(in crate::web) user: User,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct KnownAccounts(Vec<String>);

impl Browser {
    /// Reads the cookies.
    pub(in crate::web) fn of(request: &HttpRequest, state: &AppState) -> Self {
        let headers = request.headers();
        let id = cookie(headers, &name(state, "browser")).filter(|value| is_token(value));
        let tokens = sign_ins(headers, &name(state, "session"));
        let known = cookie(headers, &name(state, "known"))
            .zip(id.as_deref())
            .and_then(|(sealed, id)| state.cookies.open_text(&sealed, known_to(id).as_bytes()))
            .and_then(|plain| serde_json::from_slice(&plain).ok())
            .unwrap_or_default();
        Self {
            id,
            tokens,
            known,
            language: cookie(headers, &name(state, "language")),
        }
    }

    /// The browser's name, if it has shown one.
    pub(in crate::web) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The browser's name, given now if it had none; then the answer must set the cookie.
    pub(in crate::web) fn id_or_new(&mut self) -> String {
        self.id.get_or_insert_with(random::token).clone()
    }

    /// Hashes of the sign-ins that the cookie claims.
    pub(in crate::web) fn token_hashes(&self) -> Vec<(String, TokenHash)> {
        self.tokens
            .iter()
            .map(|token| (token.clone(), TokenHash::of(token)))
            .collect()
    }

    /// The name under which this browser's own failures for an account are counted, if the account signed in here before.
    pub(in crate::web) fn known_for(&self, user_id: &str) -> Option<&str> {
        self.known
            .0
            .iter()
            .any(|known| known == user_id)
            .then_some(self.id.as_deref())
            .flatten()
    }

    /// Drops what opens nothing: a value that ended, or that somebody planted, would crowd out live ones.
    pub(in crate::web) fn keep_only(&mut self, live: &[SignedIn]) {
        self.tokens
            .retain(|token| live.iter().any(|other| other.token == *token));
    }

    /// Puts a sign-in first; `replaced` is the token it had before.
    pub(in crate::web) fn signed_in(
        &mut self,
        token: String,
        replaced: Option<&str>,
        user_id: &str,
    ) {
        self.tokens.retain(|known| Some(known.as_str()) != replaced);
        self.tokens.insert(0, token);
        self.tokens.truncate(MOST_ACCOUNTS);
        self.known.0.retain(|known| known != user_id);
        self.known.0.insert(0, user_id.to_owned());
        self.known.0.truncate(MOST_ACCOUNTS);
    }

    /// Takes a sign-in away.
    pub(in crate::web) fn signed_out(&mut self, token: &str) {
        self.tokens.retain(|known| known != token);
    }
}

/// The browser's live sign-ins, current one first; those of disabled people don't count.
pub(in crate::web) fn signed_in(
    conn: &mut AnyConnection,
    tokens: &[(String, TokenHash)],
    lifetimes: &crate::identity::session::Lifetimes,
    now: crate::protocol::time::Timestamp,
) -> Result<Vec<SignedIn>, StoreError> {
    let mut found: Vec<SignedIn> = Vec::new();
    for (token, hash) in tokens {
        let Some(session) =
            sessions::find_by_token(conn, hash)?.filter(|session| session.is_alive(lifetimes, now))
        else {
            continue;
        };
        let Some(user) = users::find(conn, &session.user_id)?.filter(|user| !user.disabled) else {
            continue;
        };
        if !found.iter().any(|other| other.user.id == user.id) {
            found.push(SignedIn {
                token: token.clone(),
                session,
                user,
            });
        }
    }
    Ok(found)
}

/// Sets the cookie that names the browser.
pub(in crate::web) fn remember_browser(
    response: &mut HttpResponse,
    state: &AppState,
    browser: &mut Browser,
) {
    let id = browser.id_or_new();
    add(response, &build(state, "browser", id, Some(A_YEAR)));
}

/// Sets all cookies after a sign-in or a sign-out. `remembered` keeps them when the browser closes.
pub(in crate::web) fn remember_sign_ins(
    response: &mut HttpResponse,
    state: &AppState,
    browser: &mut Browser,
    remembered: bool,
) {
    remember_browser(response, state, browser);
    let id = browser.id_or_new();
    if browser.tokens.is_empty() {
        let mut gone = build(state, "session", String::new(), None);
        gone.make_removal();
        add(response, &gone);
    } else {
        let keep = time::Duration::try_from(state.config.session.remembered)
            .ok()
            .filter(|_| remembered);
        add(
            response,
            &build(state, "session", browser.tokens.join("."), keep),
        );
    }
    let known = serde_json::to_vec(&browser.known).expect("a list of names has a JSON form");
    add(
        response,
        &build(
            state,
            "known",
            state.cookies.seal_text(&known, known_to(&id).as_bytes()),
            Some(A_YEAR),
        ),
    );
}

/// Sets the language that a person chose.
pub(in crate::web) fn remember_language(
    response: &mut HttpResponse,
    state: &AppState,
    language: &str,
) {
    add(
        response,
        &build(state, "language", language.to_owned(), Some(A_YEAR)),
    );
}

/// `__Host-` keeps other hosts of the same site from planting cookies; it needs https.
fn name(state: &AppState, which: &str) -> String {
    let prefix = if state.config.issuer.is_https() {
        "__Host-"
    } else {
        ""
    };
    let product = if state.config.development {
        "latchkey-dev"
    } else {
        "latchkey"
    };
    format!("{prefix}{product}-{which}")
}

fn build(
    state: &AppState,
    which: &str,
    value: String,
    max_age: Option<time::Duration>,
) -> Cookie<'static> {
    let mut cookie = Cookie::build(name(state, which), value)
        .path("/")
        .http_only(true)
        .secure(state.config.issuer.is_https())
        .same_site(SameSite::Lax)
        .finish();
    cookie.set_max_age(max_age);
    cookie
}

fn add(response: &mut HttpResponse, cookie: &Cookie<'_>) {
    response
        .add_cookie(cookie)
        .expect("names and values are made of base64url, which a header can hold");
}

/// The tokens of sign-ins in the cookie of this name; if one of them can't be ours, none is.
pub fn sign_ins(headers: &HeaderMap, name: &str) -> Vec<String> {
    cookie(headers, name)
        .map(|value| value.split('.').map(str::to_owned).collect::<Vec<_>>())
        .filter(|tokens| {
            tokens.len() <= MOST_ACCOUNTS && tokens.iter().all(|token| is_token(token))
        })
        .unwrap_or_default()
}

/// A cookie that came exactly once: of two with one name, at least one is not ours.
pub fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers
        .get_all(header::COOKIE)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    let first = values.next()?;
    values.next().is_none().then(|| first.to_owned())
}

fn is_token(value: &str) -> bool {
    value.len() == TOKEN_LENGTH
        && value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

fn known_to(browser: &str) -> String {
    format!("cookie.known.{browser}")
}
