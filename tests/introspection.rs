//! What a token is worth, told to whom it concerns. RFC 7662.

use std::time::Duration;

use latchkey::protocol::client::ClientId;
use latchkey::store::clients;
use serde_json::{Value, json};

use crate::support::on_both_databases;
use crate::support::op::{CALLBACK, EMAIL, Op, SECRET};
use crate::support::relying_party::{Answer, Rp};

const API: &str = "https://api.example/";

/// An app that may refresh and may ask for the API, another app, and the API itself.
fn apps(op: &Op, metadata: Value) -> (Rp, Rp, Rp) {
    let mut notes = json!({
        "client_id": "notes", "client_secret": SECRET, "allowed_resources": [API],
        "grant_types": ["authorization_code", "refresh_token", "client_credentials"], "scope": "openid email offline_access orders"
    });
    notes
        .as_object_mut()
        .unwrap()
        .extend(metadata.as_object().unwrap().clone());
    op.client(notes);
    op.client(json!({ "client_id": "api", "client_secret": SECRET, "protected_resources": [API] }));
    (
        op.rp().named("notes"),
        op.rp().named("rp"),
        op.rp().named("api"),
    )
}

fn connect(op: &Op, rp: &Rp, parameters: &[(&str, &str)]) -> Answer {
    let usual = [("scope", "openid email offline_access")];
    let code = op
        .browser()
        .complete(&rp.authorize_with_pkce(&[&usual, parameters].concat()))
        .code();
    let tokens = rp.exchange_with_pkce(&code);
    assert_eq!(tokens.status, 200, "{}", tokens.json);
    tokens
}

fn is_active(rp: &Rp, token: &str) -> bool {
    let answer = rp.introspect(token);
    assert_eq!(answer.status, 200, "{}", answer.json);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let active = answer.json["active"].as_bool().unwrap();
    assert!(
        active || answer.json == json!({ "active": false }),
        "nothing more is told"
    );
    active
}

on_both_databases! {
    fn a_live_access_token_is_described(op) {
        for format in ["jwt", "opaque"] {
            let (notes, _, _) = apps(&op, json!({ "access_token_format": format }));
            let tokens = connect(&op, &notes, &[]);
            let told = notes.introspect(tokens.access_token()).json;
            let sub = tokens.id_token()["sub"].clone();
            let iat = op.clock.now().seconds();
            assert_eq!(told, json!({
                "active": true, "iss": op.issuer, "client_id": "notes", "sub": sub, "scope": "email offline_access openid",
                "exp": iat + 600, "token_type": "Bearer", "iat": iat, "aud": op.issuer,
                "auth_time": tokens.id_token()["auth_time"], "acr": "1"
            }), "{format}");
        }
    }

    fn a_live_refresh_token_is_described_until_it_is_spent(op) {
        let (notes, ..) = apps(&op, json!({}));
        let tokens = connect(&op, &notes, &[]);
        let told = notes.introspect(tokens.refresh_token()).json;
        assert_eq!((&told["active"], &told["client_id"]), (&json!(true), &json!("notes")));
        assert_eq!(told["exp"], op.clock.now().seconds() + 30 * 86_400);
        assert_eq!((told.get("token_type"), told.get("aud")), (None, None), "it is good for nothing but a refresh");
        let next = notes.refresh(tokens.refresh_token(), &[]);
        assert!(!is_active(&notes, tokens.refresh_token()));
        assert!(is_active(&notes, next.refresh_token()));
        op.clock.advance(Duration::from_secs(31 * 86_400));
        assert!(!is_active(&notes, next.refresh_token()));
    }

    fn a_clients_own_token_is_described(op) {
        for format in ["jwt", "opaque"] {
            let (notes, other, api) = apps(&op, json!({ "access_token_format": format }));
            let tokens = notes.client_credentials(&[]);
            let told = notes.introspect(tokens.access_token()).json;
            let iat = op.clock.now().seconds();
            assert_eq!(told, json!({
                "active": true, "iss": op.issuer, "client_id": "notes", "sub": "notes", "scope": "orders",
                "exp": iat + 600, "token_type": "Bearer", "iat": iat, "aud": API
            }), "{format}");
            assert!(is_active(&api, tokens.access_token()));
            assert!(!is_active(&other, tokens.access_token()));
            op.clock.advance(Duration::from_secs(600));
            assert!(!is_active(&notes, tokens.access_token()));
        }
    }

    fn b10_a_token_is_told_about_only_to_whom_it_concerns(op) {
        let (notes, other, api) = apps(&op, json!({}));
        let (own, for_api) = (connect(&op, &notes, &[]), connect(&op, &notes, &[("resource", API)]));
        assert!(is_active(&notes, own.access_token()) && is_active(&notes, for_api.access_token()));
        assert!(is_active(&api, for_api.access_token()), "it is meant for the API");
        assert!(!is_active(&api, own.access_token()), "this one is not");
        for token in [own.access_token(), for_api.access_token(), own.refresh_token(), for_api.refresh_token()] {
            assert!(!is_active(&other, token));
        }
        assert!(!is_active(&api, for_api.refresh_token()), "a refresh token is nobody's but its client's");
    }

    fn b10_only_a_client_that_authenticates_may_ask(op) {
        op.client(json!({ "client_id": "spa", "token_endpoint_auth_method": "none" }));
        let spa = op.rp().named("spa").public();
        let tokens = spa.exchange_with_pkce(&op.browser().complete(&spa.authorize_with_pkce(&[])).code());
        assert_eq!(spa.introspect(tokens.access_token()).error(), (401, "invalid_client"));
        let mut wrong = op.rp();
        wrong.secret = Some("wrong".to_owned());
        let refused = wrong.introspect(tokens.access_token());
        assert_eq!(refused.error(), (401, "invalid_client"));
        assert!(refused.headers["www-authenticate"].to_str().unwrap().starts_with("Basic"));
        let bearer = op.rp().http().post(op.url("/introspect")).bearer_auth(tokens.access_token()).form(&[("token", "x")]);
        assert_eq!(op.rp().answer(bearer).error(), (401, "invalid_client"));
    }

    fn the_hint_is_only_a_hint(op) {
        let (notes, ..) = apps(&op, json!({}));
        let tokens = connect(&op, &notes, &[]);
        for token in [tokens.access_token(), tokens.refresh_token()] {
            for hint in ["access_token", "refresh_token", "nonsense"] {
                let told = notes.post("/introspect", &[("token", token), ("token_type_hint", hint)]);
                assert_eq!((told.status, &told.json["active"]), (200, &json!(true)), "{hint}");
            }
        }
    }

    fn b11_a_token_is_looked_up_whole(op) {
        for format in ["jwt", "opaque"] {
            let (notes, ..) = apps(&op, json!({ "access_token_format": format }));
            let (person, own) = (connect(&op, &notes, &[]), notes.client_credentials(&[]));
            for token in [person.access_token(), person.refresh_token(), own.access_token()] {
                for altered in [&token[1..], &token[..token.len() - 1], &format!("{token}A"), &format!("{token} "), &token.to_uppercase(), "x", "a.b.c"] {
                    assert!(!is_active(&notes, altered), "{format}: {altered}");
                }
            }
        }
    }

    fn b9_an_id_token_and_a_code_are_no_tokens(op) {
        let (notes, ..) = apps(&op, json!({}));
        let tokens = connect(&op, &notes, &[]);
        let code = op.browser().complete(&notes.authorize_with_pkce(&[])).code();
        assert!(!is_active(&notes, tokens.text("id_token")) && !is_active(&notes, &code));
    }

    fn b13_what_was_ended_is_inactive_at_once(op) {
        let (notes, _, api) = apps(&op, json!({}));
        let all = |tokens: &Answer| {
            [is_active(&notes, tokens.access_token()), is_active(&api, tokens.access_token()), is_active(&notes, tokens.refresh_token())]
        };
        let expired = connect(&op, &notes, &[("resource", API)]);
        op.clock.advance(Duration::from_secs(600));
        assert_eq!(all(&expired), [false, false, true]);
        let tokens = connect(&op, &notes, &[("resource", API)]);
        assert_eq!(all(&tokens), [true; 3]);
        op.seed(json!({ "users": [{ "email": EMAIL, "disabled": true }] }));
        assert_eq!(all(&tokens), [false; 3], "the person is switched off");
    }

    fn b13_a_client_that_was_deleted_does_not_live_on_in_another_of_its_name(op) {
        let (notes, _, api) = apps(&op, json!({}));
        let token = notes.client_credentials(&[]);
        assert_eq!(api.introspect(token.access_token()).json["active"], true);
        op.store
            .write_blocking(|tx| clients::delete(tx, &ClientId::from_request("notes")))
            .unwrap();
        op.clock.advance(Duration::from_secs(11));
        let (notes, _, api) = apps(&op, json!({}));
        for asker in [&notes, &api] {
            assert_eq!(asker.introspect(token.access_token()).json, json!({ "active": false }));
        }
        let token = notes.client_credentials(&[]);
        assert_eq!(api.introspect(token.access_token()).json["active"], true);
    }

    fn a_request_without_a_token_is_refused(op) {
        assert_eq!(op.rp().introspect("").error(), (400, "invalid_request"));
        assert_eq!(op.rp().post("/introspect", &[("token", "a"), ("token", "b")]).error(), (400, "invalid_request"));
        assert_eq!(op.rp().get("/introspect").status, 405);
        let in_query = op.rp().post("/introspect?token=x", &[("token", "x")]);
        assert_eq!(in_query.error(), (400, "invalid_request"));
    }

    fn a_token_that_was_narrowed_to_an_api_opens_nothing_here(op) {
        let (notes, ..) = apps(&op, json!({}));
        let code = op.browser().complete(&notes.authorize_with_pkce(&[("scope", "openid offline_access"), ("resource", API)])).code();
        let wide = notes.exchange_with_pkce(&code);
        assert_eq!(crate::support::relying_party::part(wide.access_token(), 1)["aud"], json!([op.issuer, API]));
        assert_eq!(notes.userinfo(wide.access_token()).status, 200);
        let narrow = notes.refresh(wide.refresh_token(), &[("resource", API)]);
        assert_eq!(crate::support::relying_party::part(narrow.access_token(), 1)["aud"], API);
        assert_eq!(notes.userinfo(narrow.access_token()).error(), (401, "invalid_token"));
        assert!(is_active(&notes, narrow.access_token()), "it is good for its API");
    }

    fn an_apps_redirect_uris_have_nothing_to_do_with_introspection(op) {
        op.client(json!({ "client_id": "server", "client_secret": SECRET, "grant_types": ["client_credentials"], "redirect_uris": [], "protected_resources": [API] }));
        let (notes, ..) = apps(&op, json!({ "redirect_uris": [CALLBACK] }));
        let tokens = connect(&op, &notes, &[("resource", API)]);
        assert!(is_active(&op.rp().named("server"), tokens.access_token()));
    }
}
