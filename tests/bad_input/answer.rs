//! What every answer must be, whatever was asked.

use std::collections::BTreeMap;
use std::ops::Range;

use super::request::Request;
use super::strange::MARK;
use crate::support::op::CALLBACK;
use crate::support::raw_http::Reply;

/// What came back: that nothing bad was seen tells something only when enough was.
#[derive(Debug, Default)]
pub struct Seen {
    answers: BTreeMap<u16, u32>,
    /// Pages that show something that was sent.
    pub mirrored: u32,
}

impl Seen {
    pub fn note(&mut self, reply: &Reply) {
        *self.answers.entry(reply.status).or_default() += 1;
        let kind = reply.header("content-type").unwrap_or_default();
        if kind.starts_with("text/html") && reply.text().contains("i7q") {
            self.mirrored += 1;
        }
    }

    pub fn of(&self, kinds: Range<u16>) -> u32 {
        self.answers.range(kinds).map(|(_, count)| count).sum()
    }
}

/// Says what is wrong with it.
pub fn is_decent(reply: &Reply) -> Result<(), String> {
    let shown = || format!("{} {:?} {}", reply.status, reply.headers, reply.text());
    let must = |holds: bool, what: &str| {
        if holds {
            Ok(())
        } else {
            Err(format!("{what}: {}", shown()))
        }
    };
    let is = |name: &str, value: &str| reply.header(name) == Some(value);
    let is_busy = reply.status == 503 && reply.header("retry-after").is_some();
    must(reply.status < 500 || is_busy, "a fault")?;
    let is_ours = |(name, value): &(String, String)| {
        !name.starts_with("i7q") && (name != "set-cookie" || !value.starts_with("i7q"))
    };
    must(
        reply.headers.iter().all(is_ours),
        "a header was smuggled in",
    )?;
    if reply.header("x-request-id").is_none() {
        // What no part of ours ever sees, as it can't be read as HTTP: the library says no more than that.
        must(
            matches!(reply.status, 400 | 408 | 413 | 414 | 431),
            "not by us",
        )?;
        return must(reply.body.is_empty(), "words that nobody protected");
    }
    must(is("x-content-type-options", "nosniff"), "sniffable")?;
    for name in ["referrer-policy", "permissions-policy", "cache-control"] {
        must(reply.header(name).is_some(), name)?;
    }
    must(
        reply.header("access-control-allow-credentials").is_none(),
        "with credentials",
    )?;
    let location = reply.header("location").unwrap_or("/");
    let leads_home = location.starts_with('/') && !location.starts_with("//");
    let leads_to_the_app = [CALLBACK, "http://localhost:"]
        .iter()
        .any(|known| location.starts_with(known));
    must(leads_home || leads_to_the_app, "leads to strangers")?;
    let kind = reply.header("content-type").unwrap_or_default();
    let text = reply.text();
    if kind.starts_with("text/html") {
        let policy = reply.header("content-security-policy").unwrap_or_default();
        let parts = [
            "default-src 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ];
        must(parts.iter().all(|part| policy.contains(part)), "no policy")?;
        must(!policy.contains("unsafe"), "an unsafe policy")?;
        must(is("x-frame-options", "DENY"), "can be framed")?;
        must(
            is("cross-origin-opener-policy", "same-origin"),
            "has openers",
        )?;
        must(is("cache-control", "no-store"), "a page that is kept")?;
        let is_mirrored = text.contains("<i7q") || text.contains(&MARK[..5]);
        must(!is_mirrored, "input that is not escaped")?;
    }
    let is_readable = reply.header("content-encoding").is_none() && !text.is_empty();
    if kind.starts_with("application/json") && is_readable {
        let json = serde_json::from_str::<serde_json::Value>(&text);
        must(json.is_ok(), "JSON that is none")?;
    }
    if reply.status >= 400 && is_readable {
        let inside = ["panicked", "diesel", "rusqlite", "SELECT ", ".rs:"];
        must(
            !inside.iter().any(|word| text.contains(word)),
            "tells of our inside",
        )?;
    }
    Ok(())
}

/// Nobody gets an answer that is packed in a way that they named nowhere.
pub fn is_packed_as_asked(request: &Request, reply: &Reply) -> Result<(), String> {
    let Some(coding) = reply.header("content-encoding") else {
        return Ok(());
    };
    let asked = request
        .headers
        .iter()
        .filter(|(name, _)| name == "accept-encoding");
    let asked: Vec<_> = asked
        .map(|(_, value)| String::from_utf8_lossy(value).to_ascii_lowercase())
        .collect();
    let is_named = |asked: &String| asked.contains(coding) || asked.contains('*');
    // Of a request that was garbled on its way nobody knows what it asks.
    if asked.iter().any(is_named) || !request.spoilt.is_empty() {
        return Ok(());
    }
    Err(format!("packed as {coding}, asked for {asked:?}"))
}

/// The page to which a redirect leads, as the browser asks for it.
pub fn following(reply: &Reply) -> Option<Request> {
    let location = reply.header("location").filter(|to| to.starts_with('/'))?;
    let cookies = reply
        .headers
        .iter()
        .filter(|(name, _)| name == "set-cookie");
    let cookies: Vec<_> = cookies
        .filter_map(|(_, cookie)| cookie.split(';').next())
        .collect();
    Some(Request::new("GET", location).header("cookie", &cookies.join("; ")))
}
