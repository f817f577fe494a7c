//! What lies in deploy/ works: nginx and systemd look at theirs, and the rest names only what exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use latchkey::config;
use latchkey::store::audit_events;
use latchkey::web::routes::TABLE;
use reqwest::blocking::Client;
use tempfile::TempDir;

use crate::support::op::{Database, EMAIL, Op};
use crate::support::reverse_proxy::{ReverseProxy, deploy, prepare, tool, with};
use crate::support::wait::eventually;

#[test]
fn the_example_configuration_is_the_reference() {
    assert_eq!(deploy("latchkey.toml"), config::reference());
}

/// What stands between two marks of the README.
fn marked(name: &str) -> String {
    let readme = include_str!("../README.md");
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->\n"));
    let after = readme.split_once(&begin).unwrap().1;
    after.split_once(&end).unwrap().0.to_owned()
}

#[test]
fn the_readme_shows_every_key_with_its_default_and_reason() {
    let mut table = "| key | default | |\n|---|---|---|\n".to_owned();
    for entry in config::entries() {
        let default = match (&entry.unset, entry.required) {
            (Some(unset), _) => unset.as_str().unwrap().to_owned(),
            (None, true) => "required".to_owned(),
            (None, false) => format!("`{}`", entry.default.to_string().replace('"', "")),
        };
        let line = format!("| `{}` | {default} | {} |\n", entry.key, entry.reason);
        table.push_str(&line);
    }
    assert_eq!(marked("keys"), table);
}

#[test]
fn every_variable_is_one_that_latchkey_knows_and_every_probe_asks_a_path_that_it_has() {
    let known = config::reference();
    let known: BTreeSet<&str> = known
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("LATCHKEY_"))
        .collect();
    for name in ["Containerfile", "compose.yaml", "kubernetes.yaml"] {
        let text = deploy(name);
        let named: BTreeSet<&str> = text
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("LATCHKEY_"))
            .collect();
        assert!(
            !named.is_empty() && named.is_subset(&known),
            "{name}: {named:?}"
        );
    }
    let paths: BTreeSet<&str> = TABLE.iter().map(|route| route.path).collect();
    for (name, before) in [("kubernetes.yaml", "path: "), ("Caddyfile", "health_uri ")] {
        let text = deploy(name);
        let asked = text.split(before).skip(1);
        let asked: Vec<_> = asked
            .map(|rest| rest.split([',', '\n', ' ']).next().unwrap())
            .collect();
        assert!(
            !asked.is_empty() && asked.iter().all(|path| paths.contains(path)),
            "{name}: {asked:?}"
        );
    }
}

#[test]
fn containers_run_without_rights_and_write_nowhere_but_to_their_volume() {
    let kubernetes = deploy("kubernetes.yaml");
    for line in [
        "runAsNonRoot: true",
        "readOnlyRootFilesystem: true",
        "allowPrivilegeEscalation: false",
        "capabilities: { drop: [ALL] }",
        "seccompProfile: { type: RuntimeDefault }",
        "livenessProbe:",
        "readinessProbe:",
    ] {
        assert!(kubernetes.contains(line), "{line}");
    }
    let compose = deploy("compose.yaml");
    for line in [
        "read_only: true",
        "cap_drop: [ALL]",
        "no-new-privileges:true",
        "condition: service_healthy",
    ] {
        assert!(compose.contains(line), "{line}");
    }
    let container = deploy("Containerfile");
    assert!(container.contains("\nUSER 65532:65532\n") && container.contains("HEALTHCHECK"));
    for text in [kubernetes, compose, container] {
        assert!(!text.contains(":latest"), "every image is pinned");
    }
}

#[test]
fn systemd_takes_the_unit_and_finds_it_well_locked_up() {
    let Some(analyze) = tool("systemd-analyze") else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let (unit, socket) = (
        folder.path().join("latchkey.service"),
        folder.path().join("latchkey.socket"),
    );
    let text = with(
        deploy("latchkey.service"),
        &[("/usr/local/bin/latchkey", env!("CARGO_BIN_EXE_latchkey"))],
    );
    // What is for PostgreSQL alone is looked at too.
    let text = text.replace("\n#LoadCredential", "\nLoadCredential");
    let text = text.replace("\n#Environment", "\nEnvironment");
    fs::write(&unit, text).unwrap();
    fs::write(&socket, deploy("latchkey.socket")).unwrap();
    let run = |arguments: &[&str], units: &[&Path]| {
        let done = Command::new(&analyze)
            .args(arguments)
            .args(units)
            .output()
            .unwrap();
        let said = [done.stdout, done.stderr].concat();
        (
            done.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let (good, said) = run(&["verify", "--man=no"], &[&unit, &socket]);
    assert!(good && !said.contains("latchkey."), "{said}");
    // Of ten; a unit without any of it has 9.6.
    let security = ["security", "--offline=yes", "--no-pager", "--threshold=15"];
    let (good, said) = run(&security, &[&unit]);
    assert!(good, "{said}");
}

#[test]
fn f4_behind_nginx_people_sign_in_over_tls_and_nobody_chooses_their_address() {
    let Some(proxy) = signs_in_behind("nginx") else {
        return;
    };
    let plain = format!("http://127.0.0.1:{}/login", proxy.plain);
    let http = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let sent = http.get(plain).send().unwrap();
    assert_eq!(
        (
            sent.status().as_u16(),
            sent.headers()["location"].to_str().unwrap()
        ),
        (308, format!("{}/login", proxy.issuer).as_str())
    );
}

#[test]
fn f4_behind_caddy_people_sign_in_over_tls_and_nobody_chooses_their_address() {
    signs_in_behind("caddy");
}

/// A person opens the page through the proxy and types a wrong password; who that was is then in the audit events.
fn signs_in_behind(name: &str) -> Option<ReverseProxy> {
    let proxy = prepare(name)?;
    let issuer = proxy.issuer.clone();
    let op = Op::start(
        Database::Sqlite,
        &[
            ("issuer", issuer.as_str()),
            ("trusted_proxies", "127.0.0.1/32"),
        ],
    );
    let port = op.config.listen.to_string();
    let port = port.rsplit(':').next().unwrap().parse().unwrap();
    let proxy = proxy.start(port);
    let http = Client::builder()
        .danger_accept_invalid_certs(true)
        .redirect(reqwest::redirect::Policy::none())
        .cookie_store(true)
        .build()
        .unwrap();
    let get = |url: String| {
        http.get(url)
            .header("x-forwarded-for", "198.51.100.7")
            .send()
    };
    let page = eventually("the proxy answers", || get(format!("{issuer}/login")).ok());
    assert_eq!(page.status(), 200);
    let cookie = page.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(
        cookie.starts_with("__Host-") && cookie.contains("; Secure"),
        "{cookie}"
    );
    assert!(page.headers().contains_key("strict-transport-security"));
    let csrf = page.text().unwrap();
    let csrf = csrf
        .split("name=\"csrf\" value=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    let form = [
        ("csrf", csrf.as_str()),
        ("login", EMAIL),
        ("password", "not-the-password-of-anybody"),
    ];
    let refused = http
        .post(format!("{issuer}/login"))
        .header("origin", &issuer)
        .header("x-forwarded-for", "198.51.100.7")
        .header("forwarded", "for=198.51.100.7")
        .form(&form)
        .send()
        .unwrap();
    assert_eq!(refused.status(), 400);
    let events = op
        .store
        .read_blocking(|conn| audit_events::list(conn, None, 100))
        .unwrap();
    let failed = events
        .iter()
        .find(|event| event.event == "login.failed")
        .unwrap();
    assert_eq!(
        failed.address.as_deref(),
        Some("127.0.0.1"),
        "the proxy saw who it was"
    );
    let document = get(format!("{issuer}/.well-known/openid-configuration"))
        .unwrap()
        .text()
        .unwrap();
    assert!(
        document.contains(&format!("\"issuer\":\"{issuer}\"")),
        "{document}"
    );
    Some(proxy)
}
