//! Client assertions that were used.

use diesel::prelude::*;

use super::schema::client_assertions as t;
use super::{AnyConnection, StoreError, on_each};
use crate::protocol::client_assertion::Assertion;

/// Uses an assertion. Of any number that try, one is told yes.
pub fn claim(conn: &mut AnyConnection, assertion: &Assertion) -> Result<bool, StoreError> {
    let claimed = on_each!(conn, c => diesel::insert_into(t::table)
        .values((
            t::assertion_hash.eq(assertion.hash.as_bytes().as_slice()),
            t::expires_at.eq(assertion.expires_at.seconds()),
        ))
        .on_conflict_do_nothing()
        .execute(c))?;
    Ok(claimed == 1)
}
