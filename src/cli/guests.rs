//! The apps and the person that `selftest` and `doctor` put into the database for as long as they look.

use std::time::Duration;

use crate::audit::{Event, Kind, Trail};
use crate::protocol::client::ClientId;
use crate::protocol::time::Timestamp;
use crate::random;
use crate::store::{AnyConnection, Store, StoreError, audit_events, clients, users};

/// Who looks. Ids and names together tell its app from those of an operator.
#[derive(Clone, Copy)]
pub(super) enum Visitor {
    Selftest,
    Doctor,
}

/// Nobody can have a mailbox there (RFC 6761 §6.4).
const DOMAIN: &str = "@latchkey.invalid";
/// Neither looks for as long as this.
const SURELY_OVER: Duration = Duration::from_secs(15 * 60);

impl Visitor {
    /// An id that nobody else has.
    pub(super) fn new_id(self) -> String {
        format!("{}{}", self.prefix(), random::id()).to_ascii_lowercase()
    }

    /// What its app is called.
    pub(super) fn app_name(self) -> &'static str {
        match self {
            Self::Selftest => "latchkey selftest",
            Self::Doctor => "latchkey doctor",
        }
    }

    /// The person of the same id.
    pub(super) fn email(id: &str) -> String {
        format!("{id}{DOMAIN}")
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Selftest => "selftest-",
            Self::Doctor => "doctor-",
        }
    }
}

/// Removes an app of ours.
pub(super) fn remove_app(
    tx: &mut AnyConnection,
    trail: &Trail,
    id: &ClientId,
) -> Result<(), StoreError> {
    if clients::delete(tx, id)? {
        audit_events::record(tx, trail, &Event::of_client(Kind::ClientDeleted, id))?;
    }
    Ok(())
}

/// Removes a person of ours.
pub(super) fn remove_person(
    tx: &mut AnyConnection,
    trail: &Trail,
    id: &str,
) -> Result<(), StoreError> {
    if users::delete(tx, id)? {
        let event = Event::new(Kind::UserDeleted).target(id);
        audit_events::record(tx, trail, &event)?;
    }
    Ok(())
}

/// Removes what stayed behind when one was killed in the middle.
pub(super) fn remove_leftovers(store: &Store, now: Timestamp) -> Result<(), StoreError> {
    let (trail, made_by) = (Trail::of_command(now), now.minus(SURELY_OVER));
    store.write_blocking(move |tx| {
        for visitor in [Visitor::Selftest, Visitor::Doctor] {
            for app in clients::beginning_with(tx, visitor.prefix(), made_by)? {
                if app.client_name.as_deref() == Some(visitor.app_name()) {
                    remove_app(tx, &trail, &app.client_id)?;
                }
            }
            for id in users::ids_between(tx, visitor.prefix(), DOMAIN, made_by)? {
                remove_person(tx, &trail, &id)?;
            }
        }
        Ok(())
    })
}
