//! Which pages of other origins may read an answer. Fetch standard §3.2; RFC 9700 §2.6.

use reqwest::Method;
use serde_json::json;

use crate::support::on_both_databases;
use crate::support::op::{Op, SECRET};
use crate::support::relying_party::{Answer, Rp};

const APP: &str = "https://app.example";

/// A single-page app with an origin, beside `rp` that has none.
fn app(op: &Op) -> Rp {
    op.client(json!({ "client_id": "spa", "token_endpoint_auth_method": "none", "allowed_cors_origins": [APP] }));
    op.client(json!({ "client_id": "other", "client_secret": SECRET, "allowed_cors_origins": ["https://other.example"] }));
    op.rp().named("spa").public()
}

fn allowed(answer: &Answer) -> Option<&str> {
    assert_eq!(
        answer.headers.get("access-control-allow-credentials"),
        None,
        "never with cookies"
    );
    answer
        .headers
        .get("access-control-allow-origin")
        .map(|value| value.to_str().unwrap())
}

fn preflight(op: &Op, path: &str, origin: &str) -> Answer {
    let rp = op.rp();
    let request = rp.http().request(Method::OPTIONS, op.url(path));
    rp.answer(
        request
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization, content-type",
            ),
    )
}

on_both_databases! {
    fn e9_public_documents_are_for_every_page(op) {
        let rp = op.rp();
        for path in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server", "/jwks"] {
            for origin in [APP, "null", "https://evil.example"] {
                let answer = rp.answer(rp.http().get(op.url(path)).header("origin", origin));
                assert_eq!((answer.status, allowed(&answer)), (200, Some("*")), "{path}");
                let preflight = preflight(&op, path, origin);
                assert_eq!((preflight.status, allowed(&preflight)), (204, Some("*")), "{path}");
                assert_eq!(preflight.headers["access-control-allow-headers"], "*, authorization");
            }
        }
    }

    fn e9_tokens_and_userinfo_are_for_the_origins_of_their_client(op) {
        let rp = app(&op);
        let mut browser = op.browser();
        let code = browser.complete(&rp.authorize_with_pkce(&[])).code();
        let form = [
            ("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", &rp.redirect_uri), ("client_id", "spa"),
            ("code_verifier", crate::support::relying_party::VERIFIER),
        ];
        let token = |origin: &str| rp.answer(rp.http().post(op.url("/token")).form(&form).header("origin", origin));
        let tokens = token(APP);
        assert_eq!((tokens.status, allowed(&tokens)), (200, Some(APP)));
        assert!(tokens.headers.get_all("vary").iter().any(|vary| vary.to_str().unwrap().contains("Origin")));
        let userinfo = |origin: &str| rp.answer(rp.http().get(op.url("/userinfo")).bearer_auth(tokens.access_token()).header("origin", origin));
        assert_eq!((userinfo(APP).status, allowed(&userinfo(APP))), (200, Some(APP)));
        assert_eq!(userinfo(APP).headers["access-control-expose-headers"], "WWW-Authenticate");
        for origin in ["https://other.example", "null"] {
            assert_eq!(allowed(&userinfo(origin)), None, "{origin}");
        }
        let stranger = rp.answer(rp.http().get(op.url("/userinfo")).bearer_auth("unknown").header("origin", APP));
        assert_eq!((stranger.status, allowed(&stranger)), (401, None), "no client, no origin");
        let twice = rp.answer(rp.http().get(op.url("/userinfo")).bearer_auth(tokens.access_token()).header("origin", APP).header("origin", "https://evil.example"));
        assert_eq!(allowed(&twice), None);
        // The code is spent by now, which ends its tokens.
        assert_eq!(allowed(&token(APP)), Some(APP), "the app may read why it was refused");
        for origin in ["https://other.example", "null", "https://app.example.evil.example", "http://app.example", "https://app.example:8443", "https://APP.example"] {
            assert_eq!(allowed(&token(origin)), None, "{origin}");
        }
    }

    fn e9_a_token_request_refused_early_can_be_read_by_the_client_it_names(op) {
        let rp = app(&op);
        let (http, url) = (rp.http(), op.url("/token"));
        let varies = |answer: &Answer| answer.headers.get_all("vary").iter().any(|vary| vary.to_str().unwrap().contains("Origin"));
        let named = [("client_id", "spa"), ("grant_type", "authorization_code")];
        let twice = [named.to_vec(), vec![("code", "a"), ("code", "b")]].concat();
        for origin in [APP, "https://other.example"] {
            let expected = (origin == APP).then_some(APP);
            for request in [http.post(&url).form(&twice), http.post(format!("{url}?x=y")).form(&named)] {
                let answer = rp.answer(request.header("origin", origin));
                assert_eq!((answer.error(), allowed(&answer)), ((400, "invalid_request"), expected));
                assert!(varies(&answer));
            }
        }
        let big = "x".repeat(70_000);
        for (request, status) in [(http.post(&url).header("content-type", "application/json").body("{}"), 415), (http.post(&url).form(&[("x", &big)]), 413)] {
            let answer = rp.answer(request.header("origin", APP));
            assert_eq!((answer.status, allowed(&answer)), (status, None));
            assert!(varies(&answer), "{status}");
        }
    }

    fn e9_a_preflight_is_answered_to_registered_origins(op) {
        app(&op);
        for path in ["/token", "/userinfo"] {
            for origin in [APP, "https://other.example"] {
                let answer = preflight(&op, path, origin);
                assert_eq!((answer.status, allowed(&answer)), (204, Some(origin)), "{path}");
                assert_eq!(answer.headers["access-control-allow-headers"], "authorization, content-type");
                assert_eq!(answer.headers["access-control-allow-methods"], "GET, POST");
            }
            for origin in ["https://evil.example", "null", ""] {
                let answer = preflight(&op, path, origin);
                assert_eq!((answer.status, allowed(&answer)), (204, None), "{path} {origin}");
                assert_eq!(answer.headers.get("access-control-allow-headers"), None);
            }
        }
    }

    fn e9_pages_are_for_no_script_of_another_origin(op) {
        let rp = app(&op);
        for path in ["/", "/login", "/authorize", "/select-account", "/consent", "/sign-out", "/end-session", "/end-session/confirm", "/signed-out", "/livez", "/nowhere"] {
            let answer = rp.answer(rp.http().get(op.url(path)).header("origin", APP));
            assert_eq!(allowed(&answer), None, "{path}");
            assert_eq!(allowed(&preflight(&op, path, APP)), None, "{path}");
        }
        let answer = rp.answer(rp.http().get(rp.authorize_with_pkce(&[])).header("origin", APP));
        assert_eq!(allowed(&answer), None);
    }
}
