//! SQLite's one writer: group commit. A commit waits for the disk, so what is queued shares one.

use prometheus::{Histogram, HistogramOpts};
use std::sync::atomic::{AtomicU64, Ordering};

use super::connection::{self, AnyConnection, Pooling, Target, Use};
use super::job::{Job, Ran};
use super::queue::Queue;
use super::{StoreError, error};

/// More would make the first caller of a batch wait without saving much: the disk's part is below a tenth by then.
pub(super) const MOST_IN_A_BATCH: usize = 64;

/// How writes were grouped so far, for the metrics page.
#[derive(Debug)]
pub struct WriteCounters {
    commits: AtomicU64,
    writes: AtomicU64,
    largest_batch: AtomicU64,
    batch_sizes: Histogram,
}

impl Default for WriteCounters {
    fn default() -> Self {
        let options = HistogramOpts::new(
            "latchkey_db_commit_batch_size",
            "Writes that one commit made durable.",
        );
        let options = options.buckets(vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]);
        Self {
            commits: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            largest_batch: AtomicU64::new(0),
            batch_sizes: Histogram::with_opts(options).expect("the name and the buckets are good"),
        }
    }
}

impl WriteCounters {
    /// Transactions that were committed.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Closures that those transactions held; divided by the commits, the mean size of a batch.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    pub fn largest_batch(&self) -> u64 {
        self.largest_batch.load(Ordering::Relaxed)
    }

    /// The same for monitoring.
    pub fn batch_sizes(&self) -> &Histogram {
        &self.batch_sizes
    }

    pub(super) fn committed(&self, batch: usize) {
        self.batch_sizes.observe(batch as f64);
        let batch = u64::try_from(batch).unwrap_or(u64::MAX);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.writes.fetch_add(batch, Ordering::Relaxed);
        self.largest_batch.fetch_max(batch, Ordering::Relaxed);
    }
}

/// The writer thread's own part of the store.
pub(super) struct Writer<'a> {
    pub(super) target: &'a Target,
    pub(super) counters: &'a WriteCounters,
    pub(super) connection: Option<AnyConnection>,
}

/// Why a batch did not commit. Nothing of it is in the database.
enum Broken {
    /// It never began, and no single closure of it would.
    NotBegun(StoreError),
    /// One closure took the transaction down; it gets the error and the others another try.
    By(usize, StoreError),
    /// The commit failed; each closure is tried alone, so that it fails for its own reasons only.
    AtCommit(StoreError),
}

impl Writer<'_> {
    /// Serves until the queue is closed and empty.
    pub(super) fn run(mut self, queue: &Queue<Box<dyn Job>>) {
        loop {
            let mut batch = queue.take(MOST_IN_A_BATCH);
            if batch.is_empty() {
                return;
            }
            batch.retain(|job| !job.abandoned());
            self.commit(batch);
        }
    }

    fn commit(&mut self, mut batch: Vec<Box<dyn Job>>) {
        if batch.is_empty() {
            return;
        }
        match self.attempt(&mut batch) {
            Ok(outcomes) => {
                self.counters.committed(batch.len());
                for (job, outcome) in batch.into_iter().zip(outcomes) {
                    job.answer(outcome);
                }
            }
            Err(Broken::NotBegun(error)) => {
                for job in batch {
                    job.answer(Err(error.clone()));
                }
            }
            Err(Broken::By(culprit, error)) => {
                for (index, job) in batch.into_iter().enumerate() {
                    if index == culprit {
                        job.answer(Err(error.clone()));
                    } else {
                        self.commit(vec![job]);
                    }
                }
            }
            Err(Broken::AtCommit(error)) => {
                let alone = batch.len() == 1;
                for job in batch {
                    if alone {
                        job.answer(Err(error.clone()));
                    } else {
                        self.commit(vec![job]);
                    }
                }
            }
        }
    }

    /// Runs the batch in one transaction, a savepoint for each closure. `Ok` means that it is on the disk.
    fn attempt(
        &mut self,
        batch: &mut [Box<dyn Job>],
    ) -> Result<Vec<Result<(), StoreError>>, Broken> {
        self.target.check_file().map_err(Broken::NotBegun)?;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self
                .target
                .connect(Use::Write)
                .map_err(|error| Broken::NotBegun(error.into()))?,
        };
        if let Err(error) = connection::begin_write(&mut connection, Pooling::Session) {
            let error = StoreError::from(error);
            // Another process holds the lock; the connection is as good as before.
            if !error::is_lost(&error) {
                self.connection = Some(connection);
            }
            return Err(Broken::NotBegun(error));
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        for (index, job) in batch.iter_mut().enumerate() {
            // Leaving here closes the connection, and with it the transaction.
            let outcome = run_in_savepoint(&mut connection, job.as_mut())
                .map_err(|error| Broken::By(index, error))?;
            outcomes.push(outcome);
        }
        connection::commit(&mut connection).map_err(|error| Broken::AtCommit(error.into()))?;
        self.connection = Some(connection);
        Ok(outcomes)
    }
}

/// The outer error means that the whole transaction is lost: a panic, or SQLite rolled back by itself (disk full).
fn run_in_savepoint(
    connection: &mut AnyConnection,
    job: &mut dyn Job,
) -> Result<Result<(), StoreError>, StoreError> {
    connection::begin_savepoint(connection)?;
    match job.run(connection) {
        Ran::Done => {
            connection::release_savepoint(connection)?;
            Ok(Ok(()))
        }
        Ran::Failed(error) => match connection::roll_back(connection) {
            Ok(()) => Ok(Err(error)),
            // The closure's own error says more than that its savepoint is gone.
            Err(_) => Err(error),
        },
        Ran::Panicked(error) => Err(error),
    }
}
