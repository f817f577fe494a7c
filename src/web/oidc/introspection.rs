//! Introspection: is this token good? RFC 7662. The answer comes from the database, so that what was ended is refused at once.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::Value;

use super::issued_token::{self, IssuedToken};
use super::token::live_family;
use crate::protocol::client::Client;
use crate::protocol::error::{OAuthError, invalid_client, invalid_request};
use crate::protocol::introspection;
use crate::protocol::parameters::Parameters;
use crate::web::error::{self, Fault};
use crate::web::extract::client;
use crate::web::request_log::about_user_of_token;
use crate::web::state::AppState;

/// Of the nodes, at the most.
const CLOCKS_DIFFER: Duration = Duration::from_secs(10);

/// Answers a client that has a secret; what does not concern it is not active.
pub(in crate::web) async fn post(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<AppState>,
) -> HttpResponse {
    client::serve(&request, payload, &state, async |parameters, client| {
        let told = tell(&state, parameters, client).await?;
        Ok(told.map(|answer| error::private_json(StatusCode::OK, &answer)))
    })
    .await
}

async fn tell(
    state: &AppState,
    parameters: &Parameters,
    asker: &Arc<Client>,
) -> Result<Result<Value, OAuthError>, Fault> {
    // Anybody can name a public client, and could then ask about tokens that were found somewhere (§4).
    if asker.is_public() {
        return Ok(Err(invalid_client(
            "introspection is for clients that authenticate",
        )));
    }
    let Some(token) = parameters.get("token") else {
        return Ok(Err(invalid_request("token is missing")));
    };
    let answer = match issued_token::find(state, token).await? {
        Some(found) => describe(state, asker, found).await?,
        None => None,
    };
    Ok(Ok(answer.unwrap_or_else(introspection::inactive)))
}

/// The members of a live token that concerns the asker.
async fn describe(
    state: &AppState,
    asker: &Arc<Client>,
    found: IssuedToken,
) -> Result<Option<Value>, Fault> {
    let now = state.clock.now();
    let issuer = state.issuer();
    let (issued_to, issued_at, answer) = match found {
        IssuedToken::Access(token, grant) => {
            let is_told = token.is_live(now)
                && introspection::concerns(asker, &grant.client_id, &token.audience);
            if !is_told {
                return Ok(None);
            }
            about_user_of_token(&grant.subject);
            let answer = introspection::of_access_token(&token, &grant, issuer);
            (grant.client_id, None, answer)
        }
        IssuedToken::OfClient { token, revoked } => {
            // Of a JWT of its own nothing is written down, so nobody knows whether it was revoked before a restore.
            let is_of_now = state
                .epoch
                .load(now)
                .is_none_or(|epoch| epoch < token.issued_at);
            let is_live = !revoked && is_of_now && now < token.expires_at;
            let is_told =
                is_live && introspection::concerns(asker, &token.client_id, &token.audience);
            if !is_told {
                return Ok(None);
            }
            let answer = introspection::of_client_token(&token, issuer);
            (token.client_id, Some(token.issued_at), answer)
        }
        IssuedToken::Refresh(token) => {
            let is_unspent = token.redemption.is_none() && now < token.expires_at;
            if !is_unspent || token.client_id != asker.client_id {
                return Ok(None);
            }
            let family = live_family(state, asker, &token.grant_id).await?;
            return Ok(family.map(|grant| {
                about_user_of_token(&grant.subject);
                introspection::of_refresh_token(&token, &grant, issuer)
            }));
        }
    };
    // The tokens of a client that was switched off are worth nothing. Those of an earlier client of its id went with that
    // one, except what is written down nowhere.
    let known = state.clients.find(&issued_to).await?;
    let is_its_own = known.is_some_and(|known| {
        issued_at.is_none_or(|at| known.created_at.minus(CLOCKS_DIFFER) <= at)
    });
    Ok(is_its_own.then_some(answer))
}
