//! The discovery document, under both specifications' names. OpenID Connect Discovery §4; RFC 8414 §3.

use std::sync::Arc;

use actix_web::http::header;
use actix_web::web;
use actix_web::{HttpRequest, HttpResponse};

use super::cors;
use crate::compressed::Compressed;
use crate::protocol::discovery::{Endpoints, document};
use crate::protocol::known_scopes::KnownScopes;
use crate::protocol::seal::TokenHash;
use crate::web::encoding;
use crate::web::error;
use crate::web::routes;
use crate::web::state::AppState;
use crate::web::texts::Language;

/// Half an hour: short enough for a change of the server to be seen the same day, long enough to be free.
const CACHE: &str = "public, max-age=1800";

/// What this server offers.
pub(in crate::web) async fn show(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    let scopes = match state.clients.scopes().await {
        Ok(scopes) => scopes,
        Err(fault) => return error::fault_json(&fault.into()),
    };
    let mut kept = state.discovery.load_full();
    if !kept
        .as_ref()
        .is_some_and(|kept| Arc::ptr_eq(&kept.scopes, &scopes))
    {
        kept = Some(Arc::new(Discovery::new(&state, scopes)));
        state.discovery.store(kept.clone());
    }
    let Some(kept) = kept else {
        unreachable!("it was made just now")
    };
    public_document(&request, &kept.body, &kept.etag, CACHE)
}

/// The document, which stays the same until an operator defines other scopes.
pub(crate) struct Discovery {
    scopes: Arc<KnownScopes>,
    body: Compressed,
    etag: String,
}

impl Discovery {
    fn new(state: &AppState, scopes: Arc<KnownScopes>) -> Self {
        let endpoints = Endpoints {
            authorization: state.url(routes::AUTHORIZE),
            token: state.url(routes::TOKEN),
            userinfo: state.url(routes::USERINFO),
            introspection: state.url(routes::INTROSPECT),
            revocation: state.url(routes::REVOKE),
            jwks: state.url(routes::JWKS),
            end_session: state.url(routes::END_SESSION),
        };
        let languages: Vec<_> = Language::ALL
            .iter()
            .map(|language| language.code())
            .collect();
        let algorithms = &state.config.keys.algorithms;
        let body = document(state.issuer(), &endpoints, algorithms, &scopes, &languages);
        let body = body.to_string();
        Self {
            scopes,
            etag: TokenHash::of(&body).short(),
            body: Compressed::new(body),
        }
    }
}

/// A JSON document that anyone may read and keep, or the word that the kept one is still good.
pub(in crate::web) fn public_document(
    request: &HttpRequest,
    body: &Compressed,
    etag: &str,
    cache: &'static str,
) -> HttpResponse {
    let tag = format!("\"{etag}\"");
    let known = request
        .headers()
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|tags| {
        tags.split(',')
            .any(|known| known.trim().trim_start_matches("W/") == tag)
    });
    let mut response = if is_known {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    let response = response
        .insert_header((header::CACHE_CONTROL, cache))
        // Weak, because the same document also leaves compressed.
        .insert_header((header::ETAG, format!("W/{tag}")))
        .content_type("application/json")
        .finish();
    let mut response = match is_known {
        true => response,
        false => encoding::answer(request, response, body),
    };
    cors::allow_everyone(&mut response);
    response
}
