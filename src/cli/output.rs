//! Lists: aligned columns for people, one object a line for scripts.

use std::io::{self, Write};

use serde_json::Value;

use crate::protocol::time::Timestamp;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// One object a line, for scripts.
    Json,
}

/// Prints a list: a row of a table for each, or an object on a line of its own.
pub(super) fn list<T>(
    out: &mut dyn Write,
    format: Format,
    items: &[T],
    headings: &[&str],
    row: impl Fn(&T) -> Vec<String>,
    describe: impl Fn(&T) -> Value,
) -> io::Result<()> {
    match format {
        Format::Table => table(out, headings, &items.iter().map(row).collect::<Vec<_>>()),
        Format::Json => items
            .iter()
            .try_for_each(|item| object(out, &describe(item))),
    }
}

/// Prints columns under their headings; the last one is not padded.
pub(super) fn table(
    out: &mut dyn Write,
    headings: &[&str],
    rows: &[Vec<String>],
) -> io::Result<()> {
    let headings: Vec<String> = headings
        .iter()
        .map(|heading| (*heading).to_owned())
        .collect();
    let lines: Vec<Vec<String>> = std::iter::once(&headings)
        .chain(rows)
        .map(|row| row.iter().map(|cell| printable(cell)).collect())
        .collect();
    let width_of = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width_of).collect();
    for line in &lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}  "));
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

/// Prints one object on one line.
pub(super) fn object(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

/// A time as people and scripts both read it (RFC 3339, UTC).
pub(super) fn time(time: Timestamp) -> String {
    time.to_rfc3339()
}

/// A time that may be missing, as a cell of a table.
pub(super) fn moment(at: Option<Timestamp>) -> String {
    at.map(time).unwrap_or_default()
}

/// `yes` or nothing: a column of these is read at a glance.
pub(super) fn yes(value: bool) -> String {
    if value { "yes" } else { "" }.to_owned()
}

/// What came from outside must not move an operator's cursor or colour their terminal.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_control_characters_are_not_passed_on() {
        let mut out = Vec::new();
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        let rows = [row("bob@example.test", "B\u{1b}[2J"), row("é", "x")];
        table(&mut out, &["EMAIL", "NAME"], &rows).expect("memory takes all");
        let expected =
            "EMAIL             NAME\nbob@example.test  B\u{fffd}[2J\né                 x\n";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(time(Timestamp::from_seconds(0)), "1970-01-01T00:00:00Z");
    }
}
