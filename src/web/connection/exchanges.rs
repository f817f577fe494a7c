//! How many requests of one connection have been answered: the answer tells, the stream asks.

use std::cell::{Cell, RefCell};
use std::task::Waker;

/// A connection and all of its requests live on one thread.
#[derive(Debug, Default)]
pub(crate) struct Exchanges {
    answered: Cell<u64>,
    waiting: RefCell<Option<Waker>>,
}

impl Exchanges {
    /// A request has its answer, or nobody to take it.
    pub(crate) fn answered(&self) {
        self.answered.set(self.answered.get() + 1);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.answered.get()
    }

    /// Who goes on when the next one is answered.
    pub(super) fn wait(&self, waker: &Waker) {
        self.waiting.replace(Some(waker.clone()));
    }
}
