//! What holds for a connection whatever is said over it: how many one address may have, how long it may keep us waiting,
//! and how much of what it sends is read ahead. OWASP ASVS 5.0 §15.2.2.
//!
//! The HTTP library has a deadline for a connection's first head alone, decodes every request that has arrived before it
//! answers the first, and reads on for nobody. All of that is decided here, below it.

mod deadline;
mod exchanges;
mod framing;
mod guarded;
mod limit;
mod service;

pub(crate) use self::exchanges::Exchanges;
use self::guarded::Guarded;
use self::limit::ConnectionLimit;
pub(crate) use self::service::run;
