//! What a file may say: every value by itself, and those that have to fit to one another.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::document::Document;
use super::fields::{self, Entry};
use super::mistakes::{Mistake, Origin, Place};
use super::{
    CheckedClient, CheckedGroup, CheckedUser, FileSecret, GroupEntry, Seed, UserEntry, UserSecret,
    secret_hash,
};
use crate::config::Config;
use crate::identity::email::Email;
use crate::identity::group::{self, Group};
use crate::identity::password::{self, Password};
use crate::protocol::claims;
use crate::protocol::client::{ClientId, ClientMetadata, distinct};
use crate::protocol::jose::SigningAlgorithm;
use crate::protocol::known_scopes::{DefinedScope, KnownScopes};

/// Everything that a file lists, each value of its type.
#[derive(Default)]
pub(super) struct Entries {
    pub(super) users: Vec<Entry<UserEntry>>,
    pub(super) clients: Vec<Entry<ClientMetadata>>,
    pub(super) scopes: Vec<Entry<DefinedScope>>,
    pub(super) groups: Vec<Entry<GroupEntry>>,
}

/// The names that were met, each with the place of the first who has it.
#[derive(Default)]
struct Once(BTreeMap<String, String>);

impl Entries {
    pub(super) fn of(document: &Document, mistakes: &mut Vec<Mistake>) -> Self {
        fields::check_lists(document, mistakes);
        Self {
            users: fields::entries(document, "users", &fields::USER, mistakes),
            clients: fields::entries(document, "clients", &fields::CLIENT, mistakes),
            scopes: fields::entries(document, "scopes", &fields::SCOPE, mistakes),
            groups: fields::entries(document, "groups", &fields::GROUP, mistakes),
        }
    }

    /// What is left is whole only where nothing was wrong; else it is what more can be looked for in.
    pub(super) fn check(
        self,
        config: &Config,
        defined: Vec<DefinedScope>,
        origin: &Origin,
        mistakes: &mut Vec<Mistake>,
    ) -> Seed {
        let mut seed = Seed::default();
        let mut once = Once::default();
        for mut entry in self.scopes {
            let (place, scope) = (&entry.place, &mut entry.value);
            scope.claims = distinct(&scope.claims);
            if !entry.refused.contains("name") {
                mistakes.extend(once.again(place, "name", &scope.name, &scope.name, origin));
            }
            let problems = scope.problems().into_iter();
            let problems = problems.filter(|problem| !entry.refused.contains(&problem.field));
            mistakes.extend(place.mistakes(problems.collect()));
            // One that is broken elsewhere is meant nevertheless by whoever names it.
            if place.entry.is_some() {
                seed.scopes.push(entry.value);
            }
        }
        let known: KnownScopes = defined.into_iter().chain(seed.scopes.clone()).collect();
        let (mut emails, mut subs) = (Once::default(), Once::default());
        for entry in self.users {
            let Some(user) = check_user(entry, config, mistakes) else {
                continue;
            };
            let (key, shown) = (user.email.key(), user.email.display());
            mistakes.extend(emails.again(&user.place, "email", key, shown, origin));
            if let Some(sub) = &user.entry.sub {
                mistakes.extend(subs.again(&user.place, "sub", sub, sub, origin));
            }
            seed.users.push(user);
        }
        let mut once = Once::default();
        for entry in self.groups {
            let Some(group) = check_group(entry, &seed.users, mistakes) else {
                continue;
            };
            let name = &group.group.name;
            mistakes.extend(once.again(&group.place, "name", name, name, origin));
            seed.groups.push(group);
        }
        let mut once = Once::default();
        for entry in self.clients {
            if let Some(id) = entry.value.client_id.as_ref().filter(|id| !id.is_empty()) {
                mistakes.extend(once.again(&entry.place, "client_id", id, id, origin));
            }
            seed.clients
                .extend(check_client(entry, config, &known, mistakes));
        }
        seed
    }
}

impl Once {
    /// Notes a name, and says where it was met before.
    fn again(
        &mut self,
        place: &Place,
        field: &str,
        key: &str,
        shown: &str,
        origin: &Origin,
    ) -> Option<Mistake> {
        let Some(first) = self.0.get(key) else {
            self.0.insert(key.to_owned(), place.field(field));
            return None;
        };
        let mut problem = format!("{shown:?} is in the file twice");
        if let Some(line) = origin.line_of(first) {
            problem.push_str(&format!(", first on line {line}"));
        }
        Some(place.mistake(field, problem))
    }
}

/// Whoever has a good address can be looked for, whatever else is wrong.
fn check_user(
    entry: Entry<UserEntry>,
    config: &Config,
    mistakes: &mut Vec<Mistake>,
) -> Option<CheckedUser> {
    let Entry {
        place,
        value: mut user,
        refused,
    } = entry;
    let email = match user.email.parse::<Email>() {
        _ if refused.contains("email") => None,
        Ok(email) => Some(email),
        Err(problem) => {
            mistakes.push(place.mistake("email", problem.to_string()));
            None
        }
    };
    let claims = match user.claims.as_ref().map(claims::check_attributes) {
        None => None,
        Some(Ok(claims)) => Some(claims),
        Some(Err(problems)) => {
            mistakes.extend(place.mistakes(problems));
            None
        }
    };
    if let Some(sub) = &user.sub
        && !((1..=255).contains(&sub.len()) && sub.chars().all(|c| c.is_ascii_graphic()))
    {
        let problem = "is 1 to 255 printable ASCII characters without spaces";
        mistakes.push(place.mistake("sub", problem));
        user.sub = None;
    }
    for (index, name) in user.groups.iter().flatten().enumerate() {
        if !group::is_name(name) {
            mistakes.push(place.mistake(&format!("groups[{index}]"), group::NAME_RULE));
        }
    }
    user.groups = user.groups.map(|groups| distinct(&groups));
    let name = claims.as_ref().and_then(|claims| claims.get("name"));
    let name = name.and_then(Value::as_str).unwrap_or_default();
    let secret = check_secret(&place, &user, name, config, mistakes);
    Some(CheckedUser {
        place,
        email: email?,
        secret,
        entry: user,
        claims,
    })
}

fn check_secret(
    place: &Place,
    user: &UserEntry,
    name: &str,
    config: &Config,
    mistakes: &mut Vec<Mistake>,
) -> Option<UserSecret> {
    if user.password.is_some() && user.password_hash.is_some() {
        let problem = "stands beside password; one is enough";
        mistakes.push(place.mistake("password_hash", problem));
    }
    if let Some(typed) = &user.password {
        let policy = config.password.policy();
        let judged = Password::parse(typed)
            .and_then(|password| Ok((policy.judge(&password, &[&user.email, name])?, password)));
        return match judged {
            Ok(((), password)) => Some(UserSecret::Password(password)),
            Err(problem) => {
                mistakes.push(place.mistake("password", problem.to_string()));
                None
            }
        };
    }
    let hash = user.password_hash.as_ref()?;
    match password::check_stored(hash) {
        Ok(()) => Some(UserSecret::Hash(hash.clone())),
        Err(problem) => {
            mistakes.push(place.mistake("password_hash", problem.to_string()));
            None
        }
    }
}

/// Members are told in one place or in both alike: else it would count which is read last.
fn check_group(
    entry: Entry<GroupEntry>,
    users: &[CheckedUser],
    mistakes: &mut Vec<Mistake>,
) -> Option<CheckedGroup> {
    let Entry {
        place,
        value,
        refused,
    } = entry;
    let group = Group {
        name: value.name,
        description: value.description,
    };
    let problems = group.problems().into_iter();
    let problems = problems.filter(|problem| !refused.contains(&problem.field));
    mistakes.extend(place.mistakes(problems.collect()));
    let mut members = Vec::new();
    for (index, member) in value.members.iter().flatten().enumerate() {
        match member.parse::<Email>() {
            Ok(email) => members.push((index, email)),
            Err(problem) => {
                let field = format!("members[{index}]");
                mistakes.push(place.mistake(&field, problem.to_string()));
            }
        }
    }
    // Of a group without a good name nobody knows whether it is the one that a person names.
    place.entry.as_ref()?;
    let is_misspelt = members.len() < value.members.iter().flatten().count();
    let members = value.members.map(|_checked| members);
    if let Some(members) = &members
        && !is_misspelt
    {
        let keys: BTreeSet<_> = members.iter().map(|(_, member)| member.key()).collect();
        for user in users {
            let Some(groups) = &user.entry.groups else {
                continue;
            };
            if keys.contains(user.email.key()) != groups.contains(&group.name) {
                let problem = format!("says something else than {}", user.place.field("groups"));
                mistakes.push(place.mistake("members", problem));
            }
        }
    }
    Some(CheckedGroup {
        place,
        group,
        members,
    })
}

fn check_client(
    entry: Entry<ClientMetadata>,
    config: &Config,
    known: &KnownScopes,
    mistakes: &mut Vec<Mistake>,
) -> Option<CheckedClient> {
    let Entry {
        place,
        value: metadata,
        refused,
    } = entry;
    let secret = match (&metadata.client_secret, &metadata.client_secret_hashes) {
        (secret, Some(hashes)) => {
            if secret.is_some() {
                let problem = "stands beside client_secret; one is enough";
                mistakes.push(place.mistake("client_secret_hashes", problem));
            }
            FileSecret::Hashes(secret_hash::read(&place, hashes, mistakes))
        }
        (Some(secret), None) => FileSecret::Plain(secret.clone()),
        (None, None) => FileSecret::Unsaid,
    };
    let algorithm = metadata.id_token_signed_response_alg.as_deref();
    let algorithm = algorithm.map_or(Ok(SigningAlgorithm::Rs256), str::parse);
    if let Ok(algorithm) = algorithm
        && !refused.contains("id_token_signed_response_alg")
        && !config.keys.algorithms.contains(&algorithm)
    {
        let problem = format!("{algorithm} is not among keys.algorithms");
        mistakes.push(place.mistake("id_token_signed_response_alg", problem));
    }
    let id = metadata.client_id.clone().unwrap_or_default();
    match metadata.check_beside(ClientId::from_request(&id), known, refused) {
        Ok(client) => Some(CheckedClient {
            place,
            client,
            secret,
        }),
        Err(problems) => {
            mistakes.extend(place.mistakes(problems));
            None
        }
    }
}
