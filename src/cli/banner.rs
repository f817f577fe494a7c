//! The block that a server prints once it is ready.

use std::io::{self, Write};
use std::time::Duration;

use crate::config::{Config, DatabaseUrl};
use crate::seed::DevApp;

/// The column in which remarks begin, counted from the value.
const REMARK_COLUMN: usize = 34;

/// Prints where everything is; in production without anything that must stay secret.
pub(super) fn print(
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
    line(
        out,
        "Discovery",
        &format!("{issuer}/.well-known/openid-configuration"),
        "",
    )?;
    if let Some(app) = dev_app {
        let secret = &app.demo_secret;
        let client = format!(
            "client_id=demo-web  client_secret={secret}  redirect_uri=http://localhost:3000/callback"
        );
        line(out, "Client", &client, "")?;
    }
    let data = match &config.database.url {
        DatabaseUrl::Sqlite(path) => path.display().to_string(),
        // The URL may hold a password.
        DatabaseUrl::Postgres(_) => "PostgreSQL".to_owned(),
    };
    let remark = if config.development {
        "(latchkey dev --fresh starts over)"
    } else {
        ""
    };
    line(out, "Data", &data, remark)?;
    out.flush()
}

fn line(out: &mut dyn Write, label: &str, value: &str, remark: &str) -> io::Result<()> {
    let width = REMARK_COLUMN - 2;
    writeln!(
        out,
        "{}",
        format!("  {label:<13}{value:<width$}  {remark}").trim_end()
    )
}
