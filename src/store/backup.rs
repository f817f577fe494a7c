//! Copies of a SQLite database, and the start of a new epoch in one that comes from the past. PostgreSQL has its own tools.

use std::error::Error as _;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};

use super::connection::{Target, Use};
use super::files::{self, sync_folder, with_suffix};
use super::schema::{authorization_codes, client_tokens, grants, properties as property, sessions};
use super::{AnyConnection, OpenError, Store, StoreError, on_each, properties};
use crate::causes::with_causes;
use crate::protocol::time::Timestamp;

/// When this timeline began, in seconds since 1970; nobody knows what was used or revoked at the end of the one before.
const EPOCH: &str = "epoch.began_at";
/// What SQLite may put beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

#[derive(QueryableByName)]
struct Verdict {
    #[diesel(sql_type = Text)]
    integrity_check: String,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

impl Store {
    /// Writes one consistent copy to a file that is not there yet, while others go on reading and writing.
    pub fn copy_into(&self, file: &Path) -> Result<(), StoreError> {
        let name = file
            .to_str()
            .ok_or_else(|| StoreError::fault("the path is not UTF-8"))?;
        let mut connection = self.connect(Use::Write)?;
        let AnyConnection::Sqlite(connection) = &mut connection else {
            return Err(StoreError::fault("only SQLite is copied"));
        };
        sql_query("VACUUM INTO ?")
            .bind::<Text, _>(name)
            .execute(connection)?;
        File::open(file)
            .and_then(|file| file.sync_all())
            .map_err(StoreError::fault)
    }
}

/// Why a file is not a whole database of ours; nothing, if it is one.
pub fn problem_of(file: &Path) -> Result<Option<String>, StoreError> {
    let mut connection = match connect(file) {
        Ok(connection) => connection,
        // What SQLite says of the file, not that it can't be used.
        Err(error) => {
            let problem = error.source().map(with_causes);
            return Ok(Some(problem.unwrap_or_else(|| error.to_string())));
        }
    };
    let AnyConnection::Sqlite(connection) = &mut connection else {
        unreachable!("a file is SQLite's")
    };
    let verdicts: Vec<Verdict> = match sql_query("PRAGMA integrity_check(5)").load(connection) {
        Ok(verdicts) => verdicts,
        Err(error) => return Ok(Some(error.to_string())),
    };
    if let Some(broken) = verdicts
        .into_iter()
        .find(|verdict| verdict.integrity_check != "ok")
    {
        return Ok(Some(broken.integrity_check));
    }
    let ours: Count = sql_query(
        "SELECT COUNT(*) AS n FROM sqlite_master WHERE type = 'table' AND name IN ('properties', 'users', 'signing_keys')",
    )
    .get_result(connection)?;
    Ok((ours.n != 3).then(|| "it has no tables of Latchkey".to_owned()))
}

/// Brings everything into the one file, so that nothing beside it is needed.
pub fn settle(file: &Path) -> Result<(), StoreError> {
    connect(file)?.batch_execute("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode=DELETE;")?;
    File::open(file)
        .and_then(|file| file.sync_all())
        .map_err(StoreError::fault)
}

/// Where a database is or is going to be, and the lock that keeps servers away meanwhile.
pub fn reserve(path: &Path) -> Result<(PathBuf, File), OpenError> {
    let failed = |source| OpenError::File {
        file: path.to_owned(),
        source,
    };
    let file = match fs::canonicalize(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = fs::canonicalize(files::folder_of(path)).map_err(failed)?;
            folder.join(path.file_name().unwrap_or_default())
        }
        Err(error) => return Err(failed(error)),
    };
    let lock = files::lock(&file)?;
    Ok((file, lock))
}

/// Copies a file for its owner's eyes only, and makes that durable.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut copy = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    io::copy(&mut source, &mut copy)?;
    copy.sync_all()
}

/// Puts a settled database in the place of another, which stays under a second name. Whoever is interrupted, even by a
/// power failure, leaves the one or the other whole.
pub fn replace(draft: &Path, file: &Path, kept_as: &Path) -> Result<(), StoreError> {
    files::give_to_owner_of(file, draft).map_err(StoreError::fault)?;
    let exists = file.try_exists().map_err(StoreError::fault)?;
    if exists {
        // A log of the old database must never be read into the new one.
        if settle(file).is_err() {
            for suffix in BESIDE {
                let (beside, kept) = (with_suffix(file, suffix), with_suffix(kept_as, suffix));
                if beside.try_exists().map_err(StoreError::fault)? {
                    fs::rename(beside, kept).map_err(StoreError::fault)?;
                }
            }
        }
        fs::hard_link(file, kept_as).map_err(StoreError::fault)?;
    }
    fs::rename(draft, file).map_err(StoreError::fault)?;
    sync_folder(file).map_err(StoreError::fault)
}

/// Gives a whole file its name, unless something has that name already.
pub fn publish(draft: &Path, file: &Path) -> io::Result<()> {
    fs::hard_link(draft, file)?;
    fs::remove_file(draft)?;
    sync_folder(file)
}

/// Removes a draft with whatever lies beside it.
pub fn discard(draft: &Path) {
    for suffix in ["", ".lock"].into_iter().chain(BESIDE) {
        // What is not there need not go; what can't go is a file of our own name that hurts nobody.
        let _gone = fs::remove_file(with_suffix(draft, suffix));
    }
}

/// Ends what belongs to the timeline that was left: codes, sign-ins, grants with their tokens, tokens of clients. What was
/// used or revoked after the backup would be good again. People, apps, consents and keys stay.
pub fn begin_epoch(conn: &mut AnyConnection, now: Timestamp) -> Result<(), StoreError> {
    let at = now.seconds();
    diesel::delete(authorization_codes::table).execute(conn)?;
    diesel::update(sessions::table.filter(sessions::ended_at.is_null()))
        .set((sessions::ended_at.eq(at), sessions::prune_after.eq(at)))
        .execute(conn)?;
    diesel::update(grants::table.filter(grants::revoked_at.is_null()))
        .set((grants::revoked_at.eq(at), grants::prune_after.eq(at)))
        .execute(conn)?;
    diesel::update(client_tokens::table.filter(client_tokens::revoked_at.is_null()))
        .set(client_tokens::revoked_at.eq(at))
        .execute(conn)?;
    let value = at.to_string();
    on_each!(conn, c => diesel::insert_into(property::table)
        .values((property::name.eq(EPOCH), property::value.eq(&value)))
        .on_conflict(property::name)
        .do_update()
        .set(property::value.eq(&value))
        .execute(c))?;
    Ok(())
}

/// When the timeline began, if it was ever restored.
pub fn epoch(conn: &mut AnyConnection) -> Result<Option<Timestamp>, StoreError> {
    let found = properties::find(conn, EPOCH)?;
    Ok(found
        .and_then(|seconds| seconds.parse().ok())
        .map(Timestamp::from_seconds))
}

fn connect(file: &Path) -> Result<AnyConnection, StoreError> {
    let target = Target::sqlite(file.to_owned()).map_err(StoreError::fault)?;
    Ok(target.connect(Use::Write)?)
}
