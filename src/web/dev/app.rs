//! The built-in test app: a real relying party of this very server, which shows what it sends and receives.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use super::pending::{self, Choices, Pending};
use super::recorder::Recorder;
use super::relying_party::{self, failure, with_causes};
use crate::protocol::{prompt, scope};
use crate::seed::DevApp;
use crate::web::error;
use crate::web::extract::form;
use crate::web::pages::{DevApp as Shown, DevChoice, DevError, DevRun, DevStep};
use crate::web::security_headers::PageKind;
use crate::web::state::AppState;
use crate::web::visit::{Visit, html, see_other};

pub(super) const START: &str = "/dev/app";
pub(super) const SIGN_IN: &str = "/dev/app/sign-in";
pub(super) const CALLBACK: &str = "/dev/app/callback";

/// The choices, and the button that begins a run.
pub(super) async fn start(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    let visit = Visit::new(&request, &state);
    let Some(credentials) = &state.dev_app else {
        return error::not_found(request).await;
    };
    let choices = Choices {
        scopes: vec!["profile".to_owned(), "email".to_owned()],
        ..Choices::default()
    };
    let mut response = answer(&visit, credentials, StatusCode::OK, choices, None, None);
    visit.keep_language(&mut response);
    response
}

/// Sends the browser to the authorization endpoint.
pub(super) async fn sign_in(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    let visit = Visit::new(&request, &state);
    let Some(credentials) = &state.dev_app else {
        return error::not_found(request).await;
    };
    let choices = chosen(request.query_string());
    match begin(&visit, credentials, choices.clone()).await {
        Ok(pending) => {
            let mut response = see_other(&pending.request);
            pending::remember(&mut response, &state, &pending);
            response
        }
        Err(error) => answer(
            &visit,
            credentials,
            StatusCode::BAD_GATEWAY,
            choices,
            Some(error),
            None,
        ),
    }
}

/// Takes the answer, fetches tokens and UserInfo, and shows the whole run as far as it went.
pub(super) async fn callback(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    let visit = Visit::new(&request, &state);
    let Some(credentials) = &state.dev_app else {
        return error::not_found(request).await;
    };
    let pending = pending::recall(&request, &state, visit.now);
    let choices = pending
        .as_ref()
        .map(|pending| pending.choices.clone())
        .unwrap_or_default();
    let (run, error) = run(&visit, credentials, pending.as_ref()).await;
    let status = if error.is_none() {
        StatusCode::OK
    } else {
        StatusCode::BAD_REQUEST
    };
    answer(&visit, credentials, status, choices, error, run)
}

async fn begin(visit: &Visit, credentials: &DevApp, choices: Choices) -> Result<Pending, DevError> {
    let http = Recorder::new().map_err(|error| failure("http", &with_causes(&error)))?;
    relying_party::begin(&visit.state, credentials, &http, choices, visit.now).await
}

async fn run(
    visit: &Visit,
    credentials: &DevApp,
    pending: Option<&Pending>,
) -> (Option<DevRun>, Option<DevError>) {
    let answer = match form::query(&visit.request) {
        Ok(answer) => answer,
        Err(malformed) => {
            return (
                None,
                Some(failure("invalid_response", malformed.description())),
            );
        }
    };
    let code = relying_party::code_of(&answer, pending, visit.state.issuer());
    let Some(pending) = pending else {
        return (None, code.err());
    };
    let mut steps = vec![authorization_step(&visit.request, pending)];
    let mut tokens = Vec::new();
    let error = match (code, Recorder::new()) {
        (Ok(code), Ok(http)) => {
            let finished = relying_party::finish(
                &visit.state,
                credentials,
                &http,
                code,
                pending,
                &mut tokens,
                visit.now,
            )
            .await;
            steps.extend(http.into_steps(relying_party::STEPS));
            finished.err()
        }
        (Err(error), _) => Some(error),
        (Ok(_), Err(error)) => Some(failure("http", &with_causes(&error))),
    };
    let home = format!("{}/", visit.state.base());
    let run = DevRun {
        steps,
        tokens,
        refresh_action: None,
        csrf: String::new(),
        sign_out_href: error.is_none().then_some(home),
    };
    (Some(run), error)
}

/// What went through the browser. Its time is the person's, which says nothing about the server, so it is left out.
fn authorization_step(request: &HttpRequest, pending: &Pending) -> DevStep {
    let by_line = |address: &str| address.replacen('?', "\n\n", 1).replace('&', "\n");
    let callback = request
        .uri()
        .path_and_query()
        .map(ToString::to_string)
        .unwrap_or_default();
    DevStep {
        title: "Authorization".to_owned(),
        request: format!("GET {}", by_line(&pending.request)),
        response: format!("GET {}", by_line(&callback)),
        duration_ms: 0,
    }
}

/// Only what the page offers; `openid` makes it OpenID Connect and is always sent.
fn chosen(query: &str) -> Choices {
    let mut choices = Choices::default();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "scope"
                if offered_scopes().any(|scope| scope == value)
                    && !choices.scopes.iter().any(|scope| *scope == value) =>
            {
                choices.scopes.push(value.into_owned());
            }
            "prompt" if prompt::SUPPORTED.contains(&&*value) => {
                choices.prompt = Some(value.into_owned())
            }
            "id_token_claims" => choices.id_token_claims = true,
            _ => {}
        }
    }
    choices
}

fn offered_scopes() -> impl Iterator<Item = &'static str> {
    scope::SUPPORTED
        .iter()
        .copied()
        .filter(|scope| *scope != scope::OPENID)
}

fn answer(
    visit: &Visit,
    credentials: &DevApp,
    status: StatusCode,
    choices: Choices,
    error: Option<DevError>,
    run: Option<DevRun>,
) -> HttpResponse {
    let base = visit.state.base();
    let choice = |value: &str, chosen: bool| DevChoice {
        value: value.to_owned(),
        chosen,
    };
    let page = Shown {
        // A link to this very address would send the code a second time.
        page: visit
            .page()
            .with_languages(|language| format!("{base}{START}?lang={}", language.code())),
        issuer: visit.state.issuer().to_owned(),
        client_id: credentials.client_id.clone(),
        redirect_uri: visit.state.url(CALLBACK),
        start_href: format!("{base}{SIGN_IN}"),
        scopes: offered_scopes()
            .map(|scope| choice(scope, choices.scopes.iter().any(|chosen| chosen == scope)))
            .collect(),
        prompts: prompt::SUPPORTED
            .iter()
            .map(|value| choice(value, choices.prompt.as_deref() == Some(value)))
            .collect(),
        id_token_claims: choices.id_token_claims,
        error,
        run,
    };
    html(status, &page, PageKind::Own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_page_offers_can_be_chosen() {
        let choices = chosen(
            "scope=profile&scope=profile&scope=openid&scope=root&prompt=&id_token_claims=on",
        );
        assert_eq!(
            choices,
            Choices {
                scopes: vec!["profile".to_owned()],
                prompt: None,
                id_token_claims: true
            }
        );
        assert_eq!(
            chosen("prompt=login&prompt=evil").prompt.as_deref(),
            Some("login")
        );
    }
}
