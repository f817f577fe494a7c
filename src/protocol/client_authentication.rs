//! How a client proves itself. RFC 6749 §2.3, §3.2.1; OpenID Connect Core §9.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::client::{AuthMethod, Client, ClientId};
use super::client_assertion;
use super::client_secret::ClientSecret;
use super::error::{OAuthError, invalid_client, invalid_request};
use super::parameters::{self, Parameters};
use super::seal::TokenHash;
use super::time::Timestamp;

/// What a request presents. The secret is held as its hash only: that is what it is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub client_id: ClientId,
    pub secret: Option<TokenHash>,
    /// A JWT that the client signed (RFC 7523 §2.2).
    pub assertion: Option<String>,
    /// Whether `Authorization: Basic` was used, so that a refusal names the scheme (RFC 6749 §5.2).
    pub basic: bool,
}

/// Longest header that is decoded at all.
const LONGEST_HEADER: usize = 4_096;

impl Credentials {
    /// Reads header and body; two methods in one request are refused.
    pub fn parse(authorization: Option<&str>, parameters: &Parameters) -> Result<Self, OAuthError> {
        let in_body = parameters.get("client_id");
        if parameters.get("client_assertion").is_some()
            || parameters.get("client_assertion_type").is_some()
        {
            if authorization.is_some() || parameters.get("client_secret").is_some() {
                return Err(invalid_request(
                    "the client authenticated twice: with an assertion and with a secret",
                ));
            }
            return Self::asserted(in_body, parameters);
        }
        if let Some(header) = authorization {
            let credentials = basic(header)?;
            if parameters.get("client_secret").is_some() {
                return Err(invalid_request(
                    "the client authenticated twice: with Basic and with client_secret",
                ));
            }
            if in_body.is_some_and(|id| id != credentials.client_id.as_str()) {
                return Err(invalid_request(
                    "client_id differs from the one in the Authorization header",
                ));
            }
            return Ok(credentials);
        }
        let client_id = in_body
            .map(ClientId::from_request)
            .ok_or_else(|| invalid_client("the request names no client"))?;
        Ok(Self {
            client_id,
            secret: parameters.get("client_secret").map(TokenHash::of),
            assertion: None,
            basic: false,
        })
    }

    /// `client_id` is optional beside an assertion, and names the same client (RFC 7521 §4.2).
    fn asserted(in_body: Option<&str>, parameters: &Parameters) -> Result<Self, OAuthError> {
        if parameters.get("client_assertion_type") != Some(client_assertion::TYPE) {
            return Err(invalid_client(format!(
                "client_assertion_type must be {}",
                client_assertion::TYPE
            )));
        }
        let assertion = parameters
            .get("client_assertion")
            .ok_or_else(|| invalid_client("client_assertion is missing"))?;
        let client_id = client_assertion::named_client(assertion)
            .ok_or_else(|| invalid_client("the assertion is no JWT with a sub"))?;
        if in_body.is_some_and(|id| id != client_id.as_str()) {
            return Err(invalid_request(
                "client_id differs from sub of the assertion",
            ));
        }
        Ok(Self {
            client_id,
            secret: None,
            assertion: Some(assertion.to_owned()),
            basic: false,
        })
    }
}

/// Is this the client it says it is? Answers the secret that proved it, or none for a client that has none to send. Where an
/// assertion was sent, it is that which has to be checked.
pub fn check<'a>(
    credentials: &Credentials,
    client: Option<&Client>,
    secrets: &'a [ClientSecret],
    now: Timestamp,
) -> Result<Option<&'a ClientSecret>, OAuthError> {
    let failed = || invalid_client("client authentication failed");
    let client = client.ok_or_else(failed)?;
    match (&credentials.secret, client.token_endpoint_auth_method) {
        (None, AuthMethod::None) => Ok(None),
        (_, AuthMethod::PrivateKeyJwt) => Err(invalid_client(
            "this client must authenticate with an assertion (private_key_jwt)",
        )),
        (None, AuthMethod::ClientSecretBasic | AuthMethod::ClientSecretPost) => Err(
            invalid_client("this client must authenticate with its secret"),
        ),
        (Some(_), AuthMethod::None) => Err(invalid_client("a public client has no secret to send")),
        (Some(secret), AuthMethod::ClientSecretBasic | AuthMethod::ClientSecretPost) => {
            // Every one is compared, each in constant time.
            let live = secrets.iter().filter(|known| known.is_live(now));
            live.fold(None, |found, known| {
                if known.matches(secret) {
                    Some(known)
                } else {
                    found
                }
            })
            .map(Some)
            .ok_or_else(failed)
        }
    }
}

/// Whether a refused request was a guess: a secret that never was one of this client's. Who goes on with one that has ended
/// was left behind, and guesses nothing.
pub fn is_guess(
    credentials: &Credentials,
    client: Option<&Client>,
    secrets: &[ClientSecret],
) -> bool {
    let Some(secret) = &credentials.secret else {
        return false;
    };
    client.is_some_and(Client::has_secret) && !secrets.iter().any(|known| known.matches(secret))
}

/// `Basic base64(urlencode(id) ":" urlencode(secret))` (RFC 6749 §2.3.1).
fn basic(header: &str) -> Result<Credentials, OAuthError> {
    let malformed = || {
        invalid_client(
            "the Authorization header must be Basic with a form-encoded client_id and client_secret",
        )
    };
    if header.len() > LONGEST_HEADER {
        return Err(malformed());
    }
    let (scheme, encoded) = header.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(malformed());
    }
    let decoded = STANDARD
        .decode(encoded)
        .map_err(|_not_base64| malformed())?;
    let colon = decoded
        .iter()
        .position(|byte| *byte == b':')
        .ok_or_else(malformed)?;
    let (id, secret) = decoded.split_at(colon);
    let id = parameters::decode(id).map_err(|_malformed| malformed())?;
    let secret = parameters::decode(secret.get(1..).unwrap_or_default())
        .map_err(|_malformed| malformed())?;
    Ok(Credentials {
        client_id: ClientId::from_request(&id),
        secret: (!secret.is_empty()).then(|| TokenHash::of(&secret)),
        assertion: None,
        basic: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::authorization_request::tests::client;
    use crate::protocol::error::ErrorCode;

    const SECRET: &str = "a-secret:with colon+and%percent-of-enough-length";

    const NOW: Timestamp = Timestamp::from_seconds(1_000_000);

    fn secret(text: &str) -> ClientSecret {
        ClientSecret::new(text, text, NOW)
    }

    fn body(text: &str) -> Parameters {
        Parameters::parse(text.as_bytes())
            .expect("well-formed")
            .without_empty()
    }

    fn encoded(id: &str, secret: &str) -> String {
        let part =
            |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        format!(
            "Basic {}",
            STANDARD.encode(format!("{}:{}", part(id), part(secret)))
        )
    }

    #[test]
    fn basic_credentials_are_form_decoded() {
        let credentials =
            Credentials::parse(Some(&encoded("my-rp", SECRET)), &body("")).expect("read");
        assert_eq!(credentials.client_id.as_str(), "my-rp");
        assert_eq!(credentials.secret, Some(TokenHash::of(SECRET)));
        let dashes = format!("Basic {}", STANDARD.encode("my%2Drp:s"));
        assert_eq!(
            Credentials::parse(Some(&dashes), &body(""))
                .expect("read")
                .client_id
                .as_str(),
            "my-rp"
        );
    }

    #[test]
    fn basic_and_post_stand_for_each_other() {
        let rp = client(|metadata| {
            metadata.token_endpoint_auth_method = Some("client_secret_post".to_owned())
        });
        let secrets = [secret("another"), secret(SECRET)];
        let basic =
            Credentials::parse(Some(&encoded("rp", SECRET)), &body("client_id=rp")).expect("read");
        let proof = check(&basic, Some(&rp), &secrets, NOW).expect("authenticated");
        assert_eq!(proof, secrets.last());
        let post =
            Credentials::parse(None, &body("client_id=rp&client_secret=wrong")).expect("read");
        assert_eq!(
            check(&post, Some(&rp), &secrets, NOW)
                .expect_err("refused")
                .code,
            ErrorCode::InvalidClient
        );
    }

    #[test]
    fn two_methods_in_one_request_are_refused() {
        let basic = encoded("rp", SECRET);
        for text in [
            "client_id=rp&client_secret=x",
            "client_secret=x",
            "client_id=other",
        ] {
            assert_eq!(
                Credentials::parse(Some(&basic), &body(text))
                    .expect_err(text)
                    .code,
                ErrorCode::InvalidRequest
            );
        }
    }

    #[test]
    fn malformed_basic_headers_are_refused() {
        for header in [
            "Basic",
            "Basic ",
            "Basic !!!",
            "Bearer abc",
            "Basic cnA6cw",
            &format!("Basic {}", STANDARD.encode("no-colon")),
            &format!("Basic {}", STANDARD.encode("rp:%zz")),
            &format!("Basic {}", STANDARD.encode([b'r', b':', 0xff])),
            &format!("Basic {}", STANDARD.encode("x".repeat(64_000))),
        ] {
            assert_eq!(
                Credentials::parse(Some(header), &body(""))
                    .expect_err(header)
                    .code,
                ErrorCode::InvalidClient
            );
        }
    }

    #[test]
    fn a_confidential_client_needs_its_secret_and_a_public_one_has_none() {
        let confidential = client(|_| {});
        let public =
            client(|metadata| metadata.token_endpoint_auth_method = Some("none".to_owned()));
        let without = Credentials::parse(None, &body("client_id=rp")).expect("read");
        let with = Credentials::parse(None, &body("client_id=rp&client_secret=x")).expect("read");
        assert!(check(&without, Some(&confidential), &[], NOW).is_err());
        assert!(check(&with, Some(&public), &[secret("x")], NOW).is_err());
        assert_eq!(check(&without, Some(&public), &[], NOW), Ok(None));
        assert!(check(&with, None, &[secret("x")], NOW).is_err());
    }

    #[test]
    fn a_secret_that_has_ended_proves_nothing() {
        let sent = Credentials::parse(None, &body("client_id=rp&client_secret=x")).expect("read");
        let ended = ClientSecret {
            expires_at: Some(NOW),
            ..secret("x")
        };
        let rp = client(|_| {});
        assert!(check(&sent, Some(&rp), std::slice::from_ref(&ended), NOW).is_err());
        assert!(!is_guess(&sent, Some(&rp), std::slice::from_ref(&ended)));
        assert!(is_guess(&sent, Some(&rp), &[secret("y")]));
        assert!(!is_guess(&sent, None, &[]), "nobody's secret");
        assert!(check(&sent, Some(&rp), &[ended, secret("x")], NOW).is_ok());
    }
}
