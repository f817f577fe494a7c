//! One connection type for both databases, and how each is opened.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::{
    AnsiTransactionManager, CacheSize, Connection, SimpleConnection, TransactionManager,
};
use diesel::dsl::sql;
use diesel::result::Error::DatabaseError;
use diesel::result::{ConnectionError, DatabaseErrorKind, QueryResult};
use diesel::sql_types::{Bool, Text};
use diesel::{PgConnection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query};
use rustix::fs::{Access, access};

use super::StoreError;
use super::error::{self, is_busy};
use crate::causes::in_one_line;
use crate::protocol::parameters;

/// A connection to either database; queries are written once against it.
#[derive(diesel::MultiConnection)]
pub enum AnyConnection {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

/// Runs one expression on whichever backend is behind the connection, for queries that the enum itself cannot carry:
/// `on_conflict`, inserting a slice, `as_returning`, `for_update`.
macro_rules! on_each {
    ($conn:expr, $c:ident => $body:expr) => {
        match $conn {
            $crate::store::AnyConnection::Postgres($c) => $body,
            $crate::store::AnyConnection::Sqlite($c) => $body,
        }
    };
}
pub(crate) use on_each;

/// Where a database is and how to speak to it. Not `Debug`: the URL may hold a password.
pub(super) enum Target {
    Sqlite {
        file: PathBuf,
        identity: Identity,
    },
    Postgres {
        url: String,
        pooling: Pooling,
        /// Whether the server's words are others than the English ones that `error` knows.
        is_translated: AtomicBool,
    },
}

/// Which file a name stood for when the store was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

/// Who may sit between us and PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pooling {
    /// The connection is one session: prepared statements and settings stay.
    Session,
    /// Each transaction may meet another session (`PgBouncer` in transaction mode), so nothing is kept between them.
    Transaction,
}

/// What a SQLite connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    Write,
    /// Without foreign keys: rebuilding a table drops the old one, and its rows' children must stay.
    Migrate,
}

/// PostgreSQL ends a statement after this long, so that a stalled query cannot hold a thread for ever.
const STATEMENT_TIMEOUT_MS: u32 = 5_000;
/// Every session of ours shares this lock of PostgreSQL's, whatever its name; `db copy` has it alone. "latchuse" in ASCII.
const IN_USE: &str = "x'6c61746368757365'::bigint";
/// How long SQLite waits for another process, such as a command beside the server, to finish its write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// SQLite asks less and less often for the lock, in the end ten times a second, and would hardly ever meet a busy server
/// between two transactions. So whoever writes asks anew after this long.
const TURN_MS: u32 = 4;
/// The log file shrinks to this size once a long reader that made it grow has gone.
const WAL_LIMIT_BYTES: u32 = 64 * 1024 * 1024;

impl Target {
    pub(super) fn sqlite(file: PathBuf) -> io::Result<Target> {
        let identity = Identity::of(&file)?;
        Ok(Target::Sqlite { file, identity })
    }

    /// Takes `prepared_statements=off`, which is ours, out of the URL and adds the time limits that it does not name.
    pub(super) fn postgres(url: &str) -> Target {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut pooling = Pooling::Session;
        let mut parameters: Vec<String> = Vec::new();
        for parameter in query.split('&').filter(|p| !p.is_empty()) {
            match parameter {
                "prepared_statements=off" => pooling = Pooling::Transaction,
                "prepared_statements=on" => pooling = Pooling::Session,
                other => parameters.push(other.to_owned()),
            }
        }
        for (name, value) in [
            ("application_name", "latchkey"),
            ("connect_timeout", "3"),
            // A peer that vanished without a word is noticed within seconds, not after TCP's quarter of an hour.
            ("tcp_user_timeout", "5000"),
            ("keepalives", "1"),
            ("keepalives_idle", "5"),
            ("keepalives_interval", "2"),
            ("keepalives_count", "3"),
        ] {
            let given = parameters
                .iter()
                .any(|p| p.split_once('=').is_some_and(|(key, _)| key == name));
            if !given {
                parameters.push(format!("{name}={value}"));
            }
        }
        Target::Postgres {
            url: format!("{base}?{}", parameters.join("&")),
            pooling,
            is_translated: AtomicBool::new(false),
        }
    }

    pub(super) fn connect(&self, purpose: Use) -> Result<AnyConnection, ConnectionError> {
        match self {
            Target::Sqlite { file, .. } => connect_sqlite(file, purpose),
            Target::Postgres {
                url,
                pooling,
                is_translated,
            } => {
                let (connection, language) = connect_postgres(url, *pooling)?;
                is_translated.store(!is_english(&language), Ordering::Relaxed);
                Ok(connection)
            }
        }
    }

    /// An error as it is meant, in whatever language it is told.
    pub(super) fn understood(&self, error: StoreError) -> StoreError {
        match self {
            Target::Postgres { is_translated, .. } if is_translated.load(Ordering::Relaxed) => {
                error::without_words(error)
            }
            _ => error,
        }
    }

    /// An open connection would go on in a file that has no name any more, and lose everything with the process.
    pub(super) fn check_file(&self) -> Result<(), StoreError> {
        let Target::Sqlite { file, identity } = self else {
            return Ok(());
        };
        match Identity::of(file) {
            Ok(found) if found == *identity => Ok(()),
            Ok(_) => Err(StoreError::unavailable(
                "the database file was replaced by another; a restart will use that one",
            )),
            Err(error) => Err(StoreError::unavailable(error)),
        }
    }

    /// Whether a write could succeed, as far as that shows without one.
    pub(super) fn takes_writes(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        match (self, connection) {
            // False on a disk that became read-only, for root too.
            (Target::Sqlite { file, .. }, _) => Ok(access(file, Access::WRITE_OK).is_ok()),
            // A standby, or a primary that an administrator has set to read-only.
            (Target::Postgres { .. }, connection) => {
                let refuses = "pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean";
                Ok(!diesel::select(sql::<Bool>(refuses)).get_result::<bool>(connection)?)
            }
        }
    }

    pub(super) fn pooling(&self) -> Pooling {
        match self {
            Target::Sqlite { .. } => Pooling::Session,
            Target::Postgres { pooling, .. } => *pooling,
        }
    }
}

impl Identity {
    fn of(file: &Path) -> io::Result<Identity> {
        let metadata = fs::metadata(file)?;
        Ok(Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

fn connect_sqlite(file: &Path, purpose: Use) -> Result<AnyConnection, ConnectionError> {
    let path = file.to_str().ok_or_else(|| {
        ConnectionError::BadConnection("the path of the database is not UTF-8".to_owned())
    })?;
    // The three characters that mean something in SQLite's URIs.
    let path = path
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    // mode=rw: a file that someone deleted is an error. SQLite would make an empty one, readable by everybody.
    let connection = SqliteConnection::establish(&format!("file:{path}?mode=rw"))?;
    let mut connection = AnyConnection::Sqlite(connection);
    let rest = match purpose {
        Use::Read => "PRAGMA foreign_keys=ON; PRAGMA query_only=ON;".to_owned(),
        Use::Write => format!(
            "PRAGMA foreign_keys=ON; PRAGMA synchronous=FULL; PRAGMA journal_size_limit={WAL_LIMIT_BYTES}; \
             PRAGMA busy_timeout={TURN_MS};"
        ),
        Use::Migrate => format!(
            "PRAGMA foreign_keys=OFF; PRAGMA synchronous=FULL; PRAGMA busy_timeout={TURN_MS};"
        ),
    };
    // busy_timeout comes first: every later statement may already meet another process's lock.
    connection
        .batch_execute(&format!(
            "PRAGMA busy_timeout={}; {rest}",
            BUSY_TIMEOUT.as_millis()
        ))
        .map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(connection)
}

/// Answers the language of the server's messages, too.
fn connect_postgres(
    url: &str,
    pooling: Pooling,
) -> Result<(AnyConnection, String), ConnectionError> {
    #[derive(QueryableByName)]
    struct Session {
        #[diesel(sql_type = Text)]
        language: String,
        #[diesel(sql_type = Bool)]
        may_use: bool,
    }
    let mut connection = PgConnection::establish(url).map_err(|error| readable(error, url))?;
    // In one round trip.
    let settings = match pooling {
        Pooling::Session => format!(
            "pg_try_advisory_lock_shared({IN_USE}) AS may_use, \
             set_config('statement_timeout', '{STATEMENT_TIMEOUT_MS}', FALSE), \
             set_config('idle_in_transaction_session_timeout', '{}', FALSE)",
            2 * STATEMENT_TIMEOUT_MS
        ),
        Pooling::Transaction => {
            connection.set_prepared_statement_cache_size(CacheSize::Disabled);
            "TRUE AS may_use".to_owned()
        }
    };
    let session: Session = sql_query(format!(
        "SELECT current_setting('lc_messages') AS language, {settings}"
    ))
    .get_result(&mut connection)
    .map_err(ConnectionError::CouldntSetupConfiguration)?;
    if !session.may_use {
        // Until it is done, as for a database that is away.
        let being_copied = Box::new("the database is being copied".to_owned());
        return Err(ConnectionError::CouldntSetupConfiguration(DatabaseError(
            DatabaseErrorKind::ClosedConnection,
            being_copied,
        )));
    }
    Ok((AnyConnection::Postgres(connection), session.language))
}

/// `lc_messages` is the name of a locale: `C`, `C.UTF-8`, `POSIX`, `en_GB.UTF-8`.
fn is_english(locale: &str) -> bool {
    ["C", "POSIX", "en", "English"]
        .iter()
        .any(|language| locale.starts_with(language))
}

/// Whether nobody else uses this PostgreSQL; from then on nobody can, until this connection ends. Behind a transaction
/// pooler a session belongs to nobody, and the answer is always yes.
pub(super) fn take_alone(connection: &mut PgConnection, pooling: Pooling) -> QueryResult<bool> {
    match pooling {
        Pooling::Transaction => Ok(true),
        Pooling::Session => {
            let alone = format!("pg_try_advisory_lock({IN_USE})");
            diesel::select(sql::<Bool>(&alone)).get_result(connection)
        }
    }
}

/// libpq's text on one line, and without what the URL holds of a secret: libpq quotes what it does not understand.
fn readable(error: ConnectionError, url: &str) -> ConnectionError {
    let ConnectionError::BadConnection(text) = error else {
        return error;
    };
    let hidden = |text: String, secret: String| text.replace(&secret, "(hidden)");
    ConnectionError::BadConnection(secrets_of(url).fold(in_one_line(&text), hidden))
}

/// Passwords of a URL, as they are written and as they are meant.
fn secrets_of(url: &str) -> impl Iterator<Item = String> {
    // Shorter ones are part of every text, and no secret.
    const SHORTEST: usize = 3;
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let credentials = base.rsplit_once('@').map_or("", |(before, _)| before);
    let credentials = credentials.split_once("://").map_or("", |(_, after)| after);
    let of_user = credentials.split_once(':').map(|(_, password)| password);
    let of_query = query.split('&').filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        matches!(name, "password" | "sslpassword").then_some(value)
    });
    let written = of_user.into_iter().chain(of_query);
    let meant = |secret: &str| parameters::decode(secret.replace('+', "%2B").as_bytes());
    let both =
        written.flat_map(move |secret| [secret.to_owned(), meant(secret).unwrap_or_default()]);
    both.filter(|secret| secret.len() >= SHORTEST)
}

/// Begins a transaction that writes.
pub(super) fn begin_write(connection: &mut AnyConnection, pooling: Pooling) -> QueryResult<()> {
    match connection {
        AnyConnection::Sqlite(c) => begin_immediate(c),
        AnyConnection::Postgres(c) => AnsiTransactionManager::begin_transaction_sql(
            c,
            // One round trip. The level is named because an administrator may have changed the default.
            &with_timeout("BEGIN ISOLATION LEVEL READ COMMITTED", pooling),
        ),
    }
}

/// A deferred transaction that reads and then writes would fail at once when another wrote in between.
fn begin_immediate(connection: &mut SqliteConnection) -> QueryResult<()> {
    let until = Instant::now() + BUSY_TIMEOUT;
    loop {
        let begun = AnsiTransactionManager::begin_transaction_sql(connection, "BEGIN IMMEDIATE");
        match begun {
            Err(error) if is_busy(&error) && Instant::now() < until => {}
            outcome => return outcome,
        }
    }
}

/// Begins a transaction that reads, which PostgreSQL behind a transaction pooler needs: outside of one, a statement may
/// be prepared in one session and executed in another.
pub(super) fn begin_read(connection: &mut AnyConnection, pooling: Pooling) -> QueryResult<()> {
    match connection {
        AnyConnection::Sqlite(c) => AnsiTransactionManager::begin_transaction_sql(c, "BEGIN"),
        AnyConnection::Postgres(c) => AnsiTransactionManager::begin_transaction_sql(
            c,
            &with_timeout("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", pooling),
        ),
    }
}

fn with_timeout(begin: &str, pooling: Pooling) -> String {
    match pooling {
        Pooling::Session => begin.to_owned(),
        Pooling::Transaction => {
            format!("{begin}; SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
        }
    }
}

/// Commits the outermost transaction.
pub(super) fn commit(connection: &mut AnyConnection) -> QueryResult<()> {
    match connection {
        AnyConnection::Sqlite(c) => AnsiTransactionManager::commit_transaction(c),
        // PostgreSQL answers COMMIT of a transaction in which a statement failed with success, having rolled it back.
        // The SELECT makes that an error. libpq reports the end of the transaction, and diesel takes note.
        AnyConnection::Postgres(c) => c.batch_execute("SELECT 1; COMMIT"),
    }
}

/// Begins a savepoint inside a transaction.
pub(super) fn begin_savepoint(connection: &mut AnyConnection) -> QueryResult<()> {
    <AnyConnection as Connection>::TransactionManager::begin_transaction(connection)
}

/// Keeps what was done since the savepoint.
pub(super) fn release_savepoint(connection: &mut AnyConnection) -> QueryResult<()> {
    <AnyConnection as Connection>::TransactionManager::commit_transaction(connection)
}

/// Undoes the innermost savepoint or, when there is none, the transaction.
pub(super) fn roll_back(connection: &mut AnyConnection) -> QueryResult<()> {
    <AnyConnection as Connection>::TransactionManager::rollback_transaction(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> (String, Pooling) {
        match Target::postgres(url) {
            Target::Postgres { url, pooling, .. } => (url, pooling),
            Target::Sqlite { .. } => unreachable!("built from a PostgreSQL URL"),
        }
    }

    #[test]
    fn a_password_is_in_no_error_and_an_error_is_one_line() {
        let url = "postgres://u:hun%40ter2@h/d?sslpassword=swordfish";
        let text =
            "connection to \"h\" failed: no \"hun@ter2\",\n\tno \"hun%40ter2\", no \"swordfish\"\n";
        let error = readable(ConnectionError::BadConnection(text.to_owned()), url);
        assert_eq!(
            error.to_string(),
            "connection to \"h\" failed: no \"(hidden)\", no \"(hidden)\", no \"(hidden)\""
        );
    }

    #[test]
    fn time_limits_are_added_to_a_url_that_names_none() {
        let (url, pooling) = parts("postgres://db.example.test/latchkey");
        assert!(url.starts_with("postgres://db.example.test/latchkey?application_name=latchkey&"));
        assert!(url.contains("connect_timeout=3"));
        assert_eq!(pooling, Pooling::Session);
    }

    #[test]
    fn english_is_what_locales_of_it_are_called() {
        for locale in [
            "C",
            "C.UTF-8",
            "POSIX",
            "en_US.UTF-8",
            "English_United States.1252",
        ] {
            assert!(is_english(locale), "{locale}");
        }
        for locale in ["de_DE.UTF-8", "fr_FR", "ja_JP.UTF-8", ""] {
            assert!(!is_english(locale), "{locale}");
        }
    }

    #[test]
    fn a_limit_in_the_url_is_kept() {
        let (url, _) =
            parts("postgres://db.example.test/latchkey?connect_timeout=9&sslmode=require");
        assert!(url.contains("?connect_timeout=9&sslmode=require&"));
        assert!(!url.contains("connect_timeout=3"));
    }

    #[test]
    fn prepared_statements_off_means_a_transaction_pooler_and_stays_out_of_the_url() {
        let (url, pooling) = parts("postgres://db.example.test/latchkey?prepared_statements=off");
        assert!(!url.contains("prepared_statements"));
        assert_eq!(pooling, Pooling::Transaction);
    }
}
