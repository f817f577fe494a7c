//! What can go wrong with a database, in the two kinds that a caller treats differently.

use std::error::Error;
use std::sync::Arc;

use diesel::result::{ConnectionError, DatabaseErrorInformation, DatabaseErrorKind};

type DieselError = diesel::result::Error;

/// Cloning shares the cause: one failed commit may be the answer to many callers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be used now; the same request may succeed later: 503 with Retry-After.
    #[error("the database is not available")]
    Unavailable(#[source] Arc<dyn Error + Send + Sync>),
    /// Ours to repair: 500.
    #[error("the database refused or garbled an operation")]
    Fault(#[source] Arc<dyn Error + Send + Sync>),
}

impl StoreError {
    pub fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
        StoreError::Unavailable(Arc::from(cause.into()))
    }

    pub fn fault(cause: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
        StoreError::Fault(Arc::from(cause.into()))
    }

    /// Whether waiting may help.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, StoreError::Unavailable(_))
    }

    /// Whether another row has what may be there only once.
    pub fn is_duplicate(&self) -> bool {
        matches!(
            self.diesel(),
            Some(DieselError::DatabaseError(
                DatabaseErrorKind::UniqueViolation,
                _
            ))
        )
    }

    fn diesel(&self) -> Option<&DieselError> {
        let (StoreError::Unavailable(cause) | StoreError::Fault(cause)) = self;
        cause.downcast_ref()
    }
}

impl From<DieselError> for StoreError {
    fn from(error: DieselError) -> StoreError {
        if may_pass(&error) {
            StoreError::unavailable(error)
        } else {
            StoreError::fault(error)
        }
    }
}

impl From<ConnectionError> for StoreError {
    fn from(error: ConnectionError) -> StoreError {
        StoreError::unavailable(error)
    }
}

/// Whether another transaction was in the way and running this one again is the cure (SQLSTATE 40001, 40P01).
pub(super) fn is_conflict(error: &StoreError) -> bool {
    match error.diesel() {
        Some(DieselError::DatabaseError(DatabaseErrorKind::SerializationFailure, _)) => true,
        Some(DieselError::DatabaseError(_, information)) => is_deadlock(information.as_ref()),
        _ => false,
    }
}

/// Whether another process is writing to SQLite's file.
pub(super) fn is_busy(error: &DieselError) -> bool {
    matches!(error, DieselError::DatabaseError(_, information) if information.message() == "database is locked")
}

/// Whether the connection is of no more use.
pub(super) fn is_lost(error: &StoreError) -> bool {
    match error.diesel() {
        Some(DieselError::DatabaseError(kind, information)) => match kind {
            DatabaseErrorKind::ClosedConnection
            | DatabaseErrorKind::UnableToSendCommand
            // After a failover the old primary may live on as a replica.
            | DatabaseErrorKind::ReadOnlyTransaction => true,
            // SQLite opened the file while it could only be read, and would never look again whether it can be written.
            _ if information.message() == "attempt to write a readonly database" => true,
            _ => names_a_lost_connection(information.message()),
        },
        Some(DieselError::BrokenTransactionManager | DieselError::RollbackErrorOnCommit { .. }) => {
            true
        }
        _ => false,
    }
}

fn may_pass(error: &DieselError) -> bool {
    match error {
        DieselError::DatabaseError(kind, information) => match kind {
            DatabaseErrorKind::ClosedConnection
            | DatabaseErrorKind::UnableToSendCommand
            | DatabaseErrorKind::SerializationFailure
            | DatabaseErrorKind::ReadOnlyTransaction => true,
            DatabaseErrorKind::UniqueViolation
            | DatabaseErrorKind::ForeignKeyViolation
            | DatabaseErrorKind::NotNullViolation
            | DatabaseErrorKind::CheckViolation => false,
            _ => {
                let message = information.message();
                is_deadlock(information.as_ref())
                    || names_a_shortage(message)
                    || names_a_lost_connection(message)
            }
        },
        DieselError::RollbackErrorOnCommit { commit_error, .. } => may_pass(commit_error),
        DieselError::BrokenTransactionManager => true,
        _ => false,
    }
}

// diesel passes on neither SQLSTATE nor SQLite's code. PostgreSQL's message is in the server's language, but the names of
// lock modes in its detail are not translated.
fn is_deadlock(information: &(dyn DatabaseErrorInformation + Send + Sync)) -> bool {
    information.message().contains("deadlock detected")
        || information
            .details()
            .is_some_and(|text| text.contains("ShareLock") || text.contains("ExclusiveLock"))
}

// Of a connection that broke in the middle of a statement diesel only passes on what libpq says. Ours is built without
// translations.
fn names_a_lost_connection(message: &str) -> bool {
    const LOST: [&str; 6] = [
        "server closed the connection",
        "no connection to the server",
        "could not receive data from server",
        "could not send data to server",
        "connection has been closed unexpectedly",
        "terminating connection",
    ];
    LOST.iter().any(|text| message.contains(text))
}

fn names_a_shortage(message: &str) -> bool {
    const PASSING: [&str; 10] = [
        // SQLite: BUSY, LOCKED, FULL, IOERR, CANTOPEN, READONLY, NOMEM. Its texts are never translated.
        "database is locked",
        "database table is locked",
        "database or disk is full",
        "disk I/O error",
        "unable to open database file",
        "attempt to write a readonly database",
        "out of memory",
        // PostgreSQL: 57014, 53100, 57P03.
        "statement timeout",
        "No space left on device",
        "the database system is",
    ];
    PASSING.iter().any(|text| message.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database_error(kind: DatabaseErrorKind, message: &str) -> StoreError {
        StoreError::from(DieselError::DatabaseError(
            kind,
            Box::new(message.to_owned()),
        ))
    }

    #[test]
    fn what_waiting_may_cure_is_unavailable() {
        for message in ["database is locked", "database or disk is full"] {
            assert!(database_error(DatabaseErrorKind::Unknown, message).is_unavailable());
        }
        assert!(database_error(DatabaseErrorKind::ClosedConnection, "gone").is_unavailable());
    }

    #[test]
    fn a_connection_that_broke_in_a_statement_is_lost_and_may_be_had_again() {
        for message in [
            "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally",
            "terminating connection due to administrator command",
            "could not receive data from server: Connection timed out",
        ] {
            let error = database_error(DatabaseErrorKind::Unknown, message);
            assert!(error.is_unavailable() && is_lost(&error), "{message}");
        }
    }

    #[test]
    fn a_broken_rule_is_a_fault() {
        let error = database_error(DatabaseErrorKind::UniqueViolation, "taken");
        assert!(!error.is_unavailable() && error.is_duplicate());
        assert!(!StoreError::from(DieselError::NotFound).is_unavailable());
    }

    #[test]
    fn a_deadlock_is_run_again() {
        assert!(is_conflict(&database_error(
            DatabaseErrorKind::Unknown,
            "deadlock detected"
        )));
    }
}
