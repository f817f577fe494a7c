//! UserInfo. OpenID Connect Core §5.3; RFC 6750.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::cors;
use crate::protocol::access_token;
use crate::protocol::claims;
use crate::protocol::client::Client;
use crate::protocol::error::{ErrorCode, OAuthError, invalid_request};
use crate::protocol::seal::TokenHash;
use crate::store::access_tokens;
use crate::web::address_limit;
use crate::web::error::{self, Fault};
use crate::web::extract::form;
use crate::web::request_log::{about_client, about_user};
use crate::web::state::AppState;

/// How the token came.
enum Presented {
    Token(TokenHash),
    Nothing,
}

/// The token in the header.
pub(in crate::web) async fn get(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    let presented = presented(&request, None);
    answer(&request, &state, presented).await
}

/// The token in the header or in the form (RFC 6750 §2.2).
pub(in crate::web) async fn post(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<AppState>,
) -> HttpResponse {
    let has_body = request.headers().contains_key(header::CONTENT_TYPE);
    let presented = match if has_body {
        form::body(&request, payload).await.map(Some)
    } else {
        Ok(None)
    } {
        Ok(parameters) => match parameters
            .as_ref()
            .and_then(|parameters| parameters.repeated())
        {
            Some(_) => Err(invalid_request("a parameter was sent more than once")),
            None => presented(
                &request,
                parameters
                    .as_ref()
                    .and_then(|parameters| parameters.get("access_token")),
            ),
        },
        // A body of another kind carries no token; the header may.
        Err(form::Refused::ContentType) => presented(&request, None),
        Err(refused) => {
            let refusal = invalid_request(refused.description());
            let mut response = error::json_with(error::status_of(refused), &refusal);
            cors::allow_client(&request, &mut response, None);
            return response;
        }
    };
    answer(&request, &state, presented).await
}

/// Two transports at once are refused; the query is none at all (RFC 9700 §4.3.2).
fn presented(request: &HttpRequest, in_form: Option<&str>) -> Result<Presented, OAuthError> {
    let mut headers = request.headers().get_all(header::AUTHORIZATION);
    let header = headers.next();
    if headers.next().is_some() || header.is_some() && in_form.is_some() {
        return Err(invalid_request("the access token was sent more than once"));
    }
    if form::query(request)
        .is_ok_and(|query| query.get("access_token").is_some() || query.is_repeated("access_token"))
    {
        return Err(invalid_request(
            "an access token in the query is not accepted",
        ));
    }
    let value = header
        .map(|value| value.to_str())
        .transpose()
        .map_err(|_not_ascii| invalid_request("the Authorization header is not ASCII"))?;
    match (value, in_form) {
        (Some(value), _) => Ok(Presented::Token(TokenHash::of(
            access_token::from_authorization_header(value)?,
        ))),
        (None, Some(token)) => Ok(Presented::Token(TokenHash::of(token))),
        (None, None) => Ok(Presented::Nothing),
    }
}

async fn answer(
    request: &HttpRequest,
    state: &AppState,
    presented: Result<Presented, OAuthError>,
) -> HttpResponse {
    let token = match presented {
        Ok(Presented::Token(token)) => token,
        _ if address_limit::is_exceeded(request) => {
            let mut response = address_limit::refusal_json(request);
            cors::allow_client(request, &mut response, None);
            return response;
        }
        // No error code when nothing was presented (RFC 6750 §3.1).
        Ok(Presented::Nothing) => {
            let mut response = error::json_with(
                StatusCode::UNAUTHORIZED,
                &OAuthError::new(ErrorCode::InvalidToken, "an access token is needed"),
            );
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            cors::allow_client(request, &mut response, None);
            return response;
        }
        Err(refusal) => return refuse(request, &refusal, None),
    };
    match tell(request, state, token).await {
        Ok((client, result)) if result.is_err() && address_limit::is_exceeded(request) => {
            let mut response = address_limit::refusal_json(request);
            cors::allow_client(request, &mut response, client.as_deref());
            response
        }
        Ok((client, Ok(mut response))) => {
            cors::allow_client(request, &mut response, client.as_deref());
            response
        }
        Ok((client, Err(refusal))) => refuse(request, &refusal, client.as_deref()),
        Err(fault) => error::fault_json(&fault),
    }
}

type Told = (Option<Arc<Client>>, Result<HttpResponse, OAuthError>);

async fn tell(request: &HttpRequest, state: &AppState, token: TokenHash) -> Result<Told, Fault> {
    let now = state.clock.now();
    let found = state
        .store
        .read(move |conn| access_tokens::find(conn, &token))
        .await?;
    let known = match &found {
        Some((_, grant, _)) => state.clients.find(&grant.client_id).await?,
        None => None,
    };
    let client = known.map(|known| known.client.clone());
    if let (Some(client), Some((_, _, user))) = (&client, &found) {
        about_client(request, &client.client_id);
        about_user(request, &user.id);
    }
    // A client that was switched off has no tokens any more.
    let token = found.as_ref().filter(|_| client.is_some());
    if let Err(refusal) = access_token::check_for_userinfo(token.map(|(token, ..)| token), now) {
        return Ok((client, Err(refusal)));
    }
    let (Some((token, grant, user)), Some(client)) = (found, client) else {
        unreachable!("a token that passed the check was found with its grant and its client")
    };
    let scopes = state.clients.scopes().await?;
    let asked = &grant.claims.userinfo;
    let mut answer = claims::select(&user.all_claims(), &token.scope, asked, &scopes);
    answer.insert("sub".to_owned(), json!(user.id));
    let response = HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(answer);
    Ok((Some(client), Ok(response)))
}

/// RFC 6750 §3: the reason in the header, and for programs in the body too.
fn refuse(request: &HttpRequest, refusal: &OAuthError, client: Option<&Client>) -> HttpResponse {
    let mut response = error::oauth_json(refusal, false);
    let challenge = format!(
        "Bearer error=\"{}\", error_description=\"{}\"",
        refusal.code.as_str(),
        refusal.description()
    );
    if let Ok(value) = HeaderValue::from_str(&challenge) {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, value);
    }
    cors::allow_client(request, &mut response, client);
    response
}
