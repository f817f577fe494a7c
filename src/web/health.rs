//! Is the process alive, is it ready for traffic, and what did it do?

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix_web::{HttpResponse, web};
use tokio::time::{Instant, timeout};

use super::state::AppState;
use crate::causes::with_causes;
use crate::store::properties;

/// Less than monitoring and orchestrators wait for an answer, and more than a database in good health ever takes.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// What the last look at the database found, so that the log tells of changes alone: whoever looked, and however often.
pub(crate) struct Readiness {
    known: Mutex<Known>,
}

struct Known {
    /// When that look began: one that waited for long must not overrule a later one.
    begun: Instant,
    ready: bool,
}

impl Readiness {
    /// A server starts with a database that answers.
    pub(crate) fn new() -> Self {
        let known = Known {
            begun: Instant::now(),
            ready: true,
        };
        Self {
            known: Mutex::new(known),
        }
    }

    /// Whether this is a change.
    fn note(&self, begun: Instant, ready: bool) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if begun < known.begun {
            return false;
        }
        let is_change = known.ready != ready;
        *known = Known { begun, ready };
        is_change
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
    let begun = Instant::now();
    let found = timeout(LOOK_WITHIN, check(state))
        .await
        .unwrap_or_else(|_elapsed| Err(format!("no answer within {} s", LOOK_WITHIN.as_secs())));
    let ready = found.is_ok();
    if state.readiness.note(begun, ready) {
        state.metrics.ready(ready);
        match &found {
            Ok(()) => tracing::info!("the database takes reads and writes again"),
            Err(cause) => tracing::warn!(
                error = cause,
                "not ready: the database does not take reads and writes"
            ),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_waited_for_long_does_not_overrule_a_later_one() {
        let readiness = Readiness::new();
        let at = |seconds| Instant::now() + Duration::from_secs(seconds);
        let (early, late, later) = (at(10), at(20), at(30));
        assert!(readiness.note(late, false), "it was ready before");
        assert!(!readiness.note(early, true), "long overtaken");
        assert!(!readiness.note(later, false), "nothing new");
        assert!(readiness.note(later, true));
    }
}
