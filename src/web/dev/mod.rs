//! What exists in development mode only.

mod app;

use actix_web::{Scope, web};

/// Adds the built-in relying party.
pub(super) fn configure(scope: Scope) -> Scope {
    scope
        .service(web::resource("/dev/app").route(web::get().to(app::start)))
        .service(web::resource("/dev/app/sign-in").route(web::get().to(app::sign_in)))
        .service(web::resource("/dev/app/callback").route(web::get().to(app::callback)))
}
