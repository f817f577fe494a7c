//! What goes wrong around a server: the real binary, and what a request sees of it. Rows R6, R8, R30 and N6. Each
//! of the others has a file of its own beside this one.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use serde_json::json;
use tempfile::TempDir;

use crate::support::browser::Browser;
use crate::support::disk::Disk;
use crate::support::installation::{Installation, Process};
use crate::support::invariants::assert_sound;
use crate::support::op::{CALLBACK, Database, EMAIL, Op, PASSWORD, SECRET};
use crate::support::refreshing::{Network, Told, while_apps_refresh};
use crate::support::relying_party::{Answer, Rp};
use crate::support::resources::Base;
use crate::support::wait::{eventually, pause, within};

/// The six seconds of the contract, and what a busy machine adds.
pub const AT_MOST: Duration = Duration::from_millis(7_500);
pub const FORM: &str = "content-type: application/x-www-form-urlencoded\r\n";

pub fn installation() -> (Installation, Rp) {
    prepared(Installation::new(Database::Sqlite))
}

/// With alice and an app that refreshes.
pub fn prepared(installation: Installation) -> (Installation, Rp) {
    let rp = populate(&installation);
    (installation, rp)
}

pub fn populate(installation: &Installation) -> Rp {
    installation.apply(&json!({
        "users": [{ "email": EMAIL, "password": PASSWORD }],
        "clients": [{
            "client_id": "notes", "client_secret": SECRET, "redirect_uris": [CALLBACK],
            "grant_types": ["authorization_code", "refresh_token"]
        }]
    }));
    Rp::new(&installation.issuer).named("notes")
}

/// The tokens of the app, after alice signed in.
pub fn connect(rp: &Rp) -> Answer {
    let mut browser = Browser::new(&rp.issuer);
    let scope = [("scope", "openid offline_access")];
    let code = browser.complete(&rp.authorize_with_pkce(&scope)).code();
    let tokens = rp.exchange_with_pkce(&code);
    assert_eq!(tokens.status, 200, "{}", tokens.json);
    tokens
}

/// What the server holds when everybody's connections and threads are there, and nobody asks for anything.
pub fn base(server: &Process, rp: &Rp) -> Base {
    let chains: Vec<_> = (0..8).map(|_| connect(rp)).collect();
    while_apps_refresh(rp, chains, Network::Reliable, |story| {
        while story.count(Told::Tokens) < 100 {
            pause(Duration::from_millis(50));
        }
    });
    Base::of(server)
}

/// What holds after any fault: everybody goes on, nothing is left behind, and a restart changes nothing of that.
pub fn assert_unharmed(
    installation: &Installation,
    rp: &Rp,
    server: Process,
    base: &Base,
    chains: &[Answer],
) -> Process {
    let last: Vec<_> = chains.iter().map(|tokens| well_again(rp, tokens)).collect();
    base.assert_back();
    assert_sound(&installation.store());
    server.kill();
    let server = installation.start();
    for tokens in last {
        assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
        let next = rp.refresh(tokens.refresh_token(), &[]);
        assert_eq!(next.status, 200, "{}", next.json);
    }
    assert_sound(&installation.store());
    server
}

pub fn address(url: &str) -> &str {
    url.strip_prefix("http://").unwrap()
}

/// What the server says on a connection until it closes it.
pub fn rest(mut stream: &TcpStream) -> String {
    stream
        .set_read_timeout(Some(Duration::from_secs(40)))
        .unwrap();
    let mut text = Vec::new();
    let _reset = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn r8_a_write_lock_that_somebody_holds_delays_writes_and_nothing_else() {
    let (installation, rp) = installation();
    let server = installation.start();
    let tokens = connect(&rp);
    let base = base(&server, &rp);
    let path = installation.path("latchkey.db");
    let mut holder = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    holder.batch_execute("BEGIN IMMEDIATE").unwrap();
    thread::scope(|scope| {
        let refreshing = scope.spawn(|| {
            let began = Instant::now();
            (rp.refresh(tokens.refresh_token(), &[]), began.elapsed())
        });
        for path in ["/jwks", "/.well-known/openid-configuration", "/readyz"] {
            let began = Instant::now();
            let answer = reqwest::blocking::get(format!("{}{path}", installation.issuer)).unwrap();
            assert_eq!(answer.status(), 200, "{path}");
            assert!(began.elapsed() < Duration::from_secs(3), "{path}");
        }
        assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
        let (refused, after) = refreshing.join().unwrap();
        assert_eq!(refused.error(), (503, "temporarily_unavailable"));
        assert!(refused.headers.contains_key("retry-after"));
        assert!(after < Duration::from_secs(10), "{after:?}");
    });
    holder.batch_execute("ROLLBACK").unwrap();
    let again = within(Duration::from_secs(10), "the server is well again", || {
        let answer = rp.refresh(tokens.refresh_token(), &[]);
        (answer.status == 200).then_some(answer)
    });
    // A lock that is held for less than that is waited for.
    holder.batch_execute("BEGIN IMMEDIATE").unwrap();
    thread::scope(|scope| {
        let refreshing = scope.spawn(|| rp.refresh(again.refresh_token(), &[]).status);
        pause(Duration::from_secs(2));
        holder.batch_execute("ROLLBACK").unwrap();
        assert_eq!(refreshing.join().unwrap(), 200);
    });
    drop(holder);
    base.assert_back();
    assert_sound(&installation.store());
}

pub fn well_again(rp: &Rp, tokens: &Answer) -> Answer {
    within(Duration::from_secs(10), "the server is well again", || {
        let answer = rp.refresh(tokens.refresh_token(), &[]);
        assert!([200, 503].contains(&answer.status), "{}", answer.json);
        let ready = rp.get("/readyz").status == 200;
        (answer.status == 200 && ready).then_some(answer)
    })
}

#[test]
fn r8_everybody_who_writes_waits_for_a_short_lock_and_is_told_of_a_long_one() {
    let (installation, rp) = installation();
    let server = installation.start();
    let chains: Vec<_> = (0..8).map(|_| connect(&rp)).collect();
    let reader = connect(&rp);
    let base = base(&server, &rp);
    let path = installation.path("latchkey.db");
    let mut holder = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    holder.batch_execute("PRAGMA busy_timeout=5000").unwrap();
    let (chains, short) = while_apps_refresh(&rp, chains, Network::Reliable, |story| {
        holder.batch_execute("BEGIN IMMEDIATE").unwrap();
        pause(Duration::from_secs(3));
        holder.batch_execute("ROLLBACK").unwrap();
        story.wait_until_all_are(Told::Tokens, Instant::now(), Duration::from_secs(5));
    });
    assert_eq!(short.count(Told::Later), 0, "less than they wait for");
    assert!(short.slowest(Told::Tokens) > Duration::from_millis(2_500));
    let (chains, long) = while_apps_refresh(&rp, chains, Network::Reliable, |story| {
        holder.batch_execute("BEGIN IMMEDIATE").unwrap();
        let held = Instant::now();
        // What was asked before is answered first.
        within(2 * AT_MOST, "each app is told to come again", || {
            let began = Instant::now();
            assert_eq!(rp.get("/jwks").status, 200);
            assert_eq!(rp.userinfo(reader.access_token()).status, 200);
            assert!(began.elapsed() < Duration::from_secs(3), "reads go on");
            story.all_are(Told::Later, held).then_some(())
        });
        holder.batch_execute("ROLLBACK").unwrap();
        story.wait_until_all_are(Told::Tokens, Instant::now(), Duration::from_secs(10));
    });
    assert!(long.slowest(Told::Later) < AT_MOST);
    eprintln!(
        "a lock of 3 s: {:.1?} for the slowest of 8; a longer one: refused after {:.1?}",
        short.slowest(Told::Tokens),
        long.slowest(Told::Later)
    );
    drop(holder);
    assert_unharmed(&installation, &rp, server, &base, &chains);
}

/// What can be read is, what must be written is not, and nobody is told that it was.
fn assert_reads_only(installation: &Installation, rp: &Rp, tokens: &Answer) {
    let refused = rp.refresh(tokens.refresh_token(), &[]);
    assert_eq!(refused.error(), (503, "temporarily_unavailable"));
    assert!(refused.headers.contains_key("retry-after"));
    for path in ["/jwks", "/.well-known/openid-configuration", "/login"] {
        let answer = reqwest::blocking::get(format!("{}{path}", installation.issuer)).unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
    let mut browser = Browser::new(&installation.issuer);
    let page = browser.get("/login");
    let page = browser.sign_in(&page);
    assert_eq!(
        (page.status, page.has("#op-error")),
        (503, true),
        "{}",
        page.body
    );
}

#[test]
fn r6_on_a_full_disk_what_can_be_read_is_and_nothing_is_lost() {
    let Some(disk) = Disk::new() else { return };
    let (installation, rp) = prepared(Installation::in_folder(disk.folder()));
    let server = installation.start();
    let mut tokens = connect(&rp);
    let base = base(&server, &rp);
    disk.fill();
    // What the database's log has room for already can still be written.
    loop {
        let answer = rp.refresh(tokens.refresh_token(), &[]);
        if answer.status != 200 {
            break;
        }
        tokens = answer;
    }
    assert_reads_only(&installation, &rp, &tokens);
    disk.empty();
    let tokens = well_again(&rp, &tokens);
    assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
    assert_unharmed(&installation, &rp, server, &base, &[tokens]);
}

#[test]
fn r6_a_log_that_can_not_be_written_stops_nothing() {
    let (installation, rp) = installation();
    let server = installation.start_with_a_full_log();
    let base = base(&server, &rp);
    let stolen = connect(&rp);
    let next = rp.refresh(stolen.refresh_token(), &[]);
    let last = rp.refresh(next.refresh_token(), &[]);
    assert_eq!(last.status, 200, "{}", last.json);
    assert_eq!(rp.get("/livez").status, 200);
    // What has something to say about it is done all the same.
    assert_eq!(rp.refresh(stolen.refresh_token(), &[]).status, 400);
    assert_eq!(rp.refresh(last.refresh_token(), &[]).status, 400);
    assert_eq!(rp.userinfo(last.access_token()).status, 401);
    base.assert_back();
    assert_sound(&installation.store());
}

#[test]
fn n6_a_head_that_does_not_end_is_cut_off_and_so_is_a_body() {
    let op = Op::start(Database::Sqlite, &[]);
    let url = address(&op.issuer);
    let slowly = |head: String, most: Duration| {
        let stream = TcpStream::connect(url).unwrap();
        let began = Instant::now();
        (&stream).write_all(head.as_bytes()).unwrap();
        // One byte a second keeps a line busy for ever, unless somebody looks at the whole.
        thread::scope(|scope| {
            scope.spawn(|| {
                while began.elapsed() < most && (&stream).write_all(b"x").is_ok() {
                    pause(Duration::from_secs(1));
                }
            });
            let said = rest(&stream);
            (said, began.elapsed())
        })
    };
    thread::scope(|scope| {
        let head = scope.spawn(|| {
            slowly(
                format!("GET /login HTTP/1.1\r\nhost: {url}\r\nx-slow: "),
                Duration::from_secs(12),
            )
        });
        let body = scope.spawn(|| {
            let head = format!(
                "POST /token HTTP/1.1\r\nhost: {url}\r\n{FORM}content-length: 60000\r\n\r\n"
            );
            slowly(head, Duration::from_secs(22))
        });
        let (said, after) = head.join().unwrap();
        assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
        assert!(after < Duration::from_secs(10), "{after:?}");
        let (said, after) = body.join().unwrap();
        assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
        assert!(after < Duration::from_secs(20), "{after:?}");
        // Nobody else waited.
        assert_eq!(
            reqwest::blocking::get(op.url("/login")).unwrap().status(),
            200
        );
    });
}

#[test]
fn k10_whoever_speaks_no_http_writes_no_errors_into_our_log() {
    let (installation, _rp) = installation();
    let server = installation.start();
    for request in ["\u{1}\u{2}\r\n\r\n", "GET /login HTTP/9.9\r\n\r\n"] {
        let stream = TcpStream::connect(server.host()).unwrap();
        (&stream).write_all(request.as_bytes()).unwrap();
        assert!(rest(&stream).starts_with("HTTP/1.1 400 "), "{request:?}");
    }
    // The log is in the order of the requests, so what came before is in it when this is.
    let last = reqwest::blocking::get(format!("{}/jwks", installation.issuer)).unwrap();
    let id = last.headers()["x-request-id"].to_str().unwrap();
    let log = eventually("the last request is logged", || {
        Some(server.log()).filter(|log| log.contains(id))
    });
    let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors, [""; 0]);
}

/// A start with this configuration: how it ended, and what it said.
fn start_with(text: &str) -> (Option<i32>, String) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("latchkey.toml");
    fs::write(&file, text).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_latchkey"))
        .args(["serve", "--config"])
        .arg(&file)
        .current_dir(folder.path())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = eventually("it refuses to start", || child.try_wait().unwrap());
    let mut said = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(
        !folder.path().join("latchkey.db").exists(),
        "nothing is made: {text}"
    );
    (ended.code(), said)
}

#[test]
fn r30_no_bad_configuration_starts_and_each_is_told_its_key() {
    let good = "issuer = \"https://id.example.test\"\n";
    let table = [
        ("", "issuer"),
        ("issuer = \"http://id.example.test\"", "issuer"),
        ("issuer = \"https://id.example.test/\"", "issuer"),
        ("issuer = \"https://id.example.test?x\"", "issuer"),
        (
            "issuer = \"https://user:hunter2@id.example.test\"",
            "issuer",
        ),
        ("issuer = 7", "issuer"),
        ("isuer = \"https://id.example.test\"", "issuer"),
        ("GOOD listen = \"nowhere\"", "listen"),
        ("GOOD listen = \"127.0.0.1:99999\"", "listen"),
        ("GOOD secret_key = \"hunter2\"", "secret_key"),
        ("GOOD secret_key_file = \"/nowhere\"", "secret_key_file"),
        (
            "GOOD database.url = \"mysql://a:hunter2@db/x\"",
            "database.url",
        ),
        (
            "GOOD database.url = \"postgres://a:hunter2@db/x\"",
            "secret_key",
        ),
        ("GOOD trusted_proxies = [\"everybody\"]", "trusted_proxies"),
        ("GOOD log.level = \"loud\"", "log.level"),
        ("GOOD tokens.code = \"1d\"", "tokens.code"),
        ("GOOD tokens.access = \"soon\"", "tokens.access"),
        ("GOOD session.idle = \"300d\"", "session.idle"),
        (
            "GOOD throttle.account_failures = 0",
            "throttle.account_failures",
        ),
        (
            "GOOD password.minimum_length = 4",
            "password.minimum_length",
        ),
        ("GOOD password.memory_kib = 1", "password.memory_kib"),
        ("GOOD keys.algorithms = [\"none\"]", "keys.algorithms"),
        (
            "GOOD keys.publish_before = \"30d\"\nkeys.rotate_every = \"2d\"",
            "keys.publish_before",
        ),
        ("GOOD [tokens", "latchkey.toml"),
    ];
    thread::scope(|scope| {
        for part in table.chunks(6) {
            scope.spawn(move || {
                for (text, key) in part {
                    let text = text.replace("GOOD ", good);
                    let (code, said) = start_with(&text);
                    assert_eq!(code, Some(1), "{text}\n{said}");
                    assert!(said.contains(key), "{text}\n{said}");
                    assert!(!said.contains("hunter2"), "{text}\n{said}");
                }
            });
        }
    });
}
