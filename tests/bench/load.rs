//! A closed loop: each worker has a connection of its own and sends the next operation when the last one has ended, or, at
//! a given rate, when its turn comes.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::process::{Usage, pause};

/// One thing done over and over. Whatever it did not check has not been measured.
pub(crate) trait Operation {
    fn run(&mut self) -> Outcome<()>;

    /// Whether the next one can be done after one that failed.
    fn goes_on(&self) -> bool {
        false
    }
}

impl<F: FnMut() -> Outcome<()>> Operation for F {
    fn run(&mut self) -> Outcome<()> {
        self()
    }
}

/// Makes a worker's operation ready; workers are numbered from 0.
pub(crate) type Start<'a> = dyn Fn(usize) -> Outcome<Box<dyn Operation>> + Sync + 'a;

#[derive(Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    /// Operations that begin in a second, over all workers; without it as many as the answers allow.
    pub(crate) rate: Option<f64>,
}

/// When each operation begins, whichever worker does it.
struct Pace {
    began: OnceLock<Instant>,
    begun: AtomicU32,
    interval: Duration,
}

impl Pace {
    fn wait(&self) {
        let turn = self.interval * self.begun.fetch_add(1, Ordering::Relaxed);
        let began = self.began.get_or_init(Instant::now);
        pause(turn.saturating_sub(began.elapsed()));
    }
}

/// What came out.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) operations: usize,
    pub(crate) seconds: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// CPU that it took, if anybody asked.
    pub(crate) usage: Option<Usage>,
    /// Operations that failed, also while warming up, and why the first of them did.
    pub(crate) failures: usize,
    pub(crate) first_failure: Option<String>,
}

impl Measured {
    pub(crate) fn per_second(&self) -> f64 {
        self.operations as f64 / self.seconds
    }

    /// Microseconds of CPU for one operation.
    pub(crate) fn cpu_us(&self, of: fn(&Usage) -> Duration) -> Option<f64> {
        let operations = (self.operations > 0).then_some(self.operations as f64)?;
        Some(of(self.usage.as_ref()?).as_secs_f64() * 1e6 / operations)
    }

    /// The share of the machine that was busy with something else.
    pub(crate) fn others(&self, cores: usize) -> Option<f64> {
        let usage = self.usage?;
        let known = usage.server + usage.database + usage.load;
        Some(usage.machine.saturating_sub(known).as_secs_f64() / (self.seconds * cores as f64))
    }
}

const WARMING_UP: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    failures: usize,
    first_failure: Option<String>,
}

impl Tally {
    fn fail(&mut self, reason: String) {
        self.failures += 1;
        self.first_failure.get_or_insert(reason);
    }
}

/// Runs as many workers as are asked for. `usage` is read when the measuring begins and when it ends.
pub(crate) fn run(
    workers: usize,
    timing: Timing,
    usage: &dyn Fn() -> Option<Usage>,
    start: &Start<'_>,
) -> Measured {
    let (stage, ready) = (AtomicU8::new(WARMING_UP), Barrier::new(workers + 1));
    let pace = timing.rate.map(|rate| Pace {
        began: OnceLock::new(),
        begun: AtomicU32::new(0),
        interval: Duration::from_secs_f64(1.0 / rate),
    });
    let (tallies, measured) = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|number| {
                let (stage, ready, pace) = (&stage, &ready, pace.as_ref());
                scope.spawn(move || work(number, stage, ready, pace, start))
            })
            .collect();
        ready.wait();
        pause(timing.warm_up);
        let (began, before) = (Instant::now(), usage());
        stage.store(MEASURING, Ordering::Relaxed);
        pause(timing.measured);
        stage.store(OVER, Ordering::Relaxed);
        let measured = Measured {
            seconds: began.elapsed().as_secs_f64(),
            usage: usage()
                .zip(before)
                .map(|(after, before)| after.since(before)),
            ..Measured::default()
        };
        let join = |thread: thread::ScopedJoinHandle<'_, Tally>| {
            thread.join().unwrap_or_else(|_panic| Tally {
                failures: 1,
                first_failure: Some("a worker panicked".to_owned()),
                ..Tally::default()
            })
        };
        let tallies: Vec<_> = threads.into_iter().map(join).collect();
        (tallies, measured)
    });
    sum(tallies, measured)
}

fn work(
    number: usize,
    stage: &AtomicU8,
    ready: &Barrier,
    pace: Option<&Pace>,
    start: &Start<'_>,
) -> Tally {
    let mut tally = Tally::default();
    let mut started = start(number);
    ready.wait();
    loop {
        let mut operation = match started {
            Ok(operation) => operation,
            // Without a beginning there is nothing to go on with.
            Err(reason) => {
                tally.fail(reason.to_string());
                return tally;
            }
        };
        match repeat(operation.as_mut(), stage, pace, &mut tally) {
            None => return tally,
            Some(reason) => tally.fail(reason),
        }
        // A broken connection and a lost chain of tokens begin afresh; what failed has been counted.
        started = if operation.goes_on() {
            Ok(operation)
        } else {
            start(number)
        };
    }
}

/// Goes on until the time is over, or answers why it can't.
fn repeat(
    operation: &mut dyn Operation,
    stage: &AtomicU8,
    pace: Option<&Pace>,
    tally: &mut Tally,
) -> Option<String> {
    loop {
        if let Some(pace) = pace {
            pace.wait();
        }
        let began = Instant::now();
        let outcome = operation.run();
        let took = began.elapsed();
        let now = stage.load(Ordering::Relaxed);
        match outcome {
            Err(reason) => return (now != OVER).then(|| reason.to_string()),
            Ok(()) if now == MEASURING => tally.latencies.push(took),
            Ok(()) if now == OVER => return None,
            Ok(()) => {}
        }
    }
}

fn sum(tallies: Vec<Tally>, mut measured: Measured) -> Measured {
    let mut latencies = Vec::new();
    for tally in tallies {
        latencies.extend(tally.latencies);
        measured.failures += tally.failures;
        measured.first_failure = measured.first_failure.or(tally.first_failure);
    }
    latencies.sort_unstable();
    let quantile = |hundredth: usize| {
        let latency = latencies.get(latencies.len() * hundredth / 100);
        latency.map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    };
    measured.p50_ms = quantile(50);
    measured.p99_ms = quantile(99);
    measured.operations = latencies.len();
    measured
}
