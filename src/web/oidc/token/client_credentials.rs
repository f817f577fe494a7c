//! A token that a client gets for itself. RFC 6749 §4.4. It names nobody, opens no UserInfo, and is never refreshed.

use super::Tokens;
use super::issue;
use crate::protocol::access_token::{self, Holder};
use crate::protocol::client::{AccessTokenFormat, Client};
use crate::protocol::error::OAuthError;
use crate::protocol::grants::client_credentials::{self, ClientToken, Request};
use crate::protocol::parameters::Parameters;
use crate::protocol::seal::TokenHash;
use crate::random;
use crate::store::client_tokens;
use crate::web::error::Fault;
use crate::web::state::AppState;

/// Decide, sign, answer; only an opaque token needs to be written down.
pub(super) async fn issue(
    state: &AppState,
    parameters: &Parameters,
    client: &Client,
) -> Result<Result<Tokens, OAuthError>, Fault> {
    let now = state.clock.now();
    let scopes = state.clients.scopes().await?;
    let asked = Request::parse(parameters);
    let granted = asked.and_then(|request| client_credentials::check(&request, client, &scopes));
    let (scope, audience) = match granted {
        Ok(granted) => granted,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let lifetime = client.tokens.access.unwrap_or(state.config.tokens.access);
    let token = ClientToken {
        client_id: client.client_id.clone(),
        scope,
        audience,
        issued_at: now,
        expires_at: now.plus(lifetime),
    };
    let access_token = issue::access_token(
        state,
        client,
        &access_token::Input {
            issuer: state.issuer(),
            client_id: &token.client_id,
            holder: Holder::Client,
            scope: &token.scope,
            audience: &token.audience,
            jti: &random::id(),
            issued_at: token.issued_at,
            expires_at: token.expires_at,
        },
    )?;
    let answer = issue::answer(&access_token, lifetime, &token.scope);
    if client.access_token_format == AccessTokenFormat::Opaque {
        let hash = TokenHash::of(&access_token);
        state
            .store
            .write(move |tx| client_tokens::insert(tx, &hash, &token))
            .await?;
    }
    Ok(Ok(answer))
}
