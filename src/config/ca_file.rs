//! Authorities of an operator's own, which outgoing calls trust beside the system's.

use std::fmt;
use std::fs;
use std::str::FromStr;

use reqwest::Certificate;

use super::values::Described;

/// What ends a certificate in PEM (RFC 7468 §2).
const END: &str = "-----END CERTIFICATE-----";

/// The certificates of a PEM file.
#[derive(Clone)]
pub struct CaFile(Vec<Certificate>);

impl CaFile {
    /// Each of them, in the order of the file.
    pub fn certificates(&self) -> &[Certificate] {
        &self.0
    }
}

impl FromStr for CaFile {
    /// Completes a sentence that begins with the key and the path.
    type Err = String;

    fn from_str(path: &str) -> Result<Self, String> {
        let text = fs::read_to_string(path)
            .map_err(|error| format!("names a file that cannot be read: {error}"))?;
        let certificates = text.split_inclusive(END).filter(|part| part.ends_with(END));
        let certificates: Vec<_> = certificates
            .map(|part| Certificate::from_pem(part.as_bytes()))
            .collect::<Result<_, _>>()
            .map_err(|_unreadable| "names a file with a broken certificate".to_owned())?;
        if certificates.is_empty() {
            return Err("names a file that holds no certificate in PEM".to_owned());
        }
        Ok(Self(certificates))
    }
}

impl Described for CaFile {
    const ALLOWED: &'static str = "the path of a file with certificates in PEM";
}

impl fmt::Debug for CaFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaFile({})", self.0.len())
    }
}
