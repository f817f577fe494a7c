//! The steps that every endpoint for clients shares: read the form, refuse duplicates, authenticate the client, answer.
//! RFC 6749 §2.3, §3.2, §5.2.

use std::sync::Arc;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use tracing::Instrument as _;

use super::client_ip::client_ip;
use super::form;
use super::trail::trail;
use crate::audit::{Event, Kind, Trail};
use crate::causes::with_causes;
use crate::identity::throttle::{self, Bucket, Limit};
use crate::metrics;
use crate::protocol::client::{Client, ClientId};
use crate::protocol::client_assertion;
use crate::protocol::client_authentication::{self, Credentials};
use crate::protocol::error::{OAuthError, invalid_client, invalid_request};
use crate::protocol::parameters::Parameters;
use crate::protocol::time::Timestamp;
use crate::store::{audit_events, client_assertions, client_secrets, throttles};
use crate::web::address_limit;
use crate::web::error::{self, Fault};
use crate::web::oidc::cors;
use crate::web::request_log::about_client;
use crate::web::routes;
use crate::web::state::AppState;

/// Serves an authenticated client. A refusal is JSON whatever `Accept` says, and the client's own pages may read both.
pub(in crate::web) async fn serve(
    request: &HttpRequest,
    payload: web::Payload,
    state: &AppState,
    handle: impl AsyncFnOnce(
        &Parameters,
        &Arc<Client>,
    ) -> Result<Result<HttpResponse, OAuthError>, Fault>,
) -> HttpResponse {
    let parameters = match form::body(request, payload).await {
        Ok(parameters) => parameters,
        Err(refused) => {
            let mut response = if address_limit::is_exceeded(request) {
                address_limit::refusal_json(request)
            } else {
                let refusal = invalid_request(refused.description());
                error::json_with(error::status_of(refused), &refusal)
            };
            cors::allow_client(request, &mut response, None);
            return response;
        }
    };
    let used_basic = request.headers().contains_key(header::AUTHORIZATION);
    let authenticated = match check_shape(request, &parameters) {
        Ok(()) => authenticate(request, state, &parameters).await,
        Err(refusal) => {
            let named = named(request, state, &parameters).await;
            Ok(Err((named, refusal.into())))
        }
    };
    let (client, result) = match authenticated {
        Ok(outcome) if address_limit::is_exceeded(request) && !is_proved(&outcome) => {
            let client = outcome.map_or_else(|(named, _)| named, Some);
            (client, Ok(Ok(address_limit::refusal_json(request))))
        }
        Ok(Ok(client)) => {
            let result = handle(&parameters, &client).await;
            (Some(client), result)
        }
        Ok(Err((named, Refused::Refusal(refusal)))) => (named, Ok(Err(refusal))),
        Ok(Err((named, Refused::Slowed { until }))) => {
            tracing::info!("authentication of a client slowed after too many failures");
            state.metrics.throttled(metrics::Bucket::Client);
            let wait = until.since(state.clock.now());
            (named, Ok(Ok(error::slowed_json(wait))))
        }
        Err(fault) => (None, Err(fault)),
    };
    let mut response = match result {
        Ok(Ok(response)) => response,
        Ok(Err(refusal)) => {
            tracing::info!(
                error = refusal.code.as_str(),
                reason = refusal.description(),
                "request of a client refused"
            );
            error::oauth_json(&refusal, used_basic)
        }
        Err(fault) => error::fault_json(&fault),
    };
    cors::allow_client(request, &mut response, client.as_deref());
    response
}

/// Whether somebody showed that they are this client; a public client is whoever says so.
fn is_proved(authenticated: &Authenticated) -> bool {
    authenticated
        .as_ref()
        .is_ok_and(|client| !client.is_public())
}

fn check_shape(request: &HttpRequest, parameters: &Parameters) -> Result<(), OAuthError> {
    if !request.query_string().is_empty() {
        return Err(invalid_request("parameters belong into the body"));
    }
    if let Some(name) = parameters.repeated() {
        return Err(invalid_request(format!(
            "{} was sent more than once",
            name.chars().take(40).collect::<String>()
        )));
    }
    Ok(())
}

/// The client that a refused request names: its pages may read why. Only that depends on it, so a fault is no matter.
async fn named(
    request: &HttpRequest,
    state: &AppState,
    parameters: &Parameters,
) -> Option<Arc<Client>> {
    let id = ClientId::from_request(parameters.get("client_id")?);
    let known = state.clients.find(&id).await.ok().flatten()?;
    about_client(request, &id);
    Some(known.client.clone())
}

/// The client, or why not; a client that was only named is told too, for the sake of its pages' CORS.
type Authenticated = Result<Arc<Client>, (Option<Arc<Client>>, Refused)>;

enum Refused {
    Refusal(OAuthError),
    /// Too many wrong secrets came from this address.
    Slowed {
        until: Timestamp,
    },
}

impl From<OAuthError> for Refused {
    fn from(refusal: OAuthError) -> Self {
        Self::Refusal(refusal)
    }
}

async fn authenticate(
    request: &HttpRequest,
    state: &AppState,
    parameters: &Parameters,
) -> Result<Authenticated, Fault> {
    let mut headers = request.headers().get_all(header::AUTHORIZATION);
    let header = headers
        .next()
        .map(|value| value.to_str().unwrap_or_default());
    if headers.next().is_some() {
        return Ok(Err((
            None,
            invalid_client("the Authorization header was sent more than once").into(),
        )));
    }
    let credentials = match Credentials::parse(header, parameters) {
        Ok(credentials) => credentials,
        Err(refusal) => {
            let named = named(request, state, parameters).await;
            return Ok(Err((named, refusal.into())));
        }
    };
    let now = state.clock.now();
    // Only who sends a secret can guess one, and only where an address is known can guessers be told from the client.
    let counter = client_ip(request, &state.config.trusted_proxies)
        .filter(|_| credentials.secret.is_some())
        .map(|address| {
            let limits = state.throttle_limits();
            throttle::of_client(&state.root, &limits, &credentials.client_id, address)
        });
    let known = state.clients.find(&credentials.client_id).await?;
    let (client, secrets) = match known.as_deref() {
        Some(known) => {
            about_client(request, &credentials.client_id);
            (Some(known.client.clone()), known.secrets.as_slice())
        }
        None => (None, &[][..]),
    };
    if state.guessing.is_seen()
        && let Some((bucket, limit)) = counter.clone()
        && let Some(until) = state
            .store
            .read(move |conn| throttles::full_until(conn, &bucket, limit, now))
            .await?
    {
        return Ok(Err((client, Refused::Slowed { until })));
    }
    if let (Some(client), Some(assertion)) = (&client, &credentials.assertion) {
        let used = use_assertion(state, client, assertion, now).await?;
        return Ok(match used {
            Ok(()) => Ok(client.clone()),
            Err(refusal) => {
                write_down(request, state, client, &refusal, now).await?;
                Err((Some(client.clone()), refusal.into()))
            }
        });
    }
    let proof = match client_authentication::check(&credentials, client.as_deref(), secrets, now) {
        Ok(proof) => proof,
        Err(refusal) => {
            let guess = client_authentication::is_guess(&credentials, client.as_deref(), secrets);
            let refused = match counter.filter(|_| guess) {
                Some(counter) => {
                    let id = &credentials.client_id;
                    count(state, counter, trail(request, state, now), id).await?
                }
                None => None,
            };
            return Ok(Err((client, refused.unwrap_or(refusal.into()))));
        }
    };
    if let Some(secret) = proof.filter(|secret| secret.should_note_use(now)) {
        note_use(state, &credentials.client_id, &secret.id, now);
    }
    match client {
        Some(client) => Ok(Ok(client)),
        None => unreachable!("a client that is not there can't be authenticated"),
    }
}

/// A good assertion is good once, also for requests that fail later on.
async fn use_assertion(
    state: &AppState,
    client: &Client,
    assertion: &str,
    now: Timestamp,
) -> Result<Result<(), OAuthError>, Fault> {
    let audiences = [state.issuer(), &state.url(routes::TOKEN)];
    let assertion = match client_assertion::check(assertion, client, audiences, now) {
        Ok(assertion) => assertion,
        Err(refusal) => return Ok(Err(refusal)),
    };
    // Whether it was used in the timeline that was left, nobody knows any more.
    let is_old = |epoch| assertion.issued_at.is_none_or(|at| at <= epoch);
    let oldest_possible = now.minus(client_assertion::OVER_AFTER);
    if state
        .epoch
        .load(now)
        .is_some_and(|epoch| oldest_possible < epoch && is_old(epoch))
    {
        return Ok(Err(invalid_client(
            "the assertion is older than the database, which was restored",
        )));
    }
    let is_first = state
        .store
        .write(move |tx| client_assertions::claim(tx, &assertion))
        .await?;
    Ok(if is_first {
        Ok(())
    } else {
        Err(invalid_client("the assertion was used before"))
    })
}

/// Writes down that an assertion was refused: of one client and network, each reason once in a window, since anybody can
/// send assertions and nobody is slowed for it.
async fn write_down(
    request: &HttpRequest,
    state: &AppState,
    client: &Client,
    refusal: &OAuthError,
    now: Timestamp,
) -> Result<(), Fault> {
    let window = state.config.throttle.window.as_secs().max(1);
    let since = now
        .seconds()
        .div_euclid(i64::try_from(window).unwrap_or(i64::MAX));
    let network = client_ip(request, &state.config.trusted_proxies).map(throttle::network);
    let (id, reason) = (&client.client_id, refusal.description());
    let occasion = format!("{id}\0{}\0{reason}\0{since}", network.unwrap_or_default());
    let trail = trail(request, state, now);
    let failed = Event::of_client(Kind::ClientAuthenticationFailed, id).noting("reason", reason);
    let recorded = state
        .store
        .write(move |tx| audit_events::record_once(tx, &trail, &failed, occasion.as_bytes()));
    Ok(recorded.await?)
}

/// Counts a wrong secret. It is counted afterwards, since a right one is to cost no write: parallel guesses are all looked
/// at, but no more of them than the limit are told that they were wrong.
async fn count(
    state: &AppState,
    (bucket, limit): (Bucket, Limit),
    trail: Trail,
    client: &ClientId,
) -> Result<Option<Refused>, Fault> {
    let failed = Event::of_client(Kind::ClientAuthenticationFailed, client);
    let failed = failed.noting("reason", "wrong_secret");
    let throttled = Event::of_client(Kind::ClientThrottled, client);
    let counted = state
        .store
        .write(move |tx| {
            let counted = throttles::count(tx, &bucket, limit, trail.now)?;
            if counted.is_ok() {
                audit_events::record(tx, &trail, &failed)?;
            }
            // From now on nothing is written for those that are slowed.
            if let Some(until) = throttles::full_until(tx, &bucket, limit, trail.now)? {
                let occasion = throttle::occasion(&bucket, until);
                audit_events::record_once(tx, &trail, &throttled, &occasion)?;
            }
            Ok(counted)
        })
        .await?;
    state.guessing.note();
    Ok(counted.err().map(|until| Refused::Slowed { until }))
}

/// Nobody waits for it: a request that only reads must not depend on whether the database can be written.
fn note_use(state: &AppState, client: &ClientId, secret_id: &str, now: Timestamp) {
    let id = secret_id.to_owned();
    let (clients, client) = (state.clients.clone(), client.clone());
    let noted = state
        .store
        .write(move |tx| client_secrets::note_use(tx, &id, now));
    let noting = async move {
        if let Err(error) = noted.await {
            let error = with_causes(&error);
            tracing::warn!(error, "the use of a client's secret was not noted");
        }
        clients.forget(&client);
    };
    actix_web::rt::spawn(noting.in_current_span());
}
