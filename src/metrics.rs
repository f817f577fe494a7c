//! What monitoring sees, in Prometheus' text format. No label says who: values are few, and none comes from a stranger.

use std::time::Duration;

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    Opts, Registry, TextEncoder,
};

use crate::store::WriteCounters;

/// From what a cache answers to what somebody gives up on, in seconds.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// How an attempt to sign in ended.
#[derive(Clone, Copy, Debug)]
pub enum LoginResult {
    Succeeded,
    Failed,
    Throttled,
    /// Too many passwords waited to be looked at.
    Busy,
}

/// Where something was refused because there was too much of it.
#[derive(Clone, Copy, Debug)]
pub enum Bucket {
    /// Failures of one account from unknown browsers.
    Account,
    /// Failures of one account from a browser that it was used in before.
    Browser,
    /// Failures from one address over all accounts.
    Address,
    /// Wrong secrets of one app from one address.
    Client,
    /// Requests of one address.
    Requests,
    /// Connections of one address.
    Connections,
}

impl Bucket {
    /// The label, and the word in audit events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Browser => "browser",
            Self::Address => "address",
            Self::Client => "client",
            Self::Requests => "requests",
            Self::Connections => "connections",
        }
    }
}

/// The counters of one process.
pub struct Metrics {
    registry: Registry,
    ready: IntGauge,
    requests: HistogramVec,
    logins: IntCounterVec,
    tokens_issued: IntCounterVec,
    token_errors: IntCounterVec,
    refresh_replays: IntCounter,
    throttled: IntCounterVec,
    password_hash: Histogram,
}

impl Metrics {
    /// Everything at zero, and what the store counts beside it.
    pub fn new(writes: &WriteCounters) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, label: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), label)
        };
        let metrics = Self {
            ready: IntGauge::new(
                "latchkey_ready",
                "Whether the database takes reads and writes, as this page was asked for.",
            )?,
            requests: HistogramVec::new(
                HistogramOpts::new(
                    "http_server_request_duration_seconds",
                    "Time from a request to its answer.",
                )
                .buckets(SECONDS.to_vec()),
                &["method", "route", "status"],
            )?,
            logins: counters(
                "latchkey_logins_total",
                "Attempts to sign in, by how they ended.",
                &["method", "result"],
            )?,
            tokens_issued: counters(
                "latchkey_tokens_issued_total",
                "Successful token requests.",
                &["grant_type"],
            )?,
            token_errors: counters(
                "latchkey_token_errors_total",
                "Refused token requests, by the error of RFC 6749.",
                &["error"],
            )?,
            refresh_replays: IntCounter::new(
                "latchkey_refresh_replays_total",
                "Families of refresh tokens that ended because a token was replayed.",
            )?,
            throttled: counters(
                "latchkey_throttled_total",
                "What was refused because there was too much of it.",
                &["bucket"],
            )?,
            password_hash: Histogram::with_opts(
                HistogramOpts::new(
                    "latchkey_password_hash_seconds",
                    "Time that one password took once a core was free.",
                )
                .buckets(SECONDS.to_vec()),
            )?,
            registry: Registry::new(),
        };
        metrics.register(writes)?;
        metrics.begin_at_zero();
        Ok(metrics)
    }

    fn register(&self, writes: &WriteCounters) -> Result<(), prometheus::Error> {
        let registry = &self.registry;
        registry.register(Box::new(self.ready.clone()))?;
        registry.register(Box::new(self.requests.clone()))?;
        registry.register(Box::new(self.logins.clone()))?;
        registry.register(Box::new(self.tokens_issued.clone()))?;
        registry.register(Box::new(self.token_errors.clone()))?;
        registry.register(Box::new(self.refresh_replays.clone()))?;
        registry.register(Box::new(self.throttled.clone()))?;
        registry.register(Box::new(self.password_hash.clone()))?;
        registry.register(Box::new(writes.batch_sizes().clone()))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        Ok(())
    }

    /// A counter that is not there yet looks like a server that is away: rates and alerts need the zero.
    fn begin_at_zero(&self) {
        self.ready.set(1);
        for result in ["succeeded", "failed", "throttled", "busy"] {
            self.logins.with_label_values(&["password", result]);
        }
        for grant_type in ["authorization_code", "refresh_token", "client_credentials"] {
            self.tokens_issued.with_label_values(&[grant_type]);
        }
        for error in [
            "invalid_client",
            "invalid_grant",
            "invalid_request",
            "invalid_scope",
            "invalid_target",
            "server_error",
            "temporarily_unavailable",
            "unauthorized_client",
            "unsupported_grant_type",
        ] {
            self.token_errors.with_label_values(&[error]);
        }
        for bucket in [
            "account",
            "browser",
            "address",
            "client",
            "requests",
            "connections",
        ] {
            self.throttled.with_label_values(&[bucket]);
        }
    }

    /// A request was answered. `method` and `route` are of ours, since a stranger may invent any number of them.
    pub fn request(&self, method: &'static str, route: Option<&str>, status: u16, took: Duration) {
        let status = status.to_string();
        self.requests
            .with_label_values(&[method, route.unwrap_or("_unmatched"), &status])
            .observe(took.as_secs_f64());
    }

    /// Whether the database takes reads and writes.
    pub fn ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// Somebody tried to sign in with a password.
    pub fn login(&self, result: LoginResult) {
        let result = match result {
            LoginResult::Succeeded => "succeeded",
            LoginResult::Failed => "failed",
            LoginResult::Throttled => "throttled",
            LoginResult::Busy => "busy",
        };
        self.logins.with_label_values(&["password", result]).inc();
    }

    /// A token request succeeded.
    pub fn tokens_issued(&self, grant_type: &str) {
        self.tokens_issued.with_label_values(&[grant_type]).inc();
    }

    /// A token request was refused.
    pub fn token_error(&self, error: &str) {
        self.token_errors.with_label_values(&[error]).inc();
    }

    /// A replay ended a family.
    pub fn refresh_replay(&self) {
        self.refresh_replays.inc();
    }

    /// There was too much of something.
    pub fn throttled(&self, bucket: Bucket) {
        self.throttled.with_label_values(&[bucket.as_str()]).inc();
    }

    /// Where hashing tells how long it took.
    pub fn password_hash(&self) -> Histogram {
        self.password_hash.clone()
    }

    /// All of it.
    pub fn to_text(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
