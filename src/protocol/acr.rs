//! Authentication context classes and methods. OpenID Connect Core §2 (`acr`, `amr`); RFC 8176.

/// One factor was proved. The only class that this server can reach so far.
pub const ONE_FACTOR: &str = "1";

/// The classes that can be asked for.
pub const SUPPORTED: &[&str] = &[ONE_FACTOR];

/// A password was proved (RFC 8176 §2).
pub const PASSWORD: &str = "pwd";
