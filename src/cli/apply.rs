//! `latchkey apply FILE`.

use std::io::{self, Read as _, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::failure::Failure;
use super::output::{self, Format};
use crate::clock::Clock;
use crate::config::Config;
use crate::seed::{self, Extent, Seed};
use crate::startup;
use crate::store::scopes;

/// Brings people and apps to what a file says, or lists every mistake in it and changes nothing.
pub(super) fn run(
    config: &Config,
    file: &Path,
    extent: Extent,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let (text, written_as) = read(file)?;
    let opened = startup::open(config, false)?;
    let defined = opened.store.read_blocking(scopes::list)?;
    let seed = Seed::parse_beside(&text, written_as, config, defined)?;
    let now = Clock::system().now();
    let mut summary = seed.apply_with(&opened.store, config, extent, now)?;
    if extent.dry_run {
        // They were never anybody's.
        summary.new_secrets.clear();
    }
    match format {
        Format::Table => {
            out.write_all(summary.to_text().as_bytes())?;
            if extent.dry_run {
                writeln!(out, "Nothing was written: this is what would be.")?;
            }
            for (id, secret) in &summary.new_secrets {
                writeln!(
                    out,
                    "client_id={id}  client_secret={secret}  (shown this once)"
                )?;
            }
        }
        Format::Json => {
            let secrets: Vec<_> = summary
                .new_secrets
                .iter()
                .map(|(id, secret)| json!({ "client_id": id, "client_secret": secret }))
                .collect();
            let value = json!({
                "created": summary.created, "updated": summary.updated, "deleted": summary.deleted,
                "unchanged": summary.unchanged, "differences": summary.differences, "new_secrets": secrets,
                "written": !extent.dry_run,
            });
            output::object(out, &value)?;
        }
    }
    if extent.dry_run && summary.is_change() {
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> Result<(String, seed::Format), Failure> {
    if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text)?;
        let json = text.trim_start().starts_with('{');
        return Ok((
            text,
            if json {
                seed::Format::Json
            } else {
                seed::Format::Toml
            },
        ));
    }
    let format = match file.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => seed::Format::Toml,
        Some("json") => seed::Format::Json,
        _ => {
            return Err(Failure::new(format!(
                "{}: the name of the file must end in .toml or .json",
                file.display()
            )));
        }
    };
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    Ok((text, format))
}
