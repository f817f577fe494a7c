//! Waiting for what happens in a thread that is not the test's.

use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(15);

/// Asks until the answer is there.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place where a test looks at the real time"
)]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < DEADLINE, "still not: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
