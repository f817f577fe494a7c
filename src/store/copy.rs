//! All rows of one database in another, which may be of the other kind; each is compared after it was written.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::BigInt;
use sha2::{Digest as _, Sha256};

use super::connection::{self, Pooling, Use};
use super::{AnyConnection, Store, StoreError};
use crate::audit::{Event, Kind, Trail};

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error(
        "a server uses the database {0}; stop every one first, or what it writes meanwhile would be lost"
    )]
    Served(&'static str),
    #[error("the database to copy to is not empty: it has rows in {0}; nothing was copied")]
    NotEmpty(&'static str),
    #[error("{table}: {rows} rows are not the same in both; nothing was copied")]
    Different { table: &'static str, rows: usize },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<diesel::result::Error> for CopyError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Store(error.into())
    }
}

/// By this name PostgreSQL shows whose a connection is.
pub const APPLICATION_NAME: &str = "latchkey-copy";

const PAGE: usize = 1_000;
const SESSION_ENDS_WITHIN: Duration = Duration::from_secs(2);

/// What tells two rows apart.
type Fingerprint = [u8; 32];

struct Table {
    name: &'static str,
    /// Writes a page of the first database to the second.
    copy: fn(&mut AnyConnection, &mut AnyConnection, usize) -> QueryResult<Vec<Fingerprint>>,
    read: fn(&mut AnyConnection, usize) -> QueryResult<Vec<Fingerprint>>,
}

macro_rules! tables {
    ($( $table:ident by $($key:ident),+ { $($column:ident: $type:ty,)+ } )+) => {
        $(
            mod $table {
                use diesel::prelude::*;

                use super::{Fingerprint, PAGE, fingerprint};
                use crate::store::schema::$table as t;
                use crate::store::{AnyConnection, on_each};

                #[derive(Debug, Queryable, Insertable)]
                #[diesel(table_name = t)]
                struct Row {
                    $($column: $type,)+
                }

                pub(super) fn copy(
                    from: &mut AnyConnection,
                    to: &mut AnyConnection,
                    page: usize,
                ) -> QueryResult<Vec<Fingerprint>> {
                    let rows = rows(from, page)?;
                    on_each!(to, c => diesel::insert_into(t::table).values(&rows).execute(c))?;
                    Ok(rows.iter().map(|row| fingerprint(row)).collect())
                }

                pub(super) fn read(conn: &mut AnyConnection, page: usize) -> QueryResult<Vec<Fingerprint>> {
                    Ok(rows(conn, page)?.iter().map(|row| fingerprint(row)).collect())
                }

                fn rows(conn: &mut AnyConnection, page: usize) -> QueryResult<Vec<Row>> {
                    t::table
                        .order(($(t::$key,)+))
                        .offset(i64::try_from(page * PAGE).unwrap_or(i64::MAX))
                        .limit(i64::try_from(PAGE).unwrap_or(i64::MAX))
                        .load(conn)
                }
            }
        )+

        /// In an order in which nothing refers to what is not there yet.
        const TABLES: &[Table] = &[
            $( Table { name: stringify!($table), copy: $table::copy, read: $table::read }, )+
        ];
    };
}

tables! {
    properties by name { name: String, value: String, }
    users by id {
        id: String, email: String, email_key: String, email_verified: bool, password_hash: Option<String>, admin: bool,
        disabled: bool, group_names: String, claims: String, created_at: i64, updated_at: i64, managed: bool,
    }
    clients by client_id {
        client_id: String, metadata: String, disabled: bool, created_at: i64, updated_at: i64, managed: bool,
    }
    scopes by name { name: String, description: Option<String>, claims: String, managed: bool, }
    groups by name { name: String, description: Option<String>, managed: bool, }
    client_secrets by id {
        id: String, client_id: String, secret_hash: Vec<u8>, created_at: i64, from_file: bool, prefix: String,
        last_used_at: Option<i64>, expires_at: Option<i64>,
    }
    client_origins by client_id, origin { client_id: String, origin: String, }
    signing_keys by kid {
        kid: String, algorithm: String, slot: Option<String>, public_jwk: String, private_key: Vec<u8>, created_at: i64,
        activated_at: Option<i64>, retired_at: Option<i64>,
    }
    sessions by id {
        id: String, token_hash: Vec<u8>, user_id: String, auth_time: i64, proved_for: Option<String>, acr: String,
        amr: String, remembered: bool, created_at: i64, last_seen_at: i64, ended_at: Option<i64>, prune_after: i64,
    }
    consents by user_id, client_id {
        user_id: String, client_id: String, scope: String, claims: String, given_at: i64,
    }
    grants by id {
        id: String, client_id: String, user_id: String, session_id: String, scope: String, claims: String,
        resources: String, auth_time: i64, acr: String, amr: String, offline: bool, created_at: i64,
        revoked_at: Option<i64>, prune_after: i64,
    }
    authorization_codes by code_hash {
        code_hash: Vec<u8>, grant_id: String, redirect_uri: String, code_challenge: Option<String>,
        nonce: Option<String>, expires_at: i64, consumed_at: Option<i64>,
    }
    access_tokens by token_hash {
        token_hash: Vec<u8>, grant_id: String, scope: String, expires_at: i64, for_issuer: bool, resources: String,
        issued_at: i64, revoked_at: Option<i64>,
    }
    client_assertions by assertion_hash { assertion_hash: Vec<u8>, expires_at: i64, }
    client_tokens by token_hash {
        token_hash: Vec<u8>, client_id: String, scope: String, resources: String, issued_at: i64, expires_at: i64,
        revoked_at: Option<i64>,
    }
    refresh_tokens by token_hash {
        token_hash: Vec<u8>, grant_id: String, issued_at: i64, expires_at: i64, redeemed_at: Option<i64>,
        redeemed_from: Option<Vec<u8>>, retried_elsewhere: bool, elsewhere_before: i64,
    }
    throttles by bucket {
        bucket: Vec<u8>, failures: i64, earlier_failures: i64, window_started_at: i64,
    }
    audit_events by id {
        id: String, time: i64, event: String, actor: Option<String>, target: Option<String>,
        client_id: Option<String>, address: Option<String>, request_id: Option<String>, detail: String, seal: Option<i64>,
    }
    audit_seals by number {
        number: i64, newest: i64, events: i64, digest: Vec<u8>, previous: Vec<u8>, mac: Vec<u8>,
    }
}

impl Store {
    /// Writes every row to an empty database of the same schema, compares each, and commits all of it or nothing.
    pub fn copy_to(
        &self,
        target: &Store,
        trail: &Trail,
    ) -> Result<Vec<(&'static str, usize)>, CopyError> {
        let mut from = self.connect(Use::Read)?;
        let mut to = target.connect(Use::Write)?;
        for (name, connection, store) in [
            ("to copy from", &mut from, self),
            ("to copy to", &mut to, target),
        ] {
            if is_served(connection, store.inner.target.pooling())? {
                return Err(CopyError::Served(name));
            }
        }
        connection::begin_read(&mut from, self.inner.target.pooling())?;
        connection::begin_write(&mut to, target.inner.target.pooling())?;
        // One view of everything, for however long it takes; and who comes meanwhile may read, but writes nothing that would
        // be missing in the copy.
        on_postgres(&mut from, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")?;
        on_postgres(&mut from, &format!("LOCK TABLE {} IN SHARE MODE", names()))?;
        for connection in [&mut from, &mut to] {
            on_postgres(
                connection,
                "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0",
            )?;
        }
        // Whatever goes wrong before the commit, closing the connection takes everything back.
        let copied = copy_tables(&mut from, &mut to)?;
        crate::store::audit_events::record(&mut to, trail, &Event::new(Kind::DatabaseCopied))?;
        connection::commit(&mut to)?;
        Ok(copied)
    }
}

fn copy_tables(
    from: &mut AnyConnection,
    to: &mut AnyConnection,
) -> Result<Vec<(&'static str, usize)>, CopyError> {
    for table in TABLES {
        if !(table.read)(to, 0)?.is_empty() {
            return Err(CopyError::NotEmpty(table.name));
        }
    }
    let mut copied = Vec::new();
    for table in TABLES {
        let mut written = HashSet::new();
        for page in 0.. {
            let rows = (table.copy)(from, to, page)?;
            let was_last = rows.len() < PAGE;
            written.extend(rows);
            if was_last {
                break;
            }
        }
        let rows = written.len();
        let mut surplus = 0;
        for page in 0.. {
            let found = (table.read)(to, page)?;
            surplus += found.iter().filter(|row| !written.remove(*row)).count();
            if found.len() < PAGE {
                break;
            }
        }
        if surplus > 0 || !written.is_empty() {
            return Err(CopyError::Different {
                table: table.name,
                rows: surplus.max(written.len()),
            });
        }
        copied.push((table.name, rows));
    }
    Ok(copied)
}

fn names() -> String {
    let names: Vec<_> = TABLES.iter().map(|table| table.name).collect();
    names.join(", ")
}

/// SQLite's lock was taken when the store was opened; PostgreSQL tells who is there.
fn is_served(connection: &mut AnyConnection, pooling: Pooling) -> QueryResult<bool> {
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = BigInt)]
        n: i64,
    }
    let AnyConnection::Postgres(connection) = connection else {
        return Ok(false);
    };
    // Behind a transaction pooler only the name of a session says whose it is.
    let servers = "SELECT COUNT(*) AS n FROM pg_stat_activity \
                   WHERE datname = current_database() AND application_name = 'latchkey'";
    let count: Count = sql_query(servers).get_result(connection)?;
    Ok(count.n > 0 || !alone_in_the_end(connection, pooling)?)
}

/// A session takes a moment to end after its process did, such as the one by which the schema was looked at.
#[allow(
    clippy::disallowed_methods,
    reason = "a command waits for another process; no test's clock is involved"
)]
fn alone_in_the_end(connection: &mut PgConnection, pooling: Pooling) -> QueryResult<bool> {
    let until = Instant::now() + SESSION_ENDS_WITHIN;
    loop {
        if connection::take_alone(connection, pooling)? {
            return Ok(true);
        }
        if Instant::now() > until {
            return Ok(false);
        }
        thread::sleep(SESSION_ENDS_WITHIN / 20);
    }
}

fn on_postgres(connection: &mut AnyConnection, statements: &str) -> QueryResult<()> {
    match connection {
        AnyConnection::Postgres(connection) => connection.batch_execute(statements),
        AnyConnection::Sqlite(_) => Ok(()),
    }
}

fn fingerprint(row: &impl std::fmt::Debug) -> Fingerprint {
    Sha256::digest(format!("{row:?}")).into()
}
