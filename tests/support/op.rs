//! The product in this process: its real start-up, a database of its own, a clock that the test moves.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use latchkey::audit::Trail;
use latchkey::client_cache::ClientCache;
use latchkey::clock::Clock;
use latchkey::config::{Config, Sources};
use latchkey::hashing::HashingQueue;
use latchkey::jobs::prune_expired::{self, Outcome};
use latchkey::protocol::time::Timestamp;
use latchkey::seed::{Format, Seed, Summary};
use latchkey::startup::{self, Stopper};
use latchkey::store::{AnyConnection, Options, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::browser::Browser;
use super::relying_party::Rp;
use super::wait::eventually;
use super::{invariants, postgres};

pub const EMAIL: &str = "alice@example.test";
pub const PASSWORD: &str = "correct-horse-battery";
pub const SECRET: &str = "a-secret-of-more-than-thirty-two-characters";
pub const CALLBACK: &str = "https://rp.example/callback";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

impl Database {
    /// Those that are installed.
    pub fn all() -> impl Iterator<Item = Self> {
        let postgres = postgres::cluster().map(|_| Self::Postgres);
        [Some(Self::Sqlite), postgres].into_iter().flatten()
    }
}

/// A running identity provider.
pub struct Op {
    pub issuer: String,
    pub config: Config,
    pub clock: Clock,
    /// Beside the server, as a command would open it.
    pub store: Store,
    /// The server's own door to its hashing threads, so that a test can stand in it.
    pub hashing: HashingQueue,
    pub directory: TempDir,
    clients: ClientCache,
    server: Server,
}

struct Server {
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

impl Op {
    /// With alice, and the client `rp`.
    pub fn start(database: Database, settings: &[(&str, &str)]) -> Self {
        let op = Self::start_empty(database, settings);
        op.seed(json!({
            "users": [{
                "email": EMAIL, "password": PASSWORD, "email_verified": true,
                "claims": { "name": "Alice Archer", "given_name": "Alice", "nickname": "al", "birthdate": "1990-02-03",
                            "address": { "locality": "Bremen" }, "phone_number": "+49 421 1234" }
            }],
            "clients": [{
                "client_id": "rp", "client_name": "Acme Notes", "client_secret": SECRET, "redirect_uris": [CALLBACK]
            }]
        }));
        op
    }

    /// Without anybody.
    pub fn start_empty(database: Database, settings: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        let port = free_port();
        let issuer = format!("http://localhost:{port}");
        let url = match database {
            Database::Sqlite => format!("sqlite://{}/latchkey.db", directory.path().display()),
            Database::Postgres => postgres::cluster()
                .expect("PostgreSQL runs")
                .create_database(None),
        };
        let own = [
            ("issuer", issuer.as_str()),
            ("listen", &format!("127.0.0.1:{port}")),
            ("management.listen", &format!("127.0.0.1:{}", free_port())),
            ("database.url", &url),
            ("secret_key", &"5a".repeat(32)),
            // All of a test's browsers and apps have one address.
            ("throttle.address_requests", "0"),
        ];
        let overrides = own
            .iter()
            .filter(|(key, _)| !settings.iter().any(|(other, _)| other == key))
            .chain(settings)
            .map(|(key, value)| {
                (
                    (*key).to_owned(),
                    value
                        .replace("{port}", &port.to_string())
                        .replace("{directory}", &directory.path().display().to_string()),
                )
            });
        let sources = Sources {
            file: None,
            environment: Vec::new(),
            overrides: overrides.collect(),
        };
        let config = Config::load(sources).unwrap_or_else(|findings| panic!("{findings}"));
        Self::serve(config, Clock::manual(now()), directory)
    }

    fn serve(config: Config, clock: Clock, directory: TempDir) -> Self {
        let (server, hashing, clients) =
            Server::start(&config, &clock).unwrap_or_else(|error| panic!("{error}"));
        let store = Store::open(&config.database.url, Options::default()).unwrap();
        let issuer = config.issuer.as_str().to_owned();
        Self {
            issuer,
            config,
            clock,
            store,
            hashing,
            directory,
            clients,
            server,
        }
    }

    /// Stops the server and starts it again on the same database, perhaps with another configuration.
    pub fn restart(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        self.server.stop();
        // What is left of the old server holds its file's lock.
        self.clients = ClientCache::new(self.store.clone());
        // The last thread of the old server may still hold the file's lock for a moment; a process would have ended.
        (self.server, self.hashing, self.clients) = eventually("the server starts again", || {
            Server::start(&self.config, &self.clock).ok()
        });
    }

    pub fn browser(&self) -> Browser {
        Browser::new(&self.issuer)
    }

    /// The client `rp`.
    pub fn rp(&self) -> Rp {
        Rp::new(&self.issuer)
    }

    /// Applies a seed, as the command does.
    pub fn seed(&self, seed: Value) -> Summary {
        let seed = Seed::parse(&seed.to_string(), Format::Json, &self.config)
            .unwrap_or_else(|error| panic!("{error}"));
        let summary = seed
            .apply(&self.store, &self.config, self.clock.now())
            .unwrap();
        self.look_at_clients();
        summary
    }

    /// Lets the server see at once what a test changed about clients, which it would by itself within a second.
    pub fn look_at_clients(&self) {
        waiting_for(self.clients.refresh()).unwrap();
    }

    /// Clears away what is over, as a server does every few minutes.
    pub fn prune(&self) -> Outcome {
        waiting_for(prune_expired::run(
            &self.store,
            &self.config,
            self.clock.now(),
            Trail::of_server,
        ))
        .unwrap()
    }

    /// How many rows each table has.
    pub fn rows(&self) -> BTreeMap<String, i64> {
        rows_of(&self.store)
    }

    /// Makes a client from its metadata; what matters to no test has a value already.
    pub fn client(&self, metadata: Value) {
        let mut client = json!({ "redirect_uris": [CALLBACK] });
        client
            .as_object_mut()
            .unwrap()
            .extend(metadata.as_object().unwrap().clone());
        self.seed(json!({ "clients": [client] }));
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer)
    }
}

/// How many rows each table has; the tables are those of `schema.rs`.
pub fn rows_of(store: &Store) -> BTreeMap<String, i64> {
    let schema = include_str!("../../src/store/schema.rs");
    let tables = schema
        .lines()
        .filter_map(|line| line.trim().strip_suffix('{')?.split_once(" ("))
        .map(|(name, _)| name.to_owned())
        .collect::<Vec<_>>();
    assert!(tables.len() > 10, "{tables:?}");
    let count = move |conn: &mut AnyConnection| {
        tables
            .iter()
            .map(|name| {
                let query = format!("SELECT COUNT(*) AS n FROM {name}");
                Ok((name.clone(), invariants::count(conn, &query)?))
            })
            .collect()
    };
    store.read_blocking(count).unwrap()
}

/// Runs what a server would run, in this thread.
pub fn waiting_for<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

impl Server {
    fn start(config: &Config, clock: &Clock) -> Result<(Self, HashingQueue, ClientCache), String> {
        let (sender, receiver) = mpsc::channel();
        let (config, clock) = (config.clone(), clock.clone());
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                match startup::start(config, clock).await {
                    Ok(running) => {
                        let doors = (running.stopper(), running.hashing(), running.clients());
                        sender.send(Ok(doors)).unwrap();
                        running.run().await.unwrap();
                    }
                    Err(error) => sender.send(Err(error.to_string())).unwrap(),
                }
            });
        });
        let (stopper, hashing, clients) = receiver.recv().expect("the thread answers")?;
        let server = Self {
            stopper,
            thread: Some(thread),
        };
        Ok((server, hashing, clients))
    }

    fn stop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        let stopper = self.stopper.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _late = runtime.block_on(async {
            tokio::time::timeout(std::time::Duration::from_secs(5), stopper.stop()).await
        });
        let _panicked = thread.join();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that nobody listens on. Below the range from which the system takes ports for outgoing connections, so that no
/// client of a test running beside this one takes it in the meantime.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let offset = std::process::id() * 97 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(10_000 + offset % 20_000).expect("below 30,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The present, so that clients with a clock of their own agree.
#[allow(
    clippy::disallowed_methods,
    reason = "the manual clock begins at the real time"
)]
pub fn now() -> Timestamp {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    Timestamp::from_seconds(i64::try_from(seconds).unwrap())
}
