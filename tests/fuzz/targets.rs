//! Every parser that reads strangers' bytes, each as a function that takes any bytes at all: it must come back, and what it
//! says of them must be true. `cargo fuzz` looks for bytes that break one; the tests try some at every run.

use std::net::IpAddr;
use std::sync::OnceLock;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use latchkey::identity::email::{Email, canonical_login};
use latchkey::identity::password::Password;
use latchkey::protocol::authorization_request::{self, AuthorizationError};
use latchkey::protocol::claims::ClaimsRequest;
use latchkey::protocol::client::{Client, ClientId, ClientMetadata};
use latchkey::protocol::client_authentication::Credentials;
use latchkey::protocol::end_session::EndSessionRequest;
use latchkey::protocol::grants::{authorization_code, client_credentials, refresh_token};
use latchkey::protocol::jose::{
    ClientKey, KeyPair, SigningAlgorithm, Typ, VerificationKey, client_key, unverified_claims,
    verify_own,
};
use latchkey::protocol::known_scopes::KnownScopes;
use latchkey::protocol::parameters::{self, Parameters};
use latchkey::protocol::redirect_uri::{self, RedirectUri};
use latchkey::protocol::scope::Scope;
use latchkey::protocol::seal::{RootKey, SealingKey};
use latchkey::protocol::time::Timestamp;
use latchkey::protocol::{access_token, client_assertion, resource};
use latchkey::web::headers;
use serde_json::{Value, json};

/// A name, and what is thrown at it.
pub type Target = (&'static str, fn(&[u8]));

/// Under the names by which `cargo fuzz` knows them, too.
pub const TARGETS: &[Target] = &[
    ("parameters", parameters),
    ("authorization_request", authorization_request),
    ("token_request", token_request),
    ("end_session_request", end_session_request),
    ("redirect_uri", redirect_uri),
    ("scope", scope),
    ("claims", claims),
    ("jws", jws),
    ("jwk", jwk),
    ("client_assertion", client_assertion),
    ("sealed", sealed),
    ("email", email),
    ("password", password),
    ("authorization_header", authorization_header),
    ("cookies", cookies),
    ("forwarded_for", forwarded_for),
];

const CALLBACK: &str = "https://rp.example/callback?tenant=1";

/// What was understood is the same when it is written down and read again.
fn parameters(bytes: &[u8]) {
    let Ok(read) = Parameters::parse(bytes) else {
        return;
    };
    let written = read.to_query();
    assert_eq!(Parameters::parse(written.as_bytes()).as_ref(), Ok(&read));
    assert!(!written.contains(['\r', '\n', '\0']));
    if let Ok(text) = parameters::decode(bytes) {
        assert!(!text.chars().any(char::is_control));
    }
}

/// Nobody is sent anywhere but to a registered address.
fn authorization_request(bytes: &[u8]) {
    let Ok(parameters) = Parameters::parse(bytes).map(Parameters::without_empty) else {
        return;
    };
    let _named = authorization_request::client_id(&parameters);
    match authorization_request::validate(&parameters, client(), &KnownScopes::default()) {
        Ok(request) => assert_eq!(request.redirect.uri(), CALLBACK),
        Err(AuthorizationError::Redirect(redirect, _)) => assert_eq!(redirect.uri(), CALLBACK),
        Err(AuthorizationError::ShowPage(_)) => {}
    }
}

fn token_request(bytes: &[u8]) {
    let Ok(parameters) = Parameters::parse(bytes).map(Parameters::without_empty) else {
        return;
    };
    let _code = authorization_code::Request::parse(&parameters);
    let _refresh = refresh_token::Request::parse(&parameters);
    if let Ok(request) = client_credentials::Request::parse(&parameters)
        && let Ok((_scope, audience)) =
            client_credentials::check(&request, client(), &KnownScopes::default())
    {
        assert_eq!(audience.names("https://op.example"), ["https://op.example"]);
    }
    if let Ok(credentials) = Credentials::parse(None, &parameters) {
        assert!(!credentials.basic);
    }
    for wanted in parameters.resources() {
        if resource::is_valid(wanted) {
            assert!(!wanted.contains('#'), "{wanted}");
        }
    }
}

fn end_session_request(bytes: &[u8]) {
    let Ok(parameters) = Parameters::parse(bytes).map(Parameters::without_empty) else {
        return;
    };
    let _request = EndSessionRequest::parse(&parameters);
}

/// The first line as one that is registered, the second as one that is sent.
fn redirect_uri(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (registered, sent) = text.split_once('\n').unwrap_or((&text, &text));
    let _host = RedirectUri::shown_host(sent);
    for native in [false, true] {
        let Ok(uri) = RedirectUri::register(registered, native) else {
            continue;
        };
        assert_eq!(uri.as_str(), registered);
        assert!(uri.matches(registered, false));
        assert_eq!(uri.matches(sent, false), sent == registered);
        if uri.matches(sent, true) && sent != registered {
            assert!(sent.starts_with("http://127.0.0.1") || sent.starts_with("http://[::1]"));
        }
        let place = redirect_uri::first_difference(sent, std::iter::once(&uri));
        assert!(place <= sent.chars().count().max(sent.len()));
    }
}

fn scope(bytes: &[u8]) {
    let Ok(scope) = String::from_utf8_lossy(bytes).parse::<Scope>() else {
        return;
    };
    assert_eq!(scope.to_string().parse().as_ref(), Ok(&scope));
    assert!(
        scope
            .iter()
            .all(|token| token.is_ascii() && !token.contains(['"', '\\', ' ']))
    );
}

fn claims(bytes: &[u8]) {
    let Ok(claims) = ClaimsRequest::parse(Some(&String::from_utf8_lossy(bytes))) else {
        return;
    };
    let written = serde_json::to_string(&claims).expect("what was read can be written");
    assert_eq!(ClaimsRequest::parse(Some(&written)).as_ref(), Ok(&claims));
    assert!(!claims.demands_a_subject() || !claims.accepts_subject("nobody's subject"));
    let _shown = claims.about_the_person();
}

/// Nobody has the key, so nothing is signed with it.
fn jws(bytes: &[u8]) {
    let token = String::from_utf8_lossy(bytes);
    let _claims = unverified_claims(&token);
    for typ in [Typ::IdToken, Typ::AccessToken, Typ::LogoutToken] {
        assert!(verify_own(&token, own_keys(), typ).is_err());
    }
    assert!(client_key::verify(&token, &client().jwks, None).is_err());
}

/// What is taken as a client's key set is one of public keys, and is the same when it is stored and read.
fn jwk(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    let Ok(keys) = ClientKey::read_set(&value) else {
        return;
    };
    assert!(keys.len() <= 32);
    let written = json!({ "keys": keys });
    assert!(!written.to_string().contains("\"d\":"));
    assert_eq!(ClientKey::read_set(&written), Ok(keys));
}

fn client_assertion(bytes: &[u8]) {
    let token = String::from_utf8_lossy(bytes);
    let _named = client_assertion::named_client(&token);
    let audiences = ["https://op.example", "https://op.example/token"];
    let now = Timestamp::from_seconds(1_800_000_000);
    assert!(client_assertion::check(&token, client(), audiences, now).is_err());
}

/// What was not sealed here does not open, and what was opens only where it belongs.
fn sealed(bytes: &[u8]) {
    let key = SealingKey::derive(&RootKey::from_bytes([7; 32]), "tickets");
    assert_eq!(key.open(bytes, b"here"), None);
    assert_eq!(
        key.open_text(&String::from_utf8_lossy(bytes), b"here"),
        None
    );
    let closed = key.seal(bytes, b"here");
    assert_eq!(key.open(&closed, b"here").as_deref(), Some(bytes));
    assert_eq!(key.open(&closed, b"there"), None);
}

/// An address is found again by its key, however often that is made.
fn email(bytes: &[u8]) {
    let typed = String::from_utf8_lossy(bytes);
    let key = canonical_login(&typed);
    let Ok(email) = typed.parse::<Email>() else {
        return;
    };
    assert_eq!(email.key(), key);
    assert_eq!(canonical_login(&key), key);
    assert_eq!(canonical_login(email.display()), key);
    assert!(
        !email.display().contains(['\r', '\n', '\0', ' ']),
        "no header of a mail is broken"
    );
    assert!(email.domain().is_ascii());
}

fn password(bytes: &[u8]) {
    let _password = Password::parse(&String::from_utf8_lossy(bytes));
}

fn authorization_header(bytes: &[u8]) {
    let header = String::from_utf8_lossy(bytes);
    let nothing = Parameters::default();
    if let Ok(credentials) = Credentials::parse(Some(&header), &nothing) {
        assert!(credentials.basic && credentials.assertion.is_none());
    }
    if let Ok(token) = access_token::from_authorization_header(&header) {
        assert!(header.ends_with(token) && !token.contains(' '));
    }
}

/// One line is one header.
fn cookies(bytes: &[u8]) {
    let headers = headers_of(bytes, "cookie");
    for name in ["latchkey-session", "a", ""] {
        if let Some(value) = headers::cookie(&headers, name) {
            assert!(!value.contains(';'));
        }
        let sign_ins = headers::sign_ins(&headers, name);
        assert!(sign_ins.len() <= 6);
        assert!(
            sign_ins
                .iter()
                .all(|token| token.len() == 43 && token.is_ascii())
        );
    }
}

/// Whom nobody believes says nothing about addresses.
fn forwarded_for(bytes: &[u8]) {
    let headers = headers_of(bytes, "x-forwarded-for");
    let trusted = ["10.0.0.0/8".parse().expect("a network")];
    let stranger: IpAddr = [192, 0, 2, 1].into();
    let proxy: IpAddr = [10, 0, 0, 1].into();
    assert_eq!(
        headers::resolve(Some(stranger), &headers, &trusted),
        Some(stranger)
    );
    assert!(headers::resolve(Some(proxy), &headers, &trusted).is_some());
    let _told = headers::resolve(None, &headers, &trusted);
}

fn headers_of(bytes: &[u8], name: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let values = bytes.split(|byte| *byte == b'\n');
    for value in values.filter_map(|value| HeaderValue::from_bytes(value).ok()) {
        headers.append(HeaderName::from_static(name), value);
    }
    headers
}

/// It signs with a key that was thrown away.
fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let metadata = json!({
            "client_id": "rp", "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "private_key_jwt",
            "jwks": { "keys": [key().public_jwk()] }
        });
        let metadata: ClientMetadata = serde_json::from_value(metadata).expect("metadata");
        metadata
            .check(ClientId::from_request("rp"), &KnownScopes::default())
            .unwrap_or_else(|problems| panic!("{problems:?}"))
    })
}

fn own_keys() -> &'static [VerificationKey] {
    static KEYS: OnceLock<Vec<VerificationKey>> = OnceLock::new();
    KEYS.get_or_init(|| vec![VerificationKey::new(key().public_jwk()).expect("a key")])
}

fn key() -> KeyPair {
    KeyPair::generate(SigningAlgorithm::Es256).expect("a key")
}
