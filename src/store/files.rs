//! SQLite's files: nobody else may read them, and one server at a time may serve them.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::OpenError;

/// Creates the database when there is none, and answers its path without symbolic links, so that two names of one
/// file have one lock.
pub(super) fn prepare(path: &Path) -> Result<PathBuf, OpenError> {
    // Only a new file is opened: closing any handle of an existing one would drop SQLite's locks in this process.
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(file_error(path, error)),
    }
    let file = fs::canonicalize(path).map_err(|error| file_error(path, error))?;
    // SQLite gives -wal and -shm the mode of the database itself.
    for suffix in ["", "-wal", "-shm"] {
        warn_when_others_may_read(&with_suffix(&file, suffix));
    }
    Ok(file)
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
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            file: file.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(file_error(&path, error)),
    }
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
    let folder = file.parent().filter(|path| !path.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
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
