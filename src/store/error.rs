//! What can go wrong with a database, in the two kinds that a caller treats differently.

use std::error::Error;
use std::sync::Arc;

use diesel::result::{ConnectionError, DatabaseErrorInformation, DatabaseErrorKind};

use crate::causes::in_one_line;

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

    /// Whether it is enough to wait: PostgreSQL can't be reached or is not ready, rather than there and refusing us.
    pub fn is_of_a_database_that_is_away(&self) -> bool {
        match self {
            StoreError::Fault(_) => false,
            StoreError::Unavailable(cause) => match cause.downcast_ref() {
                Some(ConnectionError::BadConnection(message)) => names_one_that_is_away(message),
                Some(ConnectionError::CouldntSetupConfiguration(error)) => may_pass(error),
                Some(_) => false,
                None => true,
            },
        }
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

/// A transaction was rolled back because its caller has gone. Committed, it would be something that nobody knows of, or worse: a
/// refresh token that was spent twice, once by a request that hung and once by the honest retry, looks like a stolen one.
pub(super) fn abandoned() -> StoreError {
    StoreError::unavailable("whoever asked for it has gone")
}

/// Whether another transaction was in the way and running this one again is the cure (SQLSTATE 40001, 40P01).
pub(super) fn is_conflict(error: &StoreError) -> bool {
    match error.diesel() {
        Some(DieselError::DatabaseError(DatabaseErrorKind::SerializationFailure, _)) => true,
        Some(DieselError::DatabaseError(_, information)) => is_deadlock(information.as_ref()),
        _ => false,
    }
}

/// A failure of PostgreSQL's in a language that is not known here. diesel passes on no SQLSTATE, but what a statement of ours
/// did wrong has a place in it, or in a table; what has none is the server's own trouble, and may pass.
pub(super) fn without_words(error: StoreError) -> StoreError {
    let StoreError::Fault(cause) = &error else {
        return error;
    };
    match error.diesel() {
        Some(DieselError::DatabaseError(DatabaseErrorKind::Unknown, information))
            if information.statement_position().is_none()
                && information.table_name().is_none()
                && information.column_name().is_none()
                && information.constraint_name().is_none() =>
        {
            StoreError::Unavailable(Arc::clone(cause))
        }
        _ => error,
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

// Of a connection that could not be made, too, diesel only passes on what libpq says, which for what the server answered is
// in the server's language: of the refusals of SQLSTATE 28xxx and 3D000 these are known. Who waits in vain finds the cause in
// the log.
fn names_one_that_is_away(message: &str) -> bool {
    // What else libpq says is about the URL.
    const NOT_REACHED: [&str; 2] = ["connection to server ", "could not translate host name "];
    const REFUSED: [&str; 12] = [
        " authentication failed for user ",
        "no password supplied",
        "no pg_hba.conf entry for ",
        "pg_hba.conf rejects connection ",
        "FATAL: role \"",
        "FATAL: database \"",
        // PgBouncer's.
        "no such user",
        "no such database",
        // Of TLS.
        "does not support SSL",
        "certificate verify failed",
        "root certificate file ",
        "server certificate for ",
    ];
    // In a restore or a maintenance, somebody shuts it for a while.
    const SHUT: &str = "is not currently accepting connections";
    let message = in_one_line(message);
    NOT_REACHED.iter().any(|text| message.contains(text))
        && (message.contains(SHUT) || !REFUSED.iter().any(|text| message.contains(text)))
}

fn names_a_shortage(message: &str) -> bool {
    const PASSING: [&str; 11] = [
        // SQLite: BUSY, LOCKED, FULL, IOERR, CANTOPEN, READONLY, NOMEM. Its texts are never translated.
        "database is locked",
        "database table is locked",
        "database or disk is full",
        "disk I/O error",
        "unable to open database file",
        "attempt to write a readonly database",
        "out of memory",
        // PostgreSQL: 57014 and 55P03 (a time limit, or an administrator), 53100, 53200, 57P03.
        "canceling statement due to",
        "No space left on device",
        "out of shared memory",
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
    fn a_server_waits_for_a_database_that_is_away_and_not_for_one_that_refuses_it() {
        let away = |message: &str| {
            StoreError::from(ConnectionError::BadConnection(message.to_owned()))
                .is_of_a_database_that_is_away()
        };
        let at = "connection to server at \"db\" (192.0.2.1), port 5432 failed:";
        for message in [
            "Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?",
            "FATAL:  the database system is starting up",
            "FATAL:  sorry, too many clients already",
            "FATAL: database \"latchkey\" is not currently accepting connections",
            "timeout expired",
        ] {
            assert!(away(&format!("{at} {message}")), "{message}");
        }
        assert!(away(
            "could not translate host name \"db\" to address: Name or service not known"
        ));
        for message in [
            "FATAL:  password authentication failed for user \"latchkey\"",
            "FATAL: role \"latchkey\" does not exist",
            "FATAL: database \"latchkey\" does not exist",
            "FATAL:  no pg_hba.conf entry for host \"192.0.2.7\", user \"latchkey\", database \"latchkey\", no encryption",
            "fe_sendauth: no password supplied",
            "server does not support SSL, but SSL was required",
        ] {
            assert!(!away(&format!("{at} {message}")), "{message}");
        }
        assert!(!away(
            "invalid integer value \"five\" for connection option \"port\""
        ));
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
