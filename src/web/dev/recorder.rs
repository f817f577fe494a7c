//! An HTTP client that remembers what it sent and received, with secrets shortened.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use openidconnect::http::{HeaderMap, header};
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use serde_json::Value;

use crate::causes::with_causes;
use crate::http_client::{self, HttpError};
use crate::web::pages::DevStep;

const TIMEOUT: Duration = Duration::from_secs(5);
/// So much of a secret tells two apart and is of no use to anybody.
const SHOWN_OF_SECRETS: usize = 6;
const SECRETS: &[&str] = &["client_secret", "access_token", "refresh_token"];
/// Headers that explain an answer; the others would bury them.
const SHOWN_HEADERS: &[header::HeaderName] = &[
    header::CONTENT_TYPE,
    header::CACHE_CONTROL,
    header::WWW_AUTHENTICATE,
    header::RETRY_AFTER,
    header::LOCATION,
];

/// One request at a time goes through it, and becomes a step.
pub(super) struct Recorder {
    http: reqwest::Client,
    steps: RefCell<Vec<Exchange>>,
}

struct Exchange {
    step: DevStep,
    body: Vec<u8>,
}

impl Recorder {
    pub(super) fn new() -> Result<Self, HttpError> {
        // Redirects would lead a client's credentials elsewhere, and a proxy has no part in talking to oneself.
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self {
            http,
            steps: RefCell::default(),
        })
    }

    /// The body of the latest answer.
    pub(super) fn last_body(&self) -> Vec<u8> {
        self.steps
            .borrow()
            .last()
            .map(|exchange| exchange.body.clone())
            .unwrap_or_default()
    }

    /// What happened; the titles are given in order.
    pub(super) fn into_steps(self, titles: &[&str]) -> Vec<DevStep> {
        let titles = titles
            .iter()
            .map(|title| (*title).to_owned())
            .chain(std::iter::repeat(String::new()));
        self.steps
            .into_inner()
            .into_iter()
            .zip(titles)
            .map(|(exchange, title)| DevStep {
                title,
                ..exchange.step
            })
            .collect()
    }

    async fn call_and_record(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let sent = show_request(&request);
        let begun = Instant::now();
        let result = http_client::send(&self.http, request).await;
        let received = match &result {
            Ok(response) => show_response(response),
            Err(error) => with_causes(error),
        };
        // A step that took no time at all did not happen here, so a quick one counts as one millisecond.
        let duration_ms = u64::try_from(begun.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let body = result
            .as_ref()
            .map(|response| response.body().clone())
            .unwrap_or_default();
        let step = DevStep {
            title: String::new(),
            request: sent,
            response: received,
            duration_ms,
        };
        self.steps.borrow_mut().push(Exchange { step, body });
        result
    }
}

impl<'c> AsyncHttpClient<'c> for Recorder {
    type Error = HttpError;
    type Future = LocalBoxFuture<'c, Result<HttpResponse, HttpError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.call_and_record(request))
    }
}

fn show_request(request: &HttpRequest) -> String {
    let mut text = format!("{} {}\n", request.method(), request.uri());
    show_headers(&mut text, request.headers(), |_| true);
    for (name, value) in url::form_urlencoded::parse(request.body()) {
        let value = if SECRETS.contains(&&*name) {
            shorten(&value)
        } else {
            value.into_owned()
        };
        let _infallible = write!(text, "\n{name}={value}");
    }
    text
}

fn show_response(response: &HttpResponse) -> String {
    let mut text = format!("{}\n", response.status());
    show_headers(&mut text, response.headers(), |name| {
        SHOWN_HEADERS.contains(name)
    });
    let body = match serde_json::from_slice(response.body()) {
        Ok(mut value) => {
            mask(&mut value);
            serde_json::to_string_pretty(&value).unwrap_or_default()
        }
        Err(_not_json) => String::from_utf8_lossy(response.body()).into_owned(),
    };
    let _infallible = write!(text, "\n{body}");
    text
}

fn show_headers(
    text: &mut String,
    headers: &HeaderMap,
    is_shown: impl Fn(&header::HeaderName) -> bool,
) {
    for (name, value) in headers.iter().filter(|(name, _)| is_shown(name)) {
        let value = String::from_utf8_lossy(value.as_bytes());
        let value = match value.split_once(' ') {
            Some((scheme, secret)) if *name == header::AUTHORIZATION => {
                format!("{scheme} {}", shorten(secret))
            }
            None if *name == header::AUTHORIZATION => shorten(&value),
            _ => value.into_owned(),
        };
        let _infallible = writeln!(text, "{name}: {value}");
    }
}

fn mask(body: &mut Value) {
    for name in SECRETS {
        if let Some(Value::String(secret)) = body.get_mut(*name) {
            *secret = shorten(secret);
        }
    }
}

fn shorten(secret: &str) -> String {
    secret.chars().take(SHOWN_OF_SECRETS).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use openidconnect::http;

    use super::*;

    #[test]
    fn no_secret_is_shown_whole() {
        let request = http::Request::post("http://localhost/token")
            .header("authorization", "Basic ZGV2LWFwcDpzZWNyZXQ=")
            .body(b"grant_type=authorization_code&client_secret=verysecretvalue".to_vec())
            .unwrap();
        let text = show_request(&request);
        assert!(text.contains("authorization: Basic ZGV2LW…\n"), "{text}");
        assert!(
            text.contains("client_secret=verys") && !text.contains("verysecretvalue"),
            "{text}"
        );
        let response =
            http::Response::new(br#"{"access_token":"0123456789","token_type":"Bearer"}"#.to_vec());
        let text = show_response(&response);
        assert!(
            text.contains("012345…") && !text.contains("0123456789"),
            "{text}"
        );
    }

    #[test]
    fn an_answer_that_is_not_json_is_shown_as_it_came() {
        let response = http::Response::new(b"<p>Bad gateway".to_vec());
        assert!(show_response(&response).ends_with("\n<p>Bad gateway"));
    }
}
