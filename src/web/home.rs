//! Our own first page: who is signed in here, and the way out.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use super::error::{self, Fault};
use super::extract::browser;
use super::login::sign_out;
use super::pages::{AccountFace, Home, SignedIn as Shown};
use super::security_headers::PageKind;
use super::state::AppState;
use super::visit::{self, Visit, see_other};
use crate::protocol::parameters::Parameters;

const STEP: &str = "sign-out";

/// Shows who is signed in; nobody is as good an answer.
pub(super) async fn show(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    visit::show(&request, &state, try_show).await
}

async fn try_show(visit: &mut Visit) -> Result<HttpResponse, Fault> {
    let signed_in = visit.signed_in().await?;
    let csrf = visit.form_token(STEP);
    let texts = visit.texts();
    let base = visit.state.base();
    let accounts = signed_in
        .iter()
        .map(|other| Shown {
            face: AccountFace::new(other.user.name(), &other.user.email),
            since: texts.moment(other.session.auth_time),
            session: other.session.id.clone(),
        })
        .collect();
    let page = Home {
        page: visit.page(),
        accounts,
        csrf,
        sign_in_href: format!("{base}/login"),
        sign_out_action: format!("{base}/sign-out"),
        test_app_href: visit
            .state
            .config
            .development
            .then(|| format!("{base}/dev/app")),
    };
    Ok(visit.form_page(StatusCode::OK, &page, PageKind::Own))
}

/// Ends one sign-in on the server, with everything that was issued in it.
pub(super) async fn sign_out(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<AppState>,
) -> HttpResponse {
    visit::take_form(&request, payload, &state, try_sign_out).await
}

async fn try_sign_out(visit: &mut Visit, parameters: &Parameters) -> Result<HttpResponse, Fault> {
    if !visit.is_our_form(STEP, parameters) {
        return Ok(error::forgery(visit, StatusCode::FORBIDDEN));
    }
    let meant = parameters.get("session").unwrap_or_default();
    let live = visit.signed_in().await?;
    let remembered = sign_out::end(visit, live, None, |other| other.session.id == meant).await?;
    let mut response = see_other(&format!("{}/", visit.state.base()));
    browser::remember_sign_ins(&mut response, &visit.state, &mut visit.browser, remembered);
    Ok(response)
}
