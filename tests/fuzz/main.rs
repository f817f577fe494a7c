//! One of the targets without end: `cargo +nightly fuzz run --fuzz-dir tests/fuzz NAME`.
#![no_main]

mod targets;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (_, target) = targets::TARGETS
        .iter()
        .find(|(name, _)| *name == env!("CARGO_BIN_NAME"))
        .expect("Cargo.toml names targets only");
    target(bytes);
});
