//! `latchkey users …`.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, json};

use super::failure::Failure;
use super::held;
use super::output::{self, Format};
use super::password_input;
use crate::audit::{Event, Kind, Trail};
use crate::clock::Clock;
use crate::config::Config;
use crate::identity::email::canonical_login;
use crate::identity::password::{self, Password};
use crate::identity::throttle;
use crate::identity::user::User;
use crate::random;
use crate::seed::{Seed, SeedError, UserEntry};
use crate::startup::{self, Opened};

use crate::store::{Store, StoreError, audit_events, grants, sessions, throttles, users};

/// How a field of a new person is given here.
const NAMES: &[(&str, &str)] = &[
    ("password", "standard input"),
    ("claims.name", "--name"),
    ("groups", "--group"),
];

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Add a person; the password is one line of standard input.
    Create(New),
    /// Show everybody.
    List,
    /// Show one person, their sign-ins and the apps that they allowed something.
    Show { email: String },
    /// Set a new password, one line of standard input; ends the person's sessions and what apps were allowed.
    SetPassword { email: String },
    /// Let a person sign in no more; what they have open ends at once.
    Disable { email: String },
    /// Let a person sign in again.
    Enable { email: String },
    /// Forget the failures that slow down sign-ins from new browsers.
    Unlock { email: String },
    /// End a person's sign-ins, with the tokens that are bound to them.
    EndSessions {
        email: String,
        /// Also what apps may do while the person is away (`offline_access`).
        #[arg(long)]
        apps: bool,
    },
    /// Print everything that is held on a person, as one JSON object.
    Export { email: String },
    /// Remove a person with everything that is theirs.
    Delete { email: String },
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
        Verb::Show { email } => held::show(config, &email, format, out),
        Verb::Disable { email } => set_disabled(config, &email, true, format, out),
        Verb::Enable { email } => set_disabled(config, &email, false, format, out),
        Verb::Unlock { email } => unlock(config, &email, format, out),
        Verb::EndSessions { email, apps } => end_sessions(config, &email, apps, format, out),
        Verb::Export { email } => held::export(config, &email, format, out),
        Verb::Delete { email } => delete(config, &email, format, out),
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
    Seed::of_new_user(entry, config)
        .map_err(|error| error.naming(NAMES))?
        .apply(&store, config, Clock::system().now())?;
    let user = find(&store, &email)?
        .ok_or_else(|| Failure::new(format!("{email} was deleted again meanwhile")))?;
    match format {
        Format::Table => writeln!(out, "created {}", user.email)?,
        Format::Json => output::object(out, &held::describe(&user))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(config: &Config, format: Format, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let people = startup::open_existing(config, false)?
        .store
        .read_blocking(users::list)?;
    let headings = ["EMAIL", "NAME", "VERIFIED", "ADMIN", "DISABLED", "GROUPS"];
    output::list(out, format, &people, &headings, row, held::describe)?;
    Ok(ExitCode::SUCCESS)
}

fn set_password(
    config: &Config,
    email: &str,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let (Opened { store, .. }, user) = open_for(config, email)?;
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
        let changed = users::change_password(tx, &id, &hash, now)?;
        if changed {
            let event = Event::new(Kind::PasswordChanged).target(&id);
            audit_events::record(tx, &trail, &event)?;
        }
        Ok(changed)
    })?;
    if !changed {
        return Err(unknown(email));
    }
    match format {
        Format::Table => writeln!(
            out,
            "set a new password for {}; their sessions have ended",
            user.email
        )?,
        Format::Json => output::object(out, &json!({ "sub": user.id, "email": user.email }))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn set_disabled(
    config: &Config,
    email: &str,
    disabled: bool,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let (Opened { store, .. }, user) = open_for(config, email)?;
    let now = Clock::system().now();
    let (id, trail) = (user.id.clone(), Trail::of_command(now));
    let changed = store.write_blocking(move |tx| {
        let changed = users::set_disabled(tx, &id, disabled, now)?;
        if changed {
            let kind = if disabled {
                Kind::UserDisabled
            } else {
                Kind::UserEnabled
            };
            audit_events::record(tx, &trail, &Event::new(kind).target(&id))?;
        }
        Ok(changed)
    })?;
    let state = if disabled { "disabled" } else { "enabled" };
    match format {
        Format::Table if !changed => writeln!(out, "{} was {state} already", user.email)?,
        Format::Table if disabled => {
            writeln!(out, "disabled {}; what they had open has ended", user.email)?
        }
        Format::Table => writeln!(out, "enabled {}", user.email)?,
        Format::Json => output::object(
            out,
            &json!({ "sub": user.id, "email": user.email, "disabled": disabled, "changed": changed }),
        )?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Addresses stay slowed: they are not the person's, and behind them may be who guessed.
fn unlock(
    config: &Config,
    email: &str,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let (Opened { store, root }, user) = open_for(config, email)?;
    let bucket = throttle::of_account(&root, &user.email_key);
    let (id, trail) = (user.id.clone(), Trail::of_command(Clock::system().now()));
    let had_failures = store.write_blocking(move |tx| {
        let had_failures = throttles::clear(tx, &bucket)?;
        if had_failures {
            audit_events::record(tx, &trail, &Event::new(Kind::UserUnlocked).target(&id))?;
        }
        Ok(had_failures)
    })?;
    match format {
        Format::Table if had_failures => writeln!(
            out,
            "unlocked {}; an address that failed too often stays slowed until its window ends",
            user.email
        )?,
        Format::Table => writeln!(out, "nothing was counted against {}", user.email)?,
        Format::Json => output::object(
            out,
            &json!({ "sub": user.id, "email": user.email, "had_failures": had_failures }),
        )?,
    }
    Ok(ExitCode::SUCCESS)
}

fn end_sessions(
    config: &Config,
    email: &str,
    apps: bool,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let (Opened { store, .. }, user) = open_for(config, email)?;
    let now = Clock::system().now();
    let (id, trail) = (user.id.clone(), Trail::of_command(now));
    let (sessions, grants) = store.write_blocking(move |tx| {
        // The person's row comes first, so that a sign-in that is about to commit is seen.
        users::find_locked(tx, &id)?;
        let sessions = sessions::end_all(tx, &id, now)?;
        let grants = if apps {
            grants::revoke_user(tx, &id, now)?
        } else {
            grants::revoke_user_sessions(tx, &id, now)?
        };
        if sessions + grants > 0 {
            let event = Event::new(Kind::SessionEnded).target(&id);
            let event = event.noting("sessions", sessions).noting("grants", grants);
            audit_events::record(tx, &trail, &event)?;
        }
        Ok((sessions, grants))
    })?;
    match format {
        Format::Table => writeln!(
            out,
            "ended {sessions} sign-ins of {}, and {grants} grants of apps with them",
            user.email
        )?,
        Format::Json => output::object(
            out,
            &json!({ "sub": user.id, "email": user.email, "sessions": sessions, "grants": grants }),
        )?,
    }
    Ok(ExitCode::SUCCESS)
}

fn delete(
    config: &Config,
    email: &str,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let (Opened { store, .. }, user) = open_for(config, email)?;
    let (id, trail) = (user.id.clone(), Trail::of_command(Clock::system().now()));
    let deleted = store.write_blocking(move |tx| {
        let deleted = users::delete(tx, &id)?;
        if deleted {
            audit_events::record(tx, &trail, &Event::new(Kind::UserDeleted).target(&id))?;
        }
        Ok(deleted)
    })?;
    if !deleted {
        return Err(unknown(email));
    }
    match format {
        Format::Table => writeln!(
            out,
            "deleted {}; their sign-ins, consents and tokens are gone with them",
            user.email
        )?,
        Format::Json => output::object(
            out,
            &json!({ "sub": user.id, "email": user.email, "deleted": true }),
        )?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The database, and the person whom a command is about.
pub(super) fn open_for(config: &Config, email: &str) -> Result<(Opened, User), Failure> {
    let opened = startup::open_existing(config, false)?;
    let user = find(&opened.store, email)?.ok_or_else(|| unknown(email))?;
    Ok((opened, user))
}

fn unknown(email: &str) -> Failure {
    Failure::new(format!("nobody has the e-mail {email}"))
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
