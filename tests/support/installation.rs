//! The real binary: server processes on one database, which can be killed, and commands beside them.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use latchkey::config::DatabaseUrl;
use latchkey::store::{Options, Store};
use serde_json::Value;
use tempfile::TempDir;

use super::op::{Database, free_port};
use super::postgres;
use super::resources;
use super::wait::within;

/// The root key of every installation.
pub const SECRET_KEY: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
/// A debug build on a busy machine takes its time to start; a server that hangs takes longer.
const START: Duration = Duration::from_secs(60);

/// A configuration, and the database behind it.
pub struct Installation {
    pub issuer: String,
    port: u16,
    database: DatabaseUrl,
    directory: TempDir,
}

/// A server process; it ends with the test.
pub struct Process {
    /// Where it listens itself; the issuer is the same for all.
    pub url: String,
    child: Child,
    log: PathBuf,
    /// The listener for the operator.
    management: PathBuf,
}

impl Installation {
    pub fn new(database: Database) -> Self {
        match database {
            Database::Sqlite => {
                let directory = TempDir::new().unwrap();
                let file = directory.path().join("latchkey.db");
                let url = format!("sqlite://{}", file.display());
                Self::on(directory, DatabaseUrl::Sqlite(file), &url)
            }
            Database::Postgres => {
                let cluster = postgres::cluster().expect("PostgreSQL runs");
                Self::on_postgres(cluster.create_database(None))
            }
        }
    }

    /// With the SQLite file in a folder of its own, such as a small disk.
    pub fn in_folder(folder: &Path) -> Self {
        let file = folder.join("latchkey.db");
        let url = format!("sqlite://{}", file.display());
        Self::on(TempDir::new().unwrap(), DatabaseUrl::Sqlite(file), &url)
    }

    /// On a database of a server that the test has for itself.
    pub fn on_postgres(url: String) -> Self {
        let database = DatabaseUrl::Postgres(url.clone());
        Self::on(TempDir::new().unwrap(), database, &url)
    }

    fn on(directory: TempDir, database: DatabaseUrl, url: &str) -> Self {
        let port = free_port();
        let issuer = format!("http://localhost:{port}");
        // Hashing is somebody else's subject.
        let config = format!(
            "issuer = \"{issuer}\"\ndatabase.url = \"{url}\"\nsecret_key = \"{SECRET_KEY}\"\n\
             password = {{ memory_kib = 7168, iterations = 1 }}\n"
        );
        let file = directory.path().join("latchkey.toml");
        fs::write(&file, config).unwrap();
        // The secret key is in it.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        Self {
            issuer,
            port,
            database,
            directory,
        }
    }

    /// With a proxy in front, at whose address people open it.
    pub fn behind(issuer: &str, settings: &str) -> Self {
        let installation = Self::new(Database::Sqlite);
        let file = installation.path("latchkey.toml");
        let config = fs::read_to_string(&file).unwrap();
        let config = config.replace(&installation.issuer, issuer);
        fs::write(file, format!("{settings}\n{config}")).unwrap();
        Self {
            issuer: issuer.to_owned(),
            ..installation
        }
    }

    /// Where the server listens itself.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its database is.
    pub fn database(&self) -> &DatabaseUrl {
        &self.database
    }

    /// Starts the server that listens where the issuer is.
    pub fn start(&self) -> Process {
        let mut process = self.launch(self.port);
        process.wait_until_ready();
        process
    }

    /// The same with variables of the test's own.
    pub fn start_with(&self, variables: &[(&str, &str)]) -> Process {
        let mut process = self.launch_by(&[], self.port, variables);
        process.wait_until_ready();
        process
    }

    /// The same, which may have so many files and connections open.
    pub fn start_with_files(&self, most: u32) -> Process {
        let limited = format!("ulimit -n {most}; exec \"$0\" \"$@\"");
        let mut process = self.launch_by(&["sh", "-c", &limited], self.port, &[]);
        process.wait_until_ready();
        process
    }

    /// The same, with a log on a disk that is full.
    pub fn start_with_a_full_log(&self) -> Process {
        let full = "exec \"$0\" \"$@\" 2>/dev/full";
        let mut process = self.launch_by(&["sh", "-c", full], self.port, &[]);
        process.wait_until_ready();
        process
    }

    /// The same, which has so many files until it asks for more.
    pub fn start_with_files_at_first(&self, most: u32) -> Process {
        let limited = format!("ulimit -S -n {most}; exec \"$0\" \"$@\"");
        let mut process = self.launch_by(&["sh", "-c", &limited], self.port, &[]);
        process.wait_until_ready();
        process
    }

    /// The same, for whom modes of files count even if this is root.
    pub fn start_without_privileges(&self) -> Process {
        let by: &[&str] = if rustix::process::geteuid().is_root() {
            let without = "--bounding-set=-dac_override,-dac_read_search";
            &["setpriv", without, "--"]
        } else {
            &[]
        };
        let mut process = self.launch_by(by, self.port, &[]);
        process.wait_until_ready();
        process
    }

    /// Starts one more, at a port of its own.
    pub fn start_another(&self) -> Process {
        let mut process = self.launch(free_port());
        process.wait_until_ready();
        process
    }

    /// Starts a server without waiting for it.
    pub fn launch(&self, port: u16) -> Process {
        self.launch_by(&[], port, &[])
    }

    /// Starts a development server where the issuer is. It reads no configuration and has a database of its own.
    pub fn start_development(&self) -> Process {
        let (port, folder) = (self.port.to_string(), self.path("development"));
        let folder = folder.to_str().unwrap();
        let binary = env!("CARGO_BIN_EXE_latchkey");
        let line = [binary, "dev", "--port", &port, "--data-dir", folder];
        let mut process = self.launch_line(&line, self.port, &[]);
        process.wait_until_ready();
        process
    }

    /// Starts a server by another program, which is told the rest of its command line.
    fn launch_by(&self, program: &[&str], port: u16, variables: &[(&str, &str)]) -> Process {
        let line = [program, &[env!("CARGO_BIN_EXE_latchkey"), "serve"]].concat();
        self.launch_line(&line, port, variables)
    }

    fn launch_line(&self, line: &[&str], port: u16, variables: &[(&str, &str)]) -> Process {
        let log = self.directory.path().join(format!("{port}.log"));
        let file = OpenOptions::new().append(true).create(true).open(&log);
        let socket = self.directory.path().join(format!("{port}.sock"));
        let (program, arguments) = line.split_first().expect("there is a program");
        let child = Command::new(program)
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .env("LATCHKEY_LISTEN", format!("127.0.0.1:{port}"))
            // All of a test's browsers and apps have one address.
            .env("LATCHKEY_THROTTLE__ADDRESS_REQUESTS", "0")
            .env(
                "LATCHKEY_MANAGEMENT__LISTEN",
                format!("unix:{}", socket.display()),
            )
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file.unwrap())
            .spawn()
            .unwrap();
        Process {
            url: format!("http://127.0.0.1:{port}"),
            child,
            log,
            management: socket,
        }
    }

    /// Applies a seed by the command, beside whatever serves.
    pub fn apply(&self, seed: &Value) {
        let mut child = self
            .command(&["apply", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(seed.to_string().as_bytes()).unwrap();
        drop(input);
        let mut problems = String::new();
        let mut errors = child.stderr.take().unwrap();
        errors.read_to_string(&mut problems).unwrap();
        assert!(child.wait().unwrap().success(), "{problems}");
    }

    /// The database, as a command opens it. Nobody should keep it open while a server is killed: with SQLite's last user
    /// gone, the next start has to recover.
    pub fn store(&self) -> Store {
        Store::open(&self.database, Options::default()).unwrap()
    }

    /// Runs a command that succeeds.
    pub fn run(&self, arguments: &[&str]) {
        let done = self.command(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{arguments:?}: {said}");
    }

    /// What a command that succeeds prints as JSON.
    pub fn objects(&self, arguments: &[&str]) -> Vec<Value> {
        let done = self
            .command(arguments)
            .args(["--output", "json"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{arguments:?}: {said}");
        let objects = serde_json::Deserializer::from_slice(&done.stdout).into_iter();
        objects.collect::<Result<_, _>>().unwrap()
    }

    /// How a command ends and what it prints.
    pub fn answer(&self, arguments: &[&str]) -> (i32, String) {
        let done = self.command(arguments).output().unwrap();
        let printed = String::from_utf8(done.stdout).unwrap();
        (done.status.code().unwrap(), printed)
    }

    /// The same with one variable more.
    pub fn answer_with(&self, arguments: &[&str], variable: &str, value: &str) -> (i32, String) {
        let done = self
            .command(arguments)
            .env(variable, value)
            .output()
            .unwrap();
        let printed = String::from_utf8(done.stdout).unwrap();
        (done.status.code().unwrap(), printed)
    }

    /// What a command that succeeds writes to standard error, with one variable more.
    pub fn errors_with(&self, arguments: &[&str], variable: &str, value: &str) -> String {
        let mut command = self.command(arguments);
        let done = command.env(variable, value).output().unwrap();
        assert!(done.status.success(), "{arguments:?}");
        String::from_utf8(done.stderr).unwrap()
    }

    /// How a command ends whose output nobody reads, and what it writes to standard error.
    pub fn unheard(&self, arguments: &[&str]) -> (i32, String) {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = self.command(arguments);
        let done = command.stdout(writer).stderr(Stdio::piped()).spawn();
        let done = done.unwrap().wait_with_output().unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        (done.status.code().unwrap(), said)
    }

    /// What a command that is refused says.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let done = self.command(arguments).output().unwrap();
        assert_eq!(done.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(done.stderr).unwrap()
    }

    /// The same with one variable more.
    pub fn refused_with(&self, arguments: &[&str], variable: &str, value: &str) -> String {
        let done = self
            .command(arguments)
            .env(variable, value)
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(done.stderr).unwrap()
    }

    /// Begins a command.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// Begins a command that waits for a line.
    pub fn typing(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// A file beside the configuration.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear();
        command
    }
}

impl Process {
    pub fn wait_until_ready(&mut self) {
        let ready = format!("{}/readyz", self.url);
        within(START, "the server is ready", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended with {status}: {}", self.log());
            }
            let answer = reqwest::blocking::get(&ready).ok()?;
            answer.status().is_success().then_some(())
        });
    }

    /// What the listener for the operator says.
    pub fn management(&self, path: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(&self.management)?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Tells it something, by name (`-TERM`).
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let told = Command::new("kill").args([name, &id]).status().unwrap();
        assert!(told.success());
    }

    /// Waits until it has ended, and answers its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let ended = within(START, "the server ends", || self.child.try_wait().unwrap());
        ended.code()
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// From now on it gets no more memory than it has.
    pub fn allow_no_more_memory(&self) {
        let [size, data] =
            ["VmSize:", "VmData:"].map(|line| resources::status_kib(self.id(), line) * 1024);
        let limited = Command::new("prlimit")
            .args(["--pid", &self.id().to_string()])
            .args([format!("--as={size}"), format!("--data={data}")])
            .status();
        assert!(limited.unwrap().success());
    }

    /// As a power failure would end it: SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens, as `host:port`.
    pub fn host(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// How much memory it has in use.
    pub fn resident_kib(&self) -> u64 {
        resources::resident_kib(self.id())
    }

    /// How much of the processors it has used so far.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name before it is in parentheses; a tick is a hundredth of a second on every machine in use.
        let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11..=12]
            .iter()
            .map(|ticks| ticks.parse::<u64>().unwrap())
            .sum();
        Duration::from_millis(ticks * 10)
    }

    /// How many files and connections it has open.
    pub fn open_files(&self) -> usize {
        resources::open_files(self.id())
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        threads.unwrap().count()
    }

    /// How much it wrote to standard error.
    pub fn log_bytes(&self) -> u64 {
        fs::metadata(&self.log).unwrap().len()
    }

    /// What it wrote to standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

/// What lies in a folder.
pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _status = self.child.wait();
    }
}
