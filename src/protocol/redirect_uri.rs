//! Redirect URIs: what may be registered, and what a request may name.
//! RFC 6749 §3.1.2; RFC 8252 §7, §8.4; RFC 9700 §2.1, §4.1; RFC 7591 §5.
//!
//! A request's value is compared byte for byte. Parsing it first would make `https:rp.example/cb`, `RP.EXAMPLE` and
//! `/a/../cb` all equal; the parsed form is used to refuse bad registrations only.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// A redirect URI that was registered, exactly as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RedirectUri(String);

/// Why a value can't be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRedirectUri {
    #[error("is not an absolute URI of printable ASCII without spaces")]
    NotAUri,
    #[error("has an encoded control character")]
    Control,
    #[error("has a fragment")]
    Fragment,
    #[error("has a user name or password")]
    UserInfo,
    #[error("has a wildcard")]
    Wildcard,
    #[error("has dot segments or backslashes; write it the way it is sent")]
    Ambiguous,
    #[error("uses http, which is for loopback addresses only")]
    Http,
    #[error("uses a scheme that is never an app's")]
    Scheme,
    #[error("uses a scheme of its own without a dot; reverse a domain name (RFC 8252 §7.1)")]
    SchemeWithoutDot,
    #[error("uses a scheme of its own, which is for native apps only")]
    SchemeOfWebApp,
}

const NEVER: &[&str] = &[
    "javascript",
    "data",
    "vbscript",
    "file",
    "blob",
    "about",
    "filesystem",
    "view-source",
    "ws",
    "wss",
    "ftp",
];

impl RedirectUri {
    /// Judges a value for registration.
    pub fn register(value: &str, native: bool) -> Result<Self, BadRedirectUri> {
        if value.is_empty() || !value.chars().all(|c| c.is_ascii_graphic()) {
            return Err(BadRedirectUri::NotAUri);
        }
        if value.contains('\\') {
            return Err(BadRedirectUri::Ambiguous);
        }
        if value.contains('#') {
            return Err(BadRedirectUri::Fragment);
        }
        if value.contains('*') {
            return Err(BadRedirectUri::Wildcard);
        }
        if !value.bytes().all(is_uri_byte) {
            return Err(BadRedirectUri::NotAUri);
        }
        if encoded_bytes(value)?
            .iter()
            .any(|byte| byte.is_ascii_control())
        {
            return Err(BadRedirectUri::Control);
        }
        let url = Url::parse(value).map_err(|_parse_error| BadRedirectUri::NotAUri)?;
        if NEVER.contains(&url.scheme()) {
            return Err(BadRedirectUri::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadRedirectUri::UserInfo);
        }
        // What the URL standard would rewrite is a value that two programs may read differently.
        let plain = without_default_port(value, url.scheme());
        if url.as_str() != plain && url.as_str() != format!("{plain}/") {
            return Err(BadRedirectUri::Ambiguous);
        }
        match url.scheme() {
            "http" if !is_loopback(&url) => Err(BadRedirectUri::Http),
            "https" | "http" => Ok(()),
            _ if !native => Err(BadRedirectUri::SchemeOfWebApp),
            scheme if !scheme.contains('.') => Err(BadRedirectUri::SchemeWithoutDot),
            _ => Ok(()),
        }?;
        Ok(Self(value.to_owned()))
    }

    /// Does a request's value name this registration? `any_loopback_port` is the rule for native apps (RFC 8252 §7.3).
    pub fn matches(&self, requested: &str, any_loopback_port: bool) -> bool {
        if self.0 == requested {
            return true;
        }
        any_loopback_port
            && matches!((loopback_parts(&self.0), loopback_parts(requested)), (Some(registered), Some(sent)) if registered == sent)
    }

    /// As registered.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host a person should be shown, or the scheme of a native app.
    pub fn shown_host(uri: &str) -> String {
        match Url::parse(uri) {
            Ok(url) => match url.host_str() {
                Some(host) if matches!(url.scheme(), "https" | "http") => host.to_owned(),
                _ => format!("{}:", url.scheme()),
            },
            Err(_) => String::new(),
        }
    }

    /// Whether only the app itself can receive what is sent there: true for https, false for loopback and own schemes.
    pub fn is_claimed_https(uri: &str) -> bool {
        uri.starts_with("https://")
    }
}

impl fmt::Display for RedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a request's value begins to differ from the registered one of the same origin that is most like it; bytes.
/// Without one nothing is told: a stranger could guess the whole address byte by byte.
pub fn first_difference<'a>(
    requested: &str,
    registered: impl Iterator<Item = &'a RedirectUri>,
) -> usize {
    let common = |uri: &RedirectUri| {
        uri.0
            .bytes()
            .zip(requested.bytes())
            .take_while(|(a, b)| a == b)
            .count()
    };
    let is_near =
        |uri: &&RedirectUri| origin(requested).is_some() && origin(&uri.0) == origin(requested);
    let Some(mut at) = registered.filter(is_near).map(common).max() else {
        return requested.len();
    };
    while !requested.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Scheme, host and port, as they are written.
fn origin(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once("://")?;
    let authority = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    uri.get(..scheme.len() + "://".len() + authority)
}

/// Some frameworks send the default port, the URL standard never writes it: the one difference that is borne.
fn without_default_port(value: &str, scheme: &str) -> String {
    let port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return value.to_owned(),
    };
    let Some((start, rest)) = value.split_once("://") else {
        return value.to_owned();
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let authority = authority.strip_suffix(port).unwrap_or(authority);
    format!("{start}://{authority}{tail}")
}

/// Unreserved, reserved, or the beginning of an encoded byte (RFC 3986 §2).
fn is_uri_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte)
}

/// The bytes that are written as `%xx`; anything else behind a `%` is no URI.
fn encoded_bytes(value: &str) -> Result<Vec<u8>, BadRedirectUri> {
    value
        .split('%')
        .skip(1)
        .map(|part| {
            part.get(..2)
                .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                .ok_or(BadRedirectUri::NotAUri)
        })
        .collect()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Splits `http://127.0.0.1:PORT/rest` into what must be equal: the literal address and the rest. `localhost` has no such rule.
fn loopback_parts(uri: &str) -> Option<(&'static str, &str)> {
    for address in ["http://127.0.0.1", "http://[::1]"] {
        let Some(rest) = uri.strip_prefix(address) else {
            continue;
        };
        let Some(after_colon) = rest.strip_prefix(':') else {
            return (rest.is_empty() || rest.starts_with(['/', '?'])).then_some((address, rest));
        };
        let digits = after_colon.bytes().take_while(u8::is_ascii_digit).count();
        let (port, rest) = after_colon.split_at_checked(digits)?;
        let port_is_valid = !port.starts_with('0') && port.parse::<u16>().is_ok();
        return (port_is_valid && (rest.is_empty() || rest.starts_with(['/', '?'])))
            .then_some((address, rest));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(value: &str) -> RedirectUri {
        RedirectUri::register(value, true).expect("may be registered")
    }

    #[test]
    fn a3_bad_values_cannot_be_registered() {
        use BadRedirectUri as Bad;
        for (value, reason) in [
            ("https://rp.example/cb#frag", Bad::Fragment),
            ("https://rp.example/cb#", Bad::Fragment),
            ("https://*.rp.example/cb", Bad::Wildcard),
            ("https://user@rp.example/cb", Bad::UserInfo),
            ("https://user:pw@rp.example/cb", Bad::UserInfo),
            ("http://rp.example/cb", Bad::Http),
            ("http://127.0.0.1.rp.example/cb", Bad::Http),
            ("javascript:alert(1)", Bad::Scheme),
            ("data:text/html,x", Bad::Scheme),
            ("myapp:/cb", Bad::SchemeWithoutDot),
            ("/cb", Bad::NotAUri),
            ("", Bad::NotAUri),
            ("https://rp.example/a b", Bad::NotAUri),
            ("https://rp.example/cb\t", Bad::NotAUri),
            ("https://ｒｐ.example/cb", Bad::NotAUri),
            ("https:rp.example/cb", Bad::Ambiguous),
            ("https://rp.example/a/../cb", Bad::Ambiguous),
            ("https://rp.example/%2e%2e/cb", Bad::Ambiguous),
            ("https://RP.example/cb", Bad::Ambiguous),
            ("https:/\\rp.example/cb", Bad::Ambiguous),
            ("http://2130706433/cb", Bad::Ambiguous),
            ("https://RP.EXAMPLE:443/a/../cb", Bad::Ambiguous),
            ("https://rp.example:443/%2e%2e/cb", Bad::Ambiguous),
            ("https://@rp.example:443/cb", Bad::Ambiguous),
            ("https://rp.example:443:443/cb", Bad::NotAUri),
            ("https://rp.example:80:443/cb", Bad::NotAUri),
            ("https://rp.example:0443/cb", Bad::Ambiguous),
            ("https://rp.example:/cb", Bad::Ambiguous),
            ("HTTPS://rp.example:443/cb", Bad::Ambiguous),
            ("https://rp.example/:443/../cb", Bad::Ambiguous),
            ("http://127.1:80/cb", Bad::Ambiguous),
            ("https://rp.example/cb?a=%zz", Bad::NotAUri),
            ("https://rp.example/cb%", Bad::NotAUri),
            ("https://rp.example/<script>", Bad::NotAUri),
            ("https://rp.example/cb?a=\"b\"", Bad::NotAUri),
            ("https://rp.example/cb?a={b}|c", Bad::NotAUri),
            ("https://rp.example/cb%0d%0aLocation:x", Bad::Control),
            ("https://rp.example/cb?a=%00", Bad::Control),
            ("https://rp.example/cb%7F", Bad::Control),
            ("https://rp.example/cb\u{202e}", Bad::NotAUri),
            ("https://rp.example%2f@evil.example/cb", Bad::UserInfo),
            ("https:///rp.example/cb", Bad::Ambiguous),
            ("//rp.example/cb", Bad::NotAUri),
            ("JavaScript:alert(1)", Bad::Scheme),
            ("vbscript:x", Bad::Scheme),
            ("file:///etc/passwd", Bad::Scheme),
            ("blob:https://rp.example/x", Bad::Scheme),
            ("about:blank", Bad::Scheme),
            ("intent:x", Bad::SchemeWithoutDot),
            ("mailto:a@rp.example", Bad::SchemeWithoutDot),
            ("com.example.app:/a/../cb", Bad::Ambiguous),
            ("com.example.app:/%2e%2e/cb", Bad::Ambiguous),
            ("Com.Example.App:/cb", Bad::Ambiguous),
            ("com.example.app://user@host/cb", Bad::UserInfo),
            ("com.example.app:/cb#x", Bad::Fragment),
            ("http://localhost.rp.example/cb", Bad::Http),
            ("http://localhost./cb", Bad::Http),
            ("http://0.0.0.0/cb", Bad::Http),
            ("http://[::ffff:127.0.0.1]/cb", Bad::Ambiguous),
        ] {
            assert_eq!(RedirectUri::register(value, true), Err(reason), "{value}");
        }
        assert_eq!(
            RedirectUri::register("com.example.app:/cb", false),
            Err(Bad::SchemeOfWebApp)
        );
    }

    #[test]
    fn values_that_real_apps_use_can_be_registered() {
        for value in [
            "https://rp.example",
            "https://rp.example/cb?foo=bar",
            "https://rp.example:8443/cb",
            "https://rp.example:443/cb",
            "https://rp.example:443",
            "https://rp.example:80/cb",
            "http://127.0.0.1:80/cb",
            "http://localhost:3000/callback",
            "http://localhost:3000",
            "http://127.0.0.1/cb",
            "http://[::1]:7000/cb",
            "com.example.app:/oauth2redirect",
            "app.example:///oauth-callback",
            "app.example://callback",
            "app.example:/cb?a=b%20c",
            "https://rp.example/cb?a=b%2Fc&d=%C3%A9",
            "https://xn--bcher-kva.example/~app/(cb);v=1",
        ] {
            assert!(RedirectUri::register(value, true).is_ok(), "{value}");
        }
    }

    #[test]
    fn only_the_same_bytes_match() {
        let uri = registered("https://rp.example/cb?foo=bar");
        assert!(uri.matches("https://rp.example/cb?foo=bar", true));
        for other in [
            "https://rp.example/cb",
            "https://rp.example/cb?foo=bar&x=1",
            "https://rp.example/cb/?foo=bar",
            "https://rp.example/cb?foo=bar#",
            "https://rp.example.evil.example/cb?foo=bar",
            "https://rp.example@evil.example/cb?foo=bar",
            "https://RP.example/cb?foo=bar",
            "https://rp.example:443/cb?foo=bar",
            "https://rp.example/./cb?foo=bar",
            "https://rp.example/%63b?foo=bar",
            "https:\\\\rp.example/cb?foo=bar",
            "https://rp.example/cb?foo=bar\t",
            "http://rp.example/cb?foo=bar",
        ] {
            assert!(!uri.matches(other, true), "{other}");
        }
    }

    #[test]
    fn only_literal_loopback_addresses_may_vary_in_their_port() {
        let v4 = registered("http://127.0.0.1/cb");
        let v6 = registered("http://[::1]:1234/cb");
        assert!(v4.matches("http://127.0.0.1:49152/cb", true));
        assert!(v6.matches("http://[::1]:49152/cb", true));
        assert!(
            !v4.matches("http://127.0.0.1:49152/cb", false),
            "only native apps"
        );
        for other in [
            "http://127.0.0.1:49152/cb/",
            "http://127.0.0.1:49152/cb?x",
            "http://127.0.0.1:99999/cb",
            "http://127.0.0.1:/cb",
            "http://127.0.0.1:80@evil.example/cb",
            "http://127.0.0.1.evil.example/cb",
            "http://127.0.0.1:0/cb",
            "http://localhost:49152/cb",
            "http://127.0.0.2:49152/cb",
            "https://127.0.0.1:49152/cb",
            "http://[::1]:49152/cb",
        ] {
            assert!(!v4.matches(other, true), "{other}");
        }
        assert!(!registered("http://localhost:3000/cb").matches("http://localhost:3001/cb", true));
        assert!(!registered("https://127.0.0.1/cb").matches("https://127.0.0.1:444/cb", true));
    }

    #[test]
    fn the_first_difference_is_where_the_most_alike_one_ends() {
        let uris = [
            registered("https://rp.example/other"),
            registered("https://rp.example/callback"),
        ];
        let sent = "https://rp.example/callback/";
        assert_eq!(first_difference(sent, uris.iter()), sent.len() - 1);
        let other = "https://rp.example/ö";
        assert_eq!(
            first_difference(other, uris.iter()),
            "https://rp.example/".len()
        );
    }

    #[test]
    fn the_difference_is_told_only_to_who_knows_the_origin() {
        let uris = [registered("https://rp.example/callback")];
        for sent in [
            "https://rp.exampla/callback",
            "https://rp.example.evil.example/callback",
            "https://rp.exampl",
            "https://rp.example:8443/callback",
            "https://rp.example@evil.example/",
            "http://rp.example/callback",
            "https:",
            "",
        ] {
            assert_eq!(first_difference(sent, uris.iter()), sent.len(), "{sent}");
        }
    }
}
