//! `PgBouncer` in transaction mode in front of the tests' PostgreSQL: each transaction may meet another session.

use std::env;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use std::os::unix::fs::MetadataExt as _;

use diesel::{Connection as _, PgConnection};
use latchkey::random;

use super::op::free_port;
use super::own_postgres::as_owner_of;
use super::postgres;
use super::wait::within;

pub struct PgBouncer {
    process: Child,
    port: u16,
    folder: PathBuf,
}

impl PgBouncer {
    /// With so few sessions that they are shared from the first moment. `None` where it is not installed.
    pub fn start() -> Option<Self> {
        let cluster = postgres::cluster()?;
        let binary = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"]
            .map(Path::new)
            .into_iter()
            .find(|path| path.exists());
        let Some(binary) = binary else {
            assert!(env::var_os("CI").is_none(), "PgBouncer is not installed");
            eprintln!("left out: PgBouncer is not installed");
            return None;
        };
        // It is the same account's, so that it may use PostgreSQL's socket.
        let folder = cluster.directory.join(format!("bouncer-{}", random::id()));
        fs::create_dir(&folder).unwrap();
        let port = free_port();
        let config = format!(
            "[databases]\n* = host={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 3\nmax_client_conn = 300\n",
            cluster.directory.display()
        );
        let file = folder.join("pgbouncer.ini");
        fs::write(&file, config).unwrap();
        let owner = fs::metadata(&cluster.directory).unwrap();
        for path in [&folder, &file] {
            chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let process = as_owner_of(&cluster.directory, binary)
            .arg(&file)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let bouncer = Self {
            process,
            port,
            folder,
        };
        let url = bouncer.url_of("postgres");
        within(Duration::from_secs(30), "PgBouncer answers", || {
            PgConnection::establish(&url).ok()
        });
        Some(bouncer)
    }

    /// A new database, as a server reaches it through here.
    pub fn create_database(&self) -> String {
        let url = postgres::cluster().unwrap().create_database(None);
        let name = url.split('?').next().unwrap().rsplit('/').next().unwrap();
        format!("{}?prepared_statements=off", self.url_of(name))
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ended_before = self.process.kill();
        let _status = self.process.wait();
        let _not_empty = fs::remove_dir_all(&self.folder);
    }
}
