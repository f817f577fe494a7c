//! Clients that sign assertions in place of a secret (`private_key_jwt`). RFC 7523 §3; OpenID Connect Core §9.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use josekit::jws::JwsSigner as _;
use latchkey::protocol::jose::{KeyPair, Signer, SigningAlgorithm, Typ};
use latchkey::store::audit_events;
use serde_json::{Map, Value, json};

use crate::refresh_token::OFFLINE;
use crate::support::on_both_databases;
use crate::support::op::{Op, SECRET};
use crate::support::race::race;
use crate::support::relying_party::{Answer, Rp, VERIFIER};

pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A client with a key of its own.
struct Robot {
    rp: Rp,
    key: KeyPair,
}

impl Robot {
    fn new(op: &Op, algorithm: SigningAlgorithm) -> Self {
        let key = KeyPair::generate(algorithm).unwrap();
        op.client(metadata(json!({ "keys": [key.public_jwk()] })));
        Self {
            rp: op.rp().named("robot").public(),
            key,
        }
    }

    /// What an assertion of this client holds, for one of these members another value or none.
    fn claims(&self, op: &Op, changed: Value) -> Map<String, Value> {
        let now = op.clock.now().seconds();
        let mut claims = json!({
            "iss": "robot", "sub": "robot", "aud": op.issuer, "exp": now + 60, "iat": now,
            "jti": latchkey::random::id()
        });
        let claims = claims.as_object_mut().unwrap();
        for (name, value) in changed.as_object().unwrap() {
            if value.is_null() {
                claims.remove(name);
            } else {
                claims.insert(name.clone(), value.clone());
            }
        }
        claims.clone()
    }

    fn sign(&self, claims: &Map<String, Value>) -> String {
        Signer::new(&self.key)
            .unwrap()
            .sign(Typ::IdToken, claims)
            .unwrap()
    }

    fn assertion(&self, op: &Op, changed: Value) -> String {
        self.sign(&self.claims(op, changed))
    }

    /// Under a header of the test's own, which no library would write.
    fn sign_under(&self, header: Value, claims: &Map<String, Value>) -> String {
        let der = self.key.to_pkcs8_der().unwrap();
        let signer = josekit::jws::ES256.signer_from_der(der).unwrap();
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(json!(claims)));
        let signature = signer.sign(message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn send(&self, assertion: &str) -> Answer {
        self.send_with(assertion, &[])
    }

    fn send_with(&self, assertion: &str, more: &[(&str, &str)]) -> Answer {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", TYPE),
            ("client_assertion", assertion),
        ];
        let http = self.rp.http();
        self.rp.answer(
            http.post(format!("{}/token", self.rp.issuer))
                .form(&[&form, more].concat()),
        )
    }
}

fn metadata(jwks: Value) -> Value {
    json!({
        "client_id": "robot", "token_endpoint_auth_method": "private_key_jwt", "jwks": jwks,
        "grant_types": ["authorization_code", "refresh_token", "client_credentials"],
        "scope": "openid email offline_access orders", "allowed_resources": ["https://orders.example/"]
    })
}

/// What the seed says is wrong with a set of keys.
fn refused(op: &Op, jwks: Value) -> String {
    let mut client = metadata(jwks);
    client["redirect_uris"] = json!(["https://rp.example/callback"]);
    let seed = json!({ "clients": [client] }).to_string();
    latchkey::seed::Seed::parse(&seed, latchkey::seed::Format::Json, &op.config)
        .map(|_| String::new())
        .unwrap_or_else(|error| error.to_string().replace(" (robot)", ""))
}

on_both_databases! {
    fn a_refused_assertion_is_written_down_once_for_each_reason_and_a_while(op) {
        let robot = Robot::new(&op, SigningAlgorithm::Es256);
        let stranger = Robot { rp: robot.rp.clone(), key: KeyPair::generate(SigningAlgorithm::Es256).unwrap() };
        let used = robot.assertion(&op, json!({}));
        assert_eq!(robot.send(&used).status, 200);
        for _ in 0..3 {
            assert_eq!(robot.send(&used).status, 401);
            assert_eq!(robot.send(&robot.assertion(&op, json!({ "aud": "https://other.example" }))).status, 401);
            assert_eq!(robot.send(&stranger.assertion(&op, json!({}))).status, 401);
        }
        let failed = || {
            let all = op.store.read_blocking(|conn| audit_events::list(conn, None, 1_000)).unwrap();
            all.into_iter().filter(|event| event.event == "client.authentication_failed").collect::<Vec<_>>()
        };
        let reasons: BTreeSet<_> = failed().iter().map(|event| event.detail["reason"].to_string()).collect();
        assert_eq!((failed().len(), reasons.len()), (3, 3), "{reasons:?}");
        assert!(failed().iter().all(|event| event.target.as_deref() == Some("robot") && event.address.is_some()));
        op.clock.advance(Duration::from_secs(900));
        robot.send(&stranger.assertion(&op, json!({})));
        assert_eq!(failed().len(), 4);
    }

    fn an_assertion_stands_for_a_secret_at_every_endpoint(op) {
        for algorithm in SigningAlgorithm::ALL {
            let robot = Robot::new(&op, algorithm);
            let token = robot.send(&robot.assertion(&op, json!({})));
            assert_eq!(token.status, 200, "{algorithm} {}", token.json);
            for (path, active) in [("/introspect", true), ("/revoke", true), ("/introspect", false)] {
                let assertion = robot.assertion(&op, json!({}));
                let form = [("token", token.access_token()), ("client_assertion_type", TYPE), ("client_assertion", &assertion)];
                let answer = robot.rp.answer(robot.rp.http().post(op.url(path)).form(&form));
                assert_eq!(answer.status, 200, "{path} {}", answer.json);
                if path == "/introspect" {
                    assert_eq!(answer.json["active"], active);
                }
            }
        }
    }

    fn a_person_signs_in_and_a_lost_answer_to_a_refresh_is_asked_for_with_a_new_assertion(op) {
        let robot = Robot::new(&op, SigningAlgorithm::Es256);
        let code = op.browser().complete(&robot.rp.authorize_with_pkce(&[("scope", OFFLINE)])).code();
        let post = |form: &[(&str, &str)]| {
            let assertion = robot.assertion(&op, json!({}));
            let proof = [("client_assertion_type", TYPE), ("client_assertion", assertion.as_str()), ("client_id", "robot")];
            robot.rp.answer(robot.rp.http().post(op.url("/token")).form(&[form, &proof].concat()))
        };
        let tokens = post(&[
            ("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", &robot.rp.redirect_uri), ("code_verifier", VERIFIER),
        ]);
        assert_eq!(tokens.status, 200, "{}", tokens.json);
        let refresh = || post(&[("grant_type", "refresh_token"), ("refresh_token", tokens.refresh_token())]);
        assert_eq!(refresh().refresh_token(), refresh().refresh_token());
    }

    fn c1_only_the_keys_own_algorithm_counts(op) {
        let robot = Robot::new(&op, SigningAlgorithm::Es256);
        let claims = robot.claims(&op, json!({}));
        for alg in ["none", "HS256", "RS256", "PS256", "EdDSA", "ES384", "es256", ""] {
            let forged = robot.sign_under(json!({ "alg": alg, "kid": robot.key.kid() }), &claims);
            assert_eq!(robot.send(&forged).error(), (401, "invalid_client"), "{alg}");
        }
        let unsigned = format!("{}.", robot.sign(&claims).rsplit_once('.').unwrap().0);
        assert_eq!(robot.send(&unsigned).error(), (401, "invalid_client"));
        let stranger = Robot { rp: robot.rp.clone(), key: KeyPair::generate(SigningAlgorithm::Es256).unwrap() };
        let forged = stranger.sign_under(json!({ "alg": "ES256", "kid": robot.key.kid() }), &claims);
        assert_eq!(robot.send(&forged).error(), (401, "invalid_client"));
        assert_eq!(robot.send(&robot.sign(&claims)).status, 200);
    }

    fn c1_a_client_may_bind_itself_to_one_algorithm(op) {
        let key = KeyPair::generate(SigningAlgorithm::Rs256).unwrap();
        let mut jwk = serde_json::to_value(key.public_jwk()).unwrap();
        jwk.as_object_mut().unwrap().remove("alg");
        let mut client = metadata(json!({ "keys": [jwk] }));
        client["token_endpoint_auth_signing_alg"] = json!("PS256");
        op.client(client);
        let robot = Robot { rp: op.rp().named("robot").public(), key };
        assert_eq!(robot.send(&robot.assertion(&op, json!({}))).error(), (401, "invalid_client"), "RS256");
        let same = KeyPair::from_pkcs8_der(SigningAlgorithm::Ps256, &robot.key.to_pkcs8_der().unwrap()).unwrap();
        let robot = Robot { rp: robot.rp, key: same };
        assert_eq!(robot.send(&robot.assertion(&op, json!({}))).status, 200, "PS256");
    }

    fn c2_a_kid_is_looked_up_and_nothing_else(op) {
        let robot = Robot::new(&op, SigningAlgorithm::Es256);
        let mut header = json!({ "alg": "ES256" });
        let long = "k".repeat(10_000);
        for kid in [json!("../../etc/passwd"), json!("' OR 1=1 --"), json!(long), json!(""), json!(7), json!(null), json!(["a"])] {
            header["kid"] = kid.clone();
            let forged = robot.sign_under(header.clone(), &robot.claims(&op, json!({})));
            let shown: String = kid.to_string().chars().take(20).collect();
            assert_eq!(robot.send(&forged).error(), (401, "invalid_client"), "{shown}");
        }
        let without = robot.sign_under(json!({ "alg": "ES256" }), &robot.claims(&op, json!({})));
        assert_eq!(robot.send(&without).status, 200, "there is one key only");
        let other = KeyPair::generate(SigningAlgorithm::Es256).unwrap();
        op.client(metadata(json!({ "keys": [robot.key.public_jwk(), other.public_jwk()] })));
        let without = robot.sign_under(json!({ "alg": "ES256" }), &robot.claims(&op, json!({})));
        assert_eq!(robot.send(&without).error(), (401, "invalid_client"), "there are two");
        assert_eq!(robot.send(&robot.assertion(&op, json!({}))).status, 200);
    }

    fn c3_a_key_that_comes_with_the_assertion_proves_nothing(op) {
        let robot = Robot::new(&op, SigningAlgorithm::Es256);
        let own = serde_json::to_value(robot.key.public_jwk()).unwrap();
        for (name, value) in [
            ("jku", json!(op.url("/jwks"))), ("jwk", own), ("x5u", json!("https://evil.example/")), ("x5c", json!(["MII"])),
            ("crit", json!([])), ("crit", json!(["b64"])), ("typ", json!("at+jwt")), ("typ", json!(7)),
        ] {
            let forged = robot.sign_under(json!({ "alg": "ES256", "kid": robot.key.kid(), name: value }), &robot.claims(&op, json!({})));
            assert_eq!(robot.send(&forged).error(), (401, "invalid_client"), "{name}");
        }
        for typ in ["JWT", "jwt", "client-authentication+jwt"] {
            let header = json!({ "alg": "ES256", "kid": robot.key.kid(), "typ": typ });
            assert_eq!(robot.send(&robot.sign_under(header, &robot.claims(&op, json!({})))).status, 200, "{typ}");
        }
    }

    fn c4_an_assertion_says_who_until_when_and_which_one_it_is(op) {
        let robot = Robot::new(&op, SigningAlgorithm::Es256);
        let now = op.clock.now().seconds();
        for wrong in [
            json!({ "iss": null }), json!({ "sub": null }), json!({ "iss": "other" }), json!({ "iss": ["robot"] }),
            json!({ "exp": null }), json!({ "exp": "soon" }), json!({ "exp": now - 10 }), json!({ "exp": now + 301 }), json!({ "exp": -1 }),
            json!({ "exp": 18_446_744_073_709_551_615_u64 }), json!({ "exp": 1e308 }), json!({ "exp": [now + 60] }),
            json!({ "iat": now + 61 }), json!({ "iat": "now" }), json!({ "nbf": now + 61 }),
            json!({ "jti": null }), json!({ "jti": "" }), json!({ "jti": 7 }), json!({ "jti": "j".repeat(257) }),
        ] {
            let answer = robot.send(&robot.assertion(&op, wrong.clone()));
            assert_eq!(answer.error(), (401, "invalid_client"), "{wrong}");
        }
        for right in [
            json!({ "exp": now + 300 }), json!({ "exp": now - 9 }), json!({ "exp": now as f64 + 0.5 }), json!({ "iat": null }),
            json!({ "iat": now + 8, "nbf": now + 8 }), json!({ "iat": now - 10_000 }), json!({ "jti": "j".repeat(256) }),
        ] {
            let answer = robot.send(&robot.assertion(&op, right.clone()));
            assert_eq!(answer.status, 200, "{right} {}", answer.json);
        }
        for garbage in ["", "e30.e30.", "a.b.c", "e30", &"A".repeat(9_000)] {
            assert_eq!(robot.send(garbage).error(), (401, "invalid_client"), "{garbage}");
        }
    }

    fn c5_an_assertion_for_somebody_else_is_refused(op) {
        let robot = Robot::new(&op, SigningAlgorithm::Es256);
        let token = op.url("/token");
        for aud in [
            json!(null), json!(""), json!("https://evil.example"), json!(format!("{}/", op.issuer)), json!([op.issuer]), json!([op.issuer, token]),
            json!([op.issuer, "https://evil.example"]), json!([op.issuer, 7]), json!({ "a": op.issuer }), json!(op.url("/introspect")),
        ] {
            let answer = robot.send(&robot.assertion(&op, json!({ "aud": aud })));
            assert_eq!(answer.error(), (401, "invalid_client"), "{aud}");
        }
        assert_eq!(robot.send(&robot.assertion(&op, json!({ "aud": token }))).status, 200);
    }

    fn c6_an_assertion_is_good_once(op) {
        let robot = Robot::new(&op, SigningAlgorithm::Es256);
        for _ in 0..10 {
            let assertion = robot.assertion(&op, json!({}));
            let answers = race(8, |_| robot.send(&assertion).status);
            assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
        }
        // Also where what it came with is refused.
        let assertion = robot.assertion(&op, json!({}));
        assert_eq!(robot.send_with(&assertion, &[("scope", "nonsense")]).error(), (400, "invalid_scope"));
        assert_eq!(robot.send(&assertion).error(), (401, "invalid_client"));
        // And for as long as it would be good, whatever is cleared away.
        let assertion = robot.assertion(&op, json!({}));
        assert_eq!(robot.send(&assertion).status, 200);
        op.clock.advance(Duration::from_secs(69));
        op.prune();
        assert_eq!(robot.send(&assertion).error(), (401, "invalid_client"));
        op.clock.advance(Duration::from_secs(2 * 3_600));
        assert!(op.prune().client_assertions > 10);
        assert_eq!(robot.send(&assertion).error(), (401, "invalid_client"));
    }

    fn c6_two_clients_may_choose_the_same_jti(op) {
        let robot = Robot::new(&op, SigningAlgorithm::Es256);
        let mut other = metadata(json!({ "keys": [robot.key.public_jwk()] }));
        other["client_id"] = json!("other");
        op.client(other);
        for id in ["robot", "other"] {
            let answer = robot.send(&robot.assertion(&op, json!({ "iss": id, "sub": id, "jti": "the same" })));
            assert_eq!(answer.status, 200, "{id}");
        }
    }

    fn c7_the_registered_method_is_the_only_one(op) {
        let robot = Robot::new(&op, SigningAlgorithm::Es256);
        let with_secret = op.rp().named("robot");
        assert_eq!(with_secret.client_credentials(&[]).error(), (401, "invalid_client"), "a secret");
        assert_eq!(robot.rp.client_credentials(&[]).error(), (401, "invalid_client"), "nothing");
        let assertion = robot.assertion(&op, json!({}));
        for more in [[("client_secret", SECRET)], [("client_id", "rp")]] {
            assert_eq!(robot.send_with(&assertion, &more).error(), (400, "invalid_request"), "{more:?}");
        }
        let form = [("grant_type", "client_credentials"), ("client_assertion_type", TYPE), ("client_assertion", &assertion)];
        let twice = robot.rp.http().post(op.url("/token")).basic_auth("robot", Some(SECRET)).form(&form);
        assert_eq!(robot.rp.answer(twice).error(), (400, "invalid_request"));
        let of_rp = robot.assertion(&op, json!({ "iss": "rp", "sub": "rp" }));
        assert_eq!(robot.send(&of_rp).error(), (401, "invalid_client"), "a client with a secret");
        let of_nobody = robot.assertion(&op, json!({ "iss": "nobody", "sub": "nobody" }));
        assert_eq!(robot.send(&of_nobody).error(), (401, "invalid_client"));
        for kind in ["", "jwt", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"] {
            let form = [("grant_type", "client_credentials"), ("client_assertion_type", kind), ("client_assertion", &assertion)];
            let answer = robot.rp.answer(robot.rp.http().post(op.url("/token")).form(&form));
            assert_eq!(answer.error(), (401, "invalid_client"), "{kind}");
        }
        assert_eq!(robot.send_with(&assertion, &[("client_id", "robot")]).status, 200, "none of these used it");
    }

    fn c11_a_set_of_keys_that_is_not_one_is_refused(op) {
        let jwk = |algorithm| serde_json::to_value(KeyPair::generate(algorithm).unwrap().public_jwk()).unwrap();
        let (es, rs) = (jwk(SigningAlgorithm::Es256), jwk(SigningAlgorithm::Rs256));
        let with = |key: &Value, name: &str, value: Value| {
            let mut key = key.clone();
            key[name] = value;
            json!({ "keys": [key] })
        };
        let off_the_curve = URL_SAFE_NO_PAD.encode([7; 32]);
        let short = URL_SAFE_NO_PAD.encode([0xff; 128]);
        for (why, set) in [
            ("private", with(&es, "d", json!("AA"))), ("private", with(&rs, "p", json!("AA"))),
            ("symmetric", json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] })),
            ("1024 bits", with(&rs, "n", json!(short))), ("exponent", with(&rs, "e", json!("AQ"))), ("exponent", with(&rs, "e", json!("AAAB"))), ("use", with(&es, "use", json!("enc"))),
            ("key_ops", with(&es, "key_ops", json!(["sign"]))), ("alg", with(&es, "alg", json!("RS256"))), ("alg", with(&rs, "alg", json!("ES256"))),
            ("public", with(&es, "alg", json!("HS256"))), ("public", with(&es, "alg", json!("none"))),
            ("crv", with(&es, "crv", json!("P-384"))), ("cannot be read", with(&es, "x", json!(off_the_curve))),
            ("kid", with(&es, "kid", json!("k".repeat(129)))), ("kid of another", json!({ "keys": [es, es] })),
            ("1 to 32", json!({ "keys": [] })), ("bytes", json!({ "keys": vec![es.clone(); 10_000] })),
            ("1 to 32", json!({ "keys": vec![es.clone(); 33] })), ("is a table", json!([es])), ("is a table", json!("https://evil.example/jwks")),
        ] {
            let said = refused(&op, set);
            assert!(said.contains("jwks: ") && said.contains(why), "{why}: {said}");
        }
        assert_eq!(refused(&op, json!({ "keys": [es, rs] })), "");
    }

    fn c11_keys_are_for_clients_that_sign(op) {
        let key = KeyPair::generate(SigningAlgorithm::Es256).unwrap();
        let jwks = json!({ "keys": [key.public_jwk()] });
        for (change, why) in [
            (json!({ "token_endpoint_auth_method": "client_secret_basic" }), "jwks: is for clients"),
            (json!({ "token_endpoint_auth_method": "none" }), "jwks: is for clients"),
            (json!({ "client_secret": SECRET }), "client_secret: "),
            (json!({ "token_endpoint_auth_signing_alg": "RS256" }), "token_endpoint_auth_signing_alg: no key"),
            (json!({ "token_endpoint_auth_signing_alg": "HS256" }), "token_endpoint_auth_signing_alg: is RS256"),
            (json!({ "jwks": null }), "jwks: is needed"),
            (json!({ "jwks": null, "jwks_uri": "https://rp.example/jwks" }), "jwks_uri"),
        ] {
            let mut client = metadata(jwks.clone());
            client["redirect_uris"] = json!(["https://rp.example/callback"]);
            client.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let seed = json!({ "clients": [client] }).to_string();
            let said = latchkey::seed::Seed::parse(&seed, latchkey::seed::Format::Json, &op.config)
                .map(|_| String::new())
                .unwrap_or_else(|error| error.to_string().replace(" (robot)", ""));
            assert!(said.contains(why), "{why}: {said}");
        }
    }
}
