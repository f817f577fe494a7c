//! The only reader of the system's time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::protocol::time::Timestamp;

/// Where `now` comes from: the system in production, a hand-moved value in tests.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The operating system's clock, rounded down to the second.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(start.seconds()))))
    }

    /// The present, never ahead of it.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the time"
    )]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => {
                let since_epoch = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                Timestamp::from_seconds(i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX))
            }
            Source::Manual(seconds) => Timestamp::from_seconds(seconds.load(Ordering::SeqCst)),
        }
    }

    /// A number that grows with every call in this process, and from one process of a machine to the next: it puts in order
    /// what happened in one second. Never a manual clock's, which stands still.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the time"
    )]
    pub fn order() -> u64 {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let micros = u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX);
        // Two within a microsecond, and a clock that was put back, go on from the last one.
        let after = |last: u64| micros.max(last.saturating_add(1));
        let last = LAST.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(after(last)));
        let (Ok(last) | Err(last)) = last;
        after(last)
    }

    /// Puts a manual clock anywhere, as an operator may do with a real one; the system's clock is left alone.
    pub fn set(&self, to: Timestamp) {
        if let Source::Manual(seconds) = &self.0 {
            seconds.store(to.seconds(), Ordering::SeqCst);
        }
    }

    /// Moves a manual clock forward; the system's clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(seconds) = &self.0 {
            let by = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
            seconds.fetch_add(by, Ordering::SeqCst);
        }
    }
}
