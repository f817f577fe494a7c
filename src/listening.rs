//! Sockets to wait on that are no plain address: a path, and one that the service manager opened for us (`sd_listen_fds(3)`).

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use listenfd::ListenFd;

/// Connections that may wait to be accepted.
const MOST_WAITING: i32 = 2_048;

/// Who may connect to a socket, apart from what its folder allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// A proxy runs under an account of its own. The folder says which may come through, as with other servers' sockets.
    Everybody,
    /// Metrics tell who signs in when, so another account gets there by our group alone.
    Group,
}

/// An open listener; whoever connects to it waits until somebody accepts.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(crate) fn tcp(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        // The standard library lets few wait, and Linux lets that be changed.
        rustix::net::listen(&listener, MOST_WAITING)?;
        Ok(Self::Tcp(listener))
    }

    /// What is there already and in use, or is no socket of a server that was killed, stays.
    pub(crate) fn at_path(path: &Path, access: Access) -> io::Result<Self> {
        remove_stale_socket(path)?;
        let listener = UnixListener::bind(path)?;
        let mode = match access {
            Access::Everybody => 0o666,
            Access::Group => 0o660,
        };
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        Ok(Self::Unix(listener))
    }
}

/// A socket that a killed process left behind would keep us from binding.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        let text = "a file that is no socket is there, and stays";
        return Err(io::Error::new(ErrorKind::AlreadyExists, text));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Also when it was too busy to answer, or would not have us.
        _ => Err(io::Error::new(
            ErrorKind::AddrInUse,
            "another program is listening there",
        )),
    }
}

/// The listener of socket activation, if this process was started by one. It takes the place of `listen`.
///
/// To be called before there are threads, since it changes the environment.
pub fn inherited() -> io::Result<Option<Listener>> {
    // Without the number of a process the variables may have been meant for whoever started us.
    if std::env::var_os("LISTEN_PID").is_none() {
        return Ok(None);
    }
    let mut given = ListenFd::from_env();
    match given.len() {
        0 => return Ok(None),
        1 => {}
        count => {
            return Err(refused(format!(
                "{count} sockets were handed over (LISTEN_FDS), and one is needed: the place of `listen`"
            )));
        }
    }
    if let Ok(Some(listener)) = given.take_tcp_listener(0) {
        return Ok(Some(Listener::Tcp(listener)));
    }
    match given.take_unix_listener(0) {
        Ok(Some(listener)) => Ok(Some(Listener::Unix(listener))),
        _ => Err(refused(
            "the socket that was handed over (LISTEN_FDS) is no stream, neither of TCP nor of a path"
                .to_owned(),
        )),
    }
}

fn refused(text: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        let metadata = fs::metadata(path).expect("a socket");
        metadata.permissions().mode() & 0o777
    }

    #[test]
    fn a_socket_is_open_to_those_whom_it_is_for() {
        let folder = tempfile::tempdir().expect("a folder");
        for (access, expected) in [(Access::Everybody, 0o666), (Access::Group, 0o660)] {
            let path = folder.path().join(format!("{expected:o}"));
            let _listener = Listener::at_path(&path, access).expect("a listener");
            assert_eq!(mode(&path), expected);
        }
    }

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let first = Listener::at_path(&path, Access::Group).expect("nothing is there");
        let error = Listener::at_path(&path, Access::Group).expect_err("it is in use");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        drop(first);
        Listener::at_path(&path, Access::Group).expect("nobody listens on it");

        let file = folder.path().join("file");
        fs::write(&file, "precious").expect("a file");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        for path in [&file, &link] {
            let error = Listener::at_path(path, Access::Group).expect_err("no socket");
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        }
        assert_eq!(fs::read_to_string(&file).expect("still there"), "precious");
    }
}
