//! Authorization codes.

use diesel::prelude::*;

use super::columns::to_time;
use super::query::{self, KeptUpdate, one};
use super::schema::{authorization_codes as t, grants};
use super::{AnyConnection, StoreError};
use crate::protocol::client::ClientId;
use crate::protocol::grants::authorization_code::IssuedCode;
use crate::protocol::pkce::CodeChallenge;
use crate::protocol::seal::TokenHash;
use crate::protocol::time::Timestamp;

type Columns = (
    String,
    String,
    Option<String>,
    Option<String>,
    i64,
    Option<i64>,
    String,
);

/// The code, spent or not.
pub fn find(conn: &mut AnyConnection, code: &TokenHash) -> Result<Option<IssuedCode>, StoreError> {
    let row: Option<Columns> = one(
        conn,
        t::table
            .inner_join(grants::table)
            .filter(t::code_hash.eq(code.as_bytes().as_slice()))
            .select((
                t::grant_id,
                t::redirect_uri,
                t::code_challenge,
                t::nonce,
                t::expires_at,
                t::consumed_at,
                grants::client_id,
            )),
    )?;
    row.map(|columns| {
        let (grant_id, redirect_uri, challenge, nonce, expires_at, consumed_at, client_id) =
            columns;
        let challenge = challenge.map(|text| CodeChallenge::parse(&text).ok_or(BadChallenge));
        Ok(IssuedCode {
            grant_id,
            client_id: ClientId::from_request(&client_id),
            redirect_uri,
            code_challenge: challenge.transpose().map_err(StoreError::fault)?,
            nonce,
            expires_at: to_time(expires_at),
            consumed_at: consumed_at.map(to_time),
        })
    })
    .transpose()
}

/// Adds a fresh code; only its hash is kept.
pub fn insert(
    conn: &mut AnyConnection,
    code: &IssuedCode,
    hash: &TokenHash,
) -> Result<(), StoreError> {
    query::insert(
        conn,
        diesel::insert_into(t::table).values((
            t::code_hash.eq(hash.as_bytes().as_slice()),
            t::grant_id.eq(&code.grant_id),
            t::redirect_uri.eq(&code.redirect_uri),
            t::code_challenge.eq(code.code_challenge.as_ref().map(CodeChallenge::as_str)),
            t::nonce.eq(&code.nonce),
            t::expires_at.eq(code.expires_at.seconds()),
            t::consumed_at.eq(None::<i64>),
        )),
    )
}

/// Spends the code. Of any number that try, one is told yes.
pub fn claim(
    conn: &mut AnyConnection,
    code: &TokenHash,
    now: Timestamp,
) -> Result<bool, StoreError> {
    enum Claim {}
    let claimed = KeptUpdate::<Claim, _, _, _>::run(
        conn,
        t::table,
        t::consumed_at.eq(now.seconds()),
        t::code_hash
            .eq(code.as_bytes().as_slice())
            .and(t::consumed_at.is_null())
            .and(t::expires_at.gt(now.seconds())),
    )?;
    Ok(claimed == 1)
}

#[derive(Debug, thiserror::Error)]
#[error("a code_challenge in the database is malformed")]
struct BadChallenge;
