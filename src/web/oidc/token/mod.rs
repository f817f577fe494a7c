//! The token endpoint: which grant it is. RFC 6749 §3.2, §5.

mod authorization_code;
mod issue;
mod refresh_token;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Map, Value};

use crate::protocol::client::Client;
use crate::protocol::error::{ErrorCode, OAuthError, invalid_request};
use crate::protocol::parameters::Parameters;
use crate::web::error::{self, Fault};
use crate::web::extract::client;
use crate::web::state::AppState;

/// Tokens for a grant.
pub(in crate::web) async fn post(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<AppState>,
) -> HttpResponse {
    client::serve(&request, payload, &state, async |parameters, client| {
        let tokens = dispatch(&request, &state, parameters, client).await?;
        Ok(tokens.map(|tokens| error::private_json(StatusCode::OK, &tokens)))
    })
    .await
}

/// What a successful token request answers.
type Tokens = Map<String, Value>;

async fn dispatch(
    request: &HttpRequest,
    state: &AppState,
    parameters: &Parameters,
    client: &Client,
) -> Result<Result<Tokens, OAuthError>, Fault> {
    match parameters.get("grant_type") {
        Some("authorization_code") => authorization_code::exchange(state, parameters, client).await,
        Some("refresh_token") => {
            let from = refresh_token::origin(state, request, client);
            refresh_token::refresh(state, parameters, client, from).await
        }
        Some(_) => Ok(Err(OAuthError::new(
            ErrorCode::UnsupportedGrantType,
            "grant_type must be authorization_code or refresh_token",
        ))),
        None => Ok(Err(invalid_request("grant_type is missing"))),
    }
}
