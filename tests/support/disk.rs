//! Disks that are small, and files that can not be written.

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The capabilities (capabilities(7)) without which the kernel lets nobody do this.
const SYS_ADMIN: u32 = 21;
const LINUX_IMMUTABLE: u32 = 9;

/// A small disk in memory; it goes with the test. Only root can have one.
pub struct Disk(TempDir);

impl Disk {
    pub fn new() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs"])
            .arg(folder.path())
            .output();
        is_done(mounted, "mounting a file system", SYS_ADMIN).then(|| Self(folder))
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes until nothing more goes in.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.path("filling")).unwrap();
        for size in [64 * 1024, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    pub fn empty(&self) {
        fs::remove_file(self.path("filling")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _busy = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Makes files immutable, which for whoever holds them open is a disk that became read-only. Needs root, and a file system
/// that knows of it.
pub struct Immutable<'a>(&'a [PathBuf]);

impl<'a> Immutable<'a> {
    pub fn new(files: &'a [PathBuf]) -> Option<Self> {
        let made = Self(files);
        is_done(made.set("+i"), "making a file immutable", LINUX_IMMUTABLE).then_some(made)
    }

    fn set(&self, what: &str) -> io::Result<Output> {
        Command::new("chattr").arg(what).args(self.0).output()
    }
}

impl Drop for Immutable<'_> {
    fn drop(&mut self) {
        let _never_set = self.set("-i");
    }
}

/// Whether it succeeded. Where the process may do it and it fails all the same, that is an error in CI; where the process
/// may not, as in a container without privileges, somebody has to read that a test was left out.
fn is_done(done: io::Result<Output>, what: &str, capability: u32) -> bool {
    let why = match done {
        Ok(done) if done.status.success() => return true,
        Ok(done) => String::from_utf8_lossy(&done.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    let in_ci = env::var_os("CI").is_some();
    assert!(!(in_ci && is_allowed(capability)), "{what}: {why}");
    // Past the test harness, which shows nobody what a test that succeeds has printed.
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    let _nobody_reads = writeln!(io::stderr(), "{test} is left out: {what}: {why}");
    false
}

/// Whether this process has a capability.
fn is_allowed(capability: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    effective.is_some_and(|set| set >> capability & 1 == 1)
}
