//! `latchkey init`: from nothing to a configuration that serves.

use std::fmt::Display;
use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;
use ipnet::IpNet;
use serde_json::json;

use super::failure::Failure;
use super::output::{self, Format};
use crate::config::{Config, DatabaseUrl, DatabaseUrlError, Issuer, Listen, SecretKey, Sources};
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
    /// Where the server waits for requests; without it 127.0.0.1:8080, or where an issuer on loopback is.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// From where the proxy connects, such as 127.0.0.1/32; may be repeated.
    #[arg(long = "trusted-proxy", value_name = "NETWORK")]
    trusted_proxies: Vec<String>,
}

/// Where everything is written, as absolute paths: a service is started in another folder than this command.
struct Places {
    file: PathBuf,
    key_file: PathBuf,
    folder: String,
}

/// What stands in the file.
struct Settings {
    issuer: Issuer,
    listen: Listen,
    database: String,
    proxies: Vec<String>,
    key_file: Option<String>,
}

/// Writes the file that `--config` names, else latchkey.toml, and with PostgreSQL a secret key beside it; overwrites nothing.
pub(super) fn run(
    file: Option<PathBuf>,
    answers: Answers,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let named = file.as_deref();
    let places = Places::of(named.unwrap_or(Path::new(FILE)))?;
    if places.file.try_exists()? {
        return Err(exists(&places.file));
    }
    let settings = settings(answers, &places)?;
    let made = match &settings.key_file {
        Some(_) => make_key(&places.key_file)?,
        None => false,
    };
    if let Err(error) = write_new_file(&places.file, &configuration(&settings)) {
        if made {
            // A moment ago, and nobody has used it.
            let _left_behind = std::fs::remove_file(&places.key_file);
        }
        return Err(not_written(&places.file, &error));
    }
    let file = places.file.display();
    let key = settings.key_file;
    if format == Format::Json {
        let written = json!({ "config": file.to_string(), "secret_key_file": key });
        output::object(out, &written)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "wrote {file}")?;
    match key {
        Some(key) if made => writeln!(
            out,
            "wrote {key}: keep a copy, and elsewhere; without it the database is of no use"
        )?,
        Some(key) => writeln!(out, "kept {key}, which was there")?,
        None => {}
    }
    let command = named.map_or_else(
        || "latchkey".to_owned(),
        |file| format!("latchkey --config {}", file.display()),
    );
    writeln!(out, "Next: {command} config check")?;
    writeln!(
        out,
        "      {command} users create YOU@EXAMPLE.COM --admin --verified"
    )?;
    writeln!(out, "      {command} serve")?;
    writeln!(out, "      {command} doctor")?;
    Ok(ExitCode::SUCCESS)
}

impl Places {
    /// The names go into the file and into TOML, which is text.
    fn of(file: &Path) -> Result<Self, Failure> {
        let file = std::path::absolute(file)?;
        let folder = file.parent().and_then(Path::to_str);
        let Some(folder) = folder.filter(|_| file.to_str().is_some()) else {
            let text = format!("{:?} is no path in UTF-8, which --config needs here", file);
            return Err(Failure::new(text));
        };
        Ok(Self {
            key_file: file.with_file_name(KEY_FILE),
            folder: folder.trim_end_matches('/').to_owned(),
            file,
        })
    }

    /// A relative database is in the folder of the configuration, wherever the server is started.
    fn database(&self, text: &str) -> String {
        match text.strip_prefix("sqlite://") {
            Some(path) if !path.starts_with(['/', ':']) && !path.is_empty() => {
                format!("sqlite://{}/{path}", self.folder)
            }
            _ => text.to_owned(),
        }
    }
}

/// Asks for what no flag says.
fn settings(answers: Answers, places: &Places) -> Result<Settings, Failure> {
    let is_asked = answers.issuer.is_none();
    let issuer: Issuer = ask(
        "Issuer, the https address that people and apps use",
        "--issuer",
        answers.issuer,
        None,
    )?;
    let sqlite = places.database("sqlite://latchkey.db");
    // Whoever gave the first answer as a flag is a script, and takes what is usual.
    let database = answers
        .database
        .or_else(|| (!is_asked).then(|| sqlite.clone()));
    let Typed(database) = ask("Database", "--database", database, Some(&sqlite))?;
    let listen = match answers.listen {
        Some(text) => parse("--listen", &text)?,
        None => usual_listen(&issuer),
    };
    let database = places.database(&database);
    let needs_key = !database.starts_with("sqlite:");
    let settings = Settings {
        proxies: trusted_proxies(&issuer, &answers.trusted_proxies)?,
        key_file: needs_key.then(|| places.key_file.display().to_string()),
        issuer,
        listen,
        database,
    };
    check(&settings)?;
    Ok(settings)
}

/// Whatever is written is a good configuration; each value is, but not yet what they are together.
fn check(settings: &Settings) -> Result<(), Failure> {
    let mut overrides = vec![
        ("issuer", settings.issuer.to_string()),
        ("listen", settings.listen.to_string()),
        ("database.url", settings.database.clone()),
        ("trusted_proxies", settings.proxies.join(",")),
    ];
    if settings.key_file.is_some() {
        // The one that is made has this form too.
        overrides.push(("secret_key", "0".repeat(64)));
    }
    let overrides = overrides.into_iter();
    Config::load(Sources {
        overrides: overrides
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
        ..Sources::default()
    })?;
    Ok(())
}

/// With TLS a proxy is in front; without it people reach the server itself, where the issuer says.
fn usual_listen(issuer: &Issuer) -> Listen {
    let address = if issuer.is_https() {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))
    } else {
        let host = issuer.host().trim_matches(['[', ']']);
        let host = host.parse().unwrap_or(Ipv4Addr::LOCALHOST.into());
        SocketAddr::new(host, issuer.port())
    };
    Listen::Tcp(address)
}

/// Makes the key, unless one is there: that of the other servers of this database. Whether it was made.
fn make_key(file: &Path) -> Result<bool, Failure> {
    if !file.try_exists()? {
        new_key_file(file).map_err(|error| not_written(file, &error))?;
        return Ok(true);
    }
    match SecretKey::read(file) {
        Ok(_kept) => Ok(false),
        Err(problem) => Err(Failure::new(format!(
            "{} exists already, and is a file {}",
            file.display(),
            problem.trim_start_matches("names a file ")
        ))),
    }
}

/// With TLS there is a proxy, and on one machine it comes from loopback.
fn trusted_proxies(issuer: &Issuer, given: &[String]) -> Result<Vec<String>, Failure> {
    if given.is_empty() && issuer.is_https() {
        return Ok(vec!["127.0.0.1/32".to_owned(), "::1/128".to_owned()]);
    }
    let mut networks: Vec<IpNet> = Vec::new();
    for text in given {
        let address = text.parse::<IpAddr>().map(IpNet::from).ok();
        let network = address.or_else(|| text.parse::<IpNet>().ok());
        let Some(network) = network.filter(|network| network.prefix_len() > 0) else {
            return Err(Failure::new(format!(
                "--trusted-proxy {text:?} is no address or network such as 10.0.0.0/8"
            )));
        };
        // Whoever names one twice means it once.
        if !networks.contains(&network.trunc()) {
            networks.push(network.trunc());
        }
    }
    Ok(networks.iter().map(IpNet::to_string).collect())
}

/// A database as it was typed, which is one; the URL keeps its password.
struct Typed(String);

impl FromStr for Typed {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        text.parse::<DatabaseUrl>()
            .map(|_is_one| Self(text.to_owned()))
    }
}

fn parse<T: FromStr<Err: Display>>(flag: &str, text: &str) -> Result<T, Failure> {
    // A database's address may hold a password, so what was typed is not repeated.
    text.parse()
        .map_err(|error| Failure::new(format!("{flag} {error}")))
}

/// What the flag says, else what is typed, in as many attempts as it takes.
fn ask<T: FromStr<Err: Display>>(
    question: &str,
    flag: &str,
    given: Option<String>,
    usual: Option<&str>,
) -> Result<T, Failure> {
    if let Some(given) = given {
        return parse(flag, &given);
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::new(format!(
            "{flag} is needed: there is no terminal to ask on"
        )));
    }
    let mut terminal = io::stderr();
    loop {
        match usual {
            Some(usual) => write!(terminal, "{question} [{usual}]: ")?,
            None => write!(terminal, "{question}: ")?,
        }
        terminal.flush()?;
        let mut line = String::new();
        if stdin.lock().read_line(&mut line)? == 0 {
            return Err(Failure::new("nothing was written: the answers ended"));
        }
        let typed = match (line.trim(), usual) {
            ("", Some(usual)) => usual,
            (typed, _) => typed,
        };
        match typed.parse() {
            Ok(answer) => return Ok(answer),
            Err(error) => writeln!(terminal, "It {error}.")?,
        }
    }
}

fn configuration(settings: &Settings) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let proxies = settings.proxies.iter().map(|proxy| quoted(proxy));
    let secret_key = match &settings.key_file {
        Some(key) => format!("secret_key_file = {}", quoted(key)),
        None => "# Made at the first start as secret.key beside the database; another place:\n#secret_key_file = \"/etc/latchkey/secret.key\"".to_owned(),
    };
    format!(
        r#"# Latchkey. Every key with its default and reason: latchkey config reference
# After a change: latchkey config check, then restart.

# Where people and apps reach this server: the issuer of every token. Changing it later breaks every app.
issuer = {issuer}

# Where it waits for requests; a proxy in front of it speaks TLS.
listen = {listen}

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
        issuer = quoted(settings.issuer.as_str()),
        listen = quoted(&settings.listen.to_string()),
        proxies = proxies.collect::<Vec<_>>().join(", "),
        database = quoted(&settings.database),
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
