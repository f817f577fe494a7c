//! Signing keys: published before they sign, kept until their last token has expired. OpenID Connect Core §10.1.1; RFC 7517.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use josekit::jwk::Jwk;
use josekit::jws::{self, JwsVerifier};
use latchkey::jobs::rotate_keys::{self, Outcome};
use latchkey::protocol::jose::SigningAlgorithm;
use latchkey::store::signing_keys::StoredKey;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::on_both_databases;
use crate::support::op::{Op, SECRET};
use crate::support::relying_party::{Rp, part};
use crate::support::wait::eventually;

const DAY: u64 = 86_400;
pub const DAILY: [(&str, &str); 2] = [("keys.rotate_every", "1d"), ("keys.publish_before", "1h")];
const ALL: [(&str, &str); 1] = [("keys.algorithms", "RS256,PS256,ES256,EdDSA")];

fn published(rp: &Rp) -> Vec<Value> {
    let answer = rp.get("/jwks");
    assert_eq!(answer.status, 200);
    answer.json["keys"].as_array().unwrap().clone()
}

fn kids(rp: &Rp) -> BTreeSet<String> {
    published(rp)
        .iter()
        .map(|key| key["kid"].as_str().unwrap().to_owned())
        .collect()
}

/// Runs the job as another node would, and waits until the server has seen what it did.
pub fn rotate(op: &Op) -> Outcome {
    let root = "5a".repeat(32).parse().unwrap();
    let outcome = rotate_keys::run(&op.store, &root, &op.config, op.clock.now()).unwrap();
    let wanted: BTreeSet<String> = op
        .store
        .read_blocking(latchkey::store::signing_keys::list)
        .unwrap()
        .into_iter()
        .filter(StoredKey::is_published)
        .map(|key| key.kid)
        .collect();
    eventually("the server publishes what the database holds", || {
        (kids(&op.rp()) == wanted).then_some(())
    });
    outcome
}

/// Whether a token's signature is good under the key that it names.
pub fn is_signed(token: &str, keys: &[Value]) -> bool {
    let header = part(token, 0);
    let Some(key) = keys.iter().find(|key| key["kid"] == header["kid"]) else {
        return false;
    };
    assert_eq!(key["alg"], header["alg"]);
    let jwk = Jwk::from_map(key.as_object().unwrap().clone()).unwrap();
    let verifier: Box<dyn JwsVerifier> = match header["alg"].as_str().unwrap() {
        "RS256" => Box::new(jws::RS256.verifier_from_jwk(&jwk).unwrap()),
        "PS256" => Box::new(jws::PS256.verifier_from_jwk(&jwk).unwrap()),
        "ES256" => Box::new(jws::ES256.verifier_from_jwk(&jwk).unwrap()),
        "EdDSA" => Box::new(jws::EdDSA.verifier_from_jwk(&jwk).unwrap()),
        other => panic!("signed with {other}"),
    };
    let (signed, signature) = token.rsplit_once('.').unwrap();
    verifier
        .verify(
            signed.as_bytes(),
            &URL_SAFE_NO_PAD.decode(signature).unwrap(),
        )
        .is_ok()
}

/// The claims of a token, if its signature is good under a published key.
pub fn verified_by(rp: &Rp, token: &str) -> Value {
    assert!(is_signed(token, &published(rp)));
    part(token, 1)
}

fn thumbprint(key: &Value) -> String {
    let members: &[&str] = match key["kty"].as_str().unwrap() {
        "RSA" => &["e", "kty", "n"],
        "EC" => &["crv", "kty", "x", "y"],
        "OKP" => &["crv", "kty", "x"],
        other => panic!("a key of type {other}"),
    };
    let members: Vec<_> = members
        .iter()
        .map(|name| format!("\"{name}\":{}", key[*name]))
        .collect();
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{{{}}}", members.join(","))))
}

fn kid(token: &str) -> String {
    part(token, 0)["kid"].as_str().unwrap().to_owned()
}

on_both_databases! {
    fn an_app_whose_algorithm_was_switched_off_gets_no_token_in_another(op) {
        let mut op = op;
        op.client(json!({ "client_id": "es", "client_secret": SECRET, "id_token_signed_response_alg": "ES256" }));
        op.restart(|config| config.keys.algorithms.retain(|algorithm| algorithm.as_str() != "ES256"));
        let (mut browser, rp) = (op.browser(), op.rp());
        let es = rp.clone().named("es");
        let code = browser.complete(&es.authorize(&[])).code();
        assert_eq!(es.exchange(&code, &[]).error(), (500, "server_error"));
        assert_eq!(rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]).status, 200, "others go on");
    }

    fn o1_the_key_set_has_public_members_only(op with ALL) {
        let keys = published(&op.rp());
        assert_eq!(keys.len(), 4);
        let allowed = ["kty", "use", "alg", "kid", "n", "e", "crv", "x", "y"];
        for key in &keys {
            for (name, value) in key.as_object().unwrap() {
                assert!(allowed.contains(&name.as_str()), "{name}");
                assert!(!value.as_str().unwrap().contains(['=', '+', '/']), "base64url without padding");
            }
            assert_eq!(key["use"], "sig");
            assert_eq!(key["kid"], thumbprint(key), "RFC 7638");
        }
        assert_eq!(kids(&op.rp()).len(), 4);
    }

    fn every_algorithm_that_is_switched_on_signs(op with ALL) {
        let keys = published(&op.rp());
        let mut browser = op.browser();
        for algorithm in ["RS256", "PS256", "ES256", "EdDSA"] {
            op.client(json!({ "client_id": algorithm, "client_secret": SECRET, "id_token_signed_response_alg": algorithm }));
            let rp = op.rp().named(algorithm);
            let tokens = rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]);
            let token = tokens.text("id_token");
            assert_eq!(part(token, 0)["alg"], algorithm);
            assert!(is_signed(token, &keys), "{algorithm}");
            let (head, signature) = token.rsplit_once('.').unwrap();
            let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
            bytes[10] ^= 1;
            assert!(!is_signed(&format!("{head}.{}", URL_SAFE_NO_PAD.encode(bytes)), &keys), "the check itself works");
            assert!(is_signed(tokens.access_token(), &keys));
        }
    }

    fn o2_a_key_is_published_before_it_signs_and_kept_until_its_last_token_is_gone(op with DAILY) {
        let rp = op.rp();
        let sign_in = || {
            let tokens = rp.exchange(&op.browser().complete(&rp.authorize(&[])).code(), &[]);
            tokens.text("id_token").to_owned()
        };
        let first = kids(&rp);
        assert_eq!(first.len(), 2);
        assert_eq!(rotate(&op), Outcome::default(), "nothing is due");

        op.clock.advance(Duration::from_secs(DAY - 3_600));
        assert_eq!(rotate(&op), Outcome { published: 2, promoted: 0, ..Outcome::default() });
        assert_eq!(rotate(&op), Outcome::default(), "a second node finds nothing left to do");
        assert!(kids(&rp).is_superset(&first) && kids(&rp).len() == 4);
        assert!(first.contains(&kid(&sign_in())), "published, not yet signing");

        op.clock.advance(Duration::from_secs(3_599));
        assert_eq!(rotate(&op), Outcome::default(), "caches may still be without it");
        let old = sign_in();
        op.clock.advance(Duration::from_secs(1));
        assert_eq!(rotate(&op), Outcome { published: 0, promoted: 2, ..Outcome::default() });
        let new = eventually("the new key signs", || Some(sign_in()).filter(|token| !first.contains(&kid(token))));
        let keys = published(&rp);
        assert!(is_signed(&old, &keys) && is_signed(&new, &keys), "tokens of both keys can be checked");

        // An ID token lives ten minutes, and clocks may differ by five.
        op.clock.advance(Duration::from_secs(899));
        assert_eq!(rotate(&op), Outcome::default());
        assert!(is_signed(&old, &published(&rp)));
        op.clock.advance(Duration::from_secs(1));
        assert_eq!(rotate(&op), Outcome { withdrawn: 2, ..Outcome::default() });
        assert!(!is_signed(&old, &published(&rp)) && is_signed(&new, &published(&rp)));
        assert!(kids(&rp).is_disjoint(&first));
    }

    fn o2_a_client_with_longer_lived_tokens_keeps_the_old_key_longer(op with DAILY) {
        op.client(json!({ "client_id": "long", "client_secret": SECRET, "tokens": { "id": "2h" } }));
        op.clock.advance(Duration::from_secs(DAY - 3_600));
        rotate(&op);
        op.clock.advance(Duration::from_secs(3_600));
        assert_eq!(rotate(&op).promoted, 2);
        op.clock.advance(Duration::from_secs(7_499));
        assert_eq!(rotate(&op).withdrawn, 0);
        op.clock.advance(Duration::from_secs(1));
        assert_eq!(rotate(&op).withdrawn, 2);
    }

    fn an_id_token_of_a_retired_key_is_still_a_hint(op with DAILY) {
        let (mut browser, rp) = (op.browser(), op.rp());
        op.clock.advance(Duration::from_secs(DAY - 3_600));
        rotate(&op);
        let tokens = rp.exchange(&browser.complete(&rp.authorize(&[])).code(), &[]);
        let (hint, subject) = (tokens.text("id_token").to_owned(), tokens.id_token()["sub"].clone());
        op.clock.advance(Duration::from_secs(3_600));
        assert_eq!(rotate(&op).promoted, 2);
        let silent = browser.get(&rp.authorize(&[("prompt", "none"), ("id_token_hint", &hint)]));
        assert_eq!(rp.exchange(&silent.code(), &[]).id_token()["sub"], subject, "expired, and of a retired key");
        op.clock.advance(Duration::from_secs(900));
        assert_eq!(rotate(&op).withdrawn, 2);
        let silent = browser.get(&rp.authorize(&[("prompt", "none"), ("id_token_hint", &hint)]));
        assert_eq!(rp.exchange(&silent.code(), &[]).id_token()["sub"], subject, "published no more, and known still");
        let count = || op.store.read_blocking(latchkey::store::signing_keys::list).unwrap().len();
        assert_eq!(count(), 4);
        op.clock.advance(Duration::from_secs(400 * DAY));
        assert_eq!(rotate(&op).forgotten, 2, "after more than a year nobody can check it");
    }

    fn an_algorithm_that_is_switched_off_signs_no_more_and_leaves_the_key_set(op with ALL) {
        let mut op = op;
        op.restart(|config| config.keys.algorithms = vec![SigningAlgorithm::Rs256, SigningAlgorithm::EdDsa]);
        let rp = op.rp();
        let tokens = rp.exchange(&op.browser().complete(&rp.authorize(&[])).code(), &[]);
        assert_eq!(part(tokens.access_token(), 0)["alg"], "RS256", "the first that is on");
        assert_eq!(published(&rp).len(), 4, "what they signed can still be checked");
        assert_eq!(rotate(&op), Outcome { retired: 2, ..Outcome::default() });
        op.clock.advance(Duration::from_secs(900));
        assert_eq!(rotate(&op), Outcome { withdrawn: 2, ..Outcome::default() });
        let left: BTreeSet<_> = published(&rp).iter().map(|key| key["alg"].as_str().unwrap().to_owned()).collect();
        assert_eq!(left, BTreeSet::from(["EdDSA".to_owned(), "RS256".to_owned()]));
        op.restart(|config| config.keys.algorithms.push(SigningAlgorithm::Es256));
        assert_eq!(published(&op.rp()).len(), 3, "switched on again, with a new key");
    }

    fn r4_keys_survive_a_restart(op) {
        let mut op = op;
        let before = published(&op.rp());
        op.restart(|_config| {});
        assert_eq!(published(&op.rp()), before);
    }
}
