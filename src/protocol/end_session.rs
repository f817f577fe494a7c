//! Signing out at an app's request: whom it may sign out, and where the browser goes then.
//! OpenID Connect RP-Initiated Logout 1.0 §2, §3, §4, §6.
//!
//! Everything here is asked before anybody is signed out, and every refusal ends on a page of ours: only an address
//! that the named client registered ever becomes a [`PostLogoutRedirect`].

use serde_json::{Map, Value};

use super::authorization_response::with_query;
use super::client::{Client, ClientId};
use super::error::{OAuthError, invalid_request};
use super::parameters::Parameters;
use super::redirect_uri;

/// The parameters as they came; others are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndSessionRequest {
    pub id_token_hint: Option<String>,
    pub client_id: Option<ClientId>,
    pub post_logout_redirect_uri: Option<String>,
    pub state: Option<String>,
    pub logout_hint: Option<String>,
}

/// What an ID token of ours says about whom to sign out. Made only by [`Hint::from_claims`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    client_id: ClientId,
    subject: String,
    session: Option<String>,
}

/// Where the browser goes when the person is signed out: a registered address, with `state` if there was one.
/// Made only by [`redirect`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostLogoutRedirect(String);

/// Why nobody is signed out, and nobody sent anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Request(OAuthError),
    /// The address is not registered. `differs_at` is the byte where it leaves the nearest registered one, its end where
    /// that is not told.
    RedirectUri {
        error: OAuthError,
        received: String,
        differs_at: usize,
    },
}

/// A sign-in that the browser shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignIn<'a> {
    pub session: &'a str,
    pub subject: &'a str,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The app showed that it means this sign-in, which is therefore ended without a question.
    End(SignIn<'a>),
    /// Anybody could have sent the browser here, so the person decides (§2, §6).
    Ask,
    /// Nobody is signed in.
    GoOn,
}

impl EndSessionRequest {
    /// Reads a request in which nothing came twice.
    pub fn parse(parameters: &Parameters) -> Result<Self, OAuthError> {
        if let Some(name) = parameters.repeated() {
            return Err(invalid_request(format!(
                "{} was sent more than once",
                name.chars().take(40).collect::<String>()
            )));
        }
        let text = |name: &str| parameters.get(name).map(str::to_owned);
        Ok(Self {
            id_token_hint: text("id_token_hint"),
            client_id: parameters.get("client_id").map(ClientId::from_request),
            post_logout_redirect_uri: text("post_logout_redirect_uri"),
            state: text("state"),
            logout_hint: text("logout_hint"),
        })
    }
}

impl Hint {
    /// From the claims of an ID token whose signature is ours. It may have expired long ago (§2).
    pub fn from_claims(claims: &Map<String, Value>, issuer: &str) -> Option<Self> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("iss") != Some(issuer) {
            return None;
        }
        Some(Self {
            client_id: ClientId::from_request(text("aud")?),
            subject: text("sub")?.to_owned(),
            session: text("sid").map(str::to_owned),
        })
    }

    /// The person it was issued for.
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

impl PostLogoutRedirect {
    /// For the `Location` header.
    pub fn location(&self) -> &str {
        &self.0
    }
}

/// The refusal for a hint that is no ID token of ours.
pub fn unreadable_hint() -> Refusal {
    Refusal::Request(invalid_request(
        "id_token_hint is not an ID token of this server",
    ))
}

/// The refusal for a client that doesn't exist or is switched off.
pub fn unknown_client() -> Refusal {
    Refusal::Request(invalid_request("no client has this client_id"))
}

/// The client that asks, if the request says so; both ways of saying it must agree (§2).
pub fn client_id(
    request: &EndSessionRequest,
    hint: Option<&Hint>,
) -> Result<Option<ClientId>, Refusal> {
    match (&request.client_id, hint) {
        (Some(named), Some(hint)) if *named != hint.client_id => Err(Refusal::Request(
            invalid_request("id_token_hint was issued to another client than client_id names"),
        )),
        (Some(named), _) => Ok(Some(named.clone())),
        (None, hint) => Ok(hint.map(|hint| hint.client_id.clone())),
    }
}

/// Where to go afterwards. An address that comes without a client counts for nothing: nobody can have registered it (§3).
pub fn redirect(
    request: &EndSessionRequest,
    client: Option<&Client>,
) -> Result<Option<PostLogoutRedirect>, Refusal> {
    let (Some(uri), Some(client)) = (&request.post_logout_redirect_uri, client) else {
        return Ok(None);
    };
    let registered = &client.post_logout_redirect_uris;
    if !registered
        .iter()
        .any(|registered| registered.matches(uri, client.any_loopback_port()))
    {
        return Err(Refusal::RedirectUri {
            error: invalid_request("post_logout_redirect_uri is not registered for this client"),
            received: uri.clone(),
            differs_at: redirect_uri::first_difference(uri, registered.iter()),
        });
    }
    Ok(Some(PostLogoutRedirect(match &request.state {
        Some(state) => with_query(uri, &[("state", state.clone())]),
        None => uri.clone(),
    })))
}

/// May this be done without a question? Only a hint of a sign-in that this very browser shows proves that the app means it.
pub fn next_step<'a>(hint: Option<&Hint>, signed_in: &[SignIn<'a>]) -> Step<'a> {
    if signed_in.is_empty() {
        return Step::GoOn;
    }
    let is_meant = |sign_in: &&SignIn<'a>| {
        hint.is_some_and(|hint| {
            hint.session.as_deref() == Some(sign_in.session) && hint.subject == sign_in.subject
        })
    };
    match signed_in.iter().find(is_meant) {
        Some(sign_in) => Step::End(*sign_in),
        None => Step::Ask,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::authorization_request::tests::client;

    const ISSUER: &str = "https://op.example";
    const REGISTERED: &str = "https://rp.example/bye?lang=de";
    const ALICE: SignIn<'_> = SignIn {
        session: "s-alice",
        subject: "alice",
    };
    const BOB: SignIn<'_> = SignIn {
        session: "s-bob",
        subject: "bob",
    };

    fn hint(change: impl FnOnce(&mut Value)) -> Option<Hint> {
        let mut claims =
            json!({ "iss": ISSUER, "aud": "rp", "sub": "alice", "sid": "s-alice", "exp": 1 });
        change(&mut claims);
        Hint::from_claims(claims.as_object().expect("an object"), ISSUER)
    }

    fn request(query: &str) -> EndSessionRequest {
        let parameters = Parameters::parse(query.as_bytes()).expect("well-formed");
        EndSessionRequest::parse(&parameters).expect("nothing twice")
    }

    fn location(uri: &str, state: &str) -> Result<Option<String>, Refusal> {
        let client =
            client(|metadata| metadata.post_logout_redirect_uris = vec![REGISTERED.to_owned()]);
        let request = EndSessionRequest {
            post_logout_redirect_uri: Some(uri.to_owned()),
            state: Some(state.to_owned()).filter(|state| !state.is_empty()),
            ..EndSessionRequest::default()
        };
        redirect(&request, Some(&client)).map(|to| to.map(|to| to.location().to_owned()))
    }

    #[test]
    fn a_hint_is_of_this_issuer_and_says_for_whom() {
        assert!(
            hint(|_| {}).is_some(),
            "its time is not judged, nor that of its key"
        );
        for (name, value) in [
            ("iss", json!("https://other.example")),
            ("iss", Value::Null),
            ("aud", json!(["rp", "other"])),
            ("aud", Value::Null),
            ("sub", Value::Null),
        ] {
            assert_eq!(
                hint(|claims| claims[name] = value.clone()),
                None,
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn a_client_is_named_by_the_hint_or_by_its_id_and_both_agree() {
        let (rp, alice) = (ClientId::from_request("rp"), hint(|_| {}));
        for (query, hint) in [
            ("client_id=rp", None),
            ("", alice.as_ref()),
            ("client_id=rp", alice.as_ref()),
        ] {
            assert_eq!(
                client_id(&request(query), hint),
                Ok(Some(rp.clone())),
                "{query}"
            );
        }
        assert_eq!(client_id(&request("state=s"), None), Ok(None));
        assert!(client_id(&request("client_id=other"), alice.as_ref()).is_err());
    }

    #[test]
    fn only_the_registered_address_is_gone_to_and_state_is_all_that_is_added() {
        assert_eq!(location(REGISTERED, ""), Ok(Some(REGISTERED.to_owned())));
        assert_eq!(
            location(REGISTERED, "a b&c"),
            Ok(Some(format!("{REGISTERED}&state=a+b%26c")))
        );
        for other in [
            "https://rp.example/bye",
            "https://rp.example/bye?lang=de&x=1",
            "https://RP.example/bye?lang=de",
            "https://rp.example/cb",
            "https://evil.example/bye?lang=de",
        ] {
            assert!(
                matches!(location(other, "s"), Err(Refusal::RedirectUri { .. })),
                "{other}"
            );
        }
    }

    #[test]
    fn an_app_on_the_persons_machine_may_use_any_port_there() {
        let native = client(|metadata| {
            metadata.application_type = Some("native".to_owned());
            metadata.token_endpoint_auth_method = Some("none".to_owned());
            metadata.post_logout_redirect_uris = vec!["http://127.0.0.1/bye".to_owned()];
        });
        let sent = request("post_logout_redirect_uri=http://127.0.0.1:49152/bye");
        assert!(matches!(redirect(&sent, Some(&native)), Ok(Some(_))));
    }

    #[test]
    fn an_address_without_a_client_counts_for_nothing() {
        let sent = request("post_logout_redirect_uri=https://rp.example/bye&state=s");
        assert_eq!(redirect(&sent, None), Ok(None));
    }

    #[test]
    fn nothing_may_come_twice() {
        for query in [
            "state=a&state=b",
            "id_token_hint=a&id_token_hint=a",
            "foo=1&foo=2",
        ] {
            let parameters = Parameters::parse(query.as_bytes()).expect("well-formed");
            assert!(EndSessionRequest::parse(&parameters).is_err(), "{query}");
        }
    }

    #[test]
    fn only_a_hint_of_a_sign_in_that_is_here_asks_no_question() {
        let alice = hint(|_| {});
        assert_eq!(next_step(alice.as_ref(), &[BOB, ALICE]), Step::End(ALICE));
        assert_eq!(next_step(alice.as_ref(), &[BOB]), Step::Ask);
        assert_eq!(next_step(None, &[ALICE]), Step::Ask);
        assert_eq!(next_step(alice.as_ref(), &[]), Step::GoOn);
        assert_eq!(next_step(None, &[]), Step::GoOn);
        for other in [json!("s-of-last-week"), Value::Null, json!("s-bob")] {
            let hint = hint(|claims| claims["sid"] = other.clone());
            assert_eq!(
                next_step(hint.as_ref(), &[ALICE, BOB]),
                Step::Ask,
                "{other}"
            );
        }
    }
}
