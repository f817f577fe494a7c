//! Throws rounds of wrong requests at a listener, during which nothing may grow.

use std::cell::{Cell, RefCell};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::answer::{Seen, following, is_decent, is_packed_as_asked};
use super::request::Request;
use super::strange::{Change, changes, marks};
use crate::support::installation::Process;
use crate::support::raw_http::{LONGEST, Reply, converse_from};
use crate::support::wait::within;

/// What an allocator keeps, and not what leaks: a leak of 30 kB a request shows in a usual run, one of 1 kB in a long one.
const MOST_GROWTH_KIB: u64 = 16 * 1024;
/// So many requests come from one address: less than what anybody is slowed for.
const FROM_ONE_ADDRESS: u32 = 100;
const FIRST_ADDRESS: u32 = 0x7f00_0002;

/// Paths, each with requests that are right there.
pub type Samples = Vec<(&'static str, Vec<Request>)>;

/// A listener of a server.
pub struct Door<'a> {
    server: &'a Process,
    address: &'a str,
    /// The name that it is asked by.
    host: &'a str,
    asked: Cell<u32>,
}

/// How many requests there are in a usual run. A round of its own comes before, after which the server has all the memory
/// that it needs.
pub struct Rounds {
    pub cases: u32,
    pub each: u32,
}

impl<'a> Door<'a> {
    pub fn new(server: &'a Process, address: &'a str, host: &'a str) -> Self {
        let asked = Cell::new(0);
        Self {
            server,
            address,
            host,
            asked,
        }
    }

    /// Sends rounds of wrong requests, for each of which there are fresh samples: tokens expire in a long run, and a change
    /// may have spent some.
    pub fn throw_all(&self, rounds: &Rounds, mut collect: impl FnMut() -> Samples) -> Seen {
        let all = number("LATCHKEY_BAD_INPUT_CASES");
        let all = all.map_or(rounds.cases, |cases| u32::try_from(cases).unwrap());
        let (mut before, mut seen) = (None, Seen::default());
        for round in 0..=all.div_ceil(rounds.each) {
            let samples = collect();
            self.throw(&samples, rounds.each, round, &mut seen);
            if round == 0 {
                self.mark(&samples, &mut seen);
            }
            before.get_or_insert_with(|| (self.server.resident_kib(), self.server.open_files()));
        }
        // Not all of them fail at the first look.
        assert!(seen.of(200..600) > all / 2, "{seen:?}");
        let (memory, files) = before.unwrap();
        let grown = self.server.resident_kib().saturating_sub(memory);
        eprintln!("{seen:?}; {memory} KiB, and {grown} KiB more");
        assert!(grown < MOST_GROWTH_KIB, "{memory} KiB grew by {grown} KiB");
        within(LONGEST, "every connection is closed again", || {
            (self.server.open_files() <= files + 16).then_some(())
        });
        let log = self.server.log();
        let trouble = log
            .lines()
            .find(|line| line.contains("panicked") || line.contains("\"ERROR\""));
        assert_eq!(trouble, None);
        seen
    }

    /// One round; what comes back is counted by its status.
    fn throw(&self, samples: &Samples, cases: u32, round: u32, seen: &mut Seen) {
        let strategy = (0..samples.len(), any::<usize>(), changes());
        let changed = |(index, sample, changes): &(usize, usize, Vec<Change>)| {
            let (path, right) = &samples[*index];
            let mut request = right[sample % right.len()].clone();
            for change in changes {
                change.apply(&mut request);
            }
            (*path, request)
        };
        let seen = RefCell::new(seen);
        let outcome = runner(cases, round).run(&strategy, |case| {
            let (path, request) = changed(&case);
            let replies = self
                .ask(&request)
                .and_then(|replies| {
                    replies.iter().try_for_each(is_decent)?;
                    replies
                        .iter()
                        .try_for_each(|reply| is_packed_as_asked(&request, reply))?;
                    Ok(replies)
                })
                .map_err(|reason| TestCaseError::fail(format!("{path}: {reason}")))?;
            replies
                .iter()
                .for_each(|reply| seen.borrow_mut().note(reply));
            Ok(())
        });
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(reason, case)) => {
                let (path, request) = changed(&case);
                let sent = String::from_utf8_lossy(&request.bytes(self.host)).into_owned();
                let (changes, log) = (case.2, self.server.log());
                panic!("{reason}\n{path} {changes:?}\n{sent:.3000}\n{log}");
            }
            Err(TestError::Abort(reason)) => panic!("{reason}"),
        }
    }

    /// Sends a mark in every place from which it could come back on a page.
    fn mark(&self, samples: &Samples, seen: &mut Seen) {
        for right in samples.iter().flat_map(|(_, requests)| requests) {
            for change in marks() {
                let mut request = right.clone();
                change.apply(&mut request);
                let replies = self.ask(&request);
                let mut replies = replies.unwrap_or_else(|reason| panic!("{reason}: {request:?}"));
                let next = replies.first().and_then(following);
                if let Some(next) = next {
                    let shown = self.ask(&next);
                    replies.extend(shown.unwrap_or_else(|reason| panic!("{reason}: {next:?}")));
                }
                for reply in replies {
                    is_decent(&reply).unwrap_or_else(|reason| panic!("{reason}: {request:?}"));
                    seen.note(&reply);
                }
            }
        }
    }

    /// Not everything comes from one address: where a limit can't be switched off, nothing more would be looked at.
    pub fn ask(&self, request: &Request) -> Result<Vec<Reply>, String> {
        let asked = self.asked.replace(self.asked.get() + 1);
        let from = FIRST_ADDRESS + asked / FROM_ONE_ADDRESS;
        converse_from(
            from,
            self.address,
            &request.bytes(self.host),
            request.extent(),
        )
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// The same at every run, and in every round others.
fn runner(cases: u32, round: u32) -> TestRunner {
    let mut seed = [0; 32];
    let first = number("LATCHKEY_BAD_INPUT_SEED").unwrap_or_default();
    seed[..8].copy_from_slice(&first.to_le_bytes());
    seed[8..12].copy_from_slice(&round.to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}
