//! Is the process alive, is it ready for traffic, and what did it do?

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::state::AppState;
use crate::causes::with_causes;
use crate::store::properties;

/// Less than monitoring and orchestrators wait for an answer, and more than a database in good health ever takes.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// So long the last look at the database is as good as a new one, so that whoever asks often costs the database nothing.
const GOOD_FOR: Duration = Duration::from_millis(250);

/// What the last look at the database found, so that the log tells of changes alone: whoever looked, and however often.
pub(crate) struct Readiness {
    /// Held while somebody looks: who comes meanwhile is told what was found.
    known: Mutex<Known>,
}

struct Known {
    /// When that look was over, if there was one.
    since: Option<Instant>,
    ready: bool,
}

impl Readiness {
    /// A server starts with a database that answers.
    pub(crate) fn new() -> Self {
        let known = Known {
            since: None,
            ready: true,
        };
        Self {
            known: Mutex::new(known),
        }
    }
}

/// Alive: the process answers. Says nothing about the database, or a database that is away would get servers restarted.
pub(super) async fn live() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain").body("live\n")
}

/// What monitoring sees; whether the server is ready is looked up for the occasion.
pub(super) async fn metrics(state: web::Data<AppState>) -> HttpResponse {
    look(&state).await;
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

/// Ready: the database answers and takes writes, and the process is not about to stop.
pub(super) async fn ready(state: web::Data<AppState>) -> HttpResponse {
    if look(&state).await && !state.stopping.load(Ordering::SeqCst) {
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

/// Looks whether the database takes reads and writes, tells monitoring, and the log if that has changed.
pub(crate) async fn look(state: &AppState) -> bool {
    let mut known = state.readiness.known.lock().await;
    if known.since.is_some_and(|since| since.elapsed() < GOOD_FOR) {
        return known.ready;
    }
    let found = timeout(LOOK_WITHIN, check(state))
        .await
        .unwrap_or_else(|_elapsed| Err(format!("no answer within {} s", LOOK_WITHIN.as_secs())));
    let ready = found.is_ok();
    if known.ready != ready {
        state.metrics.ready(ready);
        match &found {
            Ok(()) => tracing::info!("the database takes reads and writes again"),
            Err(cause) => tracing::warn!(
                error = cause,
                "not ready: the database does not take reads and writes"
            ),
        }
    }
    *known = Known {
        since: Some(Instant::now()),
        ready,
    };
    ready
}

/// A full disk or a held lock don't count, since they may pass in a moment; one that is read-only waits for somebody.
async fn check(state: &AppState) -> Result<(), String> {
    let read = state.store.read(|conn| properties::find(conn, "mode"));
    read.await.map_err(|error| with_causes(&error))?;
    match state.store.takes_writes().await {
        Ok(true) => Ok(()),
        Ok(false) => Err("it can only be read".to_owned()),
        Err(error) => Err(with_causes(&error)),
    }
}
