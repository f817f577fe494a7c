//! The token endpoint: which grant it is. RFC 6749 §3.2, §5.

mod authorization_code;
mod client_credentials;
mod issue;
mod refresh_token;

pub(super) use self::refresh_token::live_family;

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Map, Value};
use tracing::Instrument as _;

use crate::protocol::client::Client;
use crate::protocol::error::{ErrorCode, OAuthError, invalid_request};
use crate::protocol::grants::GrantType;
use crate::protocol::parameters::Parameters;
use crate::web::error::{self, Fault};
use crate::web::extract::client;
use crate::web::extract::trail::trail;
use crate::web::state::AppState;

/// Tokens for a grant.
pub(in crate::web) async fn post(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<AppState>,
) -> HttpResponse {
    let response = client::serve(&request, payload, &state, async |parameters, client| {
        let tokens = dispatch(&request, &state, parameters, client).await?;
        Ok(tokens.map(|tokens| {
            let grant_type = parameters.get("grant_type").unwrap_or_default();
            state.metrics.tokens_issued(grant_type);
            error::private_json(StatusCode::OK, &tokens)
        }))
    })
    .await;
    if let Some(code) = response.extensions().get::<ErrorCode>() {
        state.metrics.token_error(code.as_str());
    }
    response
}

/// What a successful token request answers.
type Tokens = Map<String, Value>;

async fn dispatch(
    request: &HttpRequest,
    state: &web::Data<AppState>,
    parameters: &Parameters,
    client: &Arc<Client>,
) -> Outcome {
    let grant_type = match grant_type(parameters, client) {
        Ok(grant_type) => grant_type,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let trail = trail(request, state, state.clock.now());
    let (state, parameters, client) = (state.clone(), parameters.clone(), client.clone());
    match grant_type {
        GrantType::AuthorizationCode => {
            to_the_end(async move {
                authorization_code::exchange(&state, &parameters, &client, trail).await
            })
            .await
        }
        GrantType::RefreshToken => {
            let from = refresh_token::origin(&state, request, &client);
            to_the_end(async move {
                refresh_token::refresh(&state, &parameters, &client, from, trail).await
            })
            .await
        }
        GrantType::ClientCredentials => {
            client_credentials::issue(&state, &parameters, &client).await
        }
    }
}

type Outcome = Result<Result<Tokens, OAuthError>, Fault>;

/// Goes on when whoever asked hangs up: a thief must not be able to use a token in a way that nobody notices.
async fn to_the_end(work: impl Future<Output = Outcome> + 'static) -> Outcome {
    let ended = actix_web::rt::spawn(work.in_current_span()).await;
    ended.unwrap_or(Err(Fault::Other("a token request was broken off")))
}

/// What is asked for, if this client may.
fn grant_type(parameters: &Parameters, client: &Client) -> Result<GrantType, OAuthError> {
    let name = parameters
        .get("grant_type")
        .ok_or_else(|| invalid_request("grant_type is missing"))?;
    let grant_type: GrantType = name.parse()?;
    if client.may_use(grant_type) {
        Ok(grant_type)
    } else {
        Err(OAuthError::new(
            ErrorCode::UnauthorizedClient,
            "this client is not registered for this grant_type",
        ))
    }
}
