//! Statements that are kept prepared although diesel would prepare them anew each time.
//!
//! diesel keeps no UPDATE and no INSERT, since the set of columns may differ from one to the next. Those that run at every
//! request name the same columns each time, and preparing one costs more than running it.

use diesel::RunQueryDsl;
use diesel::backend::Backend;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::QueryResult;

/// A statement whose text is the same at every run: only its values differ.
pub(super) struct Prepared<Q>(pub(super) Q);

impl<Q, DB: Backend> QueryFragment<DB> for Prepared<Q>
where
    Q: QueryFragment<DB>,
{
    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.0.walk_ast(pass)
    }

    fn is_safe_to_cache_prepared(&self, _: &DB) -> QueryResult<bool> {
        Ok(true)
    }
}

impl<Q> QueryId for Prepared<Q> {
    type QueryId = ();
    // Found by its text.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q, Conn> RunQueryDsl<Conn> for Prepared<Q> {}
