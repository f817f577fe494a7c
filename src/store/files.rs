//! SQLite's files: nobody else may read them, and one server at a time may serve them.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use tracing::warn;

use super::OpenError;

/// Creates the database when there is none.
pub(super) fn make(path: &Path) -> Result<(), OpenError> {
    // Only a new file is opened: closing any handle of an existing one would drop SQLite's locks in this process.
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
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
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| file_error(&path, error))?;
    give_to_owner_of(file, &path).map_err(|error| file_error(&path, error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            file: file.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(file_error(&path, error)),
    }
}

/// What root makes for a database belongs to whom that belongs, or its folder while there is none: the server runs under an
/// account of its own, and could not use it. Nobody else can give files away.
pub(super) fn give_to_owner_of(database: &Path, file: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = match fs::metadata(database) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::metadata(folder_of(database))?,
        found => found?,
    };
    chown(file, Some(owner.uid()), Some(owner.gid()))
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

/// After a power failure a name that was given is there: the folder that holds it is on the disk.
pub(crate) fn sync_folder(file: &Path) -> io::Result<()> {
    File::open(folder_of(file))?.sync_all()
}

pub(super) fn folder_of(file: &Path) -> &Path {
    let folder = file.parent().filter(|path| !path.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
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
