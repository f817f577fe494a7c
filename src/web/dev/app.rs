//! The built-in test app: a real relying party of this very server, which shows what it sends and receives.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use super::connection;
use super::pending::{self, Choices, Connection, Pending};
use super::recorder::Recorder;
use super::relying_party::{self, failure};
use crate::causes::with_causes;
use crate::protocol::{prompt, scope};
use crate::seed::DevApp;
use crate::web::error;
use crate::web::extract::form;
use crate::web::pages::{DevApp as Template, DevChoice, DevError, DevRun, DevStep, DevTable};
use crate::web::security_headers::PageKind;
use crate::web::state::AppState;
use crate::web::visit::{Visit, html, see_other};

pub(super) const START: &str = "/dev/app";
pub(super) const SIGN_IN: &str = "/dev/app/sign-in";
pub(super) const CALLBACK: &str = "/dev/app/callback";

/// What a page of the test app shows beside the choices.
pub(super) struct Shown<'a> {
    pub(super) choices: Choices,
    pub(super) steps: Option<Vec<DevStep>>,
    pub(super) tables: Vec<DevTable>,
    /// With it, tokens can be refreshed and the person signed out.
    pub(super) connection: Option<&'a Connection>,
    pub(super) error: Option<DevError>,
}

impl Shown<'_> {
    /// Nothing has happened yet.
    fn nothing(choices: Choices) -> Self {
        Self {
            choices,
            steps: None,
            tables: Vec::new(),
            connection: None,
            error: None,
        }
    }

    /// Only what went wrong.
    pub(super) fn of(choices: Choices, error: DevError) -> Self {
        Self {
            error: Some(error),
            ..Self::nothing(choices)
        }
    }
}

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
    let mut response = page(&visit, credentials, Shown::nothing(choices));
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
        Err(error) => page(&visit, credentials, Shown::of(choices, error)),
    }
}

async fn begin(visit: &Visit, credentials: &DevApp, choices: Choices) -> Result<Pending, DevError> {
    let http = Recorder::new().map_err(|error| failure("http", &with_causes(&error)))?;
    relying_party::begin(&visit.state, credentials, &http, choices, visit.now).await
}

/// Takes the answer, fetches tokens and UserInfo, and shows the whole run as far as it went.
pub(super) async fn callback(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    let visit = Visit::new(&request, &state);
    let Some(credentials) = &state.dev_app else {
        return error::not_found(request).await;
    };
    let answer = match form::query(&request) {
        Ok(answer) => answer,
        Err(malformed) => {
            let error = failure("invalid_response", malformed.description());
            return page(&visit, credentials, Shown::of(Choices::default(), error));
        }
    };
    let pending = pending::recall::<Pending>(&request, &state, visit.now);
    let code = relying_party::code_of(&answer, pending.as_ref(), state.issuer());
    let Some(pending) = pending else {
        let error = code.err();
        return page(
            &visit,
            credentials,
            Shown {
                error,
                ..Shown::nothing(Choices::default())
            },
        );
    };
    let mut steps = vec![authorization_step(&request, &pending)];
    let mut tables = Vec::new();
    let result = match (code, Recorder::new()) {
        (Ok(code), Ok(http)) => {
            let result = relying_party::finish(
                &state,
                credentials,
                &http,
                code,
                &pending,
                &mut tables,
                visit.now,
            )
            .await;
            steps.extend(http.into_steps(relying_party::STEPS));
            result
        }
        (Err(error), _) => Err(error),
        (Ok(_), Err(error)) => Err(failure("http", &with_causes(&error))),
    };
    let shown = Shown {
        choices: pending.choices,
        steps: Some(steps),
        tables,
        connection: result.as_ref().ok(),
        error: result.as_ref().err().cloned(),
    };
    let mut response = page(&visit, credentials, shown);
    if let Ok(connection) = &result {
        pending::remember(&mut response, &state, connection);
    }
    response
}

/// What went through the browser. Its time is the person's, which says nothing about the server, so it is left out.
fn authorization_step(request: &HttpRequest, pending: &Pending) -> DevStep {
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

/// An address with a line for each parameter.
pub(super) fn by_line(address: &str) -> String {
    address.replacen('?', "\n\n", 1).replace('&', "\n")
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

/// The page; whatever went wrong on the way here is a bad request of somebody's.
pub(super) fn page(visit: &Visit, credentials: &DevApp, shown: Shown<'_>) -> HttpResponse {
    let base = visit.state.base();
    let choice = |value: &str, chosen: bool| DevChoice {
        value: value.to_owned(),
        chosen,
    };
    let csrf = connection::csrf(visit);
    let may_refresh = csrf.is_some()
        && shown
            .connection
            .is_some_and(|connection| connection.refresh_token.is_some());
    let status = if shown.error.is_none() {
        StatusCode::OK
    } else {
        StatusCode::BAD_REQUEST
    };
    let choices = shown.choices;
    let page = Template {
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
        error: shown.error,
        run: shown.steps.map(|steps| DevRun {
            steps,
            tokens: shown.tables,
            refresh_action: may_refresh.then(|| format!("{base}{}", connection::REFRESH)),
            csrf: csrf.unwrap_or_default(),
            sign_out_href: shown
                .connection
                .map(|_| format!("{base}{}", connection::SIGN_OUT)),
        }),
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
