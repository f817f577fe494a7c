//! The rules of OAuth and OpenID Connect: values in, values out. No clock, no SQL, no HTTP.
//!
//! | document | where |
//! |---|---|
//! | RFC 6749 §2.3 client authentication; Core §9 | [`client_authentication`], [`client_secret`] |
//! | RFC 6749 §3.1, Appendix B parameters | [`parameters`] |
//! | RFC 6749 §3.1.2, RFC 8252 §7, RFC 9700 §4.1 redirect URIs | [`redirect_uri`] |
//! | RFC 6749 §3.3 scope; Core §5.4 | [`scope`], [`known_scopes`] |
//! | RFC 6749 §4.1.1; Core §3.1.2.1 authorization request | [`authorization_request`] |
//! | RFC 6749 §4.1.2; RFC 9207; Form Post authorization response | [`authorization_response`], [`response_mode`] |
//! | RFC 6749 §4.1.3 authorization code | [`grants::authorization_code`] |
//! | RFC 6749 §4.4 client credentials | [`grants::client_credentials`] |
//! | RFC 6749 §6; RFC 9700 §4.14 refresh tokens | [`grants::refresh_token`] |
//! | RFC 6749 §5.2 and Core §3.1.2.6 errors | [`error`] |
//! | RFC 6750, RFC 9068 access tokens | [`access_token`] |
//! | RFC 7515, 7517, 7518, 7638 JOSE | [`jose`] |
//! | RFC 7591 §2 client metadata | [`client`] |
//! | RFC 7636 PKCE | [`pkce`] |
//! | RFC 7662 introspection | [`introspection`] |
//! | RFC 8414; Discovery §3 | [`discovery`] |
//! | RFC 8707 resource indicators | [`resource`] |
//! | Core §2 ID token | [`id_token`] |
//! | Core §3.1.2.3, §3.1.2.4 what a person must still do | [`interaction`] |
//! | Core §5.1, §5.5 claims | [`claims`] |
//! | RP-Initiated Logout | [`end_session`] |

pub mod access_token;
pub mod acr;
pub mod authorization_request;
pub mod authorization_response;
pub mod claims;
pub mod client;
pub mod client_assertion;
pub mod client_authentication;
pub mod client_secret;
pub mod discovery;
pub mod duration;
pub mod end_session;
pub mod error;
pub mod grants;
pub mod id_token;
pub mod interaction;
pub mod introspection;
pub mod jose;
pub mod known_scopes;
pub mod parameters;
pub mod pkce;
pub mod problem;
pub mod prompt;
pub mod redirect_uri;
pub mod resource;
pub mod response_mode;
pub mod scope;
pub mod seal;
pub mod time;
