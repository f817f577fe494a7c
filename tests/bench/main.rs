//! How fast the product is here, beside what this machine can do at most: `cargo bench`.
//!
//! It starts the real program on SQLite and, where PostgreSQL's binaries are found, on a PostgreSQL of its own, asks it
//! over the network as apps and browsers do, and prints tables in Markdown.

mod http;
mod limits;
mod load;
mod modes;
#[path = "../support/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use more of it")]
mod postgres;
mod process;
mod server;
mod table;

use std::error::Error;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::limits::Limits;
use crate::load::Timing;
use crate::modes::{MODES, Mode, Scene};
use crate::postgres::Cluster;
use crate::process::{Halves, Usage};
use crate::server::{Place, Server};
use crate::table::{Report, Row};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The middle one of so many is told.
const STARTS: usize = 3;
const MOST_CONNECTIONS: usize = 256;

/// Measures how fast Latchkey is on this machine.
#[derive(Parser)]
#[command(name = "cargo bench --")]
struct Arguments {
    /// Measured for each figure, after the warm-up.
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    warm_up: f64,
    /// How many connections ask at the same time.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
    connections: Vec<usize>,
    /// Operations begun in a second, over all connections, whether the server keeps up or not; without it each connection
    /// waits for its answer only.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// The server and the machine's limits get one half of the cores, the load the other.
    #[arg(long)]
    apart: bool,
    /// What to measure; everything by default.
    #[arg(long, value_delimiter = ',', value_parser = MODES.iter().map(|mode| mode.name).collect::<Vec<_>>())]
    modes: Vec<String>,
    /// On which database; both by default.
    #[arg(long, value_enum)]
    database: Option<Database>,
    /// One JSON object a line in place of the tables.
    #[arg(long)]
    json: bool,
    /// What cargo says when it runs benches, and not when it tests them.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Database {
    Sqlite,
    Postgres,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.bench {
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Answers whether every operation was done.
fn run(arguments: &Arguments) -> Outcome<bool> {
    if arguments
        .connections
        .iter()
        .any(|count| !(1..=MOST_CONNECTIONS).contains(count))
    {
        return Err(format!("--connections: from 1 to {MOST_CONNECTIONS}").into());
    }
    // On the disk that holds the build, since /tmp is often memory; open to the account that PostgreSQL runs as.
    let directory = tempfile::Builder::new()
        .prefix("bench-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let halves = arguments.apart.then(Halves::of_machine).transpose()?;
    if let Some(halves) = &halves {
        halves.go_to_server()?;
    }
    let (cores, model) = process::machine();
    say("the machine's limits");
    let of_machine = limits::of_machine(cores, directory.path(), arguments.short())?;
    let out = &mut io::stdout().lock();
    if arguments.json {
        table::machine_lines(out, cores, &model, &of_machine)?;
    } else {
        table::machine(out, cores, &model, &of_machine)?;
    }
    let mut done = true;
    for database in [Database::Sqlite, Database::Postgres] {
        if arguments.database.is_some_and(|only| only != database) {
            continue;
        }
        let Some(report) = measure(arguments, halves.as_ref(), database, directory.path())? else {
            continue;
        };
        if arguments.json {
            table::report_lines(out, &report, &of_machine, cores)?;
        } else {
            table::report(out, &report, &of_machine, cores)?;
        }
        out.flush()?;
        done &= report.failures().next().is_none();
    }
    Ok(done)
}

/// `None` where PostgreSQL is not installed.
fn measure(
    arguments: &Arguments,
    halves: Option<&Halves>,
    database: Database,
    directory: &Path,
) -> Outcome<Option<Report>> {
    if database == Database::Sqlite {
        say("SQLite's limit");
        let limits = limits::of_sqlite(directory, arguments.short())?;
        return measure_on(
            arguments,
            halves,
            "SQLite",
            limits,
            None,
            &directory.join("sqlite"),
        )
        .map(Some);
    }
    let Some(cluster) = postgres(directory) else {
        return Ok(None);
    };
    say("PostgreSQL's limit");
    let limits = limits::of_postgres(&cluster, arguments.short())?;
    measure_on(
        arguments,
        halves,
        "PostgreSQL",
        limits,
        Some(&cluster),
        &directory.join("postgres"),
    )
    .map(Some)
}

/// With the settings that PostgreSQL has by itself, so that a commit is on the disk.
fn postgres(directory: &Path) -> Option<Cluster> {
    let elsewhere = std::env::temp_dir();
    let started = postgres::start(directory, &[]).or_else(|reason| {
        say(&format!(
            "PostgreSQL's files go to {}: {reason}",
            elsewhere.display()
        ));
        postgres::start(&elsewhere, &[])
    });
    match started {
        Ok(cluster) => Some(cluster),
        Err(reason) => {
            say(&format!("PostgreSQL is left out: {reason}"));
            None
        }
    }
}

fn measure_on(
    arguments: &Arguments,
    halves: Option<&Halves>,
    name: &'static str,
    limits: Limits,
    cluster: Option<&Cluster>,
    directory: &Path,
) -> Outcome<Report> {
    say(&format!("{name}: starts"));
    fs::create_dir(directory)?;
    let mut first = Vec::new();
    let mut place = None;
    for number in 0..STARTS {
        let url = cluster.map(|cluster| cluster.create_database(None));
        let fresh = Place::new(&directory.join(number.to_string()), url.as_deref())?;
        let server = fresh.serve()?;
        first.push(server.ready_after);
        server.stop()?;
        place = Some(fresh);
    }
    let place = place.ok_or("no start")?;
    let people = arguments.connections.iter().copied().max().unwrap_or(1);
    place.seed(people)?;
    let mut scene = None;
    let mut again = Vec::new();
    for _ in 1..STARTS {
        let server = place.serve()?;
        again.push(server.ready_after);
        if scene.is_none() {
            // Before the process that is measured: what hashing took stays in a process's memory.
            scene = Some(Scene::set(place.port, people)?);
        }
        server.stop()?;
    }
    let scene = scene.ok_or("nobody is signed in")?;
    let server = place.serve()?;
    again.push(server.ready_after);
    let idle_memory = server.idle_memory();

    let database = cluster.map(first_process).transpose()?;
    let rows = arguments
        .modes()
        .map(|mode| measure_mode(arguments, halves, name, mode, &scene, &server, database))
        .collect::<Outcome<_>>()?;
    Ok(Report {
        database: name,
        limits,
        first_start: middle(first),
        start: middle(again),
        idle_memory,
        rows,
    })
}

fn measure_mode(
    arguments: &Arguments,
    halves: Option<&Halves>,
    database: &str,
    mode: &Mode,
    scene: &Scene,
    server: &Server,
    database_process: Option<u32>,
) -> Outcome<Row> {
    process::forget_peak(server.pid());
    let usage = || Usage::now(server.pid(), database_process);
    let measured = arguments.connections.iter().map(|connections| {
        say(&format!("{database}: {} at {connections}", mode.name));
        let start = |number| mode.start(scene, number);
        if let Some(halves) = halves {
            halves.go_to_load()?;
        }
        let measured = load::run(*connections, arguments.full(), &usage, &start);
        if let Some(halves) = halves {
            halves.go_to_server()?;
        }
        Ok((*connections, measured))
    });
    Ok(Row {
        mode: mode.name,
        limit: mode.limit,
        measured: measured.collect::<Outcome<_>>()?,
        peak_memory: process::memory(server.pid()).map(|(_, peak)| peak),
    })
}

impl Arguments {
    fn modes(&self) -> impl Iterator<Item = &'static Mode> {
        let is_wanted =
            |mode: &&Mode| self.modes.is_empty() || self.modes.iter().any(|name| name == mode.name);
        MODES.iter().filter(is_wanted)
    }

    fn full(&self) -> Timing {
        Timing {
            warm_up: Duration::from_secs_f64(self.warm_up),
            measured: Duration::from_secs_f64(self.seconds),
            rate: self.rate,
        }
    }

    /// For the limits, which are steadier.
    fn short(&self) -> Timing {
        Timing {
            warm_up: self.full().warm_up / 3,
            measured: self.full().measured / 2,
            rate: None,
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (1.0..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err("from 1 to 100000".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=300.0).contains(&seconds) => Ok(seconds),
        _ => Err("from 0.1 to 300".to_owned()),
    }
}

/// The process from which all others of this PostgreSQL descend.
fn first_process(cluster: &Cluster) -> Outcome<u32> {
    let file: PathBuf = cluster.directory.join("data/postmaster.pid");
    let text = fs::read_to_string(file)?;
    Ok(text.lines().next().unwrap_or_default().parse()?)
}

/// In milliseconds.
fn middle(mut durations: Vec<Duration>) -> f64 {
    durations.sort_unstable();
    let middle = durations.get(durations.len() / 2).copied();
    middle.unwrap_or_default().as_secs_f64() * 1e3
}

fn say(what: &str) {
    eprintln!("{what} …");
}
