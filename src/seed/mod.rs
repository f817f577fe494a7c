//! People, apps, scopes and groups as a file describes them: what `apply` reads and `export` writes, and what a development
//! server begins with.
//!
//! A file is understood whole before anything is written, every mistake in it is listed, and all of it is written in one
//! transaction. Applying it twice is the same as applying it once.

mod check;
mod development;
mod document;
mod export;
mod fields;
mod fit;
mod mistakes;
mod recorded;
mod secret_hash;
mod summary;
mod write;

use serde::Deserialize;
use serde_json::{Map, Value};

use self::check::Entries;
pub use self::development::DevApp;
pub(crate) use self::development::development;
use self::document::Document;
pub use self::document::{File, Format};
pub use self::export::{export, metadata_of};
use self::fields::Entry;
pub use self::mistakes::Mistake;
use self::mistakes::{Origin, Place};
pub use self::summary::Summary;
use crate::config::Config;
use crate::identity::email::Email;
use crate::identity::group::Group;
use crate::identity::password::{self, Password};
use crate::protocol::client::{Client, ClientId, ClientMetadata};
use crate::protocol::client_secret::ClientSecret;
use crate::protocol::known_scopes::DefinedScope;
use crate::store::{Store, StoreError, scopes};

/// A person, as a file describes them.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserEntry {
    /// Their id, if they are to keep one from elsewhere.
    pub sub: Option<String>,
    pub email: String,
    pub password: Option<String>,
    pub password_hash: Option<String>,
    pub email_verified: Option<bool>,
    pub admin: Option<bool>,
    pub disabled: Option<bool>,
    pub groups: Option<Vec<String>>,
    pub claims: Option<Map<String, Value>>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupEntry {
    name: String,
    description: Option<String>,
    /// The e-mails of everybody who is in it; who is not named leaves it.
    members: Option<Vec<String>>,
}

/// A file that was understood: every value in it is good.
#[derive(Default)]
pub struct Seed {
    users: Vec<CheckedUser>,
    clients: Vec<CheckedClient>,
    scopes: Vec<DefinedScope>,
    groups: Vec<CheckedGroup>,
    known: Known,
    origin: Origin,
}

/// What becomes of people and apps that are there already.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Known {
    #[default]
    Updated,
    /// They are not touched, and neither is anything else.
    OnlyNew,
}

struct CheckedUser {
    place: Place,
    email: Email,
    secret: Option<UserSecret>,
    entry: UserEntry,
    claims: Option<Map<String, Value>>,
}

enum UserSecret {
    Password(Password),
    Hash(String),
}

struct CheckedClient {
    place: Place,
    client: Client,
    secret: FileSecret,
}

/// What a file says of a client's secret.
enum FileSecret {
    /// Nothing: one is made for a new client.
    Unsaid,
    Plain(String),
    /// All that the file manages, as hashes.
    Hashes(Vec<ClientSecret>),
}

impl FileSecret {
    /// The field that says it.
    fn field(&self) -> &'static str {
        match self {
            Self::Unsaid | Self::Plain(_) => "client_secret",
            Self::Hashes(_) => "client_secret_hashes",
        }
    }
}

struct CheckedGroup {
    place: Place,
    group: Group,
    /// Each with its place in the list.
    members: Option<Vec<(usize, Email)>>,
}

/// How far an application goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent {
    /// Who came from a file once and is in it no more goes.
    pub prune: bool,
    /// Everything is done and then taken back.
    pub dry_run: bool,
}

/// Why a file was not applied. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    #[error("{}", lines(.0))]
    Mistakes(Vec<Mistake>),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("password hashing: {0}")]
    Hashing(#[from] password::HashError),
    #[error("{0} has an account already")]
    Exists(String),
    #[error("the client {0} exists already")]
    ClientExists(ClientId),
    #[error("the same people are being changed by somebody else; try again")]
    Busy,
}

impl Seed {
    /// Understands a text, or lists everything that is wrong with it.
    pub fn parse(text: &str, format: Format, config: &Config) -> Result<Self, SeedError> {
        let file = File {
            name: String::new(),
            bytes: text.as_bytes().to_vec(),
            format: Some(format),
        };
        let document = Document::read(&file).map_err(SeedError::Mistakes)?;
        let mut mistakes = Vec::new();
        Self::understand(document, config, Vec::new(), &mut mistakes).unless(mistakes)
    }

    /// Understands a file for a database, or lists everything that is wrong with it, what does not fit to the database
    /// included.
    pub fn read(
        file: &File,
        config: &Config,
        store: &Store,
        extent: Extent,
    ) -> Result<Self, SeedError> {
        let document = Document::read(file).map_err(SeedError::Mistakes)?;
        if extent.prune && document.root.is_empty() {
            // What a pipe carries when the command before it failed must not empty an installation.
            let problem = "has none of the lists users, clients, scopes and groups, so that --prune would remove \
                           everything that came from a file; whoever means that writes users = []";
            let mistake = Mistake::of_text(&file.name, None, problem);
            return Err(SeedError::Mistakes(vec![mistake]));
        }
        let defined = store.read_blocking(scopes::list)?;
        let mut mistakes = Vec::new();
        let seed = Self::understand(document, config, defined, &mut mistakes);
        if mistakes.is_empty() {
            // What does not fit is found where it is written, since it may come to be there until then.
            return Ok(seed);
        }
        let origin = seed.origin.clone();
        let misfits = store.read_blocking(move |conn| fit::misfits(conn, &seed, extent.prune))?;
        mistakes.extend(misfits);
        origin.locate(&mut mistakes);
        Err(SeedError::Mistakes(mistakes))
    }

    /// One person, who is not there yet.
    pub fn of_new_user(entry: UserEntry, config: &Config) -> Result<Self, SeedError> {
        let entries = Entries {
            users: vec![Entry::unplaced(entry)],
            ..Entries::default()
        };
        Self::of_new(entries, config, Vec::new())
    }

    /// One app, which is not there yet, where these scopes are defined.
    pub fn of_new_client(
        metadata: ClientMetadata,
        config: &Config,
        defined: Vec<DefinedScope>,
    ) -> Result<Self, SeedError> {
        let entries = Entries {
            clients: vec![Entry::unplaced(metadata)],
            ..Entries::default()
        };
        Self::of_new(entries, config, defined)
    }

    fn of_new(
        entries: Entries,
        config: &Config,
        defined: Vec<DefinedScope>,
    ) -> Result<Self, SeedError> {
        let mut mistakes = Vec::new();
        let mut seed = entries.check(config, defined, &Origin::default(), &mut mistakes);
        seed.known = Known::OnlyNew;
        seed.unless(mistakes)
    }

    fn understand(
        mut document: Document,
        config: &Config,
        defined: Vec<DefinedScope>,
        mistakes: &mut Vec<Mistake>,
    ) -> Self {
        mistakes.append(&mut document.mistakes);
        let entries = Entries::of(&document, mistakes);
        let mut seed = entries.check(config, defined, &document.origin, mistakes);
        seed.origin = document.origin;
        seed
    }

    fn unless(self, mut mistakes: Vec<Mistake>) -> Result<Self, SeedError> {
        if mistakes.is_empty() {
            return Ok(self);
        }
        self.origin.locate(&mut mistakes);
        Err(SeedError::Mistakes(mistakes))
    }
}

impl SeedError {
    /// With the names under which values were given that stood in no file, such as flags.
    pub fn naming(mut self, names: &[(&str, &str)]) -> Self {
        if let Self::Mistakes(mistakes) = &mut self {
            for mistake in mistakes {
                let field = mistake.path.split('[').next().unwrap_or_default();
                let name = names.iter().find(|(known, _)| *known == field);
                if let Some((_, name)) = name {
                    mistake.path = (*name).to_owned();
                }
            }
        }
        self
    }
}

fn lines(mistakes: &[Mistake]) -> String {
    let lines: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
