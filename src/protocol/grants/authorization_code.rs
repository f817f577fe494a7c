//! The authorization code grant. RFC 6749 §4.1.3; OpenID Connect Core §3.1.3.2; RFC 7636 §4.6.

use crate::protocol::client::ClientId;
use crate::protocol::error::{OAuthError, invalid_grant, invalid_request};
use crate::protocol::parameters::Parameters;
use crate::protocol::pkce::{self, CodeChallenge};
use crate::protocol::seal::TokenHash;
use crate::protocol::time::Timestamp;

/// A token request with a code.
#[derive(Clone, Debug)]
pub struct Request {
    pub code: TokenHash,
    pub redirect_uri: String,
    pub code_verifier: Option<String>,
    pub resources: Vec<String>,
}

impl Request {
    /// Reads the parameters of §4.1.3.
    pub fn parse(parameters: &Parameters) -> Result<Self, OAuthError> {
        let code = parameters
            .get("code")
            .ok_or_else(|| invalid_request("code is missing"))?;
        let redirect_uri = parameters
            .get("redirect_uri")
            .ok_or_else(|| invalid_request("redirect_uri is missing"))?;
        Ok(Self {
            code: TokenHash::of(code),
            redirect_uri: redirect_uri.to_owned(),
            code_verifier: parameters.get("code_verifier").map(str::to_owned),
            resources: parameters.resources().map(str::to_owned).collect(),
        })
    }
}

/// A code that was issued, with everything its tokens will say.
#[derive(Clone, Debug, PartialEq)]
pub struct IssuedCode {
    pub grant_id: String,
    pub client_id: ClientId,
    pub redirect_uri: String,
    pub code_challenge: Option<CodeChallenge>,
    pub nonce: Option<String>,
    pub expires_at: Timestamp,
    pub consumed_at: Option<Timestamp>,
}

/// May this client exchange this code now? Single use is not judged here: the store claims the row atomically.
pub fn check(
    request: &Request,
    code: &IssuedCode,
    client: &ClientId,
    now: Timestamp,
) -> Result<(), OAuthError> {
    if code.client_id != *client {
        return Err(invalid_grant("the code was issued to another client"));
    }
    if request.redirect_uri != code.redirect_uri {
        return Err(invalid_grant(
            "redirect_uri differs from that of the authorization request",
        ));
    }
    pkce::verify(
        code.code_challenge.as_ref(),
        request.code_verifier.as_deref(),
    )?;
    // A spent code may be replayed after its life too, and must still be recognised as a replay.
    if code.consumed_at.is_none() && now >= code.expires_at {
        return Err(invalid_grant("the code has expired"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> IssuedCode {
        IssuedCode {
            grant_id: "g".to_owned(),
            client_id: ClientId::from_request("rp"),
            redirect_uri: "https://rp.example/cb".to_owned(),
            code_challenge: None,
            nonce: None,
            expires_at: Timestamp::from_seconds(60),
            consumed_at: None,
        }
    }

    fn request() -> Request {
        let query = b"grant_type=authorization_code&code=c&redirect_uri=https://rp.example/cb";
        Request::parse(&Parameters::parse(query).expect("well-formed")).expect("complete")
    }

    #[test]
    fn a_code_is_good_for_its_client_its_address_and_its_time() {
        let rp = ClientId::from_request("rp");
        let second_59 = Timestamp::from_seconds(59);
        assert_eq!(check(&request(), &code(), &rp, second_59), Ok(()));
        assert!(
            check(
                &request(),
                &code(),
                &ClientId::from_request("other"),
                second_59
            )
            .is_err()
        );
        assert!(check(&request(), &code(), &rp, Timestamp::from_seconds(60)).is_err());
        let elsewhere = Request {
            redirect_uri: "https://rp.example/cb/".to_owned(),
            ..request()
        };
        assert!(check(&elsewhere, &code(), &rp, second_59).is_err());
        let with_verifier = Request {
            code_verifier: Some("a".repeat(43)),
            ..request()
        };
        assert!(check(&with_verifier, &code(), &rp, second_59).is_err());
    }
}
