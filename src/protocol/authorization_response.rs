//! The authorization response, good or bad. RFC 6749 §4.1.2; RFC 9207; OpenID Connect Core §3.1.2.5, §3.1.2.6.

use super::authorization_request::ValidatedRedirect;
use super::error::OAuthError;
use super::response_mode::ResponseMode;

/// An answer that is ready to travel.
#[derive(Debug, PartialEq, Eq)]
pub enum AuthorizationResponse {
    /// Send the browser to this address.
    Redirect(String),
    /// Have the browser post these fields there.
    FormPost {
        action: String,
        fields: Vec<(&'static str, String)>,
    },
}

/// The answer that carries a code.
pub fn success(redirect: &ValidatedRedirect, code: &str, issuer: &str) -> AuthorizationResponse {
    deliver(redirect, vec![("code", code.to_owned())], issuer)
}

/// The answer that carries an error: nothing else but `state` and `iss` (Core §3.1.2.6).
pub fn failure(
    redirect: &ValidatedRedirect,
    error: &OAuthError,
    issuer: &str,
) -> AuthorizationResponse {
    let fields = vec![
        ("error", error.code.as_str().to_owned()),
        ("error_description", error.description().to_owned()),
    ];
    deliver(redirect, fields, issuer)
}

fn deliver(
    redirect: &ValidatedRedirect,
    mut fields: Vec<(&'static str, String)>,
    issuer: &str,
) -> AuthorizationResponse {
    if let Some(state) = redirect.state() {
        fields.push(("state", state.to_owned()));
    }
    fields.push(("iss", issuer.to_owned()));
    match redirect.mode() {
        ResponseMode::Query => AuthorizationResponse::Redirect(with_query(redirect.uri(), &fields)),
        ResponseMode::FormPost => AuthorizationResponse::FormPost {
            action: redirect.uri().to_owned(),
            fields,
        },
    }
}

/// Appends to whatever query the address has; the address itself stays as it was sent.
pub(super) fn with_query(uri: &str, fields: &[(&'static str, String)]) -> String {
    let separator = match uri.find('?') {
        None => "?",
        Some(_) if uri.ends_with(['?', '&']) => "",
        Some(_) => "&",
    };
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish();
    format!("{uri}{separator}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::authorization_request::tests::request;

    #[test]
    fn the_query_of_the_redirect_uri_is_kept() {
        let fields = [("code", "c".to_owned())];
        assert_eq!(
            with_query("https://rp.example/cb", &fields),
            "https://rp.example/cb?code=c"
        );
        assert_eq!(
            with_query("https://rp.example/cb?foo=bar", &fields),
            "https://rp.example/cb?foo=bar&code=c"
        );
        assert_eq!(
            with_query("https://rp.example/cb?", &fields),
            "https://rp.example/cb?code=c"
        );
    }

    #[test]
    fn errors_carry_state_and_issuer_and_nothing_else() {
        let request = request("").expect("valid");
        let error = crate::protocol::error::login_required("sign in first");
        let AuthorizationResponse::Redirect(location) =
            failure(&request.redirect, &error, "https://op.example")
        else {
            panic!("query")
        };
        let expected = "https://rp.example/cb?error=login_required&error_description=sign+in+first&state=s&iss=https%3A%2F%2Fop.example";
        assert_eq!(location, expected);
    }
}
