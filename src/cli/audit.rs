//! `latchkey audit …`.

use std::io::Write;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::failure::Failure;
use super::output;
use crate::config::Config;
use crate::startup;
use crate::store::audit_events::{self, Recorded};

/// Events that are read at a time: an export of a year must not need a year's memory.
const PAGE: i64 = 1000;

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Print all events, oldest first, one JSON object a line.
    Export,
}

pub(super) fn run(config: &Config, verb: Verb, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Export => export(config, out),
    }
}

fn export(config: &Config, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let store = startup::open(config, false)?.store;
    let mut behind = None;
    loop {
        let from = behind.take();
        let page =
            store.read_blocking(move |conn| audit_events::list(conn, from.as_ref(), PAGE))?;
        let Some(last) = page.last() else {
            return Ok(ExitCode::SUCCESS);
        };
        behind = Some((last.time, last.id.clone()));
        for event in &page {
            output::object(out, &describe(event))?;
        }
    }
}

pub(super) fn describe(event: &Recorded) -> Value {
    json!({
        "id": event.id,
        "time": output::time(event.time),
        "event": event.event,
        "actor": event.actor,
        "target": event.target,
        "client_id": event.client_id,
        "address": event.address,
        "request_id": event.request_id,
        "detail": event.detail,
    })
}
