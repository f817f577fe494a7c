//! The layering rule, held by reading the source.

use std::fs;
use std::path::{Path, PathBuf};

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn source(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src")
        .join(folder)
}

fn mentions(folder: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in rust_files(&source(folder)) {
        let text = fs::read_to_string(&file).unwrap();
        found.extend(
            words
                .iter()
                .filter(|word| text.contains(**word))
                .map(|word| format!("{} mentions {word}", file.display())),
        );
    }
    found
}

#[test]
fn rules_know_neither_rows_nor_http() {
    for folder in ["protocol", "identity"] {
        assert_eq!(
            mentions(folder, &["crate::web", "crate::store", "diesel", "actix"]),
            [""; 0]
        );
    }
}

#[test]
fn rows_know_neither_http_nor_async() {
    assert_eq!(
        mentions("store", &["crate::web", "actix", "async fn", ".await"]),
        [""; 0]
    );
}

/// Diesel's `first` binds `LIMIT ?`, and SQLite compiles a statement anew whenever a bound limit is set: kept statements
/// would be kept for nothing. `get_result` reads one row too, so `first` is for queries that can find many.
#[test]
fn what_is_unique_is_found_without_a_limit() {
    let mut limited: Vec<_> = rust_files(&source("store"))
        .into_iter()
        .map(|file| {
            let count = fs::read_to_string(&file)
                .unwrap()
                .matches(".first(conn)")
                .count();
            (
                file.file_name().unwrap().to_string_lossy().into_owned(),
                count,
            )
        })
        .filter(|(_, count)| *count > 0)
        .collect();
    limited.sort();
    let of_many = [("clients.rs", 1), ("grants.rs", 1)];
    assert_eq!(
        limited,
        of_many.map(|(file, count)| (file.to_owned(), count))
    );
}

#[test]
fn web_speaks_to_the_database_through_the_store_only() {
    assert_eq!(mentions("web", &["diesel"]), [""; 0]);
}

#[test]
fn only_jose_names_the_jose_crate() {
    let outside: Vec<_> = rust_files(&source(""))
        .into_iter()
        .filter(|file| {
            !file.starts_with(source("protocol/jose"))
                && fs::read_to_string(file).unwrap().contains("josekit")
        })
        .collect();
    assert_eq!(outside, Vec::<PathBuf>::new());
}

/// Holes that were found in what we build on, and the first version without each. `cargo deny` knows of new ones; this holds
/// those that decided on a version, even where it is not installed.
#[test]
fn o13_no_version_with_a_known_hole_is_built_in() {
    let lock: toml::Table = include_str!("../Cargo.lock").parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    let first_without: [(&str, [u64; 3]); 6] = [
        ("actix-http", [3, 18, 11]), // two Host headers in one request
        ("diesel", [2, 3, 10]),      // RUSTSEC-2026-0111, RUSTSEC-2026-0172
        ("h2", [0, 4, 16]),          // RUSTSEC-2024-0003, RUSTSEC-2026-0258
        ("idna", [1, 0, 0]),         // RUSTSEC-2024-0421
        ("lettre", [0, 11, 22]),
        ("openssl", [0, 10, 72]), // RUSTSEC-2025-0022
    ];
    for (name, least) in first_without {
        for package in packages
            .iter()
            .filter(|one| one["name"].as_str() == Some(name))
        {
            let version = package["version"].as_str().unwrap();
            let numbers: Vec<u64> = version
                .split(['.', '-', '+'])
                .map_while(|number| number.parse().ok())
                .collect();
            assert!(numbers[..] >= least[..], "{name} {version}");
        }
    }
    assert!(
        packages
            .iter()
            .any(|one| one["name"].as_str() == Some("diesel"))
    );
}

/// RUSTSEC-2023-0071: its private-key operations leak by their timing. OpenSSL does ours; the crate comes with the relying
/// party of the development mode, which has no private key.
#[test]
fn o13_nothing_of_ours_computes_with_the_rsa_crate() {
    let manifest: toml::Table = include_str!("../Cargo.toml").parse().unwrap();
    assert!(
        !manifest["dependencies"]
            .as_table()
            .unwrap()
            .contains_key("rsa")
    );
}
