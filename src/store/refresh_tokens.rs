//! Refresh tokens: hashes only, spent ones included, for as long as their family lives.

use diesel::dsl::exists;
use diesel::prelude::*;

use super::columns::to_time;
use super::query::{self, KeptUpdate, one};
use super::schema::{grants, refresh_tokens as t};
use super::{AnyConnection, StoreError};
use crate::protocol::client::ClientId;
use crate::protocol::grants::refresh_token::{IssuedRefreshToken, Redemption};
use crate::protocol::seal::TokenHash;
use crate::protocol::time::Timestamp;

/// A token that is about to be issued.
#[derive(Clone, Debug)]
pub struct NewRefreshToken {
    pub hash: TokenHash,
    pub grant_id: String,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    pub elsewhere_before: i64,
}

type Columns = (String, String, i64, Option<i64>, Option<Vec<u8>>, i64);

/// The token; `successor` is the hash of the one that follows it.
pub fn find(
    conn: &mut AnyConnection,
    token: &TokenHash,
    successor: &TokenHash,
) -> Result<Option<IssuedRefreshToken>, StoreError> {
    let row: Option<Columns> = one(
        conn,
        t::table
            .inner_join(grants::table)
            .filter(t::token_hash.eq(token.as_bytes().as_slice()))
            .select((
                t::grant_id,
                grants::client_id,
                t::expires_at,
                t::redeemed_at,
                t::redeemed_from,
                t::elsewhere_before,
            )),
    )?;
    let Some((grant_id, client_id, expires_at, redeemed_at, redeemed_from, elsewhere_before)) = row
    else {
        return Ok(None);
    };
    let redemption = match redeemed_at {
        None => None,
        Some(at) => {
            let successor = state(conn, successor)?;
            // Gone already: the family is over, and its tokens are being cleared away.
            let (successor_redeemed, successor_expires_at) = successor
                .map_or((true, at), |(redeemed_at, expires_at)| {
                    (redeemed_at.is_some(), expires_at)
                });
            Some(Redemption {
                at: to_time(at),
                from: redeemed_from.and_then(|bytes| bytes.try_into().ok()),
                successor_redeemed,
                successor_expires_at: to_time(successor_expires_at),
            })
        }
    };
    Ok(Some(IssuedRefreshToken {
        grant_id,
        client_id: ClientId::from_request(&client_id),
        expires_at: to_time(expires_at),
        redemption,
        elsewhere_before,
    }))
}

/// Adds a token.
pub fn insert(conn: &mut AnyConnection, token: &NewRefreshToken) -> Result<(), StoreError> {
    query::insert(
        conn,
        diesel::insert_into(t::table).values((
            t::token_hash.eq(token.hash.as_bytes().as_slice()),
            t::grant_id.eq(&token.grant_id),
            t::issued_at.eq(token.issued_at.seconds()),
            t::expires_at.eq(token.expires_at.seconds()),
            t::redeemed_at.eq(None::<i64>),
            t::redeemed_from.eq(None::<Vec<u8>>),
            t::retried_elsewhere.eq(false),
            t::elsewhere_before.eq(token.elsewhere_before),
        )),
    )
}

/// Spends the token of a family that has not ended. Of any number that try, one is told yes.
pub fn redeem(
    conn: &mut AnyConnection,
    token: &TokenHash,
    from: Option<&[u8; 32]>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    enum Redeem {}
    let of_living_family = grants::table
        .filter(grants::id.eq(t::grant_id))
        .filter(grants::revoked_at.is_null());
    let redeemed = KeptUpdate::<Redeem, _, _, _>::run(
        conn,
        t::table,
        (
            t::redeemed_at.eq(now.seconds()),
            t::redeemed_from.eq(from.map(<[u8; 32]>::as_slice)),
        ),
        t::token_hash
            .eq(token.as_bytes().as_slice())
            .and(t::redeemed_at.is_null())
            .and(t::expires_at.gt(now.seconds()))
            .and(exists(of_living_family)),
    )?;
    Ok(redeemed == 1)
}

/// Notes, once a rotation, that its retry came from elsewhere: its successor remembers how many in a row did.
pub fn note_elsewhere(
    conn: &mut AnyConnection,
    token: &TokenHash,
    successor: &TokenHash,
    elsewhere_before: i64,
) -> Result<(), StoreError> {
    let noted = diesel::update(
        t::table
            .filter(t::token_hash.eq(token.as_bytes().as_slice()))
            .filter(t::retried_elsewhere.eq(false)),
    )
    .set(t::retried_elsewhere.eq(true))
    .execute(conn)?;
    if noted == 1 {
        diesel::update(t::table.filter(t::token_hash.eq(successor.as_bytes().as_slice())))
            .set(t::elsewhere_before.eq(elsewhere_before + 1))
            .execute(conn)?;
    }
    Ok(())
}

/// Whether a token was used, and when it expires.
fn state(
    conn: &mut AnyConnection,
    token: &TokenHash,
) -> Result<Option<(Option<i64>, i64)>, StoreError> {
    one(
        conn,
        t::table
            .filter(t::token_hash.eq(token.as_bytes().as_slice()))
            .select((t::redeemed_at, t::expires_at)),
    )
}
