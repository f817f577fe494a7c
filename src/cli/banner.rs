//! The block that a server prints once it is ready.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::output::{self, Format};
use crate::config::{Config, DatabaseUrl};
use crate::seed::DevApp;

/// The column in which remarks begin, counted from the value.
const REMARK_COLUMN: usize = 34;
const DISCOVERY: &str = "/.well-known/openid-configuration";
const DEMO_CALLBACK: &str = "http://localhost:3000/callback";

/// Prints where everything is; in production without anything that must stay secret.
pub(super) fn print(
    out: &mut dyn Write,
    format: Format,
    config: &Config,
    dev_app: Option<&DevApp>,
    took: Duration,
) -> io::Result<()> {
    match format {
        Format::Table => block(out, config, dev_app, took)?,
        Format::Json => output::object(out, &described(config, dev_app, took))?,
    }
    out.flush()
}

fn described(config: &Config, dev_app: Option<&DevApp>, took: Duration) -> Value {
    let issuer = config.issuer.as_str();
    let mut value = json!({
        "issuer": issuer,
        "discovery": format!("{issuer}{DISCOVERY}"),
        "development": config.development,
        "data": data(config),
        "ready_in_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "version": env!("CARGO_PKG_VERSION"),
    });
    if let (Some(app), Some(object)) = (dev_app, value.as_object_mut()) {
        let client = json!({
            "client_id": "demo-web",
            "client_secret": app.demo_secret,
            "redirect_uri": DEMO_CALLBACK,
        });
        object.insert("client".to_owned(), client);
        object.insert("test_app".to_owned(), format!("{issuer}/dev/app").into());
    }
    value
}

/// The URL of PostgreSQL may hold a password.
fn data(config: &Config) -> String {
    match &config.database.url {
        DatabaseUrl::Sqlite(path) => path.display().to_string(),
        DatabaseUrl::Postgres(_) => "PostgreSQL".to_owned(),
    }
}

fn block(
    out: &mut dyn Write,
    config: &Config,
    dev_app: Option<&DevApp>,
    took: Duration,
) -> io::Result<()> {
    let (issuer, version) = (config.issuer.as_str(), env!("CARGO_PKG_VERSION"));
    let mode = if config.development {
        " (development)"
    } else {
        ""
    };
    let title = format!("latchkey {version}{mode}");
    writeln!(out, "{title:<55} ready in {:.1} s", took.as_secs_f64())?;
    let account = if config.development {
        "alice@example.test / correct-horse-battery"
    } else {
        ""
    };
    line(out, "Sign in", &format!("{issuer}/"), account)?;
    if config.development {
        line(out, "Test app", &format!("{issuer}/dev/app"), "")?;
    }
    line(out, "Discovery", &format!("{issuer}{DISCOVERY}"), "")?;
    if let Some(app) = dev_app {
        let secret = &app.demo_secret;
        let client =
            format!("client_id=demo-web  client_secret={secret}  redirect_uri={DEMO_CALLBACK}");
        line(out, "Client", &client, "")?;
    }
    let remark = if config.development {
        "(latchkey dev --fresh starts over)"
    } else {
        ""
    };
    line(out, "Data", &data(config), remark)
}

fn line(out: &mut dyn Write, label: &str, value: &str, remark: &str) -> io::Result<()> {
    let width = REMARK_COLUMN - 2;
    writeln!(
        out,
        "{}",
        format!("  {label:<13}{value:<width$}  {remark}").trim_end()
    )
}
