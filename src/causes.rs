//! How an error reads in one line.

use std::error::Error;

/// What an error says, and each of its causes once.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        // Some errors name their cause themselves.
        if !text.contains(&more) {
            text = format!("{text}: {}", in_one_line(&more));
        }
        cause = inner.source();
    }
    text
}

/// libpq writes paragraphs, with tabs.
pub(crate) fn in_one_line(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ")
}
