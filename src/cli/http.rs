//! What commands ask a running server with: a browser's memory for cookies, and an app's library.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use openidconnect::{HttpRequest, HttpResponse};

use crate::config::EgressConfig;
use crate::http_client::{self, HttpError};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps cookies and follows nothing: whoever asks wants to see where it leads.
pub(super) fn browser(egress: &EgressConfig) -> Result<reqwest::Client, HttpError> {
    let builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .cookie_store(true)
        .timeout(TIMEOUT)
        .user_agent(concat!("latchkey/", env!("CARGO_PKG_VERSION")));
    Ok(egress.trusting(builder).build()?)
}

/// The same for the library that apps use.
pub(super) fn for_library(
    http: &reqwest::Client,
) -> impl Fn(HttpRequest) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>>>> {
    let http = http.clone();
    move |request| {
        let http = http.clone();
        Box::pin(async move { http_client::send(&http, request).await })
    }
}
