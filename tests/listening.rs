//! Where a server waits: a socket at a path, and one that it was handed (`sd_listen_fds(3)`).

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::wait::within;

const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a database of its own.
struct Place(TempDir);

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ended_before = self.0.kill();
        let _status = self.0.wait();
    }
}

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The server, by way of a shell that may prepare something.
    fn command(&self, listen: &Path, prepare: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{prepare} exec \"$0\" serve")])
            .arg(env!("CARGO_BIN_EXE_latchkey"))
            .current_dir(self.0.path())
            .env_clear()
            .env("LATCHKEY_ISSUER", "http://localhost:1")
            .env("LATCHKEY_LISTEN", format!("unix:{}", listen.display()))
            .env(
                "LATCHKEY_MANAGEMENT__LISTEN",
                format!("unix:{}", self.path("management.sock").display()),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    fn serve(&self, listen: &Path) -> Server {
        let server = Server(self.command(listen, "").spawn().unwrap());
        until_ready(|| UnixStream::connect(listen).ok());
        server
    }

    fn refused(&self, listen: &Path) -> String {
        said(self.command(listen, "").output().unwrap())
    }

    /// A server that finds sockets open from the third file on, as a service manager hands them over.
    fn activated(&self, socket: OwnedFd, count: u32) -> Command {
        let prepare = format!(
            "exec 3<&0 4<&0 0</dev/null; export LISTEN_FDS={count} LISTEN_FDNAMES=latchkey LISTEN_PID=$$;"
        );
        let mut command = self.command(&self.path("unused.sock"), &prepare);
        command.stdin(Stdio::from(socket));
        command
    }
}

fn said(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

fn is_ready(mut stream: impl Read + Write) -> bool {
    let asked =
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    asked
        .and_then(|()| stream.read_to_string(&mut answer))
        .is_ok()
        && answer.contains(" 200 ")
}

fn until_ready<S: Read + Write>(connect: impl Fn() -> Option<S>) {
    within(PATIENCE, "the server is ready", || {
        connect().is_some_and(is_ready).then_some(())
    });
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_file_at_the_place_of_a_socket_stays_and_the_server_refuses_to_start() {
    let place = Place::new();
    let file = place.path("precious");
    fs::write(&file, "precious").unwrap();
    let text = place.refused(&file);
    assert!(
        text.contains(&format!("can't listen on unix:{}", file.display()))
            && text.contains("no socket"),
        "{text}"
    );
    assert_eq!(fs::read_to_string(file).unwrap(), "precious");
}

#[test]
fn a_second_server_does_not_take_the_socket_of_the_first() {
    let (first, second) = (Place::new(), Place::new());
    let socket = first.path("latchkey.sock");
    let mut server = first.serve(&socket);
    let text = second.refused(&socket);
    assert!(
        text.contains("another program is listening there"),
        "{text}"
    );
    assert!(is_ready(UnixStream::connect(&socket).unwrap()));
    // What a killed one leaves behind is in nobody's way.
    server.0.kill().unwrap();
    server.0.wait().unwrap();
    assert!(socket.exists());
    let _second = second.serve(&socket);
}

#[test]
fn a_proxy_of_another_account_reaches_the_socket_and_only_the_group_reaches_metrics() {
    let place = Place::new();
    let socket = place.path("latchkey.sock");
    let _server = place.serve(&socket);
    assert_eq!(mode(&socket), 0o666);
    assert_eq!(mode(&place.path("management.sock")), 0o660);
}

#[test]
fn a_server_serves_on_the_socket_that_it_was_handed() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server(place.activated(listener.into(), 1).spawn().unwrap());
    until_ready(|| TcpStream::connect(address).ok());
    assert!(!place.path("unused.sock").exists());
    drop(server);

    let path = place.path("handed.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let _server = Server(place.activated(listener.into(), 1).spawn().unwrap());
    until_ready(|| UnixStream::connect(&path).ok());
}

#[test]
fn a_server_that_was_handed_what_it_cannot_serve_on_says_so() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = said(place.activated(listener.into(), 2).output().unwrap());
    assert!(
        text.contains("2 sockets were handed over (LISTEN_FDS)"),
        "{text}"
    );
    let datagram = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let text = said(place.activated(datagram.into(), 1).output().unwrap());
    assert!(text.contains("is no stream"), "{text}");
}
