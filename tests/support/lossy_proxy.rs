//! A network that loses what it is told to lose: a proxy before the server that cuts one exchange at any point.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use serde_json::Value;
use url::Url;

/// Serves until the test process ends.
pub struct LossyProxy {
    /// What a client speaks to instead of the issuer.
    pub url: String,
    next: Arc<Mutex<Option<(Loss, Ending)>>>,
    lost: Receiver<Value>,
}

/// Where an exchange is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The request never reaches the server.
    Request,
    /// The server sees the request's head and half of its body.
    HalfOfTheRequest,
    /// The server has the whole request, and nobody to answer.
    Server,
    /// The server answered, and this much of it arrives.
    Answer(Arrives),
}

/// How much of an answer arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrives {
    Nothing,
    OneByte,
    HalfOfTheStatusLine,
    TheStatusLine,
    HalfOfTheHeaders,
    AllButTheEmptyLine,
    TheHead,
    OneByteOfTheBody,
    HalfOfTheBody,
    AllButTheLastByte,
}

/// How the client learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Close,
    Reset,
}

impl Arrives {
    pub const ALL: [Self; 10] = [
        Self::Nothing,
        Self::OneByte,
        Self::HalfOfTheStatusLine,
        Self::TheStatusLine,
        Self::HalfOfTheHeaders,
        Self::AllButTheEmptyLine,
        Self::TheHead,
        Self::OneByteOfTheBody,
        Self::HalfOfTheBody,
        Self::AllButTheLastByte,
    ];

    fn bytes(self, answer: &Message) -> usize {
        let (head, whole) = (answer.head, answer.bytes.len());
        let line = find(&answer.bytes, b"\r\n").unwrap() + 2;
        match self {
            Self::Nothing => 0,
            Self::OneByte => 1,
            Self::HalfOfTheStatusLine => line / 2,
            Self::TheStatusLine => line,
            Self::HalfOfTheHeaders => line.midpoint(head),
            Self::AllButTheEmptyLine => head - 2,
            Self::TheHead => head,
            Self::OneByteOfTheBody => head + 1,
            Self::HalfOfTheBody => head.midpoint(whole),
            Self::AllButTheLastByte => whole - 1,
        }
    }
}

impl LossyProxy {
    pub fn before(issuer: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Url::parse(issuer).unwrap().socket_addrs(|| None).unwrap();
        let next = Arc::new(Mutex::new(None));
        let (sender, lost) = mpsc::channel();
        let plan = Arc::clone(&next);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let connection = Connection {
                    client,
                    server: server.clone(),
                    plan: Arc::clone(&plan),
                    lost: sender.clone(),
                };
                std::thread::spawn(move || connection.serve());
            }
        });
        Self { url, next, lost }
    }

    /// The next exchange is cut; those after it are not.
    pub fn lose_next(&self, loss: Loss, ending: Ending) {
        *self.next.lock().unwrap() = Some((loss, ending));
    }

    /// The answer that the server gave and that did not arrive.
    pub fn lost_answer(&self) -> Value {
        self.lost
            .recv_timeout(Duration::from_secs(20))
            .expect("an answer was lost")
    }
}

struct Connection {
    client: TcpStream,
    server: Vec<std::net::SocketAddr>,
    plan: Arc<Mutex<Option<(Loss, Ending)>>>,
    lost: Sender<Value>,
}

impl Connection {
    fn serve(mut self) {
        while let Some(request) = Message::read(&mut self.client) {
            let planned = self.plan.lock().unwrap().take();
            let Some((loss, ending)) = planned else {
                let answer = self.forward(&request);
                self.client.write_all(&answer.bytes).unwrap();
                continue;
            };
            self.lose(&request, loss);
            if ending == Ending::Reset {
                set_socket_linger(&self.client, Some(Duration::ZERO)).unwrap();
            }
            return;
        }
    }

    fn lose(&mut self, request: &Message, loss: Loss) {
        match loss {
            Loss::Request => {}
            Loss::HalfOfTheRequest => {
                let half = request.head.midpoint(request.bytes.len());
                self.connect().write_all(&request.bytes[..half]).unwrap();
            }
            Loss::Server => {
                let mut server = self.connect();
                server.write_all(&request.bytes).unwrap();
                server.shutdown(Shutdown::Both).unwrap();
            }
            Loss::Answer(arrives) => {
                let answer = self.forward(request);
                let arriving = arrives.bytes(&answer);
                self.client.write_all(&answer.bytes[..arriving]).unwrap();
                let body = serde_json::from_slice(&answer.bytes[answer.head..]).unwrap();
                self.lost.send(body).unwrap();
            }
        }
    }

    fn forward(&self, request: &Message) -> Message {
        let mut server = self.connect();
        server.write_all(&request.bytes).unwrap();
        Message::read(&mut server).expect("the server answers")
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.server.as_slice()).unwrap()
    }
}

/// A request or an answer, whole; its body begins at `head`.
struct Message {
    bytes: Vec<u8>,
    head: usize,
}

impl Message {
    fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(end) = find(&bytes, b"\r\n\r\n") {
                break end + 4;
            }
            more(stream, &mut bytes)?;
        };
        let length = content_length(&bytes[..head]);
        while bytes.len() < head + length {
            more(stream, &mut bytes)?;
        }
        Some(Self { bytes, head })
    }
}

fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 4096];
    let read = stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
    bytes.extend_from_slice(&chunk[..read]);
    Some(())
}

fn content_length(head: &[u8]) -> usize {
    let head = std::str::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(!head.contains("transfer-encoding:"), "{head}");
    head.lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(0, |length| length.trim().parse().unwrap())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
