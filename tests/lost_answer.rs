//! Answers that never arrive: whatever part of the network breaks, a client that asks again goes on, in one branch.
//! RFC 9700 §4.14.2; RFC 6749 §4.1.2.

use serde_json::{Value, json};

use crate::refresh_token::{OFFLINE, assert_ended, connect, notes, refreshed, spa};
use crate::support::invariants::{assert_sound, rows};
use crate::support::lossy_proxy::{Arrives, Ending, Loss, LossyProxy};
use crate::support::on_both_databases;
use crate::support::relying_party::{Answer, Rp};

const ENDINGS: [Ending; 2] = [Ending::Close, Ending::Reset];

/// Refreshes, and loses the answer: what the server said nobody heard.
fn lose(proxy: &LossyProxy, through: &Rp, token: &str, arrives: Arrives, ending: Ending) -> Value {
    proxy.lose_next(Loss::Answer(arrives), ending);
    let heard = through.try_refresh(token);
    assert!(heard.is_err(), "{arrives:?} {ending:?}: {heard:?}");
    proxy.lost_answer()
}

/// The retry brought what was lost: the same token, and an access token of its own.
fn assert_repeats(again: &Answer, lost: &Value) {
    assert_eq!(again.refresh_token(), lost["refresh_token"]);
    assert_ne!(again.access_token(), lost["access_token"]);
}

on_both_databases! {
    fn b6_wherever_an_answer_is_cut_the_retry_brings_the_same_token(op) {
        let mut browser = op.browser();
        for rp in [notes(&op, json!({})), spa(&op)] {
            let proxy = LossyProxy::before(&op.issuer);
            let through = rp.clone().by_way_of(&proxy.url);
            let mut current = connect(&mut browser, &rp, OFFLINE);
            for arrives in Arrives::ALL {
                for (ending, retrying) in [(ENDINGS[0], &through), (ENDINGS[1], &through), (ENDINGS[0], &rp), (ENDINGS[1], &rp)] {
                    let lost = lose(&proxy, &through, current.refresh_token(), arrives, ending);
                    let again = refreshed(retrying, current.refresh_token());
                    assert_repeats(&again, &lost);
                    current = refreshed(&through, again.refresh_token());
                    assert_eq!(rp.userinfo(current.access_token()).status, 200);
                }
            }
            assert_sound(&op.store);
        }
    }

    fn b6_a_retry_may_get_lost_too_however_often(op) {
        let rp = notes(&op, json!({}));
        let proxy = LossyProxy::before(&op.issuer);
        let through = rp.clone().by_way_of(&proxy.url);
        let mut current = connect(&mut op.browser(), &rp, OFFLINE);
        for ending in ENDINGS {
            let lost = Arrives::ALL.map(|arrives| lose(&proxy, &through, current.refresh_token(), arrives, ending));
            let again = refreshed(&through, current.refresh_token());
            lost.iter().for_each(|lost| assert_repeats(&again, lost));
            current = again;
        }
        refreshed(&through, current.refresh_token());
        assert_sound(&op.store);
    }

    fn b6_a_request_that_never_arrived_spent_nothing(op) {
        let rp = notes(&op, json!({}));
        let proxy = LossyProxy::before(&op.issuer);
        let through = rp.clone().by_way_of(&proxy.url);
        let mut current = connect(&mut op.browser(), &rp, OFFLINE);
        for loss in [Loss::Request, Loss::HalfOfTheRequest] {
            for ending in ENDINGS {
                let before = rows(&op.store, "refresh_tokens");
                proxy.lose_next(loss, ending);
                assert!(through.try_refresh(current.refresh_token()).is_err(), "{loss:?} {ending:?}");
                assert_eq!(rows(&op.store, "refresh_tokens"), before);
                current = refreshed(&through, current.refresh_token());
                assert_eq!(rows(&op.store, "refresh_tokens"), before + 1);
            }
        }
        assert_sound(&op.store);
    }

    fn b6_when_nobody_knows_whether_the_server_had_begun_the_client_goes_on(op) {
        let mut op = op;
        let rp = notes(&op, json!({}));
        let proxy = LossyProxy::before(&op.issuer);
        let through = rp.clone().by_way_of(&proxy.url);
        let mut current = connect(&mut op.browser(), &rp, OFFLINE);
        for ending in ENDINGS {
            for _ in 0..5 {
                proxy.lose_next(Loss::Server, ending);
                assert!(through.try_refresh(current.refresh_token()).is_err());
                current = refreshed(&rp, current.refresh_token());
                // Ends what the server may still be doing: a request that is overtaken by its successor's is a replay.
                op.restart(|_| {});
            }
        }
        refreshed(&rp, current.refresh_token());
        assert_sound(&op.store);
    }

    fn b1_a_code_whose_answer_was_lost_is_spent_and_its_second_use_ends_what_nobody_has(op) {
        let (rp, mut browser) = (notes(&op, json!({})), op.browser());
        let proxy = LossyProxy::before(&op.issuer);
        let through = rp.clone().by_way_of(&proxy.url);
        for arrives in [Arrives::Nothing, Arrives::TheHead, Arrives::AllButTheLastByte] {
            let code = browser.complete(&rp.authorize(&[("scope", OFFLINE)])).code();
            proxy.lose_next(Loss::Answer(arrives), Ending::Reset);
            assert!(through.try_exchange(&code).is_err());
            let lost = proxy.lost_answer();
            assert_eq!(rp.exchange(&code, &[]).error(), (400, "invalid_grant"));
            let nobodys = Answer { status: 200, headers: reqwest::header::HeaderMap::new(), json: lost };
            assert_ended(&rp, &[&nobodys]);
            // Signing in again is all that it takes.
            let fresh = connect(&mut browser, &rp, OFFLINE);
            refreshed(&rp, fresh.refresh_token());
        }
        assert_sound(&op.store);
    }
}
