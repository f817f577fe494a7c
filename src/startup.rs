//! Config → store, keys, routes → a running server. The command line and the tests start the product through here.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::{Condition, from_fn};
use actix_web::{App, web};
use arc_swap::ArcSwapOption;

use crate::audit::Trail;
use crate::causes::with_causes;
use crate::client_cache::ClientCache;
use crate::clock::Clock;
use crate::config::{Config, DatabaseUrl, Listen, SecretKey};
use crate::hashing::{HashingQueue, threads_by_default};
use crate::identity::password::HashError;
use crate::jobs::schedule;
use crate::keys::{self, KeyError, KeyRing, Keys};
use crate::listening::{Access, Listener};
use crate::metrics::Metrics;
use crate::protocol::seal::{RootKey, SealingKey};
use crate::random;
use crate::seed::{self, DevApp, SeedError};
use crate::store::{
    MigrationError, OpenError, Options, Store, StoreError, create_for_owner_of, folder_of,
    properties, signing_keys, sync_folder, with_suffix,
};
use crate::telemetry::{Telemetry, TelemetryError};
use crate::waiting;
use crate::web::address_limit::{self, AddressLimit};
use crate::web::connection;
use crate::web::health::Readiness;
use crate::web::state::{AppState, Epoch};
use crate::web::{request_log, routes};

/// Passwords that may wait for a core; with more, an honest 503 at once serves people better than a page that hangs.
const WAITING_HASHES_PER_CORE: usize = 32;
/// Over all threads.
const MOST_CONNECTIONS: usize = 10_000;
/// Probes and whoever collects metrics.
const MOST_CONNECTIONS_OF_OPERATORS: usize = 256;
const DRAIN_SECONDS: u64 = 20;
/// While PostgreSQL is away.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Why a server can't start; every text names the remedy or the thing concerned.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Migration(#[from] MigrationError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("{0}")]
    SecretKey(String),
    #[error(
        "the database has the schema of an older version, or none yet: run `latchkey migrate up`, or start the server"
    )]
    OlderSchema,
    #[error("this database was served in {found} mode and can't be served in {wanted} mode")]
    WrongMode { found: String, wanted: &'static str },
    #[error("password hashing: {0}")]
    Hashing(#[from] HashError),
    #[error("can't listen on {address}: {source}")]
    Listen { address: String, source: io::Error },
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Seed(#[from] SeedError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error("the metrics contradict each other")]
    Metrics(#[from] prometheus::Error),
}

impl StartError {
    /// Whether it may pass by itself, without anybody who does something about what we have here.
    fn is_of_a_database_that_is_away(&self) -> bool {
        match self {
            Self::Open(
                OpenError::Database(error) | OpenError::Migrations(MigrationError::Database(error)),
            )
            | Self::Migration(MigrationError::Database(error))
            | Self::Store(error)
            | Self::Keys(KeyError::Store(error))
            | Self::Seed(SeedError::Store(error)) => error.is_of_a_database_that_is_away(),
            _ => false,
        }
    }
}

/// A server that accepts requests.
pub struct Running {
    pub address: Option<SocketAddr>,
    pub dev_app: Option<DevApp>,
    clients: ClientCache,
    hashing: HashingQueue,
    stopping: Arc<AtomicBool>,
    telemetry: Option<Arc<Telemetry>>,
    handles: Vec<ServerHandle>,
    servers: Vec<actix_web::dev::Server>,
}

/// The store and the root key: what a command needs to work beside a server.
pub struct Opened {
    pub store: Store,
    pub root: RootKey,
}

/// Opens the database and its secret key, which are made where there are none, and migrates: for servers and for what
/// people do before the first start. `exclusive` is for servers.
pub fn open(config: &Config, exclusive: bool) -> Result<Opened, StartError> {
    let options = Options {
        exclusive,
        ..Options::default()
    };
    let store = Store::open(&config.database.url, options)?;
    let opened = check(store, root_key(config)?)?;
    let now = Clock::system().now();
    let trail = if exclusive {
        Trail::of_server(now)
    } else {
        Trail::of_command(now)
    };
    for name in opened.store.migrate(&trail)? {
        tracing::info!(migration = %name, "migrated");
    }
    Ok(opened)
}

/// Opens a database that is in use with the key that is there: for all other commands. A cron job in the wrong folder must
/// not look as if it had done something, so nothing is made and nothing is migrated. `exclusive` keeps servers away.
pub fn open_existing(config: &Config, exclusive: bool) -> Result<Opened, StartError> {
    let options = Options {
        exclusive,
        ..Options::default()
    };
    let store = Store::open_existing(&config.database.url, options)?;
    let opened = check(store, existing_root_key(config)?)?;
    if opened.store.pending_migrations()?.is_empty() {
        Ok(opened)
    } else {
        Err(StartError::OlderSchema)
    }
}

/// Nothing is written before it is known that the key is the database's.
fn check(store: Store, root: RootKey) -> Result<Opened, StartError> {
    let stored = store.read_blocking(signing_keys::list_before_migration)?;
    keys::check_root_key(&stored, &root)?;
    Ok(Opened { store, root })
}

/// Starts the product where its configuration says.
pub async fn start(config: Config, clock: Clock) -> Result<Running, StartError> {
    Box::pin(start_on(config, clock, None)).await
}

/// Starts the product on a listener that is open already, else where its configuration says: binds before it works, so that
/// a taken port changes nothing, and says on the way that it lives.
pub async fn start_on(
    config: Config,
    clock: Clock,
    inherited: Option<Listener>,
) -> Result<Running, StartError> {
    let listener = match inherited {
        Some(listener) => listener,
        None => listen(&config.listen, Access::Everybody)?,
    };
    let management = match config.development {
        true => None,
        false => Some(listen(&config.management.listen, Access::Group)?),
    };
    if hides_addresses(&config) {
        tracing::warn!(
            "requests seem to come through a proxy on this machine that trusted_proxies does not name: all people share one address, and with it one limit of failed sign-ins and one of requests"
        );
    }
    let Prepared { state, dev_app } = tokio::select! {
        prepared = prepare_patiently(&config, &clock) => prepared?,
        never = waiting::answer(&config, &clock, [Some(&listener), management.as_ref()]) => match never? {},
    };
    let (server, address) = serve(&config, listener, state.clone())?;
    let mut servers = vec![server];
    if let Some(management) = management {
        servers.push(serve_management(management, state.clone())?);
    }
    schedule::begin(&state);
    Ok(Running {
        address,
        dev_app,
        clients: state.clients.clone(),
        hashing: state.hashing.clone(),
        stopping: state.stopping.clone(),
        telemetry: state.telemetry.clone(),
        handles: servers.iter().map(actix_web::dev::Server::handle).collect(),
        servers,
    })
}

/// Everything that is made from the configuration and the database before the first request.
struct Prepared {
    state: web::Data<AppState>,
    dev_app: Option<DevApp>,
}

/// PostgreSQL may be started after us, or be away at this very moment: nobody shall have to start us again. A SQLite file
/// that can't be opened needs somebody.
async fn prepare_patiently(config: &Config, clock: &Clock) -> Result<Prepared, StartError> {
    let may_wait = matches!(config.database.url, DatabaseUrl::Postgres(_));
    let mut waited = false;
    loop {
        let outcome = Box::pin(prepare(config.clone(), clock.clone())).await;
        match &outcome {
            Err(error) if may_wait && error.is_of_a_database_that_is_away() => {
                if !waited {
                    tracing::warn!(error = %with_causes(error), "waiting for PostgreSQL");
                }
                waited = true;
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
            _ => {
                if waited && outcome.is_ok() {
                    tracing::info!("PostgreSQL is there");
                }
                return outcome;
            }
        }
    }
}

async fn prepare(config: Config, clock: Clock) -> Result<Prepared, StartError> {
    let hash_settings = config.password.hash_settings()?;
    let opened = {
        let config = config.clone();
        web::block(move || open(&config, true))
            .await
            .map_err(|_cancelled| io::Error::other("the start was cancelled"))??
    };
    let Opened { store, root } = opened;
    let now = clock.now();
    claim_mode(&store, config.development).await?;
    let dev_app = if config.development {
        let (store, root, config) = (store.clone(), root.clone(), config.clone());
        let seeded = web::block(move || seed::development(&store, &root, &config, now));
        Some(
            seeded
                .await
                .map_err(|_cancelled| io::Error::other("the start was cancelled"))??,
        )
    } else {
        None
    };
    let keys = {
        let (store, root, algorithms) =
            (store.clone(), root.clone(), config.keys.algorithms.clone());
        let made = web::block(move || {
            let stored = keys::ensure(&store, &root, &algorithms, now)?;
            Keys::read(stored, &root, &algorithms)
        });
        KeyRing::new(
            made.await
                .map_err(|_cancelled| io::Error::other("the start was cancelled"))??,
        )
    };
    let threads = threads_by_default();
    let clients = ClientCache::new(store.clone());
    // Before anything is kept, so that the first change is seen as one.
    clients.refresh().await?;
    let state = web::Data::new(AppState {
        tickets: SealingKey::derive(&root, "tickets"),
        cookies: SealingKey::derive(&root, "cookies"),
        hashing: HashingQueue::new(threads, threads.get() * WAITING_HASHES_PER_CORE)?,
        hash_settings,
        dev_app: dev_app.clone(),
        stopping: Arc::new(AtomicBool::new(false)),
        config: config.clone(),
        store: store.clone(),
        clients,
        guessing: Default::default(),
        address_limit: AddressLimit::new(&config),
        metrics: Metrics::new(store.write_counters())?,
        readiness: Readiness::new(),
        telemetry: Telemetry::from_environment(&config.egress)?.map(Arc::new),
        clock,
        root,
        epoch: Epoch::default(),
        keys,
        discovery: ArcSwapOption::empty(),
    });
    state
        .guessing
        .look(&store, &state.throttle_limits(), now)
        .await?;
    state.epoch.look(&store).await?;
    Ok(Prepared { state, dev_app })
}

/// What requests and jobs work with, where nobody listens.
#[cfg(test)]
pub(crate) async fn state_of(config: Config, clock: Clock) -> web::Data<AppState> {
    let prepared = prepare(config, clock).await;
    prepared.unwrap_or_else(|error| panic!("{error}")).state
}

impl Running {
    /// Serves until the process is told to stop, or until a [`Stopper`] says so.
    pub async fn run(self) -> io::Result<()> {
        let results = futures_util::future::join_all(self.servers).await;
        if let Some(telemetry) = self.telemetry {
            // Nobody is left to be kept waiting; the thread that sends has a reactor of its own.
            let _ended = web::block(move || telemetry.shut_down()).await;
        }
        results.into_iter().collect()
    }

    /// The threads on which passwords are hashed; work that is put there takes its turn with sign-ins.
    pub fn hashing(&self) -> HashingQueue {
        self.hashing.clone()
    }

    /// What it knows of clients; whoever changed one from outside need not wait for the server to look again.
    pub fn clients(&self) -> ClientCache {
        self.clients.clone()
    }

    /// The way to stop it from elsewhere.
    pub fn stopper(&self) -> Stopper {
        Stopper {
            stopping: self.stopping.clone(),
            handles: self.handles.clone(),
        }
    }
}

/// Stops a server gracefully: not ready at once, then what was accepted is finished.
#[derive(Clone)]
pub struct Stopper {
    stopping: Arc<AtomicBool>,
    handles: Vec<ServerHandle>,
}

impl Stopper {
    /// Returns when every request is answered, at the latest after 20 seconds. The listener for the operator ends last, so
    /// that whoever looks meanwhile sees a server that lives and is not ready, and the last metrics.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for handle in &self.handles {
            handle.stop(true).await;
        }
    }
}

/// Listens there. The library would remove whatever is at a path first.
fn listen(at: &Listen, access: Access) -> Result<Listener, StartError> {
    let opened = match at {
        Listen::Tcp(address) => Listener::tcp(*address),
        Listen::Unix(path) => Listener::at_path(path, access),
    };
    opened.map_err(|source| StartError::Listen {
        address: at.to_string(),
        source,
    })
}

fn serve(
    config: &Config,
    listener: Listener,
    state: web::Data<AppState>,
) -> Result<(actix_web::dev::Server, Option<SocketAddr>), StartError> {
    let (base, development) = (config.issuer.path().to_owned(), config.development);
    let limited = state.address_limit.is_enabled();
    let threads = threads_by_default().get();
    let builder = actix_server::Server::build()
        .workers(threads)
        .max_concurrent_connections(MOST_CONNECTIONS.div_ceil(threads))
        .shutdown_timeout(DRAIN_SECONDS);
    let served = state.clone();
    let application = move || {
        App::new()
            .app_data(state.clone())
            .wrap(Condition::new(limited, from_fn(address_limit::refuse)))
            .wrap(Condition::new(limited, state.address_limit.counting()))
            .wrap(from_fn(request_log::around))
            .configure(|app| routes::configure(app, &base, development))
    };
    Ok(connection::run(listener, builder, served, application)?)
}

fn serve_management(
    listener: Listener,
    state: web::Data<AppState>,
) -> Result<actix_web::dev::Server, StartError> {
    let builder = actix_server::Server::build()
        .workers(1)
        .max_concurrent_connections(MOST_CONNECTIONS_OF_OPERATORS)
        .shutdown_timeout(1);
    let served = state.clone();
    let application = move || {
        App::new()
            .app_data(state.clone())
            .wrap(from_fn(request_log::around_operator))
            .configure(routes::configure_management)
    };
    Ok(connection::run(listener, builder, served, application)?.0)
}

/// TLS ends somewhere else and we are reached from this machine only: that is a proxy, and nobody believes it.
fn hides_addresses(config: &Config) -> bool {
    matches!(&config.listen, Listen::Tcp(address) if address.ip().is_loopback())
        && config.issuer.as_str().starts_with("https://")
        && config.trusted_proxies.is_empty()
}

async fn claim_mode(store: &Store, development: bool) -> Result<(), StartError> {
    let wanted = if development {
        "development"
    } else {
        "production"
    };
    let found = store
        .write(move |tx| properties::find_or_set(tx, "mode", wanted))
        .await?;
    if found == wanted {
        Ok(())
    } else {
        Err(StartError::WrongMode { found, wanted })
    }
}

/// The key that is there. Unlike a first start, whoever needs it for an old database must not get a new one.
pub fn existing_root_key(config: &Config) -> Result<RootKey, StartError> {
    match config.default_secret_key_file() {
        Some(file) if config.secret_key.is_none() && !file.exists() => {
            let text = format!(
                "{} is missing, and no database can be read without the key that it was made with; put it back first",
                file.display()
            );
            Err(StartError::SecretKey(text))
        }
        _ => root_key(config),
    }
}

/// The configured key, or the file beside the SQLite database, which is made at first start.
fn root_key(config: &Config) -> Result<RootKey, StartError> {
    let broken = |error: String| StartError::SecretKey(error);
    let key = match (&config.secret_key, config.default_secret_key_file()) {
        (Some(key), _) => key.hexadecimal().to_owned(),
        (None, Some(file)) => {
            if !file.exists() {
                make_key_file(&file, &config.database.url)?;
            }
            SecretKey::read(&file)
                .map_err(|error| broken(format!("the secret key {} {error}", file.display())))?
                .hexadecimal()
                .to_owned()
        }
        (None, None) => return Err(broken("secret_key is needed with PostgreSQL".to_owned())),
    };
    key.parse()
        .map_err(|error: crate::protocol::seal::InvalidRootKey| broken(error.to_string()))
}

fn make_key_file(file: &Path, database: &DatabaseUrl) -> Result<(), StartError> {
    // A database that has keys already was made with another secret; a fresh one would only hide that it is lost.
    if let DatabaseUrl::Sqlite(_) = database {
        let store = Store::open(database, Options::default())?;
        let stored = store.read_blocking(signing_keys::list_before_migration)?;
        if !stored.is_empty() {
            let text = format!(
                "{} is missing, but the database was made with it; restore it from a backup",
                file.display()
            );
            return Err(StartError::SecretKey(text));
        }
    }
    match new_key_file(file) {
        // Another process was quicker; its key counts.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => Ok(made?),
    }
}

/// A key that nobody else has, in a file that nobody else may read and that was not there before.
pub fn new_key_file(file: &Path) -> io::Result<()> {
    let hexadecimal: String = random::bytes::<32>()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    write_new_file(file, &format!("{hexadecimal}\n"))
}

/// The file gets its name when it is whole: whoever finds it, even after we were killed, finds everything in it.
pub fn write_new_file(file: &Path, text: &str) -> io::Result<()> {
    let draft = with_suffix(file, &format!(".{}", random::id()));
    let made = write_draft(&draft, text).and_then(|()| std::fs::hard_link(&draft, file));
    let removed = std::fs::remove_file(&draft);
    made.and(removed)?;
    sync_folder(file)
}

fn write_draft(draft: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    let mut opened = create_for_owner_of(folder_of(draft), draft)?;
    opened.write_all(text.as_bytes())?;
    opened.sync_all()
}
