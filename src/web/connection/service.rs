//! HTTP over connections that are looked after: the library's own server, with one step before it.

use std::fmt;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive, Protocol, Request, Response};
use actix_server::{GracefulShutdownSignal, Server, ServerBuilder};
use actix_service::{
    IntoServiceFactory, ServiceFactory, ServiceFactoryExt as _, fn_service, map_config,
};
use actix_web::body::MessageBody;
use actix_web::dev::AppConfig;
use actix_web::rt::net::{TcpStream, UnixStream};
use actix_web::web;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{ConnectionLimit, Guarded};
use crate::listening::Listener;
use crate::metrics::Bucket;
use crate::web::state::AppState;

/// Within so long the head of a first request is there.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// Longer than proxies keep a connection that they may use again.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// A kind of stream, and where the other end is.
trait Connection: AsyncRead + AsyncWrite + Unpin + 'static {
    /// `None` behind a Unix socket.
    fn peer(&self) -> Option<SocketAddr>;
}

impl Connection for TcpStream {
    fn peer(&self) -> Option<SocketAddr> {
        // What is written is whole answers: nothing is gained by waiting for more.
        let _gone_already = self.set_nodelay(true);
        self.peer_addr().ok()
    }
}

impl Connection for UnixStream {
    fn peer(&self) -> Option<SocketAddr> {
        None
    }
}

/// Runs a server of this application, and says at which address.
pub(crate) fn run<A, I, S, B>(
    listener: Listener,
    builder: ServerBuilder,
    state: web::Data<AppState>,
    application: A,
) -> io::Result<(Server, Option<SocketAddr>)>
where
    A: Fn() -> I + Clone + Send + 'static,
    I: IntoServiceFactory<S, Request> + 'static,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Future: 'static,
    S::Service: 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    B: MessageBody + 'static,
{
    let builder = builder.disable_signals();
    let (limit, stopping) = (ConnectionLimit::new(), builder.graceful_shutdown_signal());
    let (builder, address) = match listener {
        Listener::Tcp(listener) => {
            let address = listener.local_addr()?;
            let builder = builder.listen("http", listener, move || {
                serve::<TcpStream, _, _, _>(
                    application(),
                    state.clone(),
                    limit.clone(),
                    stopping.clone(),
                )
            })?;
            (builder, Some(address))
        }
        Listener::Unix(listener) => {
            let builder = builder.listen_uds("http", listener, move || {
                serve::<UnixStream, _, _, _>(
                    application(),
                    state.clone(),
                    limit.clone(),
                    stopping.clone(),
                )
            })?;
            (builder, None)
        }
    };
    Ok((builder.run(), address))
}

/// What serves one connection after the other by this application.
fn serve<C, I, S, B>(
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
