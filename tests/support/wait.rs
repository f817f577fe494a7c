//! Waiting for what happens in a thread or a process that is not the test's.

use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(15);

/// Asks until the answer is there.
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, what, ask)
}

/// Asks until the answer is there, which must be soon.
pub fn within<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        let asked = started.elapsed();
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(asked < limit, "still not: {what}");
        pause((limit / 20).min(Duration::from_millis(50)));
    }
}

/// Lets another process go on for a while.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place where a test looks at the real time"
)]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
