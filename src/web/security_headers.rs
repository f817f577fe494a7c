//! Headers that protect every answer. OWASP ASVS 5.0 §3.4; RFC 9700 §4.16.

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Which pages may post to other hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageKind {
    /// Where a form of ours may end at the app: in an authorization, or when somebody signs out and goes back. No
    /// `form-action`: Chromium would block the 303.
    Transaction,
    /// As a transaction, and with a code in it: not even our own pages learn where the browser came from.
    CarriesCode,
    /// Everywhere else, forms go nowhere but here.
    Own,
}

/// Headers of an HTML page.
pub(super) fn protect_page(headers: &mut HeaderMap, kind: PageKind) {
    let policy = match kind {
        PageKind::Transaction | PageKind::CarriesCode => {
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"
        }
        PageKind::Own => {
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
        }
    };
    // `no-referrer` would also turn the Origin of our own forms into `null`.
    let referrer = if kind == PageKind::CarriesCode {
        "no-referrer"
    } else {
        "same-origin"
    };
    set(headers, header::CONTENT_SECURITY_POLICY, policy);
    set(headers, header::REFERRER_POLICY, referrer);
    set(headers, header::X_FRAME_OPTIONS, "DENY");
    set(
        headers,
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    );
    set(headers, header::CACHE_CONTROL, "no-store");
}

/// Headers of every answer, where the handler set none of its own.
pub(super) fn protect(headers: &mut HeaderMap, is_https: bool) {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        ),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        if !headers.contains_key(&name) {
            set(headers, name, value);
        }
    }
    if is_https {
        set(
            headers,
            header::STRICT_TRANSPORT_SECURITY,
            "max-age=31536000; includeSubDomains",
        );
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.insert(name, HeaderValue::from_static(value));
}
