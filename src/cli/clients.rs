//! `latchkey clients …`.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::failure::Failure;
use super::output::{self, Format};
use crate::clock::Clock;
use crate::config::Config;
use crate::protocol::client::{Client, ClientMetadata};
use crate::random;
use crate::seed::Seed;
use crate::startup;
use crate::store::clients;

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Register an app; its secret is shown this once.
    Create(New),
    /// Show every app.
    List,
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
    #[arg(long = "redirect-uri", value_name = "URI", required = true)]
    redirect_uris: Vec<String>,
    /// Where people may be sent after signing out; may be repeated.
    #[arg(long = "post-logout-redirect-uri", value_name = "URI")]
    post_logout_redirect_uris: Vec<String>,
    /// It runs where a secret can't be kept, as in a browser: no secret, PKCE always.
    #[arg(long)]
    public: bool,
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
    }
}

fn create(
    config: &Config,
    new: New,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let id = new.id.clone().unwrap_or_else(random::id);
    let seed = Seed::of_new_client(metadata(new, &id), config)?;
    let store = startup::open(config, false)?.store;
    let summary = seed.apply(&store, config, Clock::system().now())?;
    let secret = summary.new_secrets.first().map(|(_, secret)| secret);
    match format {
        Format::Table => {
            writeln!(out, "client_id={id}")?;
            if let Some(secret) = secret {
                writeln!(out, "client_secret={secret}")?;
            }
        }
        Format::Json => {
            let mut value = json!({ "client_id": id });
            if let (Some(secret), Some(object)) = (secret, value.as_object_mut()) {
                object.insert("client_secret".to_owned(), json!(secret));
            }
            output::object(out, &value)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(config: &Config, format: Format, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let apps = startup::open(config, false)?
        .store
        .read_blocking(clients::list)?;
    match format {
        Format::Table => {
            let rows: Vec<_> = apps.iter().map(row).collect();
            output::table(out, &["CLIENT ID", "NAME", "KIND", "REDIRECT URIS"], &rows)?;
        }
        Format::Json => {
            for app in &apps {
                output::object(out, &describe(app)?)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn metadata(new: New, id: &str) -> ClientMetadata {
    ClientMetadata {
        client_id: Some(id.to_owned()),
        client_name: new.name,
        redirect_uris: new.redirect_uris,
        post_logout_redirect_uris: new.post_logout_redirect_uris,
        token_endpoint_auth_method: new.public.then(|| "none".to_owned()),
        application_type: new.native.then(|| "native".to_owned()),
        scope: new.scope,
        allowed_cors_origins: Some(new.cors_origins),
        require_pkce: Some(new.require_pkce),
        skip_consent: Some(new.skip_consent),
        access_token_format: new.opaque.then(|| "opaque".to_owned()),
        grant_types: new.refresh_tokens.then(|| {
            ["authorization_code", "refresh_token"]
                .map(str::to_owned)
                .to_vec()
        }),
        ..ClientMetadata::default()
    }
}

fn row(app: &Client) -> Vec<String> {
    let kind = if app.is_public() {
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

/// The metadata under their registered names, lifetimes in seconds; what is not set is left out.
fn describe(app: &Client) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(app)?;
    if let Some(object) = value.as_object_mut() {
        object.retain(|_, value| !value.is_null());
        let lifetimes = [
            ("code", app.tokens.code),
            ("access", app.tokens.access),
            ("id", app.tokens.id),
            ("refresh_idle", app.tokens.refresh_idle),
            ("refresh_absolute", app.tokens.refresh_absolute),
            ("refresh_retry_window", app.tokens.refresh_retry_window),
        ];
        let tokens = lifetimes
            .into_iter()
            .filter_map(|(name, life)| Some((name.to_owned(), json!(life?.as_secs()))));
        object.insert("tokens".to_owned(), Value::Object(tokens.collect()));
    }
    Ok(value)
}
