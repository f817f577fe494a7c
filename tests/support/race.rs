//! Races with real threads.

use std::sync::Barrier;
use std::thread;

/// Does all of it at once; the answers come in the order of the racers.
pub fn at_once<T: Send, R: FnOnce() -> T + Send>(racers: impl IntoIterator<Item = R>) -> Vec<T> {
    let racers: Vec<_> = racers.into_iter().collect();
    let together = &Barrier::new(racers.len());
    thread::scope(|scope| {
        let racers: Vec<_> = racers
            .into_iter()
            .map(|racer| {
                scope.spawn(move || {
                    together.wait();
                    racer()
                })
            })
            .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().unwrap())
            .collect()
    })
}

/// Runs the same thing on many threads at once and collects what each was told.
pub fn race<T: Send>(racers: usize, run: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let run = &run;
    at_once((0..racers).map(|racer| move || run(racer)))
}
