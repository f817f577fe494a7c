//! A refresh token in two hands: whoever comes second, and whenever, ends it for both, and for good.
//! RFC 9700 §4.14.2; RFC 6819 §5.2.2.3.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use diesel::{RunQueryDsl as _, sql_query};
use latchkey::clock::Clock;
use serde_json::json;

use crate::refresh_token::{OFFLINE, assert_ended, connect, notes, refreshed, spa};
use crate::support::invariants::assert_sound;
use crate::support::on_both_databases;
use crate::support::op::{Op, SECRET};
use crate::support::relying_party::{Answer, Rp, VERIFIER};
use crate::support::wait::{eventually, pause};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
/// Inside the window when the successor was used, just beyond it, beyond idle, beyond the family's whole life.
const LATER: [Duration; 4] = [
    Duration::from_secs(10),
    Duration::from_secs(61),
    Duration::from_secs(31 * 86_400),
    Duration::from_secs(181 * 86_400),
];
const AGENT: &str = "Browser/1";
const PROXY: [(&str, &str); 1] = [("trusted_proxies", "127.0.0.0/8, ::1/128")];

/// Ended now, after a restart, and when a clock that went wrong is set back to before it all.
fn assert_ended_for_good(op: &mut Op, rp: &Rp, answers: &[&Answer], began: &Clock) {
    assert_ended(rp, answers);
    op.restart(|_| {});
    assert_ended(rp, answers);
    let present = std::mem::replace(&mut op.clock, began.clone());
    op.restart(|_| {});
    assert_ended(rp, answers);
    op.clock = present;
    op.restart(|_| {});
    assert_ended(rp, answers);
}

/// Two that use every token within the window of each other, for so many rotations; the last answer, if both got it.
fn in_step(one: &Rp, two: &Rp, first: &Answer, rotations: usize) -> Option<Answer> {
    let mut current = refreshed(one, first.refresh_token());
    let mut before = first.refresh_token().to_owned();
    for _ in 1..rotations {
        let copy = two.refresh(&before, &[]);
        if copy.status != 200 {
            return None;
        }
        assert_eq!(copy.refresh_token(), current.refresh_token());
        before = current.refresh_token().to_owned();
        current = refreshed(one, &before);
    }
    let copy = two.refresh(&before, &[]);
    (copy.status == 200).then_some(current)
}

/// More than the server has threads for its database.
const CROWD: usize = 40;

/// Meanwhile every write waits: a lock is held, and others stand before it.
fn while_nobody_can_write(op: &Op, rp: &Rp, act: impl FnOnce()) {
    let first = connect(&mut op.browser(), rp, OFFLINE);
    let spent = refreshed(rp, first.refresh_token());
    refreshed(rp, spent.refresh_token());
    let (store, (held, is_held), (release, released)) =
        (op.store.clone(), mpsc::channel(), mpsc::channel());
    let holder = thread::spawn(move || {
        store.write_blocking(move |tx| {
            sql_query("UPDATE grants SET scope = scope").execute(tx)?;
            held.send(()).unwrap();
            let _in_time = released.recv_timeout(Duration::from_secs(4));
            Ok(())
        })
    });
    is_held.recv().unwrap();
    thread::scope(|scope| {
        // Each of them is a replay, which has something to write.
        for _ in 0..CROWD {
            scope.spawn(|| rp.refresh(first.refresh_token(), &[]));
        }
        pause(Duration::from_millis(500));
        act();
        release.send(()).unwrap();
    });
    holder.join().unwrap().unwrap();
}

/// A token request whose sender is gone before the answer could be ready.
fn send_and_hang_up(rp: &Rp, form: &[(&str, &str)]) {
    let mut body = url::form_urlencoded::Serializer::new(String::new());
    let body = body
        .extend_pairs(form)
        .extend_pairs([
            ("client_id", rp.client_id.as_str()),
            ("client_secret", SECRET),
        ])
        .finish();
    let (_, port) = rp.issuer.rsplit_once(':').unwrap();
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    // Closing is a reset, which the server sees at once.
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    let request = format!(
        "POST /token HTTP/1.1\r\nhost: localhost:{port}\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    // A busy server has begun with it by then.
    pause(Duration::from_millis(700));
    drop(stream);
    pause(Duration::from_millis(300));
}

on_both_databases! {
    fn b5_whoever_comes_second_ends_the_family_whenever_that_is(op) {
        let mut op = op;
        let (owner, mut browser) = (spa(&op), op.browser());
        let thief = owner.clone().from("Tool/2 of the thief");
        for later in LATER {
            for (one, two) in [(&thief, &owner), (&owner, &thief)] {
                let began = Clock::manual(op.clock.now());
                let stolen = connect(&mut browser, &owner, OFFLINE);
                let mut taken = vec![refreshed(one, stolen.refresh_token())];
                // Whoever came first moves on, so that there is no doubt inside the window either.
                for _ in 0..3 {
                    taken.push(refreshed(one, taken.last().unwrap().refresh_token()));
                }
                op.clock.advance(later);
                op.prune();
                assert_eq!(two.refresh(stolen.refresh_token(), &[]).error(), (400, "invalid_grant"));
                let all: Vec<_> = taken.iter().rev().chain([&stolen]).collect();
                assert_ended_for_good(&mut op, one, &all, &began);
            }
        }
        assert_sound(&op.store);
    }

    fn b5_a_token_that_was_stolen_and_used_once_is_found_too(op) {
        let mut op = op;
        let (owner, mut browser) = (spa(&op), op.browser());
        let thief = owner.clone().from("Tool/2 of the thief");
        for later in &LATER[1..] {
            for (one, two) in [(&thief, &owner), (&owner, &thief)] {
                let began = Clock::manual(op.clock.now());
                let stolen = connect(&mut browser, &owner, OFFLINE);
                let only = refreshed(one, stolen.refresh_token());
                op.clock.advance(*later);
                op.prune();
                assert_eq!(two.refresh(stolen.refresh_token(), &[]).error(), (400, "invalid_grant"));
                assert_ended_for_good(&mut op, one, &[&only, &stolen], &began);
            }
        }
    }

    fn b5_a_theft_is_found_after_a_restart(op) {
        let mut op = op;
        let rp = notes(&op, json!({}));
        let stolen = connect(&mut op.browser(), &rp, OFFLINE);
        let began = Clock::manual(op.clock.now());
        let second = refreshed(&rp, stolen.refresh_token());
        op.restart(|_| {});
        let third = refreshed(&rp, second.refresh_token());
        op.restart(|_| {});
        assert_eq!(rp.refresh(stolen.refresh_token(), &[]).error(), (400, "invalid_grant"));
        assert_ended_for_good(&mut op, &rp, &[&third, &second, &stolen], &began);
    }

    fn b5_a_thief_inside_the_window_is_found_as_soon_as_one_of_both_moves_on(op) {
        let (owner, mut browser) = (spa(&op), op.browser());
        let thief = owner.clone().from("Tool/2 of the thief");
        for (one, two) in [(&thief, &owner), (&owner, &thief)] {
            let stolen = connect(&mut browser, &owner, OFFLINE);
            let shared = refreshed(one, stolen.refresh_token());
            assert_eq!(refreshed(two, stolen.refresh_token()).refresh_token(), shared.refresh_token());
            let ahead = refreshed(one, shared.refresh_token());
            let further = refreshed(one, ahead.refresh_token());
            assert_eq!(two.refresh(shared.refresh_token(), &[]).error(), (400, "invalid_grant"));
            assert_ended(&owner, &[&further, &ahead, &shared, &stolen]);
        }
    }

    fn b5_a_thief_in_step_is_found_at_the_third_rotation_from_another_network(op with PROXY) {
        let (rp, mut browser) = (spa(&op), op.browser());
        for (here, there) in [
            ("198.51.100.7", "198.51.101.7"),
            ("198.51.100.7", "2001:db8:1::7"),
            ("2001:db8:1::7", "2001:db8:2::7"),
            // What the sender wrote itself stands further left, and counts for nothing.
            ("198.51.100.7", "198.51.100.7, 203.0.113.9"),
        ] {
            let (owner, thief) = (rp.clone().at_address(AGENT, here), rp.clone().at_address(AGENT, there));
            for (one, two) in [(&thief, &owner), (&owner, &thief)] {
                let first = connect(&mut browser, &owner, OFFLINE);
                let last = in_step(one, two, &first, 2).expect("two in a row may be chance");
                let third = refreshed(one, last.refresh_token());
                assert_eq!(two.refresh(last.refresh_token(), &[]).error(), (400, "invalid_grant"), "{here} {there}");
                assert_ended(&owner, &[&third, &last, &first]);
            }
        }
    }

    fn b6_two_tabs_in_one_network_are_never_taken_for_a_thief(op with PROXY) {
        let (rp, mut browser) = (spa(&op), op.browser());
        for (here, there) in [
            ("198.51.100.7", "198.51.100.200"),
            ("198.51.100.7", "::ffff:198.51.100.200"),
            ("198.51.100.7", "203.0.113.9, 198.51.100.7"),
            ("2001:db8:1::7", "2001:db8:1:ffff::9"),
        ] {
            let (one, two) = (rp.clone().at_address(AGENT, here), rp.clone().at_address(AGENT, there));
            let first = connect(&mut browser, &one, OFFLINE);
            let last = in_step(&one, &two, &first, 8);
            assert!(last.is_some_and(|last| one.userinfo(last.access_token()).status == 200), "{here} {there}");
        }
    }

    fn b5_nobody_hides_behind_an_address_that_they_name_themselves(op) {
        // No proxy is trusted, so the header says nothing, neither that it is another network nor that it is the owner's.
        let (rp, mut browser) = (spa(&op), op.browser());
        let owner = rp.clone().at_address(AGENT, "198.51.100.7");
        let first = connect(&mut browser, &owner, OFFLINE);
        let other_header = rp.clone().at_address(AGENT, "203.0.113.9");
        assert!(in_step(&owner, &other_header, &first, 8).is_some());
        let first = connect(&mut browser, &owner, OFFLINE);
        let thief = rp.clone().at_address("Tool/2 of the thief", "198.51.100.7");
        assert!(in_step(&owner, &thief, &first, 3).is_none());
    }

    fn b6_a_phone_that_changes_networks_is_no_thief(op with PROXY) {
        let rp = spa(&op);
        let [home, train, office] = ["198.51.100.7", "203.0.113.9", "2001:db8:1::7"]
            .map(|address| rp.clone().at_address(AGENT, address));
        let mut current = connect(&mut op.browser(), &home, OFFLINE);
        // Once, with the answer lost on the way.
        for (before, after) in [(&home, &train), (&train, &office)] {
            let lost = refreshed(before, current.refresh_token());
            assert_eq!(refreshed(after, current.refresh_token()).refresh_token(), lost.refresh_token());
            current = refreshed(after, lost.refresh_token());
        }
        // However often, when nothing is lost.
        for place in [&home, &train, &office].into_iter().cycle().take(9) {
            current = refreshed(place, current.refresh_token());
            op.clock.advance(MINUTE);
        }
        assert_eq!(home.userinfo(current.access_token()).status, 200);
    }

    fn b5_the_steps_of_a_thief_are_counted_across_a_restart(op) {
        let mut op = op;
        let owner = spa(&op);
        let thief = owner.clone().from("Tool/2 of the thief");
        let first = connect(&mut op.browser(), &owner, OFFLINE);
        let last = in_step(&owner, &thief, &first, 2).expect("two in a row may be chance");
        op.restart(|_| {});
        assert!(in_step(&owner, &thief, &last, 1).is_none());
        op.clock.advance(DAY);
        assert_ended(&owner, &[&last, &first]);
    }

    fn b5_a_thief_who_does_not_wait_for_the_answer_is_found_too(op) {
        let rp = notes(&op, json!({}));
        let stolen = connect(&mut op.browser(), &rp, OFFLINE);
        let second = refreshed(&rp, stolen.refresh_token());
        let third = refreshed(&rp, second.refresh_token());
        while_nobody_can_write(&op, &rp, || {
            send_and_hang_up(&rp, &[("grant_type", "refresh_token"), ("refresh_token", stolen.refresh_token())]);
        });
        eventually("the family has ended", || {
            (rp.introspect(third.refresh_token()).json["active"] == false).then_some(())
        });
        assert_ended(&rp, &[&third, &second]);
    }

    fn b1_a_code_that_is_replayed_by_somebody_who_does_not_wait_is_a_replay_too(op) {
        let rp = notes(&op, json!({}));
        let code = op.browser().complete(&rp.authorize_with_pkce(&[("scope", OFFLINE)])).code();
        let tokens = rp.exchange_with_pkce(&code);
        while_nobody_can_write(&op, &rp, || {
            let form = [
                ("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", &rp.redirect_uri), ("code_verifier", VERIFIER),
            ];
            send_and_hang_up(&rp, &form);
        });
        eventually("the family has ended", || {
            (rp.introspect(tokens.refresh_token()).json["active"] == false).then_some(())
        });
    }
}
