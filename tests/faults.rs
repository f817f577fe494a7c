//! What goes wrong around a server: the real binary, and what a request sees of it. Rows R6, R8, R10, R11, R27, R28, R30
//! and N6.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, PgConnection, SqliteConnection};
use serde_json::json;
use tempfile::TempDir;

use crate::support::browser::Browser;
use crate::support::installation::{Installation, Process};
use crate::support::invariants::assert_sound;
use crate::support::op::{CALLBACK, Database, EMAIL, Op, PASSWORD, SECRET};
use crate::support::own_postgres::OwnPostgres;
use crate::support::postgres;
use crate::support::relying_party::{Answer, Rp};
use crate::support::wait::{eventually, pause, within};

/// The six seconds of the contract, and what a busy machine adds.
const AT_MOST: Duration = Duration::from_millis(7_500);
const FORM: &str = "content-type: application/x-www-form-urlencoded\r\n";

fn installation() -> (Installation, Rp) {
    prepared(Installation::new(Database::Sqlite))
}

/// With alice and an app that refreshes.
pub fn prepared(installation: Installation) -> (Installation, Rp) {
    let rp = populate(&installation);
    (installation, rp)
}

fn populate(installation: &Installation) -> Rp {
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

fn address(url: &str) -> &str {
    url.strip_prefix("http://").unwrap()
}

/// What the server says on a connection until it closes it.
fn rest(mut stream: &TcpStream) -> String {
    stream
        .set_read_timeout(Some(Duration::from_secs(40)))
        .unwrap();
    let mut text = Vec::new();
    let _reset = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn r27_what_was_accepted_before_sigterm_is_answered() {
    let (installation, rp) = installation();
    let mut server = installation.start();
    let chains: Vec<_> = (0..8).map(|_| connect(&rp)).collect();
    let body = format!("token=unknown&client_id=notes&client_secret={SECRET}");
    let host = address(&installation.issuer);
    let head = format!(
        "POST /introspect HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{FORM}content-length: {}\r\n\r\n",
        body.len()
    );
    let mut accepted = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(address(&server.url)).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        accepted.push(stream);
    }
    // Of each request the head has been read when the signal comes, so an answer is owed.
    pause(Duration::from_secs(1));
    server.signal("-TERM");
    pause(Duration::from_millis(300));
    // Whoever looks meanwhile sees a server that lives, takes nothing new, and still counts.
    for (path, status) in [("/livez", 200), ("/readyz", 503), ("/metrics", 200)] {
        let answer = server.management(path).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    for stream in &mut accepted {
        stream.write_all(body.as_bytes()).unwrap();
    }
    let answered: Vec<_> = accepted.iter().map(rest).collect();
    let good = answered
        .iter()
        .filter(|answer| answer.starts_with("HTTP/1.1 200 "))
        .count();
    assert_eq!(good, 100, "{answered:?}");
    assert_eq!(server.wait(), Some(0));
    let _server = installation.start();
    for tokens in chains {
        assert_eq!(rp.refresh(tokens.refresh_token(), &[]).status, 200);
    }
}

#[test]
fn r8_a_write_lock_that_somebody_holds_delays_writes_and_nothing_else() {
    let (installation, rp) = installation();
    let _server = installation.start();
    let tokens = connect(&rp);
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
    assert_sound(&installation.store());
}

/// What holds while PostgreSQL is away; the refresh token is as good afterwards.
fn assert_bears_it(installation: &Installation, rp: &Rp, tokens: &Answer) {
    let began = Instant::now();
    let refused = rp.refresh(tokens.refresh_token(), &[]);
    let after = began.elapsed();
    assert_eq!(refused.error(), (503, "temporarily_unavailable"));
    assert!(refused.headers.contains_key("retry-after"));
    assert!(after < AT_MOST, "{after:?}");
    let get = |path: &str| {
        let began = Instant::now();
        let answer = reqwest::blocking::get(format!("{}{path}", installation.issuer)).unwrap();
        (answer.status().as_u16(), began.elapsed())
    };
    for path in ["/jwks", "/.well-known/openid-configuration", "/livez"] {
        let (status, after) = get(path);
        assert_eq!(status, 200, "{path}");
        assert!(after < Duration::from_secs(3), "{path}: {after:?}");
    }
    let (status, after) = get("/readyz");
    assert!(status == 503 && after < AT_MOST, "{status} {after:?}");
}

fn well_again(rp: &Rp, tokens: &Answer) -> Answer {
    within(Duration::from_secs(10), "the server is well again", || {
        let answer = rp.refresh(tokens.refresh_token(), &[]);
        assert!([200, 503].contains(&answer.status), "{}", answer.json);
        (answer.status == 200).then_some(answer)
    })
}

#[test]
fn r10_while_postgresql_is_away_nothing_hangs_and_afterwards_everything_goes_on() {
    let Some(mut cluster) = OwnPostgres::start() else {
        return;
    };
    let (installation, rp) = prepared(Installation::on_postgres(cluster.create_database()));
    let _server = installation.start();
    let mut tokens = connect(&rp);
    for _ in 0..2 {
        cluster.crash();
        assert_bears_it(&installation, &rp, &tokens);
        cluster.start_again();
        tokens = well_again(&rp, &tokens);
    }
    assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
    assert_sound(&installation.store());
}

#[test]
fn r11_a_postgresql_that_stands_still_is_one_that_is_away() {
    let Some(cluster) = OwnPostgres::start() else {
        return;
    };
    let (installation, rp) = prepared(Installation::on_postgres(cluster.create_database()));
    let _server = installation.start();
    let tokens = connect(&rp);
    cluster.freeze();
    assert_bears_it(&installation, &rp, &tokens);
    // Long enough for everything that waits to have given up.
    pause(Duration::from_secs(8));
    assert_bears_it(&installation, &rp, &tokens);
    cluster.thaw();
    let tokens = well_again(&rp, &tokens);
    assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
    assert_sound(&installation.store());
}

/// What a server says of itself that waits for its database, at once.
/// What a page looks like is there, too.
fn assert_styled(page: &str, fetch: impl Fn(&str) -> reqwest::blocking::Response) {
    let style = page.split("rel=\"stylesheet\" href=\"").nth(1).unwrap();
    let style = fetch(style.split('"').next().unwrap());
    assert_eq!(style.status(), 200);
    assert!(
        style.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/css")
    );
    assert!(style.text().unwrap().contains("--paper"));
}

fn assert_waits(installation: &Installation, server: &Process) {
    let http = reqwest::blocking::Client::new();
    let url = |path: &str| format!("{}{path}", installation.issuer);
    let live = eventually("it lives", || http.get(url("/livez")).send().ok());
    assert_eq!(live.status(), 200);
    assert!(live.headers().contains_key("x-request-id"));
    for request in [
        http.get(url("/readyz")),
        http.get(url("/jwks")),
        http.get(url("/login")),
        http.post(url("/token")).body("grant_type=refresh_token"),
    ] {
        let began = Instant::now();
        let answer = request.send().unwrap();
        assert_eq!(answer.status(), 503, "{}", answer.url());
        assert!(answer.headers().contains_key("retry-after"));
        assert!(began.elapsed() < Duration::from_secs(3), "{}", answer.url());
        let is_page = answer.url().path() == "/login";
        let body = answer.text().unwrap();
        if is_page {
            assert_styled(&body, |path| http.get(url(path)).send().unwrap());
        }
        let expected = match is_page {
            true => "id=\"op-error\"",
            false => "temporarily_unavailable",
        };
        assert!(body.contains(expected), "{body}");
    }
    for (path, status) in [("/livez", 200), ("/readyz", 503)] {
        let answer = server.management(path).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}

#[test]
fn r10_a_server_that_is_started_before_its_postgresql_waits_for_it() {
    let Some(mut cluster) = OwnPostgres::start() else {
        return;
    };
    let url = cluster
        .create_database()
        .replace("postgres@", "postgres:hunter2@");
    let installation = Installation::on_postgres(url);
    cluster.crash();
    let mut server = installation.launch(installation.port());
    assert_waits(&installation, &server);
    // A few attempts, which nobody wants to read one by one.
    pause(Duration::from_secs(5));
    assert_waits(&installation, &server);
    let waiting: Vec<_> = server
        .log()
        .lines()
        .filter(|line| line.contains("WARN"))
        .map(str::to_owned)
        .collect();
    assert!(
        matches!(&waiting[..], [line] if line.contains("waiting for PostgreSQL") && line.contains("onnection")),
        "{waiting:?}"
    );
    cluster.start_again();
    let ready = || {
        server
            .management("/readyz")
            .ok()
            .filter(|answer| answer.starts_with("HTTP/1.1 200 "))
    };
    within(Duration::from_secs(10), "it goes on by itself", ready);
    assert!(
        server.log().contains("PostgreSQL is there"),
        "{}",
        server.log()
    );
    let rp = populate(&installation);
    assert_eq!(rp.userinfo(connect(&rp).access_token()).status, 200);
    assert!(!server.log().contains("hunter2"));
    server.signal("-TERM");
    assert_eq!(server.wait(), Some(0));
    cluster.crash();
    let mut server = installation.launch(installation.port());
    assert_waits(&installation, &server);
    server.signal("-TERM");
    assert_eq!(
        server.wait(),
        Some(0),
        "it was told to stop while it waited"
    );
}

#[test]
fn r10_a_postgresql_that_refuses_us_is_not_waited_for() {
    let Some(cluster) = postgres::cluster() else {
        return;
    };
    let url = cluster.create_database(None);
    let name = url.split('?').next().unwrap().rsplit('/').next().unwrap();
    for (url, said) in [
        (
            url.replace(name, "nowhere"),
            "database \"nowhere\" does not exist",
        ),
        (
            url.replace("postgres@", "nobody:hunter2@"),
            "role \"nobody\" does not exist",
        ),
    ] {
        let installation = Installation::on_postgres(url);
        let mut server = installation.launch(installation.port());
        assert_eq!(server.wait(), Some(1), "{}", server.log());
        let log = server.log().replace("\\\"", "\"");
        assert!(log.contains(said), "{log}");
        assert!(!log.contains("hunter2"), "{log}");
    }
}

#[test]
fn r10_a_server_lives_while_it_waits_for_another_to_migrate() {
    let Some(cluster) = postgres::cluster() else {
        return;
    };
    let url = cluster.create_database(None);
    let mut migrating = PgConnection::establish(&url).unwrap();
    // As every process does that migrates (src/store/migrations.rs).
    migrating
        .batch_execute("SELECT pg_advisory_lock(x'6c617463686b6579'::bigint)")
        .unwrap();
    let installation = Installation::on_postgres(url);
    let mut server = installation.launch(installation.port());
    for _ in 0..4 {
        assert_waits(&installation, &server);
        pause(Duration::from_secs(1));
    }
    drop(migrating);
    server.wait_until_ready();
}

/// A small disk in memory; it goes with the test. Only root can have one.
pub struct Disk(TempDir);

impl Disk {
    pub fn new() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(folder));
        }
        eprintln!("left out: no file system can be mounted here");
        None
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes until nothing more goes in.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.path("filling")).unwrap();
        for size in [64 * 1024, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    pub fn empty(&self) {
        fs::remove_file(self.path("filling")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _busy = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
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
    let (installation, rp) = prepared(Installation::in_folder(disk.0.path()));
    let _server = installation.start();
    let tokens = connect(&rp);
    disk.fill();
    assert_reads_only(&installation, &rp, &tokens);
    disk.empty();
    let tokens = well_again(&rp, &tokens);
    assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
    assert_sound(&installation.store());
}

#[test]
fn r6_a_log_that_can_not_be_written_stops_nothing() {
    let (installation, rp) = installation();
    let _server = installation.start_with_a_full_log();
    let stolen = connect(&rp);
    let next = rp.refresh(stolen.refresh_token(), &[]);
    let last = rp.refresh(next.refresh_token(), &[]);
    assert_eq!(last.status, 200, "{}", last.json);
    assert_eq!(rp.get("/livez").status, 200);
    // What has something to say about it is done all the same.
    assert_eq!(rp.refresh(stolen.refresh_token(), &[]).status, 400);
    assert_eq!(rp.refresh(last.refresh_token(), &[]).status, 400);
    assert_eq!(rp.userinfo(last.access_token()).status, 401);
    assert_sound(&installation.store());
}

#[test]
fn r28_a_server_that_ran_out_of_files_goes_on_when_it_has_some_again() {
    let (installation, rp) = installation();
    let _server = installation.start_with_files(128);
    let tokens = connect(&rp);
    let url = address(&installation.issuer).to_owned();
    let held: Vec<_> = (0..300)
        .filter_map(|_| TcpStream::connect(&url).ok())
        .collect();
    assert!(held.len() > 128, "{}", held.len());
    pause(Duration::from_secs(1));
    drop(held);
    let answer = within(Duration::from_secs(10), "it answers again", || {
        let answer = rp.try_refresh(tokens.refresh_token()).ok()?;
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(rp.userinfo(answer.access_token()).status, 200);
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
