//! From an app to the sign-in page and back with a code, and the code for tokens.
//! RFC 6749 §4.1; OpenID Connect Core §3.1; RFC 7636.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::support::on_both_databases;
use crate::support::op::{CALLBACK, PASSWORD, SECRET};
use crate::support::relying_party::part;

on_both_databases! {
    fn a_person_signs_in_agrees_and_the_app_gets_tokens(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let page = browser.get(&rp.authorize(&[("scope", "openid profile email"), ("nonce", "n-0S6_WzA2Mj")]));
        assert_eq!(page.status, 200);
        let page = browser.sign_in(&page);
        assert!(page.has("#consent-allow") && page.has("#consent-deny"), "{}", page.body);
        assert!(page.body.contains("Alice Archer"), "the values that will be shared are shown");
        let answer = browser.submit(&page, &[("action", "allow")]);
        assert_eq!(answer.status, 303);
        let callback = answer.callback();
        assert_eq!(callback["state"], "a-state");
        assert_eq!(callback["iss"], op.issuer);

        let tokens = rp.exchange(&callback["code"], &[]);
        assert_eq!(tokens.status, 200, "{}", tokens.json);
        assert_eq!(tokens.headers["cache-control"], "no-store");
        assert_eq!(tokens.json["token_type"], "Bearer");
        assert_eq!(tokens.json["expires_in"], 600);
        assert_eq!(tokens.json["scope"], "email openid profile");
        let id_token = tokens.id_token();
        assert_eq!(id_token["iss"], op.issuer);
        assert_eq!(id_token["aud"], "rp");
        assert_eq!(id_token["azp"], "rp");
        assert_eq!(id_token["nonce"], "n-0S6_WzA2Mj");
        assert_eq!(id_token["amr"], json!(["pwd"]));
        assert_eq!(id_token["acr"], "1");
        assert!(id_token["sid"].is_string() && id_token["at_hash"].is_string() && id_token["auth_time"].is_i64());
        assert_eq!(id_token.get("name"), None, "claims of scopes belong to UserInfo");
        assert_eq!(part(tokens.text("id_token"), 0)["alg"], "RS256");
        let header = part(tokens.access_token(), 0);
        assert_eq!((header["typ"].as_str(), header["alg"].as_str()), (Some("at+jwt"), Some("ES256")));

        let userinfo = rp.userinfo(tokens.access_token());
        assert_eq!(userinfo.status, 200);
        assert_eq!(userinfo.json["sub"], id_token["sub"]);
        assert_eq!(userinfo.json["name"], "Alice Archer");
        assert_eq!(userinfo.json["email_verified"], true);
        assert_eq!(userinfo.json.get("address"), None, "not asked for");
    }

    fn consent_is_remembered_and_a_second_app_request_shows_no_page(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let first = rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]).id_token();
        op.clock.advance(Duration::from_secs(5));
        let silent = browser.get(&rp.authorize(&[("prompt", "none")]));
        let second = rp.exchange(&silent.code(), &[]).id_token();
        for claim in ["sub", "auth_time", "sid"] {
            assert_eq!(first[claim], second[claim], "{claim}");
        }
        assert_eq!(second.get("nonce"), None, "none was sent");
    }

    fn b1_a_code_is_good_once_and_a_replay_ends_its_tokens(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let code = browser.complete(&rp.authorize(&[])).code();
        let tokens = rp.exchange(&code, &[]);
        assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
        op.clock.advance(Duration::from_secs(30));
        assert_eq!(rp.exchange(&code, &[]).error(), (400, "invalid_grant"));
        assert_eq!(rp.userinfo(tokens.access_token()).error(), (401, "invalid_token"));
    }

    fn b1_a_replay_after_the_life_of_the_code_still_ends_its_tokens(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let code = browser.complete(&rp.authorize(&[])).code();
        let tokens = rp.exchange(&code, &[]);
        op.clock.advance(Duration::from_secs(120));
        assert_eq!(rp.exchange(&code, &[]).error(), (400, "invalid_grant"));
        assert_eq!(rp.userinfo(tokens.access_token()).status, 401);
    }

    fn b1_a_wrong_replay_ends_nothing_and_a_failed_exchange_spends_nothing(op) {
        op.client(json!({ "client_id": "other", "client_secret": SECRET }));
        let (mut browser, rp) = (op.browser(), op.rp());
        let code = browser.complete(&rp.authorize_with_pkce(&[])).code();
        let other = op.rp().named("other");
        let wrong_secret = { let mut rp = rp.clone(); rp.secret = Some("wrong".repeat(10)); rp };
        for spent in [false, true] {
            assert_eq!(other.exchange_with_pkce(&code).error(), (400, "invalid_grant"));
            assert_eq!(wrong_secret.exchange_with_pkce(&code).error(), (401, "invalid_client"));
            assert_eq!(rp.exchange(&code, &[]).error(), (400, "invalid_grant"), "without the verifier");
            assert_eq!(rp.exchange(&code, &[("code_verifier", &"x".repeat(43))]).error(), (400, "invalid_grant"));
            assert_eq!(rp.clone().at("https://rp.example/other").exchange_with_pkce(&code).error(), (400, "invalid_grant"));
            if !spent {
                let tokens = rp.exchange_with_pkce(&code);
                assert_eq!(tokens.status, 200);
                // Nobody who failed above had proved to possess the code.
                for attempt in [other.exchange_with_pkce(&code), rp.exchange(&code, &[])] {
                    assert_eq!(attempt.error(), (400, "invalid_grant"));
                }
                assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
            }
        }
    }

    fn b1_of_parallel_exchanges_one_succeeds(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        for _ in 0..5 {
            let code = browser.complete(&rp.authorize(&[])).code();
            let answers: Vec<_> = thread::scope(|scope| {
                let racers: Vec<_> = (0..8).map(|_| scope.spawn(|| rp.exchange(&code, &[]))).collect();
                racers.into_iter().map(|racer| racer.join().unwrap()).collect()
            });
            let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
            assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
            let winner = answers.iter().find(|answer| answer.status == 200).unwrap();
            assert_eq!(rp.userinfo(winner.access_token()).status, 401, "the others were replays");
        }
    }

    fn b2_an_expired_code_is_refused(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let code = browser.complete(&rp.authorize(&[])).code();
        op.clock.advance(Duration::from_secs(60));
        assert_eq!(rp.exchange(&code, &[]).error(), (400, "invalid_grant"));
    }

    fn b3_a_public_client_must_use_pkce(op) {
        op.client(json!({ "client_id": "spa", "token_endpoint_auth_method": "none" }));
        let (mut browser, rp) = (op.browser(), op.rp().named("spa").public());
        assert_eq!(browser.get(&rp.authorize(&[])).callback()["error"], "invalid_request");
        let code = browser.complete(&rp.authorize_with_pkce(&[])).code();
        assert_eq!(rp.exchange(&code, &[]).error(), (400, "invalid_grant"));
        assert_eq!(rp.exchange_with_pkce(&code).status, 200);
    }

    fn b3_pkce_cannot_be_downgraded(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        for parameters in [
            &[("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"), ("code_challenge_method", "plain")][..],
            &[("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")],
            &[("code_challenge_method", "S256")],
            &[("code_challenge", "short"), ("code_challenge_method", "S256")],
        ] {
            assert_eq!(browser.get(&rp.authorize(parameters)).callback()["error"], "invalid_request", "{parameters:?}");
        }
        let code = browser.complete(&rp.authorize(&[])).code();
        assert_eq!(rp.exchange_with_pkce(&code).error(), (400, "invalid_grant"), "a verifier without a challenge");
    }

    fn b4_codes_are_random_hashed_and_not_sent_onward(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        browser.complete(&rp.authorize(&[]));
        let mut codes = BTreeSet::new();
        for _ in 0..20 {
            let answer = browser.get(&rp.authorize(&[]));
            assert_eq!(answer.header("referrer-policy"), "no-referrer");
            assert_eq!(answer.header("cache-control"), "no-store");
            codes.insert(answer.code());
        }
        assert_eq!(codes.len(), 20);
        assert!(codes.iter().all(|code| code.len() == 43));
    }

    fn b9_only_an_access_token_opens_userinfo(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let tokens = rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]);
        assert_eq!(rp.userinfo(tokens.text("id_token")).error(), (401, "invalid_token"));
        let mut altered = tokens.access_token().to_owned();
        altered.push('A');
        assert_eq!(rp.userinfo(&altered).error(), (401, "invalid_token"));
        let code = browser.complete(&rp.authorize(&[("scope", "profile")])).code();
        let oauth = rp.exchange(&code, &[]);
        assert_eq!(oauth.json.get("id_token"), None, "no openid, no ID token");
        assert_eq!(rp.userinfo(oauth.access_token()).error(), (403, "insufficient_scope"));
    }

    fn an_access_token_can_be_opaque_and_a_client_may_ask_for_other_algorithms(op) {
        op.client(json!({ "client_id": "es", "client_secret": SECRET, "access_token_format": "opaque",
                          "id_token_signed_response_alg": "ES256", "claims_in_id_token": true, "tokens": { "access": "2m", "id": "5m" } }));
        let (mut browser, rp) = (op.browser(), op.rp().named("es"));
        let tokens = rp.exchange(&browser.complete(&rp.authorize(&[("scope", "openid profile")])).code(), &[]);
        assert_eq!(tokens.access_token().len(), 43);
        assert_eq!(tokens.json["expires_in"], 120);
        assert_eq!(part(tokens.text("id_token"), 0)["alg"], "ES256");
        assert_eq!(tokens.id_token()["name"], "Alice Archer");
        let (exp, iat) = (tokens.id_token()["exp"].as_i64().unwrap(), tokens.id_token()["iat"].as_i64().unwrap());
        assert_eq!(exp - iat, 300);
        assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
        op.clock.advance(Duration::from_secs(120));
        assert_eq!(rp.userinfo(tokens.access_token()).error(), (401, "invalid_token"));
    }

    fn the_claims_parameter_is_honoured_in_each_place(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let claims = r#"{"userinfo":{"name":{"essential":true}},"id_token":{"nickname":null,"email":null}}"#;
        let tokens = rp.exchange(&browser.complete(&rp.authorize(&[("claims", claims)])).code(), &[]);
        let id_token = tokens.id_token();
        assert_eq!((&id_token["nickname"], &id_token["email_verified"]), (&json!("al"), &json!(true)));
        assert_eq!(id_token.get("name"), None);
        let userinfo = rp.userinfo(tokens.access_token());
        assert_eq!(userinfo.json["name"], "Alice Archer");
        assert_eq!(userinfo.json.get("nickname"), None);
    }

    fn the_claims_parameter_brings_nothing_that_the_scopes_of_the_client_would_not(op) {
        op.client(json!({ "client_id": "narrow", "client_secret": SECRET, "scope": "openid", "skip_consent": true }));
        let (mut browser, rp) = (op.browser(), op.rp().named("narrow"));
        let claims = r#"{"userinfo":{"email":null,"phone_number":{"essential":true}},"id_token":{"name":null,"auth_time":{"essential":true}}}"#;
        let tokens = rp.exchange(&browser.complete(&rp.authorize(&[("claims", claims)])).code(), &[]);
        assert!(tokens.id_token()["auth_time"].is_i64());
        assert_eq!(tokens.id_token().get("name"), None);
        let userinfo = rp.userinfo(tokens.access_token());
        assert_eq!(userinfo.json.as_object().unwrap().keys().collect::<Vec<_>>(), ["sub"]);
    }

    fn b15_a_resource_becomes_the_audience_where_the_client_may_name_it(op) {
        op.client(json!({ "client_id": "api", "client_secret": SECRET, "allowed_resources": ["https://a.example/", "https://b.example/"] }));
        let (mut browser, rp) = (op.browser(), op.rp().named("api"));
        let url = format!("{}&resource=https://a.example/&resource=https://b.example/", rp.authorize(&[]));
        let both = rp.exchange(&browser.complete(&url).code(), &[]);
        assert_eq!(part(both.access_token(), 1)["aud"], json!([op.issuer, "https://a.example/", "https://b.example/"]));
        assert_eq!(both.id_token()["aud"], "api", "the ID token is for the app alone");
        let one = rp.exchange(&browser.get(&url).code(), &[("resource", "https://b.example/")]);
        assert_eq!(part(one.access_token(), 1)["aud"], "https://b.example/");
        assert_eq!(rp.exchange(&browser.get(&url).code(), &[("resource", "https://c.example/")]).error(), (400, "invalid_target"));
        for other in ["https://c.example/", "https://a.example", "https://a.example/more", "HTTPS://A.EXAMPLE/", "a.example", "*"] {
            assert_eq!(browser.get(&rp.authorize(&[("resource", other)])).callback()["error"], "invalid_target", "{other}");
        }
        let none = op.rp().authorize(&[("resource", "https://a.example/")]);
        assert_eq!(browser.get(&none).callback()["error"], "invalid_target", "a client that may name none");
    }

    fn f8_a_disabled_person_is_refused_everywhere_at_once(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let tokens = rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]);
        let pending = browser.get(&rp.authorize(&[])).code();
        op.seed(json!({ "users": [{ "email": "alice@example.test", "disabled": true }] }));
        assert_eq!(rp.userinfo(tokens.access_token()).status, 401);
        assert_eq!(rp.exchange(&pending, &[]).error(), (400, "invalid_grant"));
        let page = browser.get(&rp.authorize(&[]));
        assert!(page.has("#login-submit"), "the session counts no longer");
        assert_eq!(browser.sign_in(&page).status, 400);
        op.seed(json!({ "users": [{ "email": "alice@example.test", "disabled": false }] }));
        assert!(browser.get(&rp.authorize(&[])).has("#login-submit"), "old sessions stay dead");
        assert_eq!(rp.userinfo(tokens.access_token()).status, 401, "old tokens stay dead");
    }

    fn userinfo_takes_the_token_by_header_or_form_and_never_in_the_query(op) {
        let (mut browser, rp) = (op.browser(), op.rp());
        let tokens = rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]);
        let (token, url) = (tokens.access_token(), op.url("/userinfo"));
        let http = rp.http();
        assert_eq!(rp.answer(http.post(&url).bearer_auth(token)).status, 200);
        assert_eq!(rp.answer(http.post(&url).form(&[("access_token", token)])).status, 200);
        assert_eq!(rp.answer(http.get(&url).header("authorization", format!("bEARER {token}"))).status, 200);
        assert_eq!(rp.answer(http.get(format!("{url}?access_token={token}"))).error(), (400, "invalid_request"));
        assert_eq!(rp.answer(http.post(&url).bearer_auth(token).form(&[("access_token", token)])).error(), (400, "invalid_request"));
        assert_eq!(rp.answer(http.get(&url).header("authorization", format!("Bearer  {token}"))).error(), (400, "invalid_request"));
        let nothing = rp.answer(http.get(&url));
        assert_eq!((nothing.status, nothing.headers["www-authenticate"].to_str().unwrap()), (401, "Bearer"));
        assert!(rp.userinfo("unknown").headers["www-authenticate"].to_str().unwrap().starts_with("Bearer error=\"invalid_token\""));
    }

    fn c7_a_client_authenticates_in_one_way_and_only_its_own(op) {
        op.client(json!({ "client_id": "spa", "token_endpoint_auth_method": "none" }));
        let (mut browser, rp) = (op.browser(), op.rp());
        let code = browser.complete(&rp.authorize(&[])).code();
        let token = op.url("/token");
        let base = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
        let with = |extra: &[(&'static str, &'static str)]| [base.to_vec(), extra.to_vec()].concat();
        let http = rp.http();
        let twice = http.post(&token).basic_auth("rp", Some(SECRET)).form(&with(&[("client_id", "rp"), ("client_secret", SECRET)]));
        assert_eq!(rp.answer(twice).error(), (400, "invalid_request"));
        let none = rp.answer(http.post(&token).form(&with(&[("client_id", "rp")])));
        assert_eq!(none.error(), (401, "invalid_client"));
        assert_eq!(rp.answer(http.post(&token).form(&with(&[("client_id", "spa"), ("client_secret", SECRET)]))).error(), (401, "invalid_client"));
        let basic = rp.answer(http.post(&token).basic_auth("nobody", Some(SECRET)).form(&base));
        assert_eq!(basic.error(), (401, "invalid_client"));
        assert!(basic.headers["www-authenticate"].to_str().unwrap().starts_with("Basic"));
        // And all that spent nothing.
        let post = http.post(&token).form(&with(&[("client_id", "rp"), ("client_secret", SECRET)]));
        assert_eq!(rp.answer(post).status, 200);
    }

    fn passwords_appear_in_no_form_after_they_were_typed(op) {
        let mut browser = op.browser();
        let page = browser.get(&op.rp().authorize(&[]));
        let page = browser.sign_in_as(&page, "alice@example.test", "not-her-password");
        assert_eq!(page.status, 400);
        assert_eq!(page.attribute("input[name=login]", "value").as_deref(), Some("alice@example.test"));
        assert!(!page.body.contains("not-her-password") && !page.body.contains(PASSWORD));
        assert!(page.text("[role=alert]").contains("don’t match"));
    }
}
