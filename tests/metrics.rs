//! What monitoring sees: Prometheus' text format on the management listener, and nowhere else.

use std::collections::BTreeSet;

use latchkey::config::Listen;
use latchkey::web::routes::TABLE;
use serde_json::{Value, json};

use crate::refresh_token::{OFFLINE, connect, notes, refreshed};
use crate::support::on_both_databases;
use crate::support::op::{Database, EMAIL, Op, SECRET};
use crate::support::wait::eventually;

/// The page.
fn scrape(op: &Op) -> String {
    let Listen::Tcp(address) = &op.config.management.listen else {
        panic!("a port");
    };
    let answer = reqwest::blocking::get(format!("http://{address}/metrics")).unwrap();
    assert_eq!(answer.status(), 200);
    assert!(
        answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    answer.text().unwrap()
}

/// One value; `None` where the series is not there.
fn value(page: &str, series: &str) -> Option<f64> {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

pub fn count(op: &Op, series: &str) -> f64 {
    value(&scrape(op), series).unwrap_or_else(|| panic!("{series} is not there"))
}

on_both_databases! {
    fn sign_ins_tokens_and_replays_are_counted(op) {
        let rp = notes(&op, json!({}));
        let mut browser = op.browser();
        let page = browser.get(&op.rp().authorize(&[]));
        browser.sign_in_as(&page, EMAIL, "not-the-password-of-anybody");
        let first = connect(&mut browser, &rp, OFFLINE);
        refreshed(&rp, refreshed(&rp, first.refresh_token()).refresh_token());
        for _ in 0..3 {
            rp.refresh(first.refresh_token(), &[]);
        }
        let page = scrape(&op);
        for (series, expected) in [
            ("latchkey_logins_total{method=\"password\",result=\"failed\"}", 1.0),
            ("latchkey_logins_total{method=\"password\",result=\"succeeded\"}", 1.0),
            ("latchkey_tokens_issued_total{grant_type=\"authorization_code\"}", 1.0),
            ("latchkey_tokens_issued_total{grant_type=\"refresh_token\"}", 2.0),
            ("latchkey_token_errors_total{error=\"invalid_grant\"}", 3.0),
            ("latchkey_refresh_replays_total", 1.0),
            ("latchkey_password_hash_seconds_count", 2.0),
            ("http_server_request_duration_seconds_count{method=\"POST\",route=\"/token\",status=\"200\"}", 3.0),
            ("http_server_request_duration_seconds_count{method=\"POST\",route=\"/token\",status=\"400\"}", 3.0),
        ] {
            assert_eq!(value(&page, series), Some(expected), "{series}\n{page}");
        }
        assert!(value(&page, "process_resident_memory_bytes").is_some_and(|bytes| bytes > 1e6));
        assert!(value(&page, "process_open_fds").is_some());
    }

    fn commits_are_counted_with_what_they_held(op) {
        let before = count(&op, "latchkey_db_commit_batch_size_count");
        op.browser().complete(&op.rp().authorize(&[]));
        let page = scrape(&op);
        let commits = value(&page, "latchkey_db_commit_batch_size_count").unwrap();
        let writes = value(&page, "latchkey_db_commit_batch_size_sum").unwrap();
        assert!(commits > before && writes >= commits, "{page}");
    }

    fn what_is_slowed_is_counted_by_what_slowed_it(op with [
        ("throttle.account_failures", "2"), ("throttle.address_requests", "100"),
        ("password.memory_kib", "7168"), ("password.iterations", "1")
    ]) {
        let page = op.browser().get("/login");
        for _ in 0..4 {
            let mut browser = op.browser();
            let page = browser.get("/login");
            browser.sign_in_as(&page, EMAIL, "not-the-password-of-anybody");
        }
        assert_eq!(page.status, 200);
        assert_eq!(count(&op, "latchkey_throttled_total{bucket=\"account\"}"), 2.0);
        assert_eq!(count(&op, "latchkey_logins_total{method=\"password\",result=\"throttled\"}"), 2.0);
        while reqwest::blocking::get(op.url("/jwks")).unwrap().status() != 429 {}
        assert_eq!(count(&op, "latchkey_throttled_total{bucket=\"requests\"}"), 1.0);
        for _ in 0..4 {
            op.rp().http().post(op.url("/token")).basic_auth("rp", Some("wrong")).form(&[("grant_type", "x")]).send().unwrap();
        }
        assert_eq!(count(&op, "latchkey_throttled_total{bucket=\"client\"}"), 2.0);
        assert_eq!(count(&op, "latchkey_token_errors_total{error=\"invalid_client\"}"), 2.0);
    }
}

#[test]
fn n12_strangers_cannot_invent_series() {
    let op = Op::start(Database::Sqlite, &[]);
    let http = reqwest::blocking::Client::new();
    for number in 0..50 {
        let method = reqwest::Method::from_bytes(format!("INVENTED{number}").as_bytes()).unwrap();
        http.request(method, op.url(&format!("/nowhere/{number}")))
            .send()
            .unwrap();
        http.get(op.url(&format!("/static/{number}/{number}")))
            .send()
            .unwrap();
    }
    let page = scrape(&op);
    assert!(
        page.lines().filter(|line| line.contains("_count{")).count() < 10,
        "{page}"
    );
    assert!(
        !page.contains("INVENTED") && !page.contains("nowhere"),
        "{page}"
    );
}

#[test]
fn every_counter_is_there_before_anything_happened() {
    let op = Op::start_empty(Database::Sqlite, &[]);
    let page = scrape(&op);
    for series in [
        "latchkey_logins_total{method=\"password\",result=\"failed\"}",
        "latchkey_tokens_issued_total{grant_type=\"refresh_token\"}",
        "latchkey_token_errors_total{error=\"invalid_grant\"}",
        "latchkey_refresh_replays_total",
        "latchkey_throttled_total{bucket=\"address\"}",
    ] {
        assert_eq!(value(&page, series), Some(0.0), "{series}");
    }
}

#[test]
fn every_refusal_of_a_token_request_is_counted_by_its_error() {
    let settings = [("throttle.account_failures", "1")];
    let op = Op::start(Database::Sqlite, &settings);
    let post = || op.rp().http().post(op.url("/token"));
    let errors = |error: &str| {
        count(
            &op,
            &format!("latchkey_token_errors_total{{error=\"{error}\"}}"),
        )
    };
    let answer = post().body("no form").send().unwrap();
    assert_eq!(
        (answer.status().as_u16(), errors("invalid_request")),
        (415, 1.0)
    );
    let slowed = eventually("it is slowed", || {
        let request = post().basic_auth("rp", Some("wrong"));
        let answer = request.form(&[("grant_type", "x")]).send().unwrap();
        (answer.status() == 429).then_some(errors("temporarily_unavailable"))
    });
    assert_eq!(slowed, 1.0);
    std::fs::rename(
        op.directory.path().join("latchkey.db"),
        op.directory.path().join("away"),
    )
    .unwrap();
    let answer = post()
        .basic_auth("rp", Some(SECRET))
        .form(&[("grant_type", "x")])
        .send()
        .unwrap();
    assert_eq!(
        (answer.status().as_u16(), errors("temporarily_unavailable")),
        (503, 2.0)
    );
}

#[test]
fn routes_are_told_without_the_path_of_the_issuer() {
    let settings = [("issuer", "http://localhost:{port}/auth")];
    let op = Op::start(Database::Sqlite, &settings);
    let root = op.issuer.trim_end_matches("/auth");
    for path in [
        "/auth/token",
        "/auth",
        "/auth/jwks",
        "/.well-known/openid-configuration/auth",
    ] {
        reqwest::blocking::get(format!("{root}{path}")).unwrap();
    }
    let page = scrape(&op);
    for route in ["/token", "/", "/jwks", "/.well-known/openid-configuration"] {
        assert!(
            page.contains(&format!("route=\"{route}\"")),
            "{route}: {page}"
        );
    }
    assert!(!page.contains("/auth"), "{page}");
}

#[test]
fn the_listener_for_people_has_no_metrics() {
    let op = Op::start(Database::Sqlite, &[]);
    let answer = reqwest::blocking::get(op.url("/metrics")).unwrap();
    assert_eq!(answer.status(), 404);
}

#[test]
fn the_dashboard_and_the_alerts_name_only_what_exists() {
    let op = Op::start(Database::Sqlite, &[]);
    op.browser().get("/login");
    let page = scrape(&op);
    let exists: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let files = [
        include_str!("../deploy/grafana-dashboard.json"),
        include_str!("../deploy/alerts.yaml"),
    ];
    let mut named = BTreeSet::new();
    for word in files
        .iter()
        .flat_map(|file| file.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
    {
        if is_metric(word) {
            let name = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| word.strip_suffix(end));
            named.insert(name.unwrap_or(word));
        }
    }
    let missing: Vec<_> = named.difference(&exists).collect();
    assert!(missing.is_empty(), "{missing:?} are not among {exists:?}");
    let unused: Vec<_> = exists
        .iter()
        .filter(|name| !name.starts_with("process_"))
        .filter(|name| !named.contains(**name))
        .collect();
    assert!(unused.is_empty(), "{unused:?} are on no panel");
    for file in files {
        check_labels(&file.replace("\\\"", "\""), &page);
    }
    let dashboard: Value = serde_json::from_str(files[0]).unwrap();
    assert!(
        dashboard["panels"]
            .as_array()
            .unwrap()
            .iter()
            .all(|panel| panel["targets"][0]["expr"].is_string())
    );
}

/// Every label that stands behind a metric is one of its labels, and every value that it is compared with can be there.
fn check_labels(file: &str, page: &str) {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut selectors = 0;
    for (at, _) in file.match_indices('{') {
        let (before, rest) = file.split_at(at);
        let start = before.rfind(|c| !is_of_name(c)).map_or(0, |end| end + 1);
        let name = &before[start..];
        let Some(matchers) = rest[1..].split('}').next().filter(|_| is_metric(name)) else {
            continue;
        };
        selectors += 1;
        let series: Vec<_> = page
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter(|line| line.starts_with(['{', ' ']))
            .collect();
        assert!(!series.is_empty(), "{name} has no series");
        for matcher in matchers.split(',') {
            let (label, value) = matcher.trim().split_once('=').unwrap();
            let label = label.trim_end_matches('!');
            // Prometheus itself adds these.
            if ["job", "instance"].contains(&label) {
                continue;
            }
            let named = format!("{label}=\"");
            assert!(series[0].contains(&named), "{name} has no {label}");
            for value in value.trim_matches(['=', '~', '"']).split('|') {
                let exists = series
                    .iter()
                    .any(|line| line.contains(&format!("{named}{value}\"")))
                    || label == "route" && TABLE.iter().any(|route| route.path == value)
                    || label == "status" && value == "5..";
                assert!(exists, "{name} has no {label} {value}");
            }
        }
    }
    assert!(selectors > 5, "{file}");
    for rest in file.split("by (").skip(1) {
        for label in rest.split(')').next().unwrap().split(',').map(str::trim) {
            let exists = label == "instance" || page.contains(&format!("{label}=\""));
            assert!(exists, "nothing has the label {label}");
        }
    }
}

fn is_metric(name: &str) -> bool {
    ["latchkey_", "http_server_", "process_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

#[test]
fn promtool_takes_the_alerts_where_it_is_installed() {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/alerts.yaml");
    let checked = std::process::Command::new("promtool")
        .args(["check", "rules", rules])
        .output();
    let Ok(checked) = checked else {
        eprintln!("promtool is not installed: the alerts' expressions are not parsed");
        return;
    };
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}
