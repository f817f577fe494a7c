//! A PostgreSQL that is away, stands still, refuses us, or is not there yet: rows R10 and R11.
//!
//! `cargo test` restarts it a few times under load. Two minutes of that:
//! `cargo test --test flows -- --ignored --nocapture r10_`

use std::fs;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, PgConnection};

use crate::faults::{AT_MOST, assert_unharmed, base, connect, populate, prepared, well_again};
use crate::support::installation::{Installation, Process};
use crate::support::invariants::assert_sound;
use crate::support::own_postgres::OwnPostgres;
use crate::support::postgres;
use crate::support::race::race;
use crate::support::refreshing::{Network, Told, while_apps_refresh};
use crate::support::relying_party::{Answer, Rp};
use crate::support::wait::{eventually, pause, within};
use crate::support::way::{Way, url_of};

const APPS: usize = 8;
/// How long refusals take while nobody listens: three seconds, and what a busy machine adds.
const REFUSED_WITHIN: Duration = Duration::from_millis(4_500);
/// After PostgreSQL is back: five seconds, and as much for a debug build on a busy machine.
const HEALED_WITHIN: Duration = Duration::from_secs(10);

/// Where the first address only listens: eight seconds until the threads that wait there are relieved, three until each of
/// the new ones tries the next address, and what a busy machine adds.
const FOUND_WITHIN: Duration = Duration::from_secs(25);

/// What holds while PostgreSQL is away; the refresh token is as good afterwards.
fn assert_bears_it(installation: &Installation, rp: &Rp, tokens: &Answer) {
    let began = Instant::now();
    let refused = rp.refresh(tokens.refresh_token(), &[]);
    let after = began.elapsed();
    assert_eq!(refused.error(), (503, "temporarily_unavailable"));
    assert!(refused.headers.contains_key("retry-after"));
    assert!(after < AT_MOST, "{after:?}");
    let get = |path: &str| {
        let began = Instant::now();
        let answer = reqwest::blocking::get(format!("{}{path}", installation.issuer)).unwrap();
        (answer.status().as_u16(), began.elapsed())
    };
    for path in ["/jwks", "/.well-known/openid-configuration", "/livez"] {
        let (status, after) = get(path);
        assert_eq!(status, 200, "{path}");
        assert!(after < Duration::from_secs(3), "{path}: {after:?}");
    }
    // What was found last may be told for a moment.
    let (_, after) = within(Duration::from_secs(1) + AT_MOST, "it is not ready", || {
        Some(get("/readyz")).filter(|(status, _)| *status == 503)
    });
    assert!(after < AT_MOST, "{after:?}");
}

/// Who is not let in is told so, or is told to come again; never anything else.
fn assert_stays_ended(rp: &Rp, ended: &Answer) {
    for (answer, refusal) in [
        (rp.refresh(ended.refresh_token(), &[]), 400),
        (rp.userinfo(ended.access_token()), 401),
    ] {
        let is_right = [refusal, 503].contains(&answer.status);
        assert!(is_right, "{} {}", answer.status, answer.json);
    }
    let known = rp.introspect(ended.access_token());
    assert!(known.status == 503 || known.json["active"] == false);
}

/// The same for somebody without the app's secret. Only while guesses can't be counted: they would hold up the app itself.
fn assert_lets_no_stranger_in(rp: &Rp, ended: &Answer) {
    let mut stranger = rp.clone();
    stranger.secret = Some("a-secret-that-is-not-the-one-of-this-app".to_owned());
    let answer = stranger.introspect(ended.access_token());
    assert!([401, 503].contains(&answer.status), "{}", answer.json);
}

#[test]
fn r10_while_postgresql_is_away_nothing_hangs_and_afterwards_everything_goes_on() {
    let Some(mut cluster) = OwnPostgres::start() else {
        return;
    };
    let (installation, rp) = prepared(Installation::on_postgres(cluster.create_database()));
    let server = installation.start();
    let mut tokens = connect(&rp);
    let base = base(&server, &rp);
    for _ in 0..2 {
        cluster.crash();
        assert_bears_it(&installation, &rp, &tokens);
        cluster.start_again();
        tokens = well_again(&rp, &tokens);
    }
    assert_eq!(rp.userinfo(tokens.access_token()).status, 200);
    assert_unharmed(&installation, &rp, server, &base, &[tokens]);
}

#[test]
fn r10_apps_that_refresh_all_the_time_bear_restarts_of_postgresql() {
    restart_under_load(4, Duration::from_secs(1));
}

#[test]
#[ignore = "takes two minutes; see the head of this file"]
fn r10_apps_that_refresh_all_the_time_bear_two_minutes_of_restarts() {
    restart_under_load(12, Duration::from_secs(8));
}

/// Each restart ends every connection at once, and PostgreSQL has to recover.
fn restart_under_load(times: usize, apart: Duration) {
    let Some(mut cluster) = OwnPostgres::start() else {
        return;
    };
    let (installation, rp) = prepared(Installation::on_postgres(cluster.create_database()));
    let server = installation.start();
    let chains: Vec<_> = (0..APPS).map(|_| connect(&rp)).collect();
    let ended = connect(&rp);
    assert_eq!(rp.revoke(ended.refresh_token()).status, 200);
    let base = base(&server, &rp);
    let mut healed = Vec::new();
    let (chains, story) = while_apps_refresh(&rp, chains, Network::Reliable, |story| {
        for _ in 0..times {
            pause(apart);
            cluster.crash();
            story.wait_until_all_are(Told::Later, Instant::now(), AT_MOST);
            assert_stays_ended(&rp, &ended);
            assert_lets_no_stranger_in(&rp, &ended);
            cluster.start_again();
            healed.push(story.wait_until_all_are(Told::Tokens, Instant::now(), HEALED_WITHIN));
            assert_stays_ended(&rp, &ended);
        }
    });
    let refused = story.slowest(Told::Later);
    eprintln!(
        "{times} restarts under {APPS} apps: healed after {healed:.1?}; {} refreshes, {} refused, the slowest after {refused:.1?}",
        story.count(Told::Tokens),
        story.count(Told::Later)
    );
    assert!(refused < REFUSED_WITHIN, "{refused:?}");
    let _server = assert_unharmed(&installation, &rp, server, &base, &chains);
    assert_eq!(rp.userinfo(ended.access_token()).status, 401);
}

#[test]
fn r10_a_postgresql_that_goes_on_at_another_address_is_found_there() {
    let Some(cluster) = postgres::cluster() else {
        return;
    };
    let mut ways = [0, 1].map(|_| Way::to(&cluster.directory));
    let both = [&ways[0], &ways[1]];
    let url = url_of(
        &cluster.create_database(None),
        &both,
        "?target_session_attrs=read-write",
    );
    ways[1].cut();
    let (installation, rp) = prepared(Installation::on_postgres(url));
    let server = installation.start();
    let chains: Vec<_> = (0..APPS).map(|_| connect(&rp)).collect();
    let base = base(&server, &rp);
    let (chains, _) = while_apps_refresh(&rp, chains, Network::Reliable, |story| {
        for (from, to) in [(0, 1), (1, 0)] {
            ways[from].cut();
            story.wait_until_all_are(Told::Later, Instant::now(), AT_MOST);
            ways[to].open_again();
            let healed = story.wait_until_all_are(Told::Tokens, Instant::now(), HEALED_WITHIN);
            eprintln!("found at the other address after {healed:.1?}");
        }
    });
    assert_unharmed(&installation, &rp, server, &base, &chains);
}

#[test]
fn r11_a_postgresql_that_goes_on_at_another_address_is_found_though_the_first_only_listens() {
    let Some(cluster) = postgres::cluster() else {
        return;
    };
    let ways = [0, 1].map(|_| Way::to(&cluster.directory));
    let both = [&ways[0], &ways[1]];
    let url = url_of(&cluster.create_database(None), &both, "");
    let (installation, rp) = prepared(Installation::on_postgres(url));
    let server = installation.start();
    let chains: Vec<_> = (0..APPS).map(|_| connect(&rp)).collect();
    let base = base(&server, &rp);
    let (chains, _) = while_apps_refresh(&rp, chains, Network::Reliable, |story| {
        // Connections are taken there and carry nothing, neither those that are open nor any new one.
        ways[0].block();
        let since = Instant::now();
        let healed = story.wait_until_all_are(Told::Tokens, since, FOUND_WITHIN);
        eprintln!("found at the other address after {healed:.1?}");
        story.wait_until_all_are(Told::Tokens, since + healed, HEALED_WITHIN);
        ways[0].unblock();
    });
    assert_unharmed(&installation, &rp, server, &base, &chains);
}

#[test]
fn r11_a_postgresql_that_stands_still_is_one_that_is_away() {
    let Some(cluster) = OwnPostgres::start() else {
        return;
    };
    let url = cluster.create_database();
    stand_still(url, || cluster.freeze(), || cluster.thaw());
}

#[test]
fn r11_a_postgresql_behind_a_network_that_stands_still_is_one_that_is_away() {
    let Some(cluster) = OwnPostgres::start() else {
        return;
    };
    let way = Way::to(cluster.directory());
    let url = way.url(&cluster.create_database());
    stand_still(url, || cluster.freeze(), || cluster.thaw());
}

#[test]
fn r11_a_network_that_carries_nothing_any_more_is_a_postgresql_that_is_away() {
    let Some(cluster) = postgres::cluster() else {
        return;
    };
    let way = Way::to(&cluster.directory);
    let url = way.url(&cluster.create_database(None));
    stand_still(url, || way.block(), || way.unblock());
}

#[test]
fn r11_a_request_that_was_told_to_come_again_does_nothing_when_it_gets_through_at_last() {
    let Some(cluster) = postgres::cluster() else {
        return;
    };
    let way = Way::to(&cluster.directory);
    let url = way.url(&cluster.create_database(None));
    let (installation, rp) = prepared(Installation::on_postgres(url));
    let _server = installation.start();
    let first = connect(&rp);
    // The first use of the app's secret is noted by a write of its own.
    eventually("the use is noted", || {
        let shown = installation.objects(&["clients", "show", &rp.client_id]);
        let unused = shown[0].to_string().contains("\"last_used_at\":null");
        (!unused).then_some(())
    });
    way.hold_next("BEGIN");
    let refused = rp.refresh(first.refresh_token(), &[]);
    assert_eq!(refused.error(), (503, "temporarily_unavailable"));
    // It came again, and went on from there: for the one that is stuck its token is an old one by now.
    let second = rp.refresh(first.refresh_token(), &[]);
    let third = rp.refresh(second.refresh_token(), &[]);
    assert_eq!(third.status, 200, "{}", third.json);
    way.release();
    pause(Duration::from_secs(1));
    assert_eq!(rp.userinfo(third.access_token()).status, 200);
    let next = rp.refresh(third.refresh_token(), &[]);
    assert_eq!(next.status, 200, "{}", next.json);
    assert_sound(&installation.store());
}

fn stand_still(url: String, stop: impl Fn(), go_on: impl Fn()) {
    let (installation, rp) = prepared(Installation::on_postgres(url));
    let server = installation.start();
    let chains: Vec<_> = (0..APPS).map(|_| connect(&rp)).collect();
    let tokens = connect(&rp);
    let base = base(&server, &rp);
    let (mut chains, story) = while_apps_refresh(&rp, chains, Network::Reliable, |story| {
        stop();
        let stopped = Instant::now();
        assert_bears_it(&installation, &rp, &tokens);
        // Long enough for everything that waits to have given up.
        pause(Duration::from_secs(8).saturating_sub(stopped.elapsed()));
        assert_bears_it(&installation, &rp, &tokens);
        pause(Duration::from_secs(12).saturating_sub(stopped.elapsed()));
        // What was asked before it stopped is answered first.
        story.wait_until_all_are(Told::Later, stopped, 2 * AT_MOST);
        go_on();
        let healed = story.wait_until_all_are(Told::Tokens, Instant::now(), HEALED_WITHIN);
        eprintln!("well again after {healed:.1?}");
    });
    let refused = story.slowest(Told::Later);
    assert!(refused < AT_MOST, "{refused:?}");
    chains.push(tokens);
    assert_unharmed(&installation, &rp, server, &base, &chains);
}

/// What a page looks like is there, too.
fn assert_styled(page: &str, fetch: impl Fn(&str) -> reqwest::blocking::Response) {
    let style = page.split("rel=\"stylesheet\" href=\"").nth(1).unwrap();
    let style = fetch(style.split('"').next().unwrap());
    assert_eq!(style.status(), 200);
    assert!(
        style.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/css")
    );
    assert!(style.text().unwrap().contains("--paper"));
}

/// What a server says of itself that waits for its database, at once.
fn assert_waits(installation: &Installation, server: &Process) {
    let http = reqwest::blocking::Client::new();
    let url = |path: &str| format!("{}{path}", installation.issuer);
    let live = eventually("it lives", || http.get(url("/livez")).send().ok());
    assert_eq!(live.status(), 200);
    assert!(live.headers().contains_key("x-request-id"));
    for request in [
        http.get(url("/readyz")),
        http.get(url("/jwks")),
        http.get(url("/login")),
        http.post(url("/token")).body("grant_type=refresh_token"),
    ] {
        let began = Instant::now();
        let answer = request.send().unwrap();
        assert_eq!(answer.status(), 503, "{}", answer.url());
        assert!(answer.headers().contains_key("retry-after"));
        assert!(began.elapsed() < Duration::from_secs(3), "{}", answer.url());
        let is_page = answer.url().path() == "/login";
        let body = answer.text().unwrap();
        if is_page {
            assert_styled(&body, |path| http.get(url(path)).send().unwrap());
        }
        let expected = match is_page {
            true => "id=\"op-error\"",
            false => "temporarily_unavailable",
        };
        assert!(body.contains(expected), "{body}");
    }
    for (path, status) in [("/livez", 200), ("/readyz", 503)] {
        let answer = server.management(path).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}

#[test]
fn r10_a_server_that_is_started_before_its_postgresql_waits_for_it() {
    let Some(mut cluster) = OwnPostgres::start() else {
        return;
    };
    let url = cluster
        .create_database()
        .replace("postgres@", "postgres:hunter2@");
    let installation = Installation::on_postgres(url);
    cluster.crash();
    let mut server = installation.launch(installation.port());
    assert_waits(&installation, &server);
    // A few attempts, which nobody wants to read one by one.
    pause(Duration::from_secs(5));
    assert_waits(&installation, &server);
    let waiting: Vec<_> = server
        .log()
        .lines()
        .filter(|line| line.contains("WARN"))
        .map(str::to_owned)
        .collect();
    assert!(
        matches!(&waiting[..], [line] if line.contains("waiting for PostgreSQL") && line.contains("onnection")),
        "{waiting:?}"
    );
    cluster.start_again();
    let ready = || {
        server
            .management("/readyz")
            .ok()
            .filter(|answer| answer.starts_with("HTTP/1.1 200 "))
    };
    within(Duration::from_secs(10), "it goes on by itself", ready);
    assert!(
        server.log().contains("PostgreSQL is there"),
        "{}",
        server.log()
    );
    let rp = populate(&installation);
    assert_eq!(rp.userinfo(connect(&rp).access_token()).status, 200);
    assert!(!server.log().contains("hunter2"));
    server.signal("-TERM");
    assert_eq!(server.wait(), Some(0));
    cluster.crash();
    let mut server = installation.launch(installation.port());
    assert_waits(&installation, &server);
    server.signal("-TERM");
    assert_eq!(
        server.wait(),
        Some(0),
        "it was told to stop while it waited"
    );
}

#[test]
fn n1_whoever_asks_all_the_time_whether_it_is_ready_costs_the_database_nothing() {
    let Some(cluster) = OwnPostgres::start() else {
        return;
    };
    let url = cluster.create_database();
    let mut operator = PgConnection::establish(&url).unwrap();
    operator
        .batch_execute("ALTER SYSTEM SET log_statement = 'all'")
        .unwrap();
    operator.batch_execute("SELECT pg_reload_conf()").unwrap();
    let installation = Installation::on_postgres(url);
    let _server = installation.start();
    let looks = || {
        let log = fs::read_to_string(cluster.directory().join("log")).unwrap();
        log.matches("pg_is_in_recovery").count()
    };
    let rp = Rp::new(&installation.issuer);
    eventually("a look is in the log", || {
        assert_eq!(rp.get("/readyz").status, 200);
        (looks() > 0).then_some(())
    });
    let (before, began) = (looks(), Instant::now());
    race(16, |_| {
        for _ in 0..50 {
            assert_eq!(rp.get("/readyz").status, 200);
        }
    });
    // Four a second, and those at either end.
    let most = began.elapsed().as_secs() * 4 + 8;
    let made = looks() - before;
    assert!(made as u64 <= most, "{made} looks for 800 questions");
}

#[test]
fn r10_a_postgresql_that_refuses_us_is_not_waited_for() {
    let Some(cluster) = postgres::cluster() else {
        return;
    };
    let url = cluster.create_database(None);
    let name = url.split('?').next().unwrap().rsplit('/').next().unwrap();
    for (url, said) in [
        (
            url.replace(name, "nowhere"),
            "database \"nowhere\" does not exist",
        ),
        (
            url.replace("postgres@", "nobody:hunter2@"),
            "role \"nobody\" does not exist",
        ),
    ] {
        let installation = Installation::on_postgres(url);
        let mut server = installation.launch(installation.port());
        assert_eq!(server.wait(), Some(1), "{}", server.log());
        let log = server.log().replace("\\\"", "\"");
        assert!(log.contains(said), "{log}");
        assert!(!log.contains("hunter2"), "{log}");
    }
}

#[test]
fn r10_a_server_lives_while_it_waits_for_another_to_migrate() {
    let Some(cluster) = postgres::cluster() else {
        return;
    };
    let url = cluster.create_database(None);
    let mut migrating = PgConnection::establish(&url).unwrap();
    // As every process does that migrates (src/store/migrations.rs).
    migrating
        .batch_execute("SELECT pg_advisory_lock(x'6c617463686b6579'::bigint)")
        .unwrap();
    let installation = Installation::on_postgres(url);
    let mut server = installation.launch(installation.port());
    for _ in 0..4 {
        assert_waits(&installation, &server);
        pause(Duration::from_secs(1));
    }
    drop(migrating);
    server.wait_until_ready();
}
