//! A page that was opened under another address than the issuer's. Cookies, passkeys and links would not fit there, so
//! the page says which address is right instead of failing later without a reason.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderName};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpRequest, HttpResponse, web};

use super::extract::client_ip::through_trusted_proxy;
use super::pages::WrongAddress;
use super::routes;
use super::security_headers::PageKind;
use super::state::AppState;
use super::visit::{Visit, html};
use crate::config::Issuer;

/// The middleware. Programs are not bothered: they compare the issuer themselves.
pub(super) async fn around<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if let Some(response) = refuse(request.request()) {
        return Ok(request.into_response(response));
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

fn refuse(request: &HttpRequest) -> Option<HttpResponse> {
    let state = request
        .app_data::<web::Data<AppState>>()
        .expect("every application is built with its state");
    if request.method() != Method::GET || !is_page(routes::path_of(request), state.base()) {
        return None;
    }
    let issuer = &state.config.issuer;
    let opened = opened(request, state).filter(|opened| !opened.is_at(issuer))?;
    tracing::info!(opened = %opened.host, "a page was opened under another address than the issuer's");
    let visit = Visit::new(request, state);
    let page = WrongAddress {
        page: visit.page(),
        opened: opened.url(),
        configured: issuer.as_str().to_owned(),
        line: format!("issuer = {:?}", opened.as_issuer(issuer.path())),
    };
    Some(html(StatusCode::MISDIRECTED_REQUEST, &page, PageKind::Own))
}

/// Where a person's browser believes to be.
struct Opened {
    scheme: Option<String>,
    host: String,
}

impl Opened {
    /// A scheme that nobody told counts as right: TLS may end at a proxy that says nothing about it.
    fn is_at(&self, issuer: &Issuer) -> bool {
        let origin = issuer.origin();
        let (scheme, host) = origin.split_once("://").unwrap_or_default();
        let default_port = if issuer.is_https() { ":443" } else { ":80" };
        let opened = self.host.strip_suffix(default_port).unwrap_or(&self.host);
        opened.eq_ignore_ascii_case(host)
            && self
                .scheme
                .as_deref()
                .is_none_or(|told| told.eq_ignore_ascii_case(scheme))
    }

    fn url(&self) -> String {
        format!(
            "{}://{}",
            self.scheme.as_deref().unwrap_or("http"),
            self.host
        )
    }

    /// The issuer that would be right if this address is: http only where it is allowed.
    fn as_issuer(&self, base: &str) -> String {
        let plain = format!("{}{base}", self.url());
        if plain.parse::<Issuer>().is_ok() {
            plain
        } else {
            format!("https://{}{base}", self.host)
        }
    }
}

/// `None` where nothing can be told: a proxy of ours that keeps the address to itself.
fn opened(request: &HttpRequest, state: &AppState) -> Option<Opened> {
    if through_trusted_proxy(request, &state.config.trusted_proxies) {
        return Some(Opened {
            scheme: text(request, &HeaderName::from_static("x-forwarded-proto")),
            host: text(request, &HeaderName::from_static("x-forwarded-host"))?,
        });
    }
    Some(Opened {
        scheme: None,
        host: text(request, &header::HOST)?,
    })
}

/// Of several proxies the first one saw the person's browser. Whatever it says opens nothing: it only picks a help page.
fn text(request: &HttpRequest, name: &HeaderName) -> Option<String> {
    let value = request.headers().get(name)?.to_str().ok()?;
    let first = value.split(',').next().unwrap_or_default().trim();
    (!first.is_empty()).then(|| first.to_owned())
}

/// Static files stay, since this page itself wants its stylesheet.
fn is_page(path: &str, base: &str) -> bool {
    let own = path.strip_prefix(base).unwrap_or(path);
    !routes::answers_json(path, base) && !own.starts_with("/static/")
}
