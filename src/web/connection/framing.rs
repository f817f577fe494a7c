//! Where a request ends in the bytes of a connection. RFC 9112 §2.1, §6.3 and §7.1.
//!
//! This is no parser: it decides only how many bytes the real one is given at a time. Whoever sends what the two
//! understand differently waits, and a deadline ends the connection.

/// Of a line so much is looked at; every header that counts here is shorter.
const LOOKED_AT: usize = 128;

#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
}

/// How far a request goes in some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) length: usize,
    /// Whether the request ends there; else all of the bytes are part of it.
    pub(super) ends: bool,
}

#[derive(Debug)]
enum State {
    Head {
        line: Vec<u8>,
        has_begun: bool,
        body: Body,
    },
    /// So many bytes of a body are still to come.
    Body(u64),
    ChunkSize {
        line: Vec<u8>,
    },
    /// The data of a chunk and the end of line behind it.
    Chunk(u64),
    Trailer {
        is_empty: bool,
    },
}

/// What the lines of a head said of the body so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Body {
    #[default]
    None,
    Length(u64),
    Chunked,
}

impl Default for State {
    fn default() -> Self {
        Self::Head {
            line: Vec::new(),
            has_begun: false,
            body: Body::None,
        }
    }
}

impl Framing {
    /// Whether nothing of a request has come yet.
    pub(super) fn is_between_requests(&self) -> bool {
        matches!(
            self.state,
            State::Head {
                has_begun: false,
                ..
            }
        )
    }

    /// Goes on to the end of the request that these bytes belong to, if it is among them.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Extent {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (taken, ended) = self.step(rest);
            rest = rest.get(taken..).unwrap_or_default();
            if ended {
                self.state = State::default();
                return Extent {
                    length: bytes.len() - rest.len(),
                    ends: true,
                };
            }
        }
        Extent {
            length: bytes.len(),
            ends: false,
        }
    }

    /// One line, or one run of data: how many bytes it took, and whether the request ended with it.
    fn step(&mut self, bytes: &[u8]) -> (usize, bool) {
        match &mut self.state {
            State::Body(left) | State::Chunk(left) => {
                let taken =
                    usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= taken as u64;
                let is_over = *left == 0;
                let is_body = matches!(self.state, State::Body(_));
                if is_over && !is_body {
                    self.state = State::ChunkSize { line: Vec::new() };
                }
                (taken, is_over && is_body)
            }
            State::Head {
                line,
                has_begun,
                body,
            } => {
                *has_begun |= !matches!(bytes, [b'\r' | b'\n', ..]);
                let (taken, is_whole) = collect(line, bytes);
                if !is_whole {
                    return (taken, false);
                }
                let line = std::mem::take(line);
                if !line.is_empty() {
                    *body = body.told_by(&line);
                    return (taken, false);
                }
                if !*has_begun {
                    return (taken, false);
                }
                let body = *body;
                (taken, self.begin(body))
            }
            State::ChunkSize { line } => {
                let (taken, is_whole) = collect(line, bytes);
                if is_whole {
                    self.state = match chunk_size(line) {
                        0 => State::Trailer { is_empty: true },
                        size => State::Chunk(size.saturating_add(2)),
                    };
                }
                (taken, false)
            }
            State::Trailer { is_empty } => {
                let (line, is_whole) = line_of(bytes);
                *is_empty &= line.iter().all(|byte| *byte == b'\r' || *byte == b'\n');
                let ends = is_whole && *is_empty;
                if is_whole {
                    *is_empty = true;
                }
                (line.len(), ends)
            }
        }
    }

    /// Behind a head; answers whether the request has ended with it.
    fn begin(&mut self, body: Body) -> bool {
        self.state = match body {
            Body::None | Body::Length(0) => return true,
            Body::Length(length) => State::Body(length),
            Body::Chunked => State::ChunkSize { line: Vec::new() },
        };
        false
    }
}

impl Body {
    /// A coding counts before a length (RFC 9112 §6.3).
    fn told_by(self, line: &[u8]) -> Self {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return self;
        };
        let (name, value) = line.split_at(colon);
        let value =
            String::from_utf8_lossy(value.get(1..).unwrap_or_default()).to_ascii_lowercase();
        if name.eq_ignore_ascii_case(b"transfer-encoding") && value.contains("chunked") {
            Self::Chunked
        } else if name.eq_ignore_ascii_case(b"content-length") && self != Self::Chunked {
            value.trim().parse().map_or(self, Self::Length)
        } else {
            self
        }
    }
}

/// Adds to a line up to its end; answers how many bytes that took, and whether the line is whole, its end taken off.
fn collect(line: &mut Vec<u8>, bytes: &[u8]) -> (usize, bool) {
    let (part, is_whole) = line_of(bytes);
    let room = LOOKED_AT.saturating_sub(line.len());
    line.extend(
        part.iter()
            .filter(|byte| !matches!(byte, b'\r' | b'\n'))
            .take(room),
    );
    (part.len(), is_whole)
}

/// The bytes up to the end of the line, and whether that is among them.
fn line_of(bytes: &[u8]) -> (&[u8], bool) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (bytes.get(..=end).unwrap_or_default(), true),
        None => (bytes, false),
    }
}

/// What is no number ends the body: the parser refuses it.
fn chunk_size(line: &[u8]) -> u64 {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let digits = std::str::from_utf8(digits).unwrap_or_default();
    u64::from_str_radix(digits.trim(), 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "GET /login HTTP/1.1\r\nhost: a\r\n\r\n";
    const EMPTY: &str = "POST /token HTTP/1.1\r\nContent-Length:0\r\n\r\n";
    const BODY: &str = "POST /token HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\na=\r\n\r\n=b";
    const CHUNKED: &str = "POST /token HTTP/1.1\r\ncontent-length: 3\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n\
                           5;x=y\r\na\r\n\r\n\r\nA\r\n0123456789\r\n0\r\nx: y\r\n\r\n";
    const BARE: &str = "\r\n\nGET / HTTP/1.1\nhost: a\n\n";

    /// The requests of a text, as they are found when it comes in pieces of so many bytes.
    fn requests(text: &str, piece: usize) -> Vec<String> {
        let (mut framing, mut found, mut current) = (Framing::default(), Vec::new(), Vec::new());
        for piece in text.as_bytes().chunks(piece) {
            let mut rest = piece;
            while !rest.is_empty() {
                let extent = framing.advance(rest);
                let (taken, left) = rest.split_at(extent.length);
                current.extend_from_slice(taken);
                rest = left;
                if extent.ends {
                    found.push(String::from_utf8(std::mem::take(&mut current)).unwrap());
                }
            }
        }
        found.extend((!current.is_empty()).then(|| String::from_utf8(current).unwrap()));
        found
    }

    #[test]
    fn a_request_ends_where_its_body_does_however_it_comes() {
        let all = [PLAIN, EMPTY, BODY, CHUNKED, BARE, PLAIN];
        for piece in [1, 2, 3, 7, 64, 10_000] {
            assert_eq!(requests(&all.concat(), piece), all, "{piece}");
        }
    }

    #[test]
    fn what_has_not_ended_is_all_there_is() {
        for half in [
            "GET / HT",
            "GET / HTTP/1.1\r\nhost: a\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nabc",
        ] {
            let mut framing = Framing::default();
            let extent = framing.advance(half.as_bytes());
            assert_eq!(
                (extent.length, extent.ends),
                (half.len(), false),
                "{half:?}"
            );
            assert!(!framing.is_between_requests());
        }
    }

    #[test]
    fn empty_lines_before_a_request_begin_none() {
        let mut framing = Framing::default();
        assert!(framing.is_between_requests());
        framing.advance(b"\r\n\r\n\n");
        assert!(framing.is_between_requests());
        assert!(framing.advance(PLAIN.as_bytes()).ends);
        assert!(framing.is_between_requests());
    }

    #[test]
    fn lengths_and_chunks_that_are_none_are_borne() {
        for (text, first) in [
            ("POST / HTTP/1.1\r\ncontent-length: x\r\n\r\nabc", 38),
            (
                "POST / HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\nabc",
                60,
            ),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\nabc",
                53,
            ),
        ] {
            let extent = Framing::default().advance(text.as_bytes());
            assert_eq!((extent.length, extent.ends), (first, true), "{text:?}");
        }
        let most = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n", u64::MAX);
        let mut framing = Framing::default();
        framing.advance(most.as_bytes());
        assert!(!framing.advance(&[b'x'; 1_000]).ends);
    }
}
