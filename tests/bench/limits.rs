//! What this machine can do at most, with the same libraries and on the same disk, so that a figure means something elsewhere.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use argon2::{Algorithm, Argon2, Params, Version};
use diesel::connection::SimpleConnection as _;
use diesel::sql_types::Integer;
use diesel::{Connection as _, PgConnection, RunQueryDsl as _, SqliteConnection};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;

use crate::Outcome;
use crate::http::{Connection, get};
use crate::load::{self, Measured, Operation, Timing};
use crate::postgres::{self, Cluster};

/// About as long as what is signed for an access token.
const MESSAGE: &[u8] = &[b'x'; 512];
const ANSWER: &str =
    r#"{"issuer":"https://id.example.com","jwks_uri":"https://id.example.com/jwks"}"#;

/// A limit that rows are held against.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Limit {
    Actix,
    ActixSigning,
    Rs256,
    Argon2id,
    /// One by one with SQLite; the database's own load tool at 8 with PostgreSQL.
    Commit,
}

/// What was measured, in the order of the table.
#[derive(Default)]
pub(crate) struct Limits {
    pub(crate) rows: Vec<(String, f64, &'static str)>,
    rates: BTreeMap<Limit, f64>,
}

impl Limits {
    pub(crate) fn rate(&self, limit: Limit) -> Option<f64> {
        self.rates.get(&limit).copied()
    }

    fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) -> f64 {
        self.rows.push((name.into(), value, unit));
        value
    }

    fn add_rate(&mut self, name: &str, measured: Measured) -> Outcome<f64> {
        let measured = whole(name, measured)?;
        Ok(self.add(name, measured.per_second(), "a second"))
    }
}

/// Everything that has nothing to do with a database.
pub(crate) fn of_machine(cores: usize, directory: &Path, timing: Timing) -> Outcome<Limits> {
    let mut limits = Limits::default();
    let (es256, rs256) = (es256_key()?, PKey::from_rsa(Rsa::generate(2048)?)?);
    limits.add_rate(
        "ES256 signatures (OpenSSL), one core",
        signing(1, &es256, timing),
    )?;
    limits.add_rate(
        "RS256 signatures (OpenSSL), one core",
        signing(1, &rs256, timing),
    )?;
    let rate = limits.add_rate(
        "RS256 signatures, all cores",
        signing(cores, &rs256, timing),
    )?;
    limits.rates.insert(Limit::Rs256, rate);
    limits.add_rate("argon2id, 19 MiB, 2 passes, one core", hashing(1, timing))?;
    let rate = limits.add_rate("argon2id, all cores", hashing(cores, timing))?;
    limits.rates.insert(Limit::Argon2id, rate);
    let (bare, with_signature) = actix(&es256, timing)?;
    let rate = limits.add_rate("actix-web alone, a short JSON, 8 connections", bare)?;
    limits.rates.insert(Limit::Actix, rate);
    let rate = limits.add_rate(
        "actix-web alone with one ES256 signature, 8",
        with_signature,
    )?;
    limits.rates.insert(Limit::ActixSigning, rate);
    let name = "fdatasync of 4 KiB, p50";
    let measured = whole(name, syncing(directory, timing))?;
    limits.add(name, measured.p50_ms, "ms");
    Ok(limits)
}

/// Commits of one row by one thread.
pub(crate) fn of_sqlite(directory: &Path, timing: Timing) -> Outcome<Limits> {
    let mut limits = Limits::default();
    let file = directory.join("commits.db");
    let name = "SQLite commits of one row (WAL, synchronous=FULL), one thread";
    let measured = load::run(1, timing, &|| None, &|_| {
        let mut connection = SqliteConnection::establish(&file.to_string_lossy())?;
        connection.batch_execute(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE rows (number INTEGER PRIMARY KEY);",
        )?;
        let mut number = 0;
        Ok(Box::new(move || {
            number += 1;
            let insert = diesel::sql_query("INSERT INTO rows VALUES (?)");
            insert.bind::<Integer, _>(number).execute(&mut connection)?;
            Ok(())
        }))
    });
    let rate = limits.add_rate(name, measured)?;
    limits.rates.insert(Limit::Commit, rate);
    Ok(limits)
}

/// The load tool that comes with PostgreSQL; where it is missing, commits of one row.
pub(crate) fn of_postgres(cluster: &Cluster, timing: Timing) -> Outcome<Limits> {
    let mut limits = Limits::default();
    let url = cluster.create_database(None);
    let pgbench = postgres::find("pgbench");
    if let Some(program) = &pgbench {
        run(Command::new(program).args(["--initialize", "--quiet", &url]))?;
    } else {
        PgConnection::establish(&url)?.batch_execute("CREATE TABLE rows (number INTEGER)")?;
    }
    for clients in [1, 8] {
        let rate = match &pgbench {
            Some(program) => {
                let rate = simple_updates(program, &url, clients, timing)?;
                limits.add(
                    format!("PostgreSQL, pgbench -N, clients: {clients}"),
                    rate,
                    "a second",
                )
            }
            None => {
                let name = format!("PostgreSQL commits of one row, connections: {clients}");
                limits.add_rate(&name, inserts(&url, clients, timing))?
            }
        };
        limits.rates.insert(Limit::Commit, rate);
    }
    Ok(limits)
}

fn es256_key() -> Outcome<PKey<Private>> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    Ok(PKey::from_ec_key(EcKey::generate(&group)?)?)
}

fn sign(key: &PKey<Private>) -> Outcome<()> {
    Signer::new(MessageDigest::sha256(), key)?.sign_oneshot_to_vec(MESSAGE)?;
    Ok(())
}

fn signing(threads: usize, key: &PKey<Private>, timing: Timing) -> Measured {
    load::run(threads, timing, &|| None, &|_| {
        let key = key.clone();
        Ok(Box::new(move || sign(&key)))
    })
}

/// Into memory that is used again, so that the hash alone is measured and not the kernel handing out pages.
fn hashing(threads: usize, timing: Timing) -> Measured {
    load::run(threads, timing, &|| None, &|_| {
        let parameters = Params::new(19_456, 2, 1, Some(32)).map_err(|error| error.to_string())?;
        let mut blocks = vec![argon2::Block::default(); parameters.block_count()];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters);
        Ok(Box::new(move || {
            let mut hash = [0; 32];
            argon2
                .hash_password_into_with_memory(
                    b"a password",
                    b"a salt of its own",
                    &mut hash,
                    &mut blocks,
                )
                .map_err(|error| error.to_string())?;
            Ok(())
        }))
    })
}

fn syncing(directory: &Path, timing: Timing) -> Measured {
    load::run(1, timing, &|| None, &|_| {
        let mut file = File::create(directory.join("sync"))?;
        file.write_all(&[0; 4096])?;
        file.sync_all()?;
        Ok(Box::new(move || {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&[1; 4096])?;
            Ok(file.sync_data()?)
        }))
    })
}

/// The same HTTP server with nothing behind it, in this process; asked as the product is.
fn actix(key: &PKey<Private>, timing: Timing) -> Outcome<(Measured, Measured)> {
    let data = web::Data::new(key.clone());
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let server = HttpServer::new(move || {
                App::new()
                    .app_data(data.clone())
                    .route("/json", web::get().to(async || json()))
                    .route("/signed", web::get().to(signed))
            })
            .disable_signals()
            .bind("127.0.0.1:0")?;
            let port = server.addrs().first().map(std::net::SocketAddr::port);
            let server = server.run();
            let _gone = sender.send((port, server.handle()));
            server.await
        })
    });
    let (port, handle) = receiver.recv()?;
    let port = port.ok_or("no port")?;
    let ask = |path: &'static str| {
        load::run(8, timing, &|| None, &|_| {
            let mut connection = Connection::open(port)?;
            let request = get(port, path, &[]);
            let operation = move || connection.exchange(&request)?.expect(200).map(drop);
            Ok(Box::new(operation) as Box<dyn Operation>)
        })
    };
    let measured = (ask("/json"), ask("/signed"));
    actix_web::rt::System::new().block_on(handle.stop(false));
    thread
        .join()
        .map_err(|_panic| "the bare server panicked")??;
    Ok(measured)
}

fn json() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .body(ANSWER)
}

async fn signed(key: web::Data<PKey<Private>>) -> HttpResponse {
    match sign(&key) {
        Ok(()) => json(),
        Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
    }
}

fn simple_updates(program: &Path, url: &str, clients: usize, timing: Timing) -> Outcome<f64> {
    let (clients, threads) = (clients.to_string(), clients.min(2).to_string());
    // It takes whole seconds only.
    let seconds = timing
        .measured
        .max(Duration::from_secs(1))
        .as_secs()
        .to_string();
    let mut command = Command::new(program);
    command.args([
        "--skip-some-updates",
        "--client",
        &clients,
        "--jobs",
        &threads,
    ]);
    let report = run(command.args(["--time", &seconds, "--no-vacuum", url]))?;
    let rate = report
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    rate.ok_or_else(|| format!("pgbench told no rate: {report}").into())
}

fn inserts(url: &str, connections: usize, timing: Timing) -> Measured {
    load::run(connections, timing, &|| None, &|_| {
        let mut connection = PgConnection::establish(url)?;
        Ok(Box::new(move || {
            diesel::sql_query("INSERT INTO rows VALUES (1)").execute(&mut connection)?;
            Ok(())
        }))
    })
}

fn run(command: &mut Command) -> Outcome<String> {
    let output = command.output()?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().into())
    }
}

/// A limit that is not whole would make everything beside it look good.
fn whole(name: &str, measured: Measured) -> Outcome<Measured> {
    match measured.first_failure {
        Some(reason) => Err(format!("{name}: {reason}").into()),
        None => Ok(measured),
    }
}
