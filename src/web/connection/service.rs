//! HTTP over connections that are looked after: the library's own server, with one step before it.

use std::fmt;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive, Protocol, Request, Response};
use actix_server::GracefulShutdownSignal;
use actix_service::{
    IntoServiceFactory, ServiceFactory, ServiceFactoryExt as _, fn_service, map_config,
};
use actix_web::body::MessageBody;
use actix_web::dev::AppConfig;
use actix_web::web;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{ConnectionLimit, Guarded};
use crate::metrics::Bucket;
use crate::web::state::AppState;

/// Within so long the head of a first request is there.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// Longer than proxies keep a connection that they may use again.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// A kind of stream, and where the other end is.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Unpin + 'static {
    /// `None` behind a Unix socket.
    fn peer(&self) -> Option<SocketAddr>;
}

impl Connection for actix_web::rt::net::TcpStream {
    fn peer(&self) -> Option<SocketAddr> {
        // What is written is whole answers: nothing is gained by waiting for more.
        let _gone_already = self.set_nodelay(true);
        self.peer_addr().ok()
    }
}

impl Connection for actix_web::rt::net::UnixStream {
    fn peer(&self) -> Option<SocketAddr> {
        None
    }
}

/// What serves one connection after the other by this application.
pub(crate) fn serve<C, I, S, B>(
    application: I,
    state: web::Data<AppState>,
    limit: ConnectionLimit,
    stopping: GracefulShutdownSignal,
) -> impl ServiceFactory<C, Config = (), Response = (), Error = DispatchError, InitError = ()>
where
    C: Connection,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Future: 'static,
    S::Service: 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    B: MessageBody + 'static,
{
    let application = application
        .into_factory()
        .map_err(|error| error.into().error_response());
    let http = HttpService::build()
        .graceful_shutdown_signal(move || {
            let stopping = stopping.clone();
            async move { stopping.notified().await }
        })
        .keep_alive(KeepAlive::Timeout(KEEP_ALIVE))
        .client_request_timeout(HEAD_DEADLINE)
        .on_connect_ext(|connection: &Guarded<C>, belongings| {
            belongings.insert(connection.exchanges());
        })
        .finish(map_config(application, |()| AppConfig::default()));
    let admit = move |connection: C| {
        let peer = connection.peer();
        let place = limit.admit(peer.map(|peer| peer.ip()), &state.config.trusted_proxies);
        ready(match place {
            Ok(place) => Ok((Guarded::new(connection, place), Protocol::Http1, peer)),
            Err(too_many) => {
                state.metrics.throttled(Bucket::Connections);
                tracing::debug!("{too_many}");
                Err(DispatchError::Io(io::Error::other(too_many)))
            }
        })
    };
    fn_service(admit).and_then(http)
}
