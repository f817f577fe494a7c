//! The threads that work on pooled connections: SQLite's readers, and all of PostgreSQL. A lost connection is replaced
//! when the next one is needed, so that a database that comes back is used again with the next request; and so is a thread
//! that gets no answer on a connection that stays open.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use diesel::r2d2::R2D2Connection;

use super::connection::{self, AnyConnection, Pooling, Target, Use};
use super::job::{Job, Ran};
use super::pool::{Borrowed, Pool};
use super::queue::Queue;
use super::writer::WriteCounters;
use super::{StoreError, error};
use crate::random;

/// What a caller wants done.
pub(super) enum Request {
    Read(Box<dyn Job>),
    Write(Box<dyn Job>),
}

/// What the threads of one database tell each other.
#[derive(Default)]
pub(super) struct Shared {
    /// Grows when a thread loses its connection: the others' may be gone too.
    losses: AtomicU64,
    /// After a failed attempt to connect, the others don't wait for the same time limit one after another.
    down: Mutex<Option<(Instant, StoreError)>>,
    /// Threads that still wait although others have taken their places.
    relieved: AtomicUsize,
}

/// All threads of one database, and what it takes to start one more.
pub(super) struct Crew {
    post: Post,
    /// Of each thread that has not been relieved.
    watches: Mutex<Vec<Arc<Watch>>>,
    started: AtomicUsize,
}

/// What each thread needs.
#[derive(Clone)]
pub(super) struct Post {
    pub(super) queue: Arc<Queue<Request>>,
    pub(super) target: Arc<Target>,
    pub(super) purpose: Use,
    pub(super) counters: Arc<WriteCounters>,
    pub(super) pool: Pool,
    pub(super) threads: usize,
    pub(super) shared: Arc<Shared>,
}

/// What one thread is at.
#[derive(Default)]
struct Watch(Mutex<Stand>);

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stand {
    #[default]
    Ready,
    /// At something whose caller gives up sooner or later.
    Busy { since: Instant },
    /// Another thread is there in its place.
    Relieved,
}

struct Worker<'a> {
    post: &'a Post,
    watch: &'a Watch,
}

/// So that each thread may be relieved once, and none ever waits for another's connection.
pub(super) const CONNECTIONS_OF_A_THREAD: usize = 2;
/// Runs again after a conflict, so that a busy row is no error.
const ATTEMPTS: u32 = 6;
/// A connection that was not used for this long is asked whether it still lives before a read, which runs only once.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
const DOWN_FOR: Duration = Duration::from_millis(500);
/// PostgreSQL ends each statement after five seconds, and soon whoever asked gives up. But behind a proxy that holds a
/// connection open and passes nothing on, libpq waits until the proxy ends it. One thread relieved too early does no harm.
const RELIEVED_AFTER: Duration = Duration::from_secs(8);

/// How one attempt at a write ended.
enum Attempt {
    Committed,
    /// Rolled back, for good.
    Failed(StoreError),
    /// Rolled back, and worth another attempt.
    Again(StoreError),
}

impl Crew {
    /// As many threads as are asked for.
    pub(super) fn start(post: Post) -> io::Result<Self> {
        let crew = Self {
            post,
            watches: Mutex::default(),
            started: AtomicUsize::new(0),
        };
        let watches: io::Result<Vec<_>> =
            (0..crew.post.threads).map(|_| crew.start_one()).collect();
        // Those that were started end with the queue.
        *crew.watches() = watches.inspect_err(|_error| crew.post.queue.close(Duration::ZERO))?;
        Ok(crew)
    }

    /// Puts others in the place of those that have waited for too long; called by whoever has to wait for a thread.
    pub(super) fn relieve(&self) {
        // One of those who wait is enough to look.
        let Ok(mut watches) = self.watches.try_lock() else {
            return;
        };
        let (relieved, most) = (&self.post.shared.relieved, self.post.threads);
        for watch in watches.iter_mut() {
            if !watch.is_to_be_relieved(relieved, most) {
                continue;
            }
            match self.start_one() {
                Ok(other) => {
                    *watch = other;
                    tracing::warn!(
                        "the database gives no answer on a connection that stays open; another one takes its place"
                    );
                }
                // The next who waits tries again.
                Err(error) => tracing::error!(%error, "a thread for the database can't be started"),
            }
        }
    }

    fn start_one(&self) -> io::Result<Arc<Watch>> {
        let watch = Arc::new(Watch::default());
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let (post, own) = (self.post.clone(), Arc::clone(&watch));
        thread::Builder::new()
            .name(format!("store-{number}"))
            .spawn(move || {
                let queue = Arc::clone(&post.queue);
                let _serving = queue.serve();
                // Before that: when nobody serves any more, no connection is open any more.
                work_at(post, &own);
            })?;
        Ok(watch)
    }

    fn watches(&self) -> MutexGuard<'_, Vec<Arc<Watch>>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn work_at(post: Post, watch: &Watch) {
    let worker = Worker { post: &post, watch };
    if let Ended::Relieved = worker.run() {
        post.shared.relieved.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Watch {
    fn begin(&self) {
        *self.stand() = Stand::Busy {
            since: Instant::now(),
        };
    }

    /// Whether the thread goes on.
    fn end(&self) -> bool {
        let mut stand = self.stand();
        if *stand == Stand::Relieved {
            return false;
        }
        *stand = Stand::Ready;
        true
    }

    fn is_relieved(&self) -> bool {
        *self.stand() == Stand::Relieved
    }

    fn is_to_be_relieved(&self, relieved: &AtomicUsize, most: usize) -> bool {
        let mut stand = self.stand();
        match *stand {
            Stand::Busy { since }
                if since.elapsed() >= RELIEVED_AFTER && relieved.load(Ordering::Relaxed) < most =>
            {
                *stand = Stand::Relieved;
                relieved.fetch_add(1, Ordering::Relaxed);
                true
            }
            // The last attempt to start another failed.
            Stand::Relieved => true,
            Stand::Ready | Stand::Busy { .. } => false,
        }
    }

    fn stand(&self) -> MutexGuard<'_, Stand> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a thread ends.
enum Ended {
    Closed,
    Relieved,
}

impl Worker<'_> {
    /// Serves until the queue is closed and empty, or another thread has taken its place.
    fn run(&self) -> Ended {
        while let Some(request) = self.post.queue.take(1).pop() {
            let (Request::Read(job) | Request::Write(job)) = &request;
            if job.abandoned() {
                continue;
            }
            if job.has_patience() {
                self.serve(request);
                continue;
            }
            self.watch.begin();
            self.serve(request);
            if !self.watch.end() {
                return Ended::Relieved;
            }
        }
        Ended::Closed
    }

    fn serve(&self, request: Request) {
        match request {
            Request::Read(job) => self.read(job),
            Request::Write(job) => self.write(job),
        }
    }

    fn read(&self, mut job: Box<dyn Job>) {
        let outcome = self.try_read(job.as_mut());
        job.answer(outcome.map_err(|error| self.post.target.understood(error)));
    }

    fn try_read(&self, job: &mut dyn Job) -> Result<(), StoreError> {
        let pooling = self.post.target.pooling();
        self.post.target.check_file()?;
        let mut open = self.living()?;
        let result = match pooling {
            Pooling::Session => ran(job.run(&mut open.connection)),
            Pooling::Transaction => read_in_transaction(&mut open.connection, job, pooling),
        };
        self.keep(open, result.as_ref().err());
        result.map_err(Undone::into_error)
    }

    fn write(&self, mut job: Box<dyn Job>) {
        let mut attempt = 1;
        let outcome = loop {
            match self.try_write(job.as_mut()) {
                Ok(Attempt::Committed) => {
                    self.post.counters.committed(1);
                    break Ok(());
                }
                Ok(Attempt::Again(error)) if attempt == ATTEMPTS => {
                    break Err(error);
                }
                Ok(Attempt::Again(_)) => pause(attempt),
                Ok(Attempt::Failed(error)) | Err(error) => break Err(error),
            }
            attempt += 1;
        };
        job.answer(outcome.map_err(|error| self.post.target.understood(error)));
    }

    /// The error means that there is no connection to be had.
    fn try_write(&self, job: &mut dyn Job) -> Result<Attempt, StoreError> {
        let pooling = self.post.target.pooling();
        let mut open = self.open()?;
        let connection = &mut open.connection;
        if let Err(error) = connection::begin_write(connection, pooling) {
            let error = StoreError::from(error);
            let lost = error::is_lost(&error);
            self.keep(open, Some(&Undone::Failed(error.clone())));
            return Ok(if lost {
                Attempt::Again(error)
            } else {
                Attempt::Failed(error)
            });
        }
        let ended = match job.run(connection) {
            Ran::Done => {
                let committed = connection::commit(connection).map_err(StoreError::from);
                let Err(error) = committed else {
                    self.keep(open, None);
                    return Ok(Attempt::Committed);
                };
                let conflict = error::is_conflict(&error);
                // The connection, and so perhaps an open transaction, goes.
                self.lose(open);
                // A connection lost here leaves it unknown whether the commit happened: never run it twice.
                return Ok(if conflict {
                    Attempt::Again(error)
                } else {
                    Attempt::Failed(error)
                });
            }
            Ran::Failed(error) => Undone::Failed(error),
            Ran::Panicked(error) => Undone::Panicked(error),
        };
        let again = match &ended {
            // Not committed, so whatever the server saw of it is rolled back.
            Undone::Failed(error) => error::is_conflict(error) || error::is_lost(error),
            Undone::Panicked(_) => false,
        };
        if connection::roll_back(connection).is_err() {
            self.lose(open);
        } else {
            self.keep(open, Some(&ended));
        }
        let error = ended.into_error();
        Ok(if again {
            Attempt::Again(error)
        } else {
            Attempt::Failed(error)
        })
    }

    /// A connection that was just seen alive.
    fn living(&self) -> Result<Borrowed, StoreError> {
        // Each turn either answers or throws a dead connection away, and the pool holds no more than this many.
        for _ in 0..=self.post.pool.max_size() {
            let mut open = self.open()?;
            let losses = self.post.shared.losses.load(Ordering::Relaxed);
            // A new one, too: the pool opens some for whom another one came free first, and who knows when that was.
            let doubtful = self.post.purpose != Use::Read
                && (open.used.elapsed() > TRUSTED_FOR || open.losses != losses);
            if !doubtful || open.connection.ping().is_ok() {
                open.losses = losses;
                return Ok(open);
            }
            open.doubtful = true;
        }
        Err(StoreError::unavailable("every connection was dead"))
    }

    fn open(&self) -> Result<Borrowed, StoreError> {
        if let Some((since, error)) = &*self.down()
            && since.elapsed() < DOWN_FOR
        {
            return Err(error.clone());
        }
        let borrowed = self.post.pool.borrow();
        *self.down() = match &borrowed {
            Ok(_) => None,
            Err(error) => Some((Instant::now(), error.clone())),
        };
        borrowed
    }

    fn down(&self) -> MutexGuard<'_, Option<(Instant, StoreError)>> {
        self.post
            .shared
            .down
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a connection back, unless what happened on it makes it doubtful.
    fn keep(&self, mut open: Borrowed, ended: Option<&Undone>) {
        let doubtful = match ended {
            Some(Undone::Panicked(_)) => true,
            Some(Undone::Failed(error)) => error::is_lost(error),
            None => false,
        };
        if doubtful || open.connection.is_broken() {
            self.lose(open);
            return;
        }
        // Whoever is there in a thread's place has a connection of its own, and nobody has two.
        open.doubtful = self.watch.is_relieved() || self.has_one_too_many();
        // One that was only written to is not new any more, either.
        open.losses = self.post.shared.losses.load(Ordering::Relaxed);
        open.used = Instant::now();
    }

    fn has_one_too_many(&self) -> bool {
        let relieved = self.post.shared.relieved.load(Ordering::Relaxed);
        self.post.pool.size() > self.post.threads + relieved
    }

    fn lose(&self, mut open: Borrowed) {
        open.doubtful = true;
        drop(open);
        self.post.shared.losses.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why a closure has no value.
enum Undone {
    Failed(StoreError),
    Panicked(StoreError),
}

impl Undone {
    fn into_error(self) -> StoreError {
        let (Undone::Failed(error) | Undone::Panicked(error)) = self;
        error
    }
}

fn ran(ran: Ran) -> Result<(), Undone> {
    match ran {
        Ran::Done => Ok(()),
        Ran::Failed(error) => Err(Undone::Failed(error)),
        Ran::Panicked(error) => Err(Undone::Panicked(error)),
    }
}

fn read_in_transaction(
    connection: &mut AnyConnection,
    job: &mut dyn Job,
    pooling: Pooling,
) -> Result<(), Undone> {
    connection::begin_read(connection, pooling).map_err(|error| Undone::Failed(error.into()))?;
    let result = ran(job.run(connection));
    // Nothing was written: ending the transaction either way is the same. A connection that cannot end it is_broken.
    let _ = connection::roll_back(connection);
    result
}

/// Waits 4 to 12 ms, longer with each attempt, so that two that collided do not collide again.
#[allow(
    clippy::disallowed_methods,
    reason = "a thread of the store's own waits for another transaction; no test's clock is involved"
)]
fn pause(attempt: u32) {
    let [jitter] = random::bytes::<1>();
    let each = Duration::from_micros(4_000 + u64::from(jitter) * 32);
    thread::sleep(each * attempt);
}
