//! Requests as bytes that no library would send, and every answer that comes back on their connection. RFC 9112.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

/// The server's longest deadline is the 15 seconds of a body; a busy machine takes longer, one that hangs for ever.
pub const LONGEST: Duration = Duration::from_secs(60);
/// After so long without a word, nothing more is expected from a server that may be waiting for us.
const SILENCE: Duration = Duration::from_millis(300);

/// How much of a request there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it, and nobody can be in doubt where it ends: there must be an answer.
    Whole,
    /// Where it ends is a matter of opinion: an answer, or a closed connection.
    Doubtful,
    /// It breaks off, and the sender is gone.
    BrokenOff,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Connects from another address of this machine.
pub fn connect_from(from: impl Into<Ipv4Addr>, address: &str) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddrV4::new(from.into(), 0)).unwrap();
    let port = address.rsplit(':').next().unwrap().parse().unwrap();
    connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).unwrap();
    TcpStream::from(socket)
}

/// Sends bytes and reads until the answer is whole, or until the server closes. What never comes to an end is an error.
pub fn converse(address: &str, request: &[u8], extent: Extent) -> Result<Vec<Reply>, String> {
    converse_from(Ipv4Addr::LOCALHOST, address, request, extent)
}

/// The same from another address of this machine.
pub fn converse_from(
    from: impl Into<Ipv4Addr>,
    address: &str,
    request: &[u8],
    extent: Extent,
) -> Result<Vec<Reply>, String> {
    let began = Instant::now();
    let mut stream = connect_from(from, address);
    let set = stream.set_write_timeout(Some(LONGEST));
    set.and_then(|()| stream.set_read_timeout(Some(SILENCE)))
        .map_err(|error| error.to_string())?;
    // The server may answer, and close, before a request that it doesn't want is through.
    let _cut_short = stream.write_all(request);
    let has_no_bodies = request.starts_with(b"HEAD ");
    let mut finished = extent == Extent::BrokenOff;
    if finished {
        let _closed_before = stream.shutdown(Shutdown::Write);
    }
    let (mut bytes, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                bytes.extend_from_slice(&buffer[..count]);
                if extent == Extent::Whole && is_answered(&bytes, has_no_bodies) {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if began.elapsed() > LONGEST {
                    return Err(format!(
                        "neither answered nor closed after {LONGEST:?}; so far: {}",
                        String::from_utf8_lossy(&bytes)
                    ));
                }
                if !finished && (extent != Extent::Whole || !bytes.is_empty()) {
                    finished = true;
                    let _closed_before = stream.shutdown(Shutdown::Write);
                }
            }
            Err(_reset) => break,
        }
    }
    let replies = replies(&bytes, has_no_bodies)?.0;
    if extent == Extent::Whole && replies.is_empty() {
        return Err("closed without an answer".to_owned());
    }
    Ok(replies)
}

fn is_answered(bytes: &[u8], has_no_body: bool) -> bool {
    replies(bytes, has_no_body).is_ok_and(|(replies, whole)| !replies.is_empty() && whole)
}

/// The answers so far without the provisional ones, and whether the last one is whole.
fn replies(mut bytes: &[u8], have_no_bodies: bool) -> Result<(Vec<Reply>, bool), String> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok((replies, false));
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes = &bytes[end + 4..];
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1."))
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .ok_or_else(|| format!("this is no answer: {head}"))?;
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        if status == 100 {
            continue;
        }
        let mut reply = Reply {
            status,
            headers,
            body: Vec::new(),
        };
        let whole = if have_no_bodies || matches!(status, 204 | 304) {
            true
        } else if reply.header("transfer-encoding") == Some("chunked") {
            take_chunks(&mut bytes, &mut reply.body)
        } else {
            let length = reply
                .header("content-length")
                .and_then(|it| it.parse().ok());
            let length: usize = length.unwrap_or(usize::MAX);
            let (body, rest) = bytes.split_at(length.min(bytes.len()));
            reply.body = body.to_vec();
            bytes = rest;
            reply.body.len() == length
        };
        replies.push(reply);
        if !whole {
            return Ok((replies, false));
        }
    }
    Ok((replies, true))
}

/// Whether the last chunk was there.
fn take_chunks(bytes: &mut &[u8], body: &mut Vec<u8>) -> bool {
    loop {
        let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else {
            return false;
        };
        let size = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let Ok(size) = usize::from_str_radix(&size, 16) else {
            return false;
        };
        let (from, to) = (end + 2, end + 2 + size);
        let Some(chunk) = bytes.get(from..to) else {
            return false;
        };
        body.extend_from_slice(chunk);
        *bytes = bytes.get(to + 2..).unwrap_or_default();
        if size == 0 {
            return true;
        }
    }
}
