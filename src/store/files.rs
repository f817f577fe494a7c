//! SQLite's files: nobody else may read them, and one server at a time may serve them.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::geteuid;
use tracing::warn;

use super::OpenError;

/// What comes between the name of a database and the name under which a restore keeps it.
const KEPT: &str = ".before-restore-";

/// Creates the database when there is none.
pub(super) fn make(path: &Path) -> Result<(), OpenError> {
    // Only a new file is opened: closing any handle of an existing one would drop SQLite's locks in this process.
    match create_for_owner_of(folder_of(path), path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(file_error(path, error)),
    }
}

/// The path of a database that is there, without symbolic links, so that two names of one file have one lock.
pub(super) fn find(path: &Path) -> Result<PathBuf, OpenError> {
    let file = fs::canonicalize(path).map_err(|error| match error.kind() {
        // In full, since a command in the wrong folder is what leads here most often.
        io::ErrorKind::NotFound => OpenError::Missing {
            file: std::path::absolute(path).unwrap_or_else(|_no_folder| path.to_owned()),
        },
        _ => file_error(path, error),
    })?;
    refuse_second_name(&file)?;
    // SQLite gives -wal and -shm the mode of the database itself.
    for suffix in ["", "-wal", "-shm"] {
        warn_when_others_may_read(&with_suffix(&file, suffix));
    }
    Ok(file)
}

/// Whether this account may not write to a file, or make another one beside it.
pub(super) fn is_read_only(file: &Path) -> bool {
    let folder = file.parent().unwrap_or(Path::new("/"));
    [file, folder]
        .iter()
        .any(|path| access(*path, Access::WRITE_OK).is_err())
}

/// Takes the lock that a server holds until its process ends, however it ends.
pub(super) fn lock(file: &Path) -> Result<File, OpenError> {
    let path = with_suffix(file, ".lock");
    let lock = match create_for_owner_of(owned_like(file), &path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            OpenOptions::new().write(true).open(&path)
        }
        made => made,
    };
    let lock = lock.map_err(|error| file_error(&path, error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            file: file.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(file_error(&path, error)),
    }
}

/// By two names of one file SQLite keeps two logs, and whoever writes by the one destroys what is written by the other. A
/// restore that was interrupted leaves a second name too, but by that one nobody opens it.
fn refuse_second_name(file: &Path) -> Result<(), OpenError> {
    let failed = |error| file_error(file, error);
    let metadata = fs::metadata(file).map_err(failed)?;
    if metadata.nlink() > 1 && metadata.nlink() > 1 + kept_names(file, &metadata).map_err(failed)? {
        return Err(OpenError::SecondName {
            file: file.to_owned(),
        });
    }
    Ok(())
}

fn kept_names(file: &Path, metadata: &fs::Metadata) -> io::Result<u64> {
    let prefix = with_suffix(file, KEPT);
    let mut found = 0;
    for entry in fs::read_dir(folder_of(file))? {
        let path = entry?.path();
        let is_ours = path
            .as_os_str()
            .as_encoded_bytes()
            .starts_with(prefix.as_os_str().as_encoded_bytes());
        if is_ours && fs::metadata(path)?.ino() == metadata.ino() {
            found += 1;
        }
    }
    Ok(found)
}

fn warn_when_others_may_read(path: &Path) {
    let Ok(metadata) = fs::metadata(path) else {
        return;
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        warn!(
            file = %path.display(),
            "others may read this file of the database: its mode is {mode:03o}, it should be 600"
        );
    }
}

/// Makes a file for one account's eyes only. What root makes beside the database of another account, that account must be
/// able to open.
pub(crate) fn create_for_owner_of(like: &Path, path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    if geteuid().is_root() {
        let owner = fs::metadata(like)?;
        let found = file.metadata()?;
        if (owner.uid(), owner.gid()) != (found.uid(), found.gid())
            && let Err(error) = fchown(&file, Some(owner.uid()), Some(owner.gid()))
        {
            // A container's root may not be allowed to, and may need the file itself.
            warn!(file = %path.display(), %error, "this file stays root's, though what is beside it is not");
        }
    }
    Ok(file)
}

/// Whose owner a file beside a database should have: the database's, or its folder's before there is one.
pub(super) fn owned_like(file: &Path) -> &Path {
    if file.exists() { file } else { folder_of(file) }
}

/// The name under which a restore keeps the database that it replaces.
pub(super) fn kept_name(file: &Path, id: &str) -> PathBuf {
    with_suffix(file, &format!("{KEPT}{id}"))
}

pub(crate) fn folder_of(file: &Path) -> &Path {
    file.parent()
        .filter(|path| !path.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// After a power failure a name that was given is there: the folder that holds it is on the disk.
pub(crate) fn sync_folder(file: &Path) -> io::Result<()> {
    File::open(folder_of(file))?.sync_all()
}

pub(crate) fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn file_error(path: &Path, source: io::Error) -> OpenError {
    OpenError::File {
        file: path.to_owned(),
        source,
    }
}
