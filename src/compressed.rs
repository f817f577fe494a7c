//! Documents that are the same for everybody, compressed once.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// A document as it is and as gzip; clones share both.
#[derive(Clone, Debug)]
pub struct Compressed {
    pub plain: Bytes,
    pub gzip: Bytes,
}

impl Compressed {
    pub fn new(plain: impl Into<Bytes>) -> Self {
        let plain = plain.into();
        // Memory takes every write.
        let gzip = compress(&plain).map_or_else(|_error| plain.clone(), Bytes::from);
        Self { plain, gzip }
    }
}

fn compress(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain)?;
    encoder.finish()
}
