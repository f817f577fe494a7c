//! The hosted pages as a person's browser gets them: hooks, headers, languages, size, and what stands on error pages.
//! OWASP ASVS 5.0 §3.4, §14.3; RFC 9700 §4.16.

use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HOST};
use serde_json::json;

use crate::support::browser::{Browser, Page};
use crate::support::on_both_databases;
use crate::support::op::{CALLBACK, Op, SECRET};

/// Every kind of page, with its name; the first four may end at an app.
fn every_page(op: &Op) -> Vec<(&'static str, Page)> {
    let (mut browser, rp) = (op.browser(), op.rp());
    let sign_in = browser.get(&rp.authorize(&[("scope", "openid profile email")]));
    let consent = browser.sign_in(&sign_in);
    let chooser = browser.get(&rp.authorize(&[("prompt", "select_account")]));
    op.client(json!({ "client_id": "leaving", "client_secret": SECRET, "post_logout_redirect_uris": [CALLBACK] }));
    let question = format!("/end-session?client_id=leaving&post_logout_redirect_uri={CALLBACK}");
    vec![
        ("sign-in", sign_in),
        ("consent", consent),
        ("chooser", chooser),
        ("sign-out to an app", browser.get(&question)),
        ("sign-out", browser.get("/end-session")),
        ("last page", op.browser().get("/end-session")),
        ("home", browser.get("/")),
        ("signed out", op.browser().get("/")),
        (
            "wrong sign-out",
            browser.get("/end-session?id_token_hint=x"),
        ),
        (
            "wrong redirect",
            browser.get(&rp.clone().at("https://evil.example/").authorize(&[])),
        ),
        (
            "unknown app",
            browser.get(&rp.named("nobody").authorize(&[])),
        ),
        ("unknown path", browser.get("/nothing/here")),
        ("a method", browser.post("/", &[])),
        ("forged ticket", browser.get("/consent?ticket=AAAA")),
        (
            "forged form",
            browser.post("/sign-out", &[("session", "x")]),
        ),
    ]
}

/// Asks as somebody who typed another address.
fn opened_at(op: &Op, host: &str, path: &str) -> Browser {
    let mut browser = Browser::new(&format!("http://{}", op.config.listen));
    browser.headers.push((HOST.to_string(), host.to_owned()));
    assert!(path.starts_with('/'));
    browser
}

fn look(op: &Op, host: &str, path: &str) -> Page {
    opened_at(op, host, path).get_once(path)
}

/// What crosses the line for an address, as a modern browser asks.
fn bytes_moved(op: &Op, url: &str) -> usize {
    let response = op
        .rp()
        .http()
        .get(url)
        .header(ACCEPT_ENCODING, "gzip, deflate, br, zstd")
        .send()
        .unwrap();
    assert_eq!(response.status().as_u16(), 200, "{url}");
    assert_eq!(response.headers()[CONTENT_ENCODING], "gzip", "{url}");
    response.bytes().unwrap().len()
}

on_both_databases! {
    fn the_hooks_of_the_sign_in_and_consent_pages_are_there(op) {
        let pages = every_page(&op);
        for hook in ["input[name=login]", "input[name=password]", "#login-submit", "#login-cancel", "input[autocomplete=current-password]",
                     "label[for=login]", "label[for=password]", "input[name=ticket]", "input[name=csrf]"] {
            assert!(pages[0].1.has(hook), "{hook}");
        }
        assert!(!pages[0].1.has("input[name=login][readonly], input[name=login][disabled], script"));
        for hook in ["#consent-allow", "#consent-deny", ".pair > #consent-allow", ".pair > #consent-deny"] {
            assert!(pages[1].1.has(hook), "{hook}");
        }
        for (name, page) in &pages[8..] {
            assert!(page.has("#op-error"), "{name}");
            assert!(page.status >= 400, "{name}");
        }
        for hook in ["#logout-confirm", "input[name=ticket]", "input[name=csrf]"] {
            assert!(pages[3].1.has(hook) && pages[4].1.has(hook), "{hook}");
        }
        for (name, page) in [&pages[5], &pages[7]] {
            assert!(page.has("#logout-continue") && page.body.to_lowercase().contains("signed out"), "{name}");
        }
    }

    fn a9_no_page_can_be_framed_cached_or_run_foreign_code(op) {
        for (name, page) in every_page(&op) {
            let policy = page.header("content-security-policy");
            for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "script-src 'self'", "style-src 'self'"] {
                assert!(policy.contains(part), "{name}: {policy}");
            }
            assert!(!policy.contains("unsafe") && !policy.contains("http") && !policy.contains('*'), "{name}: {policy}");
            assert_eq!(page.header("x-frame-options"), "DENY", "{name}");
            assert_eq!(page.header("cross-origin-opener-policy"), "same-origin", "e10_{name}");
            assert_eq!(page.header("x-content-type-options"), "nosniff", "o7_{name}");
            assert!(!page.header("permissions-policy").is_empty() && !page.header("referrer-policy").is_empty(), "o7_{name}");
            assert_eq!(page.header("cache-control"), "no-store", "o8_{name}");
            assert_eq!(page.header("strict-transport-security"), "", "o7_{name}: an http issuer");
            assert_eq!(page.header("access-control-allow-origin"), "", "{name}");
            assert!(!page.has("[style], style, [onclick], script:not([src])"), "{name}: nothing inline");
            assert!(page.has("html[lang][dir] head title") && page.has("h1") && page.has("main"), "{name}");
        }
    }

    fn form_action_is_left_out_inside_a_transaction_and_set_elsewhere(op) {
        for (index, (name, page)) in every_page(&op).into_iter().enumerate() {
            let sets = page.header("content-security-policy").contains("form-action 'self'");
            assert_eq!(sets, index > 3, "{name}");
        }
    }

    fn o8_what_is_public_may_be_cached_and_the_rest_may_not(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let tokens = rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]);
        assert_eq!(tokens.headers["cache-control"], "no-store");
        assert_eq!(rp.userinfo(tokens.access_token()).headers["cache-control"], "no-store");
        for path in ["/jwks", "/.well-known/openid-configuration"] {
            let answer = rp.answer(rp.http().get(op.url(path)));
            assert!(answer.headers["cache-control"].to_str().unwrap().contains("max-age="), "{path}");
        }
    }

    fn o7_an_https_issuer_sends_hsts_and_host_cookies(op with [("issuer", "https://op.example")]) {
        let mut browser = opened_at(&op, "op.example", "/");
        let page = browser.get_once(&op.rp().authorize(&[]).replace("https://op.example", ""));
        assert_eq!(page.status, 303);
        let page = browser.get_once(&page.location().unwrap());
        assert!(page.header("strict-transport-security").starts_with("max-age="));
        let page = browser.sign_in(&page);
        assert!(page.has("#consent-allow"), "{}", page.body);
        assert!(!browser.set_cookies.is_empty());
        for cookie in &browser.set_cookies {
            assert!(cookie.starts_with("__Host-latchkey-"), "e2_{cookie}");
            for part in ["; Secure", "; HttpOnly", "; Path=/", "; SameSite=Lax"] {
                assert!(cookie.contains(part), "e2_{cookie}");
            }
            assert!(!cookie.contains("Domain"), "e2_{cookie}");
        }
    }

    fn a10_the_consent_page_names_app_host_account_and_values(op) {
        op.client(json!({ "client_id": "rp", "client_name": "Acme Notes", "client_secret": SECRET, "redirect_uris": [CALLBACK],
                          "policy_uri": "https://rp.example/privacy", "tos_uri": "https://rp.example/terms" }));
        let (mut browser, rp) = (op.browser(), op.rp());
        let sign_in = browser.get(&rp.authorize(&[("scope", "openid profile email address phone")]));
        for page in [sign_in.clone(), browser.sign_in(&sign_in)] {
            let text = page.text("main");
            assert!(text.contains("Acme Notes"), "{text}");
            assert!(page.has("footer a[href='https://rp.example/privacy']") && page.has("footer a[href='https://rp.example/terms']"));
            if page.has("#consent-allow") {
                for value in ["rp.example", "alice@example.test", "Alice Archer", "Bremen", "+49 421 1234"] {
                    assert!(text.contains(value), "{value} in {text}");
                }
                browser.submit(&page, &[("action", "allow")]);
            }
        }
    }

    fn a10_what_an_app_did_not_ask_for_before_is_marked(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        browser.complete(&rp.authorize(&[("scope", "openid email")])).code();
        let page = browser.get(&rp.authorize(&[("scope", "openid email profile"), ("claims", r#"{"userinfo":{"phone_number":null}}"#)]));
        let document = scraper::Html::parse_document(&page.body);
        let marked: Vec<_> = document.select(&scraper::Selector::parse(".rows li").unwrap())
            .map(|row| (row.text().collect::<String>(), row.select(&scraper::Selector::parse(".tag").unwrap()).next().is_some())).collect();
        for (value, is_new) in [("alice@example.test", false), ("Alice Archer", true), ("+49 421 1234", true)] {
            assert!(marked.iter().any(|(text, tag)| text.contains(value) && *tag == is_new), "{value}: {marked:?}");
        }
    }

    fn a10_an_app_whose_address_anyone_can_take_is_asked_about_every_time(op) {
        op.client(json!({ "client_id": "app", "token_endpoint_auth_method": "none", "application_type": "native",
                          "redirect_uris": ["com.example.app:/cb", "http://127.0.0.1/cb"] }));
        let mut browser = op.browser();
        for uri in ["com.example.app:/cb", "http://127.0.0.1:50123/cb"] {
            let rp = op.rp().named("app").public().at(uri);
            assert!(browser.complete(&rp.authorize_with_pkce(&[])).callback().contains_key("code"));
            assert!(browser.get(&rp.authorize_with_pkce(&[])).has("#consent-allow"), "{uri}");
            assert_eq!(browser.get(&rp.authorize_with_pkce(&[("prompt", "none")])).callback()["error"], "consent_required");
        }
    }

    fn a10_an_answer_counts_for_the_request_it_was_shown_for(op) {
        op.client(json!({ "client_id": "greedy", "client_name": "Greedy", "client_secret": SECRET }));
        let (mut browser, rp) = (op.browser(), op.rp());
        let modest = { let page = browser.get(&rp.authorize(&[])); browser.sign_in(&page) };
        let greedy = browser.get(&op.rp().named("greedy").authorize(&[("scope", "openid profile email")]));
        let field = |page: &Page, name: &str| page.attribute(&format!("input[name={name}]"), "value").unwrap();
        // The token of the modest request with the ticket of the greedy one: asked again, not allowed.
        let (ticket, csrf) = (field(&greedy, "ticket"), field(&modest, "csrf"));
        let answer = browser.post("/consent", &[("ticket", &ticket), ("csrf", &csrf), ("action", "allow")]);
        assert!(answer.has("#consent-allow") && answer.text("main").contains("Greedy"), "{}", answer.body);
        let nothing = browser.get(&op.rp().named("greedy").authorize(&[("prompt", "none")]));
        assert_eq!(nothing.callback()["error"], "consent_required");
        // A GET never answers, nor does a form without a choice.
        let get = browser.get(&format!("/consent?ticket={}&csrf={}&action=allow", field(&modest, "ticket"), field(&modest, "csrf")));
        assert!(get.has("#consent-allow"));
        assert!(browser.submit(&modest, &[]).has("#consent-allow"));
        assert!(browser.submit(&modest, &[("action", "allow")]).callback().contains_key("code"));
    }

    fn the_page_for_a_wrong_redirect_shows_the_developer_what_differs(op) {
        let page = op.browser().get(&op.rp().at("https://rp.example/callback/").authorize(&[]));
        assert!(page.has("details summary") && !page.has("details[open]"));
        assert_eq!(page.text("details mark"), "/");
        assert!(page.text("details dd code").starts_with("https://rp.example/callback"));
        assert!(page.text("details").contains("not registered"));
        let page = op.browser().get(&op.rp().at("https://evil.example/").authorize(&[]));
        assert!(!page.body.contains("rp.example"), "what is registered is not told to strangers");
    }

    fn error_pages_have_an_id_and_a_time_to_quote(op) {
        op.clock.advance(Duration::from_secs(60));
        for (name, page) in every_page(&op).into_iter().skip(8) {
            let id = page.header("x-request-id").to_owned();
            assert!(id.len() >= 8 && page.text(".note").contains(&id), "{name}: {id}");
            assert!(page.attribute("time", "datetime").unwrap().ends_with('Z'), "{name}");
        }
        let ids: std::collections::BTreeSet<_> = every_page(&op).iter().map(|(_, page)| page.header("x-request-id").to_owned()).collect();
        assert_eq!(ids.len(), 15);
    }

    fn errors_of_programs_are_json_whatever_they_accept(op) {
        let rp = op.rp();
        for path in ["/token", "/userinfo", "/jwks"] {
            for method in [reqwest::Method::PUT, reqwest::Method::DELETE] {
                let answer = rp.answer(rp.http().request(method, op.url(path)).header("accept", "text/html"));
                assert_eq!(answer.error(), (405, "invalid_request"), "{path}");
                assert!(answer.headers["allow"].to_str().unwrap().contains("OPTIONS"));
            }
        }
        assert_eq!(rp.answer(rp.http().get(op.url("/.well-known/nothing")).header("accept", "text/html")).status, 404);
        assert_eq!(rp.answer(rp.http().post(op.url("/token")).header("accept", "text/html")).json["error"], "invalid_request");
    }

    fn the_language_follows_the_browser_the_app_and_the_persons_own_choice(op) {
        let rp = op.rp();
        let lang = |page: &Page| page.attribute("html", "lang").unwrap();
        let german = |header: &str| { let mut browser = op.browser(); browser.headers.push(("accept-language".to_owned(), header.to_owned())); browser };
        assert_eq!(lang(&op.browser().get(&rp.authorize(&[]))), "en");
        assert_eq!(lang(&german("fr, de-AT;q=0.9, en;q=0.5").get(&rp.authorize(&[]))), "de");
        assert_eq!(lang(&german("de;q=0.2, en;q=0.9").get(&rp.authorize(&[]))), "en");
        assert_eq!(lang(&german("de").get("/nothing")), "de", "error pages too");
        let mut browser = op.browser();
        let page = browser.get(&rp.authorize(&[("ui_locales", "se de-CH en")]));
        assert_eq!(lang(&page), "de");
        assert!(page.text("main").contains("Anmelden") && page.text("title").contains("Anmelden"), "{}", page.text("main"));
        let wrong = browser.sign_in_as(&page, "alice@example.test", "not-her-password");
        assert_eq!(lang(&wrong), "de", "the app's wish survives a form");
        assert_eq!(lang(&browser.sign_in(&wrong)), "de", "and the next page");

        // Chosen here, it counts for everything after, against the app's wish and the browser's.
        let mut browser = german("en");
        let page = browser.get(&rp.authorize(&[("ui_locales", "en")]));
        let link = page.attribute("footer a[hreflang=de]", "href").unwrap();
        assert!(link.starts_with('?'), "to this very page, whatever its address");
        let page = browser.get(&format!("/login{link}"));
        assert_eq!(lang(&page), "de");
        assert!(page.has("#login-submit"), "the request is still there");
        assert!(browser.cookies.keys().any(|name| name.ends_with("-language")));
        assert_eq!(lang(&browser.sign_in(&page)), "de");
        assert_eq!(lang(&browser.get("/")), "de");
        assert_eq!(lang(&browser.get("/?lang=xx")), "de", "nonsense chooses nothing");
        browser.cookies.insert("latchkey-language".to_owned(), "\"><x".to_owned());
        assert_eq!(lang(&browser.get("/")), "en");
    }

    fn the_sign_in_page_stays_within_its_budget(op) {
        let mut browser = op.browser();
        let page = browser.get(&op.rp().authorize(&[]));
        let document = scraper::Html::parse_document(&page.body);
        let selector = scraper::Selector::parse("link[rel=stylesheet], link[rel~=icon], script[src], img[src]").unwrap();
        let assets: Vec<_> = document.select(&selector).map(|element| element.attr("href").or(element.attr("src")).unwrap().to_owned()).collect();
        assert!(assets.len() <= 2, "with the page itself at most 3 requests: {assets:?}");
        assert!(assets.iter().all(|asset| asset.starts_with("/static/")), "from no other host: {assets:?}");
        let sheet = browser.get_once(&page.attribute("link[rel=stylesheet]", "href").unwrap());
        assert!(sheet.body.len() <= 9_000 && !sheet.body.contains("@font-face") && !sheet.body.contains("url(http"), "{} bytes of CSS", sheet.body.len());
        assert_eq!(sheet.header("cache-control"), "public, max-age=31536000, immutable");
        // The page needs its browser's cookie, so it is measured with one.
        let cookies = browser.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
        let html = op.rp().http().get(&page.url).header("cookie", cookies).header(ACCEPT_ENCODING, "gzip, deflate, br, zstd").send().unwrap();
        let html_bytes = html.bytes().unwrap().len();
        // Ten packets, which a connection may send at once: compressed it would be there no sooner.
        assert!(html_bytes <= 14_000, "{html_bytes} bytes of HTML");
        let moved = html_bytes + assets.iter().map(|asset| bytes_moved(&op, &op.url(asset))).sum::<usize>();
        assert!(moved <= 20_000, "{moved} bytes");
    }

    fn a_page_opened_at_another_address_says_so(op) {
        let right = op.issuer.strip_prefix("http://").unwrap();
        let port = right.rsplit_once(':').unwrap().1;
        for host in ["127.0.0.1".to_owned(), format!("127.0.0.1:{port}"), "localhost".to_owned(), "localhost:1".to_owned(), format!("localhost.evil.example:{port}"), "\"><script>".to_owned()] {
            for path in ["/", "/login", "/authorize?client_id=rp"] {
                let page = look(&op, &host, path);
                if host.contains('<') && page.body.is_empty() {
                    assert_eq!(page.status, 400, "not even HTTP");
                    continue;
                }
                assert_eq!(page.status, 421, "{host}{path}");
                assert!(page.has("#op-error") && !page.has("form, script"), "{host}");
                let text = page.text("main");
                assert!(text.contains(&format!("http://{host}")) && text.contains(&op.issuer), "{text}");
                assert_eq!(page.attribute("a.button", "href").as_deref(), Some(op.issuer.as_str()));
                assert!(page.header("content-security-policy").contains("form-action 'self'"));
                let sheet = look(&op, &host, &page.attribute("link[rel=stylesheet]", "href").unwrap());
                assert_eq!(sheet.status, 200, "the page has its colours");
            }
        }
        let page = look(&op, "127.0.0.1:9", "/");
        assert_eq!(page.text("pre"), "issuer = \"http://127.0.0.1:9\"");
        let page = look(&op, "login.example.com", "/?lang=de");
        assert_eq!(page.text("pre"), "issuer = \"https://login.example.com\"", "http is for loopback only");
        assert_eq!(page.attribute("html", "lang").as_deref(), Some("de"));

        assert_eq!(look(&op, &right.to_uppercase(), "/").status, 200, "case means nothing");
        for path in ["/livez", "/jwks", "/.well-known/openid-configuration"] {
            assert_eq!(look(&op, "10.0.0.7:8080", path).status, 200, "{path} is for programs");
        }
        let mut forwarding = opened_at(&op, right, "/");
        forwarding.headers.push(("x-forwarded-host".to_owned(), "evil.example".to_owned()));
        assert_eq!(forwarding.get_once("/").status, 200, "only a trusted proxy is believed");
    }

    fn behind_a_trusted_proxy_its_word_counts(op with [("issuer", "https://op.example"), ("trusted_proxies", "127.0.0.1")]) {
        let look = |headers: &[(&str, &str)]| {
            let mut browser = opened_at(&op, "127.0.0.1:8080", "/");
            browser.headers.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
            browser.get_once("/")
        };
        assert_eq!(look(&[]).status, 200, "a proxy that tells nothing");
        assert_eq!(look(&[("x-forwarded-host", "op.example")]).status, 200);
        assert_eq!(look(&[("x-forwarded-host", "OP.example:443"), ("x-forwarded-proto", "https")]).status, 200);
        assert_eq!(look(&[("x-forwarded-host", "op.example, internal")]).status, 200, "the first proxy saw the person");
        let page = look(&[("x-forwarded-host", "other.example"), ("x-forwarded-proto", "https")]);
        assert_eq!((page.status, page.text("pre").as_str()), (421, "issuer = \"https://other.example\""));
        let page = look(&[("x-forwarded-host", "op.example"), ("x-forwarded-proto", "http")]);
        assert_eq!(page.status, 421);
        assert!(page.text("main").contains("http://op.example"), "{}", page.text("main"));
    }
}
