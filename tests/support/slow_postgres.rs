//! A network in which every answer of PostgreSQL takes its time.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::postgres;
use super::wait::pause;

/// Serves until the test process ends.
pub struct SlowPostgres {
    port: u16,
    delay_ms: Arc<AtomicU64>,
}

impl SlowPostgres {
    /// `None` where PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        let socket = postgres::cluster()?.directory.join(".s.PGSQL.5432");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let delay_ms = Arc::new(AtomicU64::new(0));
        let delay = Arc::clone(&delay_ms);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                serve(client, &socket, &delay);
            }
        });
        Some(Self { port, delay_ms })
    }

    pub fn delay_each_answer(&self, delay: Duration) {
        let milliseconds = u64::try_from(delay.as_millis()).unwrap();
        self.delay_ms.store(milliseconds, Ordering::SeqCst);
    }

    /// A new database, as a server reaches it through here.
    pub fn create_database(&self) -> String {
        let url = postgres::cluster().unwrap().create_database(None);
        let name = url.split('?').next().unwrap().rsplit('/').next().unwrap();
        let port = self.port;
        format!("postgres://postgres@127.0.0.1:{port}/{name}?sslmode=disable")
    }
}

fn serve(client: TcpStream, socket: &PathBuf, delay: &Arc<AtomicU64>) {
    let Ok(server) = UnixStream::connect(socket) else {
        return;
    };
    let (mut asking, mut asked) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        let _broken = io::copy(&mut asking, &mut asked);
        let _gone = asked.shutdown(std::net::Shutdown::Write);
    });
    let delay = Arc::clone(delay);
    thread::spawn(move || {
        let (mut client, mut server) = (client, server);
        let mut bytes = [0; 64 * 1024];
        while let Ok(length @ 1..) = server.read(&mut bytes) {
            pause(Duration::from_millis(delay.load(Ordering::SeqCst)));
            if client.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        let _gone = client.shutdown(std::net::Shutdown::Both);
    });
}
