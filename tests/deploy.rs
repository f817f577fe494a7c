//! What lies in deploy/ works: nginx and systemd look at theirs, and the rest names only what exists.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use latchkey::config;
use latchkey::store::audit_events;
use reqwest::blocking::Client;
use tempfile::TempDir;

use crate::support::browser::Browser;
use crate::support::installation::Installation;
use crate::support::op::{Database, EMAIL, Op, free_port};
use crate::support::relying_party::Rp;
use crate::support::reverse_proxy::{ReverseProxy, deploy, prepare, tool, with};
use crate::support::wait::{eventually, pause};

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
fn every_variable_is_one_that_latchkey_knows() {
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
}

#[test]
fn whoever_watches_asks_what_the_listener_for_the_operator_answers() {
    let op = Op::start_empty(Database::Sqlite, &[]);
    for (name, count) in [("kubernetes.yaml", 2), ("podmonitor.yaml", 1)] {
        let text = deploy(name);
        let asked: Vec<_> = text.split("path: ").skip(1).collect();
        assert_eq!(asked.len(), count, "{name}");
        for rest in asked {
            let path = rest.split([',', '\n']).next().unwrap();
            let url = format!("http://{}{path}", op.config.management.listen);
            assert_eq!(reqwest::blocking::get(url).unwrap().status(), 200, "{path}");
        }
        assert_eq!(
            text.matches("port: management").count(),
            text.matches("path: ").count() + text.matches("ports: [{ port: management }]").count(),
            "{name}"
        );
    }
}

#[test]
fn everybody_means_the_same_ports() {
    let reference = config::reference();
    for (listener, variable, port) in [
        ("http", "LATCHKEY_LISTEN", "8080"),
        ("management", "LATCHKEY_MANAGEMENT__LISTEN", "9464"),
    ] {
        let in_a_container = format!("{variable}=0.0.0.0:{port}");
        let published = format!("- \"127.0.0.1:{port}:{port}\"");
        let named = format!("{{ name: {listener}, containerPort: {port} }}");
        for (name, text) in [
            ("Containerfile", &in_a_container),
            ("compose.yaml", &published),
            ("kubernetes.yaml", &named),
        ] {
            assert!(deploy(name).contains(text.as_str()), "{name}: {text}");
        }
        let default = format!("listen = \"127.0.0.1:{port}\"");
        assert!(reference.contains(&default), "{default}");
    }
    assert!(deploy("Containerfile").contains("\nEXPOSE 8080 9464\n"));
    assert!(deploy("nginx.conf").contains("    server 127.0.0.1:8080;\n"));
    assert!(deploy("Caddyfile").contains("reverse_proxy 127.0.0.1:8080\n"));
    assert!(deploy("alerts.yaml").contains("127.0.0.1:9464"));
}

#[test]
fn passwords_of_all_cores_of_a_pod_fit_into_its_memory() {
    let kubernetes = deploy("kubernetes.yaml");
    let limits = kubernetes.split("limits: { cpu: \"").nth(1).unwrap();
    let (cores, rest) = limits.split_once("\", memory: ").unwrap();
    let memory = rest.split_once("Mi }").unwrap().0;
    let (cores, memory): (u32, u32) = (cores.parse().unwrap(), memory.parse().unwrap());
    let reference = config::reference();
    let each = reference.split("memory_kib = ").nth(1).unwrap();
    let each: u32 = each.lines().next().unwrap().trim().parse().unwrap();
    // Half of it is for everything else.
    assert!(cores * each / 1024 <= memory / 2, "{cores} * {each} KiB");
}

#[test]
fn no_secret_goes_into_an_image_or_into_git() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in [".dockerignore", ".gitignore"] {
        let text = fs::read_to_string(root.join(name)).unwrap();
        let ignored = text
            .lines()
            .any(|line| line.trim_start_matches('/') == "deploy/secrets");
        assert!(ignored, "{name}");
    }
    assert!(deploy("compose.yaml").contains("file: secrets/secret_key"));
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
        "preStop: { sleep: { seconds: 5 } }",
        "kind: PodDisruptionBudget",
        "kind: NetworkPolicy",
    ] {
        assert!(kubernetes.contains(line), "{line}");
    }
    let compose = deploy("compose.yaml");
    for line in [
        "read_only: true",
        "cap_drop: [ALL]",
        "no-new-privileges:true",
        "condition: service_healthy",
        "test: [\"CMD\", \"latchkey\", \"healthcheck\"]",
    ] {
        assert!(compose.contains(line), "{line}");
    }
    let container = deploy("Containerfile");
    assert!(container.contains("\nUSER 65532:65532\n") && container.contains("HEALTHCHECK"));
    for text in [kubernetes, compose, container] {
        let images = text.lines().filter_map(|line| {
            let line = line.trim();
            line.strip_prefix("image: ").or(line.strip_prefix("FROM "))
        });
        for image in images {
            let tag = image
                .split(' ')
                .next()
                .unwrap()
                .rsplit_once(':')
                .map(|(_, tag)| tag);
            let has_version = tag.is_some_and(|tag| tag.starts_with(|c: char| c.is_ascii_digit()));
            assert!(has_version, "{image}");
        }
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
    // By default it would be given up after five starts within ten seconds.
    assert!(
        text.contains("\nStartLimitIntervalSec=0\n") && text.contains("\nRestart=on-failure\n")
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
    let Some((_op, proxy)) = signs_in_behind("nginx") else {
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
    if TcpListener::bind("[::1]:0").is_ok() {
        let mut browser = Browser::gullible(&format!("https://[::1]:{}", proxy.over_ipv6));
        assert_eq!(browser.get("/livez").status, 200);
    }
}

#[test]
fn f4_behind_caddy_people_sign_in_over_tls_and_nobody_chooses_their_address() {
    signs_in_behind("caddy");
}

#[test]
fn the_longest_request_of_an_app_comes_through_nginx() {
    carries_long_requests("nginx");
}

#[test]
fn the_longest_request_of_an_app_comes_through_caddy() {
    carries_long_requests("caddy");
}

/// Every address and every redirect on the way holds all of it.
fn carries_long_requests(name: &str) {
    let Some((_op, proxy)) = behind(name) else {
        return;
    };
    // Encoded it is three times as long, and the whole may have 8000 characters.
    let (state, nonce) = ("=".repeat(1_800), "n".repeat(2_000));
    let asked = Rp::new(&proxy.issuer).authorize(&[("state", &state), ("nonce", &nonce)]);
    let mut browser = Browser::gullible(&proxy.issuer);
    eventually("the proxy answers", || proxy.is_open().then_some(()));
    let page = browser.complete(&asked);
    assert_eq!(page.status, 303, "{}", page.body);
    assert_eq!(page.callback()["state"], state);
}

#[test]
fn nginx_writes_down_no_address_when_latchkey_is_away() {
    keeps_addresses_to_itself("nginx", " GET 502 by 127.0.0.1:");
}

#[test]
fn caddy_writes_down_no_address_when_latchkey_is_away() {
    keeps_addresses_to_itself("caddy", "connection refused");
}

/// Addresses hold what nobody may read in a log, but that something went wrong, and what, stands there.
fn keeps_addresses_to_itself(name: &str, told: &str) {
    let Some(proxy) = prepare(name) else { return };
    let proxy = proxy.start(free_port());
    eventually("the proxy answers", || proxy.is_open().then_some(()));
    let mut browser = Browser::gullible(&proxy.issuer);
    browser.headers.push((
        "referer".to_owned(),
        format!("{}/login?ticket=a-secret-ticket", proxy.issuer),
    ));
    let page = browser.get("/end-session?id_token_hint=a-secret-hint");
    assert_eq!(page.status, 502);
    let log = eventually("it is written down", || {
        Some(proxy.log()).filter(|log| log.contains(told))
    });
    assert!(!log.contains("a-secret"), "{log}");
}

#[test]
fn behind_nginx_what_needs_no_database_is_answered_while_it_is_away() {
    answers_what_it_can_behind("nginx");
}

#[test]
fn behind_caddy_what_needs_no_database_is_answered_while_it_is_away() {
    answers_what_it_can_behind("caddy");
}

fn answers_what_it_can_behind(name: &str) {
    let Some(proxy) = prepare(name) else { return };
    let installation = Installation::behind(&proxy.issuer, "trusted_proxies = [\"127.0.0.1/32\"]");
    let _server = installation.start();
    let proxy = proxy.start(installation.port());
    eventually("the proxy answers", || proxy.is_open().then_some(()));
    let database = installation.path("latchkey.db");
    fs::rename(&database, installation.path("away.db")).unwrap();
    let mut browser = Browser::gullible(&proxy.issuer);
    // Long enough for a proxy that looks every few seconds whether the server is ready.
    pause(Duration::from_secs(6));
    let ready = browser.get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.headers.contains_key("retry-after"));
    assert_eq!(browser.get("/jwks").status, 200);
}

/// A server with a proxy in front.
fn behind(name: &str) -> Option<(Op, ReverseProxy)> {
    let proxy = prepare(name)?;
    let settings = [
        ("issuer", proxy.issuer.as_str()),
        ("trusted_proxies", "127.0.0.1/32"),
    ];
    let op = Op::start(Database::Sqlite, &settings);
    let port = op.config.listen.to_string();
    let port = port.rsplit(':').next().unwrap().parse().unwrap();
    Some((op, proxy.start(port)))
}

/// A person opens the page through the proxy and types a wrong password; who that was is then in the audit events.
fn signs_in_behind(name: &str) -> Option<(Op, ReverseProxy)> {
    let (op, proxy) = behind(name)?;
    let issuer = proxy.issuer.clone();
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
    Some((op, proxy))
}
