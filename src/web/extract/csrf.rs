//! Forms are answered only to the browser that was shown them. OWASP ASVS 5.0 §3.5.1; RFC 9700 §4.7.
//!
//! Two locks: what the browser itself says about where the request comes from, and a token in the form that only this
//! server can make for this browser and this step.

use actix_web::HttpRequest;
use actix_web::http::header;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::protocol::seal::{constant_time_eq, mac};
use crate::web::state::AppState;

/// The token for a form: bound to the browser and to the step (`login` of a ticket, `consent` of a ticket and a sign-in).
pub(in crate::web) fn token(state: &AppState, browser_id: &str, step: &str) -> String {
    URL_SAFE_NO_PAD.encode(mac(
        &state.root,
        "csrf",
        format!("{browser_id}\0{step}").as_bytes(),
    ))
}

/// Whether a posted form is one that we showed to this browser for this step.
pub(in crate::web) fn is_ours(
    state: &AppState,
    browser_id: Option<&str>,
    step: &str,
    sent: Option<&str>,
) -> bool {
    let (Some(browser_id), Some(sent)) = (browser_id, sent) else {
        return false;
    };
    constant_time_eq(token(state, browser_id, step).as_bytes(), sent.as_bytes())
}

/// Whether the browser says that a page of ours sent this. A header that is absent says nothing; the token decides then.
pub(in crate::web) fn is_same_origin(state: &AppState, request: &HttpRequest) -> bool {
    let only_value = |name: header::HeaderName| {
        let mut values = request.headers().get_all(name);
        let first = values
            .next()
            .map(|value| value.to_str().unwrap_or("unreadable").to_owned());
        if values.next().is_some() {
            Some("repeated".to_owned())
        } else {
            first
        }
    };
    let origin_fits =
        only_value(header::ORIGIN).is_none_or(|origin| origin == state.config.issuer.origin());
    let site_fits = only_value(header::HeaderName::from_static("sec-fetch-site"))
        .is_none_or(|site| matches!(site.as_str(), "same-origin" | "none"));
    origin_fits && site_fits
}
