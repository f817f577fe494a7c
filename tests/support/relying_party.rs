//! A client that speaks the protocol by hand, so that it can also speak it wrongly.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::blocking::{Client, RequestBuilder};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::op::{CALLBACK, SECRET};

pub const VERIFIER: &str = "a-code-verifier-that-is-long-enough-to-be-one-0123";

#[derive(Clone)]
pub struct Rp {
    http: Client,
    /// How many connections it keeps for its next requests.
    kept: usize,
    pub issuer: String,
    pub client_id: String,
    pub secret: Option<String>,
    pub redirect_uri: String,
}

/// What the token endpoint, or UserInfo, answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub json: Value,
}

fn client(kept: usize) -> Client {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(kept)
        .build()
        .unwrap()
}

impl Rp {
    pub fn new(issuer: &str) -> Self {
        Self {
            http: client(usize::MAX),
            kept: usize::MAX,
            issuer: issuer.to_owned(),
            client_id: "rp".to_owned(),
            secret: Some(SECRET.to_owned()),
            redirect_uri: CALLBACK.to_owned(),
        }
    }

    pub fn named(mut self, client_id: &str) -> Self {
        self.client_id = client_id.to_owned();
        self
    }

    pub fn public(mut self) -> Self {
        self.secret = None;
        self
    }

    /// The same client as another program would speak for it.
    pub fn from(self, user_agent: &str) -> Self {
        self.sending(user_agent, HeaderMap::new())
    }

    /// The same from an address that a proxy tells.
    pub fn at_address(self, user_agent: &str, address: &str) -> Self {
        let address = HeaderValue::from_str(address).unwrap();
        self.sending(
            user_agent,
            HeaderMap::from_iter([(HeaderName::from_static("x-forwarded-for"), address)]),
        )
    }

    /// The same client, which shares no connection with it and closes its own when it goes.
    pub fn on_connections_of_its_own(mut self) -> Self {
        self.http = client(self.kept);
        self
    }

    /// The same client, which opens a connection for each request.
    pub fn on_a_connection_for_each_request(mut self) -> Self {
        self.kept = 0;
        self.on_connections_of_its_own()
    }

    fn sending(mut self, user_agent: &str, headers: HeaderMap) -> Self {
        self.http = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(user_agent)
            .default_headers(headers)
            .build()
            .unwrap();
        self
    }

    /// The same client, which reaches the server somewhere else than at its issuer.
    pub fn by_way_of(mut self, url: &str) -> Self {
        self.issuer = url.to_owned();
        self
    }

    pub fn at(mut self, redirect_uri: &str) -> Self {
        self.redirect_uri = redirect_uri.to_owned();
        self
    }

    /// An authorization request; a parameter of the list replaces the usual one, an empty one removes it.
    pub fn authorize(&self, parameters: &[(&str, &str)]) -> String {
        let usual = [
            ("client_id", self.client_id.as_str()),
            ("redirect_uri", &self.redirect_uri),
            ("response_type", "code"),
            ("scope", "openid"),
            ("state", "a-state"),
        ];
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let kept = usual
            .iter()
            .filter(|(name, _)| !parameters.iter().any(|(other, _)| other == name));
        query.extend_pairs(
            kept.chain(parameters)
                .filter(|(_, value)| !value.is_empty()),
        );
        format!("{}/authorize?{}", self.issuer, query.finish())
    }

    /// The same with PKCE.
    pub fn authorize_with_pkce(&self, parameters: &[(&str, &str)]) -> String {
        let challenge = challenge();
        let mut all = vec![
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
        ];
        all.extend(parameters);
        self.authorize(&all)
    }

    /// Exchanges a code; extra parameters as for `authorize`.
    pub fn exchange(&self, code: &str, parameters: &[(&str, &str)]) -> Answer {
        self.answer(self.exchanging(code, parameters))
    }

    /// Exchanges a code over a network that may fail.
    pub fn try_exchange(&self, code: &str) -> reqwest::Result<Answer> {
        Self::try_answer(self.exchanging(code, &[]))
    }

    fn exchanging(&self, code: &str, parameters: &[(&str, &str)]) -> RequestBuilder {
        let usual = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", self.redirect_uri.as_str()),
        ];
        let kept = usual
            .iter()
            .filter(|(name, _)| !parameters.iter().any(|(other, _)| other == name));
        let form: Vec<(&str, &str)> = kept
            .chain(parameters)
            .copied()
            .filter(|(_, value)| !value.is_empty())
            .collect();
        self.request("/token", &form)
    }

    /// Refreshes; extra parameters as for `authorize`.
    pub fn refresh(&self, refresh_token: &str, parameters: &[(&str, &str)]) -> Answer {
        self.answer(self.refreshing(refresh_token, parameters))
    }

    /// Refreshes over a network that may fail.
    pub fn try_refresh(&self, refresh_token: &str) -> reqwest::Result<Answer> {
        Self::try_answer(self.refreshing(refresh_token, &[]))
    }

    fn refreshing(&self, refresh_token: &str, parameters: &[(&str, &str)]) -> RequestBuilder {
        let mut form = vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
        ];
        form.extend(parameters);
        self.request("/token", &form)
    }

    /// Asks for a token for the client itself.
    pub fn client_credentials(&self, parameters: &[(&str, &str)]) -> Answer {
        let grant = [("grant_type", "client_credentials")];
        self.post("/token", &[&grant, parameters].concat())
    }

    pub fn introspect(&self, token: &str) -> Answer {
        self.post("/introspect", &[("token", token)])
    }

    pub fn revoke(&self, token: &str) -> Answer {
        self.post("/revoke", &[("token", token)])
    }

    pub fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.answer(self.request(path, form))
    }

    /// A request of this client, which authenticates as it can.
    fn request(&self, path: &str, form: &[(&str, &str)]) -> RequestBuilder {
        let request = self.http.post(format!("{}{path}", self.issuer));
        match &self.secret {
            Some(secret) => request.basic_auth(&self.client_id, Some(secret)).form(form),
            None => {
                let named = [("client_id", self.client_id.as_str())];
                request.form(&[form, &named].concat())
            }
        }
    }

    /// Exchanges a code that was asked for with PKCE.
    pub fn exchange_with_pkce(&self, code: &str) -> Answer {
        self.exchange(code, &[("code_verifier", VERIFIER)])
    }

    pub fn userinfo(&self, access_token: &str) -> Answer {
        self.try_userinfo(access_token).unwrap()
    }

    /// Asks UserInfo over a network that may fail.
    pub fn try_userinfo(&self, access_token: &str) -> reqwest::Result<Answer> {
        let request = self.http.get(format!("{}/userinfo", self.issuer));
        Self::try_answer(request.bearer_auth(access_token))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.answer(self.http.get(format!("{}{path}", self.issuer)))
    }

    pub fn answer(&self, request: RequestBuilder) -> Answer {
        Self::try_answer(request).unwrap()
    }

    fn try_answer(request: RequestBuilder) -> reqwest::Result<Answer> {
        let response = request.send()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let json = serde_json::from_str(&response.text()?).unwrap_or(Value::Null);
        Ok(Answer {
            status,
            headers,
            json,
        })
    }

    pub fn http(&self) -> &Client {
        &self.http
    }
}

impl Answer {
    pub fn text(&self, name: &str) -> &str {
        self.json[name]
            .as_str()
            .unwrap_or_else(|| panic!("no text {name} in {} {}", self.status, self.json))
    }

    /// The OAuth error code, with the status that belongs to it.
    pub fn error(&self) -> (u16, &str) {
        (self.status, self.text("error"))
    }

    pub fn access_token(&self) -> &str {
        self.text("access_token")
    }

    pub fn refresh_token(&self) -> &str {
        self.text("refresh_token")
    }

    /// The ID token's claims; its signature is checked elsewhere, with a library that is not ours.
    pub fn id_token(&self) -> Value {
        part(self.text("id_token"), 1)
    }
}

/// A part of a JWT, decoded.
pub fn part(token: &str, index: usize) -> Value {
    serde_json::from_slice(
        &URL_SAFE_NO_PAD
            .decode(token.split('.').nth(index).unwrap())
            .unwrap(),
    )
    .unwrap()
}

pub fn challenge() -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER))
}
