//! Revocation: the client is done with a token. RFC 7009.

use actix_web::{HttpRequest, HttpResponse, web};

use super::issued_token::{self, IssuedToken};
use crate::audit::{Event, Kind};
use crate::protocol::client::Client;
use crate::protocol::error::{OAuthError, invalid_request};
use crate::protocol::parameters::Parameters;
use crate::protocol::seal::TokenHash;
use crate::store::{access_tokens, audit_events, client_tokens, grants};
use crate::web::error::Fault;
use crate::web::extract::client;
use crate::web::extract::trail::trail;
use crate::web::request_log::about_user_of_token;
use crate::web::state::AppState;

/// 200 whatever the token was, so that nobody learns about tokens that are not theirs (§2.2).
pub(in crate::web) async fn post(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<AppState>,
) -> HttpResponse {
    client::serve(&request, payload, &state, async |parameters, client| {
        let revoked = revoke(&request, &state, parameters, client).await?;
        Ok(revoked.map(|()| {
            HttpResponse::Ok()
                .insert_header(("cache-control", "no-store"))
                .finish()
        }))
    })
    .await
}

async fn revoke(
    request: &HttpRequest,
    state: &AppState,
    parameters: &Parameters,
    client: &Client,
) -> Result<Result<(), OAuthError>, Fault> {
    let Some(token) = parameters.get("token") else {
        return Ok(Err(invalid_request("token is missing")));
    };
    let now = state.clock.now();
    let hash = TokenHash::of(token);
    let trail = trail(request, state, now);
    let event = |kind: &str| {
        let event = Event::by_client(Kind::TokenRevoked, &client.client_id);
        event.noting("token_type", kind)
    };
    match issued_token::find(state, token).await? {
        Some(IssuedToken::Access(_, grant)) if grant.client_id == client.client_id => {
            about_user_of_token(&grant.subject);
            let event = event("access_token").target(&grant.subject);
            state
                .store
                .write(move |tx| {
                    if access_tokens::revoke(tx, &hash, now)? {
                        audit_events::record(tx, &trail, &event)?;
                    }
                    Ok(())
                })
                .await?;
        }
        // The family with all of its access tokens (§2.1), also by one of its spent tokens.
        Some(IssuedToken::Refresh(token)) if token.client_id == client.client_id => {
            let grant_id = token.grant_id;
            let event = event("refresh_token").noting("grant", grant_id.as_str());
            let subject = state
                .store
                .write(move |tx| {
                    if !grants::revoke(tx, &grant_id, now)? {
                        return Ok(None);
                    }
                    let subject = grants::subject(tx, &grant_id)?.unwrap_or_default();
                    audit_events::record(tx, &trail, &event.clone().target(&subject))?;
                    Ok(Some(subject))
                })
                .await?;
            if let Some(subject) = subject {
                about_user_of_token(&subject);
            }
        }
        Some(IssuedToken::OfClient {
            token,
            revoked: false,
        }) if token.client_id == client.client_id && now < token.expires_at => {
            let event = event("access_token").target(client.client_id.as_str());
            state
                .store
                .write(move |tx| {
                    if client_tokens::revoke(tx, &hash, &token, now)? {
                        audit_events::record(tx, &trail, &event)?;
                    }
                    Ok(())
                })
                .await?;
        }
        _ => {}
    }
    Ok(Ok(()))
}
