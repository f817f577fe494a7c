//! HTTP/1.1 by hand over one connection that is kept: no more than what this server answers, so that asking costs little.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::Outcome;

/// A server that takes longer than this for an answer has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const LARGEST_ANSWER: usize = 256 * 1024;

/// Sends one request after the other.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Not in the middle of an answer, or worse.
    whole: bool,
}

/// An answer, in the connection's own buffer.
pub(crate) struct Response<'a> {
    pub(crate) status: u16,
    head: &'a str,
    pub(crate) body: &'a str,
}

impl Connection {
    pub(crate) fn open(port: u16) -> Outcome<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            buffer: vec![0; LARGEST_ANSWER],
            whole: true,
        })
    }

    /// Whether another request can be sent.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Sends prepared bytes and reads the whole answer. After an error the connection is of no use any more.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> Outcome<Response<'_>> {
        self.whole = false;
        self.stream.write_all(request)?;
        let (mut filled, mut whole) = (0, None);
        while whole.is_none_or(|(_, end)| filled < end) {
            let free = self.buffer.get_mut(filled..).unwrap_or_default();
            if free.is_empty() {
                return Err("the answer is too long".into());
            }
            let read = self.stream.read(free)?;
            if read == 0 {
                return Err("the server closed the connection".into());
            }
            filled += read;
            if whole.is_none() {
                whole = extent(self.buffer.get(..filled).unwrap_or_default())?;
            }
        }
        let Some((head, end)) = whole.filter(|(_, end)| *end == filled) else {
            return Err("more came than was announced".into());
        };
        let text = std::str::from_utf8(self.buffer.get(..end).unwrap_or_default())?;
        let (head, body) = text
            .split_at_checked(head)
            .ok_or("a head that ends within a character")?;
        let status = status(head)?;
        self.whole = true;
        Ok(Response { status, head, body })
    }
}

impl<'a> Response<'a> {
    pub(crate) fn headers(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.head
            .split("\r\n")
            .filter_map(|line| line.split_once(':'))
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    /// The body of an answer with this status; any other answer is an error that quotes it.
    pub(crate) fn expect(&self, status: u16) -> Outcome<&'a str> {
        if self.status == status {
            return Ok(self.body);
        }
        let start: String = self.body.chars().take(200).collect();
        Err(format!("{} where {status} was expected: {start}", self.status).into())
    }

    /// Where a redirect leads.
    pub(crate) fn location(&self) -> Outcome<&'a str> {
        self.expect(303)?;
        let location = self.headers("location").next();
        location.ok_or_else(|| "a redirect without an address".into())
    }
}

/// What browsers say, and most apps something like it. An answer that is made for one of them is as it is all the same.
pub(crate) const ACCEPTS: (&str, &str) = ("accept-encoding", "gzip, deflate, br, zstd");

pub(crate) fn get(port: u16, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    request("GET", port, path, headers, "")
}

pub(crate) fn post(
    port: u16,
    path: &str,
    headers: &[(&str, &str)],
    form: &[(&str, &str)],
) -> Vec<u8> {
    let body = encode(form);
    let length = body.len().to_string();
    let own = [
        ACCEPTS,
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-length", &length),
    ];
    request("POST", port, path, &[&own, headers].concat(), &body)
}

pub(crate) fn encode(parameters: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .finish()
}

fn request(method: &str, port: u16, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: localhost:{port}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    format!("{text}\r\n{body}").into_bytes()
}

/// Where the head ends and where the body does, once the head is there. Lengths are announced here, never chunked.
fn extent(received: &[u8]) -> Outcome<Option<(usize, usize)>> {
    let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head_length = end + 4;
    let head = std::str::from_utf8(received.get(..head_length).unwrap_or_default())?;
    let probe = Response {
        status: 0,
        head,
        body: "",
    };
    let Some(length) = probe.headers("content-length").next() else {
        return Err("an answer without content-length".into());
    };
    Ok(Some((head_length, head_length + length.parse::<usize>()?)))
}

fn status(head: &str) -> Outcome<u16> {
    let code = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    Ok(code.ok_or("not an answer in HTTP/1.1")?.parse()?)
}
