//! Traces by OTLP, where the standard variables ask for them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::support::browser::Browser;
use crate::support::installation::Installation;
use crate::support::op::{CALLBACK, Database, EMAIL, PASSWORD, SECRET, free_port};
use crate::support::relying_party::Rp;
use crate::support::wait::eventually;

/// Takes what comes and answers that it was taken.
struct Collector {
    endpoint: String,
    received: Receiver<(String, Vec<u8>)>,
}

impl Collector {
    fn start() -> Self {
        Self::at(0)
    }

    fn at(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (told, received) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let told = told.clone();
                thread::spawn(move || take(&stream, &told));
            }
        });
        Self { endpoint, received }
    }

    /// All that came until it holds this.
    fn until(&self, wanted: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        eventually("the span arrives", || {
            while let Ok((head, body)) = self.received.recv_timeout(Duration::from_millis(50)) {
                assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
                assert!(
                    head.contains("content-type: application/x-protobuf"),
                    "{head}"
                );
                all.extend(body);
            }
            holds(&all, wanted).then_some(())
        });
        all
    }
}

fn take(stream: &TcpStream, told: &Sender<(String, Vec<u8>)>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        told.send((head, body)).ok()?;
        let mut answering = stream;
        answering
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
            .ok()?;
    }
}

fn holds(all: &[u8], wanted: &[u8]) -> bool {
    all.windows(wanted.len()).any(|part| part == wanted)
}

fn installation() -> (Installation, Rp) {
    let installation = Installation::new(Database::Sqlite);
    installation.apply(&json!({
        "users": [{ "email": EMAIL, "password": PASSWORD }],
        "clients": [{ "client_id": "notes", "client_secret": SECRET, "redirect_uris": [CALLBACK] }]
    }));
    let rp = Rp::new(&installation.issuer).named("notes");
    (installation, rp)
}

#[test]
fn each_request_is_a_span_of_the_trace_that_its_sender_named() {
    let collector = Collector::start();
    let (installation, rp) = installation();
    let server = installation.start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ]);
    let request = rp.http().get(format!("{}/jwks", installation.issuer));
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let answer =
        rp.answer(request.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01")));
    let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
    let spans = collector.until(id.as_bytes());
    let trace: Vec<u8> = (0..16)
        .map(|at| u8::from_str_radix(&trace[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    for wanted in [
        &trace[..],
        b"GET /jwks",
        b"http.route",
        b"http.response.status_code",
        b"latchkey",
        b"service.name",
    ] {
        assert!(holds(&spans, wanted), "{}", String::from_utf8_lossy(wanted));
    }
    assert!(!server.log().contains("\"WARN\""), "{}", server.log());
}

#[test]
fn o3_a_span_holds_no_secret_and_the_last_one_is_sent_before_the_process_ends() {
    let collector = Collector::start();
    let (installation, rp) = installation();
    let mut server = installation.start_with(&[
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            &format!("{}/v1/traces", collector.endpoint),
        ),
        // Nothing is sent before the end.
        ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
    ]);
    let mut browser = Browser::new(&installation.issuer);
    let code = browser
        .complete(&rp.authorize(&[("state", "a-state-nobody-sees")]))
        .code();
    let tokens = rp.exchange(&code, &[]);
    assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
    server.signal("-TERM");
    assert_eq!(server.wait(), Some(0));
    let spans = collector.until(b"GET /userinfo");
    for route in ["GET /authorize", "POST /login", "POST /token"] {
        assert!(holds(&spans, route.as_bytes()), "{route}");
    }
    for secret in [
        &code,
        tokens.access_token(),
        PASSWORD,
        SECRET,
        EMAIL,
        "a-state-nobody-sees",
    ] {
        assert!(!holds(&spans, secret.as_bytes()), "{secret}");
    }
}

#[test]
fn a_method_that_somebody_made_up_names_no_span() {
    let collector = Collector::start();
    let (installation, rp) = installation();
    let _server = installation.start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ]);
    let method = reqwest::Method::from_bytes(b"STRANGER").unwrap();
    let url = format!("{}/jwks", installation.issuer);
    rp.answer(rp.http().request(method, url));
    let spans = collector.until(b"HTTP /jwks");
    assert!(holds(&spans, b"_OTHER") && !holds(&spans, b"STRANGER"));
}

#[test]
fn the_log_says_once_that_traces_cannot_be_sent_and_once_that_they_can_again() {
    let (installation, rp) = installation();
    let port = free_port();
    let server = installation.start_with(&[
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            &format!("http://127.0.0.1:{port}"),
        ),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ]);
    let told = |what: &str| server.log().matches(what).count();
    eventually("the log says so", || {
        rp.get("/jwks");
        (told("traces can't be sent") == 1).then_some(())
    });
    let collector = Collector::at(port);
    eventually("they arrive, and the log says so", || {
        rp.get("/jwks");
        (told("traces can be sent again") == 1).then_some(())
    });
    collector.until(b"GET /jwks");
    assert_eq!(told("traces can't be sent"), 1);
}

#[test]
fn a_collector_that_is_away_is_in_nobodys_way_and_without_the_variables_nothing_is_sent() {
    let (installation, rp) = installation();
    let mut server = installation.start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ]);
    for _ in 0..20 {
        assert_eq!(rp.get("/jwks").status, 200);
    }
    server.signal("-TERM");
    assert_eq!(server.wait(), Some(0));
    let collector = Collector::start();
    for variables in [
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()),
            ("OTEL_SDK_DISABLED", "true"),
        ][..],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()),
            ("OTEL_TRACES_EXPORTER", "none"),
        ],
        &[],
    ] {
        let mut server = installation.start_with(variables);
        assert_eq!(rp.get("/jwks").status, 200);
        server.signal("-TERM");
        assert_eq!(server.wait(), Some(0));
    }
    assert!(collector.received.try_recv().is_err());
}
