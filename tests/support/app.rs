//! An app at an origin of its own, for real browsers: it shows what the answer brought.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use super::webdriver::Chromium;

const PAGE: &str = "<!doctype html><html lang=en><title>The app</title><link rel=icon href=data:,><h1 id=app>Back in the app</h1>";

/// Serves until the test process ends.
pub struct App {
    pub redirect_uri: String,
    arrivals: Receiver<Arrival>,
}

/// A request to the redirect URI.
#[derive(Debug)]
pub struct Arrival {
    pub method: String,
    pub parameters: BTreeMap<String, String>,
    pub headers: BTreeMap<String, String>,
}

impl App {
    /// At 127.0.0.1, which for a browser is another site than the server's localhost.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let redirect_uri = format!("http://{}/callback", listener.local_addr().unwrap());
        let (sender, arrivals) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sender = sender.clone();
                // Browsers open connections in advance, so one that is silent must not hold up the others.
                std::thread::spawn(move || {
                    if let Some(arrival) = answer(&stream) {
                        let _test_is_over = sender.send(arrival);
                    }
                });
            }
        });
        Self {
            redirect_uri,
            arrivals,
        }
    }

    /// Waits until the browser is back with an answer.
    pub fn arrival(&self, browser: &Chromium) -> Arrival {
        browser.wait_for("#app");
        self.next()
    }

    /// Waits for an answer.
    pub fn next(&self) -> Arrival {
        self.arrivals
            .recv_timeout(Duration::from_secs(20))
            .expect("the browser brought an answer")
    }
}

fn answer(mut stream: &TcpStream) -> Option<Arrival> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{PAGE}",
        PAGE.len()
    )
    .ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let parameters = [query.as_bytes(), &body]
        .into_iter()
        .flat_map(|part| {
            url::form_urlencoded::parse(part)
                .into_owned()
                .collect::<Vec<_>>()
        })
        .collect();
    (path == "/callback").then_some(Arrival {
        method,
        parameters,
        headers,
    })
}
