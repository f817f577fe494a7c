//! A pending authorization request: sealed, not stored. It travels through the pages in the URL and in the forms.
//!
//! The ticket holds the request's own parameters, which are judged afresh at every step, so that nothing that was
//! switched off meanwhile still counts. It can't be altered, and it goes on only in the browser that it was made for;
//! elsewhere it merely begins the same request again, as the app's own link would. What the person has proved is in the
//! session, never in here.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

use crate::audit::{Event, Kind};
use crate::identity::email::canonical_login;
use crate::identity::session::Session;
use crate::protocol::authorization_request::{
    self, AuthorizationError, AuthorizationRequest, PageError, ValidatedRedirect,
};
use crate::protocol::authorization_response::{self, AuthorizationResponse};
use crate::protocol::client::Client;
use crate::protocol::error::{ErrorCode, OAuthError, login_required};
use crate::protocol::grants::Grant;
use crate::protocol::grants::authorization_code::IssuedCode;
use crate::protocol::interaction::{Consent, Hint, Login, Situation, Step, next_step};
use crate::protocol::known_scopes::KnownScopes;
use crate::protocol::parameters::Parameters;
use crate::protocol::redirect_uri::RedirectUri;
use crate::protocol::scope;
use crate::protocol::seal::{TokenHash, constant_time_eq};
use crate::protocol::time::Timestamp;
use crate::random;
use crate::store::{audit_events, authorization_codes, consents, grants, sessions};
use crate::web::error::{self, About, Fault};
use crate::web::extract::browser::{self, SignedIn};
use crate::web::pages::{AppFace, Compared, Detail, ErrorKind, FormPost, Link, Page};
use crate::web::request_log::{about_client, about_user};
use crate::web::security_headers::PageKind;
use crate::web::state::AppState;
use crate::web::visit::{Visit, html, see_other};

/// How long a page may lie open before its request is started afresh.
const LIFETIME: Duration = Duration::from_secs(3_600);
/// What tickets are sealed for.
const PURPOSE: &[u8] = b"ticket";
/// A request must fit, sealed, into an address.
pub(in crate::web) const LONGEST_REQUEST: usize = 8_000;

/// What travels, sealed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::web) struct Ticket {
    /// Names this request, so that a sign-in can be told to have been made for it.
    pub(in crate::web) id: String,
    query: String,
    issued_at: Timestamp,
    /// The browser it was made for.
    browser: [u8; 32],
    /// The sign-in that the person chose or just made for this request.
    pub(in crate::web) account: Option<String>,
}

/// A pending request, judged afresh.
#[derive(Clone, Debug)]
pub(in crate::web) struct Transaction {
    pub(in crate::web) ticket: Ticket,
    pub(in crate::web) request: AuthorizationRequest,
    pub(in crate::web) client: Arc<Client>,
    pub(in crate::web) scopes: Arc<KnownScopes>,
}

/// What a ticket turned out to be.
pub(in crate::web) enum Opened {
    Valid(Box<Transaction>),
    /// Ours, but too old, or of a first visit that another tab overtook; `restart` begins the same request again.
    Expired {
        restart: String,
    },
    /// There is nothing to go on with; the answer says so.
    Unusable(HttpResponse),
}

impl Ticket {
    fn new(parameters: &Parameters, now: Timestamp) -> Self {
        Self {
            id: random::id(),
            query: parameters.to_query(),
            issued_at: now,
            browser: [0; 32],
            account: None,
        }
    }

    /// The form that travels.
    pub(in crate::web) fn seal(&self, state: &AppState, browser_id: &str) -> String {
        let bound = Self {
            browser: *TokenHash::of(browser_id).as_bytes(),
            ..self.clone()
        };
        let plain = serde_json::to_vec(&bound).expect("a ticket has a JSON form");
        state.tickets.seal_text(&plain, PURPOSE)
    }

    /// A ticket of ours, of whatever browser. One without a cookie of ours gets nothing: it keeps none, or lost them.
    fn open(visit: &Visit, sealed: Option<&str>) -> Option<Self> {
        visit.browser.id()?;
        let plain = visit.state.tickets.open_text(sealed?, PURPOSE)?;
        serde_json::from_slice(&plain).ok()
    }

    /// The request's own parameters.
    fn parameters(&self) -> Result<Parameters, Fault> {
        Parameters::parse(self.query.as_bytes()).map_err(|_sealed_by_us| {
            Fault::Other("a sealed ticket holds parameters that can't be read")
        })
    }

    /// Whether it goes on in this browser, now.
    fn is_good(&self, visit: &Visit) -> bool {
        let is_of_browser = visit
            .browser
            .id()
            .is_some_and(|id| constant_time_eq(TokenHash::of(id).as_bytes(), &self.browser));
        is_of_browser && visit.now.since(self.issued_at) < LIFETIME
    }
}

impl Transaction {
    /// A new request, straight from an app.
    pub(in crate::web) async fn begin(
        visit: &mut Visit,
        parameters: &Parameters,
    ) -> Result<Result<Self, HttpResponse>, Fault> {
        if parameters.to_query().len() > LONGEST_REQUEST {
            let error = crate::protocol::error::invalid_request(
                "the request is longer than 8000 characters",
            );
            return Ok(Err(show_page(visit, &PageError::Client(error), None)));
        }
        let ticket = Ticket::new(parameters, visit.now);
        judge(visit, ticket, parameters).await
    }

    /// The request that a form or a link brings back.
    pub(in crate::web) async fn open(
        visit: &mut Visit,
        sealed: Option<&str>,
    ) -> Result<Opened, Fault> {
        let Some(ticket) = Ticket::open(visit, sealed) else {
            let response = error::forgery(visit, StatusCode::BAD_REQUEST);
            return Ok(Opened::Unusable(response));
        };
        if !ticket.is_good(visit) {
            return Ok(Opened::Expired {
                restart: format!("{}/authorize?{}", visit.state.base(), ticket.query),
            });
        }
        let parameters = ticket.parameters()?;
        Ok(match judge(visit, ticket, &parameters).await? {
            Ok(transaction) => Opened::Valid(Box::new(transaction)),
            Err(response) => Opened::Unusable(response),
        })
    }

    /// The same, where an expired one just begins again: what goes on, or the answer that leads elsewhere.
    pub(in crate::web) async fn resume(
        visit: &mut Visit,
        sealed: Option<&str>,
    ) -> Result<Result<Box<Self>, HttpResponse>, Fault> {
        Ok(match Self::open(visit, sealed).await? {
            Opened::Valid(transaction) => Ok(transaction),
            Opened::Expired { restart } => Err(see_other(&restart)),
            Opened::Unusable(response) => Err(response),
        })
    }

    /// The same request in a fresh ticket, for a page that lay open too long.
    pub(in crate::web) async fn renewed(
        visit: &mut Visit,
        sealed: Option<&str>,
    ) -> Result<Result<Self, HttpResponse>, Fault> {
        let Some(old) = Ticket::open(visit, sealed) else {
            return Ok(Err(error::forgery(visit, StatusCode::BAD_REQUEST)));
        };
        let parameters = old.parameters()?;
        let ticket = Ticket::new(&parameters, visit.now);
        judge(visit, ticket, &parameters).await
    }

    /// The page's frame, with what the app registered for people to read.
    pub(in crate::web) fn page(&self, visit: &Visit) -> Page {
        let mut page = visit.page();
        page.policy = self.client.policy_uri.clone();
        page.terms = self.client.tos_uri.clone();
        page
    }

    /// How the app looks to the person.
    pub(in crate::web) fn face(&self) -> AppFace {
        AppFace::new(
            self.client.display_name(),
            &RedirectUri::shown_host(self.request.redirect.uri()),
        )
    }

    /// The sign-in that this request is about, if the browser shows it.
    pub(in crate::web) fn current<'a>(
        &self,
        visit: &Visit,
        signed_in: &'a [SignedIn],
    ) -> Option<&'a SignedIn> {
        if let Some(chosen) = &self.ticket.account {
            return signed_in.iter().find(|other| other.session.id == *chosen);
        }
        // Who asks for one person is never offered another.
        let claims = &self.request.claims;
        match self.hint(visit) {
            Hint::Subject(subject) => {
                return signed_in.iter().find(|other| other.user.id == subject);
            }
            Hint::Absent | Hint::Unreadable if claims.demands_a_subject() => {
                return signed_in
                    .iter()
                    .find(|other| claims.accepts_subject(&other.user.id));
            }
            Hint::Absent | Hint::Unreadable => {}
        }
        self.hinted(signed_in).or_else(|| signed_in.first())
    }

    /// The sign-in that `login_hint` names.
    fn hinted<'a>(&self, signed_in: &'a [SignedIn]) -> Option<&'a SignedIn> {
        let key = canonical_login(self.request.login_hint.as_deref()?);
        signed_in.iter().find(|other| other.user.email_key == key)
    }

    /// Without a page nobody can choose among several accounts: the one that this app used last goes on, or none.
    async fn used_before(
        &self,
        visit: &Visit,
        signed_in: &[SignedIn],
    ) -> Result<Option<SignedIn>, Fault> {
        let sessions: Vec<_> = signed_in
            .iter()
            .map(|other| other.session.id.clone())
            .collect();
        let client_id = self.client.client_id.clone();
        let newest = visit
            .state
            .store
            .read(move |conn| grants::newest_session(conn, &client_id, &sessions))
            .await?;
        Ok(signed_in
            .iter()
            .find(|other| newest.as_ref() == Some(&other.session.id))
            .cloned())
    }

    /// Whether the request itself says which account it is about.
    fn names_an_account(&self, visit: &Visit, signed_in: &[SignedIn]) -> bool {
        self.ticket.account.is_some()
            || self.hint(visit) != Hint::Absent
            || self.request.claims.demands_a_subject()
            || self.hinted(signed_in).is_some()
    }

    /// Whether a sign-in was made for this very request.
    pub(in crate::web) fn was_proved_by(&self, session: &Session) -> bool {
        session.proved_for.as_deref() == Some(self.ticket.id.as_str())
    }

    /// Goes one step on: to the next page, or to the app.
    pub(in crate::web) async fn advance(
        &self,
        visit: &mut Visit,
        signed_in: &[SignedIn],
    ) -> Result<HttpResponse, Fault> {
        let (step, current) = self.step(visit, signed_in, false).await?;
        self.go(visit, step, current.as_ref(), false).await
    }

    /// The person allowed what the consent page shows. That counts only where the policy is at that page, or past it.
    pub(in crate::web) async fn allow(
        &self,
        visit: &mut Visit,
        signed_in: &[SignedIn],
    ) -> Result<HttpResponse, Fault> {
        let (mut step, mut current) = self.step(visit, signed_in, false).await?;
        let is_asked = matches!(step, Step::Consent | Step::Issue);
        if is_asked {
            (step, current) = self.step(visit, signed_in, true).await?;
        }
        self.go(visit, step, current.as_ref(), is_asked).await
    }

    /// What the person must do next, and in which sign-in.
    pub(in crate::web) async fn step(
        &self,
        visit: &Visit,
        signed_in: &[SignedIn],
        consent_given: bool,
    ) -> Result<(Step, Option<SignedIn>), Fault> {
        let mut current = self.current(visit, signed_in).cloned();
        let is_silent = self.request.prompt.is_none();
        if is_silent && signed_in.len() > 1 && !self.names_an_account(visit, signed_in) {
            current = self.used_before(visit, signed_in).await?;
            if current.is_none() {
                let description = "several people are signed in, and none of them used this app";
                let error = OAuthError::new(ErrorCode::AccountSelectionRequired, description);
                return Ok((Step::Refuse(error), None));
            }
        }
        let login = current.as_ref().map(|current| Login {
            subject: current.user.id.clone(),
            auth_time: current.session.auth_time,
            for_this_request: self.was_proved_by(&current.session),
        });
        let consent = match &login {
            // Nobody is asked, so nothing needs to be known.
            Some(_) if self.client.skip_consent => None,
            Some(login) => {
                let (subject, client_id) = (login.subject.clone(), self.client.client_id.clone());
                visit
                    .state
                    .store
                    .read(move |conn| consents::find(conn, &subject, &client_id))
                    .await?
            }
            None => None,
        };
        let situation = Situation {
            request: &self.request,
            client: &self.client,
            login: login.as_ref(),
            several_accounts: signed_in.len() > 1,
            account_chosen: self.ticket.account.is_some(),
            hint: &self.hint(visit),
            consent: consent.as_ref(),
            consent_given,
        };
        Ok((next_step(&situation, visit.now), current))
    }

    async fn go(
        &self,
        visit: &mut Visit,
        step: Step,
        current: Option<&SignedIn>,
        allowed: bool,
    ) -> Result<HttpResponse, Fault> {
        match (step, current) {
            (Step::Refuse(error), _) => Ok(self.refuse(visit, &error)),
            (Step::Issue, Some(current)) => self.issue(visit, current, allowed).await,
            (Step::Consent, Some(_)) => Ok(self.show(visit, "/consent")),
            (Step::ChooseAccount, _) => Ok(self.show(visit, "/select-account")),
            (Step::Login, _) | (Step::Issue | Step::Consent, None) => {
                Ok(self.show(visit, "/login"))
            }
        }
    }

    /// Sends an error to the app.
    pub(in crate::web) fn refuse(&self, visit: &Visit, error: &OAuthError) -> HttpResponse {
        tracing::info!(
            error = error.code.as_str(),
            reason = error.description(),
            "authorization request refused"
        );
        respond(
            visit,
            Some(self.face()),
            authorization_response::failure(&self.request.redirect, error, visit.state.issuer()),
        )
    }

    /// The person does not want to.
    pub(in crate::web) fn cancel(&self, visit: &Visit) -> HttpResponse {
        self.refuse(
            visit,
            &OAuthError::new(ErrorCode::AccessDenied, "the person cancelled"),
        )
    }

    /// To the sign-in page for another account than those that are signed in.
    pub(in crate::web) fn show_login_of_another(&self, visit: &mut Visit) -> HttpResponse {
        self.show(visit, "/login?other=1")
    }

    /// To a page of ours, in the URL of which the request travels on.
    pub(in crate::web) fn show(&self, visit: &mut Visit, path: &str) -> HttpResponse {
        let browser_id = visit.browser.id_or_new();
        let ticket = self.ticket.seal(&visit.state, &browser_id);
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut response = see_other(&format!(
            "{}{path}{separator}ticket={ticket}",
            visit.state.base()
        ));
        browser::remember_browser(&mut response, &visit.state, &mut visit.browser);
        response
    }

    /// Writes down what the person allowed, just now or before, and sends the app its code.
    async fn issue(
        &self,
        visit: &mut Visit,
        current: &SignedIn,
        allowed: bool,
    ) -> Result<HttpResponse, Fault> {
        let code = random::token();
        let hash = TokenHash::of(&code);
        let now = visit.now;
        let grant = Grant {
            id: random::id(),
            client_id: self.client.client_id.clone(),
            subject: current.user.id.clone(),
            session_id: current.session.id.clone(),
            scope: self.request.scope.clone(),
            claims: self.request.claims.clone(),
            resources: self.request.resources.clone(),
            auth_time: current.session.auth_time,
            acr: current.session.acr.clone(),
            amr: current.session.amr.clone(),
            offline: self.request.scope.contains(scope::OFFLINE_ACCESS),
            created_at: now,
        };
        let lifetime = self
            .client
            .tokens
            .code
            .unwrap_or(visit.state.config.tokens.code);
        let issued = IssuedCode {
            grant_id: grant.id.clone(),
            client_id: self.client.client_id.clone(),
            redirect_uri: self.request.redirect.uri().to_owned(),
            code_challenge: self.request.code_challenge.clone(),
            nonce: self.request.nonce.clone(),
            expires_at: now.plus(lifetime),
            consumed_at: None,
        };
        let touch = current
            .session
            .should_be_touched(&visit.state.session_lifetimes(), now);
        let allowed = allowed.then(|| Consent::needed(&grant.scope, &grant.claims));
        // An app that renews silently does so every few minutes, and nobody enters anything.
        let entered = (!self.request.prompt.is_none()).then(|| {
            Event::by_user(Kind::AppEntered, &grant.subject)
                .client(grant.client_id.as_str())
                .noting("session", grant.session_id.as_str())
                .noting("grant", grant.id.as_str())
        });
        let trail = visit.trail();
        let written = visit
            .state
            .store
            .write(move |tx| {
                // Again, and inside the transaction: a sign-out or a switched-off account that was acknowledged counts.
                if !sessions::is_open(tx, &grant.session_id)? {
                    return Ok(false);
                }
                if let Some(allowed) = &allowed {
                    let (user_id, client_id) = (&grant.subject, &grant.client_id);
                    let earlier = consents::find(tx, user_id, client_id)?.unwrap_or_default();
                    let consent = earlier.union(allowed);
                    if consent != earlier {
                        let event = Event::by_user(Kind::ConsentGiven, user_id)
                            .client(client_id.as_str())
                            .noting("scope", consent.scope.to_string())
                            .noting("claims", consent.claims.clone());
                        audit_events::record(tx, &trail, &event)?;
                    }
                    consents::put(tx, user_id, client_id, &consent, now)?;
                }
                if let Some(entered) = &entered {
                    audit_events::record(tx, &trail, entered)?;
                }
                grants::insert(tx, &grant)?;
                authorization_codes::insert(tx, &issued, &hash)?;
                if touch {
                    sessions::touch(tx, &grant.session_id, now)?;
                }
                Ok(true)
            })
            .await?;
        if !written && self.request.prompt.is_none() {
            return Ok(self.refuse(visit, &login_required("the sign-in has ended")));
        }
        if !written {
            return Ok(self.show(visit, "/login"));
        }
        about_user(&visit.request, &current.user.id);
        Ok(respond(
            visit,
            Some(self.face()),
            authorization_response::success(&self.request.redirect, &code, visit.state.issuer()),
        ))
    }

    fn hint(&self, visit: &Visit) -> Hint {
        let Some(token) = &self.request.id_token_hint else {
            return Hint::Absent;
        };
        let claims = visit.state.keys.load().verify_id_token(token);
        let text = |name: &str| {
            claims
                .as_ref()
                .and_then(|claims| claims.get(name)?.as_str().map(str::to_owned))
        };
        match (text("iss"), text("sub")) {
            (Some(issuer), Some(subject)) if issuer == visit.state.issuer() => {
                Hint::Subject(subject)
            }
            _ => Hint::Unreadable,
        }
    }
}

async fn judge(
    visit: &mut Visit,
    ticket: Ticket,
    parameters: &Parameters,
) -> Result<Result<Transaction, HttpResponse>, Fault> {
    let client_id = match authorization_request::client_id(parameters) {
        Ok(client_id) => client_id,
        Err(error) => return Ok(Err(deliver(visit, error, None))),
    };
    let Some(known) = visit.state.clients.find(&client_id).await? else {
        return Ok(Err(deliver(
            visit,
            authorization_request::unknown_client(),
            None,
        )));
    };
    let client = known.client.clone();
    about_client(&visit.request, &client_id);
    let scopes = visit.state.clients.scopes().await?;
    match authorization_request::validate(parameters, &client, &scopes) {
        Ok(request) => {
            visit.prefer_language(request.ui_locales.as_deref());
            Ok(Ok(Transaction {
                ticket,
                request,
                client,
                scopes,
            }))
        }
        Err(error) => Ok(Err(deliver(visit, error, Some(&client)))),
    }
}

/// Answers a request that was refused: on a page, or at the app's own validated address.
fn deliver(visit: &Visit, error: AuthorizationError, client: Option<&Client>) -> HttpResponse {
    match error {
        AuthorizationError::ShowPage(error) => show_page(visit, &error, client),
        AuthorizationError::Redirect(redirect, error) => {
            tracing::info!(
                error = error.code.as_str(),
                reason = error.description(),
                "authorization request refused"
            );
            let app = client.map(|client| face(client, &redirect));
            respond(
                visit,
                app,
                authorization_response::failure(&redirect, &error, visit.state.issuer()),
            )
        }
    }
}

fn face(client: &Client, redirect: &ValidatedRedirect) -> AppFace {
    AppFace::new(
        client.display_name(),
        &RedirectUri::shown_host(redirect.uri()),
    )
}

fn show_page(visit: &Visit, error: &PageError, client: Option<&Client>) -> HttpResponse {
    let texts = visit.texts();
    let detail = |label: &str, value: Compared| Detail {
        label: texts.get(label),
        value,
    };
    let (kind, error, mut details) = match error {
        PageError::Client(error) => (ErrorKind::UnknownClient, error, Vec::new()),
        PageError::RedirectUri {
            error,
            received,
            differs_at,
        } => {
            let details = received
                .iter()
                .map(|uri| {
                    let value = Compared::from_byte(uri, *differs_at);
                    detail("error-detail-redirect-uri", value)
                })
                .collect();
            (ErrorKind::RedirectUri, error, details)
        }
    };
    tracing::info!(
        reason = error.description(),
        "authorization request refused on a page"
    );
    details.push(detail(
        "error-detail-reason",
        Compared::plain(error.description()),
    ));
    let back = client.and_then(|client| Some((client, client.client_uri.as_ref()?)));
    let action = back.map(|(client, uri)| Link {
        label: texts.with("error-back-to-app", "app", client.display_name()),
        href: uri.clone(),
    });
    error::page(
        visit,
        StatusCode::BAD_REQUEST,
        kind,
        About {
            code: Some(error.code),
            details,
            action,
        },
    )
}

fn respond(visit: &Visit, app: Option<AppFace>, response: AuthorizationResponse) -> HttpResponse {
    match response {
        AuthorizationResponse::Redirect(location) => see_other(&location),
        AuthorizationResponse::FormPost { action, fields } => {
            let fields = fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            html(
                StatusCode::OK,
                &FormPost::new(visit.page(), app, action, fields),
                PageKind::CarriesCode,
            )
        }
    }
}
