//! Listens while a server starts, since that may take long: PostgreSQL is away, or a migration is under way. Whoever looks
//! after the process sees that it lives, and everybody else when to come again.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::MessageBody as _;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::config::Config;
use crate::listening::Listener;
use crate::web::waiting;

const MOST_CONNECTIONS: usize = 256;
/// For a request and its answer.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_HEAD: u64 = 64 * 1024;
const LONGEST_REST: u64 = 1024 * 1024;

/// Answers on these listeners for as long as it is polled. They stay open.
pub(crate) async fn answer(
    config: &Config,
    clock: &Clock,
    listeners: [Option<&Listener>; 2],
) -> io::Result<Infallible> {
    let desk = Desk {
        config: config.clone(),
        clock: clock.clone(),
        places: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
    };
    let desk = Arc::new(desk);
    let [one, other] = listeners.map(|listener| accept_all(listener, &desk));
    tokio::select! {
        failed = one => failed,
        failed = other => failed,
    }
}

/// What is needed to answer anybody.
struct Desk {
    config: Config,
    clock: Clock,
    places: Arc<Semaphore>,
}

async fn accept_all(listener: Option<&Listener>, desk: &Arc<Desk>) -> io::Result<Infallible> {
    match listener {
        None => std::future::pending().await,
        Some(Listener::Tcp(listener)) => {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
            loop {
                let place = desk.place().await;
                let accepted = listener.accept().await;
                desk.serve(accepted.map(|(stream, _)| stream), place).await;
            }
        }
        Some(Listener::Unix(listener)) => {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::UnixListener::from_std(listener.try_clone()?)?;
            loop {
                let place = desk.place().await;
                let accepted = listener.accept().await;
                desk.serve(accepted.map(|(stream, _)| stream), place).await;
            }
        }
    }
}

impl Desk {
    async fn place(&self) -> OwnedSemaphorePermit {
        let places = Arc::clone(&self.places);
        places.acquire_owned().await.expect("it is never closed")
    }

    /// In a task of its own, which goes on when the start is done.
    async fn serve(
        self: &Arc<Self>,
        accepted: io::Result<impl AsyncRead + AsyncWrite + Unpin + 'static>,
        place: OwnedSemaphorePermit,
    ) {
        let Ok(stream) = accepted else {
            // Perhaps there are no files left, and then there are none for the next one either.
            sleep(Duration::from_millis(100)).await;
            return;
        };
        let desk = Arc::clone(self);
        actix_web::rt::spawn(async move {
            // Whoever is slow, or gone, is no concern of ours.
            let _ended = timeout(PATIENCE, desk.converse(stream)).await;
            drop(place);
        });
    }

    async fn converse(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let (reader, mut writer) = tokio::io::split(stream);
        let mut reader = BufReader::new(reader.take(LONGEST_HEAD));
        let line = request_line(&mut reader).await?;
        let mut words = line.split(' ');
        let (method, target) = (words.next(), words.next().unwrap_or_default());
        let path = target.split('?').next().unwrap_or_default();
        let answer = waiting::answer(&self.config, path, self.clock.now()).await;
        writer
            .write_all(&bytes(answer, method != Some("HEAD")))
            .await?;
        writer.shutdown().await?;
        // Closing with something unread would reset the connection, and perhaps take the answer along.
        let mut rest = reader.into_inner().into_inner().take(LONGEST_REST);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        Ok(())
    }
}

/// The first line, once the head has been read to its end.
async fn request_line(reader: &mut BufReader<impl AsyncRead + Unpin>) -> io::Result<String> {
    let (mut first, mut line) = (Vec::new(), Vec::new());
    reader.read_until(b'\n', &mut first).await?;
    while reader.read_until(b'\n', &mut line).await? > 2 {
        line.clear();
    }
    Ok(String::from_utf8_lossy(&first).trim_end().to_owned())
}

/// The last answer on its connection, as it is sent.
fn bytes(answer: HttpResponse, with_body: bool) -> Vec<u8> {
    let (head, body) = answer.into_parts();
    let body = body.try_into_bytes().unwrap_or_default();
    let mut bytes = format!(
        "HTTP/1.1 {}\r\nconnection: close\r\ncontent-length: {}\r\n",
        head.status(),
        body.len()
    )
    .into_bytes();
    for (name, value) in head.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    if with_body {
        bytes.extend_from_slice(&body);
    }
    bytes
}
