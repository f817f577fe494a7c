//! What is held on a person: `latchkey users show` for operators, `latchkey users export` for the person.

use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::export::write_down;
use super::failure::Failure;
use super::output::{self, Format};
use super::users::open_for;
use crate::audit::{Event, Kind};
use crate::clock::Clock;
use crate::config::Config;
use crate::identity::session::Session;
use crate::identity::user::User;
use crate::protocol::client::ClientId;
use crate::protocol::grants::Grant;
use crate::protocol::interaction::Consent;
use crate::protocol::time::Timestamp;
use crate::startup::Opened;
use crate::store::audit_events::{self, Recorded};
use crate::store::{Store, consents, grants, sessions};

/// The person, their sign-ins, and what apps may know of them.
pub(super) fn show(
    config: &Config,
    email: &str,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let (_, held) = Held::read(config, email)?;
    if format == Format::Json {
        output::object(out, &held.describe())?;
        return Ok(ExitCode::SUCCESS);
    }
    let user = &held.user;
    let fields = [
        ("e-mail", user.email.clone()),
        ("sub", user.id.clone()),
        ("name", user.name().unwrap_or_default().to_owned()),
        ("verified", output::yes(user.email_verified)),
        ("admin", output::yes(user.admin)),
        ("disabled", output::yes(user.disabled)),
        ("groups", user.groups.join(", ")),
        ("created", output::time(user.created_at)),
        ("updated", output::time(user.updated_at)),
    ];
    let rows: Vec<_> = fields
        .map(|(name, value)| vec![name.to_owned(), value])
        .into();
    output::table(out, &["FIELD", "VALUE"], &rows)?;
    let rows: Vec<_> = held.sessions.iter().map(session_row).collect();
    writeln!(out)?;
    output::table(out, &["SIGN-IN", "SINCE", "LAST USED", "BY"], &rows)?;
    let rows: Vec<_> = held.consents.iter().map(consent_row).collect();
    writeln!(out)?;
    output::table(out, &["APP", "MAY KNOW", "SINCE"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// JSON in either format, since the person takes it elsewhere (GDPR, article 20); on one line where a script asks.
pub(super) fn export(
    config: &Config,
    email: &str,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let (store, held) = Held::read(config, email)?;
    let event = Event::new(Kind::DataExported).target(&held.user.id);
    write_down(&store, event.noting("what", "person"));
    let mut value = held.describe();
    if let Some(object) = value.as_object_mut() {
        let events = held.events.iter().map(super::audit::describe).collect();
        object.insert("audit_events".to_owned(), events);
    }
    match format {
        Format::Table => {
            serde_json::to_writer_pretty(&mut *out, &value)?;
            writeln!(out)?;
        }
        Format::Json => output::object(out, &value)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is held on a person.
struct Held {
    user: User,
    sessions: Vec<Session>,
    consents: Vec<(ClientId, Consent, Timestamp)>,
    grants: Vec<Grant>,
    events: Vec<Recorded>,
}

impl Held {
    fn read(config: &Config, email: &str) -> Result<(Store, Self), Failure> {
        let (Opened { store, .. }, user) = open_for(config, email)?;
        let (lifetimes, now) = (config.session_lifetimes(), Clock::system().now());
        let held = store.read_blocking(move |conn| {
            let mut sessions = sessions::of_user(conn, &user.id)?;
            sessions.retain(|session| session.is_alive(&lifetimes, now));
            Ok(Self {
                sessions,
                consents: consents::of_user(conn, &user.id)?,
                grants: grants::of_user(conn, &user.id)?,
                events: audit_events::about(conn, &user.id)?,
                user,
            })
        })?;
        Ok((store, held))
    }

    fn describe(&self) -> Value {
        let mut value = describe(&self.user);
        if let Some(object) = value.as_object_mut() {
            let sessions = self.sessions.iter().map(describe_session).collect();
            object.insert("sessions".to_owned(), sessions);
            let consents = self.consents.iter().map(describe_consent).collect();
            object.insert("consents".to_owned(), consents);
            let grants = self.grants.iter().map(describe_grant).collect();
            object.insert("grants".to_owned(), grants);
        }
        value
    }
}

fn session_row(session: &Session) -> Vec<String> {
    vec![
        session.id.clone(),
        output::time(session.auth_time),
        output::time(session.last_seen_at),
        session.amr.join(", "),
    ]
}

fn describe_session(session: &Session) -> Value {
    json!({
        "id": session.id,
        "auth_time": output::time(session.auth_time),
        "last_seen_at": output::time(session.last_seen_at),
        "amr": session.amr,
        "remembered": session.remembered,
    })
}

fn consent_row((client, consent, given_at): &(ClientId, Consent, Timestamp)) -> Vec<String> {
    let scopes = consent.scope.iter().map(str::to_owned);
    let known: Vec<_> = scopes.chain(consent.claims.iter().cloned()).collect();
    vec![client.to_string(), known.join(" "), output::time(*given_at)]
}

fn describe_consent((client, consent, given_at): &(ClientId, Consent, Timestamp)) -> Value {
    json!({
        "client_id": client.as_str(),
        "scope": consent.scope.to_string(),
        "claims": consent.claims,
        "given_at": output::time(*given_at),
    })
}

fn describe_grant(grant: &Grant) -> Value {
    json!({
        "id": grant.id,
        "client_id": grant.client_id.as_str(),
        "session": grant.session_id,
        "scope": grant.scope.to_string(),
        "offline": grant.offline,
        "created_at": output::time(grant.created_at),
    })
}

/// Everything but the hash.
pub(super) fn describe(user: &User) -> Value {
    json!({
        "sub": user.id,
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
