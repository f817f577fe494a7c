//! The refresh token grant: rotation that survives a lost answer and still catches a thief.
//! RFC 6749 §6; RFC 9700 §4.14.2; OpenID Connect Core §12.
//!
//! Every use spends the token and answers with its successor, which is derived from it. A client that lost the answer asks
//! again and gets the same successor, so there is never a second branch. Any other second use is a replay.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::protocol::client::{Client, ClientId};
use crate::protocol::error::{OAuthError, invalid_grant, invalid_request, invalid_scope};
use crate::protocol::known_scopes::KnownScopes;
use crate::protocol::parameters::Parameters;
use crate::protocol::scope::Scope;
use crate::protocol::seal::{RootKey, mac};
use crate::protocol::time::Timestamp;

/// Rotations in a row that were asked for twice from two places before that is a thief in step with the owner.
const MOST_ELSEWHERE: i64 = 3;

/// A token request with a refresh token.
pub struct Request {
    pub refresh_token: String,
    /// Narrower than what was granted, if it is named.
    pub scope: Option<Scope>,
    pub resources: Vec<String>,
}

/// How long a family lives, and how long a lost answer can be asked for again.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub idle: Duration,
    pub absolute: Duration,
    pub retry_window: Duration,
}

/// A refresh token that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedRefreshToken {
    pub grant_id: String,
    pub client_id: ClientId,
    pub expires_at: Timestamp,
    pub redemption: Option<Redemption>,
    /// In how many rotations in a row before this token the retry came from elsewhere.
    pub elsewhere_before: i64,
}

/// The first use of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redemption {
    pub at: Timestamp,
    /// A keyed hash of network and user agent, for public clients.
    pub from: Option<[u8; 32]>,
    /// Whether the token that came out of it was used in its turn.
    pub successor_redeemed: bool,
    /// When that token expires; a retry must not bring one that has.
    pub successor_expires_at: Timestamp,
}

/// What a use of a token means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its first: spend it.
    Rotate,
    /// The answer was lost: the same successor again.
    Repeat {
        elsewhere: bool,
    },
    /// Somebody else has it too: the family ends.
    Replayed,
    Refuse(OAuthError),
}

impl Request {
    /// Reads the parameters of RFC 6749 §6.
    pub fn parse(parameters: &Parameters) -> Result<Self, OAuthError> {
        let refresh_token = parameters
            .get("refresh_token")
            .ok_or_else(|| invalid_request("refresh_token is missing"))?;
        let scope = parameters.get("scope").map(str::parse).transpose();
        Ok(Self {
            refresh_token: refresh_token.to_owned(),
            scope: scope
                .map_err(|_bad_scope| invalid_scope("scope has characters that are not allowed"))?,
            resources: parameters.resources().map(str::to_owned).collect(),
        })
    }
}

impl Limits {
    /// When a token that is issued now expires: by standing idle, or with its family.
    pub fn expiry(&self, family_began: Timestamp, now: Timestamp) -> Timestamp {
        now.plus(self.idle).min(family_began.plus(self.absolute))
    }
}

/// Judges a use of a token by a client from somewhere. Whether it is the first is the store's to decide atomically.
pub fn judge(
    token: &IssuedRefreshToken,
    client: &Client,
    limits: &Limits,
    from: Option<&[u8; 32]>,
    now: Timestamp,
) -> Verdict {
    if token.client_id != client.client_id {
        return Verdict::Refuse(unknown());
    }
    let Some(redemption) = &token.redemption else {
        return if now < token.expires_at {
            Verdict::Rotate
        } else {
            Verdict::Refuse(unknown())
        };
    };
    let in_time = !limits.retry_window.is_zero() && now.since(redemption.at) <= limits.retry_window;
    if !in_time || redemption.successor_redeemed {
        return Verdict::Replayed;
    }
    if now >= redemption.successor_expires_at {
        return Verdict::Refuse(unknown());
    }
    // A confidential client's token is of no use without its secret, so where it comes from says nothing.
    let elsewhere = client.is_public() && redemption.from.as_ref() != from;
    if elsewhere && token.elsewhere_before + 1 >= MOST_ELSEWHERE {
        return Verdict::Replayed;
    }
    Verdict::Repeat { elsewhere }
}

/// What a refresh may be for: never more than was granted and is still allowed; what was dropped at the authorization
/// endpoint is dropped again.
pub fn narrow(
    requested: Option<&Scope>,
    granted: &Scope,
    client: &Client,
    known: &KnownScopes,
) -> Result<Scope, OAuthError> {
    let allowed = client.allowed_scope(granted.clone(), known);
    let Some(requested) = requested else {
        return Ok(allowed);
    };
    let requested = client.allowed_scope(requested.clone(), known);
    if requested.is_subset(&allowed) {
        Ok(requested)
    } else {
        Err(invalid_scope("the scope is wider than what was granted"))
    }
}

/// The token that follows. Derived, so that a retry gets the same one although the database holds no token.
pub fn successor(root: &RootKey, predecessor: &str) -> String {
    URL_SAFE_NO_PAD.encode(mac(root, "refresh token successor", predecessor.as_bytes()))
}

/// One answer for a token that never was, one that expired, and one of another client.
pub fn unknown() -> OAuthError {
    invalid_grant("the refresh token is unknown, expired or revoked")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::authorization_request::tests::client;
    use crate::protocol::error::ErrorCode;

    const LIMITS: Limits = Limits {
        idle: Duration::from_secs(1_000),
        absolute: Duration::from_secs(5_000),
        retry_window: Duration::from_secs(60),
    };

    fn token(redemption: Option<Redemption>, elsewhere_before: i64) -> IssuedRefreshToken {
        IssuedRefreshToken {
            grant_id: "g".to_owned(),
            client_id: ClientId::from_request("rp"),
            expires_at: Timestamp::from_seconds(1_000),
            redemption,
            elsewhere_before,
        }
    }

    fn redeemed(successor_redeemed: bool) -> Option<Redemption> {
        Some(Redemption {
            at: Timestamp::from_seconds(100),
            from: Some([1; 32]),
            successor_redeemed,
            successor_expires_at: Timestamp::from_seconds(1_100),
        })
    }

    fn verdict(token: &IssuedRefreshToken, from: u8, now: i64) -> Verdict {
        let public =
            client(|metadata| metadata.token_endpoint_auth_method = Some("none".to_owned()));
        judge(
            token,
            &public,
            &LIMITS,
            Some(&[from; 32]),
            Timestamp::from_seconds(now),
        )
    }

    #[test]
    fn a_lost_answer_can_be_asked_for_again_while_its_successor_is_unused() {
        assert_eq!(verdict(&token(None, 0), 1, 999), Verdict::Rotate);
        assert_eq!(
            verdict(&token(redeemed(false), 0), 1, 160),
            Verdict::Repeat { elsewhere: false }
        );
        assert_eq!(
            verdict(&token(redeemed(false), 0), 1, 161),
            Verdict::Replayed
        );
        assert_eq!(
            verdict(&token(redeemed(true), 0), 1, 101),
            Verdict::Replayed
        );
        assert!(matches!(
            verdict(&token(None, 0), 1, 1_000),
            Verdict::Refuse(_)
        ));
    }

    #[test]
    fn a_retry_brings_no_token_that_has_expired() {
        let soon = Redemption {
            at: Timestamp::from_seconds(100),
            from: Some([1; 32]),
            successor_redeemed: false,
            successor_expires_at: Timestamp::from_seconds(130),
        };
        let token = token(Some(soon), 0);
        assert_eq!(
            verdict(&token, 1, 129),
            Verdict::Repeat { elsewhere: false }
        );
        assert_eq!(verdict(&token, 1, 130), Verdict::Refuse(unknown()));
    }

    #[test]
    fn strict_means_that_every_second_use_is_a_replay() {
        let strict = Limits {
            retry_window: Duration::ZERO,
            ..LIMITS
        };
        let now = Timestamp::from_seconds(100);
        assert_eq!(
            judge(
                &token(redeemed(false), 0),
                &client(|_| {}),
                &strict,
                None,
                now
            ),
            Verdict::Replayed
        );
    }

    #[test]
    fn a_thief_in_step_is_found_at_the_third_rotation() {
        assert_eq!(
            verdict(&token(redeemed(false), 0), 2, 110),
            Verdict::Repeat { elsewhere: true }
        );
        assert_eq!(
            verdict(&token(redeemed(false), 1), 2, 110),
            Verdict::Repeat { elsewhere: true }
        );
        assert_eq!(
            verdict(&token(redeemed(false), 2), 2, 110),
            Verdict::Replayed
        );
        assert_eq!(
            verdict(&token(redeemed(false), 2), 1, 110),
            Verdict::Repeat { elsewhere: false }
        );
    }

    #[test]
    fn another_client_is_refused_and_proves_nothing() {
        let other = token(redeemed(true), 0);
        let other = IssuedRefreshToken {
            client_id: ClientId::from_request("other"),
            ..other
        };
        assert_eq!(verdict(&other, 1, 110), Verdict::Refuse(unknown()));
    }

    #[test]
    fn a_scope_may_only_narrow_and_unknown_ones_are_dropped_again() {
        let rp = client(|metadata| {
            metadata.grant_types = Some(vec![
                "authorization_code".to_owned(),
                "refresh_token".to_owned(),
            ]);
        });
        let granted: Scope = "openid email".parse().expect("valid");
        let narrowed = |text: &str| {
            let requested: Scope = text.parse().expect("valid");
            narrow(Some(&requested), &granted, &rp, &KnownScopes::default())
                .map(|scope| scope.to_string())
        };
        assert_eq!(narrowed("openid"), Ok("openid".to_owned()));
        assert_eq!(narrowed("openid nonsense"), Ok("openid".to_owned()));
        assert_eq!(
            narrowed("openid profile").expect_err("wider").code,
            ErrorCode::InvalidScope
        );
        assert_eq!(
            narrow(None, &granted, &rp, &KnownScopes::default()),
            Ok(granted.clone())
        );
    }

    #[test]
    fn a_family_ends_however_often_it_is_used() {
        let began = Timestamp::from_seconds(0);
        assert_eq!(
            LIMITS.expiry(began, Timestamp::from_seconds(100)),
            Timestamp::from_seconds(1_100)
        );
        assert_eq!(
            LIMITS.expiry(began, Timestamp::from_seconds(4_900)),
            Timestamp::from_seconds(5_000)
        );
    }
}
