//! What an operator reads: the log of the real binary, line by line, with the ids that lead from one line to the next.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use latchkey::config::DatabaseUrl;
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::installation::{Installation, Process};
use crate::support::op::{CALLBACK, Database, EMAIL, PASSWORD, SECRET, free_port};
use crate::support::relying_party::{Answer, Rp};
use crate::support::wait::eventually;

/// With alice and an app of hers that nobody is asked about.
fn installation(database: Database) -> (Installation, Rp) {
    let installation = Installation::new(database);
    installation.apply(&json!({
        "users": [{ "email": EMAIL, "password": PASSWORD }],
        "clients": [{
            "client_id": "notes", "client_secret": SECRET, "redirect_uris": [CALLBACK], "skip_consent": true,
            "grant_types": ["authorization_code", "refresh_token"], "session_refresh_tokens": true
        }]
    }));
    let rp = Rp::new(&installation.issuer).named("notes");
    (installation, rp)
}

/// Every line, and each must be one object.
fn lines(server: &Process) -> Vec<Value> {
    let log = server.log();
    // The last one may be half written.
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    let parsed = whole.lines().map(|line| {
        let parsed: Result<Value, _> = serde_json::from_str(line);
        parsed.unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    parsed.collect()
}

fn with_message(server: &Process, message: &str) -> Vec<Value> {
    let mut lines = lines(server);
    lines.retain(|line| line["message"] == message);
    lines
}

/// What was logged on behalf of one request, once its own line is there.
fn of_request(server: &Process, id: &str) -> Vec<Value> {
    eventually("the request is logged", || {
        let mut lines = lines(server);
        lines.retain(|line| line["request_id"] == id);
        let is_over = lines.iter().any(|line| line["message"] == "request");
        is_over.then_some(lines)
    })
}

fn id_of(answer: &Answer) -> &str {
    answer.headers["x-request-id"].to_str().unwrap()
}

/// The request's own line holds everything of the contract, and each line before it the same ids.
fn assert_tells(server: &Process, id: &str, expected: [&str; 2], ids: [Option<&str>; 2]) -> Value {
    let lines = of_request(server, id);
    let (request, explaining) = lines.split_last().unwrap();
    assert_eq!(request["message"], "request", "{lines:?}");
    let [route, status] = expected;
    assert_eq!(request["route"], route, "{lines:?}");
    assert_eq!(request["status"].to_string(), status, "{lines:?}");
    assert!(
        request["duration_ms"].is_number() && request["method"].is_string(),
        "{lines:?}"
    );
    for line in &lines {
        for (name, expected) in ["client_id", "user_id"].into_iter().zip(ids) {
            // Before the person or the app was known, no line could name them; the last one does.
            let is_last = line["message"] == "request";
            if is_last || !line[name].is_null() {
                assert_eq!(line[name].as_str(), expected, "{name} of {line}");
            }
        }
    }
    explaining.last().cloned().unwrap_or(Value::Null)
}

#[test]
fn every_line_of_a_request_has_its_id_its_client_and_its_person() {
    let (installation, rp) = installation(Database::Sqlite);
    let server = installation.start();
    let mut browser = Browser::new(&installation.issuer);
    let form = browser.get(&rp.authorize_with_pkce(&[]));
    let failed = browser.sign_in_as(&form, EMAIL, "not-the-password-of-anybody");
    let stranger = browser.sign_in_as(&form, "nobody@example.test", "whatever-they-typed");
    let signed_in = browser.sign_in(&form);
    let tokens = rp.exchange_with_pkce(&signed_in.code());
    let alice = tokens.id_token()["sub"].as_str().unwrap().to_owned();
    let (notes, alice) = (Some("notes"), Some(alice.as_str()));

    let why = assert_tells(
        &server,
        failed.header("x-request-id"),
        ["/login", "400"],
        [notes, alice],
    );
    assert_eq!(
        (&why["message"], &why["user_id"]),
        (&json!("sign-in failed"), &json!(alice))
    );
    let why = assert_tells(
        &server,
        stranger.header("x-request-id"),
        ["/login", "400"],
        [notes, None],
    );
    assert_eq!(why["reason"], "unknown_account");
    let why = assert_tells(
        &server,
        signed_in.header("x-request-id"),
        ["/login", "303"],
        [notes, alice],
    );
    assert_eq!(why["message"], "signed in");
    assert_tells(&server, id_of(&tokens), ["/token", "200"], [notes, alice]);

    let second = rp.refresh(tokens.refresh_token(), &[]);
    assert_tells(&server, id_of(&second), ["/token", "200"], [notes, alice]);
    let told = rp.introspect(second.access_token());
    assert_tells(
        &server,
        id_of(&told),
        ["/introspect", "200"],
        [notes, alice],
    );
    let shown = rp.userinfo(second.access_token());
    assert_tells(&server, id_of(&shown), ["/userinfo", "200"], [notes, alice]);
    let third = rp.refresh(second.refresh_token(), &[]);
    let replayed = rp.refresh(tokens.refresh_token(), &[]);
    assert_tells(&server, id_of(&replayed), ["/token", "400"], [notes, alice]);
    let lines = of_request(&server, id_of(&replayed));
    let replay = lines
        .iter()
        .find(|line| line["message"] == "refresh token replayed")
        .unwrap();
    assert!(
        replay["grant_id"].is_string() && replay["client_id"] == "notes",
        "{replay}"
    );
    let revoked = rp.revoke(third.access_token());
    assert_tells(&server, id_of(&revoked), ["/revoke", "200"], [notes, alice]);

    let home = browser.get("/");
    let out = browser.submit(&home, &[]);
    assert_eq!(out.status, 200);
    let of_sign_out = with_message(&server, "signed out");
    assert_eq!(of_sign_out[0]["user_id"].as_str(), alice);
    let id = of_sign_out[0]["request_id"].as_str().unwrap();
    assert_tells(&server, id, ["/sign-out", "303"], [None, alice]);
    assert!(!server.log().contains("nobody@example.test") && !server.log().contains(EMAIL));
}

#[test]
fn a_client_that_failed_or_was_slowed_is_named_if_it_exists() {
    let (installation, rp) = installation(Database::Sqlite);
    let server = installation.start_with(&[("LATCHKEY_THROTTLE__ACCOUNT_FAILURES", "1")]);
    let mut guesser = rp.clone();
    guesser.secret = Some("wrong-secret-of-more-than-thirty-two-characters".to_owned());
    let refused = guesser.refresh("nothing", &[]);
    assert_eq!(refused.status, 401);
    let why = assert_tells(
        &server,
        id_of(&refused),
        ["/token", "401"],
        [Some("notes"), None],
    );
    assert_eq!(why["message"], "request of a client refused");
    assert_eq!(
        (&why["error"], &why["client_id"]),
        (&json!("invalid_client"), &json!("notes"))
    );
    let slowed = eventually("it is slowed", || {
        Some(guesser.refresh("nothing", &[])).filter(|answer| answer.status == 429)
    });
    let why = assert_tells(
        &server,
        id_of(&slowed),
        ["/token", "429"],
        [Some("notes"), None],
    );
    assert_eq!(why["level"], "INFO");
    let stranger = rp
        .clone()
        .named("typed-by-somebody")
        .refresh("nothing", &[]);
    assert_tells(&server, id_of(&stranger), ["/token", "401"], [None, None]);
    assert!(!server.log().contains("typed-by-somebody"));
}

#[test]
fn the_other_format_names_the_request_too() {
    let (installation, rp) = installation(Database::Sqlite);
    let server = installation.start_with(&[("LATCHKEY_LOG__FORMAT", "pretty")]);
    let refused = rp.refresh("nothing", &[]);
    let id = format!("request_id=\"{}\"", id_of(&refused));
    eventually("both lines are there", || {
        let log = server.log();
        let told: Vec<_> = log.lines().filter(|line| line.contains(&id)).collect();
        let named = told.iter().all(|line| line.contains("client_id=\"notes\""));
        (told.len() == 2 && named).then_some(())
    });
}

#[test]
fn at_the_level_of_warnings_a_line_names_its_request_all_the_same() {
    let (installation, rp) = installation(Database::Sqlite);
    let server = installation.start_with(&[("LATCHKEY_LOG__LEVEL", "warn")]);
    let mut browser = Browser::new(&installation.issuer);
    let first = rp.exchange_with_pkce(&browser.complete(&rp.authorize_with_pkce(&[])).code());
    let second = rp.refresh(first.refresh_token(), &[]);
    rp.refresh(second.refresh_token(), &[]);
    let replayed = rp.refresh(first.refresh_token(), &[]);
    let lines = lines(&server);
    let [line] = &lines[..] else {
        panic!("{lines:?}")
    };
    assert_eq!(line["message"], "refresh token replayed");
    assert_eq!(line["request_id"], id_of(&replayed));
}

/// What the management listener answers.
fn of_management(installation: &Installation, path: &str) -> String {
    let socket = installation.path(&format!("{}.sock", installation.port()));
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_lost_database_is_said_once_with_its_cause_and_so_is_its_return() {
    let (installation, rp) = installation(Database::Sqlite);
    let server = installation.start();
    // The first use of a secret is noted, and the app read anew; from then on it is kept in memory.
    assert_eq!(rp.refresh("nothing", &[]).status, 400);
    eventually("the use is noted", || {
        let shown = installation.objects(&["clients", "show", "notes"]);
        let unused = shown[0].to_string().contains("\"last_used_at\":null");
        (!unused).then_some(())
    });
    assert_eq!(rp.refresh("nothing", &[]).status, 400);
    let is_ready = |value: &str| {
        of_management(&installation, "/metrics").contains(&format!("\nlatchkey_ready {value}\n"))
    };
    assert!(is_ready("1"));
    let DatabaseUrl::Sqlite(file) = installation.database() else {
        panic!("a file")
    };
    let away = installation.path("away");
    fs::rename(file, &away).unwrap();
    eventually("the page looks by itself", || is_ready("0").then_some(()));
    for _ in 0..3 {
        assert!(of_management(&installation, "/readyz").starts_with("HTTP/1.1 503 "));
    }
    let lost = "not ready: the database does not take reads and writes";
    let [line] = &with_message(&server, lost)[..] else {
        panic!("{}", server.log())
    };
    assert_eq!(line["level"], "WARN");
    assert!(
        line["error"].as_str().unwrap().contains("No such file"),
        "{line}"
    );

    let refused = rp.refresh("nothing", &[]);
    assert_eq!(refused.status, 503);
    let why = assert_tells(
        &server,
        id_of(&refused),
        ["/token", "503"],
        [Some("notes"), None],
    );
    assert_eq!(why["level"], "WARN");
    assert!(
        why["error"].as_str().unwrap().contains("No such file"),
        "{why}"
    );

    fs::rename(&away, file).unwrap();
    let back = "the database takes reads and writes again";
    eventually("it is back without anybody asking", || {
        (with_message(&server, back).len() == 1).then_some(())
    });
    assert!(is_ready("1"));
    assert_eq!(with_message(&server, lost).len(), 1);
}

#[test]
fn probes_are_no_news_and_every_answer_of_the_management_listener_has_an_id() {
    let (installation, rp) = installation(Database::Sqlite);
    let server = installation.start();
    for path in ["/livez", "/readyz"] {
        assert_eq!(
            rp.http()
                .get(format!("{}{path}", server.url))
                .send()
                .unwrap()
                .status(),
            200
        );
    }
    for path in ["/livez", "/readyz", "/metrics", "/nowhere"] {
        let answer = of_management(&installation, path);
        let id = answer
            .lines()
            .find_map(|line| line.strip_prefix("x-request-id: "));
        let id = id.unwrap_or_else(|| panic!("{path}: {answer}"));
        assert_eq!(id.len(), 14, "{id}");
        if path == "/nowhere" {
            assert!(answer.contains(&format!("<code>{id}</code>")), "{answer}");
        }
    }
    let metrics = of_management(&installation, "/metrics");
    assert!(
        !metrics.contains("livez") && !metrics.contains("readyz"),
        "{metrics}"
    );
    let after = rp.get("/jwks");
    of_request(&server, id_of(&after));
    let routes: Vec<_> = with_message(&server, "request")
        .iter()
        .map(|line| line["route"].clone())
        .collect();
    assert_eq!(routes, ["/jwks"]);
}

#[test]
fn a_method_that_somebody_made_up_is_not_written_down() {
    let (installation, rp) = installation(Database::Sqlite);
    let server = installation.start();
    let method = reqwest::Method::from_bytes("STRANGER".repeat(100).as_bytes()).unwrap();
    let request = rp
        .http()
        .request(method, format!("{}/jwks", installation.issuer));
    let answer = rp.answer(request);
    let line = of_request(&server, id_of(&answer)).pop().unwrap();
    assert_eq!(line["method"], "_OTHER");
    assert!(!server.log().contains("STRANGER"));
}

#[test]
fn a_start_is_one_line_and_one_that_fails_is_too() {
    let (installation, _rp) = installation(Database::Sqlite);
    let server = installation.start();
    let [ready] = &with_message(&server, "ready")[..] else {
        panic!("{}", server.log())
    };
    assert_eq!(ready["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(ready["issuer"], installation.issuer.as_str());
    assert_eq!(
        ready["listen"],
        format!("127.0.0.1:{}", installation.port())
    );
    assert_eq!(ready["database"], "sqlite");
    let mut second = installation.launch(free_port());
    assert_eq!(second.wait(), Some(1));
    let [failed] = &lines(&second)[..] else {
        panic!("{}", second.log())
    };
    assert_eq!(
        (&failed["level"], &failed["message"]),
        (&json!("ERROR"), &json!("the server could not start"))
    );
    assert!(
        failed["error"]
            .as_str()
            .unwrap()
            .contains("another Latchkey server is using"),
        "{failed}"
    );
}
