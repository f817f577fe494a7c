//! The authorization request. RFC 6749 §4.1.1; OpenID Connect Core §3.1.2.1; RFC 9700 §4.11.2.
//!
//! Validation ends in a request that holds a [`ValidatedRedirect`], or in an error that says by its type whether it may
//! leave this server: nothing later can redirect to an address that was not checked.

use super::acr;
use super::claims::ClaimsRequest;
use super::client::{Client, ClientId};
use super::error::{ErrorCode, OAuthError, invalid_request, invalid_scope};
use super::grants::GrantType;
use super::known_scopes::KnownScopes;
use super::parameters::Parameters;
use super::pkce::CodeChallenge;
use super::prompt::Prompt;
use super::redirect_uri;
use super::resource;
use super::response_mode::ResponseMode;
use super::scope::Scope;

/// The parameters that are acted on; all others are ignored.
pub const RESPONSE_TYPES: &[&str] = &["code"];

/// Longest `state` and `nonce`: long enough for every framework, short enough for an address bar.
const LONGEST_ECHOED: usize = 2_000;

/// A request that was understood whole.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorizationRequest {
    pub client_id: ClientId,
    pub redirect: ValidatedRedirect,
    pub scope: Scope,
    pub nonce: Option<String>,
    pub prompt: Prompt,
    pub max_age: Option<u64>,
    pub ui_locales: Option<String>,
    pub claims_locales: Option<String>,
    pub login_hint: Option<String>,
    pub id_token_hint: Option<String>,
    pub acr_values: Vec<String>,
    pub claims: ClaimsRequest,
    pub code_challenge: Option<CodeChallenge>,
    pub resources: Vec<String>,
}

/// A redirect URI that equals a registered one, with what belongs to the answer sent there. Made only by [`validate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedRedirect {
    uri: String,
    mode: ResponseMode,
    state: Option<String>,
}

impl ValidatedRedirect {
    /// Exactly as the request sent it.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// How the answer travels.
    pub fn mode(&self) -> ResponseMode {
        self.mode
    }

    /// To be returned unchanged.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

/// How a refused request is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthorizationError {
    /// On a page of ours: there is no address that could be trusted.
    ShowPage(PageError),
    /// At the app's own, validated address.
    Redirect(ValidatedRedirect, OAuthError),
}

/// What keeps a request from being answered at the app's address.
#[derive(Clone, Debug, PartialEq)]
pub enum PageError {
    /// The request has no usable `client_id`.
    Client(OAuthError),
    /// The redirect URI is missing, repeated or not registered. `differs_at` is the byte where it leaves the
    /// nearest registered one, its end where that is not told.
    RedirectUri {
        error: OAuthError,
        received: Option<String>,
        differs_at: usize,
    },
}

/// The client that a request names, before anything else of it is believed.
pub fn client_id(parameters: &Parameters) -> Result<ClientId, AuthorizationError> {
    let refuse = |description: &'static str| {
        AuthorizationError::ShowPage(PageError::Client(invalid_request(description)))
    };
    if parameters.is_repeated("client_id") {
        return Err(refuse("client_id was sent more than once"));
    }
    parameters
        .get("client_id")
        .map(ClientId::from_request)
        .ok_or_else(|| refuse("client_id is missing"))
}

/// The refusal for a client that doesn't exist or is switched off.
pub fn unknown_client() -> AuthorizationError {
    AuthorizationError::ShowPage(PageError::Client(invalid_request(
        "no client has this client_id",
    )))
}

/// Judges a whole request for a client that exists.
pub fn validate(
    parameters: &Parameters,
    client: &Client,
    known: &KnownScopes,
) -> Result<AuthorizationRequest, AuthorizationError> {
    let redirect = validate_redirect(parameters, client)?;
    read(parameters, client, known, &redirect)
        .map_err(|error| AuthorizationError::Redirect(redirect, error))
}

fn validate_redirect(
    parameters: &Parameters,
    client: &Client,
) -> Result<ValidatedRedirect, AuthorizationError> {
    let received = parameters.get("redirect_uri");
    let refuse = |description: &'static str| {
        let differs_at = received.map_or(0, |uri| {
            redirect_uri::first_difference(uri, client.redirect_uris.iter())
        });
        let error = invalid_request(description);
        Err(AuthorizationError::ShowPage(PageError::RedirectUri {
            error,
            received: received.map(str::to_owned),
            differs_at,
        }))
    };
    if parameters.is_repeated("redirect_uri") {
        return refuse("redirect_uri was sent more than once");
    }
    let Some(uri) = received else {
        return refuse("redirect_uri is missing");
    };
    if !client
        .redirect_uris
        .iter()
        .any(|registered| registered.matches(uri, client.any_loopback_port()))
    {
        return refuse("redirect_uri is not registered for this client");
    }
    Ok(ValidatedRedirect {
        uri: uri.to_owned(),
        // A mode that can't be used is refused later; the refusal itself then travels in the query.
        mode: ResponseMode::parse(parameters.get("response_mode")).unwrap_or_default(),
        state: parameters
            .get("state")
            .filter(|state| state.len() <= LONGEST_ECHOED)
            .map(str::to_owned),
    })
}

fn read(
    parameters: &Parameters,
    client: &Client,
    known: &KnownScopes,
    redirect: &ValidatedRedirect,
) -> Result<AuthorizationRequest, OAuthError> {
    if let Some(name) = parameters.repeated() {
        return Err(invalid_request(format!(
            "{} was sent more than once",
            name.chars().take(40).collect::<String>()
        )));
    }
    refuse_request_objects(parameters)?;
    match parameters.get("response_type") {
        Some("code") => {}
        Some(_) => {
            return Err(OAuthError::new(
                ErrorCode::UnsupportedResponseType,
                "response_type must be code",
            ));
        }
        None => return Err(invalid_request("response_type is missing")),
    }
    if !client.may_use(GrantType::AuthorizationCode) {
        return Err(OAuthError::new(
            ErrorCode::UnauthorizedClient,
            "this client is not registered for the grant type authorization_code",
        ));
    }
    ResponseMode::parse(parameters.get("response_mode"))?;
    for name in ["state", "nonce"] {
        if parameters
            .get(name)
            .is_some_and(|value| value.len() > LONGEST_ECHOED)
        {
            return Err(invalid_request(format!(
                "{name} is longer than {LONGEST_ECHOED} characters"
            )));
        }
    }
    let requested: Scope = parameters
        .get("scope")
        .unwrap_or_default()
        .parse()
        .map_err(|_bad_scope| invalid_scope("scope has characters that are not allowed"))?;
    let code_challenge = CodeChallenge::from_request(parameters)?;
    if code_challenge.is_none() && client.must_use_pkce() {
        return Err(invalid_request(
            "this client must use PKCE: code_challenge is missing",
        ));
    }
    Ok(AuthorizationRequest {
        client_id: client.client_id.clone(),
        redirect: redirect.clone(),
        scope: client.allowed_scope(requested, known),
        nonce: parameters.get("nonce").map(str::to_owned),
        prompt: Prompt::parse(parameters.get("prompt"))?,
        max_age: max_age(parameters.get("max_age"))?.or(client.default_max_age),
        ui_locales: parameters.get("ui_locales").map(str::to_owned),
        claims_locales: parameters.get("claims_locales").map(str::to_owned),
        login_hint: parameters.get("login_hint").map(str::to_owned),
        id_token_hint: parameters.get("id_token_hint").map(str::to_owned),
        acr_values: acr_values(parameters, client),
        claims: essential_acr_is_met(ClaimsRequest::parse(parameters.get("claims"))?)?
            .allowed_to(client, known),
        code_challenge,
        resources: resource::parse(parameters.resources(), client)?,
    })
}

/// Ignoring a request object silently would drop what it demands (OpenID Connect Core §6).
fn refuse_request_objects(parameters: &Parameters) -> Result<(), OAuthError> {
    for (name, code) in [
        ("request", ErrorCode::RequestNotSupported),
        ("request_uri", ErrorCode::RequestUriNotSupported),
        ("registration", ErrorCode::RegistrationNotSupported),
    ] {
        if parameters.get(name).is_some() {
            return Err(OAuthError::new(code, format!("{name} is not supported")));
        }
    }
    Ok(())
}

fn max_age(value: Option<&str>) -> Result<Option<u64>, OAuthError> {
    let Some(value) = value else { return Ok(None) };
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid_request("max_age must be a whole number of seconds"));
    }
    // A number too large for us is as good as no limit.
    Ok(Some(value.parse().unwrap_or(u64::MAX)))
}

fn acr_values(parameters: &Parameters, client: &Client) -> Vec<String> {
    match parameters.get("acr_values") {
        Some(values) => values
            .split(' ')
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .collect(),
        None => client.default_acr_values.clone(),
    }
}

/// `acr_values` is a wish; an essential `acr` is a condition (OpenID Connect Core §5.5.1.1; Unmet Authentication Requirements §2).
fn essential_acr_is_met(claims: ClaimsRequest) -> Result<ClaimsRequest, OAuthError> {
    if let Some(wish) = claims.id_token.wish("acr").filter(|wish| wish.essential) {
        // What is no text can't be a class of ours, and a list of nothing can't be met.
        let is_met = wish.accepted().is_none_or(|accepted| {
            let mut classes = accepted.iter().filter_map(|class| class.as_str());
            classes.any(|class| acr::SUPPORTED.contains(&class))
        });
        if !is_met {
            let description = "none of the essential acr values can be reached here";
            return Err(OAuthError::new(
                ErrorCode::UnmetAuthenticationRequirements,
                description,
            ));
        }
    }
    Ok(claims)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::protocol::client::ClientMetadata;

    pub(crate) fn client(change: impl FnOnce(&mut ClientMetadata)) -> Client {
        let mut metadata = ClientMetadata {
            redirect_uris: vec!["https://rp.example/cb".to_owned()],
            ..ClientMetadata::default()
        };
        change(&mut metadata);
        metadata
            .check(ClientId::from_request("rp"), &KnownScopes::default())
            .expect("a valid client")
    }

    const GOOD: &str =
        "client_id=rp&redirect_uri=https://rp.example/cb&response_type=code&scope=openid&state=s";

    pub(crate) fn request(extra: &str) -> Result<AuthorizationRequest, AuthorizationError> {
        let parameters = Parameters::parse(format!("{GOOD}{extra}").as_bytes())
            .expect("well-formed")
            .without_empty();
        validate(&parameters, &client(|_| {}), &KnownScopes::default())
    }

    fn redirected(extra: &str) -> ErrorCode {
        match request(extra) {
            Err(AuthorizationError::Redirect(redirect, error)) => {
                assert_eq!(redirect.uri(), "https://rp.example/cb");
                error.code
            }
            other => panic!("{extra} should be refused by redirect, but: {other:?}"),
        }
    }

    #[test]
    fn a_redirect_uri_that_is_missing_repeated_or_unregistered_stops_with_a_page() {
        for query in [
            "client_id=rp&response_type=code",
            "client_id=rp&response_type=code&redirect_uri=https://rp.example/cb&redirect_uri=https://rp.example/cb",
            "client_id=rp&response_type=code&redirect_uri=https://rp.example/cb/",
        ] {
            let parameters = Parameters::parse(query.as_bytes()).expect("well-formed");
            let result = validate(&parameters, &client(|_| {}), &KnownScopes::default());
            assert!(
                matches!(
                    result,
                    Err(AuthorizationError::ShowPage(PageError::RedirectUri { .. }))
                ),
                "{query}"
            );
        }
    }

    #[test]
    fn other_errors_go_back_to_the_app() {
        for (extra, code) in [
            ("&nonce=a&nonce=b", ErrorCode::InvalidRequest),
            ("&display=page&display=page", ErrorCode::InvalidRequest),
            ("&state=again", ErrorCode::InvalidRequest),
            ("&prompt=none%20login", ErrorCode::InvalidRequest),
            ("&max_age=-1", ErrorCode::InvalidRequest),
            ("&max_age=soon", ErrorCode::InvalidRequest),
            ("&claims=%7B", ErrorCode::InvalidRequest),
            ("&response_mode=fragment", ErrorCode::InvalidRequest),
            ("&code_challenge=x", ErrorCode::InvalidRequest),
            ("&request=x.y.z", ErrorCode::RequestNotSupported),
            (
                "&request_uri=https://rp.example/r",
                ErrorCode::RequestUriNotSupported,
            ),
            ("&registration=%7B%7D", ErrorCode::RegistrationNotSupported),
            ("&resource=https://api.example", ErrorCode::InvalidTarget),
            (
                "&claims=%7B%22id_token%22:%7B%22acr%22:%7B%22essential%22:true,%22value%22:%229%22%7D%7D%7D",
                ErrorCode::UnmetAuthenticationRequirements,
            ),
        ] {
            assert_eq!(redirected(extra), code, "{extra}");
        }
    }

    #[test]
    fn an_essential_acr_is_a_condition_whatever_its_type() {
        for (wish, is_met) in [
            (r#"{"essential":true}"#, true),
            (r#"{"essential":true,"values":["9","1"]}"#, true),
            (r#"{"value":"9"}"#, true),
            (r#"{"essential":true,"value":"9"}"#, false),
            (r#"{"essential":true,"value":9}"#, false),
            (r#"{"essential":true,"values":[1]}"#, false),
            (r#"{"essential":true,"values":[]}"#, false),
        ] {
            let claims = format!("&claims={{\"id_token\":{{\"acr\":{wish}}}}}");
            assert_eq!(request(&claims).is_ok(), is_met, "{wish}");
        }
    }

    #[test]
    fn a_repeated_state_is_not_returned() {
        let Err(AuthorizationError::Redirect(redirect, _)) = request("&state=other") else {
            panic!("refused")
        };
        assert_eq!(redirect.state(), None);
    }

    #[test]
    fn unknown_parameters_and_hints_are_no_error() {
        let request = request("&display=popup&ui_locales=se&claims_locales=se&acr_values=7%208&login_hint=any%20thing&foo=bar&max_age=99999999999999999999")
            .expect("accepted");
        assert_eq!(request.max_age, Some(u64::MAX));
    }

    #[test]
    fn scopes_that_are_unknown_or_not_allowed_are_dropped() {
        let parameters = Parameters::parse(
            GOOD.replace("openid", "openid%20email%20nonsense%20profile")
                .as_bytes(),
        )
        .expect("well-formed");
        let client = client(|metadata| metadata.scope = Some("openid email".to_owned()));
        assert_eq!(
            validate(&parameters, &client, &KnownScopes::default())
                .expect("accepted")
                .scope
                .to_string(),
            "email openid"
        );
    }

    #[test]
    fn claims_of_scopes_that_are_not_allowed_are_dropped() {
        let claims = r#"{"userinfo":{"email":null,"name":null,"sub":null},"id_token":{"email":{"essential":true},"groups":null,"auth_time":null}}"#;
        let parameters =
            Parameters::parse(format!("{GOOD}&claims={claims}").as_bytes()).expect("well-formed");
        for (scope, userinfo, id_token) in [
            (Some("openid"), &["sub"][..], &["auth_time"][..]),
            (
                Some("openid email"),
                &["email", "sub"],
                &["auth_time", "email"],
            ),
            (
                None,
                &["email", "name", "sub"],
                &["auth_time", "email", "groups"],
            ),
        ] {
            let client = client(|metadata| metadata.scope = scope.map(str::to_owned));
            let claims = validate(&parameters, &client, &KnownScopes::default())
                .expect("accepted")
                .claims;
            assert_eq!(
                claims.userinfo.names().collect::<Vec<_>>(),
                userinfo,
                "{scope:?}"
            );
            assert_eq!(
                claims.id_token.names().collect::<Vec<_>>(),
                id_token,
                "{scope:?}"
            );
        }
    }

    #[test]
    fn a_public_client_must_use_pkce_and_others_when_they_say_so() {
        let parameters = Parameters::parse(GOOD.as_bytes()).expect("well-formed");
        let public =
            client(|metadata| metadata.token_endpoint_auth_method = Some("none".to_owned()));
        let careful = client(|metadata| metadata.require_pkce = Some(true));
        for client in [public, careful] {
            assert!(matches!(
                validate(&parameters, &client, &KnownScopes::default()),
                Err(AuthorizationError::Redirect(..))
            ));
        }
    }
}
