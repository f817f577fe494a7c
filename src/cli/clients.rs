//! `latchkey clients …`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::failure::Failure;
use super::output::{self, Format};
use crate::audit::{Event, Kind, Trail};
use crate::clock::Clock;
use crate::config::{Config, duration};
use crate::protocol::client::{Client, ClientId, ClientMetadata};
use crate::protocol::client_secret::ClientSecret;
use crate::protocol::grants::GrantType;
use crate::random;
use crate::seed::{Seed, metadata_of};
use crate::startup;
use crate::store::{audit_events, client_secrets, clients, scopes};

/// Ten years: beyond that a number is a slip of the pen.
const LONGEST_LIFE: Duration = Duration::from_secs(3_650 * 86_400);

/// How a field of a new app is given here.
const NAMES: &[(&str, &str)] = &[
    ("client_id", "--id"),
    ("client_name", "--name"),
    ("redirect_uris", "--redirect-uri"),
    ("post_logout_redirect_uris", "--post-logout-redirect-uri"),
    ("jwks", "--jwks"),
    ("scope", "--scope"),
    ("allowed_cors_origins", "--cors-origin"),
];

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Register an app; its secret is shown this once.
    Create(New),
    /// Show every app.
    List,
    /// Show what is known of an app; of its secrets only how each begins.
    Show { id: String },
    /// Make another secret, which is shown this once; those before it go on working.
    AddSecret {
        id: String,
        /// How long it works, such as 90d; for ever when absent.
        #[arg(long, value_name = "DURATION", value_parser = life_of_a_secret)]
        expires: Option<Duration>,
    },
    /// End a secret at once; `clients show` tells its id.
    RevokeSecret { id: String, secret_id: String },
    /// Remove an app with everything that was issued to it or allowed to it.
    Delete { id: String },
}

#[derive(Args)]
pub(super) struct New {
    /// The public name that the app sends; made up when absent.
    #[arg(long)]
    id: Option<String>,
    /// What people see on the consent page.
    #[arg(long)]
    name: Option<String>,
    /// Where people may be sent back to; may be repeated.
    #[arg(
        long = "redirect-uri",
        value_name = "URI",
        required_unless_present = "machine"
    )]
    redirect_uris: Vec<String>,
    /// It gets tokens for itself, with its secret: there is no person, and nobody is sent back.
    #[arg(long, conflicts_with_all = ["redirect_uris", "public", "native", "refresh_tokens", "skip_consent", "require_pkce"])]
    machine: bool,
    /// Where people may be sent after signing out; may be repeated.
    #[arg(long = "post-logout-redirect-uri", value_name = "URI")]
    post_logout_redirect_uris: Vec<String>,
    /// It runs where a secret can't be kept, as in a browser: no secret, PKCE always.
    #[arg(long)]
    public: bool,
    /// It signs assertions in place of a secret (`private_key_jwt`): a JSON file with its public keys (a JWK set).
    #[arg(long, value_name = "FILE", conflicts_with = "public")]
    jwks: Option<PathBuf>,
    /// It runs on the person's own machine: loopback redirects and schemes of its own.
    #[arg(long)]
    native: bool,
    /// What it may ask for, separated by spaces; everything when absent.
    #[arg(long)]
    scope: Option<String>,
    /// An origin that its pages run on; may be repeated.
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    cors_origins: Vec<String>,
    /// Requests without PKCE are refused.
    #[arg(long)]
    require_pkce: bool,
    /// People are not asked: for apps of one's own.
    #[arg(long)]
    skip_consent: bool,
    /// Access tokens that only this server can read.
    #[arg(long)]
    opaque: bool,
    /// It may ask for `offline_access`, and so stay connected with refresh tokens.
    #[arg(long)]
    refresh_tokens: bool,
}

pub(super) fn run(
    config: &Config,
    verb: Verb,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Create(new) => create(config, new, format, out),
        Verb::List => list(config, format, out),
        Verb::Show { id } => show(config, &id, format, out),
        Verb::AddSecret { id, expires } => add_secret(config, &id, expires, format, out),
        Verb::RevokeSecret { id, secret_id } => revoke_secret(config, &id, &secret_id, format, out),
        Verb::Delete { id } => delete(config, &id, format, out),
    }
}

fn create(
    config: &Config,
    new: New,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let id = new.id.clone().unwrap_or_else(random::id);
    let jwks = new.jwks.as_deref().map(read_keys).transpose()?;
    let store = startup::open(config, false)?.store;
    let defined = store.read_blocking(scopes::list)?;
    let seed = Seed::of_new_client(metadata(new, jwks, &id), config, defined)
        .map_err(|error| error.naming(NAMES))?;
    let summary = seed.apply(&store, config, Clock::system().now())?;
    let secret = summary.new_secrets.first().map(|(_, secret)| secret);
    let printed = match format {
        Format::Table => {
            let secret = secret.map(|secret| format!("client_secret={secret}\n"));
            write!(out, "client_id={id}\n{}", secret.unwrap_or_default())
        }
        Format::Json => {
            let mut value = json!({ "client_id": id });
            if let (Some(secret), Some(object)) = (secret, value.as_object_mut()) {
                object.insert("client_secret".to_owned(), json!(secret));
            }
            output::object(out, &value)
        }
    };
    match (printed.and_then(|()| out.flush()), secret) {
        (Err(error), Some(_)) => Err(secret_is_lost(&id, &error)),
        (Err(error), None) => Err(error.into()),
        (Ok(()), _) => Ok(ExitCode::SUCCESS),
    }
}

/// It was shown to nobody, and only its hash is kept.
fn secret_is_lost(id: &str, error: &io::Error) -> Failure {
    Failure::new(format!(
        "{id} has the new secret, but it could not be printed ({error}), so nobody knows it; make another one with \
         `latchkey clients add-secret {id}`, and revoke this one"
    ))
}

fn read_keys(file: &Path) -> Result<Value, Failure> {
    let shown = file.display();
    let text =
        fs::read(file).map_err(|error| Failure::new(format!("{shown} can't be read: {error}")))?;
    serde_json::from_slice(&text)
        .map_err(|error| Failure::new(format!("{shown} is no JSON: {error}")))
}

fn list(config: &Config, format: Format, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let apps = startup::open_existing(config, false)?
        .store
        .read_blocking(clients::list)?;
    let headings = ["CLIENT ID", "NAME", "KIND", "REDIRECT URIS"];
    output::list(out, format, &apps, &headings, row, metadata_of)?;
    Ok(ExitCode::SUCCESS)
}

fn show(
    config: &Config,
    id: &str,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let client = ClientId::from_request(id);
    let store = startup::open_existing(config, false)?.store;
    let (app, secrets) = store.read_blocking(move |conn| {
        let app = clients::find(conn, &client)?;
        Ok((app, client_secrets::list(conn, &client)?))
    })?;
    let app = app.ok_or_else(|| unknown(id))?;
    let mut value = metadata_of(&app);
    match format {
        Format::Table => {
            let fields: Vec<_> = value.as_object().into_iter().flatten().map(field).collect();
            output::table(out, &["FIELD", "VALUE"], &fields)?;
            writeln!(out)?;
            let rows: Vec<_> = secrets.iter().map(secret_row).collect();
            let headings = [
                "SECRET ID",
                "BEGINS WITH",
                "CREATED",
                "LAST USED",
                "EXPIRES",
            ];
            output::table(out, &headings, &rows)?;
        }
        Format::Json => {
            if let Some(object) = value.as_object_mut() {
                let secrets = secrets.iter().map(describe_secret).collect();
                object.insert("secrets".to_owned(), Value::Array(secrets));
            }
            output::object(out, &value)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn add_secret(
    config: &Config,
    id: &str,
    expires: Option<Duration>,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let store = startup::open_existing(config, false)?.store;
    let (client, text) = (ClientId::from_request(id), random::token());
    let now = Clock::system().now();
    let secret = ClientSecret {
        expires_at: expires.map(|life| now.plus(life)),
        ..ClientSecret::new(&random::id(), &text, now)
    };
    let added = {
        let (secret, trail) = (secret.clone(), Trail::of_command(now));
        store.write_blocking(move |tx| {
            let added = client_secrets::add(tx, &client, &secret, now)?;
            if added.is_ok() {
                let event = Event::of_client(Kind::ClientSecretAdded, &client);
                let event = event.noting("secret", secret.id.as_str());
                audit_events::record(tx, &trail, &event)?;
            }
            Ok(added)
        })?
    };
    added.map_err(|reason| Failure::new(format!("{id}: {reason}")))?;
    let printed = match format {
        Format::Table => {
            let secret_id = &secret.id;
            writeln!(
                out,
                "secret_id={secret_id}\nclient_secret={text}  (shown this once)"
            )
        }
        Format::Json => {
            let mut value = describe_secret(&secret);
            if let Some(object) = value.as_object_mut() {
                object.insert("client_id".to_owned(), json!(id));
                object.insert("client_secret".to_owned(), json!(text));
            }
            output::object(out, &value)
        }
    };
    printed
        .and_then(|()| out.flush())
        .map_err(|error| secret_is_lost(id, &error))?;
    Ok(ExitCode::SUCCESS)
}

/// The last one too: who must stop a leak has to be able to.
fn revoke_secret(
    config: &Config,
    id: &str,
    secret_id: &str,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let store = startup::open_existing(config, false)?.store;
    let (client, secret) = (ClientId::from_request(id), secret_id.to_owned());
    let now = Clock::system().now();
    let trail = Trail::of_command(now);
    let (revoked, secrets) = store.write_blocking(move |tx| {
        let revoked = client_secrets::revoke(tx, &client, &secret, now)?;
        if revoked {
            let event = Event::of_client(Kind::ClientSecretRevoked, &client);
            audit_events::record(tx, &trail, &event.noting("secret", secret.as_str()))?;
        }
        Ok((revoked, client_secrets::list(tx, &client)?))
    })?;
    if !revoked {
        let reason = format!("the client {id} has no secret {secret_id} that still works");
        return Err(Failure::new(reason));
    }
    let left = secrets.iter().filter(|secret| secret.is_live(now)).count();
    let from_file = secrets
        .iter()
        .any(|secret| secret.id == secret_id && secret.from_file);
    match format {
        Format::Table => {
            writeln!(out, "revoked {secret_id} of {id}")?;
            if from_file {
                writeln!(
                    out,
                    "It came from a file: change it there too, or `latchkey apply` brings it back."
                )?;
            }
            match left {
                0 => writeln!(
                    out,
                    "{id} has no secret left and can't authenticate; `latchkey clients add-secret {id}` makes one."
                )?,
                left => writeln!(out, "left: {left}")?,
            }
        }
        Format::Json => output::object(
            out,
            &json!({ "client_id": id, "id": secret_id, "from_file": from_file, "left": left }),
        )?,
    }
    Ok(ExitCode::SUCCESS)
}

fn delete(
    config: &Config,
    id: &str,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let store = startup::open_existing(config, false)?.store;
    let client = ClientId::from_request(id);
    let trail = Trail::of_command(Clock::system().now());
    let deleted = store.write_blocking(move |tx| {
        let deleted = clients::delete(tx, &client)?;
        if deleted {
            audit_events::record(tx, &trail, &Event::of_client(Kind::ClientDeleted, &client))?;
        }
        Ok(deleted)
    })?;
    if !deleted {
        return Err(unknown(id));
    }
    match format {
        Format::Table => writeln!(
            out,
            "deleted {id}; its tokens and consents are gone with it"
        )?,
        Format::Json => output::object(out, &json!({ "client_id": id, "deleted": true }))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn unknown(id: &str) -> Failure {
    Failure::new(format!("there is no client {id}"))
}

fn life_of_a_secret(text: &str) -> Result<Duration, String> {
    duration::parse(text)
        .filter(|life| !life.is_zero() && *life <= LONGEST_LIFE)
        .ok_or_else(|| "a duration such as 12h or 90d, at most 3650d".to_owned())
}

fn metadata(new: New, jwks: Option<Value>, id: &str) -> ClientMetadata {
    let method = match (new.public, &jwks) {
        (true, _) => Some("none"),
        (false, Some(_)) => Some("private_key_jwt"),
        (false, None) => None,
    };
    let grant_types: Option<&[GrantType]> = match (new.machine, new.refresh_tokens) {
        (true, _) => Some(&[GrantType::ClientCredentials]),
        (false, true) => Some(&[GrantType::AuthorizationCode, GrantType::RefreshToken]),
        (false, false) => None,
    };
    ClientMetadata {
        client_id: Some(id.to_owned()),
        client_name: new.name,
        redirect_uris: new.redirect_uris,
        post_logout_redirect_uris: new.post_logout_redirect_uris,
        token_endpoint_auth_method: method.map(str::to_owned),
        jwks,
        application_type: new.native.then(|| "native".to_owned()),
        scope: new.scope,
        allowed_cors_origins: Some(new.cors_origins),
        require_pkce: Some(new.require_pkce),
        skip_consent: Some(new.skip_consent),
        access_token_format: new.opaque.then(|| "opaque".to_owned()),
        grant_types: grant_types.map(|all| all.iter().map(|one| one.as_str().to_owned()).collect()),
        ..ClientMetadata::default()
    }
}

fn row(app: &Client) -> Vec<String> {
    let kind = if !app.may_use(GrantType::AuthorizationCode) {
        "machine"
    } else if app.is_public() {
        "public"
    } else {
        "confidential"
    };
    let uris: Vec<_> = app.redirect_uris.iter().map(ToString::to_string).collect();
    vec![
        app.client_id.to_string(),
        app.client_name.clone().unwrap_or_default(),
        kind.to_owned(),
        uris.join(" "),
    ]
}

/// A field of the metadata for people: lists word by word, texts without quotes.
fn field((name, value): (&String, &Value)) -> Vec<String> {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let shown = match value {
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(" "),
        other => text(other),
    };
    vec![name.clone(), shown]
}

fn secret_row(secret: &ClientSecret) -> Vec<String> {
    vec![
        secret.id.clone(),
        secret.prefix.clone(),
        output::time(secret.created_at),
        output::moment(secret.last_used_at),
        output::moment(secret.expires_at),
    ]
}

/// Neither the secret nor its hash.
fn describe_secret(secret: &ClientSecret) -> Value {
    json!({
        "id": secret.id,
        "prefix": secret.prefix,
        "from_file": secret.from_file,
        "created_at": output::time(secret.created_at),
        "last_used_at": secret.last_used_at.map(output::time),
        "expires_at": secret.expires_at.map(output::time),
    })
}
