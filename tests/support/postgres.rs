//! A throw-away PostgreSQL for the tests of this process: started at first use, gone when the process ends.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};

/// The name of a server's socket in its folder.
pub const SOCKET: &str = ".s.PGSQL.5432";
/// How many connections all tests together may have.
pub const MOST_CONNECTIONS: &str = "max_connections=300";

/// Makes tests quick: nothing has to outlive this process, let alone a power failure.
const FOR_TESTS: &[&str] = &[
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "shared_buffers=64MB",
    "autovacuum=off",
];

/// A running server.
pub struct Cluster {
    /// Of its files and of its socket.
    pub directory: PathBuf,
    databases: AtomicU32,
    // The watchdog's standard input: when this process ends, however it ends, the pipe closes and the server stops.
    watchdog: Child,
}

/// The server of this test process, or `None` (and a line on standard error) where PostgreSQL is not installed.
pub fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    CLUSTER
        .get_or_init(|| match start(&env::temp_dir(), FOR_TESTS) {
            Ok(cluster) => Some(cluster),
            // In CI a missing database would go unnoticed for ever.
            Err(reason) if env::var_os("CI").is_some() => panic!("no PostgreSQL: {reason}"),
            Err(reason) => {
                eprintln!("tests on PostgreSQL are left out: {reason}");
                None
            }
        })
        .as_ref()
}

impl Cluster {
    /// Creates a database, as a copy of another when that is named (to which nobody may be connected), and answers its URL.
    pub fn create_database(&self, template: Option<&str>) -> String {
        let template = template.map_or("template1", database_name);
        self.create(&format!("TEMPLATE {template}"))
    }

    /// Creates one that puts texts in the order of a dictionary.
    pub fn create_database_in_english(&self) -> String {
        self.create("TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US' ENCODING 'UTF8'")
    }

    fn create(&self, options: &str) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        let mut connection =
            PgConnection::establish(&self.url("postgres")).expect("the cluster runs");
        connection
            .batch_execute(&format!("CREATE DATABASE {name} {options}"))
            .expect("a database can be created");
        self.url(&name)
    }

    fn url(&self, database: &str) -> String {
        format!(
            "postgres://postgres@localhost/{database}?host={}",
            self.directory.display()
        )
    }
}

/// The tests' own server lives as long as their process; of any other the files are gone when this returns.
impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _gone_before = self.watchdog.wait();
    }
}

/// Accepts a name, or a URL that `create_database` answered.
fn database_name(template: &str) -> &str {
    let path = template.split('?').next().unwrap_or(template);
    path.rsplit('/').next().unwrap_or(path)
}

/// Starts a server with settings of one's own, its files in a new directory below `parent`.
pub fn start(parent: &Path, settings: &[&str]) -> Result<Cluster, String> {
    start_with(parent, settings, &[])
}

/// The same with variables of its own.
pub fn start_with(
    parent: &Path,
    settings: &[&str],
    variables: &[(&str, &str)],
) -> Result<Cluster, String> {
    let initdb = find("initdb").ok_or("initdb was not found (install the PostgreSQL server)")?;
    let postgres = initdb.with_file_name("postgres");
    let directory = parent.join(format!("latchkey-postgres-{}", std::process::id()));
    // One left behind by a killed process with the same number.
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let account = other_account(&directory)?;
    let data = directory.join("data");

    let output = as_account(&account, &initdb)
        .args([
            "--no-sync",
            "--no-locale",
            "--encoding=UTF8",
            "--auth=trust",
        ])
        .args(["--username=postgres", "--pgdata"])
        .arg(&data)
        .current_dir(&directory)
        .output()
        .map_err(|error| format!("initdb did not start: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "initdb failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }

    // The shell starts the server, waits until its input closes, and then stops the server and removes its files. Its own
    // process group keeps an interrupt at the keyboard from ending it before that.
    let script = r#"
        postgres=$1; data=$2; directory=$3; shift 3
        "$postgres" -D "$data" -k "$directory" -c listen_addresses= "$@" \
            </dev/null >"$directory/log" 2>&1 &
        echo started
        cat >/dev/null
        kill -QUIT $!
        wait
        rm -rf "$directory" 2>/dev/null || rm -rf "$data" "$directory"/* 2>/dev/null
    "#;
    let mut watchdog = as_account(&account, Path::new("sh"))
        .args(["-c", script, "sh"])
        .arg(&postgres)
        .arg(&data)
        .arg(&directory)
        .args(["-c", MOST_CONNECTIONS])
        .args(settings.iter().flat_map(|setting| ["-c", setting]))
        .envs(variables.iter().copied())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("sh did not start: {error}"))?;
    if let Some(output) = watchdog.stdout.take() {
        let _ = BufReader::new(output).read_line(&mut String::new());
    }
    let cluster = Cluster {
        directory,
        databases: AtomicU32::new(0),
        watchdog,
    };
    wait_until_it_answers(&cluster)?;
    Ok(cluster)
}

fn wait_until_it_answers(cluster: &Cluster) -> Result<(), String> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match PgConnection::establish(&cluster.url("postgres")) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > until => {
                let log = fs::read_to_string(cluster.directory.join("log"));
                return Err(format!("{error}; its log: {}", log.unwrap_or_default()));
            }
            Err(_) => std::thread::park_timeout(Duration::from_millis(20)),
        }
    }
}

/// PostgreSQL refuses to run as root, so root hands the directory to an account that can do nothing else.
fn other_account(directory: &Path) -> Result<Option<String>, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let accounts = fs::read_to_string("/etc/passwd").map_err(|error| error.to_string())?;
    for name in ["postgres", "nobody"] {
        let Some(line) = accounts
            .lines()
            .find(|l| l.starts_with(&format!("{name}:")))
        else {
            continue;
        };
        let ids: Vec<u32> = line
            .split(':')
            .filter_map(|field| field.parse().ok())
            .collect();
        let [uid, gid, ..] = ids[..] else { continue };
        std::os::unix::fs::chown(directory, Some(uid), Some(gid)).map_err(|e| e.to_string())?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
            .map_err(|e| e.to_string())?;
        return Ok(Some(name.to_owned()));
    }
    Err("this is root, and there is no account postgres or nobody to run it as".to_owned())
}

fn as_account(account: &Option<String>, program: &Path) -> Command {
    let Some(name) = account else {
        return Command::new(program);
    };
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid",
            name,
            "--regid",
            group_of(name),
            "--clear-groups",
            "--",
        ])
        .arg(program);
    command
}

fn group_of(name: &str) -> &str {
    // Debian's nobody has the group nogroup; elsewhere both have the same name.
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    if groups
        .lines()
        .any(|line| line.starts_with(&format!("{name}:")))
    {
        name
    } else {
        "nogroup"
    }
}

/// A program of the newest PostgreSQL server that is installed.
pub fn find(program: &str) -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    // The newest first.
    versions.sort_by_key(|path| {
        let version = path
            .parent()
            .and_then(|p| p.file_name()?.to_str()?.parse::<u32>().ok());
        std::cmp::Reverse(version)
    });
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(versions)
        .map(|directory| directory.join(program))
        .filter_map(|file| fs::canonicalize(file).ok())
        .find(|file| file.is_file() && file.with_file_name("postgres").is_file())
}
