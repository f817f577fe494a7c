//! The authorization endpoint. RFC 6749 §3.1; OpenID Connect Core §3.1.2.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use crate::protocol::error::ErrorCode;
use crate::protocol::parameters::{Malformed, Parameters};
use crate::web::error::{self, About, Fault};
use crate::web::extract::form;
use crate::web::login::transaction::{LONGEST_REQUEST, Transaction};
use crate::web::pages::{Compared, Detail, ErrorKind};
use crate::web::state::AppState;
use crate::web::visit::{Visit, see_other};

/// A request in the query. It needs no token of ours: anyone may send a person here, and nothing is written.
pub(in crate::web) async fn get(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    let mut visit = Visit::new(&request, &state);
    let result = match form::query(&request) {
        Ok(parameters) => begin(&mut visit, &parameters).await,
        Err(malformed) => Ok(refuse(&visit, malformed)),
    };
    error::or_fault_page(&visit, result)
}

async fn begin(visit: &mut Visit, parameters: &Parameters) -> Result<HttpResponse, Fault> {
    let transaction = match Transaction::begin(visit, parameters).await? {
        Ok(transaction) => transaction,
        Err(response) => return Ok(response),
    };
    let signed_in = visit.signed_in().await?;
    transaction.advance(visit, &signed_in).await
}

/// The same in a form. It comes from the app's site, so our `SameSite=Lax` cookies are not with it: the 303 fetches them.
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
    if both.len() > LONGEST_REQUEST {
        return error::page(
            &visit,
            StatusCode::BAD_REQUEST,
            ErrorKind::Request,
            reason(&visit, "the request is longer than 8000 characters"),
        );
    }
    match Parameters::parse(both.as_bytes()) {
        Ok(parameters) => see_other(&format!(
            "{}/authorize?{}",
            state.base(),
            parameters.to_query()
        )),
        Err(malformed) => refuse(&visit, malformed),
    }
}

fn refuse(visit: &Visit, malformed: Malformed) -> HttpResponse {
    error::page(
        visit,
        StatusCode::BAD_REQUEST,
        ErrorKind::Request,
        reason(visit, malformed.description()),
    )
}

fn reason(visit: &Visit, text: &str) -> About {
    let detail = Detail {
        label: visit.texts().get("error-detail-reason"),
        value: Compared::plain(text),
    };
    About {
        code: Some(ErrorCode::InvalidRequest),
        details: vec![detail],
        action: None,
    }
}
