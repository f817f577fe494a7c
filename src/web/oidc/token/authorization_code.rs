//! A code for tokens. RFC 6749 §4.1.3, §4.1.4; OpenID Connect Core §3.1.3.

use serde_json::{Map, Value, json};

use super::Tokens;
use crate::identity::user::User;
use crate::protocol::client::{AccessTokenFormat, Client, ClientId};
use crate::protocol::error::{OAuthError, invalid_grant};
use crate::protocol::grants::Grant;
use crate::protocol::grants::authorization_code::{self, IssuedCode, Request};
use crate::protocol::jose::Typ;
use crate::protocol::parameters::Parameters;
use crate::protocol::seal::TokenHash;
use crate::protocol::time::Timestamp;
use crate::protocol::{access_token, claims, id_token, resource};
use crate::random;
use crate::store::{
    AnyConnection, StoreError, access_tokens, authorization_codes, clients, grants, sessions, users,
};
use crate::web::error::Fault;
use crate::web::state::AppState;

/// Load, decide, sign, then claim and record in one transaction. Signing comes first, since RSA has no place inside one.
pub(super) async fn exchange(
    state: &AppState,
    parameters: &Parameters,
    client: &Client,
) -> Result<Result<Tokens, OAuthError>, Fault> {
    let now = state.clock.now();
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
    let signed = match live {
        Some((grant, user)) => {
            let audience = match resource::narrow(
                request.resources.iter().map(String::as_str),
                &code.resources,
            ) {
                Ok(audience) => audience,
                Err(refusal) => return Ok(Err(refusal)),
            };
            Some(sign(state, client, &code, &grant, &user, &audience, now)?)
        }
        // Spent or ended: the transaction below finds out which, and revokes what a replay calls for.
        None => None,
    };
    let record = signed
        .as_ref()
        .map(|signed| (TokenHash::of(&signed.access_token), signed.expires_at));
    let (hash, client_id) = (request.code, client.client_id.clone());
    let redeemed = state
        .store
        .write(move |tx| redeem(tx, &hash, &client_id, record, now))
        .await?;
    Ok(match (redeemed, signed) {
        (Ok(()), Some(signed)) => Ok(signed.answer),
        (Err(refusal), _) => Err(refusal),
        (Ok(()), None) => unreachable!("nothing is redeemed without a token to record"),
    })
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

/// Outer error: a fault, rolled back. Inner error: a refusal, committed.
fn redeem(
    tx: &mut AnyConnection,
    hash: &TokenHash,
    client: &ClientId,
    record: Option<(TokenHash, Timestamp)>,
    now: Timestamp,
) -> Result<Result<(), OAuthError>, StoreError> {
    let Some(code) = authorization_codes::find(tx, hash)? else {
        return Ok(Err(invalid_grant("the code is unknown")));
    };
    if !authorization_codes::claim(tx, hash, now)? {
        // Read again: between the look above and the claim, another exchange may have been quicker.
        let is_spent =
            authorization_codes::find(tx, hash)?.is_some_and(|code| code.consumed_at.is_some());
        if !is_spent {
            return Ok(Err(invalid_grant("the code has expired")));
        }
        // Whoever comes second has the verifier and the client's secret too: a replay (RFC 6749 §4.1.2).
        if grants::revoke(tx, &code.grant_id, now)? {
            tracing::warn!(client.id = %client, grant.id = %code.grant_id, "authorization code replayed");
        }
        return Ok(Err(invalid_grant("the code was already used")));
    }
    // Everything that the sign-in checked, once more: it may have changed in the seconds between.
    let grant = grants::find(tx, &code.grant_id)?;
    let alive = match &grant {
        Some(grant) => {
            users::find(tx, &grant.subject)?.is_some_and(|user| !user.disabled)
                && sessions::is_open(tx, &grant.session_id)?
                && clients::find(tx, client)?.is_some()
        }
        None => false,
    };
    let Some((token, expires_at)) = record.filter(|_| alive) else {
        return Ok(Err(invalid_grant(
            "what the person allowed has been withdrawn",
        )));
    };
    access_tokens::insert(tx, &token, &code.grant_id, expires_at)?;
    Ok(Ok(()))
}

struct Signed {
    access_token: String,
    expires_at: Timestamp,
    answer: Tokens,
}

fn sign(
    state: &AppState,
    client: &Client,
    code: &IssuedCode,
    grant: &Grant,
    user: &User,
    audience: &[String],
    now: Timestamp,
) -> Result<Signed, Fault> {
    let keys = state.keys.load();
    let lifetime = client.tokens.access.unwrap_or(state.config.tokens.access);
    let expires_at = now.plus(lifetime);
    let access_token = match client.access_token_format {
        AccessTokenFormat::Opaque => random::token(),
        AccessTokenFormat::Jwt => {
            let claims = access_token::claims(&access_token::Input {
                issuer: state.issuer(),
                client_id: &client.client_id,
                grant,
                audience,
                auth_time: code.auth_time,
                acr: &code.acr,
                jti: &random::id(),
                issued_at: now,
                expires_at,
            });
            let signer = keys
                .for_access_tokens()
                .ok_or(Fault::Other("there is no current signing key"))?;
            signer.sign(Typ::AccessToken, &claims)?
        }
    };
    let mut answer = Map::new();
    answer.insert("access_token".to_owned(), json!(access_token));
    answer.insert("token_type".to_owned(), json!("Bearer"));
    answer.insert("expires_in".to_owned(), json!(lifetime.as_secs()));
    answer.insert("scope".to_owned(), json!(grant.scope));
    if grant.scope.is_openid() {
        let algorithm = state.id_token_algorithm(client).ok_or(Fault::Other(
            "the client's id_token_signed_response_alg is not among keys.algorithms",
        ))?;
        let signer = keys
            .signer(algorithm)
            .ok_or(Fault::Other("there is no current signing key"))?;
        let claims = id_token::claims(id_token::Input {
            issuer: state.issuer(),
            client,
            grant,
            code,
            access_token: &access_token,
            person: for_id_token(client, grant, user),
            algorithm,
            issued_at: now,
            expires_at: now.plus(client.tokens.id.unwrap_or(state.config.tokens.id)),
        });
        answer.insert(
            "id_token".to_owned(),
            json!(signer.sign(Typ::IdToken, &claims)?),
        );
    }
    Ok(Signed {
        access_token,
        expires_at,
        answer,
    })
}

/// Claims of scopes belong to UserInfo (Core §5.4); some apps read nothing but the ID token, and say so.
fn for_id_token(client: &Client, grant: &Grant, user: &User) -> Map<String, Value> {
    let scope = if client.claims_in_id_token {
        grant.scope.clone()
    } else {
        crate::protocol::scope::Scope::default()
    };
    claims::select(&user.all_claims(), &scope, &grant.claims.id_token)
}
