//! Many threads that begin together.

/// Runs the same thing on many threads at once and collects what each was told.
pub fn race<T: Send>(racers: usize, run: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = std::sync::Barrier::new(racers);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..racers)
            .map(|racer| {
                let (start, run) = (&start, &run);
                scope.spawn(move || {
                    start.wait();
                    run(racer)
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap())
            .collect()
    })
}
