//! What a file tells of itself before SQLite opens it, which changes what it opens. SQLite's file format §1.3.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use super::files::with_suffix;

/// How every database begins.
const BEGINNING: &[u8] = b"SQLite format 3\0";
const HEADER_BYTES: usize = 100;
/// What people keep copies as, by its first bytes.
const OTHERS: &[(&[u8], &str)] = &[
    (b"\x1f\x8b", "is packed with gzip; unpack it first"),
    (b"\xfd7zXZ\0", "is packed with xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is packed with zstd; unpack it first"),
    (b"PK\x03\x04", "is a ZIP archive; unpack it first"),
    (b"PGDMP", "is a dump of PostgreSQL, which pg_restore reads"),
    (
        b"age-encryption.org/",
        "is encrypted with age; decrypt it first",
    ),
];

/// Whether SQLite would take it for a database. Into anything else it writes the log that lies beside it, or deletes that.
pub(super) fn begins_as_database(file: &Path) -> io::Result<bool> {
    Ok(header(file)?.starts_with(BEGINNING))
}

/// Why it is no whole database, as far as its size and its first bytes tell.
pub(super) fn problem_of(file: &Path) -> io::Result<Option<String>> {
    let (header, bytes) = (header(file)?, fs::metadata(file)?.len());
    let is_cut_short = header.len() < HEADER_BYTES && BEGINNING.starts_with(first(&header));
    Ok(match header.as_slice() {
        [] => Some("it is empty".to_owned()),
        _ if is_cut_short => Some(format!("it breaks off after {bytes} bytes")),
        header if !header.starts_with(BEGINNING) => {
            let known = OTHERS.iter().find(|(begins, _)| header.starts_with(begins));
            let what = known.map_or(
                "is no SQLite database: it is encrypted, garbled or something else",
                |(_, what)| what,
            );
            Some(format!("it {what}"))
        }
        // What is missing may be in the log.
        _ if with_suffix(file, "-wal").try_exists()? => None,
        header => size_in(header)
            .filter(|whole| bytes < *whole)
            .map(|whole| format!("it breaks off: of its {whole} bytes {bytes} are there")),
    })
}

fn header(file: &Path) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    let most = u64::try_from(HEADER_BYTES).unwrap_or(u64::MAX);
    File::open(file)?.take(most).read_to_end(&mut header)?;
    Ok(header)
}

/// As much of the header as the beginning is long.
fn first(header: &[u8]) -> &[u8] {
    header.get(..BEGINNING.len()).unwrap_or(header)
}

/// How large the file is, where the header's number of pages is that of its latest change.
fn size_in(header: &[u8]) -> Option<u64> {
    let number = |at: usize| {
        let bytes = header.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes))
    };
    let page = u16::from_be_bytes(header.get(16..18)?.try_into().ok()?);
    // 65,536 does not fit.
    let page = if page == 1 { 1 << 16 } else { u64::from(page) };
    let is_of_latest_change = number(24)? == number(92)?;
    is_of_latest_change.then_some(page * u64::from(number(28)?))
}
