//! Both sets of migrations agree with each other and with the schema that the code is compiled against.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use diesel::backend::Backend;
use diesel::{Connection, PgConnection, SqliteConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::support::postgres;

fn folder(database: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("migrations")
        .join(database)
}

fn names(database: &str) -> BTreeSet<String> {
    fs::read_dir(folder(database))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn both_databases_have_the_same_migrations() {
    assert_eq!(names("sqlite"), names("postgres"));
}

/// Table → column → whether it may be empty, as the migrations write them.
fn written(database: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut tables: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for name in names(database) {
        let sql = fs::read_to_string(folder(database).join(name).join("up.sql")).unwrap();
        let mut table = None;
        for line in sql.lines().map(str::trim) {
            if let Some(name) = line
                .strip_prefix("CREATE TABLE ")
                .and_then(|rest| rest.strip_suffix(" ("))
            {
                table = Some(name.to_owned());
            } else if line.starts_with(')') {
                table = None;
            } else {
                let added = line
                    .strip_prefix("ALTER TABLE ")
                    .and_then(|rest| rest.split_once(" ADD COLUMN "));
                let column = match (&table, added) {
                    (_, Some((table, column))) => Some((table.to_owned(), column)),
                    (Some(table), None) if line.starts_with(|c: char| c.is_ascii_lowercase()) => {
                        Some((table.clone(), line))
                    }
                    _ => None,
                };
                if let Some((table, column)) = column {
                    let (name, kind) = column_of(column);
                    tables.entry(table).or_default().insert(name, kind);
                }
            }
        }
    }
    tables
}

/// A column's name, its type, and whether it may be empty.
fn column_of(line: &str) -> (String, String) {
    let mut words = line.trim_end_matches([',', ';']).split_whitespace();
    let column = words.next().unwrap().to_owned();
    let kind = match words.next().unwrap() {
        "TEXT" => "Text",
        "BOOLEAN" => "Bool",
        "BIGINT" => "BigInt",
        "BLOB" | "BYTEA" => "Binary",
        other => panic!("{other} is no type that both databases have"),
    };
    let kind = if line.contains("NOT NULL") {
        kind.to_owned()
    } else {
        format!("Nullable<{kind}>")
    };
    (column, kind)
}

/// The same from `schema.rs`.
fn compiled() -> BTreeMap<String, BTreeMap<String, String>> {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/schema.rs"))
            .unwrap();
    let mut tables: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut table = String::new();
    for line in text.lines().map(str::trim) {
        if let Some((name, _)) = line.split_once(" (").filter(|_| line.ends_with('{')) {
            table = name.to_owned();
        } else if let Some((column, kind)) = line.trim_end_matches(',').split_once(" -> ")
            && !line.starts_with("diesel")
        {
            tables
                .entry(table.clone())
                .or_default()
                .insert(column.to_owned(), kind.to_owned());
        }
    }
    tables
}

#[test]
fn the_schema_is_what_both_migrations_make() {
    assert_eq!(written("sqlite"), compiled());
    assert_eq!(written("postgres"), compiled());
}

pub const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
pub const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");

fn up_down_up<DB: Backend>(
    connection: &mut impl MigrationHarness<DB>,
    migrations: impl Fn() -> EmbeddedMigrations,
) {
    let all = names("sqlite").len();
    assert_eq!(
        connection
            .run_pending_migrations(migrations())
            .unwrap()
            .len(),
        all
    );
    assert_eq!(
        connection
            .revert_all_migrations(migrations())
            .unwrap()
            .len(),
        all
    );
    assert_eq!(
        connection
            .run_pending_migrations(migrations())
            .unwrap()
            .len(),
        all
    );
}

#[test]
fn every_migration_can_be_taken_back_and_run_again() {
    up_down_up(
        &mut SqliteConnection::establish(":memory:").unwrap(),
        || SQLITE,
    );
    if let Some(cluster) = postgres::cluster() {
        up_down_up(
            &mut PgConnection::establish(&cluster.create_database(None)).unwrap(),
            || POSTGRES,
        );
    }
}
