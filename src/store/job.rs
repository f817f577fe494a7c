//! A caller's closure on its way to a thread and back.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use tokio::sync::oneshot;
use tracing::Span;

use super::{AnyConnection, StoreError, error};

/// A closure whose type the threads need not know.
pub(super) trait Job: Send {
    /// Whether the caller has gone, so that there is no point in starting.
    fn abandoned(&self) -> bool;
    /// Whether the caller waits for however long it takes.
    fn has_patience(&self) -> bool;
    /// Runs the closure and keeps its value until `answer`.
    fn run(&mut self, connection: &mut AnyConnection) -> Ran;
    /// Tells the caller: its value, once that is durable, or the error.
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

/// How a closure ended.
pub(super) enum Ran {
    Done,
    Failed(StoreError),
    /// The connection may be in the middle of anything.
    Panicked(StoreError),
}

pub(super) struct Task<T, F> {
    work: F,
    /// The request on whose behalf it runs, for the log.
    span: Span,
    value: Option<T>,
    reply: Reply<T>,
}

/// Who waits: an async task, or a thread of the command line.
pub(super) enum Reply<T> {
    Task(oneshot::Sender<Result<T, StoreError>>),
    Thread(mpsc::SyncSender<Result<T, StoreError>>),
}

impl<T, F> Task<T, F> {
    pub(super) fn new(work: F, reply: Reply<T>) -> Task<T, F> {
        Task {
            work,
            span: Span::current(),
            value: None,
            reply,
        }
    }
}

impl<T, F> Job for Task<T, F>
where
    T: Send + 'static,
    F: FnMut(&mut AnyConnection) -> Result<T, StoreError> + Send + 'static,
{
    fn abandoned(&self) -> bool {
        match &self.reply {
            Reply::Task(sender) => sender.is_closed(),
            Reply::Thread(_) => false,
        }
    }

    fn has_patience(&self) -> bool {
        matches!(self.reply, Reply::Thread(_))
    }

    fn run(&mut self, connection: &mut AnyConnection) -> Ran {
        self.value = None;
        let work = &mut self.work;
        // What a panic leaves half done is rolled back, and the closure is not asked again.
        match catch_unwind(AssertUnwindSafe(|| self.span.in_scope(|| work(connection)))) {
            // Whoever asked was told that it failed, and has perhaps asked again.
            Ok(Ok(_)) if self.abandoned() => Ran::Failed(error::abandoned()),
            Ok(Ok(value)) => {
                self.value = Some(value);
                Ran::Done
            }
            Ok(Err(error)) => Ran::Failed(error),
            Err(panic) => Ran::Panicked(StoreError::fault(format!(
                "a closure given to the store panicked: {}",
                panic_text(panic.as_ref())
            ))),
        }
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let answer = match (outcome, self.value) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(value)) => Ok(value),
            (Ok(()), None) => Err(StoreError::fault("a job was answered that had not run")),
        };
        // A caller that has gone needs no answer.
        match self.reply {
            Reply::Task(sender) => drop(sender.send(answer)),
            Reply::Thread(sender) => drop(sender.send(answer)),
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else {
        // One that was put together may hold what somebody typed, and this ends in the log.
        "no fixed message"
    }
}
