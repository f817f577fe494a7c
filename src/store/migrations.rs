//! The schema's versions. Both sets are embedded; all that are pending run in one transaction, or none does.

use std::collections::HashSet;

use diesel::connection::SimpleConnection;
use diesel::migration::{Migration, MigrationSource};
use diesel::sql_types::{BigInt, Bool, Text};
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::connection::{self, AnyConnection, MultiBackend, Pooling};
use super::{MigrationError, StoreError, audit_events};
use crate::audit::{Event, Kind, Trail};

const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// Any fixed number: it names the lock under which only one process at a time migrates.
const ADVISORY_LOCK: i64 = 0x6c61_7463_686b_6579;

type AnyMigration = Box<dyn Migration<MultiBackend>>;

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = Text)]
    version: String,
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Bool)]
    found: bool,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Runs what is pending and answers the names. Many processes may call it at once: one migrates, the others wait for it.
pub(super) fn run(
    connection: &mut AnyConnection,
    trail: &Trail,
) -> Result<Vec<String>, MigrationError> {
    refuse_newer(connection)?;
    // Every command asks. What has nothing to write need not wait for those who write.
    if pending(connection)?.is_empty() {
        return Ok(Vec::new());
    }
    connection::begin_write(connection, Pooling::Session).map_err(StoreError::from)?;
    match run_in_transaction(connection, trail) {
        Ok(names) => {
            connection::commit(connection).map_err(StoreError::from)?;
            Ok(names)
        }
        Err(error) => {
            // The first error is the one worth reporting; closing the connection rolls back as well.
            let _ = connection::roll_back(connection);
            Err(error)
        }
    }
}

/// The names of those that have not run here yet, oldest first; writes nothing.
pub(super) fn pending(connection: &mut AnyConnection) -> Result<Vec<String>, MigrationError> {
    let applied = applied(connection)?;
    Ok(embedded(connection)?
        .iter()
        .filter(|migration| !applied.contains(&version(migration)))
        .map(|migration| migration.name().to_string())
        .collect())
}

/// Refuses a database that a newer version of the program has migrated; writes nothing.
pub(super) fn refuse_newer(connection: &mut AnyConnection) -> Result<(), MigrationError> {
    let known: HashSet<String> = embedded(connection)?.iter().map(version).collect();
    let mut unknown: Vec<String> = applied(connection)?
        .into_iter()
        .filter(|version| !known.contains(version))
        .collect();
    unknown.sort();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(MigrationError::NewerSchema {
        versions: unknown.join(", "),
    })
}

/// Refuses a SQLite file in which another program keeps its tables; writes nothing. In PostgreSQL programs may share a
/// database on purpose.
pub(super) fn refuse_foreign(connection: &mut AnyConnection) -> Result<(), MigrationError> {
    if let AnyConnection::Postgres(_) = connection {
        return Ok(());
    }
    if has_table(connection, "__diesel_schema_migrations")? {
        return Ok(());
    }
    let tables = "SELECT count(*) > 0 AS found FROM sqlite_master \
                  WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let tables: Found = sql_query(tables)
        .get_result(connection)
        .map_err(StoreError::from)?;
    if tables.found {
        return Err(MigrationError::Foreign);
    }
    Ok(())
}

fn run_in_transaction(
    connection: &mut AnyConnection,
    trail: &Trail,
) -> Result<Vec<String>, MigrationError> {
    lock(connection)?;
    // Asked again under the lock: another process may have been faster, and newer.
    refuse_newer(connection)?;
    let applied = applied(connection)?;
    let mut names = Vec::new();
    for migration in embedded(connection)? {
        if applied.contains(&version(&migration)) {
            continue;
        }
        let name = migration.name().to_string();
        if names.is_empty() && applied.is_empty() {
            diesel::migration::MigrationConnection::setup(connection).map_err(StoreError::from)?;
        }
        connection
            .run_migration(&migration)
            .map_err(|source| MigrationError::Failed {
                name: name.clone(),
                source,
            })?;
        names.push(name);
    }
    if !names.is_empty() {
        check_foreign_keys(connection)?;
    }
    // The beginning of a database is none of its changes.
    if !names.is_empty() && !applied.is_empty() {
        let event = Event::new(Kind::SchemaMigrated).noting("migrations", names.clone());
        audit_events::record(connection, trail, &event)?;
    }
    Ok(names)
}

/// SQLite's `BEGIN IMMEDIATE` is a lock already. On PostgreSQL the lock belongs to the transaction, not to the session, and
/// so works behind a transaction pooler too.
fn lock(connection: &mut AnyConnection) -> Result<(), MigrationError> {
    if let AnyConnection::Postgres(c) = connection {
        c.batch_execute(&format!(
            "SET LOCAL statement_timeout = 0; \
             SET LOCAL lock_timeout = '120s'; \
             SELECT pg_advisory_xact_lock({ADVISORY_LOCK}); \
             SET LOCAL lock_timeout = '5s'" // what serves meanwhile must not queue behind us for long
        ))
        .map_err(StoreError::from)?;
    }
    Ok(())
}

/// The connection that migrates has foreign keys switched off on SQLite; here they are made good.
fn check_foreign_keys(connection: &mut AnyConnection) -> Result<(), MigrationError> {
    if let AnyConnection::Sqlite(c) = connection {
        let orphans: Count = sql_query("SELECT count(*) AS count FROM pragma_foreign_key_check")
            .get_result(c)
            .map_err(StoreError::from)?;
        if orphans.count > 0 {
            return Err(MigrationError::Orphans {
                rows: orphans.count,
            });
        }
    }
    Ok(())
}

/// diesel's own list would create its table when it is missing.
fn applied(connection: &mut AnyConnection) -> Result<HashSet<String>, MigrationError> {
    if !has_table(connection, "__diesel_schema_migrations")? {
        return Ok(HashSet::new());
    }
    let versions: Vec<Version> = sql_query("SELECT version FROM __diesel_schema_migrations")
        .load(connection)
        .map_err(StoreError::from)?;
    Ok(versions.into_iter().map(|row| row.version).collect())
}

/// Whether a table is there, whatever ran so far.
pub(super) fn has_table(connection: &mut AnyConnection, name: &str) -> Result<bool, StoreError> {
    let exists = match connection {
        AnyConnection::Sqlite(_) => {
            sql_query("SELECT count(*) > 0 AS found FROM sqlite_master WHERE name = ?")
        }
        // A look-up by name, as to_regclass does, may remember from before the lock that there was none.
        AnyConnection::Postgres(_) => sql_query(
            "SELECT EXISTS (SELECT FROM pg_tables \
             WHERE schemaname = ANY (current_schemas(false)) AND tablename = $1) AS found",
        ),
    };
    let table: Found = exists.bind::<Text, _>(name).get_result(connection)?;
    Ok(table.found)
}

fn embedded(connection: &AnyConnection) -> Result<Vec<AnyMigration>, MigrationError> {
    let set = match connection {
        AnyConnection::Sqlite(_) => SQLITE,
        AnyConnection::Postgres(_) => POSTGRES,
    };
    let mut migrations: Vec<AnyMigration> = set.migrations().map_err(MigrationError::Embedded)?;
    migrations.sort_by_key(version);
    Ok(migrations)
}

fn version(migration: &AnyMigration) -> String {
    migration.name().version().to_string()
}
