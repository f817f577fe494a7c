//! What exists in development mode only.

mod app;
mod connection;
mod pending;
mod recorder;
mod relying_party;

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, Resource, Scope, web};

use super::error;

/// Adds the built-in relying party.
pub(super) fn configure(scope: Scope) -> Scope {
    scope
        .service(at(app::START).route(web::get().to(app::start)))
        .service(at(app::SIGN_IN).route(web::get().to(app::sign_in)))
        .service(at(app::CALLBACK).route(web::get().to(app::callback)))
        .service(
            web::resource(connection::REFRESH)
                .route(web::post().to(connection::refresh))
                .default_service(web::to(|request| refuse(request, "POST"))),
        )
        .service(at(connection::SIGN_OUT).route(web::get().to(connection::sign_out)))
        .service(at(connection::SIGNED_OUT).route(web::get().to(connection::signed_out)))
}

fn at(path: &str) -> Resource {
    web::resource(path).default_service(web::to(|request| refuse(request, "GET")))
}

/// The table of routes holds what production has, so `Allow` is said here.
async fn refuse(request: HttpRequest, allow: &'static str) -> HttpResponse {
    let mut response = error::method_not_allowed(request).await;
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}
