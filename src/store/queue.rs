//! A bounded queue between those who ask and the threads that own the connections.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Many may push, many may take. std's channels have a single receiver, and theirs cannot be closed from outside.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    left: Condvar,
    limit: usize,
}

struct State<T> {
    waiting: VecDeque<T>,
    closed: bool,
    threads: usize,
}

/// Counts a thread that serves the queue, until it ends.
pub(super) struct Serving<'a, T>(&'a Queue<T>);

impl<T> Queue<T> {
    pub(super) fn new(limit: usize) -> Queue<T> {
        Queue {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                closed: false,
                threads: 0,
            }),
            filled: Condvar::new(),
            left: Condvar::new(),
            limit,
        }
    }

    /// Answers how many wait before it. Gives the item back when the queue is full or closed: whoever asks then is told at
    /// once, not after a long wait.
    pub(super) fn push(&self, item: T) -> Result<usize, T> {
        let mut state = self.lock();
        let before = state.waiting.len();
        if state.closed || before >= self.limit {
            return Err(item);
        }
        state.waiting.push_back(item);
        drop(state);
        self.filled.notify_one();
        Ok(before)
    }

    /// Waits for the first item, then takes what is there already, up to `most`. Nothing means closed and empty.
    pub(super) fn take(&self, most: usize) -> Vec<T> {
        let mut state = self.lock();
        while state.waiting.is_empty() && !state.closed {
            state = self
                .filled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let count = most.min(state.waiting.len());
        state.waiting.drain(..count).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    pub(super) fn serve(&self) -> Serving<'_, T> {
        self.lock().threads += 1;
        Serving(self)
    }

    /// Takes nothing new, and waits until what is queued is done and the threads have ended, but no longer than `limit`.
    pub(super) fn close(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let mut state = self.lock();
        state.closed = true;
        self.filled.notify_all();
        while state.threads > 0 {
            let remaining = until.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return;
            }
            state = self
                .left
                .wait_timeout(state, remaining)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    // A panic while holding the lock would leave the list intact, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Serving<'_, T> {
    fn drop(&mut self) {
        self.0.lock().threads -= 1;
        self.0.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_gives_the_item_back() {
        let queue = Queue::new(1);
        assert_eq!(queue.push('a'), Ok(0));
        assert_eq!(queue.push('b'), Err('b'));
    }

    #[test]
    fn taking_never_waits_for_more_than_the_first() {
        let queue = Queue::new(8);
        queue.push('a').unwrap();
        assert_eq!(queue.take(64), vec!['a']);
    }

    #[test]
    fn a_closed_queue_still_hands_out_what_it_holds() {
        let queue = Queue::new(8);
        queue.push('a').unwrap();
        queue.close(Duration::ZERO);
        assert_eq!(queue.push('b'), Err('b'));
        assert_eq!(queue.take(64), vec!['a']);
        assert!(queue.take(64).is_empty());
    }
}
