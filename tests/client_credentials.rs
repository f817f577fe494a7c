//! A token that a client gets for itself. RFC 6749 §4.4; RFC 9068; RFC 8707.

use serde_json::{Value, json};

use crate::support::on_both_databases;
use crate::support::op::{CALLBACK, Op, SECRET};
use crate::support::relying_party::{Rp, part};

const ORDERS: &str = "https://orders.example/";
const STOCK: &str = "https://stock.example/";

/// A machine with two APIs; metadata of the test's own comes on top.
fn machine(op: &Op, metadata: Value) -> Rp {
    let mut client = json!({
        "client_id": "robot", "client_secret": SECRET, "grant_types": ["client_credentials"], "redirect_uris": [],
        "scope": "orders:read orders:write", "allowed_resources": [ORDERS, STOCK]
    });
    client
        .as_object_mut()
        .unwrap()
        .extend(metadata.as_object().unwrap().clone());
    op.client(client);
    op.rp().named("robot")
}

on_both_databases! {
    fn a_machine_gets_a_token_for_its_apis(op) {
        let rp = machine(&op, json!({}));
        let answer = rp.client_credentials(&[]);
        assert_eq!(answer.status, 200, "{}", answer.json);
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert_eq!(answer.json["token_type"], "Bearer");
        assert_eq!(answer.json["expires_in"], 600);
        assert_eq!(answer.json["scope"], "orders:read orders:write");
        assert_eq!((answer.json.get("refresh_token"), answer.json.get("id_token")), (None, None));
        let token = answer.access_token();
        assert_eq!(part(token, 0)["typ"], "at+jwt");
        let claims = part(token, 1);
        assert_eq!((&claims["iss"], &claims["sub"], &claims["client_id"]), (&json!(op.issuer), &json!("robot"), &json!("robot")));
        assert_eq!(claims["aud"], json!([ORDERS, STOCK]));
        assert_eq!(claims["scope"], "orders:read orders:write");
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);
        assert_eq!((claims.get("auth_time"), claims.get("acr")), (None, None), "nobody signed in");
        assert_ne!(part(rp.client_credentials(&[]).access_token(), 1)["jti"], claims["jti"]);
    }

    fn b7_what_it_asks_for_is_within_what_it_is_registered_for(op) {
        let rp = machine(&op, json!({}));
        let narrow = rp.client_credentials(&[("scope", "orders:read"), ("resource", STOCK)]);
        assert_eq!(narrow.json["scope"], "orders:read");
        assert_eq!(part(narrow.access_token(), 1)["aud"], STOCK);
        for scope in ["orders:delete", "orders:read admin", "openid", "offline_access", "\u{e9}"] {
            assert_eq!(rp.client_credentials(&[("scope", scope)]).error(), (400, "invalid_scope"), "{scope}");
        }
        assert_eq!(rp.client_credentials(&[("resource", "https://else.example/")]).error(), (400, "invalid_target"));
    }

    fn only_a_client_that_is_registered_for_it_and_has_a_secret_may(op) {
        let rp = machine(&op, json!({}));
        assert_eq!(op.rp().client_credentials(&[]).error(), (400, "unauthorized_client"));
        assert_eq!(rp.exchange("x", &[]).error(), (400, "unauthorized_client"));
        assert_eq!(rp.refresh("x", &[]).error(), (400, "unauthorized_client"));
        assert_eq!(rp.clone().public().client_credentials(&[]).error(), (401, "invalid_client"));
        let mut browser = op.browser();
        let page = browser.get(&rp.authorize(&[]));
        assert_eq!((page.status, page.location()), (400, None), "it has no redirect URI");
        machine(&op, json!({ "redirect_uris": [CALLBACK] }));
        assert_eq!(browser.get(&rp.authorize(&[])).callback()["error"], "unauthorized_client");
    }

    fn b9_it_opens_no_userinfo_and_is_never_a_persons(op) {
        let (jwt, opaque) = (machine(&op, json!({})).client_credentials(&[]), machine(&op, json!({ "access_token_format": "opaque" })));
        let opaque = opaque.client_credentials(&[]);
        assert!(!opaque.access_token().contains('.'));
        for token in [&jwt, &opaque] {
            assert_eq!(op.rp().userinfo(token.access_token()).error(), (401, "invalid_token"));
        }
    }

    fn a_client_may_have_people_and_be_a_machine(op) {
        op.client(json!({
            "client_id": "both", "client_secret": SECRET, "grant_types": ["authorization_code", "client_credentials"],
            "scope": "openid email orders:read"
        }));
        let rp = op.rp().named("both");
        assert_eq!(rp.client_credentials(&[]).json["scope"], "orders:read");
        let code = op.browser().complete(&rp.authorize(&[("scope", "openid email orders:read")])).code();
        assert_eq!(rp.exchange(&code, &[]).json["scope"], "email openid", "an API's scope is nothing that a person was asked for");
    }
}
