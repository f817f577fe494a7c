//! The real program, as an operator would start it: `apply`, then `serve`, in a directory of its own.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Outcome;
use crate::http::{self, Connection};
use crate::process::{self, pause};

pub(crate) const CALLBACK: &str = "https://app.example/callback";
pub(crate) const PASSWORD: &str = "a-lantern-over-quiet-water";
pub(crate) const SECRET: &str = "a-secret-of-more-than-thirty-two-characters";
/// An app whose ID tokens are signed with ES256, one with RS256 as every app has them by default, and a machine.
pub(crate) const WEB: &str = "web";
pub(crate) const WEB_RS256: &str = "web-rs256";
pub(crate) const MACHINE: &str = "machine";

const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with a configuration. Everything that it does not say is the default, log lines included.
pub(crate) struct Place {
    directory: PathBuf,
    pub(crate) port: u16,
}

/// A running server; it ends with this.
pub(crate) struct Server {
    child: Child,
    /// From the start of the process until it said that it is ready.
    pub(crate) ready_after: Duration,
}

impl Place {
    /// `postgres` is a database's URL; without it the database is a new SQLite file.
    pub(crate) fn new(directory: &Path, postgres: Option<&str>) -> Outcome<Self> {
        fs::create_dir(directory)?;
        // Below the range from which the system takes the ports of outgoing connections.
        let port = (18_080..19_080)
            .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
            .ok_or("no port is free")?;
        let mut config = format!(
            "issuer = \"http://localhost:{port}\"\nlisten = \"127.0.0.1:{port}\"\n\
             management.listen = \"127.0.0.1:0\"\n\
             throttle.address_failures = 100000 # everybody signs in from here\n\
             throttle.address_requests = 0\n"
        );
        if let Some(url) = postgres {
            let key = "5a".repeat(32);
            config.push_str(&format!(
                "database.url = \"{url}\"\nsecret_key = \"{key}\"\n"
            ));
        }
        fs::write(directory.join("latchkey.toml"), config)?;
        let directory = directory.to_owned();
        Ok(Self { directory, port })
    }

    /// People, one for each worker, and the three clients.
    pub(crate) fn seed(&self, people: usize) -> Outcome<()> {
        let hash = password_hash()?;
        let users: Vec<Value> = (0..people)
            .map(|number| {
                let name = format!("Person {number}");
                json!({ "email": email(number), "password_hash": hash, "email_verified": true, "claims": { "name": name } })
            })
            .collect();
        let app = |id: &str, algorithm: &str| {
            json!({
                "client_id": id, "client_secret": SECRET, "redirect_uris": [CALLBACK], "skip_consent": true,
                "grant_types": ["authorization_code", "refresh_token"], "id_token_signed_response_alg": algorithm
            })
        };
        let machine = json!({
            "client_id": MACHINE, "client_secret": SECRET, "redirect_uris": [], "grant_types": ["client_credentials"],
            "scope": "orders", "allowed_resources": ["https://orders.example/"]
        });
        let clients = json!([app(WEB, "ES256"), app(WEB_RS256, "RS256"), machine]);
        fs::write(
            self.directory.join("seed.json"),
            json!({ "users": users, "clients": clients }).to_string(),
        )?;
        let output = self.command(&["apply", "seed.json"]).output()?;
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("apply: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
        }
    }

    /// Starts the server and waits until it is ready.
    pub(crate) fn serve(&self) -> Outcome<Server> {
        let began = Instant::now();
        let child = self
            .command(&["serve"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // The lines are written, and nobody keeps them: on the disk they would be in the way of what is measured.
            .stderr(Stdio::null())
            .spawn()?;
        let mut server = Server {
            child,
            ready_after: Duration::ZERO,
        };
        while !self.is_ready() {
            if let Some(status) = server.child.try_wait()? {
                let directory = self.directory.display();
                return Err(format!("`latchkey serve` in {directory} ended with {status}").into());
            }
            if began.elapsed() > PATIENCE {
                return Err("`latchkey serve` does not get ready".into());
            }
            pause(Duration::from_millis(1));
        }
        server.ready_after = began.elapsed();
        Ok(server)
    }

    fn is_ready(&self) -> bool {
        let request = http::get(self.port, "/readyz", &[]);
        Connection::open(self.port).is_ok_and(|mut connection| {
            connection
                .exchange(&request)
                .is_ok_and(|answer| answer.status == 200)
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
        command
            .args(arguments)
            .current_dir(&self.directory)
            // Nobody's own variables change what is measured.
            .env_clear();
        command
    }
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in MiB after a second of rest.
    pub(crate) fn idle_memory(&self) -> Option<f64> {
        pause(Duration::from_secs(1));
        process::memory(self.pid()).map(|(now, _)| now)
    }

    /// Lets it finish, as an operator would.
    pub(crate) fn stop(mut self) -> Outcome<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("`latchkey serve` ended with {status}").into())
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _ended_before = self.child.wait();
    }
}

pub(crate) fn email(number: usize) -> String {
    format!("person-{number}@example.test")
}

/// One for all of them: nobody is to wait for as many hashes as there are people. The product's default settings.
fn password_hash() -> Outcome<String> {
    use latchkey::identity::password::{HashSettings, Password, hash};
    let password = Password::parse(PASSWORD)?;
    Ok(hash(
        &password,
        latchkey::random::bytes(),
        &HashSettings::new(19_456, 2, 1)?,
    )?)
}
