//! What is checked after every fault would see what it is there for: invariants I2, I5 and I8.

use std::net::TcpStream;

use diesel::connection::SimpleConnection as _;
use diesel::sql_types::{Integer, Text};
use diesel::{
    Connection as _, PgConnection, QueryableByName, RunQueryDsl as _, SqliteConnection, sql_query,
};
use latchkey::config::DatabaseUrl;
use latchkey::store::{AnyConnection, Options, Store};
use serde_json::json;

use crate::faults::{base, connect, installation};
use crate::support::installation::Installation;
use crate::support::invariants::{REFERENCES, broken, rows};
use crate::support::op::{CALLBACK, Database, EMAIL, PASSWORD, SECRET};
use crate::support::relying_party::Rp;
use crate::support::wait::eventually;

#[test]
fn i2_whoever_writes_to_sqlite_waits_for_the_disk_and_not_only_for_the_system() {
    /// Each commit is on the disk, not only each checkpoint.
    const FULL: i32 = 2;
    #[derive(QueryableByName)]
    struct Level {
        #[diesel(sql_type = Integer)]
        synchronous: i32,
    }
    let installation = Installation::new(Database::Sqlite);
    installation.run(&["migrate", "up"]);
    let server = Options {
        exclusive: true,
        ..Options::default()
    };
    for options in [server, Options::default()] {
        let store = Store::open(installation.database(), options).unwrap();
        let level = || {
            let level = store.write_blocking(|tx| {
                let level: Level = sql_query("PRAGMA synchronous").get_result(tx)?;
                Ok(level.synchronous)
            });
            level.unwrap()
        };
        assert_eq!(level(), FULL);
        // A fault costs the connection, and the next one does the same.
        let failed: Result<(), _> = store.write_blocking(|_| panic!("as a test wants it"));
        assert!(failed.is_err());
        assert_eq!(level(), FULL);
    }
}

/// Something in every table that names a row of another.
fn filled(database: Database) -> Installation {
    let installation = Installation::new(database);
    installation.apply(&json!({
        "users": [{ "email": EMAIL, "password": PASSWORD }],
        "clients": [{
            "client_id": "notes", "client_secret": SECRET, "redirect_uris": [CALLBACK],
            "allowed_cors_origins": ["https://rp.example"],
            "grant_types": ["authorization_code", "refresh_token", "client_credentials"], "access_token_format": "opaque"
        }]
    }));
    let server = installation.start();
    let rp = Rp::new(&installation.issuer).named("notes");
    connect(&rp);
    let own = rp.client_credentials(&[]);
    assert_eq!(own.status, 200, "{}", own.json);
    drop(server);
    for (table, ..) in REFERENCES {
        assert!(rows(&installation.store(), table) > 0, "{table}");
    }
    installation
}

/// As a fault might that no foreign key stands up to.
fn delete_from(installation: &Installation, table: &str) {
    let delete = format!("DELETE FROM {table}");
    match installation.database() {
        DatabaseUrl::Sqlite(file) => {
            let mut conn = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
            let delete = format!("PRAGMA foreign_keys=OFF; {delete}");
            conn.batch_execute(&delete).unwrap();
        }
        DatabaseUrl::Postgres(url) => {
            let mut conn = PgConnection::establish(url).unwrap();
            let delete = format!("SET session_replication_role = replica; {delete}");
            conn.batch_execute(&delete).unwrap();
        }
    }
}

#[test]
fn i5_a_row_whose_other_is_gone_is_seen_on_both_databases() {
    for database in Database::all() {
        let installation = filled(database);
        assert_eq!(broken(&installation.store()), []);
        // The last of them names rows of the others.
        for gone in ["users", "clients", "grants"] {
            delete_from(&installation, gone);
            let seen = broken(&installation.store());
            for (table, column, other, _) in REFERENCES {
                let what = format!("{table} whose {column} is gone");
                let is_seen = seen.iter().any(|(seen, _)| *seen == what);
                assert!(is_seen || other != gone, "{database:?} {what}: {seen:?}");
            }
        }
    }
}

/// What the database knows of references, each as a line.
fn references(store: &Store) -> Vec<String> {
    #[derive(QueryableByName)]
    struct Line {
        #[diesel(sql_type = Text)]
        line: String,
    }
    let sqlite = r#"SELECT m.name || '.' || f."from" || ' is ' || f."table" || '.' || f."to" AS line
        FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table'"#;
    let postgres = "SELECT conrelid::regclass || '.' || a.attname || ' is ' || confrelid::regclass || '.' || b.attname AS line
        FROM pg_constraint
        JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = conkey[1]
        JOIN pg_attribute b ON b.attrelid = confrelid AND b.attnum = confkey[1]
        WHERE contype = 'f' AND convalidated";
    let lines: Vec<Line> = store
        .read_blocking(move |conn| {
            let query = match conn {
                AnyConnection::Sqlite(_) => sqlite,
                AnyConnection::Postgres(_) => postgres,
            };
            Ok(sql_query(query).load(conn)?)
        })
        .unwrap();
    let mut lines: Vec<_> = lines.into_iter().map(|line| line.line).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn i5_every_reference_of_the_schema_is_looked_at() {
    let known =
        REFERENCES.map(|(table, column, other, key)| format!("{table}.{column} is {other}.{key}"));
    for database in Database::all() {
        let installation = Installation::new(database);
        installation.run(&["migrate", "up"]);
        assert_eq!(references(&installation.store()), known, "{database:?}");
    }
}

#[test]
fn i8_connections_that_stay_are_seen_and_gone_with_whoever_held_them() {
    let (installation, rp) = installation();
    let server = installation.start();
    let base = base(&server, &rp);
    let held: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(server.host()).unwrap())
        .collect();
    eventually("they are seen", || base.excess());
    drop(held);
    base.assert_back();
}
