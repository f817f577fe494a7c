//! What is measured, and what counts as done: an answer that was looked at.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::Outcome;
use crate::http::{ACCEPTS, Connection, Response, get, post};
use crate::limits::Limit;
use crate::load::Operation;
use crate::server::{CALLBACK, MACHINE, PASSWORD, SECRET, WEB, WEB_RS256, email};

/// A server, and the people who are signed in there: a cookie header for each worker.
pub(crate) struct Scene {
    port: u16,
    signed_in: Vec<String>,
}

/// A row of the table.
pub(crate) struct Mode {
    pub(crate) name: &'static str,
    /// What of the machine it is held against.
    pub(crate) limit: Option<Limit>,
    start: fn(&Scene, usize) -> Outcome<Box<dyn Operation>>,
}

pub(crate) const MODES: &[Mode] = &[
    mode("discovery", Some(Limit::Actix), |scene, _| {
        let request = get(scene.port, "/.well-known/openid-configuration", &[]);
        Repeated::start(scene, request, "\"token_endpoint\":\"")
    }),
    mode("jwks", Some(Limit::Actix), |scene, _| {
        Repeated::start(scene, get(scene.port, "/jwks", &[]), "\"kty\":\"EC\"")
    }),
    mode(
        "client-credentials",
        Some(Limit::ActixSigning),
        |scene, _| {
            let form = [("grant_type", "client_credentials")];
            let request = post(scene.port, "/token", &[basic(MACHINE).header()], &form);
            Repeated::start(scene, request, "\"access_token\":\"ey")
        },
    ),
    mode("refresh", Some(Limit::Commit), |scene, number| {
        Refresh::start(scene, number, WEB)
    }),
    mode("refresh-rs256", Some(Limit::Rs256), |scene, number| {
        Refresh::start(scene, number, WEB_RS256)
    }),
    mode("code", None, |scene, number| {
        Code::start(scene, number, WEB)
    }),
    mode("code-rs256", Some(Limit::Rs256), |scene, number| {
        Code::start(scene, number, WEB_RS256)
    }),
    mode("introspect", Some(Limit::Actix), |scene, number| {
        let token = Code::new(scene, number, WEB)?.tokens()?.access;
        let form = [("token", token.as_str())];
        let request = post(scene.port, "/introspect", &[basic(WEB).header()], &form);
        Repeated::start(scene, request, "\"active\":true")
    }),
    mode("userinfo", Some(Limit::Actix), |scene, number| {
        let token = Code::new(scene, number, WEB)?.tokens()?.access;
        let bearer = format!("Bearer {token}");
        let request = get(
            scene.port,
            "/userinfo",
            &[ACCEPTS, ("authorization", &bearer)],
        );
        Repeated::start(scene, request, "\"sub\":\"")
    }),
    mode("sign-in-page", Some(Limit::Actix), |scene, _| {
        let (port, mut request) = (scene.port, Asked::new(WEB, 0));
        let mut connection = Connection::open(port)?;
        Ok(Box::new(move || {
            let mut browser = Browser::new(port);
            browser.open_sign_in(&mut connection, request.next_one())?;
            Ok(())
        }))
    }),
    mode("sign-in", Some(Limit::Argon2id), |scene, number| {
        Ok(Box::new(SignIn {
            port: scene.port,
            connection: Connection::open(scene.port)?,
            request: Asked::new(WEB, number),
            login: email(number),
        }))
    }),
];

const fn mode(
    name: &'static str,
    limit: Option<Limit>,
    start: fn(&Scene, usize) -> Outcome<Box<dyn Operation>>,
) -> Mode {
    Mode { name, limit, start }
}

impl Mode {
    pub(crate) fn start(&self, scene: &Scene, number: usize) -> Outcome<Box<dyn Operation>> {
        (self.start)(scene, number)
    }
}

impl Scene {
    /// Signs everybody in.
    pub(crate) fn set(port: u16, people: usize) -> Outcome<Self> {
        let mut connection = Connection::open(port)?;
        let signed_in = (0..people)
            .map(|number| {
                let mut browser = Browser::new(port);
                browser.sign_in(
                    &mut connection,
                    Asked::new(WEB, number).next_one(),
                    &email(number),
                )?;
                Ok(browser.cookies())
            })
            .collect::<Outcome<_>>()?;
        Ok(Self { port, signed_in })
    }
}

/// The same request every time.
struct Repeated {
    connection: Connection,
    request: Vec<u8>,
    expected: &'static str,
}

impl Repeated {
    fn start(
        scene: &Scene,
        request: Vec<u8>,
        expected: &'static str,
    ) -> Outcome<Box<dyn Operation>> {
        let connection = Connection::open(scene.port)?;
        Ok(Box::new(Self {
            connection,
            request,
            expected,
        }))
    }
}

impl Operation for Repeated {
    fn run(&mut self) -> Outcome<()> {
        let body = self.connection.exchange(&self.request)?.expect(200)?;
        if body.contains(self.expected) {
            Ok(())
        } else {
            Err(format!("no {} in {body}", self.expected).into())
        }
    }
}

/// A chain of its own: each answer's refresh token is the next one's question.
struct Refresh {
    port: u16,
    connection: Connection,
    client: Basic,
    token: String,
}

impl Refresh {
    fn start(scene: &Scene, number: usize, client: &'static str) -> Outcome<Box<dyn Operation>> {
        let mut code = Code::new(scene, number, client)?;
        let token = code.tokens()?.refresh;
        Ok(Box::new(Self {
            port: scene.port,
            connection: code.connection,
            client: code.client,
            token,
        }))
    }
}

impl Operation for Refresh {
    fn run(&mut self) -> Outcome<()> {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", &self.token),
        ];
        let request = post(self.port, "/token", &[self.client.header()], &form);
        let next = Tokens::read(&self.connection.exchange(&request)?)?.refresh;
        if next == self.token {
            return Err("the refresh token was not rotated".into());
        }
        self.token = next;
        Ok(())
    }
}

/// Somebody who is signed in opens an app: the authorization request, then the app's token request.
struct Code {
    connection: Connection,
    port: u16,
    client: Basic,
    cookies: String,
    asked: Asked,
}

impl Code {
    fn start(scene: &Scene, number: usize, client: &'static str) -> Outcome<Box<dyn Operation>> {
        Ok(Box::new(Self::new(scene, number, client)?))
    }

    fn new(scene: &Scene, number: usize, client: &'static str) -> Outcome<Self> {
        Ok(Self {
            connection: Connection::open(scene.port)?,
            port: scene.port,
            client: basic(client),
            cookies: scene
                .signed_in
                .get(number)
                .ok_or("nobody is signed in")?
                .clone(),
            asked: Asked::new(client, number),
        })
    }

    fn tokens(&mut self) -> Outcome<Tokens> {
        let asked = self.asked.next_one();
        let request = get(
            self.port,
            &asked.path(),
            &[ACCEPTS, ("cookie", &self.cookies)],
        );
        let code = asked.code(self.connection.exchange(&request)?.location()?)?;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", &asked.verifier()),
        ];
        let request = post(self.port, "/token", &[self.client.header()], &form);
        Tokens::read(&self.connection.exchange(&request)?)
    }
}

impl Operation for Code {
    fn run(&mut self) -> Outcome<()> {
        self.tokens().map(drop)
    }
}

/// Somebody new each time, on a connection that is kept, as proxies do.
struct SignIn {
    port: u16,
    connection: Connection,
    request: Asked,
    login: String,
}

impl Operation for SignIn {
    fn run(&mut self) -> Outcome<()> {
        let mut browser = Browser::new(self.port);
        let asked = self.request.next_one();
        browser
            .sign_in(&mut self.connection, asked, &self.login)
            .map(drop)
    }

    fn goes_on(&self) -> bool {
        self.connection.is_whole()
    }
}

/// An app's authorization requests, no two alike.
struct Asked {
    client: &'static str,
    worker: usize,
    count: usize,
}

impl Asked {
    fn new(client: &'static str, worker: usize) -> Self {
        Self {
            client,
            worker,
            count: 0,
        }
    }

    fn next_one(&mut self) -> &Self {
        self.count += 1;
        self
    }

    fn path(&self) -> String {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier()));
        let query = crate::http::encode(&[
            ("client_id", self.client),
            ("redirect_uri", CALLBACK),
            ("response_type", "code"),
            ("scope", "openid profile email offline_access"),
            ("state", &self.state()),
            ("nonce", &self.state()),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        format!("/authorize?{query}")
    }

    fn state(&self) -> String {
        format!("{}-{}", self.worker, self.count)
    }

    /// Nobody guesses here, so it need not be random.
    fn verifier(&self) -> String {
        format!("{:020}-{:030}", self.worker, self.count)
    }

    /// The code that a redirect brings back to the app.
    fn code(&self, location: &str) -> Outcome<String> {
        let query = location
            .strip_prefix(CALLBACK)
            .and_then(|rest| rest.strip_prefix('?'))
            .ok_or_else(|| format!("the app was not called back but {location}"))?;
        let parameters: BTreeMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).collect();
        if parameters.get("state").map(AsRef::as_ref) != Some(self.state().as_str()) {
            return Err("the answer has another state".into());
        }
        let code = parameters.get("code").ok_or("no code came back")?;
        Ok(code.clone().into_owned())
    }
}

/// A browser without scripts.
struct Browser {
    port: u16,
    jar: BTreeMap<String, String>,
}

impl Browser {
    fn new(port: u16) -> Self {
        Self {
            port,
            jar: BTreeMap::new(),
        }
    }

    fn cookies(&self) -> String {
        let pairs: Vec<_> = self
            .jar
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.join("; ")
    }

    fn keep(&mut self, response: &Response<'_>) {
        let pairs = response
            .headers("set-cookie")
            .filter_map(|cookie| cookie.split(';').next()?.split_once('='));
        self.jar
            .extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    /// From the app to the sign-in page; answers the form's hidden fields.
    fn open_sign_in(
        &mut self,
        connection: &mut Connection,
        asked: &Asked,
    ) -> Outcome<(String, String)> {
        let response = connection.exchange(&get(self.port, &asked.path(), &[ACCEPTS]))?;
        let location = response.location()?.to_owned();
        self.keep(&response);
        let request = get(
            self.port,
            &location,
            &[ACCEPTS, ("cookie", &self.cookies())],
        );
        let page = connection.exchange(&request)?.expect(200)?;
        if !page.contains("id=\"login-submit\"") {
            return Err("the page is not the sign-in page".into());
        }
        Ok((hidden(page, "ticket")?, hidden(page, "csrf")?))
    }

    /// All the way back to the app with a code.
    fn sign_in(
        &mut self,
        connection: &mut Connection,
        asked: &Asked,
        login: &str,
    ) -> Outcome<String> {
        let (ticket, csrf) = self.open_sign_in(connection, asked)?;
        let form = [
            ("ticket", ticket.as_str()),
            ("csrf", &csrf),
            ("login", login),
            ("password", PASSWORD),
            ("action", "sign-in"),
        ];
        let request = post(self.port, "/login", &[("cookie", &self.cookies())], &form);
        let response = connection.exchange(&request)?;
        let code = asked.code(response.location()?)?;
        self.keep(&response);
        Ok(code)
    }
}

/// The value of a hidden field; ours hold nothing that HTML would write differently.
fn hidden(page: &str, name: &str) -> Outcome<String> {
    let start = format!("type=\"hidden\" name=\"{name}\" value=\"");
    let (_, rest) = page
        .split_once(&start)
        .ok_or_else(|| format!("no field {name} in the form"))?;
    let (value, _) = rest.split_once('"').ok_or("a field without an end")?;
    Ok(value.to_owned())
}

struct Tokens {
    access: String,
    refresh: String,
}

impl Tokens {
    /// All three, or it is an error.
    fn read(response: &Response<'_>) -> Outcome<Self> {
        let body = response.expect(200)?;
        let member = |name: &str| {
            let (_, rest) = body.split_once(&format!("\"{name}\":\""))?;
            let (value, _) = rest.split_once('"')?;
            (!value.is_empty()).then(|| value.to_owned())
        };
        let missing = |name: &str| format!("no {name} came");
        member("id_token").ok_or_else(|| missing("id_token"))?;
        Ok(Self {
            access: member("access_token").ok_or_else(|| missing("access_token"))?,
            refresh: member("refresh_token").ok_or_else(|| missing("refresh_token"))?,
        })
    }
}

/// A client's own authentication, as it stands in the header.
struct Basic(String);

fn basic(client: &str) -> Basic {
    Basic(format!(
        "Basic {}",
        STANDARD.encode(format!("{client}:{SECRET}"))
    ))
}

impl Basic {
    fn header(&self) -> (&str, &str) {
        ("authorization", &self.0)
    }
}
