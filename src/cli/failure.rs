//! Why a command ends with exit code 1, as the text that people read.

use std::error::Error;
use std::io;

use crate::causes::with_causes;

/// Ends a command. Any error becomes one with `?`, causes included.
pub(super) enum Failure {
    /// The text for standard error.
    Text(String),
    /// The log has said why.
    Told,
    /// Nobody reads the output any more, as after `| head`.
    ReaderGone,
}

impl Failure {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

/// What a command found is told by its exit code too, which counts even if nobody reads the rest of the text.
pub(super) fn heard_or_not(printed: io::Result<()>) -> io::Result<()> {
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let as_io = (&error as &dyn Error).downcast_ref::<io::Error>();
        if as_io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return Self::ReaderGone;
        }
        Self::Text(with_causes(&error))
    }
}
