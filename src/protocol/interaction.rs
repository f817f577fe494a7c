//! What a person must still do before an app gets its answer. OpenID Connect Core §3.1.2.3, §3.1.2.4; RFC 8252 §8.6.
//!
//! One policy, asked by every way in: the pages, `prompt=none`, and later the refresh of a token.

use super::authorization_request::AuthorizationRequest;
use super::claims::ClaimsRequest;
use super::client::{ApplicationType, Client};
use super::error::{ErrorCode, OAuthError, login_required};
use super::redirect_uri::RedirectUri;
use super::scope::Scope;
use super::time::Timestamp;

/// Seconds for which a fresh proof counts as one: enough to read the next page.
const PROOF_STAYS_FRESH: u64 = 300;

/// Everything the policy looks at.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    pub request: &'a AuthorizationRequest,
    pub client: &'a Client,
    /// The sign-in that this browser shows, if it has one that is alive.
    pub login: Option<&'a Login>,
    /// Whether the browser knows more than one account.
    pub several_accounts: bool,
    /// Whether the person chose this account for this very request.
    pub account_chosen: bool,
    /// Whom `id_token_hint` names.
    pub hint: &'a Hint,
    /// What the person allowed this client before.
    pub consent: Option<&'a Consent>,
    /// Whether the person agreed to this very request just now.
    pub consent_given: bool,
}

/// A sign-in, as far as the policy needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub subject: String,
    pub auth_time: Timestamp,
    /// Whether it was proved for this very request.
    pub for_this_request: bool,
}

/// Whom an `id_token_hint` names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Hint {
    /// There is none.
    #[default]
    Absent,
    /// An ID token that we signed, for this person.
    Subject(String),
    /// Something that we can't read: it names nobody.
    Unreadable,
}

/// What was allowed before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consent {
    pub scope: Scope,
    pub claims: Vec<String>,
}

impl Consent {
    /// What a request needs to be allowed.
    pub fn needed(scope: &Scope, claims: &ClaimsRequest) -> Self {
        Self {
            scope: scope.clone(),
            claims: claims
                .about_the_person()
                .into_iter()
                .map(str::to_owned)
                .collect(),
        }
    }

    /// Whether everything of the other is in this one.
    pub fn covers(&self, needed: &Self) -> bool {
        needed.scope.is_subset(&self.scope)
            && needed
                .claims
                .iter()
                .all(|claim| self.claims.contains(claim))
    }

    /// Both together.
    pub fn union(&self, other: &Self) -> Self {
        let mut claims = [self.claims.as_slice(), other.claims.as_slice()].concat();
        claims.sort_unstable();
        claims.dedup();
        Self {
            scope: self.scope.union(&other.scope),
            claims,
        }
    }
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Login,
    ChooseAccount,
    Consent,
    Issue,
    Refuse(OAuthError),
}

/// What must the person do next, when pages may be shown?
pub fn next_step(situation: &Situation<'_>, now: Timestamp) -> Step {
    let Situation { request, login, .. } = situation;
    if request.prompt.is_none() {
        return silently(situation, now);
    }
    if request.prompt.wants_account_selection()
        && !situation.account_chosen
        && !login.is_some_and(|login| login.for_this_request)
    {
        return if login.is_some() || situation.several_accounts {
            Step::ChooseAccount
        } else {
            Step::Login
        };
    }
    let Some(login) = login else {
        return Step::Login;
    };
    if !is_expected_person(situation, login) {
        // Core §3.1.2.2: another person than the one asked for never gets a positive answer.
        return if login.for_this_request {
            Step::Refuse(login_required(
                "another person signed in than the one asked for",
            ))
        } else {
            Step::Login
        };
    }
    if !is_recent_enough(request, login, now) {
        return Step::Login;
    }
    if needs_consent(situation) {
        Step::Consent
    } else {
        Step::Issue
    }
}

/// The same questions with `prompt=none`: what would need a page is an error instead.
fn silently(situation: &Situation<'_>, now: Timestamp) -> Step {
    let Some(login) = situation.login else {
        return Step::Refuse(login_required("nobody is signed in"));
    };
    if !is_expected_person(situation, login) {
        return Step::Refuse(login_required(
            "another person is signed in than the one asked for",
        ));
    }
    if !is_recent_enough(situation.request, login, now) {
        return Step::Refuse(login_required("the sign-in is older than max_age allows"));
    }
    if needs_consent(situation) {
        let description = "the person has not agreed to this yet";
        return Step::Refuse(OAuthError::new(ErrorCode::ConsentRequired, description));
    }
    Step::Issue
}

/// Whether this is the person whom the request names, if it names one.
fn is_expected_person(situation: &Situation<'_>, login: &Login) -> bool {
    let by_hint = match situation.hint {
        Hint::Absent => true,
        Hint::Subject(subject) => *subject == login.subject,
        // It names nobody, so only a fresh proof will do.
        Hint::Unreadable => login.for_this_request,
    };
    by_hint && situation.request.claims.accepts_subject(&login.subject)
}

fn is_recent_enough(request: &AuthorizationRequest, login: &Login, now: Timestamp) -> bool {
    let age = now.since(login.auth_time).as_secs();
    // A proof that was given for this request answers it, but not for as long as its page can lie open.
    if login.for_this_request && age <= PROOF_STAYS_FRESH.max(request.max_age.unwrap_or(0)) {
        return true;
    }
    if request.prompt.wants_login() {
        return false;
    }
    // max_age=0 is prompt=login.
    request
        .max_age
        .is_none_or(|max_age| max_age > 0 && age <= max_age)
}

/// The same question without a page: does what the person allowed still cover what was granted?
pub fn still_allowed(client: &Client, granted: &Consent, consent: Option<&Consent>) -> bool {
    client.skip_consent || consent.is_some_and(|consent| consent.covers(granted))
}

fn needs_consent(situation: &Situation<'_>) -> bool {
    let Situation {
        request,
        client,
        consent,
        ..
    } = situation;
    if situation.consent_given {
        return false;
    }
    if request.prompt.wants_consent() {
        return true;
    }
    if client.skip_consent {
        return false;
    }
    // Any program on the person's machine can take such an address, so a silent answer could go to an impostor (RFC 8252 §8.6).
    let anyone_may_answer = client.application_type == ApplicationType::Native
        && client.is_public()
        && !RedirectUri::is_claimed_https(request.redirect.uri());
    anyone_may_answer
        || !consent.is_some_and(|consent| {
            consent.covers(&Consent::needed(&request.scope, &request.claims))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::authorization_request::tests::{client, request};

    const NOW: Timestamp = Timestamp::from_seconds(1_000_000);

    struct Case {
        request: AuthorizationRequest,
        client: Client,
        login: Option<Login>,
        several_accounts: bool,
        account_chosen: bool,
        hint: Hint,
        consent: Option<Consent>,
    }

    impl Case {
        /// Alice signed in ten minutes ago and agreed to everything.
        fn signed_in(extra: &str) -> Self {
            let request = request(extra).expect("valid");
            let consent = Some(Consent::needed(&request.scope, &request.claims));
            let auth_time = Timestamp::from_seconds(NOW.seconds() - 600);
            let login = Some(Login {
                subject: "alice".to_owned(),
                auth_time,
                for_this_request: false,
            });
            Self {
                request,
                client: client(|_| {}),
                login,
                several_accounts: false,
                account_chosen: false,
                hint: Hint::Absent,
                consent,
            }
        }

        fn step(&self) -> Step {
            let situation = Situation {
                request: &self.request,
                client: &self.client,
                login: self.login.as_ref(),
                several_accounts: self.several_accounts,
                account_chosen: self.account_chosen,
                hint: &self.hint,
                consent: self.consent.as_ref(),
                consent_given: false,
            };
            next_step(&situation, NOW)
        }

        fn refusal(&self) -> ErrorCode {
            match self.step() {
                Step::Refuse(error) => error.code,
                other => panic!("should be refused, but: {other:?}"),
            }
        }
    }

    #[test]
    fn a_person_who_signed_in_and_agreed_is_asked_nothing() {
        for extra in [
            "",
            "&prompt=none",
            "&max_age=600",
            "&max_age=10000&prompt=none",
        ] {
            assert_eq!(Case::signed_in(extra).step(), Step::Issue, "{extra}");
        }
    }

    #[test]
    fn prompt_login_and_max_age_ask_for_a_fresh_proof_once() {
        for extra in [
            "&prompt=login",
            "&max_age=599",
            "&max_age=0",
            "&prompt=login%20consent",
        ] {
            let mut case = Case::signed_in(extra);
            assert_eq!(case.step(), Step::Login, "{extra}");
            let login = case.login.as_mut().expect("signed in");
            login.for_this_request = true;
            login.auth_time = Timestamp::from_seconds(NOW.seconds() - 60);
            assert_ne!(case.step(), Step::Login, "{extra}");
            case.login.as_mut().expect("signed in").auth_time = Timestamp::from_seconds(0);
            assert_eq!(
                case.step(),
                Step::Login,
                "{extra}: the page lay open too long"
            );
        }
    }

    #[test]
    fn prompt_none_never_shows_a_page() {
        let mut case = Case::signed_in("&prompt=none&max_age=10");
        assert_eq!(case.refusal(), ErrorCode::LoginRequired);
        case.login = None;
        assert_eq!(case.refusal(), ErrorCode::LoginRequired);
        let mut case = Case::signed_in("&prompt=none");
        case.consent = None;
        assert_eq!(case.refusal(), ErrorCode::ConsentRequired);
    }

    #[test]
    fn a_hint_for_somebody_else_is_never_answered_with_this_person() {
        let bob = Hint::Subject("bob".to_owned());
        let mut case = Case::signed_in("&prompt=none");
        case.hint = bob.clone();
        assert_eq!(case.refusal(), ErrorCode::LoginRequired);
        let mut case = Case::signed_in("");
        case.hint = bob;
        assert_eq!(case.step(), Step::Login);
        case.login.as_mut().expect("signed in").for_this_request = true;
        assert_eq!(case.refusal(), ErrorCode::LoginRequired);
        let case = Case::signed_in(
            "&prompt=none&claims=%7B%22id_token%22:%7B%22sub%22:%7B%22value%22:%22bob%22%7D%7D%7D",
        );
        assert_eq!(case.refusal(), ErrorCode::LoginRequired);
    }

    #[test]
    fn a_hint_that_cannot_be_read_names_nobody() {
        let mut case = Case::signed_in("");
        case.hint = Hint::Unreadable;
        assert_eq!(case.step(), Step::Login);
        let mut case = Case::signed_in("&prompt=none");
        case.hint = Hint::Unreadable;
        assert_eq!(case.refusal(), ErrorCode::LoginRequired);
    }

    #[test]
    fn select_account_is_asked_until_one_was_chosen() {
        let mut case = Case::signed_in("&prompt=select_account");
        assert_eq!(case.step(), Step::ChooseAccount);
        case.account_chosen = true;
        assert_eq!(case.step(), Step::Issue);
        case.account_chosen = false;
        case.login = None;
        assert_eq!(case.step(), Step::Login);
    }

    #[test]
    fn new_scopes_and_claims_need_consent_and_old_ones_do_not() {
        let mut case = Case::signed_in("");
        case.consent = Some(Consent::default());
        assert_eq!(case.step(), Step::Consent);
        let mut case = Case::signed_in("&claims=%7B%22userinfo%22:%7B%22email%22:null%7D%7D");
        assert_eq!(case.step(), Step::Issue);
        case.consent = Some(Consent {
            scope: case.request.scope.clone(),
            claims: Vec::new(),
        });
        assert_eq!(case.step(), Step::Consent);
        case.client.skip_consent = true;
        assert_eq!(case.step(), Step::Issue);
        let mut case = Case::signed_in("&prompt=consent");
        case.client.skip_consent = true;
        assert_eq!(case.step(), Step::Consent);
    }

    #[test]
    fn an_app_whose_address_anyone_can_take_always_asks() {
        let native = client(|metadata| {
            metadata.application_type = Some("native".to_owned());
            metadata.token_endpoint_auth_method = Some("none".to_owned());
        });
        let mut case = Case::signed_in("");
        case.client = native;
        assert_eq!(case.step(), Step::Issue, "https belongs to one app");
        case.request.redirect = {
            use crate::protocol::{authorization_request, parameters::Parameters};
            let client = client(|metadata| {
                metadata.application_type = Some("native".to_owned());
                metadata.redirect_uris = vec!["com.example.app:/cb".to_owned()];
            });
            let query =
                b"client_id=rp&response_type=code&redirect_uri=com.example.app:/cb&scope=openid";
            let parameters = Parameters::parse(query).expect("well-formed");
            authorization_request::validate(&parameters, &client, &Default::default())
                .expect("valid")
                .redirect
        };
        assert_eq!(case.step(), Step::Consent);
    }
}
