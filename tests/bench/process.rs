//! What the system says about processes. Linux only; elsewhere there are no such figures.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Outcome;

/// The unit of /proc's times, which is part of the kernel's interface and the same on every machine in use.
const TICKS_A_SECOND: u64 = 100;

/// CPU that was used so far: by the server, its database server, this program, and by everything on the machine.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) server: Duration,
    pub(crate) database: Duration,
    pub(crate) load: Duration,
    pub(crate) machine: Duration,
}

impl Usage {
    /// `database` is the first process of a database server.
    pub(crate) fn now(server: u32, database: Option<u32>) -> Option<Self> {
        Some(Self {
            server: cpu(server, false)?,
            database: match database {
                Some(first) => cpu(first, true)?,
                None => Duration::ZERO,
            },
            load: cpu(std::process::id(), false)?,
            machine: machine_busy()?,
        })
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            server: self.server.saturating_sub(before.server),
            database: self.database.saturating_sub(before.database),
            load: self.load.saturating_sub(before.load),
            machine: self.machine.saturating_sub(before.machine),
        }
    }
}

/// CPU that a process has used so far; if asked, with its children, those too that have ended.
fn cpu(pid: u32, with_children: bool) -> Option<Duration> {
    let own = stat(pid)?;
    if !with_children {
        return Some(time(own.ticks));
    }
    let living: u64 = living_children(pid).map(|child| child.ticks).sum();
    Some(time(own.ticks + own.ticks_of_ended_children + living))
}

/// Resident memory in MiB: now, and the most since `forget_peak`.
pub(crate) fn memory(pid: u32) -> Option<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mebibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: f64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kibibytes / 1024.0)
    };
    Some((mebibytes("VmRSS:")?, mebibytes("VmHWM:")?))
}

/// Begins the search for the peak anew. Where the kernel doesn't let us, the peak is that of the process's whole life.
pub(crate) fn forget_peak(pid: u32) {
    let _not_allowed = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// The cores in two halves: one for the server, one for what asks it. What is measured then is what the server can do, and not
/// how the two share a machine.
pub(crate) struct Halves {
    server: CpuSet,
    load: CpuSet,
}

impl Halves {
    pub(crate) fn of_machine() -> Outcome<Self> {
        let all = sched_getaffinity(None)?;
        let cores: Vec<_> = (0..CpuSet::MAX_CPU)
            .filter(|core| all.is_set(*core))
            .collect();
        let (server, load) = cores.split_at(cores.len() / 2);
        if server.is_empty() {
            return Err("--apart: there is one core only".into());
        }
        let set = |cores: &[usize]| {
            let mut set = CpuSet::new();
            cores.iter().for_each(|core| set.set(*core));
            set
        };
        Ok(Self {
            server: set(server),
            load: set(load),
        })
    }

    /// From here on this thread, and whatever it starts, is where the server is.
    pub(crate) fn go_to_server(&self) -> Outcome<()> {
        Ok(sched_setaffinity(None, &self.server)?)
    }

    /// The same for the load.
    pub(crate) fn go_to_load(&self) -> Outcome<()> {
        Ok(sched_setaffinity(None, &self.load)?)
    }
}

/// Cores and their name.
pub(crate) fn machine() -> (usize, String) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("an unnamed processor", |(_, name)| name.trim());
    (cores, model.to_owned())
}

/// Lets a thread wait. It parks, and may be woken for nothing.
pub(crate) fn pause(duration: Duration) {
    let until = Instant::now() + duration;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

fn time(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / TICKS_A_SECOND)
}

/// All cores together, the times of rest taken out.
fn machine_busy() -> Option<Duration> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect();
    let &[user, nice, system, _idle, _waiting, hard, soft, ..] = ticks.as_slice() else {
        return None;
    };
    Some(time(user + nice + system + hard + soft))
}

struct Stat {
    parent: u32,
    ticks: u64,
    ticks_of_ended_children: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in parentheses and may itself hold some.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        ticks: number(11)? + number(12)?,
        ticks_of_ended_children: number(13)? + number(14)?,
    })
}

fn living_children(parent: u32) -> impl Iterator<Item = Stat> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(stat)
        .filter(move |stat| stat.parent == parent)
}
