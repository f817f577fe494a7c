//! What the test app does once somebody signed in: refresh its tokens, and sign them out.
//! RFC 6749 §6; OpenID Connect RP-Initiated Logout 1.0 §2.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use super::app::{Shown, by_line, page};
use super::pending::{self, Choices, Connection, Leaving};
use super::recorder::Recorder;
use super::relying_party::{self, failure};
use crate::causes::with_causes;
use crate::protocol::parameters::Parameters;
use crate::protocol::seal::constant_time_eq;
use crate::seed::DevApp;
use crate::web::error::{self, Fault};
use crate::web::extract::{csrf, form};
use crate::web::pages::{DevError, DevStep, DevTable};
use crate::web::state::AppState;
use crate::web::visit::{self, Visit, see_other};

pub(super) const REFRESH: &str = "/dev/app/refresh";
pub(super) const SIGN_OUT: &str = "/dev/app/sign-out";
pub(super) const SIGNED_OUT: &str = "/dev/app/signed-out";

const STEP: &str = "dev-app";

/// The token for the form, where the browser is known.
pub(super) fn csrf(visit: &Visit) -> Option<String> {
    let browser_id = visit.browser.id()?;
    Some(csrf::token(&visit.state, browser_id, STEP))
}

/// Fresh tokens, and UserInfo with them.
pub(super) async fn refresh(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<AppState>,
) -> HttpResponse {
    visit::take_form(&request, payload, &state, try_refresh).await
}

async fn try_refresh(visit: &mut Visit, parameters: &Parameters) -> Result<HttpResponse, Fault> {
    if !visit.is_our_form(STEP, parameters) {
        return Ok(error::forgery(visit, StatusCode::FORBIDDEN));
    }
    let Some(credentials) = visit.state.dev_app.clone() else {
        return Ok(error::not_found(visit.request.clone()).await);
    };
    let Some(connection) = pending::recall::<Connection>(&visit.request, &visit.state, visit.now)
    else {
        return Ok(nothing_to_go_on_with(visit, &credentials));
    };
    let mut tables = Vec::new();
    let (steps, result) = match Recorder::new() {
        Ok(http) => {
            let result = relying_party::refresh(
                &visit.state,
                &credentials,
                &http,
                &connection,
                &mut tables,
                visit.now,
            )
            .await;
            (http.into_steps(relying_party::STEPS), result)
        }
        Err(error) => (Vec::new(), Err(failure("http", &with_causes(&error)))),
    };
    let shown = Shown {
        choices: connection.choices,
        steps: Some(steps),
        tables,
        connection: result.as_ref().ok(),
        error: result.as_ref().err().cloned(),
    };
    let mut response = page(visit, &credentials, shown);
    if let Ok(connection) = &result {
        pending::remember(&mut response, &visit.state, connection);
    }
    Ok(response)
}

/// Sends the browser to the end session endpoint.
pub(super) async fn sign_out(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    let visit = Visit::new(&request, &state);
    let Some(credentials) = &state.dev_app else {
        return error::not_found(request).await;
    };
    let Some(connection) = pending::recall::<Connection>(&request, &state, visit.now) else {
        return nothing_to_go_on_with(&visit, credentials);
    };
    match leave(&visit, credentials, &connection).await {
        Ok(leaving) => {
            let mut response = see_other(&leaving.request);
            pending::remember(&mut response, &state, &leaving);
            response
        }
        Err(error) => page(&visit, credentials, Shown::of(connection.choices, error)),
    }
}

async fn leave(
    visit: &Visit,
    credentials: &DevApp,
    connection: &Connection,
) -> Result<Leaving, DevError> {
    let http = Recorder::new().map_err(|error| failure("http", &with_causes(&error)))?;
    relying_party::leave(&visit.state, credentials, &http, connection, visit.now).await
}

/// The browser is back: shows what came with it, and forgets the tokens.
pub(super) async fn signed_out(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    let visit = Visit::new(&request, &state);
    let Some(credentials) = &state.dev_app else {
        return error::not_found(request).await;
    };
    let Some(leaving) = pending::recall::<Leaving>(&request, &state, visit.now) else {
        let words = "This browser began no sign-out here in the last 10 minutes.";
        let error = failure("state_unknown", words);
        return page(&visit, credentials, Shown::of(Choices::default(), error));
    };
    let answer = form::query(&request).unwrap_or_default();
    let is_ours = answer
        .get("state")
        .is_some_and(|state| constant_time_eq(state.as_bytes(), leaving.state.as_bytes()));
    let words =
        "The answer's state isn't the one that was sent, so it belongs to another sign-out.";
    let received = request
        .uri()
        .path_and_query()
        .map(ToString::to_string)
        .unwrap_or_default();
    let step = DevStep {
        title: "Sign-out".to_owned(),
        request: format!("GET {}", by_line(&leaving.request)),
        response: format!("GET {}", by_line(&received)),
        duration_ms: 0,
    };
    let shown = Shown {
        choices: leaving.choices,
        steps: Some(vec![step]),
        tables: Vec::<DevTable>::new(),
        connection: None,
        error: (!is_ours).then(|| failure("state_mismatch", words)),
    };
    let mut response = page(&visit, credentials, shown);
    if is_ours {
        pending::forget::<Connection>(&mut response, &state);
    }
    response
}

fn nothing_to_go_on_with(visit: &Visit, credentials: &DevApp) -> HttpResponse {
    let words = "Nobody signed in here in the last day. Sign in again.";
    let error = failure("not_signed_in", words);
    page(visit, credentials, Shown::of(Choices::default(), error))
}
