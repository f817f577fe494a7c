//! `latchkey apply FILE`.

use std::io::{self, Read as _, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::failure::{Failure, heard_or_not};
use super::output::{self, Format};
use crate::clock::Clock;
use crate::config::Config;
use crate::seed::{self, Extent, File, Mistake, Seed, SeedError, Summary};
use crate::startup;

/// Brings people and apps to what a file says, or lists every mistake in it and changes nothing.
pub(super) fn run(
    config: &Config,
    file: &Path,
    extent: Extent,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let file = read(file)?;
    let store = startup::open(config, false)?.store;
    let now = Clock::system().now();
    let applied = Seed::read(&file, config, &store, extent)
        .and_then(|seed| seed.apply_with(&store, config, extent, now));
    let mut summary = match applied {
        Err(SeedError::Mistakes(mistakes)) => return tell(&file.name, &mistakes, format, out),
        applied => applied?,
    };
    if extent.dry_run {
        // They were never anybody's.
        summary.new_secrets.clear();
    }
    heard_or_not(print(&summary, extent, format, out))?;
    if extent.dry_run && summary.is_change() {
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(summary: &Summary, extent: Extent, format: Format, out: &mut dyn Write) -> io::Result<()> {
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
            Ok(())
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
            output::object(out, &value)
        }
    }
}

/// Where the name does not say how it is written, as of a pipe, the text does.
fn read(file: &Path) -> Result<File, Failure> {
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok(File {
            name: "standard input".to_owned(),
            bytes,
            format: None,
        });
    }
    let format = match file.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => Some(seed::Format::Toml),
        Some("json") => Some(seed::Format::Json),
        _ => None,
    };
    let name = file.display().to_string();
    match std::fs::read(file) {
        Ok(bytes) => Ok(File {
            name,
            bytes,
            format,
        }),
        Err(error) => Err(Failure::new(format!("{name}: {error}"))),
    }
}

/// A line a mistake; as JSON on standard output, as `config check` does.
fn tell(
    name: &str,
    mistakes: &[Mistake],
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    if format == Format::Table {
        let text = mistakes.iter().map(|mistake| format!("\n{mistake}"));
        let text: String = text.collect();
        return Err(Failure::new(format!("{name}: nothing was changed{text}")));
    }
    let mut each = mistakes.iter();
    heard_or_not(each.try_for_each(|mistake| output::object(out, &json!(mistake))))?;
    Ok(ExitCode::FAILURE)
}
