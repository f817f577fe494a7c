//! What must hold of every database after every fault.

use diesel::sql_types::BigInt;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use latchkey::store::{AnyConnection, Store, StoreError};

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Each of these queries counts what must not be there. What only holds until expired rows are cleared away is asked of
/// grants that nobody has looked at yet.
const NEVER: [(&str, &str); 5] = [
    (
        "a family with two branches, or with none",
        "SELECT COUNT(*) AS n FROM (SELECT grant_id FROM refresh_tokens GROUP BY grant_id \
         HAVING SUM(CASE WHEN redeemed_at IS NULL THEN 1 ELSE 0 END) <> 1) AS families",
    ),
    (
        "tokens for a code that was not spent",
        "SELECT COUNT(*) AS n FROM authorization_codes c WHERE c.consumed_at IS NULL \
         AND EXISTS (SELECT 1 FROM access_tokens a WHERE a.grant_id = c.grant_id)",
    ),
    (
        "a spent code that brought nothing, although its grant is alive",
        "SELECT COUNT(*) AS n FROM authorization_codes c JOIN grants g ON g.id = c.grant_id \
         WHERE c.consumed_at IS NOT NULL AND g.revoked_at IS NULL AND g.prune_after = g.created_at \
         AND NOT EXISTS (SELECT 1 FROM access_tokens a WHERE a.grant_id = c.grant_id)",
    ),
    (
        "a grant with two codes",
        "SELECT COUNT(*) AS n FROM (SELECT grant_id FROM authorization_codes GROUP BY grant_id HAVING COUNT(*) > 1) AS twice",
    ),
    (
        "a grant without its sign-in",
        "SELECT COUNT(*) AS n FROM grants g WHERE g.prune_after = g.created_at \
         AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.id = g.session_id)",
    ),
];

/// Which column names a row of which other table, there by which key: each of them must exist. A test compares this with
/// what the databases know.
pub const REFERENCES: [(&str, &str, &str, &str); 11] = [
    ("access_tokens", "grant_id", "grants", "id"),
    ("authorization_codes", "grant_id", "grants", "id"),
    ("client_origins", "client_id", "clients", "client_id"),
    ("client_secrets", "client_id", "clients", "client_id"),
    ("client_tokens", "client_id", "clients", "client_id"),
    ("consents", "client_id", "clients", "client_id"),
    ("consents", "user_id", "users", "id"),
    ("grants", "client_id", "clients", "client_id"),
    ("grants", "user_id", "users", "id"),
    ("refresh_tokens", "grant_id", "grants", "id"),
    ("sessions", "user_id", "users", "id"),
];

const NEVER_ON_SQLITE: [(&str, &str); 2] = [
    (
        "what integrity_check finds",
        "SELECT COUNT(*) AS n FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
    ),
    (
        "what foreign_key_check finds",
        "SELECT COUNT(*) AS n FROM pragma_foreign_key_check",
    ),
];

/// Fails when the database holds what no fault may leave behind.
pub fn assert_sound(store: &Store) {
    assert_eq!(broken(store), []);
}

/// The same, to be looked at: what there is of it, and how often.
pub fn broken(store: &Store) -> Vec<(String, i64)> {
    let found = store
        .read_blocking(|conn| {
            let mut never = NEVER.to_vec();
            if let AnyConnection::Sqlite(_) = conn {
                never.extend(NEVER_ON_SQLITE);
            }
            let never = never
                .into_iter()
                .map(|(what, query)| (what.to_owned(), query.to_owned()));
            never
                .chain(REFERENCES.map(orphans))
                .map(|(what, query)| Ok((what, count(conn, &query)?)))
                .collect::<Result<Vec<_>, StoreError>>()
        })
        .unwrap();
    found.into_iter().filter(|(_, n)| *n > 0).collect()
}

fn orphans((table, column, other, key): (&str, &str, &str, &str)) -> (String, String) {
    (
        format!("{table} whose {column} is gone"),
        format!(
            "SELECT COUNT(*) AS n FROM {table} t WHERE NOT EXISTS (SELECT 1 FROM {other} o WHERE o.{key} = t.{column})"
        ),
    )
}

/// How many rows a table has.
pub fn rows(store: &Store, table: &str) -> i64 {
    let query = format!("SELECT COUNT(*) AS n FROM {table}");
    store
        .read_blocking(move |conn| count(conn, &query))
        .unwrap()
}

pub fn count(conn: &mut AnyConnection, query: &str) -> Result<i64, StoreError> {
    let row: Count = sql_query(query).get_result(conn)?;
    Ok(row.n)
}
