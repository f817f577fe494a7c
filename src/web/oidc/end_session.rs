//! The end session endpoint. OpenID Connect RP-Initiated Logout 1.0 §2, §3.
//!
//! A request that must be asked about travels to the question and back as authorization requests do: its own parameters,
//! sealed, judged afresh at every step.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};

use crate::identity::email::canonical_login;
use crate::protocol::client::Client;
use crate::protocol::end_session::{
    self, EndSessionRequest, Hint, PostLogoutRedirect, Refusal, SignIn, Step,
};
use crate::protocol::error::{ErrorCode, OAuthError, invalid_request};
use crate::protocol::parameters::Parameters;
use crate::protocol::seal::{TokenHash, constant_time_eq};
use crate::protocol::time::Timestamp;
use crate::random;
use crate::store::grants;
use crate::web::error::{self, About, Fault};
use crate::web::extract::browser::{self, SignedIn};
use crate::web::extract::form;
use crate::web::login::sign_out;
use crate::web::login::transaction::LONGEST_REQUEST;
use crate::web::pages::{Compared, Detail, ErrorKind, Link};
use crate::web::request_log::about_client;
use crate::web::routes;
use crate::web::state::AppState;
use crate::web::visit::{Visit, see_other};

/// How long a page may lie open.
const LIFETIME: Duration = Duration::from_secs(3_600);
/// What a posted request is sealed for on its way to us.
const POSTED: &[u8] = b"end-session";

/// A request in the query. Nothing is written unless a hint proves that the app means a sign-in of this browser.
pub(in crate::web) async fn get(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    let mut visit = Visit::new(&request, &state);
    let result = match form::query(&request) {
        Ok(parameters) => begin(&mut visit, parameters).await,
        Err(malformed) => Ok(refuse_malformed(&visit, malformed.description())),
    };
    error::or_fault_page(&visit, result)
}

/// The same in a form. It comes from the app's site, so our `SameSite=Lax` cookies are not with it: the 303 fetches them.
/// Sealed, since apps post in order to keep the ID token out of addresses.
pub(in crate::web) async fn post(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<AppState>,
) -> HttpResponse {
    let visit = Visit::new(&request, &state);
    let both = match form::query_and_body(&request, payload).await {
        Ok(both) => both,
        Err(refused) => return error::refused_form(&visit, refused),
    };
    match Parameters::parse(both.as_bytes()) {
        Ok(parameters) if parameters.to_query().len() <= LONGEST_REQUEST => {
            see_other(&again(&state, &parameters.to_query()))
        }
        Ok(_) => refuse_malformed(&visit, TOO_LONG),
        Err(malformed) => refuse_malformed(&visit, malformed.description()),
    }
}

const TOO_LONG: &str = "the request is longer than 8000 characters";

/// The address that makes a request once more.
fn again(state: &AppState, query: &str) -> String {
    let sealed = state.tickets.seal_text(query.as_bytes(), POSTED);
    format!("{}{}?ticket={sealed}", state.base(), routes::END_SESSION)
}

async fn begin(visit: &mut Visit, parameters: Parameters) -> Result<HttpResponse, Fault> {
    let parameters = posted(visit, &parameters).unwrap_or(parameters);
    if parameters.to_query().len() > LONGEST_REQUEST {
        return Ok(refuse_malformed(visit, TOO_LONG));
    }
    let departure = match Departure::judge(visit, &parameters).await? {
        Ok(departure) => departure,
        Err(response) => return Ok(response),
    };
    let live = visit.signed_in().await?;
    let sign_ins: Vec<_> = live
        .iter()
        .map(|other| SignIn {
            session: &other.session.id,
            subject: &other.user.id,
        })
        .collect();
    match end_session::next_step(departure.hint.as_ref(), &sign_ins) {
        Step::End(meant) => {
            let meant = meant.session.to_owned();
            departure
                .end(visit, live, |other| other.session.id == meant)
                .await
        }
        Step::Ask => Ok(departure.ask(visit)),
        Step::GoOn => Ok(departure.leave(visit)),
    }
}

/// What an app posted, if this is the 303 that followed.
fn posted(visit: &Visit, parameters: &Parameters) -> Option<Parameters> {
    let sealed = parameters.get("ticket")?;
    let query = visit.state.tickets.open_text(sealed, POSTED)?;
    Parameters::parse(&query)
        .ok()
        .map(Parameters::without_empty)
}

/// A request that was sealed for one browser.
#[derive(Serialize, Deserialize)]
pub(in crate::web) struct Ticket {
    pub(in crate::web) id: String,
    query: String,
    issued_at: Timestamp,
    browser: [u8; 32],
}

impl Ticket {
    pub(in crate::web) fn new(visit: &mut Visit, parameters: &Parameters) -> Self {
        Self {
            id: random::id(),
            query: parameters.to_query(),
            issued_at: visit.now,
            browser: *TokenHash::of(&visit.browser.id_or_new()).as_bytes(),
        }
    }

    /// The form that travels.
    pub(in crate::web) fn seal(&self, state: &AppState, purpose: &[u8]) -> String {
        let plain = serde_json::to_vec(self).expect("a ticket has a JSON form");
        state.tickets.seal_text(&plain, purpose)
    }

    /// A ticket of ours for this purpose, of whatever browser and age.
    pub(in crate::web) fn open(
        visit: &Visit,
        sealed: Option<&str>,
        purpose: &[u8],
    ) -> Option<Self> {
        let plain = visit.state.tickets.open_text(sealed?, purpose)?;
        serde_json::from_slice(&plain).ok()
    }

    /// Whether it goes on in this browser, now.
    pub(in crate::web) fn is_good(&self, visit: &Visit) -> bool {
        let is_of_browser = visit
            .browser
            .id()
            .is_some_and(|id| constant_time_eq(TokenHash::of(id).as_bytes(), &self.browser));
        is_of_browser && visit.now.since(self.issued_at) < LIFETIME
    }

    /// Where the same request begins again.
    pub(in crate::web) fn restart(&self, state: &AppState) -> String {
        again(state, &self.query)
    }

    /// The request's own parameters.
    pub(in crate::web) fn parameters(&self) -> Result<Parameters, Fault> {
        Parameters::parse(self.query.as_bytes()).map_err(|_sealed_by_us| {
            Fault::Other("a sealed ticket holds parameters that can't be read")
        })
    }
}

/// A request to sign out, judged just now.
pub(in crate::web) struct Departure {
    parameters: Parameters,
    request: EndSessionRequest,
    hint: Option<Hint>,
    pub(in crate::web) client: Option<Arc<Client>>,
    pub(in crate::web) redirect: Option<PostLogoutRedirect>,
}

impl Departure {
    /// Judges a request; what is wrong with it is said on a page, and nobody is signed out.
    pub(in crate::web) async fn judge(
        visit: &mut Visit,
        parameters: &Parameters,
    ) -> Result<Result<Self, HttpResponse>, Fault> {
        visit.prefer_language(parameters.get("ui_locales"));
        Ok(Self::try_judge(visit, parameters)
            .await?
            .map_err(|refusal| refuse(visit, &refusal)))
    }

    async fn try_judge(
        visit: &Visit,
        parameters: &Parameters,
    ) -> Result<Result<Self, Refusal>, Fault> {
        let request = match EndSessionRequest::parse(parameters) {
            Ok(request) => request,
            Err(error) => return Ok(Err(Refusal::Request(error))),
        };
        let hint = match &request.id_token_hint {
            None => None,
            Some(token) => match read_hint(visit, token) {
                Some(hint) => Some(hint),
                None => return Ok(Err(end_session::unreadable_hint())),
            },
        };
        let client = match end_session::client_id(&request, hint.as_ref()) {
            Ok(None) => None,
            Ok(Some(id)) => match visit.state.clients.client(&id).await? {
                Some(client) => Some(client),
                None => return Ok(Err(end_session::unknown_client())),
            },
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Some(client) = &client {
            about_client(&visit.request, &client.client_id);
        }
        let redirect = match end_session::redirect(&request, client.as_deref()) {
            Ok(redirect) => redirect,
            Err(refusal) => return Ok(Err(refusal)),
        };
        Ok(Ok(Self {
            parameters: parameters.clone(),
            request,
            hint,
            client,
            redirect,
        }))
    }

    /// To the question. The page's address holds no ID token.
    pub(in crate::web) fn ask(&self, visit: &mut Visit) -> HttpResponse {
        let ticket = Ticket::new(visit, &self.parameters);
        let sealed = ticket.seal(&visit.state, sign_out::QUESTION);
        let (base, path) = (visit.state.base(), sign_out::CONFIRM);
        let mut response = see_other(&format!("{base}{path}?ticket={sealed}"));
        browser::remember_browser(&mut response, &visit.state, &mut visit.browser);
        response
    }

    /// Signs these out, and goes where the app wants to have the person.
    pub(in crate::web) async fn end(
        &self,
        visit: &mut Visit,
        live: Vec<SignedIn>,
        is_meant: impl Fn(&SignedIn) -> bool,
    ) -> Result<HttpResponse, Fault> {
        let app = self.client.as_ref().map(|client| &client.client_id);
        let remembered = sign_out::end(visit, live, app, is_meant).await?;
        let mut response = self.leave(visit);
        browser::remember_sign_ins(&mut response, &visit.state, &mut visit.browser, remembered);
        Ok(response)
    }

    /// Goes there, or to our own last page.
    pub(in crate::web) fn leave(&self, visit: &mut Visit) -> HttpResponse {
        match &self.redirect {
            Some(redirect) => see_other(redirect.location()),
            None => sign_out::done(visit, self.client.as_deref()),
        }
    }

    /// Which of several accounts the request is most likely about: the one it names, or the one that the app used last.
    pub(in crate::web) async fn likely(
        &self,
        visit: &Visit,
        live: &[SignedIn],
    ) -> Result<Option<String>, Fault> {
        let subject = self.hint.as_ref().map(Hint::subject);
        let email = self.request.logout_hint.as_deref().map(canonical_login);
        let named = live
            .iter()
            .find(|other| Some(other.user.id.as_str()) == subject)
            .or_else(|| {
                live.iter()
                    .find(|other| Some(&other.user.email_key) == email.as_ref())
            });
        if let (None, Some(client)) = (named, &self.client) {
            let sessions: Vec<_> = live.iter().map(|other| other.session.id.clone()).collect();
            let client_id = client.client_id.clone();
            let newest = move |conn: &mut _| grants::newest_session(conn, &client_id, &sessions);
            return Ok(visit.state.store.read(newest).await?);
        }
        Ok(named.map(|named| named.session.id.clone()))
    }

    /// Whether the app named an address that counts for nothing, because it didn't say who it is.
    pub(in crate::web) fn is_anonymous(&self) -> bool {
        self.client.is_none() && self.request.post_logout_redirect_uri.is_some()
    }
}

fn read_hint(visit: &Visit, token: &str) -> Option<Hint> {
    let claims = visit.state.keys.load().verify_id_token(token)?;
    Hint::from_claims(&claims, visit.state.issuer())
}

fn refuse_malformed(visit: &Visit, description: &'static str) -> HttpResponse {
    refuse(visit, &Refusal::Request(invalid_request(description)))
}

/// Nobody was signed out; our own page is where people still can be.
fn refuse(visit: &Visit, refusal: &Refusal) -> HttpResponse {
    let texts = visit.texts();
    let reason = |error: &OAuthError| Detail {
        label: texts.get("error-detail-reason"),
        value: Compared::plain(error.description()),
    };
    let (error, details) = match refusal {
        Refusal::Request(error) => (error, vec![reason(error)]),
        Refusal::RedirectUri {
            error,
            received,
            differs_at,
        } => {
            let address = Detail {
                label: texts.get("error-detail-post-logout-redirect-uri"),
                value: Compared::from_byte(received, *differs_at),
            };
            (error, vec![address, reason(error)])
        }
    };
    tracing::info!(reason = error.description(), "sign-out request refused");
    let action = Link {
        label: texts.get("error-sign-out-here"),
        href: format!("{}/", visit.state.base()),
    };
    error::page(
        visit,
        StatusCode::BAD_REQUEST,
        ErrorKind::SignOut,
        About {
            code: Some(ErrorCode::InvalidRequest),
            details,
            action: Some(action),
        },
    )
}
