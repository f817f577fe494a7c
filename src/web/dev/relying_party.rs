//! The test app's protocol, through a library that other apps use too. OpenID Connect Core §3.1, §12; RFC 7636; RFC 9207;
//! RP-Initiated Logout.

use std::error::Error;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::core::{
    CoreAuthPrompt, CoreAuthenticationFlow, CoreClient, CoreIdToken, CoreTokenResponse,
    CoreUserInfoClaims,
};
use openidconnect::{
    AccessTokenHash, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndSessionUrl,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, IdTokenVerifier, IssuerUrl, LogoutRequest,
    Nonce, NonceVerifier, OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier,
    PostLogoutRedirectUrl, ProviderMetadataWithLogout, RedirectUrl, RefreshToken,
    RequestTokenError, Scope, TokenResponse as _,
};
use serde_json::{Map, Value, json};

use super::app;
use super::connection;
use super::pending::{Choices, Connection, Leaving, Pending};
use super::recorder::Recorder;
use crate::causes::with_causes;
use crate::protocol::parameters::Parameters;
use crate::protocol::seal::constant_time_eq;
use crate::protocol::time::Timestamp;
use crate::random;
use crate::seed::DevApp;
use crate::web::pages::{DevClaim, DevError, DevTable};
use crate::web::state::AppState;

type DiscoveredClient = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// What `from_provider_metadata` asks for, in the order of the requests.
pub(super) const STEPS: &[&str] = &["Discovery", "Key set", "Token", "UserInfo"];

/// The authorization request: where to send the browser, and what to remember.
pub(super) async fn begin(
    state: &AppState,
    credentials: &DevApp,
    http: &Recorder,
    choices: Choices,
    now: Timestamp,
) -> Result<Pending, DevError> {
    let (client, _) = discover(state, credentials, http).await?;
    let (code_challenge, code_verifier) = {
        let verifier = PkceCodeVerifier::new(random::token());
        (
            PkceCodeChallenge::from_code_verifier_sha256(&verifier),
            verifier,
        )
    };
    let (state_value, nonce) = (CsrfToken::new(random::token()), Nonce::new(random::token()));
    let (sent_state, sent_nonce) = (state_value.clone(), nonce.clone());
    let mut request = client
        .authorize_url(
            CoreAuthenticationFlow::AuthorizationCode,
            move || sent_state,
            move || sent_nonce,
        )
        .add_scopes(choices.scopes.iter().cloned().map(Scope::new))
        .set_pkce_challenge(code_challenge);
    if let Some(prompt) = choices.prompt.as_deref().and_then(prompt) {
        request = request.add_prompt(prompt);
    }
    if choices.id_token_claims {
        request = request.add_extra_param("claims", claims_parameter(&choices.scopes).to_string());
    }
    let (url, ..) = request.url();
    Ok(Pending {
        state: state_value.into_secret(),
        nonce: nonce.secret().clone(),
        code_verifier: code_verifier.into_secret(),
        choices,
        request: url.to_string(),
        begun_at: now,
    })
}

/// Is this answer meant for us, and which code does it bring?
pub(super) fn code_of<'a>(
    answer: &'a Parameters,
    pending: Option<&Pending>,
    issuer: &str,
) -> Result<&'a str, DevError> {
    if let Some(name) = answer.repeated() {
        return Err(failure(
            "invalid_response",
            &format!("The answer has the parameter {name} more than once."),
        ));
    }
    let Some(pending) = pending else {
        return Err(failure(
            "state_unknown",
            "This browser began no sign-in here in the last 10 minutes. Sign in again.",
        ));
    };
    if !answer
        .get("state")
        .is_some_and(|state| constant_time_eq(state.as_bytes(), pending.state.as_bytes()))
    {
        let words = "The answer's state isn't the one that was sent, so it belongs to another sign-in. Nothing was exchanged.";
        return Err(failure("state_mismatch", words));
    }
    // RFC 9207 §2.4: errors carry `iss` too, so it comes before them.
    if answer.get("iss") != Some(issuer) {
        let received = answer.get("iss").unwrap_or("nothing");
        return Err(failure(
            "iss_mismatch",
            &format!("The answer's iss is {received}, expected {issuer}. Nothing was exchanged."),
        ));
    }
    if let Some(code) = answer.get("error") {
        return Err(failure(
            code,
            answer
                .get("error_description")
                .unwrap_or("The server gave no description."),
        ));
    }
    answer.get("code").ok_or_else(|| {
        failure(
            "invalid_response",
            "The answer has neither a code nor an error.",
        )
    })
}

/// Exchanges the code, verifies what comes, and asks UserInfo. Tables are filled as far as it went.
pub(super) async fn finish(
    state: &AppState,
    credentials: &DevApp,
    http: &Recorder,
    code: &str,
    pending: &Pending,
    tables: &mut Vec<DevTable>,
    now: Timestamp,
) -> Result<Connection, DevError> {
    let (client, _) = discover(state, credentials, http).await?;
    let response = client
        .exchange_code(AuthorizationCode::new(code.to_owned()))
        .map_err(|error| failure("configuration", &with_causes(&error)))?
        .set_pkce_verifier(PkceCodeVerifier::new(pending.code_verifier.clone()))
        .request_async(http)
        .await
        .map_err(|error| token_failure(error, USED_CODE))?;
    let nonce = Nonce::new(pending.nonce.clone());
    let (subject, id_token) = show(&client, &response, &nonce, http, tables, now).await?;
    Ok(Connection {
        subject,
        id_token,
        refresh_token: refresh_token_of(&response),
        choices: pending.choices.clone(),
        since: now,
    })
}

/// Refreshes the tokens, verifies what comes, and asks UserInfo.
pub(super) async fn refresh(
    state: &AppState,
    credentials: &DevApp,
    http: &Recorder,
    connection: &Connection,
    tables: &mut Vec<DevTable>,
    now: Timestamp,
) -> Result<Connection, DevError> {
    let (client, _) = discover(state, credentials, http).await?;
    let token = connection
        .refresh_token
        .clone()
        .ok_or_else(|| failure("no_refresh_token", "The last answer had no refresh token."))?;
    let response = client
        .exchange_refresh_token(&RefreshToken::new(token))
        .map_err(|error| failure("configuration", &with_causes(&error)))?
        .request_async(http)
        .await
        .map_err(|error| token_failure(error, ENDED))?;
    // Core §12.2: the nonce is the first ID token's alone.
    let no_nonce = |nonce: Option<&Nonce>| match nonce {
        None => Ok(()),
        Some(_) => Err("a refreshed ID token has a nonce".to_owned()),
    };
    let (subject, id_token) = show(&client, &response, no_nonce, http, tables, now).await?;
    if subject != connection.subject {
        return Err(failure(
            "id_token",
            "The refreshed ID token is about somebody else.",
        ));
    }
    Ok(Connection {
        subject,
        id_token,
        refresh_token: refresh_token_of(&response),
        choices: connection.choices.clone(),
        since: now,
    })
}

/// The request to sign out: where to send the browser, and what to remember.
pub(super) async fn leave(
    state: &AppState,
    credentials: &DevApp,
    http: &Recorder,
    connection: &Connection,
    now: Timestamp,
) -> Result<Leaving, DevError> {
    let broken = |error: &dyn Error| failure("sign_out", &with_causes(error));
    let (_, endpoint) = discover(state, credentials, http).await?;
    let endpoint =
        endpoint.ok_or_else(|| failure("discovery", "The server has no end_session_endpoint."))?;
    let hint: CoreIdToken = connection
        .id_token
        .parse()
        .map_err(|error| broken(&error))?;
    let back = PostLogoutRedirectUrl::new(state.url(connection::SIGNED_OUT))
        .map_err(|error| broken(&error))?;
    let state_value = random::token();
    let url = LogoutRequest::from(endpoint)
        .set_id_token_hint(&hint)
        .set_post_logout_redirect_uri(back)
        .set_state(CsrfToken::new(state_value.clone()))
        .http_get_url();
    Ok(Leaving {
        state: state_value,
        choices: connection.choices.clone(),
        request: url.to_string(),
        begun_at: now,
    })
}

/// Verifies the ID token, asks UserInfo, and shows both. Gives the subject, and the ID token as it came.
async fn show(
    client: &DiscoveredClient,
    response: &CoreTokenResponse,
    nonce: impl NonceVerifier,
    http: &Recorder,
    tables: &mut Vec<DevTable>,
    now: Timestamp,
) -> Result<(String, String), DevError> {
    let raw = body_of(http)
        .get("id_token")
        .and_then(Value::as_str)
        .map(str::to_owned)
        .unwrap_or_default();
    let verifier = client.id_token_verifier().set_time_fn(move || {
        chrono::DateTime::from_timestamp(now.seconds(), 0).unwrap_or(chrono::DateTime::UNIX_EPOCH)
    });
    let subject = verify(response, &verifier, nonce)?;
    tables.push(DevTable {
        title: "ID token".to_owned(),
        claims: rows(payload(&raw)),
        raw: Some(raw.clone()),
    });
    let request = client
        .user_info(response.access_token().clone(), Some(subject.clone()))
        .map_err(|error| failure("configuration", &with_causes(&error)))?;
    let _claims: CoreUserInfoClaims = request
        .request_async(http)
        .await
        .map_err(|error| failure("userinfo", &with_causes(&error)))?;
    tables.push(DevTable {
        title: "UserInfo".to_owned(),
        raw: None,
        claims: rows(body_of(http)),
    });
    Ok((subject.to_string(), raw))
}

fn refresh_token_of(response: &CoreTokenResponse) -> Option<String> {
    response.refresh_token().map(|token| token.secret().clone())
}

async fn discover(
    state: &AppState,
    credentials: &DevApp,
    http: &Recorder,
) -> Result<(DiscoveredClient, Option<EndSessionUrl>), DevError> {
    let broken = |error: &dyn Error| failure("discovery", &with_causes(error));
    let issuer = IssuerUrl::new(state.issuer().to_owned()).map_err(|error| broken(&error))?;
    let redirect = RedirectUrl::new(state.url(app::CALLBACK)).map_err(|error| broken(&error))?;
    let metadata = ProviderMetadataWithLogout::discover_async(issuer, http)
        .await
        .map_err(|error| broken(&error))?;
    let end_session = metadata.additional_metadata().end_session_endpoint.clone();
    let secret = ClientSecret::new(credentials.client_secret.clone());
    let client = CoreClient::from_provider_metadata(
        metadata,
        ClientId::new(credentials.client_id.clone()),
        Some(secret),
    );
    Ok((client.set_redirect_uri(redirect), end_session))
}

/// Signature, `iss`, `aud`, `exp`, `iat`, `nonce`, and `at_hash`, which ties the access token to the ID token.
fn verify(
    response: &CoreTokenResponse,
    verifier: &IdTokenVerifier<'_, openidconnect::core::CoreJsonWebKey>,
    nonce: impl NonceVerifier,
) -> Result<openidconnect::SubjectIdentifier, DevError> {
    let broken = |error: &dyn Error| failure("id_token", &with_causes(error));
    let token = response
        .id_token()
        .ok_or_else(|| failure("id_token", "The token response has no ID token."))?;
    let claims = token
        .claims(verifier, nonce)
        .map_err(|error| broken(&error))?;
    if let Some(expected) = claims.access_token_hash() {
        let algorithm = token.signing_alg().map_err(|error| broken(&error))?;
        let key = token
            .signing_key(verifier)
            .map_err(|error| broken(&error))?;
        let actual = AccessTokenHash::from_token(response.access_token(), algorithm, key)
            .map_err(|error| broken(&error))?;
        if actual != *expected {
            return Err(failure("id_token", "at_hash doesn't fit the access token."));
        }
    }
    Ok(claims.subject().clone())
}

const USED_CODE: &str =
    ". A code works once, and for a minute: after a reload of this page, sign in again.";
const ENDED: &str = ". These refresh tokens end with the sign-in: sign in again.";

/// `advice` is for `invalid_grant`, whose reason the server keeps to itself.
fn token_failure<R, T>(
    error: RequestTokenError<R, openidconnect::StandardErrorResponse<T>>,
    advice: &str,
) -> DevError
where
    R: Error + 'static,
    T: openidconnect::ErrorResponseType + std::fmt::Display + 'static,
{
    let RequestTokenError::ServerResponse(refusal) = &error else {
        return failure("token", &with_causes(&error));
    };
    let code = refusal.error().to_string();
    let mut words = refusal
        .error_description()
        .cloned()
        .unwrap_or_else(|| "The server gave no description.".to_owned());
    if code == "invalid_grant" {
        words.push_str(advice);
    }
    failure(&code, &words)
}

fn prompt(value: &str) -> Option<CoreAuthPrompt> {
    match value {
        "none" => Some(CoreAuthPrompt::None),
        "login" => Some(CoreAuthPrompt::Login),
        "consent" => Some(CoreAuthPrompt::Consent),
        "select_account" => Some(CoreAuthPrompt::SelectAccount),
        _ => None,
    }
}

/// OpenID Connect Core §5.5: what the scopes give in UserInfo, asked for in the ID token too.
fn claims_parameter(scopes: &[String]) -> Value {
    let claims_of = |scope: &str| -> &[&str] {
        match scope {
            "profile" => &["name", "given_name", "family_name", "locale"],
            "email" => &["email", "email_verified"],
            "address" => &["address"],
            "phone" => &["phone_number", "phone_number_verified"],
            "groups" => &["groups"],
            _ => &[],
        }
    };
    let wanted: Map<String, Value> = scopes
        .iter()
        .flat_map(|scope| claims_of(scope))
        .map(|claim| ((*claim).to_owned(), Value::Null))
        .collect();
    json!({ "id_token": wanted })
}

fn body_of(http: &Recorder) -> Map<String, Value> {
    serde_json::from_slice(&http.last_body()).unwrap_or_default()
}

/// The claims of a token that was verified already.
fn payload(token: &str) -> Map<String, Value> {
    let encoded = token.split('.').nth(1).unwrap_or_default();
    URL_SAFE_NO_PAD
        .decode(encoded)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// Times also as dates, since nobody reads seconds.
fn rows(claims: Map<String, Value>) -> Vec<DevClaim> {
    claims
        .into_iter()
        .map(|(name, value)| {
            let date = if matches!(name.as_str(), "exp" | "iat" | "auth_time" | "updated_at") {
                value.as_i64()
            } else {
                None
            };
            let value = match (
                date.and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0)),
                value,
            ) {
                (Some(date), value) => {
                    format!("{value} ({})", date.format("%Y-%m-%d %H:%M:%S UTC"))
                }
                (None, Value::String(text)) => text,
                (None, value) => value.to_string(),
            };
            DevClaim { name, value }
        })
        .collect()
}

pub(super) fn failure(code: &str, description: &str) -> DevError {
    DevError {
        code: code.to_owned(),
        description: description.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "http://localhost:8080";

    fn pending() -> Pending {
        Pending {
            state: "s".to_owned(),
            nonce: "n".to_owned(),
            code_verifier: "v".to_owned(),
            choices: Choices::default(),
            request: String::new(),
            begun_at: Timestamp::from_seconds(0),
        }
    }

    fn judge(query: &str) -> Result<String, String> {
        let answer = Parameters::parse(query.as_bytes()).unwrap();
        code_of(&answer, Some(&pending()), ISSUER)
            .map(str::to_owned)
            .map_err(|error| error.code)
    }

    #[test]
    fn an_answer_counts_only_with_our_state_and_issuer() {
        let iss = "iss=http%3A%2F%2Flocalhost%3A8080";
        assert_eq!(judge(&format!("code=c&state=s&{iss}")).as_deref(), Ok("c"));
        assert_eq!(
            judge(&format!("code=c&state=t&{iss}")).unwrap_err(),
            "state_mismatch"
        );
        assert_eq!(
            judge(&format!("code=c&{iss}")).unwrap_err(),
            "state_mismatch"
        );
        assert_eq!(judge("code=c&state=s").unwrap_err(), "iss_mismatch");
        assert_eq!(
            judge("code=c&state=s&iss=https%3A%2F%2Fevil.test").unwrap_err(),
            "iss_mismatch"
        );
        assert_eq!(
            judge(&format!("error=access_denied&state=s&{iss}")).unwrap_err(),
            "access_denied"
        );
        assert_eq!(
            judge("error=access_denied&state=s").unwrap_err(),
            "iss_mismatch"
        );
        assert_eq!(
            judge(&format!("state=s&{iss}")).unwrap_err(),
            "invalid_response"
        );
        assert_eq!(
            judge(&format!("code=c&code=d&state=s&{iss}")).unwrap_err(),
            "invalid_response"
        );
    }

    #[test]
    fn an_answer_to_no_question_is_refused() {
        let answer = Parameters::parse(b"code=c&state=s").unwrap();
        assert_eq!(
            code_of(&answer, None, ISSUER).unwrap_err().code,
            "state_unknown"
        );
    }

    #[test]
    fn times_are_shown_as_dates_too() {
        let claims = json!({ "exp": 0, "name": "Alice", "groups": ["a"] })
            .as_object()
            .unwrap()
            .clone();
        let values: Vec<_> = rows(claims).into_iter().map(|row| row.value).collect();
        assert_eq!(values, ["0 (1970-01-01 00:00:00 UTC)", "Alice", "[\"a\"]"]);
    }
}
