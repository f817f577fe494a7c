//! `init`: a configuration to begin with, which serves.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

fn latchkey(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_latchkey"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn said(output: &Output) -> (i32, String) {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(text).unwrap(),
    )
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_it_writes_is_a_good_configuration_for_this_account_alone() {
    for (database, files) in [
        (None, &["latchkey.toml"][..]),
        (
            Some("postgres://latchkey@db.example.com/latchkey"),
            &["latchkey.toml", "secret.key"],
        ),
    ] {
        let folder = TempDir::new().unwrap();
        let mut arguments = vec!["init", "--issuer", "https://id.example.com"];
        arguments.extend(database.iter().flat_map(|url| ["--database", url]));
        let (code, text) = said(&latchkey(folder.path(), &arguments));
        assert_eq!(code, 0, "{text}");
        assert_eq!(names(folder.path()), files);
        for file in files {
            let mode = fs::metadata(folder.path().join(file))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        let (code, text) = said(&latchkey(folder.path(), &["config", "check"]));
        assert_eq!(code, 0, "{text}");
        let written = fs::read_to_string(folder.path().join("latchkey.toml")).unwrap();
        assert!((20..40).contains(&written.lines().count()), "{written}");
        assert!(
            written.contains("trusted_proxies = [\"127.0.0.1/32\", \"::1/128\"]"),
            "{written}"
        );

        let (code, text) = said(&latchkey(folder.path(), &arguments));
        assert_eq!(code, 1);
        assert!(
            text.contains("latchkey.toml exists already, and nothing is overwritten"),
            "{text}"
        );
        assert_eq!(
            fs::read_to_string(folder.path().join("latchkey.toml")).unwrap(),
            written
        );
    }
}

#[test]
fn a_wrong_answer_leaves_nothing_behind() {
    for (arguments, words) in [
        (
            &["init"][..],
            "--issuer is needed: there is no terminal to ask on",
        ),
        (&["init", "--issuer", "http://id.example.com"], "--issuer "),
        (
            &["init", "--issuer", "https://id.example.com/"],
            "--issuer ",
        ),
        (
            &[
                "init",
                "--issuer",
                "https://id.example.com",
                "--database",
                "mysql://u:hidden@db/x",
            ],
            "--database ",
        ),
        (
            &[
                "init",
                "--issuer",
                "https://id.example.com",
                "--trusted-proxy",
                "0.0.0.0/0",
            ],
            "--trusted-proxy \"0.0.0.0/0\"",
        ),
        (
            &[
                "init",
                "--issuer",
                "https://id.example.com",
                "--trusted-proxy",
                "proxy",
            ],
            "--trusted-proxy \"proxy\"",
        ),
    ] {
        let folder = TempDir::new().unwrap();
        let (code, text) = said(&latchkey(folder.path(), arguments));
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(words) && !text.contains("hidden"), "{text}");
        assert_eq!(names(folder.path()), [""; 0]);
    }
}

#[test]
fn it_listens_where_an_issuer_on_loopback_is_and_where_it_is_told() {
    for (arguments, expected) in [
        (
            &["--issuer", "https://id.example.com"][..],
            "127.0.0.1:8080",
        ),
        (&["--issuer", "http://localhost:9999"], "127.0.0.1:9999"),
        (&["--issuer", "http://[::1]:9999/id"], "[::1]:9999"),
        (&["--issuer", "http://127.0.0.2"], "127.0.0.2:80"),
        (
            &[
                "--issuer",
                "https://id.example.com",
                "--listen",
                "unix:/run/l.sock",
            ],
            "unix:/run/l.sock",
        ),
    ] {
        let folder = TempDir::new().unwrap();
        let (code, text) = said(&latchkey(folder.path(), &[&["init"], arguments].concat()));
        assert_eq!(code, 0, "{text}");
        let written = fs::read_to_string(folder.path().join("latchkey.toml")).unwrap();
        assert!(
            written.contains(&format!("\nlisten = \"{expected}\"\n")),
            "{written}"
        );
    }
    let folder = TempDir::new().unwrap();
    let (code, text) = said(&latchkey(
        folder.path(),
        &["init", "--issuer", "http://localhost:9464"],
    ));
    assert_eq!(code, 1);
    assert!(text.contains("management.listen"), "{text}");
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_proxy_that_is_named_twice_is_written_once() {
    let folder = TempDir::new().unwrap();
    let mut arguments = vec!["init", "--issuer", "https://id.example.com"];
    for proxy in ["10.0.0.1", "10.0.0.1/32", "10.1.2.3/8"] {
        arguments.extend(["--trusted-proxy", proxy]);
    }
    assert_eq!(said(&latchkey(folder.path(), &arguments)).0, 0);
    let written = fs::read_to_string(folder.path().join("latchkey.toml")).unwrap();
    assert!(
        written.contains("trusted_proxies = [\"10.0.0.1/32\", \"10.0.0.0/8\"]"),
        "{written}"
    );
    assert_eq!(said(&latchkey(folder.path(), &["config", "check"])).0, 0);
}

#[test]
fn a_file_elsewhere_is_named_in_what_comes_next_and_the_database_is_beside_it() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("etc")).unwrap();
    let arguments = [
        "init",
        "--issuer",
        "https://id.example.com",
        "--config",
        "etc/sub.toml",
    ];
    let (code, text) = said(&latchkey(folder.path(), &arguments));
    assert_eq!(code, 0, "{text}");
    for next in ["config check", "users create", "serve", "doctor"] {
        let command = format!("latchkey --config etc/sub.toml {next}");
        assert!(text.contains(&command), "{command}: {text}");
    }
    let written = fs::read_to_string(folder.path().join("etc/sub.toml")).unwrap();
    let database = folder.path().join("etc/latchkey.db");
    let database = format!("url = \"sqlite://{}\"", database.display());
    assert!(written.contains(&database), "{written}");
}

#[test]
fn a_path_that_is_no_text_is_refused_before_anything_is_written() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = TempDir::new().unwrap();
    let inner = folder.path().join(std::ffi::OsStr::from_bytes(b"\xffd"));
    fs::create_dir(&inner).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_latchkey"))
        .args(["init", "--issuer", "https://id.example.com", "--config"])
        .arg(inner.join("l.toml"))
        .args(["--output", "json"])
        .env_clear()
        .output()
        .unwrap();
    let (code, text) = said(&output);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("is no path in UTF-8"), "{text}");
    assert_eq!(names(&inner), [""; 0]);
}

#[test]
fn the_key_of_another_server_of_the_same_database_is_kept() {
    let folder = TempDir::new().unwrap();
    let key = folder.path().join("secret.key");
    let digits = "5e".repeat(32);
    fs::write(&key, &digits).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let arguments = [
        "init",
        "--issuer",
        "https://id.example.com",
        "--database",
        "postgres://db/latchkey",
    ];
    let (code, text) = said(&latchkey(folder.path(), &arguments));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("secret.key, which was there"), "{text}");
    assert_eq!(fs::read_to_string(&key).unwrap(), digits);
    assert_eq!(said(&latchkey(folder.path(), &["config", "check"])).0, 0);
}

#[test]
fn a_key_that_is_there_is_not_replaced_and_no_half_of_it_stays() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("secret.key"), "mine").unwrap();
    let arguments = [
        "init",
        "--issuer",
        "https://id.example.com",
        "--database",
        "postgres://db/latchkey",
    ];
    let (code, text) = said(&latchkey(folder.path(), &arguments));
    assert_eq!(code, 1);
    assert!(text.contains("secret.key exists already"), "{text}");
    assert_eq!(names(folder.path()), ["secret.key"]);
    assert_eq!(
        fs::read_to_string(folder.path().join("secret.key")).unwrap(),
        "mine"
    );
}
