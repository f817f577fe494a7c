//! `latchkey selftest`: an app and a person of its own go the whole way through a running server.
//! OpenID Connect Core §3.1, §12; RFC 7009; RP-Initiated Logout.

use std::error::Error;
use std::future::Future;
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use openidconnect::core::{CoreAuthenticationFlow, CoreClient, CoreIdToken, CoreUserInfoClaims};
use openidconnect::{
    AuthorizationCode, ClientId as AppId, ClientSecret, CsrfToken, EndSessionUrl, IssuerUrl,
    LogoutRequest, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, PostLogoutRedirectUrl,
    ProviderMetadataWithLogout, RedirectUrl, RefreshToken, TokenResponse as _,
};
use reqwest::{Client, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

use super::failure::{Failure, heard_or_not};
use super::guests::{self, Visitor};
use super::http;
use super::output::{self, Format};
use crate::audit::Trail;
use crate::causes::with_causes;
use crate::clock::Clock;
use crate::config::Config;
use crate::http_client::whole;
use crate::identity::email::Email;
use crate::protocol::client::{ClientId, ClientMetadata};
use crate::random;
use crate::seed::{Seed, UserEntry};
use crate::startup;
use crate::store::{Store, users};

/// Nobody is ever sent there: the answer is read from the redirect (RFC 6761 §6.4).
const CALLBACK: &str = "https://selftest.invalid/callback";
const SIGNED_OUT: &str = "https://selftest.invalid/signed-out";

/// Signs a person in to an app, both made for this and removed after it.
pub(super) fn run(
    config: &Config,
    issuer: Option<&str>,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let issuer = issuer.unwrap_or_else(|| config.issuer.as_str());
    let store = startup::open_existing(config, false)?.store;
    guests::remove_leftovers(&store, Clock::system().now())?;
    let test = Selftest::new(issuer, config)?;
    test.enter(&store, config)?;
    let mut report = Report {
        format,
        out,
        failed: false,
    };
    let done = actix_web::rt::System::new().block_on(async {
        tokio::select! {
            done = Box::pin(test.steps(&mut report)) => done,
            () = told_to_end() => Err(Stop::Told),
        }
    });
    test.leave(&store)?;
    match done {
        Err(Stop::Output(error)) => Err(error.into()),
        Err(Stop::Told) => Err(Failure::new("it was told to end before it was done")),
        _ if report.failed => Ok(ExitCode::FAILURE),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// What was made for the test goes, too, when somebody ends it.
async fn told_to_end() {
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

struct Selftest {
    issuer: String,
    http: Client,
    client_id: ClientId,
    client_secret: String,
    email: String,
    password: String,
}

/// Why the steps that follow are not taken.
enum Stop {
    /// One failed, and was reported.
    Failed,
    /// Nothing can be printed.
    Output(std::io::Error),
    /// By a signal.
    Told,
}

struct Report<'a> {
    format: Format,
    out: &'a mut dyn Write,
    failed: bool,
}

impl Report<'_> {
    /// Takes a step and prints how it went.
    async fn step<T>(
        &mut self,
        name: &str,
        work: impl Future<Output = Result<T, String>>,
    ) -> Result<T, Stop> {
        let began = Instant::now();
        let outcome = work.await;
        let ms = (began.elapsed().as_secs_f64() * 10_000.0).round() / 10.0;
        let problem = outcome.as_ref().err();
        let printed = match (self.format, problem) {
            (Format::Table, None) => writeln!(self.out, "ok      {name:<13} {ms:>8.1} ms"),
            (Format::Table, Some(problem)) => {
                writeln!(self.out, "FAILED  {name:<13} {ms:>8.1} ms  {problem}")
            }
            (Format::Json, _) => output::object(
                self.out,
                &json!({ "step": name, "ok": problem.is_none(), "ms": ms, "problem": problem }),
            ),
        };
        heard_or_not(printed).map_err(Stop::Output)?;
        outcome.map_err(|_reported| {
            self.failed = true;
            Stop::Failed
        })
    }
}

impl Selftest {
    fn new(issuer: &str, config: &Config) -> Result<Self, Failure> {
        let name = Visitor::Selftest.new_id();
        let mut password = random::token();
        while password.len() < config.password.minimum_length {
            password.push_str(&random::token());
        }
        Ok(Self {
            issuer: issuer.to_owned(),
            http: http::browser(&config.egress)?,
            email: Visitor::email(&name),
            client_id: ClientId::from_request(&name),
            client_secret: random::token(),
            password,
        })
    }

    fn enter(&self, store: &Store, config: &Config) -> Result<(), Failure> {
        let now = Clock::system().now();
        let person = UserEntry {
            email: self.email.clone(),
            password: Some(self.password.clone()),
            ..UserEntry::default()
        };
        let app = ClientMetadata {
            client_id: Some(self.client_id.to_string()),
            client_secret: Some(self.client_secret.clone()),
            client_name: Some(Visitor::Selftest.app_name().to_owned()),
            redirect_uris: vec![CALLBACK.to_owned()],
            post_logout_redirect_uris: vec![SIGNED_OUT.to_owned()],
            grant_types: Some(vec![
                "authorization_code".to_owned(),
                "refresh_token".to_owned(),
            ]),
            session_refresh_tokens: Some(true),
            skip_consent: Some(true),
            require_pkce: Some(true),
            ..ClientMetadata::default()
        };
        Seed::of_new_user(person, config)?.apply(store, config, now)?;
        Seed::of_new_client(app, config, Vec::new())?.apply(store, config, now)?;
        Ok(())
    }

    fn leave(&self, store: &Store) -> Result<(), Failure> {
        let trail = Trail::of_command(Clock::system().now());
        let (client_id, email) = (self.client_id.clone(), self.email.parse::<Email>()?);
        store.write_blocking(move |tx| {
            guests::remove_app(tx, &trail, &client_id)?;
            if let Some(user) = users::find_by_email(tx, email.key())? {
                guests::remove_person(tx, &trail, &user.id)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    async fn steps(&self, report: &mut Report<'_>) -> Result<(), Stop> {
        let library = http::for_library(&self.http);
        let issuer = IssuerUrl::new(self.issuer.clone());
        // Compares the issuer, too.
        let metadata = report
            .step("discovery", async {
                ProviderMetadataWithLogout::discover_async(issuer.map_err(told)?, &library)
                    .await
                    .map_err(told)
            })
            .await?;
        report
            .step("jwks", async {
                let keys = self.document(&self.endpoint("jwks_uri").await?).await?;
                let keys = keys.get("keys").and_then(Value::as_array);
                if keys.is_none_or(Vec::is_empty) {
                    return Err("there is no key".to_owned());
                }
                Ok(())
            })
            .await?;
        let leaving = metadata.additional_metadata().end_session_endpoint.clone();
        let client = CoreClient::from_provider_metadata(
            metadata,
            AppId::new(self.client_id.to_string()),
            Some(ClientSecret::new(self.client_secret.clone())),
        )
        .set_redirect_uri(RedirectUrl::new(CALLBACK.to_owned()).expect("a constant that is a URL"));

        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (url, state, nonce) = client
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                CsrfToken::new_random,
                Nonce::new_random,
            )
            .set_pkce_challenge(challenge)
            .url();
        let next = report.step("sign-in", self.sign_in(url.clone())).await?;
        let code = report
            .step("code", async {
                let answer = self.back_at_the_app(next).await?;
                self.code_of(&answer, state.secret())
            })
            .await?;
        let tokens = report
            .step("token", async {
                let tokens = client
                    .exchange_code(AuthorizationCode::new(code))
                    .map_err(told)?
                    .set_pkce_verifier(verifier)
                    .request_async(&library)
                    .await
                    .map_err(told)?;
                let id_token = tokens.id_token().ok_or("there is no ID token")?;
                id_token
                    .claims(&client.id_token_verifier(), &nonce)
                    .map_err(told)?;
                Ok(tokens)
            })
            .await?;
        report
            .step("userinfo", async {
                let claims: CoreUserInfoClaims = client
                    .user_info(tokens.access_token().clone(), None)
                    .map_err(told)?
                    .request_async(&library)
                    .await
                    .map_err(told)?;
                (!claims.subject().is_empty())
                    .then_some(())
                    .ok_or_else(|| "there is no sub".to_owned())
            })
            .await?;
        let refreshed = report
            .step("refresh", async {
                let token = tokens.refresh_token().ok_or("there is no refresh token")?;
                client
                    .exchange_refresh_token(&RefreshToken::new(token.secret().clone()))
                    .map_err(told)?
                    .request_async(&library)
                    .await
                    .map_err(told)
            })
            .await?;
        report
            .step("revocation", async {
                let token = refreshed
                    .refresh_token()
                    .ok_or("there is no refresh token")?;
                let form = [("token", token.secret().as_str())];
                let request = self
                    .http
                    .post(self.endpoint("revocation_endpoint").await?)
                    .form(&form);
                let sent = request
                    .basic_auth(self.client_id.as_str(), Some(&self.client_secret))
                    .send();
                expect(&sent.await.map_err(told)?, StatusCode::OK)?;
                let after = client
                    .exchange_refresh_token(&RefreshToken::new(token.secret().clone()))
                    .map_err(told)?
                    .request_async(&library)
                    .await;
                match after {
                    Ok(_) => Err("the token works after it was revoked".to_owned()),
                    Err(_refused) => Ok(()),
                }
            })
            .await?;
        let hint = tokens.id_token().cloned();
        report
            .step("logout", async {
                self.sign_out(leaving, hint).await?;
                let silent = url.query_pairs().chain([("prompt".into(), "none".into())]);
                let mut again = url.clone();
                again.set_query(None);
                again.query_pairs_mut().extend_pairs(silent);
                let answer = self.back_at_the_app(again).await?;
                let refused = answer.query_pairs().any(|(name, value)| {
                    (name.as_ref(), value.as_ref()) == ("error", "login_required")
                });
                refused
                    .then_some(())
                    .ok_or_else(|| "the sign-in goes on after the sign-out".to_owned())
            })
            .await
    }

    /// An address that discovery names.
    async fn endpoint(&self, name: &str) -> Result<String, String> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer);
        let document = self.document(&url).await?;
        let endpoint = document.get(name).and_then(Value::as_str);
        endpoint
            .map(str::to_owned)
            .ok_or_else(|| format!("discovery has no {name}"))
    }

    async fn document(&self, url: &str) -> Result<Value, String> {
        let mut response = self.http.get(url).send().await.map_err(told)?;
        expect(&response, StatusCode::OK)?;
        let body = whole(&mut response).await.map_err(told)?;
        serde_json::from_slice(&body).map_err(told)
    }

    /// As a browser does it: the page, and the form.
    async fn sign_in(&self, url: Url) -> Result<Url, String> {
        let (page, body) = self.follow(url).await?;
        let field = |name: &str| {
            hidden(&body, name)
                .ok_or_else(|| format!("{page} has no field {name}: is it the sign-in page?"))
        };
        let form = [
            ("ticket", field("ticket")?),
            ("csrf", field("csrf")?),
            ("login", self.email.clone()),
            ("password", self.password.clone()),
            ("action", "sign-in".to_owned()),
        ];
        let mut action = page.clone();
        action.set_query(None);
        let origin = page.origin().ascii_serialization();
        let request = self.http.post(action).header(header::ORIGIN, origin);
        let response = request.form(&form).send().await.map_err(told)?;
        location(&response, &page)
            .ok_or_else(|| format!("the form was answered with {}", response.status()))
    }

    fn code_of(&self, answer: &Url, state: &str) -> Result<String, String> {
        let value = |wanted: &str| {
            let mut pairs = answer.query_pairs();
            pairs
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.into_owned())
        };
        if let Some(error) = value("error") {
            let description = value("error_description").unwrap_or_default();
            return Err(format!("{error}: {description}"));
        }
        if value("state").as_deref() != Some(state) {
            return Err("the answer has another state".to_owned());
        }
        if value("iss").as_deref() != Some(&self.issuer) {
            return Err("the answer has another iss (RFC 9207)".to_owned());
        }
        value("code").ok_or_else(|| "the answer has no code".to_owned())
    }

    async fn sign_out(
        &self,
        endpoint: Option<EndSessionUrl>,
        hint: Option<CoreIdToken>,
    ) -> Result<(), String> {
        let endpoint = endpoint.ok_or("discovery has no end_session_endpoint")?;
        let back = PostLogoutRedirectUrl::new(SIGNED_OUT.to_owned()).map_err(told)?;
        let url = LogoutRequest::from(endpoint)
            .set_id_token_hint(&hint.ok_or("there is no ID token")?)
            .set_post_logout_redirect_uri(back)
            .http_get_url();
        let response = self.http.get(url).send().await.map_err(told)?;
        if response.status().is_success() || response.status().is_redirection() {
            Ok(())
        } else {
            Err(format!("it was answered with {}", response.status()))
        }
    }

    /// Where it leads in the end.
    async fn back_at_the_app(&self, mut url: Url) -> Result<Url, String> {
        for _ in 0..MOST_REDIRECTS {
            if url.host_str() == Some("selftest.invalid") {
                return Ok(url);
            }
            let response = self.http.get(url.clone()).send().await.map_err(told)?;
            url = location(&response, &url)
                .ok_or_else(|| format!("{} answers {}", place(&url), response.status()))?;
        }
        Err("there are too many redirects".to_owned())
    }

    /// The page at the end of the redirects.
    async fn follow(&self, mut url: Url) -> Result<(Url, String), String> {
        for _ in 0..MOST_REDIRECTS {
            let mut response = self.http.get(url.clone()).send().await.map_err(told)?;
            match location(&response, &url) {
                Some(next) => url = next,
                None => {
                    let body = whole(&mut response).await.map_err(told)?;
                    expect(&response, StatusCode::OK)?;
                    return Ok((url, String::from_utf8_lossy(&body).into_owned()));
                }
            }
        }
        Err("there are too many redirects".to_owned())
    }
}

const MOST_REDIRECTS: usize = 10;

fn location(response: &Response, from: &Url) -> Option<Url> {
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    from.join(location).ok()
}

fn expect(response: &Response, status: StatusCode) -> Result<(), String> {
    if response.status() == status {
        Ok(())
    } else {
        Err(format!(
            "{} answers {}",
            place(response.url()),
            response.status()
        ))
    }
}

/// Without the query, which may hold what nobody should read.
fn place(url: &Url) -> &str {
    url.path()
}

/// The value of a hidden field of a page of ours, which needs no unescaping.
fn hidden(page: &str, name: &str) -> Option<String> {
    let (_, rest) = page.split_once(&format!("<input type=\"hidden\" name=\"{name}\" value=\""))?;
    let (value, _) = rest.split_once('"')?;
    Some(value.to_owned())
}

fn told(error: impl Error) -> String {
    with_causes(&error)
}
