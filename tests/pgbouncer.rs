//! PostgreSQL behind `PgBouncer` in transaction mode: no statement, setting or lock of ours outlives its transaction.

use std::thread;

use serde_json::json;

use crate::nodes::{Pair, race_codes, race_refreshes};
use crate::support::browser::Browser;
use crate::support::installation::Installation;
use crate::support::invariants::assert_sound;
use crate::support::op::{CALLBACK, EMAIL, PASSWORD, SECRET};
use crate::support::pgbouncer::PgBouncer;
use crate::support::relying_party::Rp;

#[test]
fn behind_pgbouncer_every_step_of_an_app_works_and_so_do_the_commands() {
    let Some(bouncer) = PgBouncer::start() else {
        return;
    };
    let installation = Installation::on_postgres(bouncer.create_database());
    let server = installation.start();
    for step in installation.objects(&["selftest"]) {
        assert_eq!(step["ok"], true, "{step}");
    }
    for arguments in [
        &["gc"][..],
        &["keys", "rotate", "--now"],
        &["users", "list"],
        &["audit", "export"],
        &["export"],
    ] {
        installation.run(arguments);
    }
    assert_eq!(installation.objects(&["selftest"]).len(), 9);
    let log = server.log();
    assert!(
        !log.contains("\"ERROR\"") && !log.contains("\"WARN\""),
        "{log}"
    );
}

#[test]
fn behind_pgbouncer_many_apps_at_once_share_few_sessions() {
    let Some(bouncer) = PgBouncer::start() else {
        return;
    };
    let installation = Installation::on_postgres(bouncer.create_database());
    installation.apply(&json!({
        "users": [{ "email": EMAIL, "password": PASSWORD }],
        "clients": [{
            "client_id": "notes", "client_secret": SECRET, "redirect_uris": [CALLBACK],
            "grant_types": ["authorization_code", "refresh_token"], "session_refresh_tokens": true, "skip_consent": true
        }]
    }));
    let server = installation.start();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let rp = Rp::new(&installation.issuer).named("notes");
                let mut browser = Browser::new(&installation.issuer);
                let code = browser.complete(&rp.authorize(&[])).code();
                let mut tokens = rp.exchange(&code, &[]);
                for _ in 0..15 {
                    assert_eq!(tokens.status, 200, "{}", tokens.json);
                    assert_eq!(rp.introspect(tokens.access_token()).json["active"], true);
                    assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
                    tokens = rp.refresh(tokens.refresh_token(), &[]);
                }
                assert_eq!(rp.revoke(tokens.refresh_token()).status, 200);
                assert_eq!(rp.introspect(tokens.access_token()).json["active"], false);
            });
        }
    });
    let log = server.log();
    assert!(!log.contains("\"ERROR\""), "{log}");
    assert_sound(&installation.store());
}

#[test]
fn r16_behind_pgbouncer_a_token_brings_one_branch_and_a_code_tokens_once() {
    let Some(bouncer) = PgBouncer::start() else {
        return;
    };
    race_refreshes(
        Pair::on(Installation::on_postgres(bouncer.create_database())),
        15,
    );
    race_codes(
        Pair::on(Installation::on_postgres(bouncer.create_database())),
        10,
    );
}
