//! `latchkey doctor`: what an operator would want to know of a live deployment, with a remedy beside every finding.

use std::io::{self, Write};
use std::net::{IpAddr, TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use chrono::DateTime;
use reqwest::{Client, StatusCode, header};
use serde_json::{Value, json};

use super::doctor_files::{self, Guarded};
use super::failure::{Failure, heard_or_not};
use super::guests::{self, Visitor};
use super::healthcheck;
use super::http;
use super::output::{self, Format};
use crate::audit::{Kind, Trail};
use crate::causes::with_causes;
use crate::clock::Clock;
use crate::config::{Config, DatabaseUrl, LogLevel, Sources};
use crate::http_client::whole;
use crate::keys;
use crate::protocol::client::{ClientId, ClientMetadata};
use crate::protocol::time::Timestamp;
use crate::random;
use crate::seed::Seed;
use crate::startup;
use crate::store::signing_keys::{KeyState, StoredKey};
use crate::store::{
    MigrationError, OpenError, Options, Store, audit_events, health, properties, signing_keys,
};

const DAY: Duration = Duration::from_secs(86_400);
/// A backup that is older says more of the plan than of the data.
const OLDEST_BACKUP: Duration = Duration::from_secs(7 * 86_400);
const LEAST_FREE_DISK: u64 = 1024 * 1024 * 1024;
/// Tokens live minutes; clocks that differ by more than this are noticed by people.
const MOST_SKEW: i64 = 10;
const REACH_DATABASE: &str =
    "check database.url, that the database runs, and that this account may use it";
const PATIENCE: Duration = Duration::from_secs(5);

/// What was looked at.
struct Check {
    name: &'static str,
    seen: String,
    /// What to do about it; nothing when all is well.
    remedy: Option<String>,
}

impl Check {
    fn good(name: &'static str, seen: impl Into<String>) -> Self {
        Self {
            name,
            seen: seen.into(),
            remedy: None,
        }
    }

    fn bad(name: &'static str, seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            seen: seen.into(),
            remedy: Some(remedy.into()),
        }
    }
}

/// Looks at everything; exit code 1 when there is a finding.
pub(super) fn run(
    config: &Config,
    sources: &Sources,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let mut checks = Vec::new();
    checks.push(cookies(config));
    checks.push(trusted_proxies(config));
    checks.extend(switches(config));
    checks.extend(file_modes(config, sources));
    checks.extend(free_disk(config));
    let rest = database(config, &mut checks);
    if let Some(store) = rest {
        checks.push(key_age(&store, config)?);
        checks.extend(backup_age(&store, config)?);
        actix_web::rt::System::new().block_on(network(&store, config, &mut checks));
    }
    let mut each = checks.iter();
    heard_or_not(each.try_for_each(|check| print(check, format, out)))?;
    let is_well = checks.iter().all(|check| check.remedy.is_none());
    Ok(if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(check: &Check, format: Format, out: &mut dyn Write) -> io::Result<()> {
    let Check { name, seen, remedy } = check;
    match (format, remedy) {
        (Format::Table, None) => writeln!(out, "ok       {name:<16} {seen}"),
        (Format::Table, Some(remedy)) => {
            writeln!(out, "FINDING  {name:<16} {seen}")?;
            writeln!(out, "         {:<16} -> {remedy}", "")
        }
        (Format::Json, _) => output::object(
            out,
            &json!({ "check": name, "ok": remedy.is_none(), "seen": seen, "remedy": remedy }),
        ),
    }
}

fn cookies(config: &Config) -> Check {
    let issuer = config.issuer.as_str();
    if config.issuer.is_https() {
        Check::good("cookies", "Secure, since the issuer is https")
    } else {
        Check::bad(
            "cookies",
            format!(
                "the issuer is {issuer}: cookies can't be Secure, and nobody else can reach it"
            ),
            "set issuer to the https address that people use, with a proxy in front that speaks TLS (deploy/nginx.conf)",
        )
    }
}

fn trusted_proxies(config: &Config) -> Check {
    let name = "trusted proxies";
    let proxies = &config.trusted_proxies;
    let listed: Vec<_> = proxies.iter().map(ToString::to_string).collect();
    let listed = listed.join(", ");
    if proxies.is_empty() && config.issuer.is_https() {
        return Check::bad(
            name,
            "none, but the issuer is https, so a proxy is in front: all people share its address and its limits",
            "set trusted_proxies to the addresses that the proxy connects from, such as [\"127.0.0.1/32\"]",
        );
    }
    if proxies.is_empty() {
        return Check::good(name, "none");
    }
    Check::good(name, listed)
}

fn switches(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut say = |seen: &str, remedy: &str| checks.push(Check::bad("switches", seen, remedy));
    if config.throttle.address_requests == 0 {
        say(
            "throttle.address_requests is 0: nobody is slowed down by their address",
            "remove it, or set it to what one address needs a minute",
        );
    }
    if config.throttle.address_failures > 1_000 {
        say(
            "throttle.address_failures is above 1000: one address may try that many passwords",
            "lower it to what people behind one address mistype",
        );
    }
    if config.password.minimum_length < 10 || config.password.minimum_score < 2 {
        say(
            "passwords may be short or easily guessed",
            "set password.minimum_length to 12 and password.minimum_score to 3",
        );
    }
    if matches!(config.log.level, LogLevel::Debug | LogLevel::Trace) {
        say(
            "log.level holds more than an operator needs every day",
            "set log.level to \"info\" when you are done",
        );
    }
    if checks.is_empty() {
        checks.push(Check::good("switches", "nothing dangerous is switched on"));
    }
    checks
}

/// Files that nobody but this account should read.
fn file_modes(config: &Config, sources: &Sources) -> Option<Check> {
    let name = "file modes";
    let files = doctor_files::guarded(config, sources);
    let (open, closed): (Vec<_>, Vec<_>) = files.iter().partition(|file| file.is_open());
    let told = |files: &[&Guarded]| {
        let each: Vec<_> = files.iter().map(|file| file.describe()).collect();
        each.join(", ")
    };
    if !open.is_empty() {
        let remedy = "chmod 0600, and find out who read or changed it";
        return Some(Check::bad(name, told(&open), remedy));
    }
    (!closed.is_empty()).then(|| Check::good(name, told(&closed)))
}

fn free_disk(config: &Config) -> Option<Check> {
    let DatabaseUrl::Sqlite(file) = &config.database.url else {
        return None;
    };
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    Some(match rustix::fs::statvfs(folder) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let seen = format!(
                "{} MiB are free in {}",
                free / 1024 / 1024,
                folder.display()
            );
            if free < LEAST_FREE_DISK {
                Check::bad(
                    "disk",
                    seen,
                    "make room: with a full disk nobody can sign in",
                )
            } else {
                Check::good("disk", seen)
            }
        }
        Err(error) => Check::bad(
            "disk",
            format!("{}: {error}", folder.display()),
            "check database.url",
        ),
    })
}

/// Whether the database is there, of this version, and takes writes; without it there is nothing more to look at.
fn database(config: &Config, checks: &mut Vec<Check>) -> Option<Store> {
    let name = "database";
    let store = match Store::open_existing(&config.database.url, Options::default()) {
        Ok(store) => store,
        Err(error) => {
            checks.push(not_opened(&error));
            return None;
        }
    };
    match store.read_blocking(signing_keys::list_before_migration) {
        Ok(stored) => checks.push(secret_key(config, &stored)),
        Err(error) => {
            checks.push(Check::bad(name, with_causes(&error), REACH_DATABASE));
            return None;
        }
    }
    match store.pending_migrations() {
        Ok(pending) if pending.is_empty() => {}
        Ok(pending) => {
            checks.push(Check::bad(
                "schema",
                format!("these have not run yet: {}", pending.join(", ")),
                "restart the server with this version, or run `latchkey migrate up`",
            ));
            return None;
        }
        Err(error) => {
            checks.push(Check::bad("schema", with_causes(&error), REACH_DATABASE));
            return None;
        }
    }
    checks.push(Check::good("schema", "is the one of this version"));
    let now = Clock::system().now();
    let written = store.write_blocking(|tx| properties::increment(tx, "doctor.visits"));
    match written.and_then(|()| store.read_blocking(health::clock)) {
        Err(error) => {
            let remedy = "make room, or let this account write to the database";
            checks.push(Check::bad(name, with_causes(&error), remedy));
            return None;
        }
        Ok(Some(theirs)) if skew(theirs, now) > MOST_SKEW => {
            checks.push(Check::bad(
                name,
                format!("its clock is {} s away from this one", skew(theirs, now)),
                "keep both machines' clocks by NTP",
            ));
        }
        Ok(_) => checks.push(Check::good(name, "takes writes")),
    }
    if let Ok(Some(mode)) = store.read_blocking(|conn| properties::find(conn, "mode"))
        && mode == "development"
    {
        checks.push(Check::bad(
            name,
            "was made by `latchkey dev`: its people have passwords that everybody knows",
            "set database.url to a new database",
        ));
    }
    Some(store)
}

fn not_opened(error: &OpenError) -> Check {
    let seen = with_causes(error);
    match error {
        OpenError::Missing { file } => Check::bad(
            "database",
            format!("{} does not exist", file.display()),
            "start the server, which makes it; or check database.url and the folder that this runs in",
        ),
        OpenError::Migrations(MigrationError::NewerSchema { .. }) => {
            Check::bad("schema", seen, "run the version that the server runs")
        }
        OpenError::Migrations(MigrationError::Foreign) => Check::bad(
            "database",
            seen,
            "set database.url to the file of this installation",
        ),
        OpenError::ReadOnly { .. } => {
            let remedy = "run this by the account that runs the server";
            Check::bad("database", seen, remedy)
        }
        _ => Check::bad("database", seen, REACH_DATABASE),
    }
}

/// Without the key that the database was made with no server starts.
fn secret_key(config: &Config, stored: &[StoredKey]) -> Check {
    let name = "secret key";
    let made_later = config.secret_key.is_none()
        && config
            .default_secret_key_file()
            .is_some_and(|file| !file.exists());
    if made_later && stored.is_empty() {
        return Check::good(
            name,
            "there is none yet; the server makes it when it starts",
        );
    }
    let root = match startup::existing_root_key(config) {
        Ok(root) => root,
        Err(error) => {
            let remedy = "let this account read it, with mode 0600; if it is gone, put back the one that you keep beside the backups";
            return Check::bad(name, with_causes(&error), remedy);
        }
    };
    if let Err(error) = keys::check_root_key(stored, &root) {
        let remedy = "set secret_key or secret_key_file to the key that this database was made with; no other one opens it";
        return Check::bad(name, with_causes(&error), remedy);
    }
    match keys::closed_to(stored, &root)[..] {
        [] => Check::good(name, "is the one of this database"),
        ref closed => Check::bad(
            name,
            format!("it does not open these signing keys: {}", closed.join(", ")),
            "restore the last backup before they were made: another secret key was in use then, or they were changed",
        ),
    }
}

fn skew(a: Timestamp, b: Timestamp) -> i64 {
    (a.seconds() - b.seconds()).abs()
}

/// A key that is older than the schedule allows shows that nobody rotates.
fn key_age(store: &Store, config: &Config) -> Result<Check, Failure> {
    let now = Clock::system().now();
    let stored = store.read_blocking(signing_keys::list)?;
    let current = stored.iter().filter(|key| key.state == KeyState::Current);
    let oldest = current
        .map(|key| now.since(key.activated_at.unwrap_or(key.created_at)))
        .max();
    let Some(oldest) = oldest else {
        return Ok(Check::bad(
            "signing keys",
            "there is none",
            "start the server, which makes them",
        ));
    };
    let days = oldest.as_secs() / DAY.as_secs();
    let seen = format!("the oldest that signs is {days} days old");
    Ok(if oldest > config.keys.rotate_every + DAY {
        Check::bad(
            "signing keys",
            seen,
            "see the server's log: it rotates by itself while it runs",
        )
    } else {
        Check::good("signing keys", seen)
    })
}

fn backup_age(store: &Store, config: &Config) -> Result<Option<Check>, Failure> {
    let name = "backup";
    // How PostgreSQL is backed up, PostgreSQL knows.
    if let DatabaseUrl::Postgres(_) = config.database.url {
        return Ok(None);
    }
    let now = Clock::system().now();
    let kind = Kind::DatabaseBackedUp;
    let last = store.read_blocking(move |conn| audit_events::last_of(conn, kind))?;
    let remedy =
        "run `latchkey backup FILE` every night, and keep the file and the secret key elsewhere";
    Ok(Some(match last {
        None => Check::bad(name, "none was made yet", remedy),
        Some(at) if now.since(at) > OLDEST_BACKUP => Check::bad(
            name,
            format!("the last one is of {}", at.to_rfc3339()),
            remedy,
        ),
        Some(at) => Check::good(name, format!("the last one is of {}", at.to_rfc3339())),
    }))
}

/// The way from outside: through whatever stands in front.
async fn network(store: &Store, config: &Config, checks: &mut Vec<Check>) {
    let issuer = config.issuer.as_str();
    let reach = "check DNS, the proxy's certificate and that the proxy leads to listen";
    let http = match http::browser(&config.egress) {
        Ok(http) => http,
        Err(error) => return checks.push(Check::bad("issuer", with_causes(&error), reach)),
    };
    let url = format!("{issuer}/.well-known/openid-configuration");
    let document = match fetch(&http, &url).await {
        Ok((StatusCode::OK, date, body)) => {
            checks.extend(clock_of(date));
            serde_json::from_slice::<Value>(&body).unwrap_or_default()
        }
        Ok((status, ..)) => {
            return checks.push(Check::bad(
                "issuer",
                format!("{url} answers {status}"),
                reach,
            ));
        }
        Err(error) if !healthcheck::is_listening(&config.listen) => {
            let remedy = format!(
                "start the server (latchkey serve), since nothing listens at {} here; if it runs elsewhere, {reach}",
                config.listen
            );
            return checks.push(Check::bad("issuer", error, remedy));
        }
        Err(error) => return checks.push(Check::bad("issuer", error, reach)),
    };
    let named = document.get("issuer").and_then(Value::as_str);
    if named != Some(issuer) {
        let named = named.unwrap_or("nothing");
        return checks.push(Check::bad(
            "issuer",
            format!("discovery names {named}, this configuration {issuer}"),
            "let both be the same, byte for byte; or restart the server, which reads its configuration once",
        ));
    }
    checks.push(Check::good(
        "issuer",
        format!("{issuer} is reached and names itself so"),
    ));
    checks.push(match fetch(&http, &format!("{issuer}/")).await {
        Ok((StatusCode::MISDIRECTED_REQUEST, ..)) => Check::bad(
            "proxy",
            "the server believes that it was opened under another address",
            "let the proxy pass Host and X-Forwarded-Proto on, and name it in trusted_proxies (deploy/nginx.conf)",
        ),
        Ok(_) => Check::good("proxy", "host and scheme arrive as people type them"),
        Err(error) => Check::bad("proxy", error, reach),
    });
    let endpoint = document
        .get("introspection_endpoint")
        .and_then(Value::as_str);
    checks.push(match client_address(&http, store, config, endpoint).await {
        Ok(check) => check,
        Err(error) => Check::bad("client address", error, reach),
    });
}

type Fetched = (StatusCode, Option<String>, Vec<u8>);

async fn fetch(http: &Client, url: &str) -> Result<Fetched, String> {
    let mut response = http
        .get(url)
        .send()
        .await
        .map_err(|error| with_causes(&error))?;
    let date = response.headers().get(header::DATE);
    let date = date
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let body = whole(&mut response)
        .await
        .map_err(|error| with_causes(&error))?;
    Ok((response.status(), date, body))
}

fn clock_of(date: Option<String>) -> Option<Check> {
    let theirs = DateTime::parse_from_rfc2822(&date?).ok()?.timestamp();
    let skew = skew(Timestamp::from_seconds(theirs), Clock::system().now());
    Some(if skew > MOST_SKEW {
        Check::bad(
            "clock",
            format!("the server's is {skew} s away from this one"),
            "keep both machines' clocks by NTP",
        )
    } else {
        Check::good("clock", "the same here and there")
    })
}

/// The server writes down from where a wrong secret came. Here it comes from us, so we know what should stand there.
async fn client_address(
    http: &Client,
    store: &Store,
    config: &Config,
    endpoint: Option<&str>,
) -> Result<Check, String> {
    let name = "client address";
    let told = |error: &dyn std::error::Error| with_causes(error);
    let endpoint = endpoint.ok_or("discovery has no introspection_endpoint")?;
    let (ours, id) = (local_address(endpoint)?, Visitor::Doctor.new_id());
    let app = ClientMetadata {
        client_id: Some(id.clone()),
        client_name: Some(Visitor::Doctor.app_name().to_owned()),
        grant_types: Some(vec!["client_credentials".to_owned()]),
        ..ClientMetadata::default()
    };
    let now = Clock::system().now();
    guests::remove_leftovers(store, now).map_err(|error| told(&error))?;
    Seed::of_new_client(app, config, Vec::new())
        .and_then(|seed| seed.apply(store, config, now))
        .map_err(|error| told(&error))?;
    let request = http.post(endpoint).basic_auth(&id, Some(random::token()));
    let asked = request.form(&[("token", "none")]).send().await;
    let client = ClientId::from_request(&id);
    let seen = store
        .write_blocking(move |tx| {
            let trail = Trail::of_command(now);
            guests::remove_app(tx, &trail, &client)?;
            audit_events::address_of(tx, Kind::ClientAuthenticationFailed, client.as_str())
        })
        .map_err(|error| told(&error))?;
    asked.map_err(|error| told(&error))?;
    let Some(seen) = seen.and_then(|address| address.parse::<IpAddr>().ok()) else {
        return Ok(Check::bad(
            name,
            "the server noted no address: it reads another database than this configuration",
            "run this with the server's configuration",
        ));
    };
    let is_proxy = |address: IpAddr| {
        address.is_loopback()
            || config
                .trusted_proxies
                .iter()
                .any(|network| network.contains(&address))
    };
    Ok(if seen != ours && is_proxy(seen) {
        Check::bad(
            name,
            format!("we come from {ours}, but the server sees {seen}, which is the proxy"),
            "let the proxy send X-Forwarded-For, and name it in trusted_proxies (deploy/nginx.conf)",
        )
    } else {
        Check::good(name, format!("we come from {ours}, the server sees {seen}"))
    })
}

/// The address that we have on the way there.
fn local_address(url: &str) -> Result<IpAddr, String> {
    let broken = |error: io::Error| format!("{url}: {error}");
    let url = url::Url::parse(url).map_err(|error| error.to_string())?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or(443);
    let mut last = format!("{host} has no address");
    for address in (host, port).to_socket_addrs().map_err(broken)? {
        match TcpStream::connect_timeout(&address, PATIENCE).and_then(|stream| stream.local_addr())
        {
            Ok(local) => return Ok(local.ip().to_canonical()),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}
