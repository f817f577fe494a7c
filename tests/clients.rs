//! Clients and their secrets: several at once, changed without a gap, told to nobody.
//! RFC 6749 §2.3; RFC 6819 §4.3.5, §5.1.4.1; OWASP ASVS 5.0 §10.4, §11.2.4.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use diesel::{QueryableByName, RunQueryDsl as _, sql_query};
use latchkey::protocol::client::ClientId;
use latchkey::protocol::client_secret::{ClientSecret, MOST_SECRETS};
use latchkey::store::client_secrets::{self, NotAdded};
use latchkey::store::clients;
use serde_json::json;

use crate::support::on_both_databases;
use crate::support::op::{CALLBACK, Op, SECRET};
use crate::support::race::race;
use crate::support::relying_party::Answer;
use crate::support::wait::eventually;

const NEXT: &str = "the-next-secret-of-more-than-thirty-two-characters";
const OTHER: &str = "another-secret-of-more-than-thirty-two-characters";
const BEHIND_A_PROXY: [(&str, &str); 1] = [("trusted_proxies", "127.0.0.1/32,::1/128")];
const GUESSER: &str = "198.51.100.7";
const HOUR: Duration = Duration::from_secs(3_600);

fn rp() -> ClientId {
    ClientId::from_request("rp")
}

/// What the token endpoint answers to a client that asks for no grant of ours: who authenticated learns just that.
fn ask(op: &Op, client: &str, secret: &str) -> Answer {
    let rp = op.rp();
    let request = rp
        .http()
        .post(op.url("/token"))
        .basic_auth(client, Some(secret))
        .form(&[("grant_type", "nothing")]);
    rp.answer(request)
}

/// The same from an address that a trusted proxy tells.
fn ask_from(op: &Op, address: &str, client: &str, secret: &str) -> Answer {
    let rp = op.rp();
    let request = rp
        .http()
        .post(op.url("/token"))
        .basic_auth(client, Some(secret))
        .header("x-forwarded-for", address)
        .form(&[("grant_type", "nothing")]);
    rp.answer(request)
}

/// How many counters of failures there are.
fn counters(op: &Op) -> i64 {
    let count = |conn: &mut _| {
        let number = sql_query("SELECT count(*) AS number FROM throttles");
        let number: Number = number.get_result(conn)?;
        Ok(number.number)
    };
    op.store.read_blocking(count).unwrap()
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    number: i64,
}

fn is_accepted(op: &Op, secret: &str) -> bool {
    match ask(op, "rp", secret).error() {
        (400, "unsupported_grant_type") => true,
        (401, "invalid_client") => false,
        other => panic!("{other:?}"),
    }
}

fn add(op: &Op, id: &str, secret: &str, ends_in: Option<Duration>) -> Result<(), NotAdded> {
    let now = op.clock.now();
    let secret = ClientSecret {
        expires_at: ends_in.map(|life| now.plus(life)),
        ..ClientSecret::new(id, secret, now)
    };
    let answer = op
        .store
        .write_blocking(move |tx| client_secrets::add(tx, &rp(), &secret, now))
        .unwrap();
    op.look_at_clients();
    answer
}

fn revoke(op: &Op, id: &str) -> bool {
    let (id, now) = (id.to_owned(), op.clock.now());
    let answer = op
        .store
        .write_blocking(move |tx| client_secrets::revoke(tx, &rp(), &id, now))
        .unwrap();
    op.look_at_clients();
    answer
}

fn secrets(op: &Op) -> Vec<ClientSecret> {
    op.store
        .read_blocking(|conn| client_secrets::list(conn, &rp()))
        .unwrap()
}

fn live(op: &Op) -> usize {
    let now = op.clock.now();
    secrets(op)
        .iter()
        .filter(|secret| secret.is_live(now))
        .count()
}

/// Applies a file that knows this client, and answers whether it changed anything.
fn apply(op: &Op, secret: Option<&str>) -> bool {
    let mut client =
        json!({ "client_id": "rp", "client_name": "Acme Notes", "redirect_uris": [CALLBACK] });
    if let Some(secret) = secret {
        client["client_secret"] = json!(secret);
    }
    let summary = op.seed(json!({ "clients": [client] }));
    assert_eq!(summary.new_secrets, [], "none is made unasked");
    !summary.updated.is_empty()
}

on_both_databases! {
    fn a_secret_is_changed_without_a_gap(op) {
        let old = secrets(&op)[0].id.clone();
        assert_eq!(add(&op, "next", NEXT, None), Ok(()));
        assert!(is_accepted(&op, SECRET) && is_accepted(&op, NEXT));
        assert!(!is_accepted(&op, OTHER));
        assert!(revoke(&op, &old));
        assert!(!is_accepted(&op, SECRET));
        assert!(is_accepted(&op, NEXT));
        assert!(!revoke(&op, &old), "once");
        assert!(!revoke(&op, "unknown"));
    }

    fn a_secret_counts_until_it_ends(op) {
        add(&op, "next", NEXT, Some(2 * HOUR)).unwrap();
        op.clock.advance(2 * HOUR - Duration::from_secs(1));
        assert!(is_accepted(&op, NEXT));
        op.clock.advance(Duration::from_secs(1));
        assert!(!is_accepted(&op, NEXT));
        assert!(is_accepted(&op, SECRET));
    }

    fn the_last_use_of_a_secret_is_noted_once_an_hour(op) {
        let last_used = || secrets(&op)[0].last_used_at;
        assert_eq!(last_used(), None);
        assert!(!is_accepted(&op, OTHER));
        let first = op.clock.now();
        assert!(is_accepted(&op, SECRET));
        eventually("the first use is noted", || last_used().filter(|used| *used == first));
        op.clock.advance(HOUR - Duration::from_secs(1));
        assert!(is_accepted(&op, SECRET));
        op.clock.advance(Duration::from_secs(1));
        let later = op.clock.now();
        assert!(is_accepted(&op, SECRET));
        // The one in between would have been noted before this one, and then this one would not be due.
        eventually("the later use is noted", || last_used().filter(|used| *used == later));
    }

    fn a_use_that_can_not_be_noted_now_holds_nobody_up(op) {
        let (written, wrote) = mpsc::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        let (store, wait) = (op.store.clone(), Mutex::new(wait));
        let now = op.clock.now();
        // Whoever writes is alone on SQLite; on PostgreSQL this holds the very row.
        let busy = std::thread::spawn(move || store.write_blocking(move |tx| {
            let id = client_secrets::list(tx, &rp())?[0].id.clone();
            client_secrets::revoke(tx, &rp(), &id, now)?;
            written.send(()).unwrap();
            let _dropped = wait.lock().unwrap().recv();
            Ok(())
        }));
        wrote.recv().unwrap();
        // A write gives up after five seconds, so who waited for one would not be answered in four.
        let request = op.rp().http().post(op.url("/token")).basic_auth("rp", Some(SECRET));
        let request = request.form(&[("grant_type", "nothing")]).timeout(Duration::from_secs(4));
        assert_eq!(op.rp().answer(request).error(), (400, "unsupported_grant_type"));
        go_on.send(()).unwrap();
        busy.join().unwrap().unwrap();
        assert!(!is_accepted(&op, SECRET));
    }

    fn a_secret_from_before_gives_way_to_the_next_one_of_a_file(op) {
        op.store.write_blocking(|tx| {
            for statement in [
                "INSERT INTO client_secrets (id, client_id, secret_hash, created_at) SELECT 'old', client_id, secret_hash, created_at FROM client_secrets",
                "DELETE FROM client_secrets WHERE id <> 'old'",
            ] {
                sql_query(statement).execute(tx)?;
            }
            Ok(())
        }).unwrap();
        assert!(is_accepted(&op, SECRET));
        assert!(!apply(&op, Some(SECRET)), "nothing to do");
        assert!(apply(&op, Some(OTHER)));
        assert!(is_accepted(&op, OTHER) && !is_accepted(&op, SECRET));
    }

    fn of_many_commands_at_once_no_client_gets_more_than_ten_secrets(op) {
        let answers = race(16, |racer| add(&op, &format!("s{racer}"), &format!("{OTHER}-{racer}"), None));
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), MOST_SECRETS - 1);
        assert!(answers.iter().all(|answer| matches!(answer, Ok(()) | Err(NotAdded::TooMany))));
        assert_eq!(live(&op), MOST_SECRETS);
        assert!(revoke(&op, &secrets(&op)[3].id));
        assert_eq!(add(&op, "room-again", NEXT, None), Ok(()));
    }

    fn of_many_that_revoke_one_secret_one_is_told_yes(op) {
        let id = secrets(&op)[0].id.clone();
        let answers = race(8, |_| revoke(&op, &id));
        assert_eq!(answers.iter().filter(|revoked| **revoked).count(), 1);
    }

    fn a_public_client_and_an_unknown_one_get_no_secret(op) {
        op.client(json!({ "client_id": "rp", "token_endpoint_auth_method": "none" }));
        assert_eq!(secrets(&op), [], "and a client that became public keeps none");
        assert_eq!(add(&op, "next", NEXT, None), Err(NotAdded::NoSecrets));
        let now = op.clock.now();
        op.store.write_blocking(move |tx| clients::delete(tx, &rp())).unwrap();
        op.look_at_clients();
        assert_eq!(add(&op, "next", NEXT, None), Err(NotAdded::UnknownClient));
        assert!(!op.store.write_blocking(move |tx| client_secrets::revoke(tx, &rp(), "next", now)).unwrap());
    }

    fn an_unchanged_file_leaves_the_secrets_that_commands_added(op) {
        add(&op, "next", NEXT, None).unwrap();
        let before = secrets(&op);
        assert!(!apply(&op, Some(SECRET)));
        assert!(!apply(&op, None));
        assert_eq!(secrets(&op), before);
    }

    fn a_changed_secret_of_a_file_takes_the_place_of_that_files_own(op) {
        add(&op, "next", NEXT, None).unwrap();
        assert!(apply(&op, Some(OTHER)));
        assert!(!apply(&op, Some(OTHER)), "twice is the same as once");
        assert!(!is_accepted(&op, SECRET));
        assert!(is_accepted(&op, NEXT) && is_accepted(&op, OTHER));
        assert!(apply(&op, Some(SECRET)), "and back");
        assert!(is_accepted(&op, SECRET) && !is_accepted(&op, OTHER));
    }

    fn a_file_may_adopt_the_secret_that_a_command_added(op) {
        add(&op, "next", NEXT, Some(HOUR)).unwrap();
        assert!(apply(&op, Some(NEXT)));
        assert!(!is_accepted(&op, SECRET));
        op.clock.advance(2 * HOUR);
        assert!(is_accepted(&op, NEXT), "the file says nothing of an end");
    }

    fn what_a_file_says_holds_again_when_it_is_applied(op) {
        let id = secrets(&op)[0].id.clone();
        assert!(revoke(&op, &id));
        assert!(!apply(&op, None), "a file without a secret brings none back");
        assert!(!is_accepted(&op, SECRET));
        assert!(apply(&op, Some(SECRET)));
        assert!(is_accepted(&op, SECRET));
    }

    fn a_file_is_refused_whole_when_its_secret_would_be_the_eleventh(op) {
        assert!(revoke(&op, &secrets(&op)[0].id));
        for number in 0..MOST_SECRETS {
            add(&op, &format!("s{number}"), &format!("{OTHER}-{number}"), None).unwrap();
        }
        let file = json!({
            "users": [{ "email": "bob@example.test" }],
            "clients": [{ "client_id": "rp", "client_secret": SECRET, "redirect_uris": [CALLBACK] }]
        });
        let seed = latchkey::seed::Seed::parse(&file.to_string(), latchkey::seed::Format::Json, &op.config).unwrap();
        let refused = seed.apply(&op.store, &op.config, op.clock.now()).unwrap_err();
        assert!(refused.to_string().contains("10 secrets"), "{refused}");
        assert_eq!(live(&op), MOST_SECRETS);
        assert!(op.store.read_blocking(|conn| latchkey::store::users::find_by_email(conn, "bob@example.test")).unwrap().is_none());
    }

    fn secrets_that_ended_a_month_ago_are_removed(op) {
        add(&op, "short", NEXT, Some(HOUR)).unwrap();
        op.clock.advance(30 * 24 * HOUR);
        add(&op, "later", OTHER, None).unwrap();
        assert!(secrets(&op).iter().any(|secret| secret.id == "short"));
        op.clock.advance(HOUR);
        add(&op, "last", &format!("{OTHER}-2"), None).unwrap();
        assert!(!secrets(&op).iter().any(|secret| secret.id == "short"));
    }

    fn a_deleted_client_takes_everything_with_it_that_was_issued_to_it_or_allowed(op) {
        op.client(json!({ "client_id": "rp", "client_secret": SECRET, "grant_types": ["authorization_code", "refresh_token"],
                          "session_refresh_tokens": true, "allowed_cors_origins": ["https://rp.example"] }));
        op.client(json!({ "client_id": "other", "client_secret": SECRET, "skip_consent": true }));
        let (mut browser, rp_) = (op.browser(), op.rp());
        let tokens = rp_.exchange(&browser.complete(&rp_.authorize(&[])).code(), &[]);
        let code = browser.get(&rp_.authorize(&[])).code();
        let other = rp_.clone().named("other");
        let kept = other.exchange(&browser.get(&other.authorize(&[])).code(), &[]);
        assert!(op.store.write_blocking(|tx| clients::delete(tx, &rp())).unwrap());
        op.look_at_clients();
        assert_eq!(rp_.userinfo(tokens.access_token()).status, 401);
        assert_eq!(rp_.userinfo(kept.access_token()).status, 200);
        assert_eq!(rp_.exchange(&code, &[]).error(), (401, "invalid_client"));
        assert_eq!(browser.get(&rp_.authorize(&[])).status, 400);
        // Nothing comes back with a new client of the same name.
        op.client(json!({ "client_id": "rp", "client_secret": SECRET, "grant_types": ["authorization_code", "refresh_token"] }));
        assert_eq!(rp_.exchange(&code, &[]).error(), (400, "invalid_grant"));
        assert_eq!(rp_.refresh(tokens.refresh_token(), &[]).error(), (400, "invalid_grant"));
        assert_eq!(rp_.userinfo(tokens.access_token()).status, 401);
        assert!(browser.get(&rp_.authorize(&[])).has("#consent-allow"), "consent is asked for anew");
    }

    fn c9_a_guesser_is_slowed_and_the_client_elsewhere_is_not(op with BEHIND_A_PROXY) {
        op.client(json!({ "client_id": "other", "client_secret": OTHER }));
        for guess in 0..10 {
            assert_eq!(ask_from(&op, GUESSER, "rp", &format!("{OTHER}-{guess}")).error(), (401, "invalid_client"));
        }
        for secret in [OTHER, SECRET] {
            let slowed = ask_from(&op, GUESSER, "rp", secret);
            assert_eq!(slowed.error(), (429, "temporarily_unavailable"), "right or wrong, it is not looked at");
            assert_eq!(slowed.headers["retry-after"], "900");
            assert_eq!(slowed.headers["cache-control"], "no-store");
        }
        assert_eq!(ask_from(&op, "198.51.100.8", "rp", SECRET).error(), (400, "unsupported_grant_type"));
        assert_eq!(ask_from(&op, GUESSER, "other", OTHER).error(), (400, "unsupported_grant_type"));
        op.clock.advance(Duration::from_secs(900));
        assert_eq!(ask_from(&op, GUESSER, "rp", SECRET).error(), (400, "unsupported_grant_type"));
    }

    fn c9_a_walk_through_one_network_is_one_guesser(op with BEHIND_A_PROXY) {
        for guess in 0..10 {
            assert_eq!(ask_from(&op, &format!("2001:db8:1:2::{guess:x}"), "rp", OTHER).status, 401);
        }
        assert_eq!(ask_from(&op, "2001:db8:1:2:ffff::1", "rp", SECRET).status, 429);
        assert_eq!(ask_from(&op, "2001:db8:1:3::1", "rp", SECRET).status, 400);
    }

    fn c9_of_parallel_guesses_no_more_are_answered_than_are_borne(op with BEHIND_A_PROXY) {
        let statuses = race(20, |guess| ask_from(&op, GUESSER, "rp", &format!("{OTHER}-{guess}")).status);
        assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 10, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 10, "{statuses:?}");
    }

    fn c9_failures_survive_a_restart(op with BEHIND_A_PROXY) {
        let mut op = op;
        for _ in 0..10 {
            ask_from(&op, GUESSER, "rp", OTHER);
        }
        op.restart(|_config| {});
        assert_eq!(ask_from(&op, GUESSER, "rp", SECRET).status, 429);
    }

    fn c9_who_was_left_behind_with_an_ended_secret_does_not_stop_its_siblings(op with BEHIND_A_PROXY) {
        add(&op, "next", NEXT, None).unwrap();
        let old = secrets(&op).into_iter().find(|secret| secret.id != "next").unwrap();
        assert!(revoke(&op, &old.id));
        for _ in 0..20 {
            assert_eq!(ask_from(&op, GUESSER, "rp", SECRET).error(), (401, "invalid_client"));
        }
        assert_eq!(ask_from(&op, GUESSER, "rp", NEXT).status, 400);
    }

    fn c9_only_a_wrong_secret_of_a_client_that_has_one_is_counted(op) {
        op.client(json!({ "client_id": "spa", "token_endpoint_auth_method": "none" }));
        assert!(is_accepted(&op, SECRET));
        assert_eq!(ask(&op, "spa", SECRET).status, 401);
        assert_eq!(ask(&op, "nobody", SECRET).status, 401);
        assert_eq!(ask(&op, "rp", "").status, 401);
        assert_eq!(counters(&op), 0);
        assert_eq!(ask(&op, "rp", OTHER).status, 401);
        assert_eq!(counters(&op), 1);
    }

    fn c8_a_malformed_basic_header_is_refused_with_the_scheme_that_is_expected(op) {
        let rp = op.rp();
        let long = format!("Basic {}", "A".repeat(64_000));
        let not_utf8 = [b"Basic ".as_slice(), &[0xff]].concat();
        // Not base64, not padded, no colon, not form-encoded, another scheme, too long, not ASCII.
        let headers: [&[u8]; 8] = [b"Basic", b"Basic !!!", b"Basic cnA6cw", b"Basic cnA=", b"Basic cnA6JXp6", b"Bearer cnA6cw==", long.as_bytes(), &not_utf8];
        for header in headers {
            let request = rp.http().post(op.url("/token")).header("authorization", header).form(&[("grant_type", "nothing")]);
            let answer = rp.answer(request);
            assert_eq!(answer.error(), (401, "invalid_client"), "{}", String::from_utf8_lossy(&header[..header.len().min(40)]));
            assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Basic "));
        }
    }
}
