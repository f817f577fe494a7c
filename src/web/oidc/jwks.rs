//! The public signing keys. RFC 7517 §5; OpenID Connect Core §10.1.1.

use actix_web::{HttpRequest, HttpResponse, web};

use super::discovery::public_document;
use crate::web::state::AppState;

/// Far shorter than the time a key is published before it signs.
const CACHE: &str = "public, max-age=600";

/// Next, current and retired keys, without any private part.
pub(in crate::web) async fn show(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    let keys = state.keys.load();
    public_document(&request, keys.jwks(), keys.jwks_etag(), CACHE)
}
