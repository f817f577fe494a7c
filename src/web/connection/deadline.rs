//! How long a connection may keep us waiting, and for what.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Until it asks for something. Longer than the keep-alive of the library, which closes politely.
const SILENCE: Duration = Duration::from_secs(80);
/// From the first byte of a request to the first one of its answer: a head takes at most 5 seconds, a body 15, the
/// answer 10.
const REQUEST: Duration = Duration::from_secs(30);
/// From when an answer had to wait until all that was to be sent is taken.
const ANSWER: Duration = Duration::from_secs(30);

/// What it is that we wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is asked.
    Silence,
    /// Something was asked and nothing answered.
    Request,
    /// The other side does not take its answer.
    Answer,
}

impl Phase {
    const fn limit(self) -> Duration {
        match self {
            Self::Silence => SILENCE,
            Self::Request => REQUEST,
            Self::Answer => ANSWER,
        }
    }
}

/// One timer for all of them. It is set anew only when it fires too early, so that a request costs none.
pub(super) struct Deadline {
    phase: Phase,
    until: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Deadline {
    pub(super) fn new() -> Self {
        let until = Instant::now() + SILENCE;
        Self {
            phase: Phase::Silence,
            until,
            timer: Box::pin(sleep_until(until)),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Begins a phase, or the same one anew.
    pub(super) fn begin(&mut self, phase: Phase) {
        self.phase = phase;
        self.until = Instant::now() + phase.limit();
    }

    /// For when there is nothing to do but wait: the error of a connection whose time is over, else whoever asks is woken
    /// when it is.
    pub(super) fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        // A phase may have begun that ends before the timer does.
        if self.timer.deadline() > self.until {
            self.timer.as_mut().reset(self.until);
        }
        while let Poll::Ready(()) = self.timer.as_mut().poll(context) {
            if Instant::now() >= self.until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.timer.as_mut().reset(self.until);
        }
        Ok(())
    }
}
