//! A refresh token for fresh tokens. RFC 6749 §6; OpenID Connect Core §12.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header;
use serde_json::json;

use super::Tokens;
use super::authorization_code::replayed;
use super::issue::{self, Order, Signed};
use crate::audit::{Kind, Trail};
use crate::identity::session::Lifetimes;
use crate::identity::user::User;
use crate::protocol::client::Client;
use crate::protocol::error::OAuthError;
use crate::protocol::grants::refresh_token::{self, Limits, Request, Verdict, unknown};
use crate::protocol::grants::{Grant, GrantType};
use crate::protocol::interaction::{Consent, still_allowed};
use crate::protocol::known_scopes::KnownScopes;
use crate::protocol::parameters::Parameters;
use crate::protocol::resource;
use crate::protocol::seal::{TokenHash, mac};
use crate::protocol::time::Timestamp;
use crate::store::access_tokens::{self, NewAccessToken};
use crate::store::refresh_tokens::{self, NewRefreshToken};
use crate::store::{AnyConnection, StoreError, audit_events, grants};
use crate::web::error::Fault;
use crate::web::extract::client_ip::{client_ip, neighbourhood};
use crate::web::request_log::about_user_of_token;
use crate::web::state::AppState;

/// How long a client's families live.
pub(super) fn refresh_limits(state: &AppState, client: &Client) -> Limits {
    let tokens = &state.config.tokens;
    Limits {
        idle: client.tokens.refresh_idle.unwrap_or(tokens.refresh_idle),
        absolute: client
            .tokens
            .refresh_absolute
            .unwrap_or(tokens.refresh_absolute),
        retry_window: client
            .tokens
            .refresh_retry_window
            .unwrap_or(tokens.refresh_retry_window),
    }
}

/// Where a public client's request comes from, as a keyed hash: its neighbourhood in the network and its user agent.
pub(super) fn origin(state: &AppState, request: &HttpRequest, client: &Client) -> Option<[u8; 32]> {
    if !client.is_public() {
        return None;
    }
    let address = client_ip(request, &state.config.trusted_proxies);
    let network = address.map(neighbourhood).unwrap_or_default();
    let agent = request
        .headers()
        .get(header::USER_AGENT)
        .map(|value| value.as_bytes())
        .unwrap_or_default();
    Some(mac(
        &state.root,
        "refresh token origin",
        &[network.as_bytes(), b"\0", agent].concat(),
    ))
}

/// Load, decide, sign, then spend and record in one transaction.
pub(super) async fn refresh(
    state: &AppState,
    parameters: &Parameters,
    client: &Arc<Client>,
    from: Option<[u8; 32]>,
    trail: Trail,
) -> Result<Result<Tokens, OAuthError>, Fault> {
    let now = trail.now;
    let request = match Request::parse(parameters) {
        Ok(request) => request,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let successor = refresh_token::successor(&state.root, &request.refresh_token);
    let attempt = Attempt {
        token: TokenHash::of(&request.refresh_token),
        successor: TokenHash::of(&successor),
        client: client.clone(),
        limits: refresh_limits(state, client),
        from,
        now,
    };
    let live = {
        let (attempt, lifetimes) = (attempt.clone(), state.session_lifetimes());
        state
            .store
            .read(move |conn| attempt.load(conn, &lifetimes))
            .await?
    };
    if let Some(live) = &live {
        about_user_of_token(&live.user.id);
    }
    // Whatever comes out of this, the transaction below still has to find out whether it is a replay.
    let scopes = state.clients.scopes().await?;
    let signed = match &live {
        Some(live) => sign(
            state,
            &request,
            client,
            (&live.grant, &live.user),
            &scopes,
            now,
        )?,
        None => Err(unknown()),
    };
    let record = signed.as_ref().ok().map(|signed| signed.record.clone());
    let unspent = live.filter(|live| live.unspent).map(|live| live.grant);
    let lifetimes = state.session_lifetimes();
    let redeemed = state
        .store
        .write(move |tx| {
            if let (Some(grant), Some(record)) = (&unspent, &record)
                && attempt.rotate(tx, grant, record)?
            {
                return Ok(Ok(()));
            }
            attempt.judge(tx, record.as_ref(), &lifetimes, &trail)
        })
        .await?;
    if matches!(redeemed, Err(Refused::Replay)) {
        state.metrics.refresh_replay();
    }
    Ok(match (redeemed.map_err(OAuthError::from), signed) {
        (Ok(()), Ok(signed)) => {
            let mut answer = signed.answer;
            answer.insert("refresh_token".to_owned(), json!(successor));
            Ok(answer)
        }
        (_, Err(refusal)) | (Err(refusal), _) => Err(refusal),
    })
}

/// Fresh tokens for what is asked for, if that is not more than was granted.
fn sign(
    state: &AppState,
    request: &Request,
    client: &Client,
    (grant, user): (&Grant, &User),
    scopes: &KnownScopes,
    now: Timestamp,
) -> Result<Result<Signed, OAuthError>, Fault> {
    let scope = match refresh_token::narrow(request.scope.as_ref(), &grant.scope, client, scopes) {
        Ok(scope) => scope,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let resources = request.resources.iter().map(String::as_str);
    let audience = match resource::narrow(resources, &grant.resources, scope.is_openid()) {
        Ok(audience) => audience,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let order = Order {
        client,
        grant,
        user,
        scope: &scope,
        audience: &audience,
        nonce: None,
        known_scopes: scopes,
    };
    issue::sign(state, &order, now).map(Ok)
}

/// What a family of this client lives by.
struct Rules<'a> {
    client: &'a Client,
    limits: &'a Limits,
    lifetimes: &'a Lifetimes,
}

impl Rules<'_> {
    /// The grant and its person, while everything that the sign-in checked still holds.
    fn find_live(
        &self,
        conn: &mut AnyConnection,
        grant_id: &str,
        now: Timestamp,
    ) -> Result<Option<(Grant, User)>, StoreError> {
        let found = grants::find_family(conn, grant_id)?;
        Ok(found
            .filter(|family| self.holds(family, now))
            .map(|family| (family.grant, family.user)))
    }

    fn holds(&self, family: &grants::Family, now: Timestamp) -> bool {
        let grant = &family.grant;
        // The family's end holds for a repeated answer too.
        let is_ours = grant.client_id == self.client.client_id
            && now < grant.created_at.plus(self.limits.absolute);
        let granted = Consent::needed(&grant.scope, &grant.claims);
        let is_allowed = self.client.may_use(GrantType::RefreshToken)
            && still_allowed(self.client, &granted, family.consent.as_ref());
        let session = family.session.as_ref();
        let session_holds =
            grant.offline || session.is_some_and(|session| session.is_alive(self.lifetimes, now));
        is_ours && !family.user.disabled && is_allowed && session_holds
    }
}

/// The grant of a family that this client could refresh now.
pub(in crate::web::oidc) async fn live_family(
    state: &AppState,
    client: &Arc<Client>,
    grant_id: &str,
) -> Result<Option<Grant>, Fault> {
    let (now, lifetimes) = (state.clock.now(), state.session_lifetimes());
    let limits = refresh_limits(state, client);
    let (client, grant_id) = (client.clone(), grant_id.to_owned());
    let found = state
        .store
        .read(move |conn| {
            let rules = Rules {
                client: &client,
                limits: &limits,
                lifetimes: &lifetimes,
            };
            rules.find_live(conn, &grant_id, now)
        })
        .await?;
    Ok(found.map(|(grant, _)| grant))
}

/// One use of a refresh token, as the database has to judge it.
#[derive(Clone)]
struct Attempt {
    token: TokenHash,
    successor: TokenHash,
    client: Arc<Client>,
    limits: Limits,
    from: Option<[u8; 32]>,
    now: Timestamp,
}

impl Attempt {
    /// What the token stands for, while everything that the sign-in checked still holds.
    fn load(
        &self,
        conn: &mut AnyConnection,
        lifetimes: &Lifetimes,
    ) -> Result<Option<Live>, StoreError> {
        let Some(token) = refresh_tokens::find(conn, &self.token, &self.successor)? else {
            return Ok(None);
        };
        let rules = Rules {
            client: &self.client,
            limits: &self.limits,
            lifetimes,
        };
        let unspent = token.redemption.is_none();
        let live = rules.find_live(conn, &token.grant_id, self.now)?;
        Ok(live.map(|(grant, user)| Live {
            grant,
            user,
            unspent,
        }))
    }

    /// The first use of a token: spends it and writes down what follows, in as few statements as can be. No means that it
    /// was no first use after all. What else may have changed since it was looked up ends the new tokens too.
    fn rotate(
        &self,
        tx: &mut AnyConnection,
        grant: &Grant,
        record: &NewAccessToken,
    ) -> Result<bool, StoreError> {
        if !refresh_tokens::redeem(tx, &self.token, self.from.as_ref(), self.now)? {
            return Ok(false);
        }
        let next = NewRefreshToken {
            hash: self.successor,
            grant_id: grant.id.clone(),
            issued_at: self.now,
            expires_at: self.limits.expiry(grant.created_at, self.now),
            elsewhere_before: 0,
        };
        refresh_tokens::insert(tx, &next)?;
        access_tokens::insert(tx, record, &grant.id)?;
        Ok(true)
    }

    /// Any other use. Outer error: a fault, rolled back. Inner error: a refusal, committed, and with it what a replay revokes.
    fn judge(
        &self,
        tx: &mut AnyConnection,
        record: Option<&NewAccessToken>,
        lifetimes: &Lifetimes,
        trail: &Trail,
    ) -> Result<Result<(), Refused>, StoreError> {
        let Some(token) = refresh_tokens::find(tx, &self.token, &self.successor)? else {
            return Ok(Err(unknown().into()));
        };
        let from = self.from.as_ref();
        match refresh_token::judge(&token, &self.client, &self.limits, from, self.now) {
            Verdict::Refuse(refusal) => Ok(Err(refusal.into())),
            // It is whole, but what it stands for has ended, or the request itself was refused.
            Verdict::Rotate => Ok(Err(unknown().into())),
            Verdict::Replayed => {
                if grants::revoke(tx, &token.grant_id, self.now)? {
                    tracing::warn!(grant_id = %token.grant_id, "refresh token replayed");
                    let client = &self.client.client_id;
                    let event = replayed(tx, Kind::RefreshTokenReplayed, client, &token.grant_id)?;
                    audit_events::record(tx, trail, &event)?;
                    return Ok(Err(Refused::Replay));
                }
                Ok(Err(unknown().into()))
            }
            Verdict::Repeat { elsewhere } => {
                let (Some(live), Some(record)) = (self.load(tx, lifetimes)?, record) else {
                    return Ok(Err(unknown().into()));
                };
                if elsewhere {
                    let before = token.elsewhere_before;
                    refresh_tokens::note_elsewhere(tx, &self.token, &self.successor, before)?;
                }
                access_tokens::insert(tx, record, &live.grant.id)?;
                Ok(Ok(()))
            }
        }
    }
}

/// Why nothing came of it.
enum Refused {
    /// This very use ended the family. The sender is told no more than of any other token.
    Replay,
    Refusal(OAuthError),
}

impl From<OAuthError> for Refused {
    fn from(refusal: OAuthError) -> Self {
        Self::Refusal(refusal)
    }
}

impl From<Refused> for OAuthError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Replay => unknown(),
            Refused::Refusal(refusal) => refusal,
        }
    }
}

/// A token that can go on, and whether this would be its first use.
struct Live {
    grant: Grant,
    user: User,
    unspent: bool,
}
