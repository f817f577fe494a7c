//! Signing out: the question that an app's request may need, the page that comes last, and what both and our first page
//! do on the server. OpenID Connect RP-Initiated Logout 1.0 §2, §6; OWASP ASVS 5.0 §7.4.1.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use crate::audit::{Event, Kind};
use crate::protocol::client::{Client, ClientId};
use crate::protocol::parameters::Parameters;
use crate::store::{audit_events, grants, sessions};
use crate::web::error::{self, Fault};
use crate::web::extract::browser::SignedIn;
use crate::web::extract::{browser, form};
use crate::web::login::account_chooser::choosable;
use crate::web::oidc::end_session::{Departure, Ticket};
use crate::web::pages::{AppFace, Link, SignOut, SignedOut};
use crate::web::request_log::about_user;
use crate::web::security_headers::PageKind;
use crate::web::state::AppState;
use crate::web::visit::{self, Visit, html, see_other};

pub(in crate::web) const CONFIRM: &str = "/end-session/confirm";
pub(in crate::web) const SIGNED_OUT: &str = "/signed-out";

/// What tickets are sealed for: the question …
pub(in crate::web) const QUESTION: &[u8] = b"end-session.question";
/// … and the last page.
const DONE: &[u8] = b"end-session.done";
const EVERYBODY: &str = "all";

/// Ends sign-ins of this browser on the server, and in the same transaction everything that was issued in them and not
/// for the time after; `app` is who asked for it. Says whether the cookie of those that remain outlives the browser's window.
pub(in crate::web) async fn end(
    visit: &mut Visit,
    live: Vec<SignedIn>,
    app: Option<&ClientId>,
    is_meant: impl Fn(&SignedIn) -> bool,
) -> Result<bool, Fault> {
    visit.browser.keep_only(&live);
    let (ended, kept): (Vec<_>, Vec<_>) = live.into_iter().partition(is_meant);
    let sessions: Vec<_> = ended.iter().map(|other| other.session.clone()).collect();
    let (now, trail) = (visit.now, visit.trail());
    if let Some(first) = ended.first() {
        about_user(&visit.request, &first.user.id);
    }
    let app = app.map(|id| id.as_str().to_owned());
    if !sessions.is_empty() {
        visit
            .state
            .store
            .write(move |tx| {
                for session in &sessions {
                    if sessions::end(tx, &session.id, now)? {
                        let mut event = Event::by_user(Kind::SessionEnded, &session.user_id)
                            .noting("session", session.id.as_str());
                        event.client_id.clone_from(&app);
                        audit_events::record(tx, &trail, &event)?;
                    }
                    grants::revoke_session(tx, &session.id, now)?;
                }
                Ok(())
            })
            .await?;
    }
    for other in &ended {
        about_user(&visit.request, &other.user.id);
        tracing::info!(session_id = %other.session.id, "signed out");
        visit.browser.signed_out(&other.token);
    }
    Ok(kept.iter().any(|other| other.session.remembered))
}

/// Asks whether to sign out, and whom.
pub(in crate::web) async fn show(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    visit::show(&request, &state, try_show).await
}

async fn try_show(visit: &mut Visit) -> Result<HttpResponse, Fault> {
    let parameters = form::query(&visit.request).unwrap_or_default();
    let (ticket, departure) = match open(visit, parameters.get("ticket")).await? {
        Ok(opened) => opened,
        Err(response) => return Ok(response),
    };
    let live = visit.signed_in().await?;
    if live.is_empty() {
        return Ok(departure.leave(visit));
    }
    let csrf = visit.form_token(&step(&ticket));
    let base = visit.state.base();
    let client = departure.client.as_ref();
    let mut frame = visit.page();
    frame.policy = client.and_then(|client| client.policy_uri.clone());
    frame.terms = client.and_then(|client| client.tos_uri.clone());
    let page = SignOut {
        page: frame,
        app: client.map(|client| AppFace::new(client.display_name(), "")),
        action: format!("{base}{CONFIRM}"),
        csrf,
        ticket: ticket.seal(&visit.state, QUESTION),
        accounts: live.iter().map(choosable).collect(),
        chosen: departure.likely(visit, &live).await?,
        stay_href: client
            .and_then(|client| client.client_uri.clone())
            .unwrap_or_else(|| format!("{base}/")),
        note: departure
            .is_anonymous()
            .then(|| "post_logout_redirect_uri needs id_token_hint or client_id".to_owned()),
    };
    // Only an answer that leads to the app needs a policy that lets it.
    let kind = if departure.redirect.is_some() {
        PageKind::Transaction
    } else {
        PageKind::Own
    };
    Ok(visit.form_page(StatusCode::OK, &page, kind))
}

/// Takes the answer.
pub(in crate::web) async fn submit(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<AppState>,
) -> HttpResponse {
    visit::take_form(&request, payload, &state, try_submit).await
}

async fn try_submit(visit: &mut Visit, parameters: &Parameters) -> Result<HttpResponse, Fault> {
    let (ticket, departure) = match open(visit, parameters.get("ticket")).await? {
        Ok(opened) => opened,
        Err(response) => return Ok(response),
    };
    let is_ours = visit.is_our_form(&step(&ticket), parameters);
    let (true, Some(account)) = (is_ours, parameters.get("account")) else {
        return Ok(departure.ask(visit));
    };
    let live = visit.signed_in().await?;
    let is_meant = |other: &SignedIn| account == EVERYBODY || account == other.session.id;
    departure.end(visit, live, is_meant).await
}

/// The ticket and its request, or the answer that says why there is none.
async fn open(
    visit: &mut Visit,
    sealed: Option<&str>,
) -> Result<Result<(Ticket, Departure), HttpResponse>, Fault> {
    let Some(ticket) = Ticket::open(visit, sealed, QUESTION) else {
        return Ok(Err(error::forgery(visit, StatusCode::BAD_REQUEST)));
    };
    if !ticket.is_good(visit) {
        return Ok(Err(see_other(&ticket.restart(&visit.state))));
    }
    let parameters = ticket.parameters()?;
    Ok(Departure::judge(visit, &parameters)
        .await?
        .map(|departure| (ticket, departure)))
}

fn step(ticket: &Ticket) -> String {
    format!("end-session.{}", ticket.id)
}

/// To the last page. It is told who asked, so that it can lead back there.
pub(in crate::web) fn done(visit: &mut Visit, client: Option<&Client>) -> HttpResponse {
    let query = client.map_or_else(String::new, |client| {
        format!("client_id={}", client.client_id)
    });
    let parameters = Parameters::parse(query.as_bytes()).unwrap_or_default();
    let sealed = Ticket::new(visit, &parameters).seal(&visit.state, DONE);
    let base = visit.state.base();
    let mut response = see_other(&format!("{base}{SIGNED_OUT}?ticket={sealed}"));
    browser::remember_browser(&mut response, &visit.state, &mut visit.browser);
    response
}

/// Says that somebody is signed out, and leads on.
pub(in crate::web) async fn show_done(
    request: HttpRequest,
    state: web::Data<AppState>,
) -> HttpResponse {
    visit::show(&request, &state, try_show_done).await
}

async fn try_show_done(visit: &mut Visit) -> Result<HttpResponse, Fault> {
    let parameters = form::query(&visit.request).unwrap_or_default();
    let ticket =
        Ticket::open(visit, parameters.get("ticket"), DONE).filter(|ticket| ticket.is_good(visit));
    let live = visit.signed_in().await?;
    let base = visit.state.base();
    if ticket.is_none() && !live.is_empty() {
        // Opened by hand: our first page says who is signed in.
        return Ok(see_other(&format!("{base}/")));
    }
    let client = match &ticket {
        Some(ticket) => match ticket.parameters()?.get("client_id") {
            Some(id) => {
                visit
                    .state
                    .clients
                    .client(&ClientId::from_request(id))
                    .await?
            }
            None => None,
        },
        None => None,
    };
    let texts = visit.texts();
    let back = client.as_ref().and_then(|client| {
        Some(Link {
            label: texts.with("error-back-to-app", "app", client.display_name()),
            href: client.client_uri.clone()?,
        })
    });
    let next = back.unwrap_or_else(|| {
        let (label, path) = if live.is_empty() {
            ("sign-in-title", "/login")
        } else {
            ("continue", "/")
        };
        Link {
            label: texts.get(label),
            href: format!("{base}{path}"),
        }
    });
    let page = SignedOut {
        page: visit.page(),
        others_remain: !live.is_empty(),
        next,
    };
    let mut response = html(StatusCode::OK, &page, PageKind::Own);
    visit.keep_language(&mut response);
    Ok(response)
}
