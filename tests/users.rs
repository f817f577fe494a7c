//! What operators do to people's accounts, by commands beside a running server.

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::installation::{Installation, Process};
use crate::support::op::{CALLBACK, Database, EMAIL, PASSWORD, SECRET};
use crate::support::relying_party::{Answer, Rp};

/// A server with alice, bob and the app `notes`, which alice uses.
struct Used {
    installation: Installation,
    _server: Process,
    rp: Rp,
    browser: Browser,
    bound: Answer,
    offline: Answer,
}

impl Used {
    fn start(database: Database) -> Self {
        let installation = Installation::new(database);
        installation.apply(&json!({
            "users": [{ "email": EMAIL, "password": PASSWORD }, { "email": "bob@example.test", "password": PASSWORD }],
            "clients": [{
                "client_id": "notes", "client_secret": SECRET, "redirect_uris": [CALLBACK],
                "grant_types": ["authorization_code", "refresh_token"], "session_refresh_tokens": true
            }]
        }));
        let server = installation.start();
        let rp = Rp::new(&installation.issuer).named("notes");
        let mut browser = Browser::new(&installation.issuer);
        let bound = connect(&mut browser, &rp, "openid email");
        let offline = connect(&mut browser, &rp, "openid email offline_access");
        Self {
            installation,
            _server: server,
            rp,
            browser,
            bound,
            offline,
        }
    }

    fn command(&self, verb: &str) -> Value {
        self.installation.objects(&["users", verb, EMAIL]).remove(0)
    }

    fn refreshes(&self, tokens: &Answer) -> bool {
        self.rp.refresh(tokens.refresh_token(), &[]).status == 200
    }

    fn is_signed_in(&mut self) -> bool {
        let page = self.browser.get("/");
        page.body.contains(EMAIL)
    }

    fn can_sign_in(&self) -> bool {
        let mut browser = Browser::new(&self.installation.issuer);
        let page = browser.get(&self.rp.authorize_with_pkce(&[]));
        !browser.sign_in(&page).has("input[name=password]")
    }

    fn events(&self, name: &str) -> usize {
        let all = self.installation.objects(&["audit", "export"]);
        all.iter().filter(|event| event["event"] == name).count()
    }
}

fn connect(browser: &mut Browser, rp: &Rp, scope: &str) -> Answer {
    let code = browser
        .complete(&rp.authorize_with_pkce(&[("scope", scope)]))
        .code();
    let tokens = rp.exchange_with_pkce(&code);
    assert_eq!(tokens.status, 200, "{}", tokens.json);
    tokens
}

#[test]
fn b8_whoever_is_disabled_loses_everything_at_once_and_begins_anew() {
    for database in Database::all() {
        let mut used = Used::start(database);
        assert_eq!(used.command("disable")["changed"], true);
        assert!(!used.is_signed_in() && !used.can_sign_in());
        assert!(!used.refreshes(&used.bound) && !used.refreshes(&used.offline));
        assert_eq!(used.rp.userinfo(used.offline.access_token()).status, 401);
        assert_eq!(used.command("disable")["changed"], false);
        assert_eq!(used.events("user.disabled"), 1);
        assert_eq!(used.command("enable")["changed"], true);
        assert!(used.can_sign_in());
        assert!(!used.refreshes(&used.offline), "what ended stays ended");
        assert_eq!(used.events("user.enabled"), 1);
    }
}

#[test]
fn the_end_of_all_sign_ins_spares_what_goes_on_without_one_unless_told_otherwise() {
    for database in Database::all() {
        let mut used = Used::start(database);
        assert_eq!(used.command("end-sessions")["sessions"], 1);
        assert!(!used.is_signed_in());
        assert!(!used.refreshes(&used.bound));
        assert!(used.refreshes(&used.offline));
        let ended = used
            .installation
            .objects(&["users", "end-sessions", EMAIL, "--apps"]);
        assert_eq!(ended[0]["grants"], 1);
        assert!(!used.refreshes(&used.offline));
    }
}

#[test]
fn k12_whoever_is_deleted_leaves_nothing_behind_and_comes_back_as_somebody_else() {
    for database in Database::all() {
        let mut used = Used::start(database);
        let before = used.command("show")["sub"].clone();
        assert_eq!(used.command("delete")["deleted"], true);
        assert!(!used.is_signed_in() && !used.can_sign_in());
        assert!(!used.refreshes(&used.bound) && !used.refreshes(&used.offline));
        assert_eq!(used.rp.userinfo(used.bound.access_token()).status, 401);
        assert!(
            !used.rp.introspect(used.bound.access_token()).json["active"]
                .as_bool()
                .unwrap()
        );
        for verb in [
            "delete",
            "show",
            "disable",
            "enable",
            "unlock",
            "end-sessions",
            "export",
        ] {
            let said = used.installation.refused(&["users", verb, EMAIL]);
            assert!(said.contains("nobody has the e-mail"), "{verb}: {said}");
        }
        used.installation
            .apply(&json!({ "users": [{ "email": EMAIL, "password": PASSWORD }] }));
        assert_ne!(used.command("show")["sub"], before);
        assert!(!used.refreshes(&used.offline));
        assert_eq!(used.events("user.deleted"), 1);
    }
}

#[test]
fn an_account_that_was_guessed_at_is_unlocked_for_new_browsers() {
    for database in Database::all() {
        let used = Used::start(database);
        let mut browser = Browser::new(&used.installation.issuer);
        let mut status = 0;
        for _ in 0..11 {
            let page = browser.get(&used.rp.authorize_with_pkce(&[]));
            status = browser
                .sign_in_as(&page, EMAIL, "not-the-password-of-anybody")
                .status;
        }
        assert_eq!(status, 429);
        assert!(!used.can_sign_in());
        assert_eq!(used.command("unlock")["had_failures"], true);
        assert!(used.can_sign_in());
        assert_eq!(used.command("unlock")["had_failures"], false);
    }
}

#[test]
fn what_is_held_on_a_person_is_shown_and_exported_without_any_secret() {
    for database in Database::all() {
        let used = Used::start(database);
        let shown = used.command("show");
        assert_eq!(shown["email"], EMAIL);
        assert_eq!(shown["sessions"].as_array().unwrap().len(), 1);
        assert_eq!(shown["consents"][0]["client_id"], "notes");
        let exported = used.command("export");
        assert_eq!(exported["grants"].as_array().unwrap().len(), 2);
        let events = exported["audit_events"].as_array().unwrap();
        assert!(
            events
                .iter()
                .any(|event| event["event"] == "login.succeeded")
        );
        let text = exported.to_string();
        for secret in [
            "$argon2",
            used.bound.access_token(),
            used.offline.refresh_token(),
            "bob@example.test",
        ] {
            assert!(!text.contains(secret), "{text}");
        }
        used.installation.run(&["users", "show", EMAIL]);
    }
}
