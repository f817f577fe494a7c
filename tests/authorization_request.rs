//! What an authorization request may say, and where its refusal goes. OpenID Connect Core §3.1.2; RFC 9700 §4.1, §4.11.

use std::collections::BTreeMap;

use latchkey::seed::{Format, Seed};
use serde_json::json;
use url::Url;

use crate::support::browser::Page;
use crate::support::on_both_databases;
use crate::support::op::{CALLBACK, SECRET};
use crate::support::relying_party::part;

/// It stopped on a page of ours, whatever the address was.
fn assert_stopped(page: &Page, why: &str) {
    assert_eq!(page.status, 400, "{why}");
    assert_eq!(page.location(), None, "{why}");
    assert!(page.has("#op-error"), "{why}: {}", page.body);
    assert!(
        page.text("#op-error + details, details, .note")
            .contains("invalid_request"),
        "{why}"
    );
    assert!(!page.has("form"), "{why}");
}

on_both_databases! {
    fn a1_only_the_registered_bytes_of_a_redirect_uri_are_answered(op) {
        op.client(json!({ "client_id": "rp2", "client_secret": SECRET, "redirect_uris": [CALLBACK, "https://rp.example/q?foo=bar"] }));
        let mut browser = op.browser();
        for uri in [
            "https://rp.example/callback/", "https://rp.example/callback/x8Kd", "https://rp.example/Callback", "https://RP.example/callback",
            "HTTPS://rp.example/callback", "http://rp.example/callback", "https://rp.example:443/callback", "https://rp.example/callback?a=b",
            "https://rp.example/callback#", "https://rp.example/callback#x", "https://rp.example/x/../callback", "https://rp.example/%63allback",
            "https://rp.example//callback", "https://rp.example\\callback", "https://rp.example/callback%20", "https://rp.example/callback ",
            "https://rp.example.evil.example/callback", "https://rp.example@evil.example/callback", "https://evil.example/https://rp.example/callback",
            "https://evilrp.example/callback", "https:rp.example/callback", "https:/rp.example/callback", "//rp.example/callback", "/callback",
            "https://rp.example%2f@evil.example/callback", "https://ｒｐ.example/callback", "javascript:alert(1)", "data:text/html,x",
            "https://rp.example/callback\u{ad}", "https://rp.example/q", "https://rp.example/q?foo=bar&x=y", "https://rp.example/q?foo=baz",
        ] {
            let page = browser.get(&op.rp().named("rp2").at(uri).authorize(&[]));
            assert_stopped(&page, uri);
        }
        for control in ["%09", "%00", "%0d%0aLocation:%20https://evil.example", "%ff"] {
            let page = browser.get(&op.rp().authorize(&[]).replace("callback", &format!("callback{control}")));
            assert_stopped(&page, control);
        }
    }

    fn a1_the_page_marks_a_difference_only_for_who_knows_the_origin(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let marked = |page: &Page| page.text("mark");
        assert_eq!(marked(&browser.get(&rp.clone().at("https://rp.example/call-back").authorize(&[]))), "-back");
        for uri in ["https://rp.examplf/callback", "https://rp.example:8443/callback", "https://r"] {
            let page = browser.get(&rp.clone().at(uri).authorize(&[]));
            assert!(page.body.contains(uri) && marked(&page).is_empty(), "{uri}");
        }
    }

    fn a1_the_query_of_a_registered_redirect_uri_is_kept(op) {
        let uri = "https://rp.example/q?foo=bar";
        op.client(json!({ "client_id": "q", "client_secret": SECRET, "redirect_uris": [uri] }));
        let (mut browser, rp) = (op.browser(), op.rp().named("q").at(uri));
        let answer = browser.complete(&rp.authorize(&[]));
        assert!(answer.location().unwrap().starts_with("https://rp.example/q?foo=bar&code="));
        assert_eq!(rp.exchange(&answer.code(), &[]).status, 200);
        let refused = browser.get(&rp.authorize(&[("response_type", "token")]));
        assert!(refused.location().unwrap().starts_with("https://rp.example/q?foo=bar&error="));
    }

    fn a1_a_missing_redirect_uri_is_never_guessed(op) {
        op.client(json!({ "client_id": "two", "client_secret": SECRET, "redirect_uris": [CALLBACK, "https://rp.example/b"] }));
        for client in ["rp", "two"] {
            assert_stopped(&op.browser().get(&op.rp().named(client).authorize(&[("redirect_uri", "")])), client);
        }
    }

    fn a2_only_the_port_of_a_loopback_address_may_vary_and_only_for_native_apps(op) {
        let uris = json!(["http://127.0.0.1/cb", "http://[::1]/cb", "http://localhost/cb", "https://127.0.0.1/cb"]);
        op.client(json!({ "client_id": "native", "token_endpoint_auth_method": "none", "application_type": "native", "redirect_uris": uris }));
        op.client(json!({ "client_id": "web", "client_secret": SECRET, "redirect_uris": ["http://127.0.0.1/cb"] }));
        let ask = |client: &str, uri: &str| op.browser().get(&op.rp().named(client).at(uri).authorize_with_pkce(&[]));
        for uri in ["http://127.0.0.1/cb", "http://127.0.0.1:49152/cb", "http://[::1]:8123/cb", "http://localhost/cb"] {
            assert!(ask("native", uri).has("#login-submit"), "{uri}");
        }
        for uri in ["http://localhost:49152/cb", "https://127.0.0.1:8443/cb", "http://127.0.0.1:49152/cb/", "http://127.0.0.1:49152/cb?x=y",
                    "http://127.0.0.2:49152/cb", "http://127.1:49152/cb", "http://127.0.0.1:@evil.example/cb", "http://127.0.0.1:99999/cb", "http://0x7f.1/cb"] {
            assert_stopped(&ask("native", uri), uri);
        }
        assert_stopped(&ask("web", "http://127.0.0.1:49152/cb"), "a web app");
    }

    fn a3_an_administrator_cannot_register_a_dangerous_redirect_uri(op) {
        for uri in ["https://*.rp.example/cb", "https://rp.example/cb#x", "javascript:alert(1)", "data:text/html,x", "http://rp.example/cb",
                    "myapp:/cb", "com.example.app:/cb", "https://u:p@rp.example/cb", "/cb", "https://rp.example/a/../cb", "https://rp.example\\cb"] {
            let seed = json!({ "clients": [{ "client_id": "bad", "client_secret": SECRET, "redirect_uris": [uri] }] });
            assert!(Seed::parse(&seed.to_string(), Format::Json, &op.config).is_err(), "{uri}");
        }
    }

    fn a4_nothing_is_redirected_before_client_and_address_are_known(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        for (why, url) in [
            ("unknown client", rp.clone().named("nobody").authorize(&[])),
            ("unknown client, silently", rp.clone().named("nobody").authorize(&[("prompt", "none")])),
            ("no client", rp.authorize(&[("client_id", "")])),
            ("client twice", format!("{}&client_id=rp", rp.authorize(&[]))),
            ("address twice", format!("{}&redirect_uri={CALLBACK}", rp.authorize(&[]))),
            ("address twice, differently", format!("{}&redirect_uri=https://evil.example/", rp.authorize(&[]))),
            ("nothing", op.url("/authorize")),
            ("too long", rp.authorize(&[("login_hint", &"x".repeat(9_000))])),
        ] {
            assert_stopped(&browser.get(&url), why);
        }
    }

    fn a4_every_other_error_returns_to_the_app_with_state_and_issuer_and_nothing_else(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let state = "x".repeat(128);
        for (parameters, error) in [
            (&[("response_type", "")][..], "invalid_request"),
            (&[("response_type", "magic")], "unsupported_response_type"),
            (&[("scope", "open\"id")], "invalid_scope"),
            (&[("prompt", "none login")], "invalid_request"),
            (&[("prompt", "create")], "invalid_request"),
            (&[("max_age", "-1")], "invalid_request"),
            (&[("max_age", "soon")], "invalid_request"),
            (&[("claims", "{")], "invalid_request"),
            (&[("response_mode", "fragment")], "invalid_request"),
            (&[("request", "eyJhbGciOiJub25lIn0.e30.")], "request_not_supported"),
            (&[("request_uri", "https://rp.example/request.jwt#abc")], "request_uri_not_supported"),
            (&[("registration", "{}")], "registration_not_supported"),
            (&[("nonce", &"n".repeat(3_000))], "invalid_request"),
            (&[("prompt", "none")], "login_required"),
        ] {
            let answer = browser.get(&rp.authorize(&[parameters, &[("state", state.as_str())]].concat()));
            assert_eq!(answer.status, 303, "{parameters:?}");
            assert!(answer.location().unwrap().starts_with("https://rp.example/callback?error="), "{parameters:?}");
            let callback = answer.callback();
            assert_eq!(callback["error"], error, "{parameters:?}");
            assert_eq!((&callback["state"], &callback["iss"]), (&state, &op.issuer), "a7_{parameters:?}");
            let names: Vec<_> = callback.keys().map(String::as_str).collect();
            assert_eq!(names, ["error", "error_description", "iss", "state"]);
            assert_eq!(answer.header("access-control-allow-origin"), "");
        }
        let answer = browser.get(&rp.authorize(&[("prompt", "none"), ("state", "")]));
        assert!(!answer.callback().contains_key("state"), "absent in, absent out");
    }

    fn a6_a_repeated_parameter_is_refused_wherever_it_stands(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        for pair in ["scope=openid", "state=a-state", "response_type=code", "nonce=a&nonce=b", "prompt=login&prompt=login", "unheard=1&unheard=1"] {
            let callback = browser.get(&format!("{}&{pair}", rp.authorize(&[]))).callback();
            assert_eq!(callback["error"], "invalid_request", "{pair}");
            assert!(!callback.contains_key("code"));
        }
        // In the query and in the body at once.
        let answer = browser.post(&rp.authorize(&[]), &[("scope", "openid profile")]);
        assert_eq!(answer.callback()["error"], "invalid_request");
        assert_stopped(&browser.post(&rp.authorize(&[]), &[("redirect_uri", "https://evil.example/")]), "mixed");
        // An empty one is omitted, but two are still two: in the query, in the body, and over both.
        for empty_first in [browser.get(&format!("{}&nonce=&nonce=n", rp.authorize(&[]))),
                            browser.post(&rp.authorize(&[]), &[("nonce", ""), ("nonce", "n")]),
                            browser.post(&format!("{}&nonce=", rp.authorize(&[])), &[("nonce", "n")]),
                            browser.post(&format!("{}&nonce=n", rp.authorize(&[])), &[("nonce", "")])] {
            assert_eq!(empty_first.callback()["error"], "invalid_request");
        }
    }

    fn a8_every_redirect_after_a_form_is_303(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let start = browser.get_once(&rp.authorize(&[]));
        assert_eq!(start.status, 303);
        let page = browser.get(&start.location().unwrap());
        let (action, hidden) = page.form();
        let mut fields: Vec<_> = hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        fields.extend([("login", "alice@example.test"), ("password", "correct-horse-battery")]);
        let after_password = browser.post_once(&action, &fields);
        assert_eq!(after_password.status, 303);
        let page = browser.get(&after_password.location().unwrap());
        assert_eq!(browser.submit(&page, &[("action", "allow")]).status, 303);
        let posted = browser.post_once("/authorize", &[("client_id", "rp"), ("redirect_uri", CALLBACK), ("response_type", "code")]);
        assert_eq!(posted.status, 303);
    }

    fn a13_no_token_ever_travels_in_an_address(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        browser.complete(&rp.authorize(&[]));
        for kind in ["token", "id_token", "id_token token", "code token", "code id_token", "code id_token token", "none", "code code"] {
            let answer = browser.get(&rp.authorize(&[("response_type", kind), ("nonce", "n")]));
            let callback = answer.callback();
            assert_eq!(callback["error"], "unsupported_response_type", "{kind}");
            for name in ["code", "access_token", "id_token"] {
                assert!(!answer.location().unwrap().contains(&format!("{name}=")), "{kind}");
            }
        }
        assert_eq!(browser.get(&rp.authorize(&[("response_mode", "query.jwt")])).callback()["error"], "invalid_request");
    }

    fn an_anonymous_request_writes_no_row(op) {
        let rp = op.rp();
        let before = op.rows();
        for url in [rp.authorize(&[]), rp.authorize(&[("prompt", "none")]), rp.clone().named("nobody").authorize(&[]), op.url("/"), op.url("/login")] {
            let mut browser = op.browser();
            let page = browser.get(&url);
            if page.has("#login-cancel") {
                browser.get(&page.url);
                browser.submit(&page, &[("action", "cancel")]);
            }
        }
        assert_eq!(op.rows(), before);
    }

    fn what_is_unknown_or_only_a_wish_causes_no_error(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let nonce = "n".repeat(64);
        let wishes = [("extra", "foobar"), ("display", "popup"), ("ui_locales", "se"), ("claims_locales", "se"), ("acr_values", "urn:nobody:knows 1 2"),
                      ("login_hint", "nobody@example.test"), ("scope", "openid unheard-of"), ("nonce", nonce.as_str())];
        let page = browser.get(&rp.authorize(&wishes));
        assert_eq!(page.attribute("input[name=login]", "value").as_deref(), Some("nobody@example.test"), "a hint, not a rule");
        let page = browser.sign_in(&page);
        let tokens = rp.exchange(&browser.submit(&page, &[("action", "allow")]).code(), &[]);
        let id_token = tokens.id_token();
        assert_eq!((id_token["nonce"].as_str(), id_token["acr"].as_str()), (Some(nonce.as_str()), Some("1")));
        assert_eq!(tokens.json["scope"], "openid", "RFC 6749 §3.3: what was dropped is told");
    }

    fn a_long_state_comes_back_unchanged(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        for state in [&"s".repeat(1_000), "a b+c&d=e%20f/?#\"'<>ä🗝"] {
            assert_eq!(browser.complete(&rp.authorize(&[("state", state)])).callback()["state"], state);
        }
        assert!(!browser.get(&rp.authorize(&[("state", "")])).callback().contains_key("state"));
    }

    fn a_request_in_a_form_from_another_site_works_like_one_in_the_query(op) {
        let rp = op.rp();
        let mut browser = op.browser();
        browser.complete(&rp.authorize(&[]));
        // A cross-site POST carries no SameSite=Lax cookie and the app's origin; the GET that follows carries ours again.
        let mut foreign = op.browser();
        foreign.headers = vec![("origin".to_owned(), "https://rp.example".to_owned()), ("sec-fetch-site".to_owned(), "cross-site".to_owned())];
        let fields = [("client_id", "rp"), ("redirect_uri", CALLBACK), ("response_type", "code"), ("scope", "openid"), ("state", "a&b"), ("nonce", "n-1")];
        let posted = foreign.post_once("/authorize", &fields);
        assert_eq!(posted.status, 303);
        assert!(foreign.cookies.is_empty());
        let answer = browser.get(&posted.location().unwrap());
        assert_eq!(answer.callback()["state"], "a&b");
        assert_eq!(rp.exchange(&answer.code(), &[]).id_token()["nonce"], "n-1");
        let anonymous = foreign.post("/authorize", &fields);
        assert!(anonymous.has("#login-submit"), "{}", anonymous.body);
    }

    fn a_form_that_is_no_form_is_refused(op) {
        let (rp, url) = (op.rp(), op.url("/authorize"));
        let send = |kind: &'static str, body: &'static str| rp.http().post(&url).header("content-type", kind).body(body).send().unwrap().status().as_u16();
        assert_eq!(send("application/json", "{}"), 415);
        assert_eq!(send("application/x-www-form-urlencoded; charset=utf-16", "a=b"), 415);
        assert_eq!(send("application/x-www-form-urlencoded", "client_id=%ff"), 400);
        assert_eq!(send("application/x-www-form-urlencoded", "client_id=%00"), 400);
        assert_eq!(rp.http().put(&url).send().unwrap().status().as_u16(), 405);
        let huge = rp.http().post(&url).header("content-type", "application/x-www-form-urlencoded").body("x".repeat(70_000)).send().unwrap();
        assert_eq!(huge.status().as_u16(), 413);
    }

    fn e9_the_authorization_endpoint_has_no_cors(op) {
        op.client(json!({ "client_id": "spa", "token_endpoint_auth_method": "none", "allowed_cors_origins": ["https://rp.example"] }));
        let mut browser = op.browser();
        browser.headers.push(("origin".to_owned(), "https://rp.example".to_owned()));
        for url in [op.rp().named("spa").authorize_with_pkce(&[]), op.rp().named("spa").authorize_with_pkce(&[("prompt", "none")])] {
            let answer = browser.get_once(&url);
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (303, ""));
        }
        let preflight = op.rp().http().request(reqwest::Method::OPTIONS, op.url("/authorize")).header("origin", "https://rp.example")
            .header("access-control-request-method", "GET").send().unwrap();
        assert_eq!(preflight.status().as_u16(), 405);
        assert!(!preflight.headers().contains_key("access-control-allow-origin"));
    }

    fn a15_form_post_carries_the_answer_in_escaped_fields(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let hostile = "\"><script>alert(1)</script><input value='";
        let answer = browser.complete(&rp.authorize(&[("response_mode", "form_post"), ("state", hostile)]));
        assert_eq!((answer.status, answer.location()), (200, None));
        let (action, fields) = answer.form();
        assert_eq!(action, CALLBACK);
        let fields: BTreeMap<_, _> = fields.into_iter().collect();
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["code", "iss", "state"]);
        assert_eq!((fields["state"].as_str(), &fields["iss"]), (hostile, &op.issuer));
        assert!(!answer.body.contains("<script>alert"));
        assert_eq!(answer.body.matches("<script").count(), 1, "one, from a file of ours");
        assert!(answer.attribute("script", "src").unwrap().starts_with("/static/"));
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
        assert!(!policy.contains("form-action"), "it posts to the app");
        assert_eq!((answer.header("referrer-policy"), answer.header("cache-control")), ("no-referrer", "no-store"));
        assert!(answer.has("button"), "without scripts a person goes on by hand");
        assert_eq!(rp.exchange(&fields["code"], &[]).status, 200);

        let refused = browser.get(&rp.authorize(&[("response_mode", "form_post"), ("max_age", "x"), ("state", hostile)]));
        let fields: BTreeMap<_, _> = refused.form().1.into_iter().collect();
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["error", "error_description", "iss", "state"]);
    }

    fn a15_what_a_stranger_sends_is_text_on_the_error_page(op) {
        let mut browser = op.browser();
        let hostile = "https://rp.example/callback\"><script>alert(1)</script>";
        let page = browser.get(&op.rp().at(hostile).authorize(&[]));
        assert_stopped(&page, "a hostile address");
        assert!(!page.has("script") && page.text("details code").contains("<script>alert(1)"));
        let page = browser.get(&op.rp().named("<img src=x onerror=alert(1)>").authorize(&[]));
        assert!(!page.has("img"), "{}", page.body);
        let page = browser.get(&op.rp().authorize(&[("login_hint", "\" onfocus=\"alert(1)"), ("prompt", "login")]));
        assert_eq!(page.attribute("input[name=login]", "onfocus"), None);
        assert_eq!(page.attribute("input[name=login]", "value").as_deref(), Some("\" onfocus=\"alert(1)"));
    }

    fn a_page_links_to_no_address_that_a_stranger_made_up(op) {
        for path in ["//evil.example/x", "/%2fevil.example/x", "//evil.example/?ticket=//evil.example", "/\\evil.example/x"] {
            let page = op.browser().get_once(&format!("{}{path}", op.issuer));
            assert_eq!(page.status, 404, "{path}");
            let links = page.all_attributes("a[href]", "href");
            assert!(links.iter().any(|link| link.ends_with("lang=de")), "{path}: {links:?}");
            let here = Url::parse(&format!("{}{path}", op.issuer)).unwrap();
            for link in links {
                assert_eq!(here.join(&link).unwrap().origin(), here.origin(), "{path}: {link}");
            }
        }
    }

    fn an_issuer_with_a_path_works_from_discovery_to_userinfo(op with [("issuer", "http://localhost:{port}/id")]) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let root = op.issuer.strip_suffix("/id").unwrap();
        let addresses = [
            format!("{}/.well-known/openid-configuration", op.issuer), format!("{}/.well-known/oauth-authorization-server", op.issuer),
            format!("{root}/.well-known/openid-configuration/id"), format!("{root}/.well-known/oauth-authorization-server/id"),
        ];
        for address in addresses {
            let answer = rp.answer(rp.http().get(&address));
            assert_eq!((answer.status, answer.text("issuer")), (200, op.issuer.as_str()), "{address}");
            for (name, value) in answer.json.as_object().unwrap().iter().filter(|(name, _)| name.ends_with("_endpoint") || *name == "jwks_uri") {
                assert!(value.as_str().unwrap().starts_with(&format!("{}/", op.issuer)), "{name}");
            }
        }
        assert_eq!(rp.http().get(format!("{root}/.well-known/openid-configuration")).send().unwrap().status().as_u16(), 404);
        let page = browser.get(&rp.authorize(&[]));
        assert!(page.attribute("link[rel=stylesheet]", "href").unwrap().starts_with("/id/static/"));
        assert_eq!(browser.get_once(&page.attribute("link[rel=stylesheet]", "href").unwrap()).status, 200);
        let answer = { let page = browser.sign_in(&page); browser.submit(&page, &[("action", "allow")]) };
        assert_eq!(answer.callback()["iss"], op.issuer);
        assert!(browser.set_cookies.iter().all(|cookie| cookie.contains("; Path=/;") || cookie.ends_with("; Path=/")), "{:?}", browser.set_cookies);
        let tokens = rp.exchange(&answer.code(), &[]);
        assert_eq!((tokens.id_token()["iss"].as_str(), part(tokens.access_token(), 1)["iss"].as_str()), (Some(op.issuer.as_str()), Some(op.issuer.as_str())));
        assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
        assert!(browser.get_once(&rp.authorize(&[("prompt", "none")])).callback().contains_key("code"));
        for address in [op.issuer.clone(), op.url("/")] {
            let home = browser.get(&address);
            assert!(home.has("#logout-confirm"), "{address}: {} {}", home.status, home.body);
        }
        let put = rp.http().put(op.url("/")).send().unwrap();
        assert_eq!((put.status().as_u16(), put.headers()["allow"].to_str().unwrap()), (405, "GET"));
    }
}
