//! What the answer to an app says, and where a person may be sent. RFC 9207; RFC 9700 §4.4, §4.11;
//! OpenID Connect Core §2, §3.1.3.6.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::on_both_databases;
use crate::support::op::SECRET;
use crate::support::relying_party::part;

on_both_databases! {
    fn a7_every_answer_names_the_issuer_and_discovery_says_so(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let refused = browser.get(&rp.authorize(&[("prompt", "none")])).callback();
        assert_eq!((refused["error"].as_str(), &refused["iss"]), ("login_required", &op.issuer));
        let answered = browser.complete(&rp.authorize(&[])).callback();
        assert_eq!(answered["iss"], op.issuer);
        let discovery = rp.answer(rp.http().get(op.url("/.well-known/openid-configuration"))).json;
        assert_eq!(discovery["issuer"], op.issuer);
        assert_eq!(discovery["authorization_response_iss_parameter_supported"], true);
    }

    fn a5_no_parameter_of_ours_sends_a_person_elsewhere(op) {
        for target in ["//evil.example", "/\\evil.example", "\\\\evil.example", "https://evil.example/", "javascript:alert(1)"] {
            let target: String = url::form_urlencoded::byte_serialize(target.as_bytes()).collect();
            for name in ["next", "return_to", "RelayState", "redirect", "url", "continue"] {
                let mut browser = op.browser();
                let page = browser.get(&format!("/login?{name}={target}"));
                let answer = browser.sign_in(&page);
                assert_eq!((answer.status, answer.location()), (200, None), "{name}={target}");
                assert!(answer.url.starts_with(&op.issuer));
                assert!(!answer.body.contains("evil.example"));
            }
        }
    }

    fn b14_an_id_token_says_what_the_specification_wants(op) {
        op.client(json!({ "client_id": "es", "client_secret": SECRET, "id_token_signed_response_alg": "ES256" }));
        let nonce = "n".repeat(64);
        for client in ["rp", "es"] {
            let (mut browser, rp) = (op.browser(), op.rp().named(client));
            let tokens = rp.exchange(&browser.complete(&rp.authorize(&[("nonce", &nonce)])).code(), &[]);
            let claims = tokens.id_token();
            let hash = Sha256::digest(tokens.access_token());
            assert_eq!(claims["at_hash"], URL_SAFE_NO_PAD.encode(&hash[..16]));
            assert_eq!(claims["nonce"], nonce);
            assert_eq!((&claims["aud"], &claims["azp"]), (&json!(client), &json!(client)));
            let subject = claims["sub"].as_str().unwrap();
            assert!(subject.is_ascii() && subject.len() <= 255 && !subject.contains('@'));
            assert!(claims["auth_time"].as_i64() <= claims["iat"].as_i64());
            assert!(claims["iat"].as_i64() <= Some(op.clock.now().seconds()), "never ahead");
            assert!(claims["exp"].as_i64() > claims["iat"].as_i64());
            let kid = part(tokens.text("id_token"), 0)["kid"].clone();
            let keys = rp.answer(rp.http().get(op.url("/jwks"))).json;
            assert!(keys["keys"].as_array().unwrap().iter().any(|key| key["kid"] == kid));
            let without = rp.exchange(&browser.get(&rp.authorize(&[])).code(), &[]).id_token();
            assert_eq!((without.get("nonce"), &without["sub"]), (None, &claims["sub"]));
        }
    }

    fn b12_an_access_token_in_an_address_opens_nothing(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let tokens = rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]);
        let url = format!("{}?access_token={}", op.url("/userinfo"), tokens.access_token());
        for request in [rp.http().get(&url), rp.http().post(&url), rp.http().get(&url).bearer_auth(tokens.access_token())] {
            assert_eq!(rp.answer(request).error(), (400, "invalid_request"));
        }
    }

    fn e10_every_page_keeps_other_windows_away(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let sign_in = browser.get(&rp.authorize(&[]));
        let consent = browser.sign_in(&sign_in);
        let pages = [sign_in, consent, browser.get("/"), browser.get("/nowhere"), browser.get("/authorize")];
        for page in pages {
            assert_eq!(page.header("cross-origin-opener-policy"), "same-origin", "{}", page.url);
        }
    }

    fn o6_whatever_opens_a_door_has_256_random_bits(op) {
        let rp = op.rp();
        op.client(json!({ "client_id": "opaque", "client_secret": SECRET, "access_token_format": "opaque" }));
        let opaque = op.rp().named("opaque");
        let mut seen = BTreeSet::new();
        for _ in 0..5 {
            let mut browser = op.browser();
            let code = browser.complete(&opaque.authorize(&[])).code();
            let token = opaque.exchange(&code, &[]).access_token().to_owned();
            let cookies = ["latchkey-session", "latchkey-browser"].map(|name| browser.cookies[name].clone());
            for secret in [vec![code, token], cookies.to_vec()].concat() {
                assert_eq!(URL_SAFE_NO_PAD.decode(&secret).unwrap().len(), 32, "{secret}");
                assert!(seen.insert(secret), "never the same twice");
            }
        }
        let made = op.seed(json!({ "clients": [{ "client_id": "made", "redirect_uris": [rp.redirect_uri] }] }));
        let [(_, secret)] = made.new_secrets.as_slice() else { panic!("one secret is made") };
        assert_eq!(URL_SAFE_NO_PAD.decode(secret).unwrap().len(), 32);
    }

    fn o5_a_secret_is_right_as_a_whole_or_not_at_all(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let code = browser.complete(&rp.authorize(&[])).code();
        let (shorter, longer) = (&SECRET[..SECRET.len() - 1], format!("{SECRET}x"));
        for wrong in [shorter, &longer, &SECRET.to_uppercase(), " ", ""] {
            let mut rp = rp.clone();
            rp.secret = Some(wrong.to_owned());
            assert_eq!(rp.exchange(&code, &[]).error(), (401, "invalid_client"), "{wrong:?}");
        }
        assert_eq!(rp.exchange(&code[..42], &[]).error(), (400, "invalid_grant"));
        assert_eq!(rp.exchange(&format!("{code}A"), &[]).error(), (400, "invalid_grant"));
        assert_eq!(rp.exchange(&code, &[]).status, 200);
    }
}
