//! The consent page: what the app would learn, with the values, and Allow and Cancel of equal size.
//! OpenID Connect Core §3.1.2.4; OWASP ASVS 5.0 §10.7.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Map, Value};

use super::transaction::Transaction;
use crate::audit::{Event, Kind};
use crate::protocol::interaction::{Consent as Allowed, Step};
use crate::protocol::known_scopes::KnownScopes;
use crate::protocol::parameters::Parameters;
use crate::protocol::scope;
use crate::store::{audit_events, consents};
use crate::web::error::Fault;
use crate::web::extract::browser::SignedIn;
use crate::web::extract::form;
use crate::web::pages::{AccountFace, Consent, ConsentRow};
use crate::web::security_headers::PageKind;
use crate::web::state::AppState;
use crate::web::texts::Texts;
use crate::web::visit::{self, Visit};

/// Asks the person.
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
    // Only where the policy is at this page: who comes here by hand goes where it is.
    let (step, current) = transaction.step(visit, &signed_in, false).await?;
    let (Step::Consent, Some(current)) = (step, current) else {
        return transaction.advance(visit, &signed_in).await;
    };
    let earlier = earlier_consent(visit, &transaction, &current.user.id).await?;
    let browser_id = visit.browser.id_or_new();
    let page = Consent {
        page: transaction.page(visit),
        app: transaction.face(),
        action: format!("{}/consent", visit.state.base()),
        ticket: transaction.ticket.seal(&visit.state, &browser_id),
        csrf: visit.form_token(&form_of(&transaction, &current)),
        account: AccountFace::new(current.user.name(), &current.user.email),
        rows: rows(
            &transaction,
            &current.user.all_claims(),
            earlier.as_ref(),
            visit.texts(),
        ),
        vouched: true,
    };
    Ok(visit.form_page(StatusCode::OK, &page, PageKind::Transaction))
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
    let mut transaction = match Transaction::resume(visit, parameters.get("ticket")).await? {
        Ok(transaction) => transaction,
        Err(response) => return Ok(response),
    };
    let signed_in = visit.signed_in().await?;
    let Some(current) = transaction.current(visit, &signed_in).cloned() else {
        return Ok(transaction.show(visit, "/login"));
    };
    // Bound to the sign-in as well: an answer that was meant for another account, or another request, is asked again.
    if !visit.is_our_form(&form_of(&transaction, &current), parameters) {
        return Ok(transaction.show(visit, "/consent"));
    }
    match parameters.get("action") {
        Some("allow") => transaction.allow(visit, &signed_in).await,
        Some("switch") => {
            transaction.ticket.account = None;
            Ok(if signed_in.len() > 1 {
                transaction.show(visit, "/select-account")
            } else {
                transaction.show_login_of_another(visit)
            })
        }
        Some("deny" | "cancel") => {
            write_down_refusal(visit, &transaction, &current).await?;
            Ok(transaction.cancel(visit))
        }
        _ => Ok(transaction.show(visit, "/consent")),
    }
}

async fn write_down_refusal(
    visit: &Visit,
    transaction: &Transaction,
    current: &SignedIn,
) -> Result<(), Fault> {
    let event = Event::by_user(Kind::ConsentRefused, &current.user.id)
        .client(transaction.client.client_id.as_str())
        .noting("scope", transaction.request.scope.to_string());
    let trail = visit.trail();
    let recorded = visit
        .state
        .store
        .write(move |tx| audit_events::record(tx, &trail, &event));
    Ok(recorded.await?)
}

async fn earlier_consent(
    visit: &Visit,
    transaction: &Transaction,
    user_id: &str,
) -> Result<Option<Allowed>, Fault> {
    let (user_id, client_id) = (user_id.to_owned(), transaction.client.client_id.clone());
    Ok(visit
        .state
        .store
        .read(move |conn| consents::find(conn, &user_id, &client_id))
        .await?)
}

fn form_of(transaction: &Transaction, current: &SignedIn) -> String {
    format!("consent.{}.{}", transaction.ticket.id, current.session.id)
}

/// A row for each scope, and one for each claim that no scope of the request brings.
fn rows(
    transaction: &Transaction,
    person: &Map<String, Value>,
    earlier: Option<&Allowed>,
    texts: &Texts,
) -> Vec<ConsentRow> {
    let (request, known) = (&transaction.request, &transaction.scopes);
    let mut rows = Vec::new();
    // Name and e-mail first, then what is less usual.
    let with_claims: Vec<_> = known
        .with_claims()
        .filter(|scope| request.scope.contains(scope))
        .collect();
    let others = request
        .scope
        .iter()
        .filter(|token| *token != scope::OPENID && !with_claims.contains(token));
    for token in with_claims.iter().copied().chain(others) {
        let mut row = ConsentRow::for_scope(token, known.description_of(token), texts);
        row.value = value_of_scope(known, token, person);
        row.new = earlier.is_some_and(|earlier| !earlier.scope.contains(token));
        rows.push(row);
    }
    let brought = |claim: &str| {
        with_claims
            .iter()
            .any(|scope| known.claims_of(scope).any(|brought| brought == claim))
    };
    for claim in request
        .claims
        .about_the_person()
        .into_iter()
        .filter(|claim| !brought(claim))
    {
        let mut row = ConsentRow::for_claim(claim, texts);
        row.value = person.get(claim).and_then(shown);
        row.new = earlier.is_some_and(|earlier| !earlier.claims.iter().any(|known| known == claim));
        rows.push(row);
    }
    rows
}

fn value_of_scope(known: &KnownScopes, scope: &str, person: &Map<String, Value>) -> Option<String> {
    let told = |name: &&str| {
        !matches!(
            *name,
            "email_verified" | "phone_number_verified" | "updated_at"
        )
    };
    let values: Vec<_> = known
        .claims_of(scope)
        .filter(told)
        .filter_map(|name| person.get(name).and_then(shown))
        .collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn shown(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(values) => Some(
            values
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(", "),
        )
        .filter(|text| !text.is_empty()),
        Value::Object(members) => {
            let formatted = members
                .get("formatted")
                .and_then(Value::as_str)
                .map(str::to_owned);
            Some(formatted.unwrap_or_else(|| {
                members
                    .values()
                    .filter_map(Value::as_str)
                    .collect::<Vec<_>>()
                    .join(", ")
            }))
        }
        Value::Bool(_) | Value::Number(_) | Value::Null => None,
    }
}
