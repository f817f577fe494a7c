//! Threads of their own for password hashing, as many as cores and of lower priority, behind a bounded queue.
//!
//! One hash takes a core and 19 MiB for tens of milliseconds. In the blocking pool, 400 at once took 6.9 GB and let
//! every other request wait for seconds; here the rest of the product goes on, and who comes too late is told at once.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Where a thread stands behind those that answer requests: about a tenth of their share when both have work.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// The door to the hashing threads; clones share them, and they end when the last clone is gone.
#[derive(Clone)]
pub struct HashingQueue {
    jobs: Sender<Job>,
    places: Arc<Semaphore>,
}

/// A place in the queue, free again when its job begins or it is dropped.
#[must_use]
pub struct Place {
    jobs: Sender<Job>,
    place: OwnedSemaphorePermit,
}

/// The queue is full: answer 503 with Retry-After.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being hashed")]
pub struct Overloaded;

/// The job panicked and has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hashing job failed")]
pub struct JobFailed;

type Job = Box<dyn FnOnce() + Send>;

impl HashingQueue {
    /// Never more than `threads` jobs run at a time, and `capacity` more may wait (at least one).
    pub fn new(threads: NonZeroUsize, capacity: usize) -> io::Result<Self> {
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads.get() {
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name(format!("hashing-{number}"))
                .spawn(move || run_jobs(&queue))?;
        }
        let places = Arc::new(Semaphore::new(capacity.max(1)));
        Ok(Self { jobs, places })
    }

    /// Takes a place or refuses it, at once: whoever is refused before anything else was done costs next to nothing.
    pub fn reserve(&self) -> Result<Place, Overloaded> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        Ok(Place {
            jobs: self.jobs.clone(),
            place: place.map_err(|_full| Overloaded)?,
        })
    }

    /// Queues a job or refuses it, at once; see [`Place::submit`].
    pub fn submit<T, F>(
        &self,
        job: F,
    ) -> Result<impl Future<Output = Result<T, JobFailed>> + Send + use<T, F>, Overloaded>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        Ok(self.reserve()?.submit(job))
    }
}

impl Place {
    /// Queues a job; the answer is its result. Dropping the answer takes the job back.
    pub fn submit<T, F>(
        self,
        job: F,
    ) -> impl Future<Output = Result<T, JobFailed>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let Self { jobs, place } = self;
        let (sender, answer) = oneshot::channel();
        let span = tracing::Span::current();
        let job = Box::new(move || {
            drop(place);
            // Whoever closed the page in the meantime no longer needs the work.
            if !sender.is_closed() {
                let _gone = sender.send(span.in_scope(job));
            }
        });
        // Without threads the job is dropped, and its answer says so.
        let _queued = jobs.send(job);
        async { answer.await.map_err(|_dropped| JobFailed) }
    }
}

/// As many threads as there are cores.
pub fn threads_by_default() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn run_jobs(queue: &Mutex<Receiver<Job>>) {
    lower_priority();
    while let Some(job) = next_job(queue) {
        // The panic drops the job's sender, which answers the caller; its message went through the panic hook already.
        let _panic = catch_unwind(AssertUnwindSafe(job));
    }
}

fn next_job(queue: &Mutex<Receiver<Job>>) -> Option<Job> {
    // A statement of its own: the lock ends before the job begins, or one job would run at a time.
    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
    next.ok()
}

/// On Linux the priority of "this process" is that of the calling thread; elsewhere it would slow down all of them.
#[cfg(target_os = "linux")]
fn lower_priority() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "hashing threads keep the usual priority");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}

impl fmt::Debug for HashingQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashingQueue(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[test]
    fn a_job_answers_with_its_result() {
        let queue = queue(2, 4);
        let answers: Vec<_> = (0..4)
            .map(|n| queue.submit(move || n * n).unwrap())
            .collect();
        let results: Vec<_> = answers.into_iter().map(wait).collect();
        assert_eq!(results, [Ok(0), Ok(1), Ok(4), Ok(9)]);
    }

    #[test]
    fn never_more_jobs_run_at_once_than_there_are_threads() {
        let queue = queue(3, 200);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let answers: Vec<_> = (0..200)
            .map(|_| {
                let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                let job = move || {
                    most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                    (0..1000).for_each(|_| thread::yield_now());
                    running.fetch_sub(1, SeqCst);
                };
                queue.submit(job).unwrap()
            })
            .collect();
        answers.into_iter().for_each(|answer| wait(answer).unwrap());
        assert!((1..=3).contains(&most.load(SeqCst)));
    }

    #[test]
    fn as_many_jobs_run_at_once_as_there_are_threads() {
        let queue = queue(2, 2);
        // Neither job can end before the other has begun.
        let (to_second, from_first) = channel();
        let (to_first, from_second) = channel();
        let first = queue
            .submit(move || to_second.send(()).is_ok() && from_second.recv().is_ok())
            .unwrap();
        let second = queue
            .submit(move || to_first.send(()).is_ok() && from_first.recv().is_ok())
            .unwrap();
        assert_eq!((wait(first), wait(second)), (Ok(true), Ok(true)));
    }

    #[test]
    fn a_full_queue_refuses_at_once_and_recovers() {
        let queue = queue(1, 2);
        let (release, running) = busy(&queue);
        let waiting: Vec<_> = (0..2).map(|_| queue.submit(|| ()).unwrap()).collect();
        assert!(matches!(queue.submit(|| ()), Err(Overloaded)));
        release.send(()).unwrap();
        wait(running).unwrap();
        waiting.into_iter().for_each(|answer| wait(answer).unwrap());
        assert_eq!(wait(queue.submit(|| 7).unwrap()), Ok(7));
    }

    #[test]
    fn a_place_that_nobody_uses_is_free_again() {
        let queue = queue(1, 1);
        let place = queue.reserve().unwrap();
        assert!(matches!(queue.submit(|| 7), Err(Overloaded)));
        drop(place);
        assert_eq!(wait(queue.reserve().unwrap().submit(|| 7)), Ok(7));
        assert_eq!(wait(queue.submit(|| 7).unwrap()), Ok(7));
    }

    #[test]
    fn a_panic_answers_its_caller_and_the_thread_lives_on() {
        let queue = queue(1, 4);
        let panicking = queue
            .submit(|| {
                if true {
                    panic!("a job panics on purpose")
                }
            })
            .unwrap();
        assert_eq!(wait(panicking), Err(JobFailed));
        assert_eq!(wait(queue.submit(|| 7).unwrap()), Ok(7));
    }

    #[test]
    fn a_job_whose_caller_went_away_is_skipped() {
        let queue = queue(1, 4);
        let (release, running) = busy(&queue);
        let ran = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&ran);
        drop(queue.submit(move || count.fetch_add(1, SeqCst)).unwrap());
        release.send(()).unwrap();
        wait(running).unwrap();
        wait(queue.submit(|| ()).unwrap()).unwrap();
        assert_eq!(ran.load(SeqCst), 0);
    }

    #[test]
    fn an_accepted_job_is_answered_after_the_queue_is_gone() {
        let queue = queue(1, 1);
        let answer = queue.submit(|| 7).unwrap();
        drop(queue);
        assert_eq!(wait(answer), Ok(7));
    }

    fn queue(threads: usize, capacity: usize) -> HashingQueue {
        HashingQueue::new(NonZeroUsize::new(threads).unwrap(), capacity).unwrap()
    }

    /// Occupies a thread until told otherwise; returns once the job runs, so that it no longer takes a place.
    fn busy(
        queue: &HashingQueue,
    ) -> (
        Sender<()>,
        impl Future<Output = Result<(), JobFailed>> + use<>,
    ) {
        let (release, released) = channel::<()>();
        let (began, beginning) = channel::<()>();
        let running = queue
            .submit(move || {
                began.send(()).unwrap();
                released.recv().unwrap();
            })
            .unwrap();
        beginning.recv().unwrap();
        (release, running)
    }

    fn wait<T>(answer: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(answer)
    }
}
