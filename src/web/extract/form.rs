//! Parameters of a request: its query, or a body of exactly `application/x-www-form-urlencoded` in UTF-8.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::Payload;
use futures_util::StreamExt as _;

use crate::protocol::parameters::{Malformed, Parameters};

/// Longer bodies than any form of ours, or request to us, needs.
const LARGEST_BODY: usize = 64 * 1024;
/// A body that takes longer is somebody holding the line.
const BODY_DEADLINE: Duration = Duration::from_secs(15);

/// Why a body was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::web) enum Refused {
    ContentType,
    TooLarge,
    TooSlow,
    Broken,
    Malformed(Malformed),
}

impl Refused {
    /// In words fit for strangers.
    pub(in crate::web) fn description(self) -> &'static str {
        match self {
            Self::ContentType => "the body must be application/x-www-form-urlencoded in UTF-8",
            Self::TooLarge => "the body is larger than 64 kB",
            Self::TooSlow => "the body took too long to arrive",
            Self::Broken => "the body broke off",
            Self::Malformed(malformed) => malformed.description(),
        }
    }
}

/// The query's parameters.
pub(in crate::web) fn query(request: &HttpRequest) -> Result<Parameters, Malformed> {
    Parameters::parse(request.query_string().as_bytes()).map(Parameters::without_empty)
}

/// The body's parameters; those without a value count as absent.
pub(in crate::web) async fn body(
    request: &HttpRequest,
    payload: Payload,
) -> Result<Parameters, Refused> {
    raw_body(request, payload)
        .await
        .map(Parameters::without_empty)
}

/// The body's parameters with those that have no value.
async fn raw_body(request: &HttpRequest, payload: Payload) -> Result<Parameters, Refused> {
    if !is_form(request) {
        return Err(Refused::ContentType);
    }
    let bytes = tokio::time::timeout(BODY_DEADLINE, collect(payload))
        .await
        .map_err(|_elapsed| Refused::TooSlow)??;
    Parameters::parse(&bytes).map_err(Refused::Malformed)
}

/// Query and body as one request, still encoded: what comes in both is repeated, empty or not.
pub(in crate::web) async fn query_and_body(
    request: &HttpRequest,
    payload: Payload,
) -> Result<String, Refused> {
    let body = raw_body(request, payload).await?.to_query();
    let parts = [request.query_string(), &body];
    Ok(parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("&"))
}

async fn collect(mut payload: Payload) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_broken_off| Refused::Broken)?;
        if bytes.len() + chunk.len() > LARGEST_BODY {
            return Err(Refused::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Exactly a form, in UTF-8, as it is: no other charset, and no compression that could unfold into more than was sent.
fn is_form(request: &HttpRequest) -> bool {
    let headers = request.headers();
    if headers.contains_key(header::CONTENT_ENCODING)
        || headers.get_all(header::CONTENT_TYPE).count() != 1
    {
        return false;
    }
    let Some(value) = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let mut parts = value.split(';').map(str::trim);
    let is_form = parts
        .next()
        .is_some_and(|kind| kind.eq_ignore_ascii_case("application/x-www-form-urlencoded"));
    is_form
        && parts.filter(|part| !part.is_empty()).all(|part| {
            part.eq_ignore_ascii_case("charset=utf-8")
                || part.eq_ignore_ascii_case("charset=\"utf-8\"")
        })
}
