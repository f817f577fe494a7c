//! The command line: a file a verb.
//!
//! Exit codes: 0 done, 1 refused or findings, 2 usage. Answers go to standard output, errors to standard error.

mod apply;
mod audit;
mod backup;
mod banner;
mod clients;
mod config;
mod database_argument;
mod db;
mod dev;
mod doctor;
mod doctor_files;
mod export;
mod failure;
mod gc;
mod guests;
mod healthcheck;
mod held;
mod http;
mod init;
mod keys;
mod logging;
mod migrate;
mod output;
mod password_input;
mod selftest;
mod serve;
mod users;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};
use rustix::fs::Mode;

use self::failure::Failure;
use self::output::Format;
use crate::config::{Config, Sources};
use crate::seed::Extent;

/// A standalone OpenID Connect identity provider.
#[derive(Parser)]
#[command(name = "latchkey", version, arg_required_else_help = true)]
struct CommandLine {
    /// The configuration; without it `LATCHKEY_CONFIG`, else latchkey.toml if present.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How results are printed: for people, or one JSON object a line.
    #[arg(long, global = true, value_enum, default_value_t)]
    output: Format,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve people and apps.
    Serve,
    /// Serve on this machine for trying things, without any configuration.
    Dev(dev::Flags),
    /// Write a configuration to begin with; what is not given as a flag is asked for on a terminal.
    Init(init::Answers),
    /// The database's schema.
    #[command(subcommand)]
    Migrate(migrate::Verb),
    /// Bring people, apps, scopes and groups to what a TOML or JSON file says; `-` is standard input.
    Apply {
        file: PathBuf,
        /// Only print the difference; exit code 1 if there is one.
        #[arg(long)]
        dry_run: bool,
        /// Remove who came from a file once and is in this one no more; with a group, everybody's membership of it.
        #[arg(long)]
        prune: bool,
    },
    /// Print people, apps, scopes and groups as `apply` reads them, with the hashes of secrets.
    Export,
    /// People.
    #[command(subcommand)]
    Users(users::Verb),
    /// Apps.
    #[command(subcommand)]
    Clients(clients::Verb),
    /// Signing keys.
    #[command(subcommand)]
    Keys(keys::Verb),
    /// What people, apps and operators did.
    #[command(subcommand)]
    Audit(audit::Verb),
    /// Copy a SQLite database to a new file, beside a running server.
    Backup { file: PathBuf },
    /// Put a backup in the place of the database, and end what belongs to the timeline that was left.
    Restore(backup::Restoring),
    /// The database as a whole.
    #[command(subcommand)]
    Db(db::Verb),
    /// Delete what expired, at once and beside a server, which does so every few minutes.
    Gc,
    /// The configuration.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Go the whole way through a running server as an app and a person, both made for this and removed after it.
    Selftest {
        /// Where to begin, if not at the configured issuer.
        #[arg(long, value_name = "URL")]
        issuer: Option<String>,
    },
    /// Look at a live deployment, with a remedy beside every finding.
    Doctor,
    /// Ask the running server whether it is ready.
    Healthcheck,
    /// Print the version.
    Version,
}

#[derive(Clone, Copy, Subcommand)]
enum ConfigVerb {
    /// Print every mistake at once.
    Check,
    /// Print what every key is set to; secrets are masked.
    Show {
        /// Also where each value comes from.
        #[arg(long)]
        sources: bool,
    },
    /// Print every key with its default and reason, as a file to begin with.
    Reference,
}

/// Runs what the process was started for.
pub fn run() -> ExitCode {
    let began = Instant::now();
    // First of all: whatever is made from here on is for this account's eyes only.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let line = CommandLine::parse();
    match dispatch(line, began, &mut io::stdout()) {
        Ok(code) => code,
        Err(Failure::ReaderGone) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::FAILURE,
        Err(Failure::Text(text)) => {
            // Nobody is left to tell when standard error is closed too.
            let _unheard = writeln!(io::stderr(), "latchkey: {text}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(line: CommandLine, began: Instant, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let format = line.output;
    let sources = Sources::from_process(line.config.clone(), Vec::new());
    // These read the configuration in their own way or not at all; the others need a good one.
    match line.verb {
        Verb::Dev(_) if line.config.is_some() => {
            let text =
                "dev needs no configuration and reads none: leave --config away, or use serve";
            return usage(ErrorKind::ArgumentConflict, text);
        }
        Verb::Dev(flags) => return dev::run(&flags, format, began),
        Verb::Config(ConfigVerb::Check) => return Ok(config::check(sources, format, out)?),
        Verb::Config(ConfigVerb::Show { sources: with }) => {
            return Ok(config::show(sources, with, format, out)?);
        }
        Verb::Config(ConfigVerb::Reference) => return Ok(config::reference(format, out)?),
        Verb::Init(answers) => return init::run(line.config, answers, format, out),
        Verb::Db(verb) => {
            logging::for_command();
            return db::run(verb, format, out);
        }
        Verb::Version => {
            version(format, out)?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let config = Config::load(sources.clone())?;
    if let Verb::Serve = line.verb {
        return serve::run(config, format, began);
    }
    logging::for_command();
    match line.verb {
        Verb::Migrate(verb) => migrate::run(&config, verb, format, out),
        Verb::Apply {
            file,
            dry_run,
            prune,
        } => {
            let extent = Extent { prune, dry_run };
            apply::run(&config, &file, extent, format, out)
        }
        Verb::Export => export::run(&config, format, out),
        Verb::Users(verb) => users::run(&config, verb, format, out),
        Verb::Clients(verb) => clients::run(&config, verb, format, out),
        Verb::Keys(verb) => keys::run(&config, verb, format, out),
        Verb::Audit(verb) => audit::run(&config, verb, format, out),
        Verb::Backup { file } => backup::back_up(&config, &file, format, out),
        Verb::Restore(restoring) => backup::restore(&config, restoring, format, out),
        Verb::Gc => gc::run(&config, format, out),
        Verb::Selftest { issuer } => selftest::run(&config, issuer.as_deref(), format, out),
        Verb::Doctor => doctor::run(&config, &sources, format, out),
        Verb::Healthcheck => healthcheck::run(&config, format, out),
        Verb::Serve
        | Verb::Dev(_)
        | Verb::Config(_)
        | Verb::Db(_)
        | Verb::Init(_)
        | Verb::Version => {
            unreachable!("done above")
        }
    }
}

/// What clap would say if it knew.
fn usage(kind: ErrorKind, text: &str) -> Result<ExitCode, Failure> {
    CommandLine::command().error(kind, text).print()?;
    Ok(ExitCode::from(2))
}

fn version(format: Format, out: &mut dyn Write) -> io::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    match format {
        Format::Table => writeln!(out, "latchkey {version}"),
        Format::Json => output::object(out, &serde_json::json!({ "version": version })),
    }
}
