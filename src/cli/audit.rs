//! `latchkey audit …`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Subcommand;
use serde_json::{Value, json};

use super::export::write_down;
use super::failure::{Failure, heard_or_not};
use super::output::{self, Format};
use crate::audit::{Event, Kind};
use crate::config::Config;
use crate::startup;
use crate::store::audit_events::{self, Recorded};
use crate::store::audit_seals::{self, Verification};

/// Events that are read at a time: an export of a year must not need a year's memory.
const PAGE: i64 = 1000;

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Print all events, oldest first, one JSON object a line.
    Export,
    /// Find what was changed, added or removed since it was sealed, which a server does every minute.
    Verify {
        /// What an earlier verification printed as its head: nothing that was there then may be gone without a trace.
        // One in 64 begins with a hyphen.
        #[arg(long, value_name = "HEAD", allow_hyphen_values = true)]
        head: Option<Head>,
    },
}

/// The MAC of a seal, as a verification prints it.
#[derive(Clone)]
pub(super) struct Head([u8; 32]);

impl FromStr for Head {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let mac = bytes.and_then(|bytes| bytes.try_into().ok());
        mac.map(Self)
            .ok_or("it is not what a verification printed behind head=")
    }
}

pub(super) fn run(
    config: &Config,
    verb: Verb,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Export => export(config, out),
        Verb::Verify { head } => verify(config, head, format, out),
    }
}

fn export(config: &Config, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let store = startup::open_existing(config, false)?.store;
    write_down(
        &store,
        Event::new(Kind::DataExported).noting("what", "audit_events"),
    );
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

/// Exit code 1 when there is a finding.
fn verify(
    config: &Config,
    kept: Option<Head>,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let opened = startup::open_existing(config, false)?;
    let root = opened.root;
    let found = opened.store.read_blocking(move |conn| {
        let mut found = audit_seals::verify(conn, &root)?;
        if let Some(kept) = kept
            && !audit_seals::contains(conn, &kept.0)?
        {
            let text = "the seal that --head names is gone: it was pruned, or the end was cut off";
            found.findings.push(text.to_owned());
        }
        Ok(found)
    })?;
    heard_or_not(print(&found, format, out))?;
    Ok(if found.findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(found: &Verification, format: Format, out: &mut dyn Write) -> io::Result<()> {
    let head = found.head.as_ref().map(|head| URL_SAFE_NO_PAD.encode(head));
    match format {
        Format::Table => {
            for finding in &found.findings {
                writeln!(out, "FINDING  {finding}")?;
            }
            let Verification {
                seals,
                events,
                unsealed,
                ..
            } = found;
            writeln!(
                out,
                "{events} events under {seals} seals; {unsealed} not sealed yet"
            )?;
            if let Some(head) = head {
                writeln!(
                    out,
                    "head={head}  (keep it elsewhere: verify --head finds what is cut off later)"
                )?;
            }
        }
        Format::Json => output::object(
            out,
            &json!({
                "seals": found.seals, "events": found.events, "unsealed": found.unsealed, "head": head,
                "findings": found.findings,
            }),
        )?,
    }
    Ok(())
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
