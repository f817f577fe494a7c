//! `latchkey users …`.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, json};

use super::failure::Failure;
use super::output::{self, Format};
use super::password_input;
use crate::audit::{Event, Kind, Trail};
use crate::clock::Clock;
use crate::config::Config;
use crate::identity::email::canonical_login;
use crate::identity::password::{self, Password};
use crate::identity::user::User;
use crate::random;
use crate::seed::{Seed, SeedError, UserEntry};
use crate::startup;
use crate::store::{Store, StoreError, audit_events, users};

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Add a person; the password is one line of standard input.
    Create(New),
    /// Show everybody.
    List,
    /// Set a new password, one line of standard input; ends the person's sessions and what apps were allowed.
    SetPassword { email: String },
}

#[derive(Args)]
pub(super) struct New {
    email: String,
    /// May administer this server.
    #[arg(long)]
    admin: bool,
    /// The address is known to be theirs.
    #[arg(long)]
    verified: bool,
    /// The whole name, as pages and apps show it.
    #[arg(long)]
    name: Option<String>,
    /// A group they are in; may be repeated.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
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
        Verb::SetPassword { email } => set_password(config, &email, format, out),
    }
}

fn create(
    config: &Config,
    new: New,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let store = startup::open(config, false)?.store;
    let email = new.email.clone();
    // Before anybody has to think of a password.
    if find(&store, &email)?.is_some() {
        return Err(SeedError::Exists(email).into());
    }
    let claims = new
        .name
        .map(|name| Map::from_iter([("name".to_owned(), json!(name))]));
    let entry = UserEntry {
        email: new.email,
        password: Some(password_input::read()?),
        email_verified: Some(new.verified),
        admin: Some(new.admin),
        groups: Some(new.groups),
        claims,
        ..UserEntry::default()
    };
    Seed::of_new_user(entry, config)?.apply(&store, config, Clock::system().now())?;
    let user = find(&store, &email)?
        .ok_or_else(|| Failure::new(format!("{email} was deleted again meanwhile")))?;
    match format {
        Format::Table => writeln!(out, "created {}", user.email)?,
        Format::Json => output::object(out, &describe(&user))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(config: &Config, format: Format, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let people = startup::open(config, false)?
        .store
        .read_blocking(users::list)?;
    let headings = ["EMAIL", "NAME", "VERIFIED", "ADMIN", "DISABLED", "GROUPS"];
    output::list(out, format, &people, &headings, row, describe)?;
    Ok(ExitCode::SUCCESS)
}

fn set_password(
    config: &Config,
    email: &str,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let store = startup::open(config, false)?.store;
    let unknown = || Failure::new(format!("nobody has the e-mail {email}"));
    let user = find(&store, email)?.ok_or_else(unknown)?;
    let settings = &config.password;
    let password = Password::parse(&password_input::read()?)?;
    let policy = settings.policy();
    policy.judge(&password, &[&user.email, user.display_name()])?;
    let hash_settings = settings.hash_settings()?;
    let hash = password::hash(&password, random::bytes(), &hash_settings)?;
    let now = Clock::system().now();
    let id = user.id.clone();
    // In one transaction: whoever learned the old password must not keep a session that the new one was to end.
    let trail = Trail::of_command(now);
    let changed = store.write_blocking(move |tx| {
        let event = Event::new(Kind::PasswordChanged).target(&id);
        audit_events::record(tx, &trail, &event)?;
        users::change_password(tx, &id, &hash, now)
    })?;
    if !changed {
        return Err(unknown());
    }
    match format {
        Format::Table => writeln!(
            out,
            "set a new password for {}; their sessions have ended",
            user.email
        )?,
        Format::Json => output::object(out, &json!({ "id": user.id, "email": user.email }))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn find(store: &Store, email: &str) -> Result<Option<User>, StoreError> {
    let key = canonical_login(email);
    store.read_blocking(move |conn| users::find_by_email(conn, &key))
}

fn row(user: &User) -> Vec<String> {
    let name = user.name().unwrap_or_default();
    vec![
        user.email.clone(),
        name.to_owned(),
        output::yes(user.email_verified),
        output::yes(user.admin),
        output::yes(user.disabled),
        user.groups.join(", "),
    ]
}

/// Everything but the hash.
fn describe(user: &User) -> serde_json::Value {
    json!({
        "id": user.id,
        "email": user.email,
        "email_verified": user.email_verified,
        "has_password": user.password_hash.is_some(),
        "admin": user.admin,
        "disabled": user.disabled,
        "groups": user.groups,
        "claims": user.claims,
        "created_at": output::time(user.created_at),
        "updated_at": output::time(user.updated_at),
    })
}
