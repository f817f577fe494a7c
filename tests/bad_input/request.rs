//! A request in parts, so that it can be wrong in one of them, and the bytes that it becomes.

use crate::support::raw_http::Extent;

/// The server's own limit for bodies is 64 kB. More than that may be cut off while it is still being sent.
const CERTAINLY_READ: usize = 60 * 1024;

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: Vec<u8>,
    /// Encoded pairs of the query.
    pub query: Vec<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Body,
    pub framing: Framing,
    pub spoilt: Vec<Spoil>,
}

#[derive(Clone, Debug)]
pub enum Body {
    Nothing,
    /// Encoded pairs.
    Form(Vec<Vec<u8>>),
    Bytes(Vec<u8>),
}

/// How the body's end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length,
    /// Longer than the body, by so much.
    TooLong(usize),
    /// Shorter than the body, by so much.
    TooShort(usize),
    TwoLengths,
    /// No number at all.
    NoNumber,
    Chunked,
    /// The chunks stop without the last one.
    HalfChunked,
    /// The first chunk announces more than it brings.
    ShortChunk,
    /// A size that is no number.
    BadChunk,
    /// Both `Content-Length` and `Transfer-Encoding`.
    Both,
    /// A coding that nobody knows.
    StrangeCoding,
}

/// What happens to the bytes. A position is a share of the whole, in thousandths.
#[derive(Clone, Debug)]
pub enum Spoil {
    BreakOff(usize),
    Flip(usize, u8),
    Insert(usize, Vec<u8>),
    LineFeedsOnly,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.as_bytes().to_vec(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Body::Nothing,
            framing: Framing::Length,
            spoilt: Vec::new(),
        }
    }

    pub fn query(mut self, pairs: &[(&str, &str)]) -> Self {
        self.query = encoded(pairs);
        self
    }

    pub fn form(mut self, pairs: &[(&str, &str)]) -> Self {
        self.body = Body::Form(encoded(pairs));
        self.header("content-type", "application/x-www-form-urlencoded")
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers
            .push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    /// The pairs that are worth changing: those of the body, or else of the query.
    pub fn pairs(&mut self) -> &mut Vec<Vec<u8>> {
        match &mut self.body {
            Body::Form(pairs) => pairs,
            Body::Nothing | Body::Bytes(_) => &mut self.query,
        }
    }

    pub fn bytes(&self, host: &str) -> Vec<u8> {
        let mut bytes = self.head(host);
        bytes.extend(self.framed(&self.body()));
        for spoil in &self.spoilt {
            spoil.apply(&mut bytes);
        }
        bytes
    }

    pub fn extent(&self) -> Extent {
        let breaks_off = matches!(
            self.framing,
            Framing::TooLong(_) | Framing::HalfChunked | Framing::ShortChunk
        );
        if breaks_off
            || self
                .spoilt
                .iter()
                .any(|spoil| matches!(spoil, Spoil::BreakOff(_)))
        {
            return Extent::BrokenOff;
        }
        let is_target = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_graphic);
        let is_framed = matches!(self.framing, Framing::Length | Framing::Chunked)
            && self.spoilt.is_empty()
            && is_target(&self.target())
            && self.path.starts_with(b"/")
            && self
                .headers
                .iter()
                .all(|(name, value)| is_plain(name, value))
            && self.method != "CONNECT";
        if is_framed && self.head("").len() < CERTAINLY_READ && self.body().len() < CERTAINLY_READ {
            Extent::Whole
        } else {
            Extent::Doubtful
        }
    }

    fn target(&self) -> Vec<u8> {
        let mut target = self.path.clone();
        if !self.query.is_empty() {
            target.push(b'?');
            target.extend(self.query.join(&b'&'));
        }
        target
    }

    fn head(&self, host: &str) -> Vec<u8> {
        let mut head = self.method.as_bytes().to_vec();
        head.push(b' ');
        head.extend(self.target());
        head.extend_from_slice(b" HTTP/1.1\r\n");
        let mut line = |name: &str, value: &[u8]| {
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value);
            head.extend_from_slice(b"\r\n");
        };
        line("host", host.as_bytes());
        line("connection", b"close");
        for (name, value) in &self.headers {
            line(name, value);
        }
        let length = self.body().len();
        match self.framing {
            Framing::Length if matches!(self.body, Body::Nothing) => {}
            Framing::Length => line("content-length", length.to_string().as_bytes()),
            Framing::TooLong(by) => line("content-length", (length + by).to_string().as_bytes()),
            Framing::TooShort(by) => {
                let length = length.saturating_sub(by);
                line("content-length", length.to_string().as_bytes());
            }
            Framing::TwoLengths => {
                line("content-length", length.to_string().as_bytes());
                line("content-length", (length + 1).to_string().as_bytes());
            }
            Framing::NoNumber => line("content-length", b"-1e3"),
            Framing::Chunked | Framing::HalfChunked | Framing::ShortChunk | Framing::BadChunk => {
                line("transfer-encoding", b"chunked");
            }
            Framing::Both => {
                line("content-length", length.to_string().as_bytes());
                line("transfer-encoding", b"chunked");
            }
            Framing::StrangeCoding => line("transfer-encoding", b"x-strange, chunked, gzip"),
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    fn body(&self) -> Vec<u8> {
        match &self.body {
            Body::Nothing => Vec::new(),
            Body::Form(pairs) => pairs.join(&b'&'),
            Body::Bytes(bytes) => bytes.clone(),
        }
    }

    fn framed(&self, body: &[u8]) -> Vec<u8> {
        let chunk = |announced: String| [announced.as_bytes(), b"\r\n", body, b"\r\n"].concat();
        match self.framing {
            Framing::Chunked | Framing::Both if body.is_empty() => b"0\r\n\r\n".to_vec(),
            Framing::Chunked | Framing::Both => {
                [chunk(format!("{:x}", body.len())), b"0\r\n\r\n".to_vec()].concat()
            }
            Framing::HalfChunked => chunk(format!("{:x}", body.len().max(1))),
            Framing::ShortChunk => chunk(format!("{:x}", body.len() + 100)),
            Framing::BadChunk => chunk("-f;x=\"".to_owned()),
            _ => body.to_vec(),
        }
    }
}

impl Spoil {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let at = |thousandths: usize, length: usize| length.saturating_sub(1) * thousandths / 1000;
        match self {
            Self::BreakOff(place) => bytes.truncate(at(*place, bytes.len())),
            Self::Flip(place, bits) => {
                let index = at(*place, bytes.len());
                if let Some(byte) = bytes.get_mut(index) {
                    *byte ^= bits;
                }
            }
            Self::Insert(place, what) => {
                let index = at(*place, bytes.len());
                bytes.splice(index..index, what.iter().copied());
            }
            Self::LineFeedsOnly => bytes.retain(|byte| *byte != b'\r'),
        }
    }
}

/// A header that leaves no doubt about where the request ends, and whether there is one.
fn is_plain(name: &str, value: &[u8]) -> bool {
    let is_about_the_connection = matches!(
        name.to_ascii_lowercase().as_str(),
        "content-length" | "transfer-encoding" | "connection" | "upgrade" | "expect" | "host"
    );
    !is_about_the_connection
        && value
            .iter()
            .all(|byte| *byte == b'\t' || (b' '..=b'~').contains(byte))
}

fn encoded(pairs: &[(&str, &str)]) -> Vec<Vec<u8>> {
    pairs
        .iter()
        .map(|(name, value)| pair(name, value))
        .collect()
}

pub fn pair(name: &str, value: &str) -> Vec<u8> {
    let mut pair = url::form_urlencoded::Serializer::new(String::new());
    pair.append_pair(name, value).finish().into_bytes()
}
