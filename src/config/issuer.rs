//! The issuer: the one address of this server. OpenID Connect Core §16.15; OpenID Connect Discovery §3; RFC 8414 §2.

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};

/// An issuer identifier, compared byte for byte by every relying party, hence kept byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub struct Issuer {
    text: String,
    url: Url,
}

/// Why a text is no issuer; reads as the end of a sentence whose subject is the issuer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    #[error("must be an absolute URL with https, or with http on loopback")]
    NotAUrl,
    #[error("must use https; http is allowed on localhost, 127.0.0.0/8 and [::1] only")]
    Insecure,
    #[error("must not hold a user name or a password")]
    UserInfo,
    #[error("must not have a query")]
    Query,
    #[error("must not have a fragment")]
    Fragment,
    #[error("must not end with a slash")]
    TrailingSlash,
    #[error("must be in normal form, which is {0:?}")]
    NotNormal(String),
}

impl FromStr for Issuer {
    type Err = IssuerError;

    fn from_str(text: &str) -> Result<Self, IssuerError> {
        let Ok(url) = Url::parse(text) else {
            return Err(IssuerError::NotAUrl);
        };
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            "http" => return Err(IssuerError::Insecure),
            _ => return Err(IssuerError::NotAUrl),
        }
        // "https://@host" has empty userinfo, which the parser drops; only the bytes still show it.
        if !url.username().is_empty() || url.password().is_some() || text.contains('@') {
            return Err(IssuerError::UserInfo);
        }
        if url.query().is_some() {
            return Err(IssuerError::Query);
        }
        if url.fragment().is_some() {
            return Err(IssuerError::Fragment);
        }
        if text.ends_with('/') {
            return Err(IssuerError::TrailingSlash);
        }
        // The parser forgives case, default ports, dot segments, tabs and short IPv4 addresses; relying parties compare
        // bytes, so one server must not have several spellings.
        let normal = match url.path() {
            "/" => url.as_str().trim_end_matches('/'),
            _ => url.as_str(),
        };
        if normal != text {
            return Err(IssuerError::NotNormal(normal.to_owned()));
        }
        Ok(Self {
            text: text.to_owned(),
            url,
        })
    }
}

impl Issuer {
    /// The exact bytes that were configured.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether cookies can be `Secure` and carry the `__Host-` prefix.
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Whether only this machine can reach the address.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.url)
    }

    /// Scheme, host and port as browsers send them in `Origin`.
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// The host without its port; an IPv6 address is in brackets.
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// The port, also where the address does not name one.
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or_default()
    }

    /// What every route is mounted under: empty, or with a leading and without a trailing slash.
    pub fn path(&self) -> &str {
        self.url.path().trim_end_matches('/')
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer({:?})", self.text)
    }
}

// By name or literal address only: a name that happens to resolve to loopback today may not tomorrow.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_anywhere_and_http_on_loopback_are_issuers() {
        for text in [
            "https://id.example.test",
            "https://id.example.test:8443",
            "https://example.test/id",
            "https://example.test/realms/one",
            "http://localhost:8080",
            "http://127.0.0.1:8080",
            "http://127.8.9.1",
            "http://[::1]:8080/id",
        ] {
            assert_eq!(
                text.parse::<Issuer>().map(|issuer| issuer.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn whatever_could_be_spelt_two_ways_is_refused() {
        let normal = |text: &str| IssuerError::NotNormal(text.to_owned());
        for (text, error) in [
            ("", IssuerError::NotAUrl),
            ("id.example.test", IssuerError::NotAUrl),
            ("ftp://id.example.test", IssuerError::NotAUrl),
            ("http://id.example.test", IssuerError::Insecure),
            ("http://localhost.example.test", IssuerError::Insecure),
            ("http://[::2]", IssuerError::Insecure),
            ("https://u:p@id.example.test", IssuerError::UserInfo),
            ("https://@id.example.test", IssuerError::UserInfo),
            ("https://id.example.test?", IssuerError::Query),
            ("https://id.example.test#", IssuerError::Fragment),
            ("https://id.example.test/", IssuerError::TrailingSlash),
            ("https://id.example.test/id/", IssuerError::TrailingSlash),
            ("https://ID.example.test", normal("https://id.example.test")),
            ("HTTPS://id.example.test", normal("https://id.example.test")),
            (
                "https://id.example.test:443",
                normal("https://id.example.test"),
            ),
            (
                "https://id.example.test/a/../b",
                normal("https://id.example.test/b"),
            ),
            ("https:id.example.test", normal("https://id.example.test")),
            (
                " https://id.example.test",
                normal("https://id.example.test"),
            ),
            ("http://127.1:8080", normal("http://127.0.0.1:8080")),
        ] {
            assert_eq!(text.parse::<Issuer>(), Err(error), "{text}");
        }
    }

    #[test]
    fn its_parts_can_be_asked_for() {
        let issuer: Issuer = "https://id.example.test:8443/realms/one"
            .parse()
            .expect("an issuer");
        assert_eq!(issuer.origin(), "https://id.example.test:8443");
        assert_eq!(issuer.host(), "id.example.test");
        assert_eq!((issuer.port(), issuer.path()), (8443, "/realms/one"));
        assert!(issuer.is_https() && !issuer.is_loopback());
        let local: Issuer = "http://localhost:8080".parse().expect("an issuer");
        assert_eq!(local.path(), "");
        assert!(local.is_loopback() && !local.is_https());
    }
}
