//! The client is done with a token. RFC 7009.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::on_both_databases;
use crate::support::op::{Op, SECRET};
use crate::support::relying_party::{Answer, Rp};

/// An app that may refresh and act for itself; metadata of the test's own comes on top.
fn notes(op: &Op, metadata: Value) -> Rp {
    let mut notes = json!({
        "client_id": "notes", "client_secret": SECRET,
        "grant_types": ["authorization_code", "refresh_token", "client_credentials"], "scope": "openid offline_access orders"
    });
    notes
        .as_object_mut()
        .unwrap()
        .extend(metadata.as_object().unwrap().clone());
    op.client(notes);
    op.rp().named("notes")
}

fn connect(op: &Op, rp: &Rp) -> Answer {
    let code = op
        .browser()
        .complete(&rp.authorize_with_pkce(&[("scope", "openid offline_access")]))
        .code();
    let tokens = rp.exchange_with_pkce(&code);
    assert_eq!(tokens.status, 200, "{}", tokens.json);
    tokens
}

/// Revokes, which is answered with nothing but 200.
fn revoke(rp: &Rp, token: &str) {
    let answer = rp.revoke(token);
    assert_eq!((answer.status, &answer.json), (200, &Value::Null));
    assert_eq!(answer.headers["cache-control"], "no-store");
}

fn is_active(rp: &Rp, token: &str) -> bool {
    rp.introspect(token).json["active"].as_bool().unwrap()
}

on_both_databases! {
    fn revoking_a_refresh_token_ends_its_family_and_its_access_tokens(op) {
        let rp = notes(&op, json!({}));
        let first = connect(&op, &rp);
        let second = rp.refresh(first.refresh_token(), &[]);
        revoke(&rp, second.refresh_token());
        for tokens in [&first, &second] {
            assert_eq!(rp.userinfo(tokens.access_token()).error(), (401, "invalid_token"));
            assert_eq!(rp.refresh(tokens.refresh_token(), &[]).error(), (400, "invalid_grant"));
            assert!(!is_active(&rp, tokens.access_token()) && !is_active(&rp, tokens.refresh_token()));
        }
        revoke(&rp, second.refresh_token());
    }

    fn a_spent_token_of_the_family_ends_it_too(op) {
        let rp = notes(&op, json!({}));
        let first = connect(&op, &rp);
        let second = rp.refresh(first.refresh_token(), &[]);
        revoke(&rp, first.refresh_token());
        assert_eq!(rp.refresh(second.refresh_token(), &[]).error(), (400, "invalid_grant"));
    }

    fn revoking_an_access_token_ends_that_one_alone(op) {
        for format in ["jwt", "opaque"] {
            let rp = notes(&op, json!({ "access_token_format": format }));
            let first = connect(&op, &rp);
            let second = rp.refresh(first.refresh_token(), &[]);
            revoke(&rp, first.access_token());
            assert_eq!(rp.userinfo(first.access_token()).error(), (401, "invalid_token"), "{format}");
            assert!(!is_active(&rp, first.access_token()));
            assert_eq!(rp.userinfo(second.access_token()).status, 200);
            assert_eq!(rp.refresh(second.refresh_token(), &[]).status, 200);
        }
    }

    fn a_clients_own_token_can_be_revoked_too(op) {
        let mut op = op;
        for format in ["jwt", "opaque"] {
            let rp = notes(&op, json!({ "access_token_format": format }));
            let (ended, kept) = (rp.client_credentials(&[]), rp.client_credentials(&[]));
            revoke(&rp, ended.access_token());
            revoke(&rp, ended.access_token());
            assert!(!is_active(&rp, ended.access_token()) && is_active(&rp, kept.access_token()), "{format}");
            op.restart(|_| {});
            assert!(!is_active(&rp, ended.access_token()) && is_active(&rp, kept.access_token()), "{format}: as before");
        }
    }

    fn b10_a_token_of_another_client_is_answered_alike_and_goes_on(op) {
        let rp = notes(&op, json!({}));
        let other = op.rp();
        let (tokens, own) = (connect(&op, &rp), rp.client_credentials(&[]));
        for token in [tokens.access_token(), tokens.refresh_token(), own.access_token(), "unknown", "a.b.c"] {
            revoke(&other, token);
        }
        assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
        assert!(is_active(&rp, own.access_token()));
        assert_eq!(rp.refresh(tokens.refresh_token(), &[]).status, 200);
    }

    fn the_hint_is_only_a_hint(op) {
        let rp = notes(&op, json!({}));
        for hint in ["access_token", "refresh_token", "nonsense"] {
            let tokens = connect(&op, &rp);
            let answer = rp.post("/revoke", &[("token", tokens.refresh_token()), ("token_type_hint", hint)]);
            assert_eq!(answer.status, 200);
            assert_eq!(rp.refresh(tokens.refresh_token(), &[]).error(), (400, "invalid_grant"), "{hint}");
        }
    }

    fn a_public_client_revokes_by_its_name(op) {
        op.client(json!({ "client_id": "spa", "token_endpoint_auth_method": "none", "grant_types": ["authorization_code", "refresh_token"],
                          "allowed_cors_origins": ["https://app.example"] }));
        let rp = op.rp().named("spa").public();
        let tokens = connect(&op, &rp);
        let form = [("token", tokens.refresh_token()), ("client_id", "spa")];
        let answer = rp.answer(rp.http().post(op.url("/revoke")).form(&form).header("origin", "https://app.example"));
        assert_eq!((answer.status, answer.headers["access-control-allow-origin"].to_str().unwrap()), (200, "https://app.example"));
        assert_eq!(rp.refresh(tokens.refresh_token(), &[]).error(), (400, "invalid_grant"));
        let preflight = rp.answer(rp.http().request(Method::OPTIONS, op.url("/revoke")).header("origin", "https://app.example"));
        assert_eq!((preflight.status, preflight.headers["access-control-allow-origin"].to_str().unwrap()), (204, "https://app.example"));
    }

    fn only_the_client_itself_may_ask(op) {
        let rp = notes(&op, json!({}));
        let tokens = connect(&op, &rp);
        let mut wrong = rp.clone();
        wrong.secret = Some("wrong".to_owned());
        assert_eq!(wrong.revoke(tokens.refresh_token()).error(), (401, "invalid_client"));
        assert_eq!(rp.clone().public().revoke(tokens.refresh_token()).error(), (401, "invalid_client"));
        assert_eq!(rp.clone().named("nobody").revoke(tokens.refresh_token()).error(), (401, "invalid_client"));
        assert_eq!(rp.revoke("").error(), (400, "invalid_request"));
        assert_eq!(rp.get("/revoke").status, 405);
        assert_eq!(rp.refresh(tokens.refresh_token(), &[]).status, 200);
    }

    fn b5_a_family_that_a_client_ended_stays_ended(op) {
        let mut op = op;
        let rp = notes(&op, json!({}));
        let tokens = connect(&op, &rp);
        revoke(&rp, tokens.refresh_token());
        op.restart(|_| {});
        assert_eq!(rp.refresh(tokens.refresh_token(), &[]).error(), (400, "invalid_grant"));
        assert_eq!(rp.userinfo(tokens.access_token()).error(), (401, "invalid_token"));
    }
}
