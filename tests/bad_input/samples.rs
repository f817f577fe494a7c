//! Requests that are right, taken from a server that runs: what is only nearly right comes furthest.

use latchkey::protocol::jose::{KeyPair, Signer, SigningAlgorithm, Typ};
use latchkey::web::routes::{Route, TABLE};
use serde_json::{Value, json};

use super::request::Request;
use super::throwing::Samples;
use crate::support::browser::{Browser, Page};
use crate::support::installation::Installation;
use crate::support::op::{CALLBACK, EMAIL, PASSWORD, SECRET, now};
use crate::support::relying_party::{Rp, VERIFIER, challenge};

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What the installation must know.
pub fn seed(key: &KeyPair) -> Value {
    json!({
        "users": [
            { "email": EMAIL, "password": PASSWORD, "email_verified": true },
            { "email": "carol@example.test", "password": PASSWORD }
        ],
        "clients": [
            {
                "client_id": "rp", "client_secret": SECRET, "redirect_uris": [CALLBACK], "post_logout_redirect_uris": [CALLBACK],
                "grant_types": ["authorization_code", "refresh_token", "client_credentials"], "allowed_resources": ["https://orders.example/"]
            },
            {
                "client_id": "robot", "token_endpoint_auth_method": "private_key_jwt", "jwks": { "keys": [key.public_jwk()] },
                "redirect_uris": [CALLBACK], "grant_types": ["authorization_code", "client_credentials"]
            }
        ]
    })
}

/// For every route of the table: each of its methods, bare and with a form, and what is known to be right there.
pub fn collect(installation: &Installation, key: &KeyPair) -> Samples {
    let right = right_ones(installation, key);
    TABLE
        .iter()
        .map(|route| {
            let path = path(route);
            let mut requests: Vec<_> = right
                .iter()
                .filter(|request| request.path == path.as_bytes())
                .cloned()
                .collect();
            for method in route.methods {
                let bare = Request::new(method.as_str(), &path);
                let anything = [("client_id", "rp"), ("ticket", "x"), ("token", "x")];
                if method == "POST" {
                    requests.push(bare.clone().form(&anything));
                } else {
                    requests.push(bare.clone().query(&anything));
                }
                requests.push(bare);
            }
            (route.path, requests)
        })
        .collect()
}

/// The address of a route, with something in the place of each of its variables.
pub fn path(route: &Route) -> String {
    let mut path = String::new();
    let mut rest = route.path;
    while let Some((before, variable)) = rest.split_once('{') {
        path.push_str(before);
        path.push('x');
        rest = variable.split_once('}').map_or("", |(_, after)| after);
    }
    path + rest
}

fn right_ones(installation: &Installation, key: &KeyPair) -> Vec<Request> {
    let issuer = &installation.issuer;
    let rp = Rp::new(issuer);
    let (challenge, basic) = (challenge(), basic());
    let asked = [
        ("client_id", "rp"),
        ("redirect_uri", CALLBACK),
        ("response_type", "code"),
        ("scope", "openid email profile offline_access"),
        ("state", "some-state"),
        ("nonce", "some-nonce"),
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
        (
            "claims",
            r#"{"userinfo":{"email":null},"id_token":{"acr":{"essential":false}}}"#,
        ),
        ("max_age", "10000"),
        ("prompt", "login"),
        ("ui_locales", "de en"),
        ("resource", "https://orders.example/"),
    ];
    let mut all = vec![
        Request::new("GET", "/authorize").query(&asked),
        Request::new("POST", "/authorize").form(&asked),
    ];

    // Somebody in the middle of a sign-in, who was not here before.
    let mut newcomer = Browser::new(issuer);
    let page = newcomer.get(&rp.authorize_with_pkce(&[]));
    all.extend(of_page(&newcomer, &page, &[], issuer));
    let typed = [("login", "carol@example.test"), ("password", PASSWORD)];
    all.extend(of_page(&newcomer, &page, &typed, issuer));

    // Somebody who signed in, and what their app got for it.
    let mut browser = Browser::new(issuer);
    let wide = [("scope", "openid email offline_access")];
    let question = browser.get(&rp.authorize_with_pkce(&wide));
    let consent = browser.sign_in_as(&question, EMAIL, PASSWORD);
    all.extend(of_page(&browser, &consent, &[("action", "allow")], issuer));
    let redirect = if consent.has("#consent-allow") {
        browser.submit(&consent, &[("action", "allow")])
    } else {
        consent
    };
    let tokens = rp.exchange_with_pkce(&redirect.code());
    assert_eq!(tokens.status, 200, "{}", tokens.json);
    for path in ["/", "/select-account", "/consent", "/end-session/confirm"] {
        let page = browser.get_once(path);
        all.extend(of_page(&browser, &page, &[], issuer));
    }
    let chooser = browser.get(&rp.authorize_with_pkce(&[("prompt", "select_account")]));
    all.extend(of_page(&browser, &chooser, &[], issuer));
    let leaving = browser.get("/end-session?client_id=rp&state=x");
    all.extend(of_page(&browser, &leaving, &[], issuer));
    let unspent = browser.complete(&rp.authorize_with_pkce(&wide)).code();

    let (access, refresh) = (tokens.access_token(), tokens.refresh_token());
    let forms: [&[(&str, &str)]; 3] = [
        &[
            ("grant_type", "authorization_code"),
            ("code", &unspent),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ],
        &[
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh),
            ("scope", "openid"),
        ],
        &[
            ("grant_type", "client_credentials"),
            ("resource", "https://orders.example/"),
        ],
    ];
    let assertion = assertion(key, issuer);
    for form in forms {
        let token = || Request::new("POST", "/token");
        all.push(token().form(form).header("authorization", &basic));
        let posted = [("client_id", "rp"), ("client_secret", SECRET)];
        all.push(token().form(&[form, &posted].concat()));
        let signed = [
            ("client_assertion_type", ASSERTION),
            ("client_assertion", assertion.as_str()),
        ];
        all.push(token().form(&[form, &signed].concat()));
    }
    for token in [access, refresh] {
        for path in ["/introspect", "/revoke"] {
            let form = [("token", token), ("token_type_hint", "access_token")];
            let request = Request::new("POST", path).form(&form);
            // What is looked at next must not be gone already.
            let wrong = path == "/revoke" && token == access;
            let cut = format!("{token}x");
            let request = if wrong {
                Request::new("POST", path).form(&[("token", &cut)])
            } else {
                request
            };
            all.push(request.header("authorization", &basic));
        }
    }
    let bearer = format!("Bearer {access}");
    all.push(Request::new("GET", "/userinfo").header("authorization", &bearer));
    all.push(Request::new("POST", "/userinfo").header("authorization", &bearer));
    all.push(Request::new("POST", "/userinfo").form(&[("access_token", access)]));
    let hint = [
        ("id_token_hint", tokens.text("id_token")),
        ("post_logout_redirect_uri", CALLBACK),
        ("state", "some-state"),
    ];
    all.push(Request::new("GET", "/end-session").query(&hint));
    all.push(Request::new("POST", "/end-session").form(&hint));
    for path in ["/token", "/userinfo", "/revoke"] {
        all.push(
            Request::new("OPTIONS", path)
                .header("origin", "https://rp.example")
                .header("access-control-request-method", "POST"),
        );
    }
    for file in browser.get("/").all_attributes("link[href]", "href") {
        all.push(Request::new("GET", &file));
    }
    all
}

/// The page itself, and its form as the browser would send it.
pub fn of_page(
    browser: &Browser,
    page: &Page,
    typed: &[(&str, &str)],
    issuer: &str,
) -> Vec<Request> {
    let cookies: Vec<_> = browser
        .cookies
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let cookies = cookies.join("; ");
    let url = url::Url::parse(&page.url).unwrap();
    let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let mut requests = vec![
        Request::new("GET", url.path())
            .query(&borrowed(&query))
            .header("cookie", &cookies),
    ];
    if page.has("form") {
        let (action, hidden) = page.form();
        let action = url.join(&action).unwrap();
        let fields = [borrowed(&hidden), typed.to_vec()].concat();
        requests.push(
            Request::new("POST", action.path())
                .form(&fields)
                .header("cookie", &cookies)
                .header("origin", issuer)
                .header("sec-fetch-site", "same-origin"),
        );
    }
    requests
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

fn basic() -> String {
    use base64::Engine as _;
    let credentials = format!("rp:{SECRET}");
    let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
    format!("Basic {encoded}")
}

fn assertion(key: &KeyPair, issuer: &str) -> String {
    let seconds = now().seconds();
    let claims = json!({
        "iss": "robot", "sub": "robot", "aud": issuer, "exp": seconds + 240, "iat": seconds, "jti": latchkey::random::id()
    });
    let signer = Signer::new(key).unwrap();
    signer.sign(Typ::IdToken, &claims).unwrap()
}

/// A key for the client that signs.
pub fn key() -> KeyPair {
    KeyPair::generate(SigningAlgorithm::Es256).unwrap()
}
