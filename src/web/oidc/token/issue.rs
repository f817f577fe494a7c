//! The tokens that every grant answers with. RFC 6749 §5.1; OpenID Connect Core §3.1.3.3.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Tokens;
use crate::identity::user::User;
use crate::protocol::access_token::Holder;
use crate::protocol::client::{AccessTokenFormat, Client};
use crate::protocol::grants::Grant;
use crate::protocol::jose::Typ;
use crate::protocol::known_scopes::KnownScopes;
use crate::protocol::resource::Audience;
use crate::protocol::scope::Scope;
use crate::protocol::seal::TokenHash;
use crate::protocol::time::Timestamp;
use crate::protocol::{access_token, claims, id_token};
use crate::random;
use crate::store::access_tokens::NewAccessToken;
use crate::web::error::Fault;
use crate::web::state::AppState;

/// What tokens are made for.
pub(super) struct Order<'a> {
    pub(super) client: &'a Client,
    pub(super) grant: &'a Grant,
    pub(super) user: &'a User,
    pub(super) scope: &'a Scope,
    pub(super) audience: &'a Audience,
    pub(super) nonce: Option<&'a str>,
    pub(super) known_scopes: &'a KnownScopes,
}

/// Signed tokens, ready to be written down and sent.
pub(super) struct Signed {
    pub(super) answer: Tokens,
    pub(super) record: NewAccessToken,
}

/// Signs an access token and, for `openid`, an ID token. Outside of any transaction, since RSA takes its time.
pub(super) fn sign(state: &AppState, order: &Order<'_>, now: Timestamp) -> Result<Signed, Fault> {
    let Order { client, grant, .. } = order;
    let keys = state.keys.load();
    let lifetime = client.tokens.access.unwrap_or(state.config.tokens.access);
    let expires_at = now.plus(lifetime);
    let access_token = access_token(
        state,
        client,
        &access_token::Input {
            issuer: state.issuer(),
            client_id: &client.client_id,
            holder: Holder::Person(grant),
            scope: order.scope,
            audience: order.audience,
            jti: &random::id(),
            issued_at: now,
            expires_at,
        },
    )?;
    let mut answer = answer(&access_token, lifetime, order.scope);
    if order.scope.is_openid() {
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
            nonce: order.nonce,
            access_token: &access_token,
            person: for_id_token(order),
            algorithm,
            issued_at: now,
            expires_at: now.plus(client.tokens.id.unwrap_or(state.config.tokens.id)),
        });
        answer.insert(
            "id_token".to_owned(),
            json!(signer.sign(Typ::IdToken, &claims)?),
        );
    }
    let record = NewAccessToken {
        hash: TokenHash::of(&access_token),
        scope: order.scope.clone(),
        audience: order.audience.clone(),
        issued_at: now,
        expires_at,
    };
    Ok(Signed { answer, record })
}

/// The members that every answer has; a scope that names nothing is left out.
pub(super) fn answer(access_token: &str, lifetime: Duration, scope: &Scope) -> Tokens {
    let mut answer = Map::new();
    answer.insert("access_token".to_owned(), json!(access_token));
    answer.insert("token_type".to_owned(), json!("Bearer"));
    answer.insert("expires_in".to_owned(), json!(lifetime.as_secs()));
    if !scope.is_empty() {
        answer.insert("scope".to_owned(), json!(scope));
    }
    answer
}

/// An access token in the format that the client is set up for.
pub(super) fn access_token(
    state: &AppState,
    client: &Client,
    input: &access_token::Input<'_>,
) -> Result<String, Fault> {
    match client.access_token_format {
        AccessTokenFormat::Opaque => Ok(random::token()),
        AccessTokenFormat::Jwt => {
            let signer = state
                .keys
                .load()
                .for_access_tokens()
                .ok_or(Fault::Other("there is no current signing key"))?;
            Ok(signer.sign(Typ::AccessToken, &access_token::claims(input))?)
        }
    }
}

/// Claims of scopes belong to UserInfo (Core §5.4); some apps read nothing but the ID token, and say so.
fn for_id_token(order: &Order<'_>) -> Map<String, Value> {
    let nothing = Scope::default();
    let scope = if order.client.claims_in_id_token {
        order.scope
    } else {
        &nothing
    };
    claims::select(
        &order.user.all_claims(),
        scope,
        &order.grant.claims.id_token,
        order.known_scopes,
    )
}
