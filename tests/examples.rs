//! How an app connects: one of each kind, from its entry in the seed file to its sign-out.
//! RFC 6749 §2.1; RFC 8252 (apps on a phone or a desktop); RFC 9700 §2.

use serde_json::json;

use crate::keys::verified_by;
use crate::refresh_token::sign_out;
use crate::support::app::App;
use crate::support::on_both_databases;
use crate::support::op::SECRET;

on_both_databases! {
    /// Pages are made by a server, which keeps a secret and the tokens.
    fn a_web_server_app(op) {
        op.seed(json!({ "clients": [{
            "client_id": "shop", "client_name": "Acme Shop", "client_secret": SECRET,
            "redirect_uris": ["https://shop.example/callback"],
            "post_logout_redirect_uris": ["https://shop.example/"],
            "grant_types": ["authorization_code", "refresh_token"],
            "require_pkce": true
        }] }));
        let shop = op.rp().named("shop").at("https://shop.example/callback");
        let mut browser = op.browser();

        // The person is sent to us and comes back with a code; the app compares state and issuer.
        let request = [("scope", "openid email offline_access"), ("state", "a-random-state"), ("nonce", "a-random-nonce")];
        let answer = browser.complete(&shop.authorize_with_pkce(&request)).callback();
        assert_eq!((answer["state"].as_str(), answer["iss"].as_str()), ("a-random-state", op.issuer.as_str()));

        // Its server exchanges the code, and knows who it is.
        let tokens = shop.exchange_with_pkce(&answer["code"]);
        let person = verified_by(&shop, tokens.text("id_token"));
        assert_eq!((person["aud"].as_str(), person["nonce"].as_str()), (Some("shop"), Some("a-random-nonce")));
        assert_eq!(shop.userinfo(tokens.access_token()).text("email"), "alice@example.test");

        // Later it refreshes; when the answer is lost it just asks again.
        let fresh = shop.refresh(tokens.refresh_token(), &[]);
        let retry = shop.refresh(tokens.refresh_token(), &[]);
        assert_eq!((retry.status, retry.refresh_token()), (200, fresh.refresh_token()));

        // The person signs out here and lands in the shop; the app gives back what it may use without them.
        let sign_out = format!(
            "{}/end-session?id_token_hint={}&post_logout_redirect_uri=https://shop.example/&state=bye",
            op.issuer, tokens.text("id_token")
        );
        assert_eq!(browser.get(&sign_out).location().as_deref(), Some("https://shop.example/?state=bye"));
        assert_eq!(shop.revoke(retry.refresh_token()).status, 200);
        assert_eq!(shop.refresh(retry.refresh_token(), &[]).error(), (400, "invalid_grant"));
    }

    /// Scripts in a page do everything, and there is no secret: PKCE stands in, and CORS lets that origin alone in.
    fn a_single_page_app(op) {
        let origin = "https://notes.example";
        op.seed(json!({ "clients": [{
            "client_id": "notes", "client_name": "Acme Notes", "token_endpoint_auth_method": "none",
            "redirect_uris": ["https://notes.example/"],
            "allowed_cors_origins": [origin],
            "grant_types": ["authorization_code", "refresh_token"],
            "session_refresh_tokens": true
        }] }));
        let notes = op.rp().named("notes").public().at("https://notes.example/");
        let mut browser = op.browser();
        let code = browser.complete(&notes.authorize_with_pkce(&[("scope", "openid profile")])).code();
        let tokens = notes.exchange_with_pkce(&code);
        assert_eq!(notes.userinfo(tokens.access_token()).text("name"), "Alice Archer");

        // The browser asks whether the page may read the answer, then sends the request with its origin.
        let asked = notes.answer(
            notes.http().request(reqwest::Method::OPTIONS, op.url("/token"))
                .header("origin", origin).header("access-control-request-method", "POST"),
        );
        assert_eq!(asked.headers["access-control-allow-origin"], origin);
        let form = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh_token()), ("client_id", "notes")];
        let fresh = notes.answer(notes.http().post(op.url("/token")).header("origin", origin).form(&form));
        assert_eq!((fresh.status, fresh.headers["access-control-allow-origin"].to_str().unwrap()), (200, origin));

        // Bound to the sign-in: when that ends, so does the token.
        sign_out(&mut browser);
        assert_eq!(notes.refresh(fresh.refresh_token(), &[]).error(), (400, "invalid_grant"));
        assert_eq!(notes.userinfo(fresh.access_token()).error(), (401, "invalid_token"));
    }

    /// A program on the person's own machine listens on whatever port is free; no port is registered.
    fn a_native_app_with_a_loopback_redirect(op) {
        op.seed(json!({ "clients": [{
            "client_id": "desk", "client_name": "Acme Desk", "application_type": "native",
            "token_endpoint_auth_method": "none",
            "redirect_uris": ["http://127.0.0.1/callback"],
            "grant_types": ["authorization_code", "refresh_token"]
        }] }));
        let listening = App::start();
        let desk = op.rp().named("desk").public().at(&listening.redirect_uri);
        let mut browser = op.browser();
        let left = browser.complete(&desk.authorize_with_pkce(&[("scope", "openid offline_access")]));
        reqwest::blocking::get(left.location().unwrap()).unwrap();
        let arrival = listening.next();
        let tokens = desk.exchange_with_pkce(&arrival.parameters["code"]);
        assert_eq!(tokens.status, 200, "{}", tokens.json);

        // It may not run for days: with offline_access the token outlives the browser's sign-in.
        sign_out(&mut browser);
        assert_eq!(desk.refresh(tokens.refresh_token(), &[]).status, 200);
    }

    /// Nobody is there. A job gets a token for an API, which checks it by its signature, or asks whether it was revoked.
    fn machine_to_machine(op) {
        op.seed(json!({ "clients": [
            {
                "client_id": "nightly", "client_name": "Nightly Orders", "client_secret": SECRET,
                "grant_types": ["client_credentials"], "redirect_uris": [],
                "scope": "orders.read orders.write", "allowed_resources": ["https://orders.example/"]
            },
            {
                "client_id": "orders", "client_name": "The orders API", "client_secret": SECRET,
                "grant_types": ["client_credentials"], "redirect_uris": [],
                "protected_resources": ["https://orders.example/"]
            }
        ] }));
        let (nightly, orders) = (op.rp().named("nightly"), op.rp().named("orders"));
        let token = nightly.client_credentials(&[("scope", "orders.read"), ("resource", "https://orders.example/")]);

        // By its signature, without a request to us.
        let claims = verified_by(&orders, token.access_token());
        assert_eq!((claims["aud"].as_str(), claims["scope"].as_str()), (Some("https://orders.example/"), Some("orders.read")));
        assert_eq!(claims["client_id"], "nightly");

        // By introspection, which knows of revocations at once.
        assert_eq!(orders.introspect(token.access_token()).json["active"], true);
        assert_eq!(nightly.revoke(token.access_token()).status, 200);
        assert_eq!(orders.introspect(token.access_token()).json, json!({ "active": false }));
    }
}
