//! Every parser of strangers' bytes, with bytes that are nearly right and with any others. OWASP ASVS 5.0 §1.5, §15.3.
//!
//! The bytes are the same at every run. `LATCHKEY_PARSERS_SEED=7 LATCHKEY_PARSERS_CASES=100000` tries others; who has a
//! nightly compiler and `cargo fuzz` can let it search: see `tests/fuzz`.

#[path = "fuzz/targets.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

const CASES: u32 = 300;

/// Pieces from which something that is nearly right can be put together.
const PIECES: &[&str] = &[
    "client_id=rp",
    "redirect_uri=https%3A%2F%2Frp.example%2Fcallback%3Ftenant%3D1",
    "response_type=code",
    "scope=openid+email",
    "state=x",
    "code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    "code_challenge_method=S256",
    "claims=%7B%22userinfo%22%3A%7B%22email%22%3Anull%7D%7D",
    "prompt=none",
    "max_age=1e9",
    "id_token_hint=e30.e30.e30",
    "resource=https%3A%2F%2Fa.example%2F",
    "grant_type=refresh_token",
    "refresh_token=x",
    "client_assertion=e30.e30.e30",
    "&",
    "=",
    "%",
    "%zz",
    "%00",
    "%f0%9f%98%80",
    "+",
    "https://rp.example/callback",
    "http://127.0.0.1",
    "http://[::1]",
    ":8080",
    "/cb",
    "/../",
    "//",
    "\\",
    "#",
    "*",
    "?a=b",
    "com.example.app:",
    "localhost",
    "\n",
    "openid",
    " ",
    "\"",
    "{\"userinfo\":{",
    "{\"id_token\":{\"sub\":{\"value\":\"u1\"}}}",
    "\"email\":null",
    "\"acr\":{\"essential\":true,\"values\":[\"1\"]}",
    "}",
    ",",
    "[",
    "{\"keys\":[",
    "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}",
    "{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}",
    "\"d\":\"x\"",
    "]}",
    "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9",
    "eyJhbGciOiJub25lIn0",
    "eyJzdWIiOiJycCIsImV4cCI6MWUzMDh9",
    ".",
    "AAAA",
    "-_",
    "alice",
    "@",
    "example.test",
    "xn--bcher-kva.example",
    "b\u{fc}cher",
    "\u{ff20}",
    "\u{200b}",
    "\u{130}",
    "\u{1e9e}",
    "Basic ",
    "Bearer ",
    "cnA6c2VjcmV0",
    "latchkey-session=",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "; ",
    "198.51.100.7",
    "10.0.0.2",
    "[2001:db8::1]:4711",
    ", ",
    "\0",
    "\r",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn runner() -> TestRunner {
    let cases = number("LATCHKEY_PARSERS_CASES").map_or(CASES, |it| u32::try_from(it).unwrap());
    let mut seed = [0; 32];
    let first = number("LATCHKEY_PARSERS_SEED").unwrap_or_default();
    seed[..8].copy_from_slice(&first.to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = || select(PIECES).prop_map(|piece| piece.as_bytes().to_vec());
    let any_bytes = || vec(any::<u8>(), 0..40);
    let some = prop_oneof![6 => piece(), 1 => any_bytes(), 1 => any::<String>().prop_map(String::into_bytes)];
    prop_oneof![
        6 => vec(some, 0..14).prop_map(|pieces| pieces.concat()),
        1 => vec(any::<u8>(), 0..300),
        1 => (piece(), 1..3_000usize).prop_map(|(piece, times)| piece.repeat(times)),
    ]
}

#[test]
fn e7_n4_no_bytes_break_a_parser_or_make_it_say_what_is_not_so() {
    for (name, target) in targets::TARGETS {
        let outcome = runner().run(&bytes(), |bytes| {
            catch_unwind(AssertUnwindSafe(|| target(&bytes)))
                .map_err(|_told| TestCaseError::fail("it panicked"))
        });
        outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// What takes twice as long for each character more takes for ever here; a busy machine is slower, but not so much.
#[test]
fn n10_the_longest_texts_are_judged_at_once() {
    const LONGEST_BODY: usize = 64 * 1024;
    let nasty = [
        "a",
        "a@",
        "@a.",
        "a.",
        "xn--a.",
        "(a+)+",
        "a a",
        "[",
        "{\"a\":",
        "%41",
        "/..",
        "http://a/",
        "u\u{308}\u{323}",
        "\u{fdfa}",
    ];
    for piece in PIECES.iter().chain(&nasty) {
        let text = piece.repeat(LONGEST_BODY / piece.len()) + "!";
        for (name, target) in targets::TARGETS {
            let began = Instant::now();
            target(text.as_bytes());
            let took = began.elapsed();
            assert!(
                took < Duration::from_secs(10),
                "{name} took {took:?} for {piece:?}"
            );
        }
    }
}

#[test]
fn every_target_can_be_fuzzed() {
    let manifest: toml::Table = include_str!("fuzz/Cargo.toml").parse().unwrap();
    let fuzzed = manifest["bin"].as_array().unwrap().iter();
    let names = targets::TARGETS.iter().map(|(name, _)| *name);
    assert!(fuzzed.map(|bin| bin["name"].as_str().unwrap()).eq(names));
}
