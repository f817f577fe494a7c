//! Every path of the product.

use actix_web::http::Method;
use actix_web::middleware::from_fn;
use actix_web::{FromRequest, Handler, HttpRequest, Resource, Responder, web};

use super::login::{account_chooser, consent, sign_in, sign_out};
use super::oidc::{
    authorization, cors, discovery, end_session, introspection, jwks, revocation, token, userinfo,
};
use super::{assets, dev, error, health, home, wrong_address};

pub(super) const AUTHORIZE: &str = "/authorize";
pub(super) const TOKEN: &str = "/token";
pub(super) const USERINFO: &str = "/userinfo";
pub(super) const INTROSPECT: &str = "/introspect";
pub(super) const REVOKE: &str = "/revoke";
pub(super) const JWKS: &str = "/jwks";
pub(super) const END_SESSION: &str = "/end-session";
const OPENID_CONFIGURATION: &str = "/.well-known/openid-configuration";
const AUTHORIZATION_SERVER: &str = "/.well-known/oauth-authorization-server";

/// Paths, the methods they take, and whether programs (JSON) or people (pages) read the answers.
pub const TABLE: &[Route] = &[
    // OpenID Connect
    json(
        OPENID_CONFIGURATION,
        &[Method::GET, Method::HEAD, Method::OPTIONS],
    ),
    json(
        AUTHORIZATION_SERVER,
        &[Method::GET, Method::HEAD, Method::OPTIONS],
    ),
    json(JWKS, &[Method::GET, Method::HEAD, Method::OPTIONS]),
    page(AUTHORIZE, &[Method::GET, Method::POST]),
    json(TOKEN, &[Method::POST, Method::OPTIONS]),
    json(USERINFO, &[Method::GET, Method::POST, Method::OPTIONS]),
    json(INTROSPECT, &[Method::POST]),
    json(REVOKE, &[Method::POST, Method::OPTIONS]),
    page(END_SESSION, &[Method::GET, Method::POST]),
    // Pages of a sign-in, and of a sign-out
    page("/login", &[Method::GET, Method::POST]),
    page("/select-account", &[Method::GET, Method::POST]),
    page("/consent", &[Method::GET, Method::POST]),
    page(sign_out::CONFIRM, &[Method::GET, Method::POST]),
    page(sign_out::SIGNED_OUT, &[Method::GET]),
    // Our own
    page("/", &[Method::GET]),
    page("/sign-out", &[Method::POST]),
    page("/static/{hash}/{file:.*}", &[Method::GET, Method::HEAD]),
    json("/livez", &[Method::GET, Method::HEAD]),
    json("/readyz", &[Method::GET, Method::HEAD]),
];

/// The same for the operator's listener.
pub const OPERATOR_TABLE: &[Route] = &[
    json("/metrics", &[Method::GET, Method::HEAD]),
    json("/livez", &[Method::GET, Method::HEAD]),
    json("/readyz", &[Method::GET, Method::HEAD]),
];

/// What is counted together when an address asks too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RouteClass {
    /// What everybody may read and keep: discovery and the key set.
    Documents,
    /// What programs ask, who can prove who they are.
    Clients,
    /// What people see, and every path that is not ours.
    Pages,
}

/// One line of the table.
#[derive(Debug)]
pub struct Route {
    pub path: &'static str,
    pub methods: &'static [Method],
    pub json: bool,
}

const fn json(path: &'static str, methods: &'static [Method]) -> Route {
    Route {
        path,
        methods,
        json: true,
    }
}

const fn page(path: &'static str, methods: &'static [Method]) -> Route {
    Route {
        path,
        methods,
        json: false,
    }
}

/// Puts every path under the issuer's own, and what the specifications want at the host's root there.
pub(crate) fn configure(app: &mut web::ServiceConfig, base: &str, development: bool) {
    if !base.is_empty() {
        // RFC 8414 §3.1 inserts the well-known part before the issuer's path; for OpenID some clients do so too.
        for path in [OPENID_CONFIGURATION, AUTHORIZATION_SERVER] {
            app.service(public(&format!("{path}{base}"), discovery::show));
        }
    }
    let scope = web::scope(base)
        .service(public(OPENID_CONFIGURATION, discovery::show))
        .service(public(AUTHORIZATION_SERVER, discovery::show))
        .service(public(JWKS, jwks::show))
        .service(
            at(AUTHORIZE)
                .route(web::get().to(authorization::get))
                .route(web::post().to(authorization::post)),
        )
        .service(
            at(TOKEN)
                .route(web::post().to(token::post))
                .route(options().to(cors::preflight)),
        )
        .service(
            at(USERINFO)
                .route(web::get().to(userinfo::get))
                .route(web::post().to(userinfo::post))
                .route(options().to(cors::preflight)),
        )
        // For servers only, so without CORS: a page in a browser can keep no secret.
        .service(at(INTROSPECT).route(web::post().to(introspection::post)))
        .service(
            at(REVOKE)
                .route(web::post().to(revocation::post))
                .route(options().to(cors::preflight)),
        )
        .service(
            at(END_SESSION)
                .route(web::get().to(end_session::get))
                .route(web::post().to(end_session::post)),
        )
        .service(
            at("/login")
                .route(web::get().to(sign_in::show))
                .route(web::post().to(sign_in::submit)),
        )
        .service(
            at("/select-account")
                .route(web::get().to(account_chooser::show))
                .route(web::post().to(account_chooser::submit)),
        )
        .service(
            at("/consent")
                .route(web::get().to(consent::show))
                .route(web::post().to(consent::submit)),
        )
        .service(
            at(sign_out::CONFIRM)
                .route(web::get().to(sign_out::show))
                .route(web::post().to(sign_out::submit)),
        )
        .service(at(sign_out::SIGNED_OUT).route(web::get().to(sign_out::show_done)))
        .service(at("/").route(web::get().to(home::show)))
        .service(at("/sign-out").route(web::post().to(home::sign_out)))
        .service(to_read("/static/{hash}/{file:.*}", assets::serve))
        .configure(probes);
    let scope = if base.is_empty() {
        scope
    } else {
        // The issuer itself is an address that people type.
        scope.service(at("").route(web::get().to(home::show)))
    };
    let scope = if development {
        dev::configure(scope)
    } else {
        scope
    };
    app.service(scope.wrap(from_fn(wrong_address::around)));
    app.default_service(web::to(error::not_found));
}

/// The listener for the operator: whether the process lives and is ready, and what it did.
pub(crate) fn configure_management(app: &mut web::ServiceConfig) {
    app.service(to_read("/metrics", health::metrics))
        .configure(probes)
        .default_service(web::to(error::not_found));
}

/// What orchestrators and load balancers ask, at either listener.
fn probes(app: &mut web::ServiceConfig) {
    app.service(to_read("/livez", health::live))
        .service(to_read("/readyz", health::ready));
}

/// A route without the issuer's own path, as the table has it.
pub(super) fn own<'a>(pattern: &'a str, base: &str) -> &'a str {
    // Two well-known paths have the issuer's own path behind them.
    let own = pattern
        .strip_prefix(base)
        .or_else(|| pattern.strip_suffix(base))
        .unwrap_or(pattern);
    if own.is_empty() { "/" } else { own }
}

/// The methods that a path takes, for `Allow`.
pub(super) fn methods(pattern: &str, base: &str) -> Vec<Method> {
    let own = own(pattern, base);
    TABLE
        .iter()
        .chain(OPERATOR_TABLE)
        .find(|route| route.path == own)
        .map(|route| route.methods.to_vec())
        .unwrap_or_default()
}

/// The path as the router reads it: `/%74oken` is the token endpoint, for every rule that goes by a path.
pub(super) fn path_of(request: &HttpRequest) -> &str {
    request.match_info().as_str()
}

/// Whether the handler finds out who asks, and decides itself whom it serves beyond a limit.
pub(super) fn knows_who_asks(method: &Method, path: &str, base: &str) -> bool {
    let own = path.strip_prefix(base).unwrap_or(path);
    let is_taken = |route: &Route| route.path == own && route.methods.contains(method);
    class_of(path, base) == Some(RouteClass::Clients)
        && *method != Method::OPTIONS
        && TABLE.iter().any(is_taken)
}

/// The route behind a path, where it is no pattern.
pub(super) fn of_path(path: &str, base: &str) -> Option<&'static str> {
    let own = own(path, base);
    let found = TABLE.iter().find(|route| route.path == own);
    found.map(|route| route.path)
}

/// What monitoring asks by itself.
pub(super) fn is_probe(route: &str) -> bool {
    matches!(route, "/livez" | "/readyz")
}

/// How requests to this path are counted. Probes and what pages are made of are not: they cost next to nothing.
pub(super) fn class_of(path: &str, base: &str) -> Option<RouteClass> {
    let own = path.strip_prefix(base).unwrap_or(path);
    match own {
        own if is_probe(own) => None,
        TOKEN | USERINFO | INTROSPECT | REVOKE => Some(RouteClass::Clients),
        JWKS => Some(RouteClass::Documents),
        _ if own.starts_with("/static/") => None,
        _ if own.starts_with("/.well-known/") => Some(RouteClass::Documents),
        _ => Some(RouteClass::Pages),
    }
}

/// Whether errors at this path are for programs.
pub(super) fn answers_json(path: &str, base: &str) -> bool {
    let path = path.strip_prefix(base).unwrap_or(path);
    TABLE
        .iter()
        .any(|route| route.json && (path == route.path || path.starts_with("/.well-known/")))
}

fn at(path: &str) -> Resource {
    web::resource(path).default_service(web::to(error::method_not_allowed))
}

/// What is read, or only asked for.
fn to_read<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args> + Clone,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    at(path)
        .route(web::get().to(handler.clone()))
        .route(web::head().to(handler))
}

/// The same for pages of any origin.
fn public<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args> + Clone,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    to_read(path, handler).route(options().to(cors::preflight_for_everyone))
}

fn options() -> actix_web::Route {
    web::method(Method::OPTIONS)
}
