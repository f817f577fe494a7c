//! How many requests one address may send to one kind of route: actix-governor's, and all that knows of that library.
//! OWASP ASVS 5.0 §2.4.1.
//!
//! What an address asks without proving who it is gets 429 beyond the limit. The backend of an app that authenticates, or
//! shows a good access token, is one address for all of its people, and is counted but served.

use std::convert::Infallible;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use actix_governor::governor::middleware::NoOpMiddleware;
use actix_governor::{
    Governor, GovernorConfig, GovernorConfigBuilder, GovernorResult, KeyExtractor,
};
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, HttpRequest, HttpResponse, web};
use ipnet::IpNet;

use super::error::{self, About};
use super::extract::client_ip::client_ip;
use super::pages::ErrorKind;
use super::routes;
use super::state::AppState;
use super::visit::Visit;
use crate::config::Config;
use crate::identity::throttle::network;
use crate::metrics::Bucket;
use crate::protocol::error::{ErrorCode, OAuthError};

const MINUTE: Duration = Duration::from_secs(60);
/// So many counters there are at most, whoever sends requests from wherever. Whom chance puts together shares a limit.
const COUNTERS: u64 = 1 << 17;

/// The counters of one server, shared by its threads.
#[derive(Clone)]
pub(crate) struct AddressLimit {
    config: GovernorConfig<ByAddressAndClass, NoOpMiddleware>,
    enabled: bool,
}

impl AddressLimit {
    /// As the configuration says; 0 switches it off.
    pub(crate) fn new(config: &Config) -> Self {
        let by = ByAddressAndClass {
            trusted_proxies: config.trusted_proxies.clone().into(),
            base: config.issuer.path().into(),
            hasher: Arc::new(RandomState::new()),
        };
        Self::of(config.throttle.address_requests, by)
    }

    fn of(requests: u32, by: ByAddressAndClass) -> Self {
        let config = GovernorConfigBuilder::default()
            .period(MINUTE / requests.max(1))
            .burst_size(requests.max(1))
            .permissive(true)
            .key_extractor(by)
            .finish()
            .expect("neither the period nor the size is zero");
        let enabled = requests > 0;
        Self { config, enabled }
    }

    /// Whether anything is counted.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The counting itself; [`refuse`] acts on it.
    pub(crate) fn counting(&self) -> Governor<ByAddressAndClass, NoOpMiddleware> {
        Governor::new(&self.config)
    }

    /// Forgets who was quiet for long enough to have the whole limit again; the library never does so by itself.
    pub(crate) fn forget_quiet(&self) {
        let limiter = self.config.limiter();
        limiter.retain_recent();
        limiter.shrink_to_fit();
    }
}

/// Numbers the address and the kind of route. The hash is keyed, so that nobody can choose whose counter to share.
#[derive(Clone)]
pub(crate) struct ByAddressAndClass {
    trusted_proxies: Arc<[IpNet]>,
    base: Arc<str>,
    hasher: Arc<RandomState>,
}

impl KeyExtractor for ByAddressAndClass {
    /// Nothing where nobody is to be counted.
    type Key = Option<u64>;
    type KeyExtractionError = Infallible;

    fn extract(&self, request: &ServiceRequest) -> Result<Self::Key, Infallible> {
        let class = routes::class_of(routes::path_of(request.request()), &self.base);
        let address = client_ip(request.request(), &self.trusted_proxies);
        Ok(class
            .zip(address.map(network))
            .map(|counted| self.hasher.hash_one(counted) % COUNTERS))
    }

    fn whitelisted_keys(&self) -> Vec<Self::Key> {
        vec![None]
    }
}

/// Refuses what is beyond the limit, except where the handler finds out who asks and decides itself.
pub(crate) async fn refuse<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<actix_web::body::EitherBody<B>>, Error> {
    let state = request
        .app_data::<web::Data<AppState>>()
        .expect("every application is built with its state");
    let path = routes::path_of(request.request());
    let decides_itself = || routes::knows_who_asks(request.method(), path, state.base());
    if !is_exceeded(request.request()) || decides_itself() {
        return next
            .call(request)
            .await
            .map(ServiceResponse::map_into_left_body);
    }
    let refusal = if routes::answers_json(path, state.base()) {
        refusal_json(request.request())
    } else {
        refusal_page(request.request(), state)
    };
    Ok(request.into_response(refusal).map_into_right_body())
}

/// Whether this request is beyond the limit of its address, for handlers that serve whom they know all the same.
pub(in crate::web) fn is_exceeded(request: &HttpRequest) -> bool {
    wait(request).is_some()
}

/// The refusal for programs (RFC 6585 §4).
pub(in crate::web) fn refusal_json(request: &HttpRequest) -> HttpResponse {
    tell(request);
    let refusal = OAuthError::new(
        ErrorCode::TemporarilyUnavailable,
        "too many requests from this address; try again later",
    );
    let mut response = error::json_with(StatusCode::TOO_MANY_REQUESTS, &refusal);
    retry_after(request, &mut response);
    response
}

fn refusal_page(request: &HttpRequest, state: &web::Data<AppState>) -> HttpResponse {
    tell(request);
    let visit = Visit::new(request, state);
    let status = StatusCode::TOO_MANY_REQUESTS;
    let mut response = error::page(&visit, status, ErrorKind::TooMany, About::default());
    retry_after(request, &mut response);
    response
}

fn tell(request: &HttpRequest) {
    if let Some(state) = request.app_data::<web::Data<AppState>>() {
        state.metrics.throttled(Bucket::Requests);
    }
    tracing::debug!("an address sent too many requests");
}

fn retry_after(request: &HttpRequest, response: &mut HttpResponse) {
    // The library counts whole seconds that have passed; one more, and the next request is taken.
    let seconds = wait(request).unwrap_or_default().saturating_add(1);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
}

/// Seconds until the address may ask again, if it has asked too often.
fn wait(request: &HttpRequest) -> Option<u64> {
    let extensions = request.extensions();
    let result = extensions.get::<GovernorResult<Infallible>>()?;
    result.check().ok().flatten()
}

#[cfg(test)]
impl AddressLimit {
    /// Counts one request each of so many addresses.
    pub(crate) fn note(&self, addresses: u64) {
        for address in 0..addresses {
            let limiter = self.config.limiter();
            limiter.check_key(&Some(address)).expect("the first one");
        }
    }

    /// How many counters there are.
    pub(crate) fn counters(&self) -> usize {
        self.config.limiter().len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Instant;

    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn n12_however_many_networks_a_proxy_names_there_are_so_many_counters_at_most() {
        const NETWORKS: u32 = 2_000;
        let proxy = "192.0.2.1:443".parse().expect("an address");
        let by = ByAddressAndClass {
            trusted_proxies: Arc::from(["192.0.2.1/32".parse().expect("a network")]),
            base: Arc::from(""),
            hasher: Arc::default(),
        };
        let counter = |network: u32, host: u32| {
            let address = format!(
                "2001:db8:{:x}:{:x}::{host:x}",
                network >> 16,
                network & 0xffff
            );
            let request = TestRequest::with_uri("/jwks").peer_addr(proxy);
            let request = request.insert_header(("x-forwarded-for", address));
            let Ok(key) = by.extract(&request.to_srv_request());
            key.expect("somebody is counted")
        };
        let counters: HashSet<_> = (0..NETWORKS).map(|network| counter(network, 1)).collect();
        assert!(counters.iter().all(|counter| *counter < COUNTERS));
        // By chance two may meet in one, and hardly ever do.
        assert!(counters.len() > 1_900, "{}", counters.len());
        assert_eq!(counter(7, 1), counter(7, 0xffff), "a whole network is one");
    }

    #[test]
    fn who_was_quiet_for_long_enough_is_forgotten_and_nobody_else() {
        let by = ByAddressAndClass {
            trusted_proxies: Arc::default(),
            base: Arc::from("/"),
            hasher: Arc::default(),
        };
        // One request in 10 ms.
        let limit = AddressLimit::of(6_000, by);
        let limiter = limit.config.limiter();
        limit.note(1_000);
        for _ in 0..7_000 {
            let _taken_or_refused = limiter.check_key(&Some(7));
        }
        assert_eq!(limit.counters(), 1_000);
        let began = Instant::now();
        while limit.counters() > 1 && began.elapsed() < Duration::from_secs(10) {
            limit.forget_quiet();
        }
        assert_eq!(limit.counters(), 1);
    }

    #[test]
    fn an_address_of_ipv6_counts_with_its_whole_64() {
        let of = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
    }
}
