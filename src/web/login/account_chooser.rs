//! The account chooser (`prompt=select_account`). OpenID Connect Core §3.1.2.1.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use super::transaction::Transaction;
use crate::protocol::parameters::Parameters;
use crate::web::error::Fault;
use crate::web::extract::browser::SignedIn;
use crate::web::extract::form;
use crate::web::pages::{AccountChooser, AccountFace, ChoosableAccount};
use crate::web::security_headers::PageKind;
use crate::web::state::AppState;
use crate::web::visit::{self, Visit};

/// Shows the accounts that are signed in here.
pub(in crate::web) async fn show(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    visit::show(&request, &state, try_show).await
}

async fn try_show(visit: &mut Visit) -> Result<HttpResponse, Fault> {
    let parameters = form::query(&visit.request).unwrap_or_default();
    let transaction = match Transaction::resume(visit, parameters.get("ticket")).await? {
        Ok(transaction) => transaction,
        Err(response) => return Ok(response),
    };
    let signed_in = visit.signed_in().await?;
    if signed_in.is_empty() {
        return Ok(transaction.show(visit, "/login"));
    }
    let browser_id = visit.browser.id_or_new();
    let page = AccountChooser {
        page: transaction.page(visit),
        app: Some(transaction.face()),
        action: format!("{}/select-account", visit.state.base()),
        ticket: transaction.ticket.seal(&visit.state, &browser_id),
        csrf: visit.form_token(&step(&transaction)),
        accounts: signed_in.iter().map(choosable).collect(),
    };
    Ok(visit.form_page(StatusCode::OK, &page, PageKind::Transaction))
}

/// Takes the choice.
pub(in crate::web) async fn submit(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<AppState>,
) -> HttpResponse {
    visit::take_form(&request, payload, &state, try_submit).await
}

async fn try_submit(visit: &mut Visit, parameters: &Parameters) -> Result<HttpResponse, Fault> {
    let mut transaction = match Transaction::resume(visit, parameters.get("ticket")).await? {
        Ok(transaction) => transaction,
        Err(response) => return Ok(response),
    };
    if !visit.is_our_form(&step(&transaction), parameters) {
        return Ok(transaction.show(visit, "/select-account"));
    }
    if parameters.get("action") == Some("cancel") {
        return Ok(transaction.cancel(visit));
    }
    let signed_in = visit.signed_in().await?;
    match parameters.get("account") {
        Some(chosen) if signed_in.iter().any(|other| other.session.id == chosen) => {
            transaction.ticket.account = Some(chosen.to_owned());
            transaction.advance(visit, &signed_in).await
        }
        // A sign-in that ended meanwhile, or another account altogether.
        Some(_) => {
            transaction.ticket.account = None;
            Ok(transaction.show_login_of_another(visit))
        }
        None => Ok(transaction.show(visit, "/select-account")),
    }
}

fn step(transaction: &Transaction) -> String {
    format!("select-account.{}", transaction.ticket.id)
}

pub(super) fn choosable(signed_in: &SignedIn) -> ChoosableAccount {
    ChoosableAccount {
        face: AccountFace::new(signed_in.user.name(), &signed_in.user.email),
        session: signed_in.session.id.clone(),
        signed_in: true,
    }
}
