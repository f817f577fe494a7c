//! A way to a PostgreSQL over TCP, and what may happen on it: it is slow, nothing gets through any more, or it is cut.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::postgres::SOCKET;
use super::wait::pause;

/// Whoever speaks to it speaks to the server behind it; it is there until it is dropped.
pub struct Way {
    port: u16,
    road: Arc<Road>,
    accepting: Option<JoinHandle<()>>,
}

/// What all connections share.
struct Road {
    server: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_open: bool,
    is_blocked: bool,
    /// The next message to the server that has this in it does not come through for now.
    held: Option<Held>,
    /// How late each answer of the server comes.
    delay: Duration,
    /// Connections of earlier ones carry nothing any more.
    generation: u32,
    /// What may have to be cut.
    connections: Vec<(TcpStream, UnixStream)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Next(&'static str),
    Now,
}

impl Way {
    /// To the server whose socket is in this folder.
    pub fn to(directory: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut way = Self {
            port: listener.local_addr().unwrap().port(),
            road: Arc::new(Road {
                server: directory.join(SOCKET),
                state: Mutex::default(),
                changed: Condvar::new(),
            }),
            accepting: None,
        };
        way.accept(listener);
        way
    }

    /// The same database by this way.
    pub fn url(&self, direct: &str) -> String {
        url_of(direct, &[self], "")
    }

    /// Each answer of the server comes so much later.
    pub fn delay_by(&self, delay: Duration) {
        self.road.lock().delay = delay;
    }

    /// Nothing gets through, in neither direction; connections stay, and new ones can be made.
    pub fn block(&self) {
        self.road.lock().is_blocked = true;
    }

    /// What is open stays open, and whatever is sent on it is taken and goes nowhere, for ever; what is opened from now on
    /// leads there.
    pub fn fall_silent(&self) {
        self.road.lock().generation += 1;
    }

    /// What was held up goes on.
    pub fn unblock(&self) {
        self.road.lock().is_blocked = false;
        self.road.changed.notify_all();
    }

    /// The next message to the server with this text in it gets stuck, and its connection with it; no other does.
    pub fn hold_next(&self, text: &'static str) {
        self.road.lock().held = Some(Held::Next(text));
    }

    /// What got stuck goes on.
    pub fn release(&self) {
        let held = self.road.lock().held.take();
        assert!(held == Some(Held::Now), "nothing got stuck");
        self.road.changed.notify_all();
    }

    /// Ends every connection, and refuses each that comes.
    pub fn cut(&mut self) {
        let connections = {
            let mut state = self.road.lock();
            (state.is_open, state.is_blocked, state.held) = (false, false, None);
            std::mem::take(&mut state.connections)
        };
        self.road.changed.notify_all();
        // Whoever waits for one sees that there is none to wait for.
        let _refused = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap();
        }
        for (client, server) in connections {
            client.end();
            server.end();
        }
    }

    /// Takes connections again.
    pub fn open_again(&mut self) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        self.accept(TcpListener::bind(address).unwrap());
    }

    fn accept(&mut self, listener: TcpListener) {
        self.road.lock().is_open = true;
        let road = Arc::clone(&self.road);
        self.accepting = Some(thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if !road.lock().is_open {
                    return;
                }
                road.join(client);
            }
        }));
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.cut();
    }
}

/// A database by several ways, of which libpq takes the first that leads there.
pub fn url_of(direct: &str, ways: &[&Way], more: &str) -> String {
    let (base, _) = direct.split_once("?host=").unwrap();
    let hosts: Vec<_> = ways
        .iter()
        .map(|way| format!("127.0.0.1:{}", way.port))
        .collect();
    format!("{}{more}", base.replace("localhost", &hosts.join(",")))
}

impl Road {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn join(self: &Arc<Self>, client: TcpStream) {
        // Whether it lives shows when somebody speaks to it.
        let Ok(server) = UnixStream::connect(&self.server) else {
            return;
        };
        let both = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let back = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let generation = {
            let mut state = self.lock();
            state.connections.push(both);
            state.generation
        };
        let road = Arc::clone(self);
        thread::spawn(move || road.carry(&client, &server, generation, false));
        let road = Arc::clone(self);
        thread::spawn(move || road.carry(&back.1, &back.0, generation, true));
    }

    fn carry<'a, F, T>(&self, mut from: &'a F, mut to: &'a T, generation: u32, is_answer: bool)
    where
        &'a F: Read,
        &'a T: Write,
        F: Stream,
        T: Stream,
    {
        let mut chunk = [0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut chunk) {
            if is_answer {
                let delay = self.lock().delay;
                pause(delay);
            } else {
                self.hold(&chunk[..read]);
            }
            let blocked = self.lock();
            let state = self.changed.wait_while(blocked, |state| state.is_blocked);
            if state.unwrap().generation != generation {
                continue;
            }
            if to.write_all(&chunk[..read]).is_err() {
                break;
            }
        }
        from.end();
        to.end();
    }
}

impl Road {
    fn hold(&self, message: &[u8]) {
        let mut state = self.lock();
        if let Some(Held::Next(text)) = state.held
            && String::from_utf8_lossy(message).contains(text)
        {
            state.held = Some(Held::Now);
            drop(self.changed.wait_while(state, |state| state.held.is_some()));
        }
    }
}

trait Stream {
    fn end(&self);
}

impl Stream for TcpStream {
    fn end(&self) {
        let _ended_before = self.shutdown(Shutdown::Both);
    }
}

impl Stream for UnixStream {
    fn end(&self) {
        let _ended_before = self.shutdown(Shutdown::Both);
    }
}
