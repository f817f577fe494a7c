//! The stream of a connection, as the HTTP library sees it: one request at a time, and no longer than a deadline.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::deadline::{Deadline, Phase};
use super::exchanges::Exchanges;
use super::framing::Framing;
use super::limit::Place;

/// A connection that holds its place among those of its address.
pub(crate) struct Guarded<S> {
    stream: S,
    deadline: Deadline,
    framing: Framing,
    /// Read behind the end of a request that has no answer yet.
    held: Vec<u8>,
    /// Requests that were passed on whole.
    passed_on: u64,
    exchanges: Rc<Exchanges>,
    _place: Option<Place>,
}

impl<S> Guarded<S> {
    pub(crate) fn new(stream: S, place: Option<Place>) -> Self {
        Self {
            stream,
            deadline: Deadline::new(),
            framing: Framing::default(),
            held: Vec::new(),
            passed_on: 0,
            exchanges: Rc::default(),
            _place: place,
        }
    }

    /// Where answers are told.
    pub(crate) fn exchanges(&self) -> Rc<Exchanges> {
        Rc::clone(&self.exchanges)
    }

    /// Whether a request that was passed on has no answer yet. The library answers some by itself, all of them errors after
    /// which it closes.
    fn owes_an_answer(&self) -> bool {
        self.framing.is_between_requests() && self.passed_on > self.exchanges.count()
    }

    /// Of what was just read, leaves what belongs to one request, and nothing while another has no answer.
    fn hold_back(&mut self, before: usize, buffer: &mut ReadBuf<'_>) {
        let read = buffer.filled().get(before..).unwrap_or_default();
        let length = if self.owes_an_answer() {
            0
        } else {
            let extent = self.framing.advance(read);
            self.passed_on += u64::from(extent.ends);
            extent.length
        };
        self.held.extend(read.get(length..).unwrap_or_default());
        buffer.set_filled(before + length);
    }

    fn pass_on_held(&mut self, buffer: &mut ReadBuf<'_>) {
        let most = self.held.len().min(buffer.remaining());
        let extent = self
            .framing
            .advance(self.held.get(..most).unwrap_or_default());
        self.passed_on += u64::from(extent.ends);
        buffer.put_slice(self.held.get(..extent.length).unwrap_or_default());
        self.held.drain(..extent.length);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if this.held.is_empty() {
            // Also while an answer is owed: whoever has gone away is noticed.
            match Pin::new(&mut this.stream).poll_read(context, buffer) {
                Poll::Ready(Ok(())) if buffer.filled().len() > before => {}
                Poll::Pending => {
                    this.deadline.check(context)?;
                    return Poll::Pending;
                }
                ended => return ended,
            }
            if this.deadline.phase() == Phase::Silence {
                this.deadline.begin(Phase::Request);
            }
            this.hold_back(before, buffer);
        } else if !this.owes_an_answer() {
            this.pass_on_held(buffer);
        }
        // Another byte now and then is no reason to wait longer.
        this.deadline.check(context)?;
        if buffer.filled().len() > before {
            return Poll::Ready(Ok(()));
        }
        this.exchanges.wait(context.waker());
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        match Pin::new(&mut this.stream).poll_write(context, bytes) {
            Poll::Ready(Ok(written)) => {
                // A part of it is no progress that counts: a byte now and then would hold an answer for ever.
                if written == bytes.len() {
                    this.deadline.begin(Phase::Silence);
                }
                Poll::Ready(Ok(written))
            }
            Poll::Pending => {
                if this.deadline.phase() != Phase::Answer {
                    this.deadline.begin(Phase::Answer);
                }
                this.deadline.check(context)?;
                Poll::Pending
            }
            failed => failed,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    const REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

    /// Both ends, on a clock that goes on by itself whenever everybody waits.
    fn connection(test: impl AsyncFnOnce(DuplexStream, Guarded<DuplexStream>)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (theirs, ours) = duplex(64);
            test(theirs, Guarded::new(ours, None)).await;
        });
    }

    /// What is there to be read without waiting.
    async fn ready(connection: &mut Guarded<DuplexStream>) -> Vec<u8> {
        let mut read = vec![0; 1_024];
        let length = timeout(Duration::from_millis(1), connection.read(&mut read)).await;
        read.truncate(length.map_or(0, |length| length.unwrap()));
        read
    }

    async fn how_it_ends(connection: &mut Guarded<DuplexStream>) -> (io::ErrorKind, Duration) {
        let began = Instant::now();
        let mut read = [0; 1_024];
        loop {
            if let Err(error) = connection.read(&mut read).await {
                return (error.kind(), began.elapsed());
            }
        }
    }

    #[test]
    fn a_request_is_passed_on_when_the_one_before_has_its_answer() {
        connection(async |mut theirs, mut ours| {
            for _ in 0..2 {
                theirs.write_all(REQUEST).await.unwrap();
            }
            assert_eq!(ready(&mut ours).await, REQUEST);
            assert!(ready(&mut ours).await.is_empty());
            ours.exchanges().answered();
            assert_eq!(ready(&mut ours).await, REQUEST);
            // Also one that comes later, in pieces.
            for byte in REQUEST {
                theirs.write_all(&[*byte]).await.unwrap();
                assert!(ready(&mut ours).await.is_empty());
            }
            ours.exchanges().answered();
            let mut all = Vec::new();
            while all.len() < REQUEST.len() {
                all.extend(ready(&mut ours).await);
            }
            assert_eq!(all, REQUEST);
        });
    }

    #[test]
    fn who_waits_for_an_answer_is_woken_by_it() {
        connection(async |mut theirs, mut ours| {
            theirs.write_all(&REQUEST.repeat(2)[..60]).await.unwrap();
            assert_eq!(ready(&mut ours).await, REQUEST);
            let exchanges = ours.exchanges();
            let answering = async {
                sleep(Duration::from_secs(3)).await;
                exchanges.answered();
            };
            let mut read = [0; 8];
            let (read, ()) = tokio::join!(ours.read(&mut read), answering);
            assert_eq!(read.unwrap(), 8);
        });
    }

    #[test]
    fn a_request_that_does_not_end_ends_the_connection_however_often_a_byte_comes() {
        connection(async |mut theirs, mut ours| {
            theirs.write_all(REQUEST).await.unwrap();
            assert_eq!(ready(&mut ours).await, REQUEST);
            ours.exchanges().answered();
            ours.write_all(ANSWER).await.unwrap();
            let dribbling = async {
                while theirs.write_all(b"x").await.is_ok() {
                    sleep(Duration::from_secs(1)).await;
                }
            };
            tokio::select! {
                (kind, after) = how_it_ends(&mut ours) => {
                    assert_eq!(kind, io::ErrorKind::TimedOut);
                    assert!((29..=31).contains(&after.as_secs()), "{after:?}");
                }
                () = dribbling => panic!("the connection outlived its deadline"),
            }
        });
    }

    #[test]
    fn silence_ends_a_connection_later() {
        connection(async |_theirs, mut ours| {
            let (kind, after) = how_it_ends(&mut ours).await;
            assert_eq!(kind, io::ErrorKind::TimedOut);
            assert!((79..=81).contains(&after.as_secs()), "{after:?}");
        });
    }

    #[test]
    fn an_answer_that_is_taken_byte_by_byte_ends_the_connection() {
        connection(async |mut theirs, mut ours| {
            let began = Instant::now();
            let taking = async {
                while theirs.read_u8().await.is_ok() {
                    sleep(Duration::from_secs(1)).await;
                }
            };
            tokio::select! {
                sent = ours.write_all(&[b'x'; 10_000]) => {
                    assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::TimedOut);
                    assert!((29..=31).contains(&began.elapsed().as_secs()));
                }
                () = taking => panic!("the connection outlived its deadline"),
            }
        });
    }

    #[test]
    fn whoever_goes_on_asking_and_taking_stays() {
        connection(async |mut theirs, mut ours| {
            for _ in 0..20 {
                sleep(Duration::from_secs(60)).await;
                theirs.write_all(REQUEST).await.unwrap();
                assert_eq!(ready(&mut ours).await, REQUEST);
                sleep(Duration::from_secs(20)).await;
                ours.exchanges().answered();
                ours.write_all(ANSWER).await.unwrap();
                let mut answer = [0; ANSWER.len()];
                theirs.read_exact(&mut answer).await.unwrap();
                assert!(ready(&mut ours).await.is_empty());
            }
        });
    }
}
