//! What is written down for those who have to find out later who did what. OWASP ASVS 5.0 §16.3.
//!
//! An event is recorded in the transaction of what it tells, so neither is there without the other. It names things by their
//! ids and holds nothing that anybody could use: no token, no password, and no name that a stranger typed.

use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::clock::Clock;
use crate::protocol::client::ClientId;
use crate::protocol::time::Timestamp;
use crate::random;

macro_rules! kinds {
    ($( $(#[doc = $doc:literal])+ $kind:ident = $name:literal, )+) => {
        /// What can happen, under the names that operators search for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $( $(#[doc = $doc])+ $kind, )+
        }

        impl Kind {
            /// Every one of them.
            pub const ALL: &[Kind] = &[$( Kind::$kind, )+];

            /// The registered name.
            pub fn as_str(self) -> &'static str {
                match self {
                    $( Self::$kind => $name, )+
                }
            }
        }
    };
}

kinds! {
    /// Somebody proved who they are.
    LoginSucceeded = "login.succeeded",
    /// Somebody did not; the target is the account, if there is one.
    LoginFailed = "login.failed",
    /// Too many failures: nothing is looked at until a time. Once for each such time.
    LoginThrottled = "login.throttled",
    /// A sign-in was ended.
    SessionEnded = "session.ended",
    /// A person was led on into an app, with a code; not where the app looked without showing anything (`prompt=none`).
    AppEntered = "app.entered",
    /// A person allowed an app something new.
    ConsentGiven = "consent.given",
    /// A person did not want what an app asked for.
    ConsentRefused = "consent.refused",
    /// A code came a second time; what was issued for it ended.
    CodeReplayed = "code.replayed",
    /// A refresh token came once too often; its family ended.
    RefreshTokenReplayed = "refresh_token.replayed",
    /// An app gave a token back.
    TokenRevoked = "token.revoked",
    /// Somebody did not prove that they are an app: a wrong secret, or an assertion that was refused.
    ClientAuthenticationFailed = "client.authentication_failed",
    /// Too many wrong secrets of an app from one address: nothing from there is looked at until a time.
    ClientThrottled = "client.throttled",
    /// A person was added.
    UserCreated = "user.created",
    /// A person's data were changed.
    UserUpdated = "user.updated",
    /// A person can't sign in any more, and what they had open ended.
    UserDisabled = "user.disabled",
    /// A person can sign in again.
    UserEnabled = "user.enabled",
    /// A person's counters of failures were cleared.
    UserUnlocked = "user.unlocked",
    /// A file names a person who was there before, and may remove them later.
    UserManaged = "user.managed",
    /// A person is gone, with everything of theirs.
    UserDeleted = "user.deleted",
    /// A person has another password, and what the old one opened ended.
    PasswordChanged = "password.changed",
    /// An app was added.
    ClientCreated = "client.created",
    /// An app's metadata were changed.
    ClientUpdated = "client.updated",
    /// A file names an app that was there before, and may remove it later.
    ClientManaged = "client.managed",
    /// An app is gone, with everything of its.
    ClientDeleted = "client.deleted",
    /// An app has one more secret.
    ClientSecretAdded = "client.secret_added",
    /// A secret of an app works no more.
    ClientSecretRevoked = "client.secret_revoked",
    /// A scope was defined, or defined anew.
    ScopeChanged = "scope.changed",
    /// A scope is gone.
    ScopeDeleted = "scope.deleted",
    /// A group was described, or described anew.
    GroupChanged = "group.changed",
    /// A group is gone.
    GroupDeleted = "group.deleted",
    /// A copy of the database was made.
    DatabaseBackedUp = "database.backed_up",
    /// Everything in the database came from another one.
    DatabaseCopied = "database.copied",
    /// The database was put back from a copy, and a new epoch began.
    DatabaseRestored = "database.restored",
    /// The schema was brought to this version.
    SchemaMigrated = "schema.migrated",
    /// Data left the server: everything with its hashes, all that is held on a person, or these events.
    DataExported = "data.exported",
    /// Events were deleted, because they were as old as the configuration says.
    AuditPruned = "audit.pruned",
    /// The first signing key of an algorithm was made, and signs at once.
    KeyCreated = "key.created",
    /// A signing key was published, and will sign later.
    KeyPublished = "key.published",
    /// A wrong clock had published it; it waits again before it signs.
    KeyPostponed = "key.postponed",
    /// Another key signs from now on.
    KeyRotated = "key.rotated",
    /// A key signs no more, because its algorithm was switched off.
    KeyRetired = "key.retired",
    /// A key is published no more, and its private part is gone.
    KeyWithdrawn = "key.withdrawn",
    /// A key is forgotten.
    KeyDeleted = "key.deleted",
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Event {
    pub kind: Kind,
    /// Who did it, where that is not who the trail leads to.
    pub actor: Option<String>,
    /// The person, app or key that it happened to.
    pub target: Option<String>,
    pub client_id: Option<String>,
    pub detail: Map<String, Value>,
}

impl Event {
    /// An event without particulars.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            actor: None,
            target: None,
            client_id: None,
            detail: Map::new(),
        }
    }

    /// Something that people do to their own account.
    pub fn by_user(kind: Kind, user_id: &str) -> Self {
        Self {
            actor: Some(user_id.to_owned()),
            ..Self::new(kind).target(user_id)
        }
    }

    /// Something that an app does.
    pub fn by_client(kind: Kind, client_id: &ClientId) -> Self {
        Self {
            actor: Some(client_id.as_str().to_owned()),
            ..Self::new(kind).client(client_id.as_str())
        }
    }

    /// Something that was done to an app.
    pub fn of_client(kind: Kind, client_id: &ClientId) -> Self {
        let id = client_id.as_str();
        Self::new(kind).target(id).client(id)
    }

    #[must_use]
    pub fn target(mut self, target: &str) -> Self {
        self.target = Some(target.to_owned());
        self
    }

    #[must_use]
    pub fn client(mut self, client_id: &str) -> Self {
        self.client_id = Some(client_id.to_owned());
        self
    }

    #[must_use]
    pub fn noting(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(name.to_owned(), value.into());
        self
    }
}

/// Where events come from: one request, one command, or one run of a job.
#[derive(Clone, Debug)]
pub struct Trail {
    /// Events of one trail begin with it; later trails sort behind earlier ones of the same machine, since times are whole
    /// seconds.
    pub id: String,
    pub actor: Option<&'static str>,
    pub address: Option<String>,
    pub request_id: Option<String>,
    pub now: Timestamp,
}

impl Trail {
    /// Of a request, whose actor each event names.
    pub fn of_request(request_id: String, address: Option<IpAddr>, now: Timestamp) -> Self {
        Self {
            address: address.map(|address| address.to_string()),
            request_id: Some(request_id),
            ..Self::new(None, now)
        }
    }

    /// Of a command on the server's machine.
    pub fn of_command(now: Timestamp) -> Self {
        Self::new(Some("command"), now)
    }

    /// Of the server itself.
    pub fn of_server(now: Timestamp) -> Self {
        Self::new(Some("server"), now)
    }

    fn new(actor: Option<&'static str>, now: Timestamp) -> Self {
        Self {
            id: format!("{:014x}.{}", Clock::order(), random::id()),
            actor,
            address: None,
            request_id: None,
            now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trails_sort_as_they_were_made() {
        let now = Timestamp::from_seconds(0);
        let made: Vec<_> = (0..50).map(|_| Trail::of_server(now).id).collect();
        assert!(made.is_sorted());
    }

    #[test]
    fn every_name_is_a_thing_and_what_happened_to_it() {
        for kind in Kind::ALL {
            let (thing, happened) = kind.as_str().split_once('.').expect("a dot");
            assert!(!thing.is_empty() && !happened.contains('.'), "{kind:?}");
        }
    }
}
