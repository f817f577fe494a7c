//! `latchkey config …`.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::json;

use super::failure::heard_or_not;
use super::output::{self, Format};
use crate::config::{self, Config, Findings, Shown, Sources};

/// Prints every finding; exit code 1 when there is one.
pub(super) fn check(sources: Sources, format: Format, out: &mut dyn Write) -> io::Result<ExitCode> {
    let loaded = Config::load(sources);
    heard_or_not(print(&loaded, format, out))?;
    Ok(match loaded {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn print(loaded: &Result<Config, Findings>, format: Format, out: &mut dyn Write) -> io::Result<()> {
    match (loaded, format) {
        (Ok(config), Format::Table) => {
            let issuer = &config.issuer;
            writeln!(out, "The configuration is valid; the issuer is {issuer}")
        }
        // An empty list: a script counts lines.
        (Ok(_), Format::Json) => Ok(()),
        (Err(findings), Format::Table) => writeln!(out, "{findings}"),
        (Err(findings), Format::Json) => {
            for finding in findings.iter() {
                serde_json::to_writer(&mut *out, finding)?;
                writeln!(out)?;
            }
            Ok(())
        }
    }
}

/// Prints what counts, also of a configuration with mistakes; these follow on standard error, with exit code 1.
pub(super) fn show(
    sources: Sources,
    with_sources: bool,
    format: Format,
    out: &mut dyn Write,
) -> io::Result<ExitCode> {
    let shown = config::shown(&sources);
    let mut headings = vec!["KEY", "VALUE"];
    if with_sources {
        headings.push("FROM");
    }
    let row = |shown: &Shown| {
        let text = shown.text.clone().unwrap_or_default();
        let mut row = vec![shown.key.to_owned(), text];
        if with_sources {
            row.push(shown.source.clone());
        }
        row
    };
    let describe = |shown: &Shown| match with_sources {
        true => json!({ "key": shown.key, "value": shown.value, "source": shown.source }),
        false => json!({ "key": shown.key, "value": shown.value }),
    };
    heard_or_not(output::list(out, format, &shown, &headings, row, describe))?;
    match Config::load(sources) {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(findings) => {
            writeln!(io::stderr(), "{findings}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Prints every key with its default and reason: as a TOML file, or an object for each.
pub(super) fn reference(format: Format, out: &mut dyn Write) -> io::Result<ExitCode> {
    match format {
        Format::Table => out.write_all(config::reference().as_bytes())?,
        Format::Json => {
            for entry in config::entries() {
                output::object(out, &serde_json::to_value(entry)?)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(environment: &[(&str, &str)], format: Format) -> (ExitCode, String) {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut out = Vec::new();
        let code = check(
            Sources {
                environment,
                ..Sources::default()
            },
            format,
            &mut out,
        )
        .expect("memory takes all");
        (code, String::from_utf8(out).expect("text"))
    }

    #[test]
    fn a_valid_configuration_is_said_to_be_valid() {
        let (code, out) = run(
            &[("LATCHKEY_ISSUER", "https://id.example.test")],
            Format::Table,
        );
        assert_eq!(
            out,
            "The configuration is valid; the issuer is https://id.example.test\n"
        );
        assert_eq!(code, ExitCode::SUCCESS);
    }

    #[test]
    fn findings_end_with_exit_code_1_a_line_each() {
        let (code, out) = run(
            &[("LATCHKEY_LISTEN", "x"), ("LATCHKEY_LOG__LEVEL", "loud")],
            Format::Table,
        );
        assert_eq!(out.lines().count(), 3, "{out}");
        assert_eq!(code, ExitCode::FAILURE);
    }

    #[test]
    fn findings_as_json_are_one_object_a_line() {
        let (_, out) = run(&[("LATCHKEY_LISTEN", "x")], Format::Json);
        let keys: Vec<_> = out
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).expect("an object")["key"].clone()
            })
            .collect();
        assert_eq!(keys, ["issuer", "listen"]);
    }

    #[test]
    fn the_reference_is_printed_whole() {
        let mut out = Vec::new();
        reference(Format::Table, &mut out).expect("memory takes all");
        assert_eq!(String::from_utf8(out).expect("text"), config::reference());
    }
}
