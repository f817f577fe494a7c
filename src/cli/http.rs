//! What commands ask a running server with: a browser's memory for cookies, and an app's library.

use std::future::Future;
use std::time::Duration;

use openidconnect::http;
use openidconnect::{HttpRequest, HttpResponse};

const TIMEOUT: Duration = Duration::from_secs(10);
const LARGEST_ANSWER: usize = 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("the server could not be reached")]
    Http(#[from] reqwest::Error),
    #[error("the answer is larger than 1 MiB")]
    TooLarge,
    #[error("the answer could not be read")]
    Answer(#[from] http::Error),
}

/// Keeps cookies and follows nothing: whoever asks wants to see where it leads.
pub(super) fn browser() -> Result<reqwest::Client, HttpError> {
    Ok(reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .cookie_store(true)
        .timeout(TIMEOUT)
        .user_agent(concat!("latchkey/", env!("CARGO_PKG_VERSION")))
        .build()?)
}

/// The same for the library that apps use.
pub(super) fn for_library(
    http: &reqwest::Client,
) -> impl Fn(HttpRequest) -> std::pin::Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>>>>
{
    let http = http.clone();
    move |request| {
        let http = http.clone();
        Box::pin(async move {
            let mut response = http.execute(request.try_into()?).await?;
            let mut answer = http::Response::builder().status(response.status());
            if let Some(headers) = answer.headers_mut() {
                *headers = response.headers().clone();
            }
            Ok(answer.body(whole(&mut response).await?)?)
        })
    }
}

/// The body, unless it has no end.
pub(super) async fn whole(response: &mut reqwest::Response) -> Result<Vec<u8>, HttpError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            return Err(HttpError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
