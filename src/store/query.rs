//! How statements of every request reach a connection.
//!
//! Through `AnyConnection` diesel writes a statement's text several times over before it looks for the kept one, which
//! costs more than running it. So the variant is chosen first: of a connection that is known, diesel asks the query's type
//! alone.

use std::marker::PhantomData;

use diesel::backend::Backend;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::query_dsl::methods::{ExecuteDsl, LoadQuery};
use diesel::result::QueryResult;
use diesel::sqlite::Sqlite;
use diesel::{PgConnection, SqliteConnection};

use super::{AnyConnection, StoreError, on_each};

/// The one row that a unique key leads to.
pub(super) fn one<'query, Q, Row>(
    conn: &mut AnyConnection,
    query: Q,
) -> Result<Option<Row>, StoreError>
where
    Q: RunQueryDsl<PgConnection> + RunQueryDsl<SqliteConnection>,
    Q: LoadQuery<'query, PgConnection, Row> + LoadQuery<'query, SqliteConnection, Row>,
{
    Ok(on_each!(conn, c => query.get_result(c)).optional()?)
}

/// The columns that a row is read from, for joins: on either database the same.
pub(super) fn columns<Row: Selectable<Sqlite>>() -> Row::SelectExpression {
    Row::construct_selection()
}

/// Runs an INSERT of the same columns each time; the statement stays prepared.
pub(super) fn insert<Q>(conn: &mut AnyConnection, statement: Q) -> Result<(), StoreError>
where
    Q: RunQueryDsl<PgConnection> + RunQueryDsl<SqliteConnection>,
    Q: ExecuteDsl<PgConnection> + ExecuteDsl<SqliteConnection>,
{
    on_each!(conn, c => statement.execute(c))?;
    Ok(())
}

/// An UPDATE that stays prepared under a name, a type made for it. diesel keeps none by itself, since a changeset may name
/// other columns at the next run; in one that is given here only the values differ.
pub(super) struct KeptUpdate<Name, Table: QuerySource, Changes, Condition> {
    table: Table::FromClause,
    changes: Changes,
    condition: Condition,
    name: PhantomData<Name>,
}

impl<Name: 'static, Table: QuerySource, Changes, Condition>
    KeptUpdate<Name, Table, Changes, Condition>
{
    /// Of a table, the rows that fulfil a condition; answers how many there were.
    pub(super) fn run<Assignments>(
        conn: &mut AnyConnection,
        table: Table,
        changes: Assignments,
        condition: Condition,
    ) -> Result<usize, StoreError>
    where
        Assignments: AsChangeset<Target = Table, Changeset = Changes>,
        Condition: AppearsOnTable<Table>,
        Self: ExecuteDsl<PgConnection> + ExecuteDsl<SqliteConnection>,
    {
        let update = Self {
            table: table.from_clause(),
            changes: changes.as_changeset(),
            condition,
            name: PhantomData,
        };
        Ok(on_each!(conn, c => update.execute(c))?)
    }
}

impl<Name, Table, Changes, Condition, DB> QueryFragment<DB>
    for KeptUpdate<Name, Table, Changes, Condition>
where
    DB: Backend,
    Table: QuerySource,
    Table::FromClause: QueryFragment<DB>,
    Changes: QueryFragment<DB>,
    Condition: QueryFragment<DB>,
{
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        pass.push_sql("UPDATE ");
        self.table.walk_ast(pass.reborrow())?;
        pass.push_sql(" SET ");
        self.changes.walk_ast(pass.reborrow())?;
        pass.push_sql(" WHERE ");
        self.condition.walk_ast(pass)
    }
}

impl<Name: 'static, Table: QuerySource, Changes, Condition> QueryId
    for KeptUpdate<Name, Table, Changes, Condition>
{
    type QueryId = Name;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<Name, Table: QuerySource, Changes, Condition, Conn> RunQueryDsl<Conn>
    for KeptUpdate<Name, Table, Changes, Condition>
{
}
