//! `doctor` finds what is wrong with a deployment, says what to do, and is silent where nothing is.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection};
use serde_json::Value;

use crate::support::installation::Installation;
use crate::support::op::Database;
use crate::support::reverse_proxy::prepare;
use crate::support::wait::eventually;

/// What is said of each thing that was looked at: nothing of what is well.
fn findings(checks: &[Value]) -> Vec<(&str, &str)> {
    let found = checks.iter().filter(|check| check["ok"] == false);
    found
        .map(|check| {
            assert!(
                check["remedy"]
                    .as_str()
                    .is_some_and(|remedy| !remedy.is_empty()),
                "{check}"
            );
            (
                check["check"].as_str().unwrap(),
                check["seen"].as_str().unwrap(),
            )
        })
        .collect()
}

fn visit(installation: &Installation) -> Vec<Value> {
    let (code, out) = installation.answer(&["doctor", "--output", "json"]);
    let checks: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(code == 0, findings(&checks).is_empty(), "{out}");
    checks
}

fn execute(installation: &Installation, statement: &str) {
    let file = installation.path("latchkey.db");
    let mut connection = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    diesel::sql_query(statement)
        .execute(&mut connection)
        .unwrap();
}

#[test]
fn a_deployment_behind_the_example_of_nginx_passes() {
    passes_behind("nginx");
}

#[test]
fn a_deployment_behind_the_example_of_caddy_passes() {
    passes_behind("caddy");
}

fn passes_behind(name: &str) {
    let Some(proxy) = prepare(name) else { return };
    let installation = Installation::behind(&proxy.issuer, "trusted_proxies = [\"127.0.0.1/32\"]");
    let _server = installation.start();
    let proxy = proxy.start(installation.port());
    let backup = installation.path("backup.db");
    installation.run(&["backup", backup.to_str().unwrap()]);
    let certificate = proxy.certificate();
    let doctor = |arguments: &[&str]| {
        installation.answer_with(arguments, "SSL_CERT_FILE", certificate.to_str().unwrap())
    };
    let out = eventually("the proxy answers", || {
        let (code, out) = doctor(&["doctor"]);
        (code == 0 || !out.contains("Connection refused")).then_some(out)
    });
    assert!(out.lines().all(|line| line.starts_with("ok ")), "{out}");
    let by_configuration = installation.answer_with(
        &["doctor"],
        "LATCHKEY_EGRESS__CA_FILE",
        certificate.to_str().unwrap(),
    );
    assert_eq!(by_configuration.0, 0, "{}", by_configuration.1);
    for check in [
        "cookies",
        "trusted proxies",
        "switches",
        "file modes",
        "disk",
        "schema",
        "database",
        "signing keys",
        "backup",
        "clock",
        "issuer",
        "proxy",
        "client address",
    ] {
        assert!(
            out.contains(&format!("ok       {check} ")),
            "{check}\n{out}"
        );
    }
    let (code, out) = doctor(&["selftest"]);
    assert_eq!(code, 0, "{out}");
    let (code, out) = installation.answer(&["doctor"]);
    assert!(
        code == 1 && out.contains("FINDING  issuer"),
        "nobody vouches for the certificate: {out}"
    );
}

#[test]
fn a_proxy_that_hides_where_people_come_from_and_what_they_opened_is_found() {
    let Some(proxy) = prepare("nginx") else {
        return;
    };
    let installation = Installation::behind(&proxy.issuer, "");
    let _server = installation.start();
    let proxy = proxy.start(installation.port());
    let certificate = proxy.certificate();
    let out = eventually("the proxy answers", || {
        let (_, out) =
            installation.answer_with(&["doctor"], "SSL_CERT_FILE", certificate.to_str().unwrap());
        (!out.contains("Connection refused")).then_some(out)
    });
    assert!(
        out.contains("FINDING  trusted proxies  none, but the issuer is https"),
        "{out}"
    );
    assert!(out.contains("-> set trusted_proxies to"), "{out}");
}

#[test]
fn each_finding_has_its_remedy() {
    for database in Database::all() {
        let installation = Installation::new(database);
        let server = installation.start();
        let checks = visit(&installation);
        let found = findings(&checks);
        assert_eq!(found[0].0, "cookies", "the issuer is http");
        let rest: Vec<_> = found[1..].iter().map(|(name, _)| *name).collect();
        let expected: &[&str] = if let Database::Sqlite = database {
            &["backup"]
        } else {
            &[]
        };
        assert_eq!(rest, expected, "{found:?}");
        assert_eq!(
            installation.objects(&["clients", "list"]).len(),
            0,
            "nothing stays behind"
        );
        server.kill();
        let (_, out) = installation.answer(&["doctor"]);
        assert!(
            out.contains("Connection refused") && out.contains("-> start the server"),
            "{out}"
        );
    }
}

#[test]
fn what_an_operator_left_behind_is_found() {
    let installation = Installation::behind(
        "http://localhost:1",
        "throttle = { address_requests = 0, address_failures = 5000 }\nlog.level = \"debug\"",
    );
    installation.run(&["migrate", "up"]);
    fs::set_permissions(
        installation.path("latchkey.db"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    let checks = visit(&installation);
    let found = findings(&checks);
    for (name, words) in [
        ("switches", "throttle.address_requests is 0"),
        ("switches", "throttle.address_failures is above 1000"),
        ("switches", "log.level"),
        ("file modes", "latchkey.db has mode 0644"),
        ("signing keys", "there is none"),
        ("backup", "none was made yet"),
    ] {
        assert!(
            found
                .iter()
                .any(|(about, seen)| *about == name && seen.contains(words)),
            "{words}\n{found:?}"
        );
    }
}

#[test]
fn old_keys_old_backups_and_old_schemas_are_found() {
    let installation = Installation::new(Database::Sqlite);
    installation.start().kill();
    let backup = installation.path("backup.db");
    installation.run(&["backup", backup.to_str().unwrap()]);
    execute(
        &installation,
        "UPDATE signing_keys SET activated_at = activated_at - 100 * 86400",
    );
    execute(
        &installation,
        "UPDATE audit_events SET time = time - 8 * 86400",
    );
    execute(
        &installation,
        "UPDATE properties SET value = 'development' WHERE name = 'mode'",
    );
    let checks = visit(&installation);
    let found = findings(&checks);
    for (name, words) in [
        ("signing keys", "100 days old"),
        ("backup", "the last one is of 20"),
        ("database", "latchkey dev"),
    ] {
        assert!(
            found
                .iter()
                .any(|(about, seen)| *about == name && seen.contains(words)),
            "{words}\n{found:?}"
        );
    }
    execute(
        &installation,
        "DELETE FROM __diesel_schema_migrations WHERE version = '0009'",
    );
    let checks = visit(&installation);
    let found = findings(&checks);
    assert!(
        found.contains(&("schema", "these have not run yet: 0009_scopes_and_groups")),
        "{found:?}"
    );
}

#[test]
fn a_database_that_is_not_there_is_said_and_not_made() {
    let installation = Installation::new(Database::Sqlite);
    let checks = visit(&installation);
    let found = findings(&checks);
    assert!(
        found
            .iter()
            .any(|(name, seen)| *name == "database" && seen.contains("does not exist")),
        "{found:?}"
    );
    assert!(!installation.path("latchkey.db").exists());
}

#[test]
fn a_secret_key_that_is_gone_is_found() {
    let installation = Installation::new(Database::Sqlite);
    installation.start().kill();
    let file = installation.path("latchkey.toml");
    let text = fs::read_to_string(&file).unwrap();
    let kept = text.lines().filter(|line| !line.starts_with("secret_key"));
    fs::write(&file, kept.collect::<Vec<_>>().join("\n")).unwrap();
    let checks = visit(&installation);
    let found = findings(&checks);
    assert!(
        found
            .iter()
            .any(|(name, seen)| *name == "secret key" && seen.contains("secret.key is missing")),
        "{found:?}"
    );
}

#[test]
fn a_configuration_with_secrets_that_others_may_read_is_found() {
    let installation = Installation::new(Database::Sqlite);
    installation.start().kill();
    let file = installation.path("latchkey.toml");
    for (mode, is_open) in [(0o600, false), (0o640, false), (0o644, true), (0o666, true)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let checks = visit(&installation);
        let found = findings(&checks);
        let words = format!("latchkey.toml has mode {mode:04o}");
        let is_found = found
            .iter()
            .any(|(name, seen)| *name == "file modes" && seen.contains(&words));
        assert_eq!(is_found, is_open, "{mode:o} {found:?}");
    }
}

#[test]
fn a_newer_schema_has_a_remedy_of_its_own() {
    let installation = Installation::new(Database::Sqlite);
    installation.start().kill();
    execute(
        &installation,
        "INSERT INTO __diesel_schema_migrations (version) VALUES ('9999')",
    );
    let (_, out) = installation.answer(&["doctor"]);
    assert!(
        out.contains("FINDING  schema") && out.contains("-> run the version that the server runs"),
        "{out}"
    );
}

#[test]
fn findings_count_even_if_nobody_reads_them() {
    let installation = Installation::new(Database::Sqlite);
    let line = format!(
        "{} doctor | true; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_latchkey")
    );
    let ended = std::process::Command::new("bash")
        .args(["-c", &line])
        .current_dir(installation.path(""))
        .status();
    assert_eq!(ended.unwrap().code(), Some(1));
}
