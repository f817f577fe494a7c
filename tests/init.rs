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
