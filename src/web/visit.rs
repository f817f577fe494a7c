//! One request of a person's browser: who asks, in which language, at what time.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use askama::Template;

use super::error::{self, Fault};
use super::extract::browser::{self, Browser, SignedIn};
use super::extract::trail::trail;
use super::extract::{csrf, form};
use super::pages::Page;
use super::request_log::RequestId;
use super::security_headers::{self, PageKind};
use super::state::AppState;
use super::texts::{self, Language, Texts};
use crate::audit::Trail;
use crate::protocol::parameters::Parameters;
use crate::protocol::time::Timestamp;
use crate::store::StoreError;

/// What every page handler begins with; `now` is read once.
pub(super) struct Visit {
    pub(super) state: web::Data<AppState>,
    pub(super) request: HttpRequest,
    pub(super) browser: Browser,
    pub(super) language: Language,
    /// Whether the person chose the language with this very request.
    chose_language: bool,
    pub(super) now: Timestamp,
}

impl Visit {
    pub(super) fn new(request: &HttpRequest, state: &web::Data<AppState>) -> Self {
        let browser = Browser::of(request, state);
        let accept = request
            .headers()
            .get(header::ACCEPT_LANGUAGE)
            .and_then(|value| value.to_str().ok());
        let chosen = request
            .query_string()
            .split('&')
            .find_map(|pair| pair.strip_prefix("lang="))
            .and_then(|code| {
                Language::ALL
                    .into_iter()
                    .find(|language| language.code() == code)
            });
        let language =
            chosen.unwrap_or_else(|| texts::negotiate(None, browser.language.as_deref(), accept));
        let now = state.clock.now();
        Self {
            state: state.clone(),
            request: request.clone(),
            browser,
            language,
            chose_language: chosen.is_some(),
            now,
        }
    }

    /// Remembers the language that the person chose with this request.
    pub(super) fn keep_language(&self, response: &mut HttpResponse) {
        if self.chose_language {
            browser::remember_language(response, &self.state, self.language.code());
        }
    }

    /// The app's wish (`ui_locales`) counts unless the person chose a language here.
    pub(super) fn prefer_language(&mut self, ui_locales: Option<&str>) {
        if self.browser.language.is_none() && !self.chose_language && ui_locales.is_some() {
            let accept = self
                .request
                .headers()
                .get(header::ACCEPT_LANGUAGE)
                .and_then(|value| value.to_str().ok());
            self.language = texts::negotiate(ui_locales, None, accept);
        }
    }

    pub(super) fn texts(&self) -> &'static Texts {
        Texts::of(self.language)
    }

    /// A page's frame; each language is a link to the same page. Of a query only: a path such as `//evil.example/` would be a host.
    pub(super) fn page(&self) -> Page {
        let kept: String = self
            .request
            .query_string()
            .split('&')
            .filter(|pair| pair.starts_with("ticket=") || pair.starts_with("other="))
            .map(|pair| format!("{pair}&"))
            .collect();
        let page = Page::new(
            self.language,
            self.state.base(),
            self.state.config.development,
        );
        if self.request.method() != actix_web::http::Method::GET {
            return page;
        }
        page.with_languages(|language| format!("?{kept}lang={}", language.code()))
    }

    /// The browser's live sign-ins, current one first.
    pub(super) async fn signed_in(&self) -> Result<Vec<SignedIn>, StoreError> {
        let tokens = self.browser.token_hashes();
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        let (lifetimes, now) = (self.state.session_lifetimes(), self.now);
        self.state
            .store
            .read(move |conn| browser::signed_in(conn, &tokens, &lifetimes, now))
            .await
    }

    /// The token of a form for one step, bound to this browser.
    pub(super) fn form_token(&mut self, step: &str) -> String {
        let browser_id = self.browser.id_or_new();
        csrf::token(&self.state, &browser_id, step)
    }

    /// Whether a posted form is one that we showed to this browser for this step.
    pub(super) fn is_our_form(&self, step: &str, parameters: &Parameters) -> bool {
        let sent = parameters.get("csrf");
        csrf::is_ours(&self.state, self.browser.id(), step, sent)
    }

    /// A page with a form of ours: with it goes the cookie that the form's token is bound to.
    pub(super) fn form_page(
        &mut self,
        status: StatusCode,
        page: &impl Template,
        kind: PageKind,
    ) -> HttpResponse {
        let mut response = html(status, page, kind);
        browser::remember_browser(&mut response, &self.state, &mut self.browser);
        self.keep_language(&mut response);
        response
    }

    /// What the events of this request lead back to.
    pub(super) fn trail(&self) -> Trail {
        trail(&self.request, &self.state, self.now)
    }

    /// The request's id, which a person can quote.
    pub(super) fn request_id(&self) -> String {
        self.request
            .extensions()
            .get::<RequestId>()
            .map(|id| id.0.clone())
            .unwrap_or_default()
    }
}

/// Answers with a page.
pub(super) async fn show(
    request: &HttpRequest,
    state: &web::Data<AppState>,
    handle: impl AsyncFnOnce(&mut Visit) -> Result<HttpResponse, Fault>,
) -> HttpResponse {
    let mut visit = Visit::new(request, state);
    let result = handle(&mut visit).await;
    error::or_fault_page(&visit, result)
}

/// Takes a form of ours: read strictly, sent from a page of ours, no field twice. What it is about is the handler's to check.
pub(super) async fn take_form(
    request: &HttpRequest,
    payload: web::Payload,
    state: &web::Data<AppState>,
    handle: impl AsyncFnOnce(&mut Visit, &Parameters) -> Result<HttpResponse, Fault>,
) -> HttpResponse {
    let mut visit = Visit::new(request, state);
    let parameters = match form::body(request, payload).await {
        Ok(parameters) => parameters,
        Err(refused) => return error::refused_form(&visit, refused),
    };
    if parameters.repeated().is_some() || !csrf::is_same_origin(state, request) {
        return error::forgery(&visit, StatusCode::FORBIDDEN);
    }
    let result = handle(&mut visit, &parameters).await;
    error::or_fault_page(&visit, result)
}

/// An HTML answer.
pub(super) fn html(status: StatusCode, page: &impl Template, kind: PageKind) -> HttpResponse {
    match page.render() {
        Ok(body) => {
            let mut response = HttpResponse::build(status)
                .content_type("text/html; charset=utf-8")
                .body(body);
            security_headers::protect_page(response.headers_mut(), kind);
            response
        }
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            HttpResponse::InternalServerError()
                .content_type("text/plain; charset=utf-8")
                .body("Something went wrong on our side.")
        }
    }
}

/// On to another address. 303, so that no browser posts a password there again (RFC 9700 §4.12).
pub(super) fn see_other(location: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, location))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .finish()
}
