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
const NEVER: [(&str, &str); 9] = [
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
        "a refresh token without its grant",
        "SELECT COUNT(*) AS n FROM refresh_tokens t WHERE NOT EXISTS (SELECT 1 FROM grants g WHERE g.id = t.grant_id)",
    ),
    (
        "an access token without its grant",
        "SELECT COUNT(*) AS n FROM access_tokens t WHERE NOT EXISTS (SELECT 1 FROM grants g WHERE g.id = t.grant_id)",
    ),
    (
        "a code without its grant",
        "SELECT COUNT(*) AS n FROM authorization_codes t WHERE NOT EXISTS (SELECT 1 FROM grants g WHERE g.id = t.grant_id)",
    ),
    (
        "a grant without its person or client",
        "SELECT COUNT(*) AS n FROM grants g WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.id = g.user_id) \
         OR NOT EXISTS (SELECT 1 FROM clients c WHERE c.client_id = g.client_id)",
    ),
    (
        "a grant without its sign-in",
        "SELECT COUNT(*) AS n FROM grants g WHERE g.prune_after = g.created_at \
         AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.id = g.session_id)",
    ),
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
    let found = store
        .read_blocking(|conn| {
            let mut never = NEVER.to_vec();
            if let AnyConnection::Sqlite(_) = conn {
                never.extend(NEVER_ON_SQLITE);
            }
            never
                .into_iter()
                .map(|(what, query)| Ok((what, count(conn, query)?)))
                .collect::<Result<Vec<_>, StoreError>>()
        })
        .unwrap();
    let broken: Vec<_> = found.into_iter().filter(|(_, n)| *n > 0).collect();
    assert!(broken.is_empty(), "{broken:?}");
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
