//! Who steals the database or the log holds nothing that opens a door. OWASP ASVS 5.0 §6.5.2, §13.3.1, §16.2.5.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use latchkey::store::signing_keys;
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::installation::{Installation, SECRET_KEY};
use crate::support::log;
use crate::support::on_both_databases;
use crate::support::op::{CALLBACK, Database, EMAIL, Op, PASSWORD, SECRET};
use crate::support::raw_http::{Extent, converse};
use crate::support::relying_party::{Rp, VERIFIER};

const NOT_THE_PASSWORD: &str = "almost-the-right-password";
const NOT_THE_SECRET: &str = "almost-the-right-secret-of-this-client-here";

/// Everything that was secret in a whole flow, mistakes included, by name.
fn whole_flow(op: &Op) -> Vec<(String, String)> {
    op.seed(json!({ "clients": [client()] }));
    flow_at(&op.issuer)
}

fn client() -> Value {
    json!({
        "client_id": "rp", "client_secret": SECRET, "redirect_uris": [CALLBACK],
        "grant_types": ["authorization_code", "refresh_token"], "session_refresh_tokens": true,
        "post_logout_redirect_uris": [CALLBACK]
    })
}

fn flow_at(issuer: &str) -> Vec<(String, String)> {
    let (mut browser, rp) = (Browser::new(issuer), Rp::new(issuer));
    let mut secrets: Vec<(String, String)> = [
        ("password", PASSWORD),
        ("wrong password", NOT_THE_PASSWORD),
        ("client secret", SECRET),
        ("wrong client secret", NOT_THE_SECRET),
        ("verifier", VERIFIER),
        ("Basic header", &STANDARD.encode(format!("rp:{SECRET}"))),
        (
            "wrong Basic header",
            &STANDARD.encode(format!("rp:{NOT_THE_SECRET}")),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let page = browser.get(&rp.authorize_with_pkce(&[]));
    secrets.extend(
        page.form()
            .1
            .into_iter()
            .filter(|(_, value)| value.len() > 20),
    );
    let page = browser.sign_in_as(&page, "alice@example.test", NOT_THE_PASSWORD);
    let page = browser.sign_in(&page);
    let answer = browser.submit(&page, &[("action", "allow")]);
    let mut code = answer.code();
    for round in ["first", "second"] {
        let mut stranger = rp.clone();
        stranger.secret = Some(NOT_THE_SECRET.to_owned());
        assert_eq!(stranger.exchange_with_pkce(&code).status, 401);
        let tokens = rp.exchange_with_pkce(&code);
        assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
        secrets.push((format!("{round} code"), code));
        // Used, asked for again, used in its turn, and replayed.
        let refreshed = rp.refresh(tokens.refresh_token(), &[]);
        let again = rp.refresh(tokens.refresh_token(), &[]);
        let last = rp.refresh(again.refresh_token(), &[]);
        assert_eq!(rp.refresh(tokens.refresh_token(), &[]).status, 400);
        for (answer, tokens) in [(1, tokens), (2, refreshed), (3, again), (4, last)] {
            for name in ["access_token", "id_token", "refresh_token"] {
                let (secret, name) = (tokens.text(name), format!("{round} {name} {answer}"));
                let signature = secret.rsplit('.').next().unwrap();
                secrets.push((format!("signature of the {name}"), signature.to_owned()));
                secrets.push((name, secret.to_owned()));
            }
        }
        code = browser.get(&rp.authorize_with_pkce(&[])).code();
    }
    secrets.push(("unredeemed code".to_owned(), code));
    // The question of a sign-out, and the sign-out itself, with an ID token as the hint.
    let hint = format!("id_token_hint={}", last_id_token(&secrets));
    let leave = |more: &str| format!("{issuer}/end-session?{hint}&post_logout_redirect_uri={more}");
    assert_eq!(browser.get(&leave("https://evil.example/")).status, 400);
    let question = browser.get("/end-session?client_id=rp&state=a-state-of-the-sign-out");
    assert!(question.has("#logout-confirm"), "{}", question.body);
    secrets.extend(
        question
            .form()
            .1
            .into_iter()
            .filter(|(name, _)| name != "account"),
    );
    let posted = browser.post_once(
        &format!("{issuer}/end-session"),
        &[("id_token_hint", last_id_token(&secrets))],
    );
    let sealed = posted.location().unwrap();
    secrets.push((
        "posted sign-out".to_owned(),
        sealed.split_once("ticket=").unwrap().1.to_owned(),
    ));
    assert_eq!(
        browser.get_once(&leave(CALLBACK)).location().as_deref(),
        Some(CALLBACK)
    );
    for line in &browser.set_cookies {
        let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
        secrets.extend(
            value
                .split('.')
                .filter(|value| value.len() > 20)
                .map(|value| (name.to_owned(), value.to_owned())),
        );
    }
    secrets
}

fn last_id_token(secrets: &[(String, String)]) -> &str {
    let is_one = |(name, _): &&(String, String)| {
        name.contains(" id_token ") && !name.starts_with("signature")
    };
    &secrets.iter().rfind(is_one).unwrap().1
}

fn private_parts(op: &Op) -> Vec<(String, Vec<u8>)> {
    // Whoever sees the private key's form as PKCS #8 sees the algorithm's name in it; sealed bytes look like nothing.
    let keys = op.store.read_blocking(signing_keys::list).unwrap();
    assert!(keys.iter().all(|key| !key.private_key.starts_with(&[0x30])));
    const RSA: [u8; 11] = [
        0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01,
    ];
    const EC: [u8; 9] = [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    vec![
        ("an RSA key".to_owned(), RSA.to_vec()),
        ("an EC key".to_owned(), EC.to_vec()),
        ("a PEM".to_owned(), b"PRIVATE KEY".to_vec()),
        ("a private JWK".to_owned(), b"\"d\":".to_vec()),
        ("the root key".to_owned(), vec![0x5a; 32]),
        (
            "the root key's digits".to_owned(),
            "5a".repeat(32).into_bytes(),
        ),
    ]
}

/// The same secret in the forms in which it might lie about.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![
        secret.as_bytes().to_vec(),
        STANDARD.encode(secret).into_bytes(),
        URL_SAFE_NO_PAD.encode(secret).into_bytes(),
        secret
            .bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
            .into_bytes(),
    ];
    let percents = |byte: u8| format!("%{byte:02X}");
    let all: String = secret.bytes().map(percents).collect();
    let needed: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let numbers: Vec<_> = secret.bytes().map(|byte| byte.to_string()).collect();
    forms.extend([all.to_lowercase(), all, needed, numbers.join(", ")].map(String::into_bytes));
    forms.extend(
        URL_SAFE_NO_PAD
            .decode(secret)
            .ok()
            .filter(|bytes| bytes.len() >= 16),
    );
    forms
}

fn contains(haystack: &str, needle: &[u8]) -> bool {
    haystack.contains(&one_character_a_byte(needle))
}

/// Searching in text is quick even in a test's build.
fn one_character_a_byte(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn files_of(directory: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        bytes.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    bytes
}

/// Secrets in places where they don't belong.
fn go_astray(issuer: &str) {
    let (mut browser, rp) = (Browser::new(issuer), Rp::new(issuer));
    browser.get("/login?password=password-in-the-wrong-place&ticket=ticket-in-the-wrong-place");
    browser.get_once("/nowhere/code-in-the-wrong-place");
    rp.userinfo("token-that-nobody-issued");
    rp.get("/userinfo?access_token=token-in-the-wrong-place");
    let broken = "Basic c2VjcmV0LWluLWEtYnJva2VuLWhlYWRlcg";
    let request = rp.http().post(format!("{issuer}/token"));
    rp.answer(request.header("authorization", broken));
    let address = issuer.trim_start_matches("http://");
    let port = address.rsplit(':').next().unwrap();
    let no_http = "GET /authorize?code=code-in-the-wrong-place HTTP/9.9\r\ncookie: latchkey-session=cookie-in-the-wrong-place\r\n\r\n";
    let refused = converse(
        &format!("127.0.0.1:{port}"),
        no_http.as_bytes(),
        Extent::Doubtful,
    );
    assert_eq!(refused.unwrap()[0].status, 400);
}

/// That things were logged, and none of these secrets.
fn assert_tells_nothing(log: &str, secrets: &[(String, String)]) {
    let outcomes = [
        "signed in",
        "sign-in failed",
        "request of a client refused",
        "sign-out request refused",
        "signed out",
        "request_id",
    ];
    for outcome in outcomes {
        assert!(log.contains(outcome), "{outcome} is logged");
    }
    let strays = [
        "in-the-wrong-place",
        "token-that-nobody-issued",
        "c2VjcmV0LWluLWEtYnJva2VuLWhlYWRlcg",
        "secret-in-a-broken-header",
    ];
    let strays = strays.map(|stray| (stray, stray.as_bytes().to_vec()));
    let all = secrets.iter().flat_map(|(name, secret)| {
        forms(secret)
            .into_iter()
            .map(move |form| (name.as_str(), form))
    });
    for (name, form) in all.chain(strays) {
        // The log is text, and what is none can't be in it.
        let Ok(form) = String::from_utf8(form) else {
            continue;
        };
        if log.contains(&form) {
            let line = log.lines().find(|line| line.contains(&form));
            panic!("{name} is in the log: {line:?}");
        }
    }
}

fn no_secret_is_in_the_log_at(level: &str, database: Database) {
    let installation = Installation::new(database);
    installation.apply(&json!({
        "users": [{ "email": EMAIL, "password": PASSWORD }], "clients": [client()]
    }));
    let mut server = installation.start_with(&[("RUST_LOG", level)]);
    let mut secrets = flow_at(&installation.issuer);
    secrets.push(("root key".to_owned(), SECRET_KEY.to_owned()));
    go_astray(&installation.issuer);
    server.signal("-TERM");
    server.wait();
    let log = server.log();
    let of_libraries = format!("\"level\":\"{}\"", level.to_uppercase());
    let is_theirs = |line: &str| line.contains(&of_libraries) && !line.contains("latchkey::");
    assert!(
        log.lines().any(is_theirs),
        "libraries speak too: {log:.2000}"
    );
    assert_tells_nothing(&log, &secrets);
}

#[test]
fn o3_the_binary_logs_no_secret_at_debug_level() {
    Database::all().for_each(|database| no_secret_is_in_the_log_at("debug", database));
}

#[test]
fn o3_the_binary_logs_no_secret_at_trace_level() {
    Database::all().for_each(|database| no_secret_is_in_the_log_at("trace", database));
}

#[test]
fn o4_b4_a_stolen_sqlite_file_opens_nothing() {
    let op = Op::start(Database::Sqlite, &[]);
    let secrets = whole_flow(&op);
    let private = private_parts(&op);
    let stolen = one_character_a_byte(&files_of(op.directory.path()));
    assert!(
        contains(&stolen, b"alice@example.test"),
        "the write-ahead log is read too"
    );
    for (name, secret) in &secrets {
        for form in forms(secret) {
            assert!(!contains(&stolen, &form), "{name} lies in the database");
        }
    }
    for (name, needle) in private {
        assert!(!contains(&stolen, &needle), "{name} lies in the database");
    }
}

#[test]
fn o4_the_files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let op = Op::start(Database::Sqlite, &[]);
    whole_flow(&op);
    for entry in std::fs::read_dir(op.directory.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{:?} has mode {mode:o}", entry.file_name());
    }
}

on_both_databases! {
    fn o3_no_secret_is_logged_at_any_level(op) {
        log::begin();
        let secrets = whole_flow(&op);
        go_astray(&op.issuer);
        assert_tells_nothing(&log::text(), &secrets);
    }

    fn o3_faults_tell_strangers_an_id_and_no_more(op) {
        let page = op.browser().get("/consent?ticket=garbage");
        for inside in ["diesel", "sqlite", "panicked", ".rs:", "SELECT", op.directory.path().to_str().unwrap()] {
            assert!(!page.body.contains(inside), "{inside}");
        }
    }

    fn c10_a_secret_is_told_by_no_address_of_ours(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        browser.complete(&rp.authorize(&[]));
        for path in ["/", "/login", "/.well-known/openid-configuration", "/jwks", "/livez", "/readyz", "/authorize?client_id=rp"] {
            assert!(!browser.get(path).body.contains(SECRET), "{path}");
        }
        assert!(!browser.get(&rp.authorize(&[("prompt", "consent")])).body.contains(SECRET));
    }
}
