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
            // libpq writes paragraphs, with tabs.
            let words: Vec<_> = more.split_whitespace().collect();
            text = format!("{text}: {}", words.join(" "));
        }
        cause = inner.source();
    }
    text
}
