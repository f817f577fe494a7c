//! `latchkey healthcheck`: for containers, which have no other HTTP client inside.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::failure::Failure;
use super::output::{self, Format};
use crate::config::{Config, Listen};

const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_ANSWER: u64 = 16 * 1024;

/// Asks the server that this configuration describes whether it is ready.
pub(super) fn run(
    config: &Config,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let asked = connect(&config.listen).and_then(|stream| match stream {
        Connected::Tcp(stream) => ask(config, stream),
        Connected::Unix(stream) => ask(config, stream),
    });
    let answer = asked.map_err(|error| {
        let (listen, seconds) = (&config.listen, PATIENCE.as_secs());
        Failure::new(match error.kind() {
            // What a socket says when its time is over.
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("no answer from {listen} within {seconds} s")
            }
            _ => format!("no answer from {listen}: {error}"),
        })
    })?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        return Err(Failure::new(format!(
            "not ready: the server at {} answers {status}",
            config.listen
        )));
    }
    match format {
        Format::Table => writeln!(out, "ready")?,
        Format::Json => output::object(out, &json!({ "ready": true }))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether anything listens where the server should.
pub(super) fn is_listening(listen: &Listen) -> bool {
    connect(listen).is_ok()
}

enum Connected {
    Tcp(TcpStream),
    Unix(UnixStream),
}

fn connect(listen: &Listen) -> std::io::Result<Connected> {
    Ok(match listen {
        Listen::Tcp(address) => {
            let stream = TcpStream::connect_timeout(&reachable(*address), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Connected::Tcp(stream)
        }
        Listen::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Connected::Unix(stream)
        }
    })
}

/// One request by hand: half a dozen headers don't need an asynchronous client.
fn ask(config: &Config, mut stream: impl Read + Write) -> std::io::Result<String> {
    let (base, host) = (config.issuer.path(), config.issuer.host());
    write!(
        stream,
        "GET {base}/readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A server that listens on every address is reached on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}
