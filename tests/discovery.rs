//! What is advertised works, and nothing else does. OpenID Connect Discovery §3, §4; RFC 8414.

use std::collections::BTreeSet;

use flate2::read::GzDecoder;
use latchkey::protocol::jose::{KeyPair, Signer, SigningAlgorithm, Typ};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::on_both_databases;
use crate::support::op::{CALLBACK, Op, SECRET};
use crate::support::relying_party::part;

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

const OPENID: &str = "/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server";
const ALL: [(&str, &str); 1] = [("keys.algorithms", "RS256,PS256,ES256,EdDSA")];
const WITH_PATH: [(&str, &str); 1] = [("issuer", "http://localhost:{port}/tenant/id")];

fn document(op: &Op) -> Value {
    let answer = op.rp().get(OPENID);
    assert_eq!(answer.status, 200);
    answer.json
}

fn list(document: &Value, name: &str) -> Vec<String> {
    let values = document[name]
        .as_array()
        .unwrap_or_else(|| panic!("{name} is no list"));
    values
        .iter()
        .map(|value| value.as_str().unwrap().to_owned())
        .collect()
}

on_both_databases! {
    fn the_document_is_one_under_both_names_and_can_be_kept(op) {
        let rp = op.rp();
        let mut tags = BTreeSet::new();
        for path in [OPENID, OAUTH] {
            let answer = rp.answer(rp.http().get(op.url(path)));
            assert_eq!(answer.headers["content-type"], "application/json");
            assert_eq!(answer.headers["access-control-allow-origin"], "*");
            assert!(answer.headers["cache-control"].to_str().unwrap().starts_with("public, max-age="));
            assert_eq!(answer.json, document(&op));
            let tag = answer.headers["etag"].to_str().unwrap().to_owned();
            // As one that leaves compressed, too.
            let strong = tag.strip_prefix("W/").unwrap();
            for known in [tag.clone(), strong.to_owned(), format!("\"other\", {tag}")] {
                let kept = rp.http().get(op.url(path)).header("if-none-match", &known).send().unwrap();
                assert_eq!((kept.status().as_u16(), kept.headers()["etag"].to_str().unwrap()), (304, tag.as_str()), "{known}");
                assert_eq!(kept.headers()["access-control-allow-origin"], "*");
                assert_eq!(kept.text().unwrap(), "");
            }
            assert_eq!(rp.answer(rp.http().get(op.url(path)).header("if-none-match", "\"other\"")).status, 200);
            let squeezed = rp.http().get(op.url(path)).header("accept-encoding", "gzip, deflate, br").send().unwrap();
            assert_eq!((&squeezed.headers()["content-encoding"], &squeezed.headers()["vary"]), (&"gzip".parse().unwrap(), &"accept-encoding".parse().unwrap()));
            let squeezed: Value = serde_json::from_reader(GzDecoder::new(&squeezed.bytes().unwrap()[..])).unwrap();
            assert_eq!(squeezed, answer.json);
            let head = rp.http().head(op.url(path)).send().unwrap();
            assert_eq!((head.status().as_u16(), head.headers()["etag"].to_str().unwrap()), (200, tag.as_str()));
            assert_eq!(rp.answer(rp.http().request(Method::OPTIONS, op.url(path))).status, 204);
            let post = rp.answer(rp.http().post(op.url(path)));
            assert_eq!((post.status, post.headers["allow"].to_str().unwrap()), (405, "GET, HEAD, OPTIONS"));
            tags.insert(tag);
        }
        assert_eq!(tags.len(), 1);
    }

    fn o14_the_issuer_is_one_text_everywhere(op with WITH_PATH) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let document = document(&op);
        assert_eq!(document["issuer"], op.issuer);
        for name in ["authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri", "end_session_endpoint"] {
            assert!(document[name].as_str().unwrap().starts_with(&format!("{}/", op.issuer)), "{name}");
        }
        // RFC 8414 §3.1: the well-known part stands before the issuer's path.
        let (host, path) = op.issuer.split_at(op.issuer.find("/tenant").unwrap());
        for name in [OPENID, OAUTH] {
            let inserted = rp.answer(rp.http().get(format!("{host}{name}{path}")));
            assert_eq!((inserted.status, &inserted.json), (200, &document));
            assert_eq!(rp.answer(rp.http().get(format!("{host}{name}"))).status, 404, "that would be another issuer");
        }
        let callback = browser.complete(&rp.authorize(&[])).callback();
        assert_eq!(callback["iss"], op.issuer);
        assert_eq!(rp.exchange(&callback["code"], &[]).id_token()["iss"], op.issuer);
    }

    fn no_member_is_null_and_every_list_has_its_values_once(op) {
        let document = document(&op);
        for (name, value) in document.as_object().unwrap() {
            assert!(!value.is_null(), "{name}");
            if let Some(values) = value.as_array() {
                let once: BTreeSet<_> = values.iter().map(ToString::to_string).collect();
                assert_eq!(once.len(), values.len(), "{name}");
                assert!(!values.is_empty(), "{name}: zero elements are left out");
            }
        }
        for required in ["issuer", "authorization_endpoint", "token_endpoint", "jwks_uri", "response_types_supported",
                         "subject_types_supported", "id_token_signing_alg_values_supported"] {
            assert!(document.get(required).is_some(), "{required}");
        }
        assert!(list(&document, "id_token_signing_alg_values_supported").contains(&"RS256".to_owned()));
        assert!(list(&document, "scopes_supported").contains(&"openid".to_owned()));
        assert_eq!(document["request_uri_parameter_supported"], false, "absent would mean true");
    }

    fn every_endpoint_that_is_advertised_answers(op) {
        let (document, rp) = (document(&op), op.rp());
        let status = |name: &str, method: Method| {
            rp.answer(rp.http().request(method, document[name].as_str().unwrap())).status
        };
        assert_eq!(status("authorization_endpoint", Method::GET), 400);
        assert_eq!(status("token_endpoint", Method::POST), 415);
        assert_eq!(status("userinfo_endpoint", Method::GET), 401);
        assert_eq!(status("jwks_uri", Method::GET), 200);
        assert_eq!(status("end_session_endpoint", Method::GET), 303);
        assert_eq!(status("end_session_endpoint", Method::POST), 415);
    }

    fn every_scope_claim_and_prompt_that_is_advertised_can_be_asked_for(op) {
        op.client(json!({ "client_id": "rp", "client_secret": SECRET, "grant_types": ["authorization_code", "refresh_token"] }));
        let (document, rp, mut browser) = (document(&op), op.rp(), op.browser());
        let scopes = list(&document, "scopes_supported");
        let code = browser.complete(&rp.authorize(&[("scope", &scopes.join(" "))])).code();
        let granted: BTreeSet<String> = rp.exchange(&code, &[]).text("scope").split(' ').map(str::to_owned).collect();
        assert_eq!(granted, scopes.into_iter().collect());

        let wanted: serde_json::Map<String, Value> = list(&document, "claims_supported").into_iter().map(|name| (name, Value::Null)).collect();
        let claims = json!({ "id_token": wanted, "userinfo": wanted }).to_string();
        let tokens = rp.exchange(&browser.complete(&rp.authorize(&[("claims", &claims)])).code(), &[]);
        assert_eq!(rp.userinfo(tokens.access_token()).json["name"], "Alice Archer");
        let known: Vec<_> = list(&document, "claims_supported");
        for name in tokens.id_token().as_object().unwrap().keys().chain(rp.userinfo(tokens.access_token()).json.as_object().unwrap().keys()) {
            assert!(known.contains(name), "{name} is told but not advertised");
        }

        for prompt in list(&document, "prompt_values_supported") {
            let page = browser.get(&rp.authorize(&[("prompt", &prompt)]));
            let shown = match prompt.as_str() {
                "none" => page.location().is_some_and(|location| location.contains("code=")),
                "login" => page.has("#login-submit"),
                "consent" => page.has("#consent-allow"),
                "select_account" => page.status == 200 && !page.has("#login-submit") && !page.has("#consent-allow"),
                other => panic!("prompt {other}"),
            };
            assert!(shown, "{prompt}: {} {}", page.status, page.body);
        }
        assert_eq!(browser.get(&rp.authorize(&[("prompt", "create")])).callback()["error"], "invalid_request");
    }

    fn response_types_and_modes_are_those_that_are_advertised(op) {
        let (document, rp, mut browser) = (document(&op), op.rp(), op.browser());
        browser.complete(&rp.authorize(&[]));
        let types = list(&document, "response_types_supported");
        for name in ["code", "token", "id_token", "code id_token", "code token", "id_token token", "code id_token token", "none", "CODE"] {
            let callback = browser.get(&rp.authorize(&[("response_type", name), ("nonce", "n")]));
            if types.iter().any(|known| known == name) {
                callback.code();
            } else {
                let location = callback.location().unwrap_or_else(|| panic!("{name}: {} {}", callback.status, callback.body));
                assert!(location.contains("error=unsupported_response_type"), "{name}: {location}");
            }
        }
        let modes = list(&document, "response_modes_supported");
        for name in ["query", "form_post", "fragment", "jwt", "query.jwt", "form_post.jwt", "fragment.jwt", "web_message", "QUERY"] {
            let page = browser.get(&rp.authorize(&[("response_mode", name)]));
            match (modes.iter().any(|known| known == name), name) {
                (true, "form_post") => assert_eq!((page.status, page.form().0.as_str()), (200, CALLBACK)),
                (true, _) => assert_eq!(page.code().len(), 43),
                (false, _) => assert!(page.status == 400 || page.callback()["error"] == "invalid_request", "{name}"),
            }
        }
    }

    fn grant_types_and_client_authentication_are_those_that_are_advertised(op) {
        let (document, rp, mut browser) = (document(&op), op.rp(), op.browser());
        assert_eq!(list(&document, "grant_types_supported"), ["authorization_code", "refresh_token", "client_credentials"]);
        for grant in ["password", "implicit", "urn:ietf:params:oauth:grant-type:token-exchange",
                      "urn:ietf:params:oauth:grant-type:jwt-bearer", "Authorization_Code"] {
            assert_eq!(rp.exchange("x", &[("grant_type", grant)]).error(), (400, "unsupported_grant_type"), "{grant}");
        }
        assert_eq!(
            list(&document, "token_endpoint_auth_methods_supported"),
            ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]
        );
        for endpoint in ["token", "introspection", "revocation"] {
            let algorithms = format!("{endpoint}_endpoint_auth_signing_alg_values_supported");
            assert_eq!(list(&document, &algorithms), ["RS256", "PS256", "ES256", "EdDSA"]);
        }
        let key = KeyPair::generate(SigningAlgorithm::Es256).unwrap();
        for method in list(&document, "token_endpoint_auth_methods_supported") {
            let secret = method.starts_with("client_secret").then_some(SECRET);
            let jwks = (method == "private_key_jwt").then(|| json!({ "keys": [key.public_jwk()] }));
            op.client(json!({ "client_id": method, "client_secret": secret, "jwks": jwks, "token_endpoint_auth_method": method }));
            let client = rp.clone().named(&method);
            let code = browser.complete(&client.authorize_with_pkce(&[])).code();
            let form = vec![("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", CALLBACK),
                            ("code_verifier", crate::support::relying_party::VERIFIER)];
            let post = rp.http().post(op.url("/token"));
            let answer = match method.as_str() {
                "client_secret_basic" => post.basic_auth(&method, Some(SECRET)).form(&form),
                "client_secret_post" => post.form(&[form, vec![("client_id", &method), ("client_secret", SECRET)]].concat()),
                "private_key_jwt" => {
                    let now = op.clock.now().seconds();
                    let claims = json!({ "iss": method, "sub": method, "aud": op.issuer, "exp": now + 60, "jti": "one" });
                    let assertion = Signer::new(&key).unwrap().sign(Typ::IdToken, &claims).unwrap();
                    post.form(&[form, vec![("client_assertion_type", ASSERTION), ("client_assertion", &assertion)]].concat())
                }
                _ => post.form(&[form, vec![("client_id", &method)]].concat()),
            };
            assert_eq!(rp.answer(answer).status, 200, "{method}");
        }
        let assertion = [("client_assertion", "e30.e30."), ("client_assertion_type", ASSERTION)];
        assert_eq!(rp.clone().public().exchange("x", &assertion).error(), (401, "invalid_client"));
    }

    fn signing_algorithms_are_those_that_are_switched_on(op with ALL) {
        let (document, mut browser) = (document(&op), op.browser());
        assert_eq!(list(&document, "id_token_signing_alg_values_supported"), ["RS256", "PS256", "ES256", "EdDSA"]);
        for algorithm in list(&document, "id_token_signing_alg_values_supported") {
            op.client(json!({ "client_id": algorithm, "client_secret": SECRET, "id_token_signed_response_alg": algorithm }));
            let rp = op.rp().named(&algorithm);
            let tokens = rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]);
            assert_eq!(part(tokens.text("id_token"), 0)["alg"], algorithm);
        }
    }

    fn what_is_not_advertised_is_refused_by_its_own_error(op) {
        let (document, rp, mut browser) = (document(&op), op.rp(), op.browser());
        assert_eq!(document["request_parameter_supported"], false);
        assert_eq!(browser.get(&rp.authorize(&[("request", "e30.e30.")])).callback()["error"], "request_not_supported");
        let by_reference = [("request_uri", "https://rp.example/request.jwt")];
        assert_eq!(browser.get(&rp.authorize(&by_reference)).callback()["error"], "request_uri_not_supported");
        assert_eq!(list(&document, "code_challenge_methods_supported"), ["S256"]);
        assert_eq!(list(&document, "subject_types_supported"), ["public"]);
        for name in ["registration_endpoint", "device_authorization_endpoint", "pushed_authorization_request_endpoint"] {
            assert_eq!(document.get(name), None, "{name}: not there yet");
        }
    }

    fn every_language_that_is_advertised_is_spoken(op) {
        let (document, rp, mut browser) = (document(&op), op.rp(), op.browser());
        for language in list(&document, "ui_locales_supported") {
            let page = browser.get(&rp.authorize(&[("ui_locales", &language)]));
            assert_eq!(page.attribute("html", "lang").as_deref(), Some(language.as_str()));
        }
    }
}
