//! Copies of a SQLite database, and the start of a new epoch in one that comes from the past. PostgreSQL has its own tools.

use std::error::Error as _;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::result::ConnectionError;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

use super::connection::{Target, Use};
use super::files::{self, create_for_owner_of, folder_of, owned_like, sync_folder, with_suffix};
use super::schema::{authorization_codes, client_tokens, grants, properties as property, sessions};
use super::{AnyConnection, OpenError, Store, StoreError, on_each, properties, sqlite_file};
use crate::causes::{in_one_line, with_causes};
use crate::protocol::time::Timestamp;
use crate::random;

/// When this timeline began, in seconds since 1970; nobody knows what was used or revoked at the end of the one before.
const EPOCH: &str = "epoch.began_at";
/// What SQLite may put beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Why a database was not replaced by another.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    #[error("somebody else has {} open; stop it first, nothing was changed", file.display())]
    Open { file: PathBuf },
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where that is now what a restored database took the place of.
#[derive(Debug, Default)]
pub struct Kept {
    pub database: Option<PathBuf>,
    /// What SQLite had put beside it and could not take into it, or what was left of one that is gone.
    pub beside: Vec<PathBuf>,
}

impl ReplaceError {
    fn open(file: &Path) -> Self {
        Self::Open {
            file: file.to_owned(),
        }
    }
}

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
    if let Some(problem) = sqlite_file::problem_of(file).map_err(StoreError::fault)? {
        return Ok(Some(problem));
    }
    let damaged = |said: &str| Ok(Some(format!("it is damaged ({said})")));
    let mut connection = match connect(file) {
        Ok(connection) => connection,
        // What SQLite says of the file, not that it can't be used.
        Err(error) => {
            let problem = error.source().map(with_causes);
            return damaged(&problem.unwrap_or_else(|| error.to_string()));
        }
    };
    let AnyConnection::Sqlite(connection) = &mut connection else {
        unreachable!("a file is SQLite's")
    };
    let verdicts: Vec<Verdict> = match sql_query("PRAGMA integrity_check(5)").load(connection) {
        Ok(verdicts) => verdicts,
        Err(error) => return damaged(&error.to_string()),
    };
    if let Some(broken) = verdicts
        .into_iter()
        .find(|verdict| verdict.integrity_check != "ok")
    {
        return damaged(&in_one_line(&broken.integrity_check));
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
            let folder = fs::canonicalize(folder_of(path)).map_err(failed)?;
            folder.join(path.file_name().unwrap_or_default())
        }
        Err(error) => return Err(failed(error)),
    };
    let lock = files::lock(&file)?;
    Ok((file, lock))
}

/// Copies a database, with the log that may lie beside it, for a draft of what `file` is going to be; durable.
pub fn copy(from: &Path, draft: &Path, file: &Path) -> Result<(), ReplaceError> {
    // Beside the file, not beside a symbolic link to it, lies its log.
    let from = fs::canonicalize(from)?;
    let mut source = match keep_out(&from) {
        Err(ReplaceError::Io(error)) if is_write_protected(&error) => File::open(&from)?,
        held => held?,
    };
    copy_part(&mut source, draft, file)?;
    for suffix in ["-wal", "-journal"] {
        match File::open(with_suffix(&from, suffix)) {
            Ok(mut part) => copy_part(&mut part, &with_suffix(draft, suffix), file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_part(part: &mut File, draft: &Path, file: &Path) -> io::Result<()> {
    let mut copy = create_for_owner_of(owned_like(file), draft)?;
    io::copy(part, &mut copy)?;
    copy.sync_all()
}

/// Puts a settled database in the place of another, which stays under other names. Whoever is interrupted, even by a power
/// failure, leaves the one or the other whole.
pub fn replace(draft: &Path, file: &Path) -> Result<Kept, ReplaceError> {
    let _alone = put_to_rest(file)?;
    let (kept_as, parts) = (files::kept_name(file, &random::id()), parts_of(file)?);
    for step in steps(draft, file, &kept_as, &parts) {
        step.take()?;
    }
    let (database, beside) = parts
        .into_iter()
        .partition::<Vec<_>, _>(|part| part.is_empty());
    Ok(Kept {
        beside: beside
            .iter()
            .map(|part| with_suffix(&kept_as, part))
            .collect(),
        database: database.first().map(|_| kept_as),
    })
}

/// Brings everything of a database that is in use no more into its one file, unless it is broken, and keeps others out of it.
fn put_to_rest(file: &Path) -> Result<Option<File>, ReplaceError> {
    if !file.try_exists()? {
        return Ok(None);
    }
    let settled = sqlite_file::begins_as_database(file)?.then(|| settle(file));
    let held = keep_out(file)?;
    match settled {
        // Somebody came in between, who may have written.
        Some(Ok(())) if parts_of(file)?.len() > 1 => Err(ReplaceError::open(file)),
        // A full disk or the like: what the log holds would be left behind. A broken file holds it no more.
        Some(Err(error)) if error.is_unavailable() => Err(error.into()),
        _ => Ok(Some(held)),
    }
}

/// Whoever uses a database of SQLite has a lock on some of its bytes; this one is on all. It ends with the handle, or with any
/// other handle of the file in this process.
fn keep_out(file: &Path) -> Result<File, ReplaceError> {
    let handle = OpenOptions::new().read(true).write(true).open(file)?;
    match fcntl_lock(&handle, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(handle),
        Err(Errno::AGAIN | Errno::ACCESS) => Err(ReplaceError::open(file)),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

/// What there is of a database, by its suffixes: the file itself and what SQLite put beside it.
fn parts_of(file: &Path) -> io::Result<Vec<&'static str>> {
    let mut parts = Vec::new();
    for suffix in [""].into_iter().chain(BESIDE) {
        if with_suffix(file, suffix).try_exists()? {
            parts.push(suffix);
        }
    }
    Ok(parts)
}

/// One thing that is done to a folder, as a whole or not at all.
enum Step {
    Link(PathBuf, PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
    /// What was done before is on the disk before anything is done after.
    Sync(PathBuf),
}

impl Step {
    fn take(&self) -> io::Result<()> {
        match self {
            Self::Link(from, to) => fs::hard_link(from, to),
            Self::Remove(file) => fs::remove_file(file),
            Self::Rename(from, to) => fs::rename(from, to),
            Self::Sync(file) => sync_folder(file),
        }
    }
}

/// The old database has all its second names before it loses one of its first, and a log of it is never read into the new one.
fn steps(draft: &Path, file: &Path, kept_as: &Path, parts: &[&str]) -> Vec<Step> {
    let sync = || [Step::Sync(file.to_owned())];
    let links = parts
        .iter()
        .map(|part| Step::Link(with_suffix(file, part), with_suffix(kept_as, part)));
    let beside = parts.iter().filter(|part| !part.is_empty());
    let removals = beside.map(|part| Step::Remove(with_suffix(file, part)));
    links
        .chain(sync())
        .chain(removals)
        .chain(sync())
        .chain([Step::Rename(draft.to_owned(), file.to_owned())])
        .chain(sync())
        .collect()
}

fn is_write_protected(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
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
    target.connect(Use::Write).map_err(|error| match error {
        // Of what is no database SQLite says so here; waiting would not help.
        ConnectionError::CouldntSetupConfiguration(error) => error.into(),
        error => error.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tempfile::TempDir;

    use super::*;

    /// What lies under one name of a database, by suffix.
    fn set(file: &Path) -> BTreeMap<&'static str, String> {
        let parts = parts_of(file).unwrap();
        let read = |part| fs::read_to_string(with_suffix(file, part)).unwrap();
        parts.into_iter().map(|part| (part, read(part))).collect()
    }

    #[test]
    fn r24_after_every_single_step_the_new_database_is_there_or_all_of_the_old_one() {
        let cases: [&[&str]; 5] = [
            &[],
            &[""],
            &["-wal", "-shm"],
            &["", "-wal", "-shm"],
            &["", "-journal"],
        ];
        for parts in cases {
            for taken in 0..=steps(Path::new(""), Path::new(""), Path::new(""), parts).len() {
                let folder = TempDir::new().unwrap();
                let [file, draft, kept] = ["a.db", "draft", "kept"].map(|n| folder.path().join(n));
                for part in parts {
                    fs::write(with_suffix(&file, part), format!("old{part}")).unwrap();
                }
                fs::write(&draft, "new").unwrap();
                let before = set(&file);
                let all = steps(&draft, &file, &kept, &parts_of(&file).unwrap());
                for step in all.iter().take(taken) {
                    step.take().unwrap();
                }
                let (here, kept) = (set(&file), set(&kept));
                if here.get("").is_some_and(|text| text == "new") {
                    assert_eq!(here.len(), 1, "{parts:?} {taken}: no log of another's");
                    assert_eq!(kept, before, "{parts:?} {taken}");
                } else {
                    assert!(taken < all.len() - 1, "{parts:?} {taken}");
                    assert!(here == before || kept == before, "{parts:?} {taken}");
                    assert_eq!(here.get(""), before.get(""), "{parts:?} {taken}");
                }
            }
        }
    }
}
