//! What a process holds: files and connections, threads, memory. After a fault it is back where it was before (I8).

use std::fs;
use std::process;
use std::time::{Duration, Instant};

use super::installation::Process;
use super::wait::pause;

/// Connections that a client keeps for its next request, and readers that SQLite opened only now.
const MORE_FILES: usize = 6;
/// Threads that somebody else in the process needed for a moment, and that live on until they are idle for long enough.
const MORE_THREADS: usize = 2;
/// What an allocator keeps of what it was given back: a peak of many requests at once, not something for each of them.
const MORE_KIB: u64 = 8 * 1024;
/// A connection that nobody uses is closed after a while, and so is a thread.
const BACK_WITHIN: Duration = Duration::from_secs(25);
/// So long nothing may have come or gone for it to be a state and not a moment.
const QUIET: Duration = Duration::from_millis(500);

/// What a process held while all was well.
pub struct Base {
    process: u32,
    held: Held,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    files: usize,
    threads: usize,
    resident_kib: u64,
}

impl Base {
    /// To be taken when everything has been used once: what is opened at first use is part of it.
    pub fn of(server: &Process) -> Self {
        Self::of_process(server.id())
    }

    pub fn of_this_process() -> Self {
        Self::of_process(process::id())
    }

    fn of_process(process: u32) -> Self {
        let began = Instant::now();
        let (mut held, mut since) = (Held::by(process), Instant::now());
        while since.elapsed() < QUIET {
            pause(Duration::from_millis(50));
            let now = Held::by(process);
            if (now.files, now.threads) != (held.files, held.threads) {
                since = Instant::now();
            }
            held = now;
            assert!(began.elapsed() < BACK_WITHIN, "it never rests: {held:?}");
        }
        Self { process, held }
    }

    /// Fails when it does not come back to what it was.
    pub fn assert_back(&self) {
        let began = Instant::now();
        while let Some(excess) = self.excess() {
            assert!(began.elapsed() < BACK_WITHIN, "{excess}");
            pause(Duration::from_millis(100));
        }
        let now = Held::by(self.process);
        eprintln!("held {:?}, then {now:?}", self.held);
    }

    /// What there is too much of at this moment.
    pub fn excess(&self) -> Option<String> {
        let (before, now) = (self.held, Held::by(self.process));
        let is_too_much = now.files > before.files + MORE_FILES
            || now.threads > before.threads + MORE_THREADS
            || now.resident_kib > before.resident_kib + MORE_KIB;
        is_too_much.then(|| format!("it held {before:?}, and holds {now:?}"))
    }
}

impl Held {
    fn by(process: u32) -> Self {
        Self {
            files: open_files(process),
            threads: entries(process, "task"),
            resident_kib: resident_kib(process),
        }
    }
}

/// How many files and connections a process has open.
pub fn open_files(process: u32) -> usize {
    entries(process, "fd")
}

/// How much memory a process has in use; pages of files are the kernel's, which brings and takes them as it likes.
pub fn resident_kib(process: u32) -> u64 {
    status_kib(process, "RssAnon:")
}

/// A line of what the kernel says about a process, in KiB.
pub fn status_kib(process: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.unwrap().parse().unwrap()
}

fn entries(process: u32, folder: &str) -> usize {
    let folder = format!("/proc/{process}/{folder}");
    fs::read_dir(folder).unwrap().count()
}
