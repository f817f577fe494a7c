//! The sign-in page. NIST SP 800-63B §3.2.2; OWASP ASVS 5.0 §6.3.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};

use super::transaction::{Opened, Transaction};
use crate::audit::{Event, Kind};
use crate::hashing::Place;
use crate::identity::email::canonical_login;
use crate::identity::password::{self, Password};
use crate::identity::session::{MOST_OF_A_PERSON, Session};
use crate::identity::throttle::{self, Bucket, Limit};
use crate::identity::user::User;
use crate::metrics::{self, LoginResult};
use crate::protocol::acr;
use crate::protocol::client::ClientId;
use crate::protocol::parameters::Parameters;
use crate::protocol::seal::TokenHash;
use crate::protocol::time::Timestamp;
use crate::random;
use crate::store::{AnyConnection, StoreError, audit_events, grants, sessions, throttles, users};
use crate::web::error::{self, Fault};
use crate::web::extract::browser::{self, SignedIn};
use crate::web::extract::client_ip::client_ip;
use crate::web::extract::form;
use crate::web::pages::{AccountFace, SignIn, SignInProblem};
use crate::web::request_log::about_user;
use crate::web::security_headers::PageKind;
use crate::web::state::AppState;
use crate::web::visit::{self, Visit, see_other};

/// Where a sign-in leads: back to an app's request, or to our own first page.
enum Purpose {
    App(Box<Transaction>),
    Home,
}

impl Purpose {
    /// What the form's token is bound to.
    fn step(&self) -> String {
        match self {
            Self::App(transaction) => format!("login.{}", transaction.ticket.id),
            Self::Home => "login".to_owned(),
        }
    }
}

/// Shows the form.
pub(in crate::web) async fn show(request: HttpRequest, state: web::Data<AppState>) -> HttpResponse {
    visit::show(&request, &state, try_show).await
}

async fn try_show(visit: &mut Visit) -> Result<HttpResponse, Fault> {
    let parameters = form::query(&visit.request).unwrap_or_default();
    let purpose = match parameters.get("ticket") {
        None => Purpose::Home,
        sealed => match Transaction::resume(visit, sealed).await? {
            Ok(transaction) => Purpose::App(transaction),
            Err(response) => return Ok(response),
        },
    };
    let signed_in = visit.signed_in().await?;
    let account = match &purpose {
        Purpose::App(transaction) => transaction
            .current(visit, &signed_in)
            .filter(|current| !transaction.was_proved_by(&current.session)),
        Purpose::Home => None,
    };
    // Who is signed in and still sees this page has to prove it again, unless another account is wanted.
    let again = account.filter(|_| parameters.get("other").is_none());
    let login = match &purpose {
        Purpose::App(transaction) if again.is_none() => {
            transaction.request.login_hint.clone().unwrap_or_default()
        }
        _ => again
            .map(|current| current.user.email.clone())
            .unwrap_or_default(),
    };
    let problem = again.map(|_| SignInProblem::SignInAgain);
    let face = again.map(face_of);
    Ok(page(
        visit,
        &purpose,
        Answer {
            status: StatusCode::OK,
            problem,
            login,
            account: face,
            remember: false,
        },
    ))
}

/// Takes the form.
pub(in crate::web) async fn submit(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<AppState>,
) -> HttpResponse {
    visit::take_form(&request, payload, &state, try_submit).await
}

async fn try_submit(visit: &mut Visit, parameters: &Parameters) -> Result<HttpResponse, Fault> {
    let login = parameters.get("login").unwrap_or_default().to_owned();
    let remember = parameters.get("remember").is_some();
    let refuse = |problem, status| Answer {
        status,
        problem: Some(problem),
        login: login.clone(),
        account: None,
        remember,
    };

    let purpose = match parameters.get("ticket") {
        None => Purpose::Home,
        sealed => match Transaction::open(visit, sealed).await? {
            Opened::Valid(transaction) => Purpose::App(transaction),
            Opened::Expired { .. } => {
                return Ok(match Transaction::renewed(visit, sealed).await? {
                    Ok(fresh) => page(
                        visit,
                        &Purpose::App(Box::new(fresh)),
                        refuse(SignInProblem::Expired, StatusCode::BAD_REQUEST),
                    ),
                    Err(response) => response,
                });
            }
            Opened::Unusable(response) => return Ok(response),
        },
    };
    if !visit.is_our_form(&purpose.step(), parameters) {
        return Ok(page(
            visit,
            &purpose,
            refuse(SignInProblem::Expired, StatusCode::BAD_REQUEST),
        ));
    }
    if let (Some("cancel"), Purpose::App(transaction)) = (parameters.get("action"), &purpose) {
        return Ok(transaction.cancel(visit));
    }
    if login.trim().is_empty() {
        return Ok(page(
            visit,
            &purpose,
            refuse(SignInProblem::MissingLogin, StatusCode::BAD_REQUEST),
        ));
    }
    let Some(typed) = parameters.get("password") else {
        return Ok(page(
            visit,
            &purpose,
            refuse(SignInProblem::MissingPassword, StatusCode::BAD_REQUEST),
        ));
    };
    let wish = Wish::of(&purpose, remember);
    match prove(visit, &login, typed, wish).await? {
        Attempt::SignedIn(signed_in) => welcome(visit, purpose, *signed_in).await,
        Attempt::Mismatch => Ok(page(
            visit,
            &purpose,
            refuse(SignInProblem::Mismatch, StatusCode::BAD_REQUEST),
        )),
        Attempt::Slowed { until } => {
            let seconds = until.since(visit.now).as_secs().max(1);
            let problem = SignInProblem::Slowed {
                minutes: seconds.div_ceil(60),
            };
            let mut response = page(
                visit,
                &purpose,
                refuse(problem, StatusCode::TOO_MANY_REQUESTS),
            );
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            Ok(response)
        }
        Attempt::Busy => {
            let mut response = page(
                visit,
                &purpose,
                refuse(SignInProblem::Busy, StatusCode::SERVICE_UNAVAILABLE),
            );
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            Ok(response)
        }
    }
}

/// What a sign-in is to be good for.
struct Wish {
    /// The pending request that it answers, and the app that sent it.
    proved_for: Option<String>,
    client_id: Option<ClientId>,
    remember: bool,
}

impl Wish {
    fn of(purpose: &Purpose, remember: bool) -> Self {
        let (proved_for, client_id) = match purpose {
            Purpose::App(transaction) => (
                Some(transaction.ticket.id.clone()),
                Some(transaction.client.client_id.clone()),
            ),
            Purpose::Home => (None, None),
        };
        Self {
            proved_for,
            client_id,
            remember,
        }
    }

    fn event(&self, kind: Kind) -> Event {
        let event = Event::new(kind).noting("method", acr::PASSWORD);
        match &self.client_id {
            Some(client_id) => event.client(client_id.as_str()),
            None => event,
        }
    }
}

/// How an attempt ended.
enum Attempt {
    SignedIn(Box<SignedIn>),
    /// One answer for an unknown account, a wrong password and a switched-off account.
    Mismatch,
    Slowed {
        until: Timestamp,
    },
    Busy,
}

/// Counts, verifies, and only then takes the count back: parallel guesses can't slip past the counter.
async fn prove(visit: &mut Visit, login: &str, typed: &str, wish: Wish) -> Result<Attempt, Fault> {
    let state = visit.state.clone();
    let now = visit.now;
    // Before anything is read or written: when more people come than there are cores for, refusing must cost nothing.
    let Ok(place) = state.hashing.reserve() else {
        state.metrics.login(LoginResult::Busy);
        return Ok(Attempt::Busy);
    };
    let key = canonical_login(login);
    let user = {
        let key = key.clone();
        state
            .store
            .read(move |conn| users::find_by_email(conn, &key))
            .await?
    };
    if let Some(user) = &user {
        about_user(&visit.request, &user.id);
    }
    let known_browser = user
        .as_ref()
        .and_then(|user| visit.browser.known_for(&user.id))
        .map(str::to_owned);
    let address = client_ip(&visit.request, &state.config.trusted_proxies);
    let limits = state.throttle_limits();
    let buckets = throttle::buckets(
        &state.root,
        &limits,
        &key,
        known_browser.as_deref(),
        address,
    );

    // Nobody's name is written down that was only typed: it may be a password in the wrong field.
    let told = |kind| {
        let event = wish.event(kind);
        match &user {
            Some(user) => event.target(&user.id),
            None => event,
        }
    };
    let trail = visit.trail();
    let counted = {
        let (buckets, trail, throttled) =
            (buckets.clone(), trail.clone(), told(Kind::LoginThrottled));
        let is_known = known_browser.is_some();
        state
            .store
            .write(move |tx| {
                let counted = count(tx, &buckets, now)?;
                if let Err((full, until)) = &counted {
                    let occasion = throttle::occasion(full, *until);
                    let which = which_is_full(is_known, &buckets, full).as_str();
                    let throttled = throttled.clone().noting("bucket", which);
                    audit_events::record_once(tx, &trail, &throttled, &occasion)?;
                }
                Ok(counted)
            })
            .await?
    };
    if let Err((full, until)) = counted {
        let which = which_is_full(known_browser.is_some(), &buckets, &full);
        tracing::info!(
            known_browser = known_browser.is_some(),
            "sign-in slowed after too many failures"
        );
        state.metrics.login(LoginResult::Throttled);
        state.metrics.throttled(which);
        return Ok(Attempt::Slowed { until });
    }
    let verified = verify(&state, place, typed, user.as_ref()).await?;
    let reason = match (&user, &verified) {
        (None, _) => "unknown_account",
        (Some(_), None) => "wrong_password",
        (Some(_), Some(_)) => "disabled",
    };
    let failed = told(Kind::LoginFailed).noting("reason", reason);
    let Some((user, verified)) = user.zip(verified).filter(|(user, _)| !user.disabled) else {
        tracing::info!(reason, "sign-in failed");
        state.metrics.login(LoginResult::Failed);
        state
            .store
            .write(move |tx| audit_events::record(tx, &trail, &failed))
            .await?;
        return Ok(Attempt::Mismatch);
    };
    let opened = open_session(visit, &user, verified, buckets, wish).await?;
    Ok(opened.map_or(Attempt::Mismatch, |signed_in| {
        Attempt::SignedIn(Box::new(signed_in))
    }))
}

fn which_is_full(
    known_browser: bool,
    buckets: &[(Bucket, Limit)],
    full: &Bucket,
) -> metrics::Bucket {
    let is_account = buckets.last().is_some_and(|(bucket, _)| bucket == full);
    match (known_browser, is_account) {
        (true, _) => metrics::Bucket::Browser,
        (false, true) => metrics::Bucket::Account,
        (false, false) => metrics::Bucket::Address,
    }
}

/// A right password; `stronger` replaces a hash that was made with less than today's settings.
struct Verified {
    stronger: Option<String>,
}

/// `None`: no match. An account that doesn't exist costs the same time.
async fn verify(
    state: &AppState,
    place: Place,
    typed: &str,
    user: Option<&User>,
) -> Result<Option<Verified>, Fault> {
    let settings = state.hash_settings;
    let stored = match user.and_then(|user| user.password_hash.clone()) {
        Some(stored) => stored,
        None => password::dummy_hash(&settings)
            .map_err(|_settings| Fault::Other("the hash settings are out of range"))?,
    };
    let Ok(password) = Password::parse(typed) else {
        // Nobody has such a password, and that is no secret.
        return Ok(None);
    };
    let took = state.metrics.password_hash();
    let job = move || {
        let _timer = took.start_timer();
        let verification = password::verify(&password, &stored, &settings)?;
        let stronger = if verification.needs_rehash {
            Some(password::hash(&password, random::bytes(), &settings)?)
        } else {
            None
        };
        Ok::<_, password::HashError>(verification.matches.then_some(Verified { stronger }))
    };
    match place.submit(job).await {
        Ok(Ok(verified)) => Ok(verified),
        Ok(Err(error)) => {
            tracing::error!(%error, "a password could not be verified");
            Err(Fault::Other("a password could not be verified"))
        }
        Err(_panicked) => Err(Fault::Other("a hashing thread failed")),
    }
}

/// Takes the count back and opens the session under a new id; the cookie that the browser came with is worth nothing any more.
async fn open_session(
    visit: &mut Visit,
    user: &User,
    verified: Verified,
    buckets: Vec<(Bucket, Limit)>,
    wish: Wish,
) -> Result<Option<SignedIn>, Fault> {
    let now = visit.now;
    let live = visit.signed_in().await?;
    let earlier = live.iter().find(|other| other.user.id == user.id);
    let token = random::token();
    let mut session = Session {
        id: earlier.map_or_else(random::id, |earlier| earlier.session.id.clone()),
        user_id: user.id.clone(),
        auth_time: now,
        proved_for: wish.proved_for.clone(),
        acr: acr::ONE_FACTOR.to_owned(),
        amr: vec![acr::PASSWORD.to_owned()],
        remembered: wish.remember,
        created_at: earlier.map_or(now, |earlier| earlier.session.created_at),
        last_seen_at: now,
        ended_at: None,
    };
    // For the case that the earlier sign-in is ended in this very moment: then this is one of its own.
    let fresh = Session {
        id: random::id(),
        created_at: now,
        ..session.clone()
    };
    let mut succeeded = wish.event(Kind::LoginSucceeded).target(&user.id);
    succeeded.actor = Some(user.id.clone());
    let failed = wish.event(Kind::LoginFailed).target(&user.id);
    let trail = visit.trail();
    let opened = {
        let (session, hash, user, is_earlier) = (
            session.clone(),
            TokenHash::of(&token),
            user.clone(),
            earlier.is_some(),
        );
        visit
            .state
            .store
            .write(move |tx| {
                take_back(tx, &buckets)?;
                // The password may have been changed, or the account switched off, while this one was being verified; the
                // lock keeps that from happening between this look and our commit.
                let reason = match users::find_locked(tx, &user.id)? {
                    None => Some("deleted"),
                    Some(current) if current.disabled => Some("disabled"),
                    Some(current) if current.password_hash != user.password_hash => {
                        Some("password_changed")
                    }
                    Some(_) => None,
                };
                if let Some(reason) = reason {
                    let failed = failed.clone().noting("reason", reason);
                    audit_events::record(tx, &trail, &failed)?;
                    return Ok(None);
                }
                if let (Some(stronger), Some(old)) = (&verified.stronger, &user.password_hash) {
                    users::strengthen_hash(tx, &user.id, old, stronger)?;
                }
                audit_events::record(tx, &trail, &succeeded)?;
                if is_earlier && sessions::renew(tx, &session, &hash)? {
                    return Ok(Some(session.id.clone()));
                }
                sessions::insert(tx, &fresh, &hash)?;
                for id in sessions::end_oldest(tx, &fresh, MOST_OF_A_PERSON, now)? {
                    grants::revoke_session(tx, &id, now)?;
                    let ended = Event::by_user(Kind::SessionEnded, &user.id);
                    let ended = ended.noting("session", id).noting("reason", "too many");
                    audit_events::record(tx, &trail, &ended)?;
                }
                Ok(Some(fresh.id.clone()))
            })
            .await?
    };
    let Some(id) = opened else {
        tracing::info!("sign-in failed");
        visit.state.metrics.login(LoginResult::Failed);
        return Ok(None);
    };
    session.id = id;
    visit.browser.keep_only(&live);
    visit.browser.signed_in(
        token.clone(),
        earlier.map(|earlier| earlier.token.as_str()),
        &user.id,
    );
    visit.state.metrics.login(LoginResult::Succeeded);
    tracing::info!(session_id = %session.id, "signed in");
    Ok(Some(SignedIn {
        token,
        session,
        user: user.clone(),
    }))
}

/// On to what the sign-in was for.
async fn welcome(
    visit: &mut Visit,
    purpose: Purpose,
    signed_in: SignedIn,
) -> Result<HttpResponse, Fault> {
    let remembered = signed_in.session.remembered;
    let mut response = match purpose {
        Purpose::App(mut transaction) => {
            transaction.ticket.account = Some(signed_in.session.id.clone());
            // A fault on the way must not lose the cookies: the ones that the browser has are dead by now.
            let result = transaction.advance(visit, &[signed_in]).await;
            error::or_fault_page(visit, result)
        }
        Purpose::Home => see_other(&format!("{}/", visit.state.base())),
    };
    browser::remember_sign_ins(&mut response, &visit.state, &mut visit.browser, remembered);
    Ok(response)
}

fn count(
    tx: &mut AnyConnection,
    buckets: &[(Bucket, Limit)],
    now: Timestamp,
) -> Result<Result<(), (Bucket, Timestamp)>, StoreError> {
    for (position, (bucket, limit)) in buckets.iter().enumerate() {
        if let Err(until) = throttles::count(tx, bucket, *limit, now)? {
            // This attempt doesn't take place, so the counters before it give theirs back.
            take_back(tx, buckets.get(..position).unwrap_or_default())?;
            return Ok(Err((bucket.clone(), until)));
        }
    }
    Ok(Ok(()))
}

fn take_back(tx: &mut AnyConnection, buckets: &[(Bucket, Limit)]) -> Result<(), StoreError> {
    buckets
        .iter()
        .try_for_each(|(bucket, _)| throttles::take_back(tx, bucket))
}

struct Answer {
    status: StatusCode,
    problem: Option<SignInProblem>,
    login: String,
    account: Option<AccountFace>,
    remember: bool,
}

fn page(visit: &mut Visit, purpose: &Purpose, answer: Answer) -> HttpResponse {
    let browser_id = visit.browser.id_or_new();
    let (frame, app, ticket) = match purpose {
        Purpose::App(transaction) => (
            transaction.page(visit),
            Some(transaction.face()),
            transaction.ticket.seal(&visit.state, &browser_id),
        ),
        Purpose::Home => (visit.page(), None, String::new()),
    };
    let page = SignIn {
        page: frame,
        app,
        action: format!("{}/login", visit.state.base()),
        ticket,
        csrf: visit.form_token(&purpose.step()),
        login: answer.login,
        account: answer.account,
        remember: answer.remember,
        problem: answer.problem,
    };
    visit.form_page(answer.status, &page, PageKind::Transaction)
}

fn face_of(signed_in: &SignedIn) -> AccountFace {
    AccountFace::new(signed_in.user.name(), &signed_in.user.email)
}
