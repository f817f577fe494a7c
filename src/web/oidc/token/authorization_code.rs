//! A code for tokens. RFC 6749 §4.1.3, §4.1.4; OpenID Connect Core §3.1.3.

use serde_json::json;

use super::Tokens;
use super::issue::{self, Order};
use super::refresh_token::refresh_limits;
use crate::audit::{Event, Kind, Trail};
use crate::identity::user::User;
use crate::protocol::client::{Client, ClientId};
use crate::protocol::error::{OAuthError, invalid_grant};
use crate::protocol::grants::authorization_code::{self, IssuedCode, Request};
use crate::protocol::grants::{Grant, GrantType};
use crate::protocol::parameters::Parameters;
use crate::protocol::seal::TokenHash;
use crate::protocol::time::Timestamp;
use crate::protocol::{resource, scope};
use crate::random;
use crate::store::access_tokens::{self, NewAccessToken};
use crate::store::refresh_tokens::{self, NewRefreshToken};
use crate::store::{AnyConnection, StoreError, audit_events, authorization_codes, grants, users};
use crate::web::error::Fault;
use crate::web::request_log::about_user_of_token;
use crate::web::state::AppState;

/// Load, decide, sign, then claim and record in one transaction. Signing comes first, since RSA has no place inside one.
pub(super) async fn exchange(
    state: &AppState,
    parameters: &Parameters,
    client: &Client,
    trail: Trail,
) -> Result<Result<Tokens, OAuthError>, Fault> {
    let now = trail.now;
    let request = match Request::parse(parameters) {
        Ok(request) => request,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let loaded = {
        let hash = request.code;
        state.store.read(move |conn| load(conn, &hash)).await?
    };
    let Some((code, live)) = loaded else {
        return Ok(Err(invalid_grant("the code is unknown")));
    };
    if let Err(refusal) = authorization_code::check(&request, &code, &client.client_id, now) {
        return Ok(Err(refusal));
    }
    let scopes = state.clients.scopes().await?;
    let signed = match live {
        Some((grant, user)) => {
            about_user_of_token(&user.id);
            let audience = match resource::narrow(
                request.resources.iter().map(String::as_str),
                &grant.resources,
                grant.scope.is_openid(),
            ) {
                Ok(audience) => audience,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let order = Order {
                client,
                grant: &grant,
                user: &user,
                scope: &grant.scope,
                audience: &audience,
                nonce: code.nonce.as_deref(),
                known_scopes: &scopes,
            };
            let refresh_token = first_refresh_token(state, client, &grant, now);
            Some((issue::sign(state, &order, now)?, refresh_token))
        }
        // Spent or ended: the transaction below finds out which, and revokes what a replay calls for.
        None => None,
    };
    let record = signed.as_ref().map(|(signed, refresh_token)| Record {
        access_token: signed.record.clone(),
        refresh_token: refresh_token.as_ref().map(|(_, row)| row.clone()),
    });
    let (hash, grant_id, client_id) = (request.code, code.grant_id, client.client_id.clone());
    let redeemed = state
        .store
        .write(move |tx| redeem(tx, &hash, &grant_id, &client_id, record.as_ref(), &trail))
        .await?;
    Ok(match (redeemed, signed) {
        (Ok(()), Some((signed, refresh_token))) => {
            let mut answer = signed.answer;
            if let Some((token, _)) = refresh_token {
                answer.insert("refresh_token".to_owned(), json!(token));
            }
            Ok(answer)
        }
        (Err(refusal), _) => Err(refusal),
        (Ok(()), None) => unreachable!("nothing is redeemed without a token to record"),
    })
}

/// The tokens that are written down in the same transaction that spends the code.
struct Record {
    access_token: NewAccessToken,
    refresh_token: Option<NewRefreshToken>,
}

/// The first token of a family: for a client that uses them, with `offline_access` or where it is set up to have one always.
fn first_refresh_token(
    state: &AppState,
    client: &Client,
    grant: &Grant,
    now: Timestamp,
) -> Option<(String, NewRefreshToken)> {
    let offline = grant.scope.contains(scope::OFFLINE_ACCESS);
    if !client.may_use(GrantType::RefreshToken) || !(offline || client.session_refresh_tokens) {
        return None;
    }
    let token = random::token();
    let limits = refresh_limits(state, client);
    let row = NewRefreshToken {
        hash: TokenHash::of(&token),
        grant_id: grant.id.clone(),
        issued_at: now,
        expires_at: limits.expiry(grant.created_at, now),
        elsewhere_before: 0,
    };
    Some((token, row))
}

/// The code, and what it stands for while that is alive.
type Loaded = (IssuedCode, Option<(Grant, User)>);

fn load(conn: &mut AnyConnection, hash: &TokenHash) -> Result<Option<Loaded>, StoreError> {
    let Some(code) = authorization_codes::find(conn, hash)? else {
        return Ok(None);
    };
    if code.consumed_at.is_some() {
        return Ok(Some((code, None)));
    }
    let live = match grants::find(conn, &code.grant_id)? {
        Some(grant) => users::find(conn, &grant.subject)?
            .filter(|user| !user.disabled)
            .map(|user| (grant, user)),
        None => None,
    };
    Ok(Some((code, live)))
}

/// Somebody used a second time what is good once; whose grant that was is the target.
pub(super) fn replayed(
    tx: &mut AnyConnection,
    kind: Kind,
    client: &ClientId,
    grant_id: &str,
) -> Result<Event, StoreError> {
    let event = Event::new(kind)
        .client(client.as_str())
        .noting("grant", grant_id);
    Ok(match grants::subject(tx, grant_id)? {
        Some(subject) => event.target(&subject),
        None => event,
    })
}

/// Outer error: a fault, rolled back. Inner error: a refusal, committed.
fn redeem(
    tx: &mut AnyConnection,
    hash: &TokenHash,
    grant_id: &str,
    client: &ClientId,
    record: Option<&Record>,
    trail: &Trail,
) -> Result<Result<(), OAuthError>, StoreError> {
    let now = trail.now;
    if !authorization_codes::claim(tx, hash, now)? {
        // Read after the claim: before it, another exchange may have been quicker.
        let Some(code) = authorization_codes::find(tx, hash)? else {
            return Ok(Err(invalid_grant("the code is unknown")));
        };
        if code.consumed_at.is_none() {
            return Ok(Err(invalid_grant("the code has expired")));
        }
        // Whoever comes second has the verifier and the client's secret too: a replay (RFC 6749 §4.1.2).
        if grants::revoke(tx, &code.grant_id, now)? {
            tracing::warn!(grant_id = %code.grant_id, "authorization code replayed");
            let event = replayed(tx, Kind::CodeReplayed, client, &code.grant_id)?;
            audit_events::record(tx, trail, &event)?;
        }
        return Ok(Err(invalid_grant("the code was already used")));
    }
    // Everything that the sign-in checked, once more: it may have changed in the seconds between.
    let alive = grants::is_alive(tx, grant_id)?;
    let Some(record) = record.filter(|_| alive) else {
        return Ok(Err(invalid_grant(
            "what the person allowed has been withdrawn",
        )));
    };
    access_tokens::insert(tx, &record.access_token, grant_id)?;
    if let Some(refresh_token) = &record.refresh_token {
        refresh_tokens::insert(tx, refresh_token)?;
    }
    Ok(Ok(()))
}
