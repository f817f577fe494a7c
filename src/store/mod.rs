//! The two ways to a database: `Store::read` and `Store::write`. Everything here is synchronous, on threads of its own;
//! callers get a future.
//!
//! A refusal commits, a fault rolls back: a closure's `Err` is a fault and undoes what it did; what it must keep, such as
//! the revocation that a replay causes, it returns inside `Ok`.

pub mod access_tokens;
pub mod audit_events;
pub mod audit_seals;
pub mod authorization_codes;
pub mod backup;
pub mod client_assertions;
pub mod client_secrets;
pub mod client_tokens;
pub mod clients;
pub mod consents;
pub mod copy;
pub mod grants;
pub mod groups;
pub mod health;
pub mod properties;
pub mod pruning;
pub mod refresh_tokens;
pub mod scopes;
pub mod sessions;
pub mod signing_keys;
pub mod throttles;
pub mod users;

mod columns;
mod connection;
mod error;
mod files;
mod job;
mod migrations;
mod pool;
mod query;
mod queue;
mod schema;
mod sqlite_file;
mod workers;
mod writer;

use std::error::Error;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use tokio::sync::oneshot;
use tokio::time::{Timeout, timeout};

pub(crate) use self::connection::on_each;
pub use self::connection::{AnyConnection, MultiBackend, MultiField, MultiRawValue, MultiRow};
pub use self::error::StoreError;
pub(crate) use self::files::{create_for_owner_of, folder_of, sync_folder, with_suffix};
pub use self::writer::WriteCounters;

use self::connection::{Target, Use};
use self::job::{Job, Reply, Task};
use self::pool::UntilClosed;
use self::queue::Queue;
use self::workers::{CONNECTIONS_OF_A_THREAD, Crew, Post, Request};
use self::writer::Writer;
use crate::audit::Trail;
use crate::config::DatabaseUrl;

/// A database with the threads that serve it; clones share them.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// How a process means to use a database.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A server's: no second one may serve the same SQLite file. Commands run beside it without.
    pub exclusive: bool,
    /// Threads for SQLite's reads, or for all of PostgreSQL; by default two and four for each core.
    pub threads: Option<NonZeroUsize>,
}

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "another Latchkey server is using {}; SQLite serves one server at a time (several need PostgreSQL)",
        file.display()
    )]
    InUse { file: PathBuf },
    #[error(
        "{} has a second name (a hard link); opened by both it would be destroyed, so remove one of them \
         (find FOLDER -samefile {} tells them)",
        file.display(), file.display()
    )]
    SecondName { file: PathBuf },
    #[error("cannot open the database file {}", file.display())]
    File { file: PathBuf, source: io::Error },
    #[error(
        "the database {} does not exist: start the server, which makes it, or check database.url and the folder that \
         this runs in",
        file.display()
    )]
    Missing { file: PathBuf },
    #[error(
        "this account may not write to {} and the folder that it is in, which SQLite needs even to read",
        file.display()
    )]
    ReadOnly { file: PathBuf },
    #[error("cannot open the database")]
    Database(#[from] StoreError),
    #[error(transparent)]
    Migrations(#[from] MigrationError),
    #[error("cannot start a thread for the database")]
    Thread(#[source] io::Error),
}

/// Why the schema cannot be brought to this version.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    #[error(
        "the database was written by a newer version of Latchkey (it has the migrations {versions}, which this version \
         does not know); start that version, or restore a backup from before the upgrade"
    )]
    NewerSchema { versions: String },
    #[error(
        "the database file holds tables of another program, and none of Latchkey; check database.url, nothing was changed"
    )]
    Foreign,
    #[error("the migration {name} failed; nothing was changed")]
    Failed {
        name: String,
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("the migrations would leave {rows} rows that refer to nothing; nothing was changed")]
    Orphans { rows: i64 },
    #[error("the embedded migrations cannot be read")]
    Embedded(#[source] Box<dyn Error + Send + Sync>),
    #[error("the database's schema cannot be read or changed now")]
    Database(#[from] StoreError),
}

/// The answer to a read or a write. Dropping it before the work began cancels the work.
#[must_use = "dropping the answer cancels the work"]
pub struct Answer<T> {
    // Boxed so that the timer inside stays in place and the answer can be moved.
    waiting: Pin<Box<Timeout<Receiver<T>>>>,
}

struct Inner {
    target: Arc<Target>,
    /// SQLite's reads, or everything on PostgreSQL.
    requests: Arc<Queue<Request>>,
    crew: Crew,
    /// After the pool, and before the lock.
    _closed: UntilClosed,
    /// SQLite's writes.
    writes: Option<Arc<Queue<Box<dyn Job>>>>,
    counters: Arc<WriteCounters>,
    /// Held for as long as the store lives.
    _lock: Option<File>,
}

type Receiver<T> = oneshot::Receiver<Result<T, StoreError>>;

/// Requests that may wait; with more the machine is overloaded, and an honest 503 at once serves people better.
const QUEUE_LIMIT: usize = 1024;
/// No caller waits longer, even when PostgreSQL has stopped in the middle of a statement: a request is answered within six
/// seconds.
const ANSWER_WITHIN: Duration = Duration::from_millis(5_500);
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

impl Store {
    /// Opens a database, which is made where there is none, and starts its threads; runs no migration. Refuses one that a
    /// newer version has migrated, and a file of another program.
    pub fn open(url: &DatabaseUrl, options: Options) -> Result<Store, OpenError> {
        if let DatabaseUrl::Sqlite(path) = url {
            files::make(path)?;
        }
        let (target, lock) = find(url, &options)?;
        if let Target::Sqlite { .. } = target {
            switch_to_wal(&target)?;
        }
        Store::start(target, lock, &options)
    }

    /// The same for a database that is there, which is left as it is.
    pub fn open_existing(url: &DatabaseUrl, options: Options) -> Result<Store, OpenError> {
        let (target, lock) = find(url, &options)?;
        Store::start(target, lock, &options)
    }

    /// Brings the schema to this version and answers the names of the migrations that ran.
    pub fn migrate(&self, trail: &Trail) -> Result<Vec<String>, MigrationError> {
        migrations::run(&mut self.connect(Use::Migrate)?, trail)
    }

    /// The names of the migrations that `migrate` would run.
    pub fn pending_migrations(&self) -> Result<Vec<String>, MigrationError> {
        migrations::pending(&mut self.connect(Use::Read)?)
    }

    /// Runs a closure that only reads. Call it inside an async runtime.
    pub fn read<T, F>(&self, work: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut AnyConnection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = Answer::new();
        self.ask_to_read(once(work), reply);
        answer
    }

    /// Runs a closure in a transaction and answers when that is durable. It may run twice, so it touches nothing outside
    /// its transaction. Call it inside an async runtime.
    ///
    /// Whoever drops the answer before it is there undoes the transaction, unless it is being committed at that moment; nor
    /// does `Unavailable` say that it was not, as when any connection breaks at the wrong moment.
    pub fn write<T, F>(&self, work: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnMut(&mut AnyConnection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = Answer::new();
        self.ask_to_write(work, reply);
        answer
    }

    /// `read` for the command line and for tests: the thread waits.
    pub fn read_blocking<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut AnyConnection) -> Result<T, StoreError> + Send + 'static,
    {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.ask_to_read(once(work), Reply::Thread(sender));
        receiver.recv().map_err(StoreError::unavailable)?
    }

    /// `write` for the command line and for tests: the thread waits.
    pub fn write_blocking<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut AnyConnection) -> Result<T, StoreError> + Send + 'static,
    {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.ask_to_write(work, Reply::Thread(sender));
        receiver.recv().map_err(StoreError::unavailable)?
    }

    /// Whether the database would take a write; none is made. Call it inside an async runtime.
    pub fn takes_writes(&self) -> Answer<bool> {
        let target = Arc::clone(&self.inner.target);
        self.read(move |connection| target.takes_writes(connection))
    }

    /// How writes were grouped so far.
    pub fn write_counters(&self) -> &WriteCounters {
        &self.inner.counters
    }

    /// Requests that wait for a thread.
    pub fn waiting(&self) -> usize {
        let writes = self.inner.writes.as_ref().map_or(0, |queue| queue.len());
        self.inner.requests.len() + writes
    }

    fn ask_to_read<T, F>(&self, work: F, reply: Reply<T>)
    where
        T: Send + 'static,
        F: FnMut(&mut AnyConnection) -> Result<T, StoreError> + Send + 'static,
    {
        self.ask(Request::Read(Box::new(Task::new(work, reply))));
    }

    fn ask_to_write<T, F>(&self, work: F, reply: Reply<T>)
    where
        T: Send + 'static,
        F: FnMut(&mut AnyConnection) -> Result<T, StoreError> + Send + 'static,
    {
        let job: Box<dyn Job> = Box::new(Task::new(work, reply));
        match &self.inner.writes {
            None => self.ask(Request::Write(job)),
            Some(queue) => {
                if let Err(job) = queue.push(job) {
                    job.answer(Err(overloaded()));
                }
            }
        }
    }

    fn ask(&self, request: Request) {
        let waiting = self.inner.requests.push(request);
        if !matches!(waiting, Ok(0)) {
            self.inner.crew.relieve();
        }
        if let Err(Request::Read(job) | Request::Write(job)) = waiting {
            job.answer(Err(overloaded()));
        }
    }

    fn connect(&self, purpose: Use) -> Result<AnyConnection, StoreError> {
        Ok(self.inner.target.connect(purpose)?)
    }

    fn start(target: Target, lock: Option<File>, options: &Options) -> Result<Store, OpenError> {
        let target = Arc::new(target);
        let counters = Arc::new(WriteCounters::default());
        let requests = Arc::new(Queue::new(QUEUE_LIMIT));
        let cores = thread::available_parallelism().map_or(2, NonZeroUsize::get);
        let (purpose, threads, writes) = match *target {
            Target::Sqlite { .. } => {
                let queue: Arc<Queue<Box<dyn Job>>> = Arc::new(Queue::new(QUEUE_LIMIT));
                (Use::Read, (2 * cores).clamp(4, 16), Some(queue))
            }
            // PostgreSQL pays for each connection; more than this adds waiting there instead of here.
            Target::Postgres { .. } => (Use::Write, (4 * cores).clamp(4, 32), None),
        };
        let threads = options.threads.map_or(threads, NonZeroUsize::get);
        let size = u32::try_from(CONNECTIONS_OF_A_THREAD * threads).unwrap_or(u32::MAX);
        let (pool, closed) = pool::build(Arc::clone(&target), purpose, size);
        let post = Post {
            queue: Arc::clone(&requests),
            target: Arc::clone(&target),
            purpose,
            counters: Arc::clone(&counters),
            pool,
            threads,
            shared: Arc::default(),
        };
        // If the last thread cannot be started, dropping this ends the others.
        let store = Store {
            inner: Arc::new(Inner {
                target: Arc::clone(&target),
                crew: Crew::start(post).map_err(OpenError::Thread)?,
                _closed: closed,
                requests,
                writes: writes.clone(),
                counters: Arc::clone(&counters),
                _lock: lock,
            }),
        };
        if let Some(writes) = writes {
            thread::Builder::new()
                .name("store-writer".to_owned())
                .spawn(move || {
                    let _serving = writes.serve();
                    Writer {
                        target: &target,
                        counters: &counters,
                        connection: None,
                    }
                    .run(&writes);
                })
                .map_err(OpenError::Thread)?;
        }
        Ok(store)
    }
}

impl<T> Answer<T> {
    fn new() -> (Reply<T>, Answer<T>) {
        let (sender, receiver) = oneshot::channel();
        let waiting = Box::pin(timeout(ANSWER_WITHIN, receiver));
        (Reply::Task(sender), Answer { waiting })
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.waiting.as_mut().poll(context)) {
            Ok(Ok(answer)) => answer,
            Ok(Err(closed)) => Err(StoreError::unavailable(closed)),
            Err(elapsed) => Err(StoreError::unavailable(elapsed)),
        })
    }
}

impl Drop for Inner {
    // What was asked is still done; then the files may be moved and the lock is free.
    fn drop(&mut self) {
        if let Some(writes) = &self.writes {
            writes.close(CLOSE_WITHIN);
        }
        self.requests.close(CLOSE_WITHIN);
    }
}

/// A database that may be used, with the lock that a server takes. Whatever is not ours is not touched, so nothing is written
/// before that is known.
fn find(url: &DatabaseUrl, options: &Options) -> Result<(Target, Option<File>), OpenError> {
    let (target, file) = match url {
        DatabaseUrl::Sqlite(path) => {
            let file = files::find(path)?;
            let target = Target::sqlite(file.clone()).map_err(|source| OpenError::File {
                file: path.clone(),
                source,
            })?;
            (target, Some(file))
        }
        DatabaseUrl::Postgres(url) => (Target::postgres(url), None),
    };
    look(&target).map_err(|error| match &file {
        // SQLite's own words are of a write that nobody asked for.
        Some(file) if files::is_read_only(file) => OpenError::ReadOnly {
            file: file.to_owned(),
        },
        _ => error,
    })?;
    let lock = match file {
        Some(file) if options.exclusive => Some(files::lock(&file)?),
        _ => None,
    };
    Ok((target, lock))
}

fn look(target: &Target) -> Result<(), OpenError> {
    let mut connection = target.connect(Use::Read).map_err(StoreError::from)?;
    migrations::refuse_newer(&mut connection)?;
    migrations::refuse_foreign(&mut connection)?;
    Ok(())
}

/// A read runs once; only writes are run again.
fn once<T, F>(work: F) -> impl FnMut(&mut AnyConnection) -> Result<T, StoreError>
where
    F: FnOnce(&mut AnyConnection) -> Result<T, StoreError>,
{
    let mut work = Some(work);
    move |connection| match work.take() {
        Some(work) => work(connection),
        None => unreachable!("a read runs once"),
    }
}

/// WAL is a property of the file, so this is done once. Processes that start together are in each other's way, and SQLite
/// does not always wait by itself here.
#[allow(
    clippy::disallowed_methods,
    reason = "waits for another process at startup; no test's clock is involved"
)]
fn switch_to_wal(target: &Target) -> Result<(), StoreError> {
    let until = Instant::now() + CLOSE_WITHIN;
    loop {
        let switched = target
            .connect(Use::Write)
            .map_err(StoreError::from)
            .and_then(|mut c| Ok(c.batch_execute("PRAGMA journal_mode=WAL")?));
        match switched {
            Err(error) if error.is_unavailable() && Instant::now() < until => {
                thread::sleep(Duration::from_millis(20));
            }
            outcome => return outcome,
        }
    }
}

fn overloaded() -> StoreError {
    StoreError::unavailable("too many requests are waiting for the database")
}
