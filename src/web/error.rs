//! How each error is delivered: as a page to people, as JSON to programs. RFC 6749 §5.2; RFC 6750 §3.

use std::time::Duration;

use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::json;

use super::extract::form::Refused;
use super::pages::{Detail, ErrorKind, ErrorPage, Link, Page};
use super::routes;
use super::security_headers::PageKind;
use super::state::AppState;
use super::texts::{Language, Texts};
use super::visit::{Visit, html};
use crate::causes::with_causes;
use crate::config::Config;
use crate::keys::KeyError;
use crate::protocol::error::{ErrorCode, OAuthError};
use crate::protocol::jose::JoseError;
use crate::protocol::time::Timestamp;
use crate::store::StoreError;

/// Seconds after which trying again makes sense.
const RETRY_AFTER: &str = "5";

/// A fault of ours: logged once with its cause, shown without.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Jose(#[from] JoseError),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("{0}")]
    Other(&'static str),
}

impl Fault {
    fn is_passing(&self) -> bool {
        match self {
            Self::Store(error) => error.is_unavailable(),
            Self::Keys(error) => error.is_passing(),
            Self::Jose(error) => error.is_passing(),
            Self::Other(_) => false,
        }
    }

    /// What was missing, when it may be there in a moment.
    fn is_short_of(&self) -> &'static str {
        match self {
            Self::Jose(_) | Self::Keys(KeyError::Jose(_)) => "memory is short",
            _ => "the database is not available",
        }
    }

    fn log(&self) {
        let error = with_causes(self);
        if self.is_passing() {
            tracing::warn!(error, "a request was refused, since {}", self.is_short_of());
        } else {
            tracing::error!(error, "a request failed");
        }
    }
}

/// What an error page says beyond its kind.
#[derive(Default)]
pub(super) struct About {
    pub(super) code: Option<ErrorCode>,
    pub(super) details: Vec<Detail>,
    pub(super) action: Option<Link>,
}

/// An error page.
pub(super) fn page(
    visit: &Visit,
    status: StatusCode,
    kind: ErrorKind,
    about: About,
) -> HttpResponse {
    let texts = visit.texts();
    let page = ErrorPage {
        page: visit.page(),
        title: kind.title(texts),
        words: kind.words(texts),
        action: about.action,
        code: about.code.map(|code| code.as_str().to_owned()),
        details: about.details,
        time: texts.moment(visit.now),
        request_id: visit.request_id(),
    };
    let mut response = html(status, &page, PageKind::Own);
    say_when_to_try_again(&mut response);
    response
}

fn say_when_to_try_again(response: &mut HttpResponse) {
    if matches!(
        response.status(),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    ) {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    }
}

/// The page for a fault of ours.
pub(super) fn fault_page(visit: &Visit, fault: &Fault) -> HttpResponse {
    fault.log();
    if fault.is_passing() {
        page(
            visit,
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Unavailable,
            About::default(),
        )
    } else {
        page(
            visit,
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorKind::Fault,
            About::default(),
        )
    }
}

/// A page's answer, or the page for what went wrong.
pub(super) fn or_fault_page(visit: &Visit, result: Result<HttpResponse, Fault>) -> HttpResponse {
    result.unwrap_or_else(|fault| fault_page(visit, &fault))
}

/// The page for what was not sent from a page that we showed to this browser.
pub(super) fn forgery(visit: &Visit, status: StatusCode) -> HttpResponse {
    page(visit, status, ErrorKind::Forgery, About::default())
}

/// A form that could not be read.
pub(super) fn refused_form(visit: &Visit, refused: Refused) -> HttpResponse {
    let about = About {
        code: Some(ErrorCode::InvalidRequest),
        details: vec![Detail {
            label: visit.texts().get("error-detail-reason"),
            value: super::pages::Compared::plain(refused.description()),
        }],
        action: None,
    };
    page(visit, status_of(refused), ErrorKind::Request, about)
}

/// The HTTP status for a body that was not taken.
pub(super) fn status_of(refused: Refused) -> StatusCode {
    match refused {
        Refused::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Refused::TooSlow => StatusCode::REQUEST_TIMEOUT,
        Refused::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Refused::Broken | Refused::Malformed(_) => StatusCode::BAD_REQUEST,
    }
}

/// RFC 6749 §5.2: 400, and 401 only for a client that could not be authenticated.
pub(super) fn oauth_json(error: &OAuthError, used_basic: bool) -> HttpResponse {
    let status = match error.code {
        ErrorCode::InvalidClient | ErrorCode::InvalidToken => StatusCode::UNAUTHORIZED,
        ErrorCode::InsufficientScope => StatusCode::FORBIDDEN,
        ErrorCode::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut response = json_with(status, error);
    if error.code == ErrorCode::InvalidClient && used_basic {
        response.headers_mut().insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"latchkey\", charset=\"UTF-8\""),
        );
    }
    response
}

/// A fault of ours, as JSON.
pub(super) fn fault_json(fault: &Fault) -> HttpResponse {
    fault.log();
    json_refusal(if fault.is_passing() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    })
}

/// JSON for one reader, which nobody keeps (RFC 6749 §5.1).
pub(super) fn private_json(status: StatusCode, body: &impl Serialize) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::PRAGMA, "no-cache"))
        .json(body)
}

/// An error object under any status.
pub(super) fn json_with(status: StatusCode, error: &OAuthError) -> HttpResponse {
    let body = json!({ "error": error.code.as_str(), "error_description": error.description() });
    let mut response = private_json(status, &body);
    // For whoever counts them: every refusal for programs is made here.
    response.extensions_mut().insert(error.code);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    }
    response
}

/// Too many failures: what was sent now was not looked at. No code of RFC 6749 says so; `invalid_client` would make a client
/// throw good credentials away (RFC 6585 §4).
pub(super) fn slowed_json(wait: Duration) -> HttpResponse {
    let refusal = OAuthError::new(
        ErrorCode::TemporarilyUnavailable,
        "this client failed to authenticate too often from this address; try again later",
    );
    let mut response = json_with(StatusCode::TOO_MANY_REQUESTS, &refusal);
    let seconds = HeaderValue::from(wait.as_secs().max(1));
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}

/// For a handler that panicked, and whatever else is answered without a request at hand.
pub(super) fn outside_a_handler(
    state: &AppState,
    path: &str,
    request_id: &str,
    status: StatusCode,
) -> HttpResponse {
    before_there_is_state(&state.config, path, request_id, status, state.clock.now())
}

/// The same without even the database.
pub(super) fn before_there_is_state(
    config: &Config,
    path: &str,
    request_id: &str,
    status: StatusCode,
    now: Timestamp,
) -> HttpResponse {
    let base = config.issuer.path();
    if routes::answers_json(path, base) {
        return json_refusal(status);
    }
    let kind = kind_of(status);
    let texts = Texts::of(Language::English);
    let page = ErrorPage {
        page: Page::new(Language::English, base, config.development),
        title: kind.title(texts),
        words: kind.words(texts),
        action: None,
        code: None,
        details: Vec::new(),
        time: texts.moment(now),
        request_id: request_id.to_owned(),
    };
    let mut response = html(status, &page, PageKind::Own);
    say_when_to_try_again(&mut response);
    response
}

fn json_refusal(status: StatusCode) -> HttpResponse {
    let (code, description) = match status {
        StatusCode::SERVICE_UNAVAILABLE => (
            ErrorCode::TemporarilyUnavailable,
            "try again in a few seconds",
        ),
        StatusCode::INTERNAL_SERVER_ERROR => {
            (ErrorCode::ServerError, "something went wrong on the server")
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            (ErrorCode::InvalidRequest, "the method is not allowed here")
        }
        StatusCode::NOT_FOUND => (
            ErrorCode::InvalidRequest,
            "there is nothing at this address",
        ),
        _ => (ErrorCode::InvalidRequest, "the request could not be read"),
    };
    json_with(status, &OAuthError::new(code, description))
}

fn kind_of(status: StatusCode) -> ErrorKind {
    match status {
        StatusCode::SERVICE_UNAVAILABLE => ErrorKind::Unavailable,
        StatusCode::INTERNAL_SERVER_ERROR => ErrorKind::Fault,
        StatusCode::NOT_FOUND => ErrorKind::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => ErrorKind::Method,
        _ => ErrorKind::Request,
    }
}

/// What the framework refused before a handler saw it, in the form that fits the address.
pub(super) fn framework_refusal(request: &HttpRequest, status: StatusCode) -> HttpResponse {
    let state = request
        .app_data::<web::Data<AppState>>()
        .expect("every application is built with its state");
    if routes::answers_json(routes::path_of(request), state.base()) {
        return json_refusal(status);
    }
    page(
        &Visit::new(request, state),
        status,
        kind_of(status),
        About::default(),
    )
}

/// Any path that is not ours.
pub(super) async fn not_found(request: HttpRequest) -> HttpResponse {
    framework_refusal(&request, StatusCode::NOT_FOUND)
}

/// Any method that a path of ours does not take.
pub(super) async fn method_not_allowed(request: HttpRequest) -> HttpResponse {
    let mut response = framework_refusal(&request, StatusCode::METHOD_NOT_ALLOWED);
    let base = request
        .app_data::<web::Data<AppState>>()
        .expect("every application is built with its state")
        .base();
    let allowed = routes::methods(request.match_pattern().as_deref().unwrap_or_default(), base);
    if let Ok(value) = HeaderValue::from_str(
        &allowed
            .iter()
            .map(Method::as_str)
            .collect::<Vec<_>>()
            .join(", "),
    ) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}
