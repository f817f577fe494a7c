//! The real binary: its words, its exit codes, its files.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use latchkey::protocol::jose::{KeyPair, SigningAlgorithm};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::op::free_port;

const PASSWORD: &str = "a-lantern-over-quiet-water";
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with a configuration, in which commands run.
struct Place {
    directory: TempDir,
    port: u16,
}

struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

/// A server that ends with the test.
struct Server {
    child: Child,
    port: u16,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            directory: tempfile::tempdir().unwrap(),
            port: free_port(),
        };
        let port = place.port;
        let config = format!(
            "issuer = \"http://localhost:{port}\"\nlisten = \"127.0.0.1:{port}\"\n\
             [management]\nlisten = \"unix:{}\"\n[password]\nmemory_kib = 7168\niterations = 1\n",
            place.path("management.sock").display()
        );
        place.write("latchkey.toml", &config);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear();
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Done {
        self.run_with_input(arguments, "")
    }

    fn run_with_input(&self, arguments: &[&str], input: &str) -> Done {
        let mut child = self.command(arguments).spawn().unwrap();
        // A command that reads nothing may have ended already.
        let _closed = child.stdin.take().unwrap().write_all(input.as_bytes());
        // A server that was to refuse, but did not, would otherwise keep the test waiting for ever.
        let status = wait(&mut child);
        let (mut out, mut err) = (String::new(), String::new());
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut out)
            .unwrap();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut err)
            .unwrap();
        Done {
            code: status.code(),
            out,
            err,
        }
    }

    fn serve(&self) -> Server {
        Server::start(self.command(&["serve"]), self.port)
    }

    fn objects(&self, arguments: &[&str]) -> Vec<Value> {
        let done = self.run(&[arguments, &["--output", "json"]].concat());
        assert_eq!(done.code, Some(0), "{}", done.err);
        done.out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Server {
    /// Waits until it says that it is ready.
    fn start(mut command: Command, port: u16) -> Self {
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let server = Self { child, port };
        poll(|| {
            server
                .get("/readyz")
                .is_some_and(|(status, _)| status == 200)
        });
        server
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let response = reqwest::blocking::get(url).ok()?;
        Some((response.status().as_u16(), response.text().ok()?))
    }

    fn published_keys(&self) -> BTreeSet<String> {
        let (_, body) = self.get("/jwks").unwrap();
        let document: Value = serde_json::from_str(&body).unwrap();
        let keys = document["keys"]
            .as_array()
            .unwrap_or_else(|| panic!("{body}"));
        keys.iter()
            .map(|key| key["kid"].as_str().unwrap().to_owned())
            .collect()
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    fn first_lines(&mut self, count: usize) -> Vec<String> {
        let out = BufReader::new(self.child.stdout.take().unwrap());
        out.lines().take(count).map(Result::unwrap).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _status = self.child.wait();
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("the process did not end");
        }
        pause();
    }
}

fn poll(mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "it did not happen in time");
        pause();
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "another process goes by the real time; this is between two looks at it"
)]
fn pause() {
    thread::sleep(Duration::from_millis(20));
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .permissions()
        .mode()
        & 0o777
}

#[test]
fn config_check_lists_all_findings_at_once() {
    let place = Place::new();
    place.write(
        "bad.toml",
        "listen = \"nowhere\"\n[tokens]\ncode = \"2h\"\n[log]\nlevle = \"info\"\n",
    );
    let done = place.run(&["config", "check", "--config", "bad.toml"]);
    assert_eq!(done.code, Some(1));
    for part in [
        "issuer",
        "bad.toml:1: listen",
        "bad.toml:3: tokens.code",
        "bad.toml:5: log.levle",
    ] {
        assert!(done.out.contains(part), "{part} in {}", done.out);
    }
}

#[test]
fn what_counts_is_shown_with_where_it_comes_from_and_without_secrets() {
    let place = Place::new();
    let issuer = "https://id.example.test";
    let secret = "5a".repeat(32);
    place.write(
        "other.toml",
        &format!("issuer = \"{issuer}\"\nsecret_key = \"{secret}\"\n[tokens]\ncode = \"30s\"\n"),
    );
    let mut command = place.command(&["config", "show", "--sources", "--config", "other.toml"]);
    command.env(
        "LATCHKEY_DATABASE__URL",
        "postgres://latchkey:hunter2@db.example/latchkey",
    );
    command.env("LATCHKEY_TOKENS__ACCESS", "5m");
    let done = command.output().unwrap();
    assert!(done.status.success());
    let out = String::from_utf8(done.stdout).unwrap();
    let line = |key: &str| {
        let found = out
            .lines()
            .find(|line| line.split_whitespace().next() == Some(key));
        found
            .unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(line("issuer"), format!("issuer \"{issuer}\" other.toml:1"));
    assert_eq!(line("secret_key"), "secret_key (hidden) other.toml:2");
    assert_eq!(line("tokens.code"), "tokens.code \"30s\" other.toml:4");
    assert_eq!(
        line("tokens.access"),
        "tokens.access \"5m\" LATCHKEY_TOKENS__ACCESS"
    );
    assert_eq!(
        line("database.url"),
        "database.url (hidden) LATCHKEY_DATABASE__URL"
    );
    assert_eq!(line("tokens.id"), "tokens.id \"10m\" default");
    assert!(!out.contains("hunter2") && !out.contains(&secret), "{out}");
    // One that is wrong is shown as well, and what is wrong with it is said.
    place.write("wrong.toml", "listen = \"nowhere\"\n");
    let wrong = place.run(&["config", "show", "--config", "wrong.toml"]);
    assert_eq!(wrong.code, Some(1));
    assert!(
        wrong.out.contains("\"nowhere\"") && wrong.err.contains("issuer"),
        "{}",
        wrong.err
    );
}

#[test]
fn the_configuration_may_be_named_before_or_after_the_verb() {
    let place = Place::new();
    fs::rename(place.path("latchkey.toml"), place.path("other.toml")).unwrap();
    for arguments in [
        ["--config", "other.toml", "config", "check"],
        ["config", "check", "--config", "other.toml"],
    ] {
        assert_eq!(place.run(&arguments).code, Some(0));
    }
    assert_eq!(place.run(&["config", "check"]).code, Some(1));
}

#[test]
fn a_command_with_a_bad_configuration_says_everything_on_standard_error() {
    let place = Place::new();
    place.write("latchkey.toml", "listen = \"nowhere\"\n");
    let done = place.run(&["users", "list"]);
    assert_eq!((done.code, done.out.as_str()), (Some(1), ""));
    assert!(
        done.err.contains("issuer") && done.err.contains("listen"),
        "{}",
        done.err
    );
}

#[test]
fn usage_errors_end_with_exit_code_2() {
    let place = Place::new();
    let usages: [&[&str]; 8] = [
        &[],
        &["sevre"],
        &["users"],
        &["users", "create"],
        &["users", "list", "--output", "xml"],
        &["dev", "--port", "0"],
        &["audit", "verify", "--head", ""],
        &["audit", "verify", "--head", "xyz"],
    ];
    for arguments in usages {
        assert_eq!(place.run(arguments).code, Some(2), "{arguments:?}");
    }
}

#[test]
fn a_password_in_a_wrong_argument_is_not_repeated() {
    let place = Place::new();
    let target = format!("sqlite://{}", place.path("copy.db").display());
    for url in [
        "mysql://u:hunter2@h/d",
        "postgres://u:hunter2 @h/d",
        "postgres://u:hunter2/x@h",
    ] {
        let done = place.run(&["db", "copy", "--from", url, "--to", &target]);
        assert_eq!(done.code, Some(2), "{}", done.err);
        assert!(
            done.err.contains("--from <URL> must be") && !done.err.contains("hunter2"),
            "{}",
            done.err
        );
    }
}

#[test]
fn a_password_of_the_configuration_is_in_no_error_of_the_database() {
    let place = Place::new();
    let refused = |url: &str| {
        let mut command = place.command(&["users", "list"]);
        command.env("LATCHKEY_SECRET_KEY", "5e".repeat(32));
        let done = command.env("LATCHKEY_DATABASE__URL", url).output().unwrap();
        assert_eq!(done.status.code(), Some(1));
        String::from_utf8(done.stderr).unwrap()
    };
    for url in [
        "postgres://u:S3cr%t@h/d",
        "postgres://u:hunter2/xyz@h",
        "postgres://u:hun@ter2@h",
    ] {
        let said = refused(url);
        assert!(said.contains("percent-encoded"), "{said}");
        for part in ["S3cr", "hun", "ter2"] {
            assert!(!said.contains(part), "{said}");
        }
    }
    // libpq's own words, on one line.
    let said = refused("postgres://u:hunter2@127.0.0.1:1/d?sslmode=hunter2");
    assert!(
        said.contains("sslmode") && !said.contains("hunter2") && said.lines().count() == 1,
        "{said}"
    );
    let said = refused("postgres://u:hunter2@127.0.0.1:1/d");
    assert!(said.contains("refused") && !said.contains('\t'), "{said}");
}

#[test]
fn a_link_that_leads_nowhere_is_a_configuration_that_cannot_be_read() {
    let place = Place::new();
    fs::remove_file(place.path("latchkey.toml")).unwrap();
    std::os::unix::fs::symlink("absent.toml", place.path("latchkey.toml")).unwrap();
    let done = place.run(&["config", "check"]);
    assert_eq!(done.code, Some(1));
    assert!(
        done.out.contains("latchkey.toml: cannot be read"),
        "{}",
        done.out
    );
    // Nothing is named by an empty variable.
    fs::remove_file(place.path("latchkey.toml")).unwrap();
    let mut command = place.command(&["config", "check"]);
    command.env("LATCHKEY_CONFIG", "");
    command.env("LATCHKEY_ISSUER", "https://id.example.test");
    assert!(command.status().unwrap().success());
}

#[test]
fn dev_refuses_a_configuration_that_it_would_not_read() {
    let place = Place::new();
    for arguments in [
        ["--config", "latchkey.toml", "dev"],
        ["dev", "--config", "absent.toml"],
    ] {
        let done = place.run(&arguments);
        assert_eq!(done.code, Some(2));
        assert!(
            done.err.contains("dev needs no configuration"),
            "{}",
            done.err
        );
    }
    assert!(!place.path("latchkey-dev").exists());
}

#[test]
fn the_reference_and_what_counts_are_values_for_scripts() {
    let place = Place::new();
    let keys = place.objects(&["config", "reference"]);
    let find = |keys: &[Value], name: &str| {
        let found = keys.iter().find(|key| key["key"] == name);
        found.unwrap_or_else(|| panic!("{name}")).clone()
    };
    let failures = find(&keys, "throttle.account_failures");
    assert_eq!(failures["default"], 10);
    assert_eq!(failures["variable"], "LATCHKEY_THROTTLE__ACCOUNT_FAILURES");
    assert_eq!(
        find(&keys, "keys.algorithms")["default"],
        json!(["RS256", "ES256"])
    );
    assert_eq!(find(&keys, "issuer")["required"], true);
    let url = find(&keys, "database.url");
    assert_eq!(url["file_variable"], "LATCHKEY_DATABASE__URL_FILE");

    let mut command = place.command(&["config", "show", "--output", "json"]);
    command.env("LATCHKEY_TRUSTED_PROXIES", "10.0.0.0/8, ::1");
    command.env("LATCHKEY_THROTTLE__ACCOUNT_FAILURES", "7");
    let done = command.output().unwrap();
    let shown: Vec<Value> = String::from_utf8(done.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(find(&shown, "throttle.account_failures")["value"], 7);
    assert_eq!(
        find(&shown, "trusted_proxies")["value"],
        json!(["10.0.0.0/8", "::1"])
    );
    assert_eq!(find(&shown, "log.level")["value"], "info");
    assert_eq!(find(&shown, "password.iterations")["value"], 1);
    assert_eq!(find(&shown, "secret_key")["value"], Value::Null);
}

#[test]
fn what_is_held_on_a_person_is_one_line_for_a_script() {
    let place = Place::new();
    place.run_with_input(
        &["users", "create", "alice@example.test"],
        &format!("{PASSWORD}\n"),
    );
    let held = place.objects(&["users", "export", "alice@example.test"]);
    assert_eq!(held.len(), 1);
    assert_eq!(held[0]["email"], "alice@example.test");
    let read = place.run(&["users", "export", "alice@example.test"]).out;
    assert!(read.lines().count() > 10, "{read}");
}

#[test]
fn a_development_server_lives_in_a_folder_with_a_space_and_tells_a_script_where() {
    let place = Place::new();
    let port = place.port.to_string();
    let command = place.command(&[
        "dev",
        "--data-dir",
        "my dir",
        "--port",
        &port,
        "--output",
        "json",
    ]);
    let mut server = Server::start(command, place.port);
    let line = server.first_lines(1).remove(0);
    let told: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(told["issuer"], format!("http://localhost:{port}"));
    assert_eq!(told["client"]["client_id"], "demo-web");
    assert!(told["client"]["client_secret"].is_string());
    assert!(place.path("my dir/latchkey.db").exists());
}

#[test]
fn the_version_is_printed_without_a_configuration() {
    let place = Place::new();
    place.write("latchkey.toml", "?");
    let done = place.run(&["version"]);
    assert_eq!(
        (done.code, done.out),
        (Some(0), format!("latchkey {}\n", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn applying_a_file_twice_is_the_same_as_once() {
    let place = Place::new();
    place.write(
        "seed.toml",
        &format!(
            "[[users]]\nemail = \"alice@example.test\"\npassword = \"{PASSWORD}\"\n\
             [[clients]]\nclient_id = \"notes\"\nclient_name = \"Acme Notes\"\nredirect_uris = [\"https://notes.example.test/callback\"]\n"
        ),
    );
    let first = place.run(&["apply", "seed.toml"]);
    assert_eq!(first.code, Some(0), "{}", first.err);
    assert!(first.out.contains("client_secret="), "{}", first.out);
    let before = (
        place.objects(&["users", "list"]),
        place.objects(&["clients", "list"]),
    );
    let second = place.run(&["apply", "seed.toml"]);
    assert_eq!(
        (second.code, second.out.as_str()),
        (Some(0), "2 unchanged\n")
    );
    assert_eq!(
        (
            place.objects(&["users", "list"]),
            place.objects(&["clients", "list"])
        ),
        before
    );
}

#[test]
fn a_bad_file_changes_nothing_and_every_mistake_is_listed() {
    let place = Place::new();
    let file = format!(
        r#"{{"users": [{{"email": "bob@example.test", "password": "{PASSWORD}"}}, {{"email": "nobody"}}, {{"email": "a@b.test", "admn": true}}],
            "clients": [{{"client_id": "notes", "redirect_uris": ["https://notes.example.test/#x"]}}]}}"#
    );
    let done = place.run_with_input(&["apply", "-"], &file);
    assert_eq!((done.code, done.out.as_str()), (Some(1), ""));
    for part in [
        "users[1].email",
        "users[2].admn",
        "clients[0].redirect_uris",
    ] {
        assert!(done.err.contains(part), "{part} in {}", done.err);
    }
    assert!(place.objects(&["users", "list"]).is_empty());
}

#[test]
fn people_are_created_once_and_their_hash_is_never_shown() {
    let place = Place::new();
    let create = [
        "users",
        "create",
        "Alice@example.test",
        "--admin",
        "--verified",
        "--name",
        "Alice",
        "--group",
        "staff",
    ];
    let done = place.run_with_input(&create, &format!("{PASSWORD}\n"));
    assert_eq!(done.code, Some(0), "{}", done.err);
    let again = place.run_with_input(
        &["users", "create", "alice@example.test"],
        &format!("{PASSWORD}\n"),
    );
    assert_eq!(again.code, Some(1));
    assert!(
        again.err.contains("has an account already"),
        "{}",
        again.err
    );

    let people = place.objects(&["users", "list"]);
    let alice = people.first().unwrap();
    assert_eq!(people.len(), 1);
    assert_eq!(alice["email"], "Alice@example.test");
    assert_eq!(
        (&alice["admin"], &alice["email_verified"]),
        (&Value::Bool(true), &Value::Bool(true))
    );
    assert_eq!(
        (&alice["groups"][0], &alice["claims"]["name"]),
        (&Value::from("staff"), &Value::from("Alice"))
    );
    assert!(!alice.to_string().contains("argon2"));
    let table = place.run(&["users", "list"]).out;
    assert!(
        table.starts_with("EMAIL") && !table.contains("argon2"),
        "{table}"
    );
}

#[test]
fn a_password_is_set_under_the_same_rules_and_only_for_somebody() {
    let place = Place::new();
    place.run_with_input(
        &["users", "create", "alice@example.test"],
        &format!("{PASSWORD}\n"),
    );
    let set =
        |email: &str, input: &str| place.run_with_input(&["users", "set-password", email], input);
    assert_eq!(
        set("alice@example.test", "another-lantern-over-water\n").code,
        Some(0)
    );
    for (email, input, words) in [
        ("alice@example.test", "short\n", "less than 12 characters"),
        ("alice@example.test", "", "standard input"),
        (
            "bob@example.test",
            "another-lantern-over-water\n",
            "nobody has the e-mail",
        ),
    ] {
        let done = set(email, input);
        assert_eq!(done.code, Some(1));
        assert!(done.err.contains(words), "{}", done.err);
        assert_eq!(done.err.lines().count(), 1, "{}", done.err);
    }
}

#[test]
fn a_clients_secret_is_shown_once_and_never_again() {
    let place = Place::new();
    let uri = ["--redirect-uri", "https://notes.example.test/callback"];
    let created = place.objects(
        &[
            &["clients", "create", "--id", "notes", "--name", "Acme Notes"],
            &uri[..],
        ]
        .concat(),
    );
    let secret = created[0]["client_secret"].as_str().unwrap();
    assert!(secret.len() >= 43);
    for output in ["table", "json"] {
        let list = place.run(&["clients", "list", "--output", output]).out;
        assert!(
            list.contains("Acme Notes") && !list.contains(secret) && !list.contains("secret_hash"),
            "{list}"
        );
    }
    let again = place.run(&[&["clients", "create", "--id", "notes"], &uri[..]].concat());
    assert_eq!(again.code, Some(1));
    let public = place.objects(&[&["clients", "create", "--public"], &uri[..]].concat());
    assert!(public[0]["client_id"].is_string() && public[0].get("client_secret").is_none());
}

#[test]
fn a_client_that_refreshes_is_made_with_one_word() {
    let place = Place::new();
    let create = ["clients", "create", "--refresh-tokens", "--redirect-uri"];
    place.objects(&[&create[..], &["https://notes.example.test/callback"]].concat());
    let grants = &place.objects(&["clients", "list"])[0]["grant_types"];
    assert_eq!(*grants, json!(["authorization_code", "refresh_token"]));
}

#[test]
fn a3_no_command_registers_a_redirect_uri_that_leads_elsewhere() {
    let place = Place::new();
    for uri in [
        "https://*.notes.example.test/",
        "https://notes.example.test/#x",
        "javascript:alert(1)",
        "data:text/html,x",
        "http://notes.example.test/",
        "notes:/callback",
        "https://me@notes.example.test/",
        "https://notes.example.test/a/../b",
    ] {
        let create = place.run(&["clients", "create", "--native", "--redirect-uri", uri]);
        assert_eq!((create.code, create.out.as_str()), (Some(1), ""), "{uri}");
        let file = json!({ "clients": [{ "client_id": "notes", "application_type": "native", "redirect_uris": [uri] }] });
        let apply = place.run_with_input(&["apply", "-"], &file.to_string());
        assert_eq!((apply.code, apply.out.as_str()), (Some(1), ""), "{uri}");
        assert!(create.err.contains("--redirect-uri: ") && apply.err.contains("redirect_uris[0]"));
    }
    assert!(place.objects(&["clients", "list"]).is_empty());
}

#[test]
fn a_machine_needs_no_redirect_uri_and_takes_none() {
    let place = Place::new();
    let create = ["clients", "create", "--machine", "--id", "robot"];
    let scope = ["--scope", "orders:read orders:write"];
    let made = &place.objects(&[&create[..], &scope].concat())[0];
    assert_eq!(made["client_secret"].as_str().unwrap().len(), 43);
    let shown = &place.objects(&["clients", "show", "robot"])[0];
    assert_eq!(shown["grant_types"], json!(["client_credentials"]));
    assert_eq!(shown["redirect_uris"], json!([]));
    assert_eq!(shown["scope"], "orders:read orders:write");
    let list = place.run(&["clients", "list"]).out;
    assert!(list.contains("machine"), "{list}");
    for flag in [
        "--public",
        "--refresh-tokens",
        "--redirect-uri=https://notes.example.test/",
    ] {
        let usage = place.run(&["clients", "create", "--machine", flag]);
        assert_eq!(usage.code, Some(2), "{flag}");
    }
    assert_eq!(place.run(&["clients", "create"]).code, Some(2));
}

/// Registers the client `notes` and answers its secret.
fn create_notes(place: &Place) -> String {
    let create = ["clients", "create", "--id", "notes", "--redirect-uri"];
    let made = place.objects(&[&create[..], &["https://notes.example.test/callback"]].concat());
    made[0]["client_secret"].as_str().unwrap().to_owned()
}

#[test]
fn c10_a_client_is_shown_without_its_secrets() {
    let place = Place::new();
    let first = create_notes(&place);
    let added = place.run(&["clients", "add-secret", "notes", "--expires", "90d"]);
    assert_eq!(added.code, Some(0), "{}", added.err);
    let second = added.out.split_once("client_secret=").unwrap().1;
    let second = second.split_whitespace().next().unwrap();
    assert!(second.len() == 43 && second != first, "{}", added.out);

    let shown = &place.objects(&["clients", "show", "notes"])[0];
    assert_eq!(shown["client_id"], "notes");
    let uri = json!(["https://notes.example.test/callback"]);
    assert_eq!(shown["redirect_uris"], uri);
    let secrets = shown["secrets"].as_array().unwrap();
    let prefixes: Vec<_> = secrets.iter().map(|secret| &secret["prefix"]).collect();
    assert_eq!(secrets.len(), 2);
    assert!(prefixes.contains(&&json!(first[..6])) && prefixes.contains(&&json!(second[..6])));
    assert!(
        secrets
            .iter()
            .any(|secret| secret["expires_at"].is_string())
    );
    assert!(
        secrets
            .iter()
            .all(|secret| secret["last_used_at"].is_null())
    );

    let table = place.run(&["clients", "show", "notes"]).out;
    let json = place
        .run(&["clients", "show", "notes", "--output", "json"])
        .out;
    for printed in [&table, &json] {
        assert!(printed.contains(&first[..6]) && printed.contains(&second[..6]));
        for hidden in [&first[..7], &second[..7], "hash"] {
            assert!(!printed.contains(hidden), "{hidden} in {printed}");
        }
    }
}

#[test]
fn c10_a_new_secret_is_shown_in_either_form_this_once() {
    let place = Place::new();
    create_notes(&place);
    let added = &place.objects(&["clients", "add-secret", "notes"])[0];
    let secret = added["client_secret"].as_str().unwrap();
    assert_eq!((secret.len(), &added["client_id"]), (43, &json!("notes")));
    assert_eq!(added["expires_at"], Value::Null);
    let shown = place
        .run(&["clients", "show", "notes", "--output", "json"])
        .out;
    assert!(shown.contains(added["id"].as_str().unwrap()) && !shown.contains(secret));
    for life in ["0", "soon", "3651d"] {
        let arguments = ["clients", "add-secret", "notes", "--expires", life];
        assert_eq!(place.run(&arguments).code, Some(2), "{life}");
    }
}

#[test]
fn even_the_last_secret_can_be_revoked_and_the_command_says_what_that_means() {
    let place = Place::new();
    create_notes(&place);
    let second = place.objects(&["clients", "add-secret", "notes"])[0]["id"].clone();
    let ids: Vec<String> = place.objects(&["clients", "show", "notes"])[0]["secrets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|secret| secret["id"].as_str().unwrap().to_owned())
        .collect();
    let first = ids.iter().find(|id| **id != second).unwrap();
    let done = &place.objects(&["clients", "revoke-secret", "notes", first])[0];
    assert_eq!(
        (&done["left"], &done["from_file"]),
        (&json!(1), &json!(false))
    );
    let last = place.run(&[
        "clients",
        "revoke-secret",
        "notes",
        second.as_str().unwrap(),
    ]);
    assert_eq!(last.code, Some(0), "{}", last.err);
    assert!(last.out.contains("no secret left"), "{}", last.out);
    for arguments in [["notes", first], ["notes", "nothing"], ["nobody", first]] {
        let refused = place.run(&[&["clients", "revoke-secret"][..], &arguments].concat());
        assert_eq!(
            (refused.code, refused.out.as_str()),
            (Some(1), ""),
            "{arguments:?}"
        );
    }
    let revived = place.run(&["clients", "add-secret", "notes"]);
    assert_eq!(revived.code, Some(0), "{}", revived.err);
}

#[test]
fn revoking_the_secret_of_a_file_says_that_the_file_has_it_still() {
    let place = Place::new();
    let secret = "a-secret-of-more-than-thirty-two-characters";
    let file = json!({ "clients": [{ "client_id": "notes", "client_secret": secret,
                                     "redirect_uris": ["https://notes.example.test/callback"] }] });
    place.write("seed.json", &file.to_string());
    assert_eq!(place.run(&["apply", "seed.json"]).code, Some(0));
    let of_file = &place.objects(&["clients", "show", "notes"])[0]["secrets"][0];
    assert_eq!(of_file["from_file"], true);
    let id = of_file["id"].as_str().unwrap();
    let done = place.run(&["clients", "revoke-secret", "notes", id]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.out.contains("latchkey apply"), "{}", done.out);
}

#[test]
fn a_client_is_deleted_once() {
    let place = Place::new();
    create_notes(&place);
    let done = place.run(&["clients", "delete", "notes"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(place.objects(&["clients", "list"]).is_empty());
    for verb in ["delete", "show", "add-secret"] {
        let refused = place.run(&["clients", verb, "notes"]);
        assert_eq!(
            (refused.code, refused.out.as_str()),
            (Some(1), ""),
            "{verb}"
        );
        assert!(refused.err.contains("no") && refused.err.lines().count() == 1);
    }
    create_notes(&place);
}

#[test]
fn of_many_commands_that_make_one_client_one_is_told_its_secret() {
    let place = Place::new();
    place.run(&["migrate", "up"]);
    let create = ["clients", "create", "--id", "notes", "--redirect-uri"];
    let create = [&create[..], &["https://notes.example.test/callback"]].concat();
    let done: Vec<_> = thread::scope(|scope| {
        let commands: Vec<_> = (0..6).map(|_| scope.spawn(|| place.run(&create))).collect();
        commands
            .into_iter()
            .map(|command| command.join().unwrap())
            .collect()
    });
    let (made, refused): (Vec<_>, Vec<_>) = done.iter().partition(|done| done.code == Some(0));
    assert_eq!(made.len(), 1);
    assert!(made[0].out.contains("client_secret="));
    assert!(
        refused
            .iter()
            .all(|done| done.err.contains("exists already"))
    );
    let shown = &place.objects(&["clients", "show", "notes"])[0];
    assert_eq!(shown["secrets"].as_array().unwrap().len(), 1);
}

#[test]
fn a_client_says_where_people_go_after_signing_out() {
    let place = Place::new();
    let home = "https://notes.example.test/";
    let create = |leaving: &str| {
        let create = ["clients", "create", "--redirect-uri", home];
        place.run(&[&create[..], &["--post-logout-redirect-uri", leaving]].concat())
    };
    let refused = create("http://notes.example.test/bye");
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("--post-logout-redirect-uri: "),
        "{}",
        refused.err
    );
    assert_eq!(create(home).code, Some(0));
    let list = place.objects(&["clients", "list"]);
    assert_eq!(list[0]["post_logout_redirect_uris"], json!([home]));
}

#[test]
fn a_running_server_signs_with_the_new_key_when_the_rotation_returns_and_publishes_the_old_one() {
    let place = Place::new();
    let server = place.serve();
    let before = server.published_keys();
    let done = place.run(&["keys", "rotate", "--now"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let after = server.published_keys();
    assert_eq!(before.len(), 2);
    assert_eq!(after.len(), 4);
    assert!(after.is_superset(&before));

    let of_state = |state: &str| -> BTreeSet<String> {
        let keys = place.objects(&["keys", "list"]);
        keys.iter()
            .filter(|key| key["state"] == state)
            .map(|key| key["kid"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(of_state("retired"), before);
    assert_eq!(of_state("current"), &after - &before);
}

#[test]
fn a_client_that_signs_is_made_from_a_file_with_its_keys_and_has_no_secret() {
    let place = Place::new();
    let key = KeyPair::generate(SigningAlgorithm::Es256).unwrap();
    place.write(
        "keys.json",
        &json!({ "keys": [key.public_jwk()] }).to_string(),
    );
    let create = |file: &str| {
        place.run(&[
            "clients",
            "create",
            "--id",
            "signer",
            "--jwks",
            file,
            "--redirect-uri",
            "https://rp.example/callback",
        ])
    };
    for (file, content, said) in [
        ("none.json", None, "none.json can't be read"),
        ("text.json", Some("keys"), "text.json is no JSON"),
        (
            "other.json",
            Some("{}"),
            "jwks: is an object with a list of keys",
        ),
    ] {
        if let Some(content) = content {
            place.write(file, content);
        }
        let refused = create(file);
        assert_eq!(
            (refused.code, refused.out.as_str()),
            (Some(1), ""),
            "{file}"
        );
        assert!(refused.err.contains(said), "{}", refused.err);
    }
    let made = create("keys.json");
    assert_eq!(
        (made.code, made.out.as_str()),
        (Some(0), "client_id=signer\n"),
        "{}",
        made.err
    );
    let shown = place.objects(&["clients", "show", "signer"]);
    assert_eq!(shown[0]["token_endpoint_auth_method"], "private_key_jwt");
    assert_eq!(shown[0]["jwks"]["keys"][0]["kid"], key.kid());
    assert_eq!(shown[0]["secrets"], json!([]));
    let refused = place.run(&["clients", "add-secret", "signer"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("has no secret"), "{}", refused.err);
}

#[test]
fn what_commands_did_is_exported_one_object_a_line() {
    let place = Place::new();
    place.write(
        "seed.toml",
        "[[users]]\nemail = \"alice@example.test\"\n[[clients]]\nclient_id = \"notes\"\nredirect_uris = [\"https://notes.example/\"]\n",
    );
    assert_eq!(place.run(&["apply", "seed.toml"]).code, Some(0));
    assert_eq!(place.run(&["clients", "add-secret", "notes"]).code, Some(0));
    assert_eq!(place.run(&["clients", "delete", "notes"]).code, Some(0));
    assert_eq!(place.run(&["keys", "rotate"]).code, Some(0));
    let events = place.objects(&["audit", "export"]);
    let names: Vec<_> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    for name in [
        "user.created",
        "client.created",
        "client.secret_added",
        "client.deleted",
        "key.published",
    ] {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
    for event in &events {
        assert_eq!(event["actor"], "command");
        let fields = [
            "id",
            "time",
            "event",
            "actor",
            "target",
            "client_id",
            "address",
            "request_id",
            "detail",
        ];
        assert!(
            fields.iter().all(|field| event.get(field).is_some()),
            "{event}"
        );
        assert!(
            event["time"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z'))
        );
    }
}

#[test]
fn what_commands_did_in_one_second_is_exported_in_its_order() {
    let place = Place::new();
    let file = json!({ "users": [{ "email": "bob@example.test" }] }).to_string();
    assert_eq!(place.run_with_input(&["apply", "-"], &file).code, Some(0));
    for verb in ["disable", "enable"].repeat(4) {
        assert_eq!(
            place.run(&["users", verb, "bob@example.test"]).code,
            Some(0)
        );
    }
    let events = place.objects(&["audit", "export"]);
    let names: Vec<_> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    // Last of all comes the export itself.
    let disabled_and_enabled = ["user.disabled", "user.enabled"].repeat(4);
    assert_eq!(names[1..names.len() - 1], disabled_and_enabled);
}

#[test]
fn a_secret_that_could_not_be_printed_is_said_to_be_lost() {
    let place = Place::new();
    let create = ["clients", "create", "--machine", "--id", "robot"];
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let done = place.command(&create).stdout(full).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("latchkey clients add-secret robot"), "{said}");
}

#[test]
fn what_is_over_is_deleted_beside_a_running_server() {
    let place = Place::new();
    let _server = place.serve();
    let deleted = place.objects(&["gc"]);
    assert_eq!(
        deleted,
        [json!({ "deleted": {
            "sessions": 0, "grants": 0, "access_tokens": 0, "client_tokens": 0, "client_assertions": 0,
            "throttles": 0, "audit_events": 0
        } })]
    );
    let done = place.run(&["gc"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.out.starts_with("0 sessions deleted\n"), "{}", done.out);
}

#[test]
fn a_rotation_without_haste_publishes_the_next_keys_only() {
    let place = Place::new();
    let server = place.serve();
    let before = server.published_keys();
    assert_eq!(place.run(&["keys", "rotate"]).code, Some(0));
    poll(|| server.published_keys().len() == 4);
    let keys = place.objects(&["keys", "list"]);
    let current = keys.iter().filter(|key| key["state"] == "current");
    assert!(
        current.clone().count() == 2
            && current
                .clone()
                .all(|key| before.contains(key["kid"].as_str().unwrap()))
    );
}

#[test]
fn one_sqlite_file_has_one_server() {
    let place = Place::new();
    let _server = place.serve();
    let port = free_port();
    let second = format!(
        "issuer = \"http://localhost:{port}\"\nlisten = \"127.0.0.1:{port}\"\n[management]\nlisten = \"127.0.0.1:{}\"\n",
        free_port()
    );
    place.write("second.toml", &second);
    let done = place.run(&["serve", "--config", "second.toml"]);
    assert_eq!(done.code, Some(1));
    assert!(
        done.err.contains("another Latchkey server is using"),
        "{}",
        done.err
    );
}

#[test]
fn development_and_production_do_not_share_a_database() {
    let place = Place::new();
    let port = free_port().to_string();
    let mut dev = Server::start(
        place.command(&["dev", "--data-dir", ".", "--port", &port]),
        port.parse().unwrap(),
    );
    dev.signal("-TERM");
    assert_eq!(wait(&mut dev.child).code(), Some(0));
    let served = place.run(&["serve"]);
    assert_eq!(served.code, Some(1));
    assert!(served.err.contains("development"), "{}", served.err);

    let place = Place::new();
    let mut server = place.serve();
    server.signal("-TERM");
    assert_eq!(wait(&mut server.child).code(), Some(0));
    let dev = place.run(&["dev", "--data-dir", ".", "--port", &port]);
    assert_eq!(dev.code, Some(1));
    assert!(dev.err.contains("production"), "{}", dev.err);
}

#[test]
fn dev_prints_where_everything_is_and_starts_over_only_where_it_is_at_home() {
    let place = Place::new();
    let port = free_port();
    let port_text = port.to_string();
    let mut dev = Server::start(place.command(&["dev", "--port", &port_text]), port);
    let lines = dev.first_lines(6);
    assert!(
        lines[0].starts_with("latchkey 0.1.0 (development)                            ready in "),
        "{}",
        lines[0]
    );
    let sign_in = format!(
        "{:<49}alice@example.test / correct-horse-battery",
        format!("  Sign in      http://localhost:{port}/")
    );
    assert_eq!(lines[1], sign_in);
    assert_eq!(
        lines[2],
        format!("  Test app     http://localhost:{port}/dev/app")
    );
    assert_eq!(
        lines[3],
        format!("  Discovery    http://localhost:{port}/.well-known/openid-configuration")
    );
    assert!(
        lines[4].starts_with("  Client       client_id=demo-web  client_secret="),
        "{}",
        lines[4]
    );
    assert_eq!(
        lines[5],
        "  Data         ./latchkey-dev/latchkey.db        (latchkey dev --fresh starts over)"
    );
    assert_eq!(mode(&place.path("latchkey-dev")), 0o700);

    let taken = place.run(&["dev", "--port", &port_text]);
    assert_eq!(taken.code, Some(1));
    assert!(
        taken.err.contains("--port") && taken.err.lines().count() == 1,
        "{}",
        taken.err
    );
    let running = place.run(&["dev", "--fresh", "--port", &free_port().to_string()]);
    assert_eq!(running.code, Some(1), "{}", running.err);
    assert!(
        running.err.contains("another server is using"),
        "{}",
        running.err
    );
    dev.signal("-TERM");
    assert_eq!(wait(&mut dev.child).code(), Some(0));

    let key = fs::read(place.path("latchkey-dev/secret.key")).unwrap();
    place.write("latchkey-dev/thesis.txt", "years of work");
    let strange = place.run(&["dev", "--fresh", "--port", &port_text]);
    assert_eq!(strange.code, Some(1));
    assert!(strange.err.contains("thesis.txt"), "{}", strange.err);
    assert_eq!(
        fs::read(place.path("latchkey-dev/secret.key")).unwrap(),
        key
    );
    fs::remove_file(place.path("latchkey-dev/thesis.txt")).unwrap();
    let _fresh = Server::start(
        place.command(&["dev", "--fresh", "--port", &port_text]),
        port,
    );
    assert_ne!(
        fs::read(place.path("latchkey-dev/secret.key")).unwrap(),
        key
    );
}

#[test]
fn starting_over_never_removes_a_production_database() {
    let place = Place::new();
    let home = place.path("home");
    fs::create_dir(&home).unwrap();
    let url = format!("sqlite://{}", home.join("latchkey.db").display());
    let mut command = place.command(&["serve"]);
    command.env("LATCHKEY_DATABASE__URL", url);
    let mut server = Server::start(command, place.port);
    server.signal("-TERM");
    wait(&mut server.child);
    let done = place.run(&[
        "dev",
        "--fresh",
        "--data-dir",
        "home",
        "--port",
        &free_port().to_string(),
    ]);
    assert_eq!(done.code, Some(1));
    assert!(
        done.err.contains("not made by latchkey dev"),
        "{}",
        done.err
    );
    assert!(home.join("latchkey.db").exists() && home.join("secret.key").exists());
}

#[test]
fn a_server_that_is_told_to_stop_ends_with_exit_code_0() {
    for signal in ["-TERM", "-INT"] {
        let place = Place::new();
        let mut server = place.serve();
        server.signal(signal);
        assert_eq!(wait(&mut server.child).code(), Some(0), "{signal}");
    }
}

#[test]
fn healthcheck_asks_the_running_server() {
    let place = Place::new();
    let before = place.run(&["healthcheck"]);
    assert_eq!(before.code, Some(1));
    assert!(before.err.contains("no answer"), "{}", before.err);
    let _server = place.serve();
    let during = place.run(&["healthcheck"]);
    assert_eq!(place.objects(&["healthcheck"]), [json!({ "ready": true })]);
    assert_eq!(
        (during.code, during.out.as_str()),
        (Some(0), "ready\n"),
        "{}",
        during.err
    );
}

#[test]
fn healthcheck_says_how_long_it_waited_for_a_server_that_hangs() {
    let place = Place::new();
    let _hangs = TcpListener::bind(("127.0.0.1", place.port)).unwrap();
    let done = place.run(&["healthcheck"]);
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains("within 5 s"), "{}", done.err);
}

#[test]
fn healthcheck_finds_a_server_on_a_socket_and_below_a_path() {
    let place = Place::new();
    let socket = place.path("latchkey.sock");
    let config = format!(
        "issuer = \"https://id.example.test/base\"\nlisten = \"unix:{}\"\n[management]\nlisten = \"127.0.0.1:{}\"\n",
        socket.display(),
        place.port
    );
    place.write("latchkey.toml", &config);
    let _server = place.serve();
    let done = place.run(&["healthcheck"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
}

#[test]
fn the_files_of_a_database_are_for_their_owner_only() {
    let place = Place::new();
    let _server = place.serve();
    for name in [
        "latchkey.db",
        "latchkey.db-wal",
        "latchkey.db-shm",
        "secret.key",
    ] {
        assert_eq!(mode(&place.path(name)), 0o600, "{name}");
    }
}

#[test]
fn of_many_first_commands_one_makes_the_key_and_all_find_it_whole() {
    let place = Place::new();
    let codes: Vec<_> = thread::scope(|scope| {
        let commands: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| place.run_with_input(&["apply", "-"], "{}")))
            .collect();
        commands
            .into_iter()
            .map(|command| command.join().unwrap())
            .map(|done| (done.code, done.err))
            .collect()
    });
    assert!(codes.iter().all(|(code, _)| *code == Some(0)), "{codes:?}");
    let keys: Vec<_> = fs::read_dir(place.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("secret.key"))
        .collect();
    assert_eq!(keys, ["secret.key"], "no draft is left");
    assert_eq!(mode(&place.path("secret.key")), 0o600);
    assert_eq!(fs::read(place.path("secret.key")).unwrap().len(), 65);
}

#[test]
fn a_lost_key_is_not_replaced_even_if_migrations_are_pending() {
    let place = Place::new();
    drop(place.serve());
    fs::remove_file(place.path("secret.key")).unwrap();
    // What an upgrade looks like from outside.
    let database = place.path("latchkey.db");
    SqliteConnection::establish(database.to_str().unwrap())
        .unwrap()
        .batch_execute("DELETE FROM __diesel_schema_migrations")
        .unwrap();
    let refused = place.run(&["serve"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("restore it from a backup"),
        "{}",
        refused.err
    );
    assert!(!place.path("secret.key").exists());
}

#[test]
fn migrations_are_pending_until_they_ran() {
    let place = Place::new();
    let missing = place.run(&["migrate", "status"]);
    assert_eq!(missing.code, Some(1));
    assert!(!place.path("latchkey.db").exists());
    let up = place.run(&["migrate", "up"]);
    assert_eq!(up.code, Some(0), "{}", up.err);
    assert!(up.out.starts_with("applied "), "{}", up.out);
    let status = place.run(&["migrate", "status"]);
    assert_eq!(
        (status.code, status.out.as_str()),
        (Some(0), "the database is up to date\n")
    );
}

#[test]
fn log_lines_of_a_server_are_one_json_object_each() {
    let place = Place::new();
    let mut command = place.command(&["serve"]);
    let log = fs::File::create(place.path("log")).unwrap();
    let child = command.stderr(log).spawn().unwrap();
    let mut server = Server {
        child,
        port: place.port,
    };
    poll(|| {
        server
            .get("/readyz")
            .is_some_and(|(status, _)| status == 200)
    });
    server.get("/jwks").unwrap();
    server.signal("-TERM");
    wait(&mut server.child);
    let text = fs::read_to_string(place.path("log")).unwrap();
    let events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        events
            .iter()
            .any(|event| event["message"] == "request" && event["status"] == 200),
        "{text}"
    );
}
