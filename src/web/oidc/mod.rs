//! The endpoints of OAuth and OpenID Connect.

pub(super) mod authorization;
pub(super) mod cors;
pub(crate) mod discovery;
pub(super) mod end_session;
pub(super) mod introspection;
mod issued_token;
pub(super) mod jwks;
pub(super) mod revocation;
pub(super) mod token;
pub(super) mod userinfo;
