//! Proof Key for Code Exchange. RFC 7636; RFC 9700 §2.1.1.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::error::{OAuthError, invalid_grant, invalid_request};
use super::parameters::Parameters;

/// The methods that are accepted: `plain` never is.
pub const METHODS: &[&str] = &["S256"];

/// What the authorization request committed to: base64url of a SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeChallenge(String);

impl CodeChallenge {
    /// Reads `code_challenge` and `code_challenge_method`; both or neither must be there.
    pub fn from_request(parameters: &Parameters) -> Result<Option<Self>, OAuthError> {
        match (
            parameters.get("code_challenge"),
            parameters.get("code_challenge_method"),
        ) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(invalid_request(
                "code_challenge_method without code_challenge",
            )),
            // Without a method RFC 7636 §4.3 means plain.
            (Some(_), None) => Err(invalid_request(
                "code_challenge_method must be S256; without it, it would be plain",
            )),
            (Some(challenge), Some("S256")) => Self::parse(challenge).map(Some).ok_or_else(|| {
                invalid_request("code_challenge must be 43 characters of base64url (S256)")
            }),
            (Some(_), Some(_)) => Err(invalid_request("code_challenge_method must be S256")),
        }
    }

    /// From the form it has on the wire and in the database.
    pub fn parse(text: &str) -> Option<Self> {
        (URL_SAFE_NO_PAD.decode(text).ok()?.len() == 32).then(|| Self(text.to_owned()))
    }

    /// The form it has on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Does the verifier belong to the challenge? A verifier must be there if and only if a challenge was (RFC 9700 §4.8.2).
pub fn verify(challenge: Option<&CodeChallenge>, verifier: Option<&str>) -> Result<(), OAuthError> {
    let (challenge, verifier) = match (challenge, verifier) {
        (None, None) => return Ok(()),
        (None, Some(_)) => {
            return Err(invalid_grant(
                "code_verifier was sent, but the authorization request had no code_challenge",
            ));
        }
        (Some(_), None) => return Err(invalid_grant("code_verifier is missing")),
        (Some(challenge), Some(verifier)) => (challenge, verifier),
    };
    let unreserved = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~');
    if !(43..=128).contains(&verifier.len()) || !verifier.chars().all(unreserved) {
        return Err(invalid_grant(
            "code_verifier must be 43 to 128 unreserved characters",
        ));
    }
    let computed = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    if bool::from(computed.as_bytes().ct_eq(challenge.0.as_bytes())) {
        Ok(())
    } else {
        Err(invalid_grant(
            "code_verifier does not match the code_challenge",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7636, Appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn the_verifier_of_the_specification_matches_its_challenge() {
        assert_eq!(
            verify(CodeChallenge::parse(CHALLENGE).as_ref(), Some(VERIFIER)),
            Ok(())
        );
    }

    #[test]
    fn a_verifier_is_present_if_and_only_if_a_challenge_was() {
        let challenge = CodeChallenge::parse(CHALLENGE);
        assert_eq!(verify(None, None), Ok(()));
        assert!(verify(None, Some(VERIFIER)).is_err());
        assert!(verify(challenge.as_ref(), None).is_err());
        assert!(verify(challenge.as_ref(), Some(CHALLENGE)).is_err());
        assert!(verify(challenge.as_ref(), Some("short")).is_err());
    }

    #[test]
    fn plain_and_unknown_methods_are_refused() {
        for query in [
            format!("code_challenge={CHALLENGE}"),
            format!("code_challenge={CHALLENGE}&code_challenge_method=plain"),
            format!("code_challenge={CHALLENGE}&code_challenge_method=s256"),
            "code_challenge_method=S256".to_owned(),
            "code_challenge=tooshort&code_challenge_method=S256".to_owned(),
        ] {
            let parameters = Parameters::parse(query.as_bytes()).expect("well-formed");
            assert!(CodeChallenge::from_request(&parameters).is_err(), "{query}");
        }
    }
}
