//! How the answer travels back. OAuth 2.0 Multiple Response Type Encoding Practices §2.1; OAuth 2.0 Form Post Response Mode.

use super::error::{OAuthError, invalid_request};

/// The values that are accepted.
pub const SUPPORTED: &[&str] = &["query", "form_post"];

/// How the answer travels back to the app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseMode {
    /// In the redirect's query.
    #[default]
    Query,
    /// In a form that the browser posts.
    FormPost,
}

impl ResponseMode {
    /// Reads the parameter.
    pub fn parse(value: Option<&str>) -> Result<Self, OAuthError> {
        match value {
            None | Some("query") => Ok(Self::Query),
            Some("form_post") => Ok(Self::FormPost),
            Some(_) => Err(invalid_request("response_mode must be query or form_post")),
        }
    }
}
