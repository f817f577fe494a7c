//! Is the process alive, is it ready for traffic, and what did it do?

use std::sync::atomic::Ordering;

use actix_web::{HttpResponse, web};

use super::state::AppState;
use crate::store::properties;

/// Alive: the process answers. Says nothing about the database, or a database that is away would get servers restarted.
pub(super) async fn live() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain").body("live\n")
}

/// What monitoring sees.
pub(super) async fn metrics(state: web::Data<AppState>) -> HttpResponse {
    match state.metrics.to_text() {
        Ok(text) => HttpResponse::Ok()
            .content_type("text/plain; version=0.0.4; charset=utf-8")
            .body(text),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be printed");
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// Ready: the database answers and takes writes, and the process is not about to stop. A full disk or a held lock don't
/// count, since they may pass in a moment; one that is read-only waits for somebody.
pub(super) async fn ready(state: web::Data<AppState>) -> HttpResponse {
    let database_answers = state
        .store
        .read(|conn| properties::find(conn, "mode"))
        .await
        .is_ok();
    let takes_writes = database_answers && matches!(state.store.takes_writes().await, Ok(true));
    if takes_writes && !state.stopping.load(Ordering::SeqCst) {
        HttpResponse::Ok()
            .content_type("text/plain")
            .body("ready\n")
    } else {
        HttpResponse::ServiceUnavailable()
            .insert_header(("retry-after", "5"))
            .content_type("text/plain")
            .body("not ready\n")
    }
}
