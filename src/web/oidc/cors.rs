//! Which pages of other origins may read our answers. Fetch standard §3.2; RFC 9700 §2.6.
//!
//! Public documents: anyone's. Tokens and UserInfo: the registered origins of the client concerned, and never with
//! credentials, so that no cookie of ours is ever behind a request from a script.

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};

use crate::protocol::client::Client;
use crate::store::clients;
use crate::web::error::{Fault, fault_json};
use crate::web::state::AppState;

/// The answer may be read by every page.
pub(in crate::web) fn allow_everyone(response: &mut HttpResponse) {
    response.headers_mut().insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
}

/// The answer may be read by the client's own pages.
pub(in crate::web) fn allow_client(
    request: &HttpRequest,
    response: &mut HttpResponse,
    client: Option<&Client>,
) {
    response
        .headers_mut()
        .append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = only_origin(request) else {
        return;
    };
    if client.is_some_and(|client| {
        client
            .allowed_cors_origins
            .iter()
            .any(|allowed| allowed == origin)
    }) && let Ok(value) = HeaderValue::from_str(origin)
    {
        response
            .headers_mut()
            .insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, value);
        response.headers_mut().insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("WWW-Authenticate"),
        );
    }
}

/// A preflight names no client yet: any registered origin may go on to ask.
pub(in crate::web) async fn preflight(
    request: HttpRequest,
    state: web::Data<AppState>,
) -> HttpResponse {
    let mut response = HttpResponse::NoContent()
        .insert_header((header::VARY, "Origin"))
        .finish();
    let Some(origin) = only_origin(&request).map(str::to_owned) else {
        return response;
    };
    let known = {
        let origin = origin.clone();
        state
            .store
            .read(move |conn| clients::any_with_origin(conn, &origin))
            .await
    };
    match known {
        Err(error) => fault_json(&Fault::from(error)),
        Ok(false) => response,
        Ok(true) => {
            if let Ok(value) = HeaderValue::from_str(&origin) {
                response
                    .headers_mut()
                    .insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, value);
            }
            for (name, value) in [
                (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
                (
                    header::ACCESS_CONTROL_ALLOW_HEADERS,
                    "authorization, content-type",
                ),
                (header::ACCESS_CONTROL_MAX_AGE, "600"),
            ] {
                response
                    .headers_mut()
                    .insert(name, HeaderValue::from_static(value));
            }
            response
        }
    }
}

/// A preflight for a document that every page may read.
pub(in crate::web) async fn preflight_for_everyone() -> HttpResponse {
    let mut response = HttpResponse::NoContent()
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "GET"))
        // The star leaves out one header by its name (Fetch standard §3.2.4), and libraries do send it.
        .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, "*, authorization"))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, "600"))
        .finish();
    allow_everyone(&mut response);
    response
}

/// The `Origin` header if there is one; `null` and repeated ones are nobody's.
fn only_origin(request: &HttpRequest) -> Option<&str> {
    let mut values = request.headers().get_all(header::ORIGIN);
    let first = values.next()?.to_str().ok()?;
    (values.next().is_none() && first != "null").then_some(first)
}
