//! `latchkey init`: from nothing to a configuration that serves.

use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;
use ipnet::IpNet;
use serde_json::json;

use super::failure::Failure;
use super::output::{self, Format};
use crate::config::{DatabaseUrl, Issuer};
use crate::startup::{new_key_file, write_new_file};

const FILE: &str = "latchkey.toml";
const KEY_FILE: &str = "secret.key";

#[derive(Args)]
pub(super) struct Answers {
    /// The https address that people and apps use, without a slash at its end.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// `sqlite://PATH` or `postgres://…`; a password belongs in PGPASSFILE, or is typed when asked.
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// From where the proxy connects, such as 127.0.0.1/32; may be repeated.
    #[arg(long = "trusted-proxy", value_name = "NETWORK")]
    trusted_proxies: Vec<String>,
}

/// Writes the file that `--config` names, else latchkey.toml, and with PostgreSQL a secret key beside it; overwrites nothing.
pub(super) fn run(
    file: Option<PathBuf>,
    answers: Answers,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let file = file.unwrap_or_else(|| PathBuf::from(FILE));
    let key_file = file.with_file_name(KEY_FILE);
    if file.try_exists()? {
        return Err(exists(&file));
    }
    let is_asked = answers.issuer.is_none();
    let issuer: Issuer = ask(
        "Issuer, the https address that people and apps use",
        "--issuer",
        answers.issuer,
        None,
    )?;
    let sqlite = "sqlite://latchkey.db";
    // Whoever gave the first answer as a flag is a script, and takes what is usual.
    let database = answers
        .database
        .or_else(|| (!is_asked).then(|| sqlite.to_owned()));
    let database_text = ask_text("Database", "--database", database, Some(sqlite))?;
    let database: DatabaseUrl = parse("--database", &database_text)?;
    let proxies = trusted_proxies(&issuer, &answers.trusted_proxies)?;
    let needs_key = matches!(database, DatabaseUrl::Postgres(_));
    if needs_key {
        new_key_file(&key_file).map_err(|error| not_written(&key_file, &error))?;
    }
    let key = needs_key.then_some(key_file.as_path());
    let text = configuration(&issuer, &database_text, &proxies, key);
    if let Err(error) = write_new_file(&file, &text) {
        if needs_key {
            // Made a moment ago, and nobody has used it.
            let _left_behind = std::fs::remove_file(&key_file);
        }
        return Err(not_written(&file, &error));
    }
    match format {
        Format::Table => {
            writeln!(out, "wrote {}", file.display())?;
            if let Some(key) = key {
                writeln!(
                    out,
                    "wrote {}: keep a copy, and elsewhere; without it the database is of no use",
                    key.display()
                )?;
            }
            writeln!(out, "Next: latchkey config check")?;
            writeln!(
                out,
                "      latchkey users create YOU@EXAMPLE.COM --admin --verified"
            )?;
            writeln!(out, "      latchkey serve")?;
            writeln!(out, "      latchkey doctor")?;
        }
        Format::Json => output::object(out, &json!({ "config": file, "secret_key_file": key }))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// With TLS there is a proxy, and on one machine it comes from loopback.
fn trusted_proxies(issuer: &Issuer, given: &[String]) -> Result<Vec<String>, Failure> {
    for text in given {
        let network = text.parse::<IpNet>().ok();
        if text.parse::<std::net::IpAddr>().is_err()
            && network.is_none_or(|it| it.prefix_len() == 0)
        {
            return Err(Failure::new(format!(
                "--trusted-proxy {text:?} is no address or network such as 10.0.0.0/8"
            )));
        }
    }
    Ok(if given.is_empty() && issuer.is_https() {
        vec!["127.0.0.1/32".to_owned(), "::1/128".to_owned()]
    } else {
        given.to_vec()
    })
}

fn ask<T: FromStr>(
    question: &str,
    flag: &str,
    given: Option<String>,
    usual: Option<&str>,
) -> Result<T, Failure>
where
    T::Err: std::fmt::Display,
{
    parse(flag, &ask_text(question, flag, given, usual)?)
}

fn parse<T: FromStr>(flag: &str, text: &str) -> Result<T, Failure>
where
    T::Err: std::fmt::Display,
{
    // A database's address may hold a password, so what was typed is not repeated.
    text.parse()
        .map_err(|error| Failure::new(format!("{flag} {error}")))
}

fn ask_text(
    question: &str,
    flag: &str,
    given: Option<String>,
    usual: Option<&str>,
) -> Result<String, Failure> {
    if let Some(given) = given {
        return Ok(given);
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::new(format!(
            "{flag} is needed: there is no terminal to ask on"
        )));
    }
    let mut terminal = io::stderr();
    match usual {
        Some(usual) => write!(terminal, "{question} [{usual}]: ")?,
        None => write!(terminal, "{question}: ")?,
    }
    terminal.flush()?;
    let mut line = String::new();
    stdin.lock().read_line(&mut line)?;
    let typed = line.trim();
    Ok(match (typed, usual) {
        ("", Some(usual)) => usual.to_owned(),
        (typed, _) => typed.to_owned(),
    })
}

fn configuration(
    issuer: &Issuer,
    database: &str,
    proxies: &[String],
    key: Option<&Path>,
) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let proxies: Vec<_> = proxies.iter().map(|proxy| quoted(proxy)).collect();
    let secret_key = match key {
        Some(key) => format!("secret_key_file = {}", quoted(&key.display().to_string())),
        None => "# Made at the first start as secret.key beside the database; another place:\n#secret_key_file = \"/etc/latchkey/secret.key\"".to_owned(),
    };
    format!(
        r#"# Latchkey. Every key with its default and reason: latchkey config reference
# After a change: latchkey config check, then restart.

# Where people and apps reach this server: the issuer of every token. Changing it later breaks every app.
issuer = {issuer}

# Where it waits for requests; a proxy in front of it speaks TLS.
listen = "127.0.0.1:8080"

# Proxies whose forwarded headers are believed. From anybody else these could be forged.
trusted_proxies = [{proxies}]

# Encrypts signing keys and other secrets in the database. A backup of that is of no use without it.
{secret_key}

[database]
# sqlite://PATH for one machine, postgres://USER@HOST/DATABASE for several.
url = {database}

[management]
# Metrics and health, for your own network only.
listen = "127.0.0.1:9464"

[log]
# error, warn, info, debug or trace
level = "info"

[tokens]
# How long an app may use an access token, and how long a refresh token may lie unused.
access = "10m"
refresh_idle = "30d"
"#,
        issuer = quoted(issuer.as_str()),
        proxies = proxies.join(", "),
        database = quoted(database),
    )
}

fn exists(file: &Path) -> Failure {
    Failure::new(format!(
        "{} exists already, and nothing is overwritten",
        file.display()
    ))
}

fn not_written(file: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AlreadyExists => exists(file),
        _ => Failure::new(format!("{}: {error}", file.display())),
    }
}
