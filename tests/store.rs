//! The rows: what may happen once happens once, on both databases, with real threads.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use diesel::sql_types::BigInt;
use diesel::{Connection as _, PgConnection, QueryableByName, RunQueryDsl as _, sql_query};
use latchkey::audit::Trail;
use latchkey::config::DatabaseUrl;
use latchkey::identity::password::{self, HashSettings};
use latchkey::identity::session::Session;
use latchkey::identity::throttle::{Bucket, Growth, Limit};
use latchkey::identity::user::User;
use latchkey::keys;
use latchkey::protocol::client::ClientId;
use latchkey::protocol::grants::Grant;
use latchkey::protocol::grants::authorization_code::IssuedCode;
use latchkey::protocol::interaction::Consent;
use latchkey::protocol::jose::SigningAlgorithm;
use latchkey::protocol::resource::Audience;
use latchkey::protocol::scope::Scope;
use latchkey::protocol::seal::{RootKey, TokenHash};
use latchkey::protocol::time::Timestamp;
use latchkey::random;
use latchkey::seed::{Seed, SeedError, UserEntry};
use latchkey::store::access_tokens::NewAccessToken;
use latchkey::store::refresh_tokens::NewRefreshToken;
use latchkey::store::signing_keys::{self, KeyState, StoredKey};
use latchkey::store::{
    AnyConnection, access_tokens, authorization_codes, clients, consents, grants, properties,
    refresh_tokens, sessions, throttles, users,
};
use serde_json::json;

use crate::support::on_both_databases;
use crate::support::op::{EMAIL, Op, PASSWORD};
use crate::support::race::race;
use crate::support::wait::eventually;

/// What a hash costs is not what these tests are about.
const QUICK: [(&str, &str); 2] = [
    ("password.memory_kib", "7168"),
    ("password.iterations", "1"),
];

fn alice(op: &Op) -> String {
    find_alice(op).id
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// Whether a write waits for another: in PostgreSQL, or in the queue of this store's one writer on SQLite.
fn someone_waits(op: &Op) -> bool {
    let DatabaseUrl::Postgres(url) = &op.config.database.url else {
        return op.store.waiting() > 0;
    };
    let waiting = "SELECT count(*) AS number FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let waiting: Number = sql_query(waiting)
        .get_result(&mut PgConnection::establish(url).unwrap())
        .unwrap();
    waiting.number > 0
}

/// There the server waits inside the database, which tells nobody.
fn is_sqlite(op: &Op) -> bool {
    matches!(op.config.database.url, DatabaseUrl::Sqlite(_))
}

/// Runs `late` while `early` has written but not committed, and commits once `late` waits.
fn while_uncommitted<T: Send>(
    op: &Op,
    mut early: impl FnMut(&mut AnyConnection) + Send + 'static,
    late: impl FnOnce() -> T + Send,
) -> T {
    let (written, wrote) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let store = op.store.clone();
    let early = std::thread::spawn(move || {
        let written = store.write_blocking(move |tx| {
            early(tx);
            let _nobody_waits = written.send(());
            let _dropped = wait.lock().unwrap().recv();
            Ok(())
        });
        written.unwrap();
    });
    wrote.recv().unwrap();
    let answer = std::thread::scope(|scope| {
        let late = scope.spawn(late);
        eventually("the second write waits for the first", || {
            someone_waits(op).then_some(())
        });
        go_on.send(()).unwrap();
        late.join().unwrap()
    });
    early.join().unwrap();
    answer
}

fn find_alice(op: &Op) -> User {
    op.store
        .read_blocking(|conn| users::find_by_email(conn, EMAIL))
        .unwrap()
        .unwrap()
}

fn open_sessions(op: &Op, user_id: &str) -> usize {
    let (id, now) = (user_id.to_owned(), op.clock.now());
    op.store
        .write_blocking(move |tx| sessions::end_all(tx, &id, now))
        .unwrap()
}

fn es256(op: &Op) -> StoredKey {
    let stored = op.store.read_blocking(signing_keys::list).unwrap();
    let mut current = stored
        .into_iter()
        .filter(|key| key.state == KeyState::Current);
    current.find(|key| key.algorithm == "ES256").unwrap()
}

/// A grant with a code that is good for a minute.
fn code(op: &Op) -> (IssuedCode, TokenHash) {
    let now = op.clock.now();
    let grant = Grant {
        id: random::id(),
        client_id: ClientId::from_request("rp"),
        subject: alice(op),
        session_id: random::id(),
        scope: "openid".parse().unwrap(),
        claims: Default::default(),
        resources: vec!["https://api.example".to_owned()],
        auth_time: now,
        acr: "1".to_owned(),
        amr: vec!["pwd".to_owned()],
        offline: false,
        created_at: now,
    };
    let code = IssuedCode {
        grant_id: grant.id.clone(),
        client_id: grant.client_id.clone(),
        redirect_uri: "https://rp.example/callback".to_owned(),
        code_challenge: None,
        nonce: Some("n".to_owned()),
        expires_at: now.plus(Duration::from_secs(60)),
        consumed_at: None,
    };
    let hash = TokenHash::of(&random::token());
    let written = (grant, code.clone());
    op.store
        .write_blocking(move |tx| {
            grants::insert(tx, &written.0)?;
            authorization_codes::insert(tx, &written.1, &hash)
        })
        .unwrap();
    (code, hash)
}

on_both_databases! {
    fn of_many_that_claim_a_code_one_is_told_yes(op) {
        for _ in 0..10 {
            let (issued, hash) = code(&op);
            let now = op.clock.now();
            let claimed = race(16, |_| op.store.write_blocking(move |tx| authorization_codes::claim(tx, &hash, now)).unwrap());
            assert_eq!(claimed.iter().filter(|yes| **yes).count(), 1);
            let found = op.store.read_blocking(move |conn| authorization_codes::find(conn, &hash)).unwrap().unwrap();
            assert_eq!(found, IssuedCode { consumed_at: Some(now), ..issued });
        }
    }

    fn of_many_that_redeem_a_refresh_token_one_is_told_yes(op) {
        for _ in 0..10 {
            let (issued, _) = code(&op);
            let (hash, now) = (TokenHash::of(&random::token()), op.clock.now());
            let token = NewRefreshToken { hash, grant_id: issued.grant_id, issued_at: now, expires_at: now.plus(Duration::from_secs(9)), elsewhere_before: 0 };
            op.store.write_blocking(move |tx| refresh_tokens::insert(tx, &token)).unwrap();
            let late = now.plus(Duration::from_secs(9));
            assert!(!op.store.write_blocking(move |tx| refresh_tokens::redeem(tx, &hash, None, late)).unwrap(), "it has expired");
            let redeemed = race(16, |_| op.store.write_blocking(move |tx| refresh_tokens::redeem(tx, &hash, None, now)).unwrap());
            assert_eq!(redeemed.iter().filter(|yes| **yes).count(), 1);
        }
    }

    fn an_expired_code_cannot_be_claimed(op) {
        let (issued, hash) = code(&op);
        let claimed = op.store.write_blocking(move |tx| authorization_codes::claim(tx, &hash, issued.expires_at)).unwrap();
        assert!(!claimed);
    }

    fn a_grant_is_revoked_once_and_takes_its_tokens_along(op) {
        let (issued, _) = code(&op);
        let (grant_id, now) = (issued.grant_id, op.clock.now());
        let token = TokenHash::of("an access token");
        {
            let grant_id = grant_id.clone();
            let (scope, audience) = (Scope::default(), Audience { issuer: true, resources: Vec::new() });
            let new = NewAccessToken { hash: token, scope, audience, issued_at: now, expires_at: now.plus(Duration::from_secs(9)) };
            op.store.write_blocking(move |tx| access_tokens::insert(tx, &new, &grant_id)).unwrap();
        }
        let found = op.store.read_blocking(move |conn| access_tokens::find(conn, &token)).unwrap().unwrap();
        assert!(!found.0.revoked);
        let revoked = race(8, |_| {
            let grant_id = grant_id.clone();
            op.store.write_blocking(move |tx| grants::revoke(tx, &grant_id, now)).unwrap()
        });
        assert_eq!(revoked.iter().filter(|yes| **yes).count(), 1);
        let found = op.store.read_blocking(move |conn| access_tokens::find(conn, &token)).unwrap().unwrap();
        assert!(found.0.revoked);
    }

    fn parallel_failures_are_all_counted_up_to_the_limit(op) {
        let now = op.clock.now();
        let window = Duration::from_secs(900);
        let limit = Limit { failures: 10, window, growth: Growth::Doubling };
        let count = |now: Timestamp| op.store.write_blocking(move |tx| throttles::count(tx, &Bucket([7; 32]), limit, now)).unwrap();
        let outcomes = race(32, |_| count(now));
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 10);
        assert!(outcomes.contains(&Err(now.plus(window))));
        op.store.write_blocking(|tx| throttles::take_back(tx, &Bucket([7; 32]))).unwrap();
        assert_eq!([count(now).is_ok(), count(now).is_ok()], [true, false], "one was taken back");
        assert!(count(now.plus(window)).is_ok(), "a new window");
        assert!(count(now).is_ok(), "a clock that was set back holds nobody up");
    }

    fn of_many_that_make_the_first_keys_one_wins(op) {
        let root: RootKey = "5a".repeat(32).parse().unwrap();
        let now = op.clock.now();
        let lists = race(4, |_| keys::ensure(&op.store, &root, &[SigningAlgorithm::Es256, SigningAlgorithm::EdDsa], now).unwrap());
        let last = op.store.read_blocking(signing_keys::list).unwrap();
        for algorithm in ["ES256", "EdDSA"] {
            let of_algorithm = last.iter().filter(|key| key.algorithm == algorithm && key.state == KeyState::Current);
            assert_eq!(of_algorithm.count(), 1, "{algorithm}");
        }
        assert!(lists.iter().all(|list| list.iter().all(|key| last.contains(key))));
    }

    fn of_many_that_promote_a_key_one_does(op) {
        let root: RootKey = "5a".repeat(32).parse().unwrap();
        let now = op.clock.now();
        for _ in 0..5 {
            keys::publish_next(&op.store, &root, &[SigningAlgorithm::Es256], now, &Trail::of_server(now)).unwrap();
            let promoted = race(8, |_| keys::promote(&op.store, &[SigningAlgorithm::Es256], now, &Trail::of_server(now)).unwrap());
            assert_eq!(promoted.iter().sum::<usize>(), 1);
            let list = op.store.read_blocking(signing_keys::list).unwrap();
            let current = list.iter().filter(|key| key.algorithm == "ES256" && key.state == KeyState::Current);
            assert_eq!(current.count(), 1);
        }
    }

    fn a_rotation_that_was_found_due_too_early_to_know_better_publishes_nothing(op) {
        let root: RootKey = "5a".repeat(32).parse().unwrap();
        let now = op.clock.now();
        let algorithms = [SigningAlgorithm::Es256];
        keys::publish_next(&op.store, &root, &algorithms, now, &Trail::of_server(now)).unwrap();
        let later = now.plus(Duration::from_secs(60));
        let rotating = move |tx: &mut AnyConnection| assert!(signing_keys::promote(tx, "ES256", now, later).unwrap().is_some());
        // The key is read as published still, and as gone when the place is free.
        let late = || op.store.write_blocking({
            let key = StoredKey { kid: random::id(), state: KeyState::Next, activated_at: None, ..es256(&op) };
            move |tx| signing_keys::publish(tx, &key, now)
        }).unwrap();
        assert!(!while_uncommitted(&op, rotating, late));
        assert_eq!(keys::publish_next(&op.store, &root, &algorithms, now, &Trail::of_server(later)).unwrap().len(), 0);
        assert_eq!(keys::publish_next(&op.store, &root, &algorithms, later, &Trail::of_server(later)).unwrap().len(), 1);
    }

    fn an_address_belongs_to_one_person(op) {
        let user = op.store.read_blocking(|conn| users::find_by_email(conn, EMAIL)).unwrap().unwrap();
        let second = User { id: random::id(), ..user };
        assert!(op.store.write_blocking(move |tx| users::insert(tx, &second)).is_err());
        assert_eq!(op.store.read_blocking(users::list).unwrap().len(), 1);
    }

    fn a_hash_is_strengthened_only_while_it_is_still_the_one_that_was_verified(op) {
        let id = alice(&op);
        let strengthen = |old: &'static str, new: &'static str| {
            let id = id.clone();
            op.store.write_blocking(move |tx| users::strengthen_hash(tx, &id, old, new)).unwrap()
        };
        let now = op.clock.now();
        { let id = id.clone(); op.store.write_blocking(move |tx| users::change_password(tx, &id, "first", now)).unwrap(); }
        assert!(strengthen("first", "second"));
        assert!(!strengthen("first", "third"));
    }

    fn a_sign_in_that_meets_a_change_of_the_password_opens_nothing(op with QUICK) {
        let (id, now) = (alice(&op), op.clock.now());
        let another = password::dummy_hash(&HashSettings::new(7_168, 1, 1).unwrap()).unwrap();
        let (written, changed) = mpsc::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let change = {
            let (store, id) = (op.store.clone(), id.clone());
            std::thread::spawn(move || store.write_blocking(move |tx| {
                users::change_password(tx, &id, &another, now)?;
                let _nobody_waits = written.send(());
                let _dropped = wait.lock().unwrap().recv();
                Ok(())
            }).unwrap())
        };
        changed.recv().unwrap();
        let mut browser = op.browser();
        let sign_in = std::thread::spawn(move || {
            let page = browser.get("/login");
            browser.sign_in_as(&page, EMAIL, PASSWORD).status
        });
        eventually("the sign-in waits for the change, or is over", || {
            (sign_in.is_finished() || is_sqlite(&op) || someone_waits(&op)).then_some(())
        });
        go_on.send(()).unwrap();
        change.join().unwrap();
        assert_eq!(sign_in.join().unwrap(), 400);
        assert_eq!(open_sessions(&op, &id), 0);
    }

    fn a_change_of_the_password_ends_a_session_that_is_being_opened(op with QUICK) {
        let (id, now) = (alice(&op), op.clock.now());
        let session = Session {
            id: random::id(), user_id: id.clone(), auth_time: now, proved_for: None, acr: "1".to_owned(), amr: vec!["pwd".to_owned()],
            remembered: false, created_at: now, last_seen_at: now, ended_at: None,
        };
        let opening = move |tx: &mut AnyConnection| {
            users::find_locked(tx, &session.user_id).unwrap();
            sessions::insert(tx, &session, &TokenHash::of("cookie")).unwrap();
        };
        let changing = || {
            let id = id.clone();
            op.store.write_blocking(move |tx| users::change_password(tx, &id, "another", now)).unwrap()
        };
        assert!(while_uncommitted(&op, opening, changing));
        assert_eq!(open_sessions(&op, &id), 0);
    }

    fn a_file_writes_over_nothing_that_it_does_not_name(op with QUICK) {
        let before = find_alice(&op);
        let changed = User { disabled: true, password_hash: Some("another".to_owned()), ..before.clone() };
        let changing = { let changed = changed.clone(); move |tx: &mut AnyConnection| users::update(tx, &changed).unwrap() };
        while_uncommitted(&op, changing, || op.seed(json!({ "users": [{ "email": EMAIL, "groups": ["staff"] }] })));
        assert_eq!(find_alice(&op), User { groups: vec!["staff".to_owned()], ..changed });
    }

    fn a_file_sets_its_password_even_if_another_is_being_set(op with QUICK) {
        let id = alice(&op);
        let now = op.clock.now();
        let another = password::dummy_hash(&HashSettings::new(7_168, 1, 1).unwrap()).unwrap();
        let changing = {
            let (id, another) = (id.clone(), another.clone());
            move |tx: &mut AnyConnection| { users::change_password(tx, &id, &another, now).unwrap(); }
        };
        let summary = while_uncommitted(&op, changing, || op.seed(json!({ "users": [{ "email": EMAIL, "password": PASSWORD }] })));
        assert_eq!(summary.updated, [format!("user {EMAIL}")]);
        assert_ne!(find_alice(&op).password_hash, Some(another));
        let mut browser = op.browser();
        let page = browser.get("/login");
        assert_eq!(browser.sign_in_as(&page, EMAIL, PASSWORD).status, 200, "signed in, at the first page");
    }

    fn of_two_that_create_an_account_one_is_told_that_it_exists(op with QUICK) {
        let first = User { id: random::id(), email: "bob@example.test".to_owned(), email_key: "bob@example.test".to_owned(), ..find_alice(&op) };
        let creating = { let first = first.clone(); move |tx: &mut AnyConnection| users::insert(tx, &first).unwrap() };
        let entry = UserEntry { email: "Bob@example.test".to_owned(), admin: Some(true), password: Some(PASSWORD.to_owned()), ..UserEntry::default() };
        let second = Seed::of_new_user(entry, &op.config).unwrap();
        let refused = while_uncommitted(&op, creating, || second.apply(&op.store, &op.config, op.clock.now())).unwrap_err();
        assert!(matches!(refused, SeedError::Exists(_)), "{refused}");
        let found = op.store.read_blocking(|conn| users::find_by_email(conn, "bob@example.test")).unwrap();
        assert_eq!(found, Some(first));
    }

    fn consent_is_written_over_and_read_back_whole(op) {
        let (id, now) = (alice(&op), op.clock.now());
        let rp = ClientId::from_request("rp");
        for scope in ["openid", "email openid profile"] {
            let consent = Consent { scope: scope.parse().unwrap(), claims: vec!["nickname".to_owned()] };
            let (wanted, id, rp) = (consent.clone(), id.clone(), rp.clone());
            let found = op.store.write_blocking(move |tx| {
                consents::put(tx, &id, &rp, &consent, now)?;
                consents::find(tx, &id, &rp)
            });
            assert_eq!(found.unwrap(), Some(wanted));
        }
    }

    fn a_property_keeps_its_first_value(op) {
        let values = race(8, |racer| op.store.write_blocking(move |tx| properties::find_or_set(tx, "race", &racer.to_string())).unwrap());
        let first = op.store.read_blocking(|conn| properties::find(conn, "race")).unwrap().unwrap();
        assert!(values.iter().all(|value| *value == first));
    }

    fn origins_of_switched_on_clients_are_known(op) {
        op.client(json!({ "client_id": "spa", "token_endpoint_auth_method": "none", "allowed_cors_origins": ["https://spa.example"] }));
        let known = |origin: &'static str| op.store.read_blocking(move |conn| clients::any_with_origin(conn, origin)).unwrap();
        assert!(known("https://spa.example"));
        assert!(!known("https://other.example"));
        op.client(json!({ "client_id": "spa", "token_endpoint_auth_method": "none" }));
        assert!(!known("https://spa.example"), "what is left out of the client is gone");
    }

    fn a_session_is_ended_once_and_never_renewed_after(op) {
        let mut browser = op.browser();
        browser.complete(&op.rp().authorize(&[]));
        let token = TokenHash::of(&browser.cookies["latchkey-session"]);
        let session = op.store.read_blocking(move |conn| sessions::find_by_token(conn, &token)).unwrap().unwrap();
        let (id, now) = (session.id.clone(), op.clock.now());
        let ended = race(8, |_| { let id = id.clone(); op.store.write_blocking(move |tx| sessions::end(tx, &id, now)).unwrap() });
        assert_eq!(ended.iter().filter(|yes| **yes).count(), 1);
        assert!(!op.store.write_blocking(move |tx| sessions::renew(tx, &session, &TokenHash::of("new"))).unwrap());
        assert!(!op.store.read_blocking(move |conn| sessions::is_open(conn, &id)).unwrap());
    }
}
