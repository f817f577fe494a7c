//! The pool of connections that the threads draw from: r2d2 opens them, keeps them, and lets broken ones go.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use diesel::r2d2::R2D2Connection;
use diesel::result::ConnectionError;
use r2d2::{HandleError, ManageConnection, PooledConnection};

use super::StoreError;
use super::connection::{AnyConnection, Target, Use};

/// A connection in somebody's hands; it goes back when it is dropped.
pub(super) type Borrowed = PooledConnection<Connections>;

/// The pool itself; clones share it.
#[derive(Clone)]
pub(super) struct Pool {
    connections: r2d2::Pool<Connections>,
    last_failure: LastFailure,
}

/// Why a connection could not be opened, and when. r2d2 tells only one of those who wait; the others learn it here.
#[derive(Clone, Debug, Default)]
struct LastFailure(Arc<Mutex<Option<(Instant, String)>>>);

/// How r2d2 opens connections to one database.
pub(super) struct Connections {
    target: Arc<Target>,
    purpose: Use,
    open: Arc<()>,
}

/// Waits, when it is dropped, until the last connection is closed: r2d2 may be opening one that nobody asked for any more.
pub(super) struct UntilClosed(Arc<()>);

/// A connection with what is known about its health.
pub(super) struct Kept {
    pub(super) connection: AnyConnection,
    pub(super) used: Instant,
    /// How many connections had been lost when this one was last seen alive.
    pub(super) losses: u64,
    /// What happened on it makes it doubtful: it goes instead of back.
    pub(super) doubtful: bool,
    /// Dropped after the connection.
    _open: Arc<()>,
}

/// A caller waits no longer than this for a connection.
const CONNECTION_WITHIN: Duration = Duration::from_millis(2_500);
const CLOSED_WITHIN: Duration = Duration::from_secs(1);
/// What failed longer ago says nothing of now.
const FAILURE_COUNTS: Duration = Duration::from_secs(10);

/// A pool of at most `size` connections, opened when they are needed.
pub(super) fn build(target: Arc<Target>, purpose: Use, size: u32) -> (Pool, UntilClosed) {
    let open = Arc::new(());
    let closed = UntilClosed(Arc::clone(&open));
    let last_failure = LastFailure::default();
    let connections = r2d2::Pool::builder()
        .max_size(size)
        .min_idle(Some(0))
        .connection_timeout(CONNECTION_WITHIN)
        // The threads ask by themselves, and only where a connection may have died.
        .test_on_check_out(false)
        // Whoever asked for a connection learns why there is none.
        .error_handler(Box::new(last_failure.clone()))
        .build_unchecked(Connections {
            target,
            purpose,
            open,
        });
    let pool = Pool {
        connections,
        last_failure,
    };
    (pool, closed)
}

impl Pool {
    /// A connection, or why there is none.
    pub(super) fn borrow(&self) -> Result<Borrowed, StoreError> {
        self.connections
            .get()
            .map_err(|timed_out| match self.last_failure.recent() {
                Some(why) => StoreError::unavailable(why),
                None => StoreError::unavailable(timed_out),
            })
    }

    /// How many connections there are.
    pub(super) fn size(&self) -> usize {
        self.connections.state().connections as usize
    }

    pub(super) fn max_size(&self) -> u32 {
        self.connections.max_size()
    }
}

impl Drop for UntilClosed {
    #[allow(
        clippy::disallowed_methods,
        reason = "a store that ends waits for threads of r2d2's; no test's clock is involved"
    )]
    fn drop(&mut self) {
        let until = Instant::now() + CLOSED_WITHIN;
        while Arc::strong_count(&self.0) > 1 && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl LastFailure {
    fn recent(&self) -> Option<String> {
        let known = self.lock();
        let (at, why) = known.as_ref()?;
        (at.elapsed() < FAILURE_COUNTS).then(|| why.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HandleError<ConnectionError> for LastFailure {
    fn handle_error(&self, error: ConnectionError) {
        *self.lock() = Some((Instant::now(), error.to_string()));
    }
}

impl ManageConnection for Connections {
    type Connection = Kept;
    type Error = ConnectionError;

    fn connect(&self) -> Result<Kept, ConnectionError> {
        let open = Arc::clone(&self.open);
        Ok(Kept {
            connection: self.target.connect(self.purpose)?,
            used: Instant::now(),
            losses: u64::MAX,
            doubtful: false,
            _open: open,
        })
    }

    fn is_valid(&self, kept: &mut Kept) -> Result<(), ConnectionError> {
        kept.connection
            .ping()
            .map_err(ConnectionError::CouldntSetupConfiguration)
    }

    fn has_broken(&self, kept: &mut Kept) -> bool {
        kept.doubtful || kept.connection.is_broken()
    }
}
