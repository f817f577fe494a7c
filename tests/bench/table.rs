//! What is printed: tables in Markdown, or a JSON object a line.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::limits::{Limit, Limits};
use crate::load::Measured;

/// A mode's figures: one for each number of connections.
pub(crate) struct Row {
    pub(crate) mode: &'static str,
    pub(crate) limit: Option<Limit>,
    pub(crate) measured: Vec<(usize, Measured)>,
    /// In MiB, over all of them.
    pub(crate) peak_memory: Option<f64>,
}

/// A database's figures.
pub(crate) struct Report {
    pub(crate) database: &'static str,
    pub(crate) limits: Limits,
    /// Milliseconds.
    pub(crate) first_start: f64,
    pub(crate) start: f64,
    pub(crate) idle_memory: Option<f64>,
    pub(crate) rows: Vec<Row>,
}

/// Where latency and CPU are looked at, if it was measured there.
const DETAIL: usize = 8;

impl Row {
    fn at(&self, connections: usize) -> Option<&Measured> {
        let found = self.measured.iter().find(|(at, _)| *at == connections);
        found.map(|(_, measured)| measured)
    }

    fn detail(&self) -> Option<&Measured> {
        self.at(DETAIL)
            .or_else(|| self.measured.last().map(|(_, measured)| measured))
    }

    /// Against single commits a lone worker counts: more of them share a commit.
    fn share(&self, report: &Report, of_machine: &Limits) -> Option<f64> {
        let limit = self.limit?;
        let rate = report.limits.rate(limit).or(of_machine.rate(limit))?;
        let alone = limit == Limit::Commit && report.database == "SQLite";
        let measured = self.at(if alone { 1 } else { DETAIL })?;
        Some(measured.per_second() / rate)
    }
}

impl Report {
    /// Where an operation failed, and why.
    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        self.rows.iter().flat_map(|row| {
            row.measured.iter().filter_map(|(connections, measured)| {
                let reason = measured.first_failure.as_ref()?;
                let (mode, count) = (row.mode, measured.failures);
                Some(format!(
                    "{mode} with {connections} connections: {count} failed; the first: {reason}"
                ))
            })
        })
    }
}

pub(crate) fn machine(
    out: &mut dyn Write,
    cores: usize,
    model: &str,
    limits: &Limits,
) -> io::Result<()> {
    writeln!(
        out,
        "{cores} cores, {model}. The load comes from the same machine.\n"
    )?;
    writeln!(out, "| the machine's own limits | |\n|---|--:|")?;
    limit_rows(out, limits)?;
    writeln!(out)
}

pub(crate) fn report(
    out: &mut dyn Write,
    report: &Report,
    of_machine: &Limits,
    cores: usize,
) -> io::Result<()> {
    let name = report.database;
    writeln!(out, "| {name} | |\n|---|--:|")?;
    limit_rows(out, &report.limits)?;
    writeln!(
        out,
        "| start to ready, the first time | {:.0} ms |",
        report.first_start
    )?;
    writeln!(out, "| start to ready | {:.0} ms |", report.start)?;
    writeln!(
        out,
        "| resident, idle | {} MiB |\n",
        number(report.idle_memory, 1)
    )?;

    let connections: Vec<_> = report
        .rows
        .first()
        .into_iter()
        .flat_map(|row| &row.measured)
        .collect();
    let heads: String = connections
        .iter()
        .map(|(at, _)| format!(" {at} |"))
        .collect();
    writeln!(
        out,
        "| {name}: a second, by connections |{heads} of the limit | p50 ms | p99 ms | CPU µs | peak MiB |"
    )?;
    writeln!(
        out,
        "|---|{}--:|--:|--:|--:|--:|",
        "--:|".repeat(connections.len())
    )?;
    for row in &report.rows {
        write!(out, "| {} |", row.mode)?;
        for (_, measured) in &row.measured {
            write!(
                out,
                " {}{} |",
                number(Some(measured.per_second()), 0),
                failed(measured)
            )?;
        }
        let detail = row.detail();
        writeln!(
            out,
            " {} | {} | {} | {} | {} |",
            number(row.share(report, of_machine), 2),
            number(detail.map(|measured| measured.p50_ms), 2),
            number(detail.map(|measured| measured.p99_ms), 2),
            detail.map_or_else(nothing, cpu),
            number(row.peak_memory, 0),
        )?;
    }
    writeln!(out)?;
    for failure in report.failures() {
        writeln!(out, "- {failure}")?;
    }
    let all = report.rows.iter().flat_map(|row| &row.measured);
    let others = all
        .filter_map(|(_, measured)| measured.others(cores))
        .fold(0.0, f64::max);
    if others > 0.05 {
        writeln!(
            out,
            "Other work took up to {:.0} % of the machine meanwhile: not a quiet run.\n",
            others * 100.0
        )?;
    }
    Ok(())
}

pub(crate) fn machine_lines(
    out: &mut dyn Write,
    cores: usize,
    model: &str,
    limits: &Limits,
) -> io::Result<()> {
    writeln!(
        out,
        "{}",
        json!({ "kind": "machine", "cores": cores, "model": model })
    )?;
    limit_lines(out, limits)
}

pub(crate) fn report_lines(
    out: &mut dyn Write,
    report: &Report,
    of_machine: &Limits,
    cores: usize,
) -> io::Result<()> {
    limit_lines(out, &report.limits)?;
    let start = json!({
        "kind": "start", "database": report.database, "first_start_ms": report.first_start, "start_ms": report.start,
        "idle_memory_mib": report.idle_memory
    });
    writeln!(out, "{start}")?;
    for row in &report.rows {
        for (connections, measured) in &row.measured {
            let line = json!({
                "kind": "mode", "database": report.database, "mode": row.mode, "connections": connections,
                "per_second": measured.per_second(), "operations": measured.operations, "seconds": measured.seconds,
                "p50_ms": measured.p50_ms, "p99_ms": measured.p99_ms,
                "server_cpu_us": measured.cpu_us(|usage| usage.server),
                "database_cpu_us": measured.cpu_us(|usage| usage.database),
                "load_cpu_us": measured.cpu_us(|usage| usage.load),
                "others": measured.others(cores), "peak_memory_mib": row.peak_memory,
                "of_the_limit": row.share(report, of_machine),
                "failures": measured.failures, "first_failure": measured.first_failure
            });
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

fn limit_rows(out: &mut dyn Write, limits: &Limits) -> io::Result<()> {
    for (name, value, unit) in &limits.rows {
        let decimals = if *value < 10.0 { 2 } else { 0 };
        writeln!(
            out,
            "| {name} | {} {unit} |",
            number(Some(*value), decimals)
        )?;
    }
    Ok(())
}

fn limit_lines(out: &mut dyn Write, limits: &Limits) -> io::Result<()> {
    for (name, value, unit) in &limits.rows {
        let line: Value = json!({ "kind": "limit", "name": name, "value": value, "unit": unit });
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn cpu(measured: &Measured) -> String {
    let server = number(measured.cpu_us(|usage| usage.server), 0);
    match measured.cpu_us(|usage| usage.database) {
        Some(database) if database > 0.0 => format!("{server} + {}", number(Some(database), 0)),
        _ => server,
    }
}

fn failed(measured: &Measured) -> String {
    match measured.failures {
        0 => String::new(),
        count => format!(" ({count} failed)"),
    }
}

/// With a comma between thousands.
fn number(value: Option<f64>, decimals: usize) -> String {
    let Some(value) = value else { return nothing() };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() {
        grouped
    } else {
        format!("{grouped}.{fraction}")
    }
}

fn nothing() -> String {
    "–".to_owned()
}
