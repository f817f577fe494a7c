//! Authorization codes.

use diesel::prelude::*;

use super::columns::{from_json, to_json, to_time};
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
    String,
    i64,
    String,
    String,
    i64,
    Option<i64>,
    String,
);

/// The code, spent or not.
pub fn find(conn: &mut AnyConnection, code: &TokenHash) -> Result<Option<IssuedCode>, StoreError> {
    let row: Option<Columns> = t::table
        .inner_join(grants::table)
        .filter(t::code_hash.eq(code.as_bytes().as_slice()))
        .select((
            t::grant_id,
            t::redirect_uri,
            t::code_challenge,
            t::nonce,
            t::resources,
            t::auth_time,
            t::acr,
            t::amr,
            t::expires_at,
            t::consumed_at,
            grants::client_id,
        ))
        .first(conn)
        .optional()?;
    row.map(
        |(
            grant_id,
            redirect_uri,
            challenge,
            nonce,
            resources,
            auth_time,
            acr,
            amr,
            expires_at,
            consumed_at,
            client_id,
        )| {
            Ok(IssuedCode {
                grant_id,
                client_id: ClientId::from_request(&client_id),
                redirect_uri,
                code_challenge: challenge
                    .map(|text| {
                        CodeChallenge::parse(&text).ok_or_else(|| StoreError::fault(BadChallenge))
                    })
                    .transpose()?,
                nonce,
                resources: from_json(&resources)?,
                auth_time: to_time(auth_time),
                acr,
                amr: from_json(&amr)?,
                expires_at: to_time(expires_at),
                consumed_at: consumed_at.map(to_time),
            })
        },
    )
    .transpose()
}

/// Adds a fresh code; only its hash is kept.
pub fn insert(
    conn: &mut AnyConnection,
    code: &IssuedCode,
    hash: &TokenHash,
) -> Result<(), StoreError> {
    diesel::insert_into(t::table)
        .values((
            t::code_hash.eq(hash.as_bytes().as_slice()),
            t::grant_id.eq(&code.grant_id),
            t::redirect_uri.eq(&code.redirect_uri),
            t::code_challenge.eq(code.code_challenge.as_ref().map(CodeChallenge::as_str)),
            t::nonce.eq(&code.nonce),
            t::resources.eq(to_json(&code.resources)),
            t::auth_time.eq(code.auth_time.seconds()),
            t::acr.eq(&code.acr),
            t::amr.eq(to_json(&code.amr)),
            t::expires_at.eq(code.expires_at.seconds()),
            t::consumed_at.eq(None::<i64>),
        ))
        .execute(conn)?;
    Ok(())
}

/// Spends the code. Of any number that try, one is told yes.
pub fn claim(
    conn: &mut AnyConnection,
    code: &TokenHash,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let claimed = diesel::update(
        t::table
            .filter(t::code_hash.eq(code.as_bytes().as_slice()))
            .filter(t::consumed_at.is_null())
            .filter(t::expires_at.gt(now.seconds())),
    )
    .set(t::consumed_at.eq(now.seconds()))
    .execute(conn)?;
    Ok(claimed == 1)
}

#[derive(Debug, thiserror::Error)]
#[error("a code_challenge in the database is malformed")]
struct BadChallenge;
