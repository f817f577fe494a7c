//! A PostgreSQL server that one test has for itself and may crash, start again, and stop where it stands.

use std::env;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use diesel::{Connection as _, PgConnection};
use latchkey::random;
use rustix::process::{Pid, Signal, kill_process};

use super::postgres::{self, Cluster};
use super::wait::within;

/// What is committed survives a crash of the server, though not one of the machine.
const SETTINGS: &[&str] = &["fsync=off", "shared_buffers=64MB"];
const PATIENCE: Duration = Duration::from_secs(30);

pub struct OwnPostgres {
    /// The server that was started after the first one had crashed.
    again: Option<Child>,
    cluster: Cluster,
    _parent: Folder,
}

impl OwnPostgres {
    /// `None` where it is not installed.
    pub fn start() -> Option<Self> {
        // Says so, and fails in CI, where it is missing.
        postgres::cluster()?;
        let parent = env::temp_dir().join(format!("latchkey-own-{}", random::id()));
        fs::create_dir(&parent).unwrap();
        // Open to the account that the server runs under.
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o755)).unwrap();
        let cluster = postgres::start(&parent, SETTINGS).unwrap();
        Some(Self {
            again: None,
            cluster,
            _parent: Folder(parent),
        })
    }

    /// Where its socket is.
    pub fn directory(&self) -> &Path {
        &self.cluster.directory
    }

    pub fn create_database(&self) -> String {
        self.cluster.create_database(None)
    }

    /// Ends the server as `pg_ctl stop -m immediate` does: no goodbye to anybody, and a recovery at the next start.
    pub fn crash(&mut self) {
        let server = self.server();
        kill_process(server, Signal::QUIT).unwrap();
        within(PATIENCE, "PostgreSQL ends", || {
            if let Some(again) = &mut self.again {
                again.try_wait().unwrap();
            }
            (!is_running(server)).then_some(())
        });
        self.again = None;
    }

    /// Starts it again on the same files.
    pub fn start_again(&mut self) {
        let directory = &self.cluster.directory;
        let binary = postgres::find("postgres").unwrap();
        let started = as_owner_of(directory, &binary)
            .arg("-D")
            .arg(directory.join("data"))
            .arg("-k")
            .arg(directory)
            .args(["-c", "listen_addresses=", "-c", postgres::MOST_CONNECTIONS])
            .args(SETTINGS.iter().flat_map(|setting| ["-c", setting]))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        self.again = Some(started.unwrap());
        let url = format!(
            "postgres://postgres@localhost/postgres?host={}",
            directory.display()
        );
        within(PATIENCE, "PostgreSQL answers again", || {
            PgConnection::establish(&url).ok()
        });
    }

    /// Stops every process of it where it stands: connections stay open, and nobody answers on them.
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, signal: Signal) {
        let server = self.server();
        for process in children_of(server).into_iter().chain([server]) {
            // One that ended in this very moment needs no signal.
            let _gone = kill_process(process, signal);
        }
    }

    fn server(&self) -> Pid {
        let text = fs::read_to_string(self.cluster.directory.join("data/postmaster.pid")).unwrap();
        Pid::from_raw(text.lines().next().unwrap().parse().unwrap()).unwrap()
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        // A test that failed may have left it standing still, and then it would hear nothing.
        if self.cluster.directory.join("data/postmaster.pid").exists() {
            self.thaw();
        }
        if let Some(mut again) = self.again.take() {
            let _gone = kill_process(Pid::from_child(&again), Signal::QUIT);
            let _status = again.wait();
        }
    }
}

/// Goes after the server whose files lie in it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _not_empty = fs::remove_dir_all(&self.0);
    }
}

/// PostgreSQL refuses to run as root.
pub fn as_owner_of(directory: &Path, program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let owner = fs::metadata(directory).unwrap();
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={}", owner.uid()))
        .arg(format!("--regid={}", owner.gid()))
        .args(["--clear-groups", "--"])
        .arg(program);
    command
}

fn is_running(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    // A zombie has ended; only its parent has not looked yet.
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

fn children_of(parent: Pid) -> Vec<Pid> {
    let parent = parent.as_raw_nonzero().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| {
            let id: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let is_child = stat.rsplit(')').next()?.split_whitespace().nth(1)? == parent;
            Pid::from_raw(id).filter(|_| is_child)
        })
        .collect()
}
