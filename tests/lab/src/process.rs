//! Processes by id and start time: a number alone may have become another process meanwhile, which must not be killed.

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// A process, the same one for as long as both numbers are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its id.
    pub(crate) pid: i32,
    /// Its start, in clock ticks since boot.
    pub(crate) started: u64,
}

impl Process {
    /// The process that has this id now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, started: Stat::of(pid)?.started })
    }

    /// The calling one.
    pub(crate) fn own() -> Option<Self> {
        Self::of(i32::try_from(std::process::id()).ok()?)
    }

    /// Whether it runs still; a zombie does not.
    pub(crate) fn lives(self) -> bool {
        Stat::of(self.pid).is_some_and(|stat| stat.started == self.started && stat.state != 'Z' && stat.state != 'X')
    }

    /// Ends it, without asking; waits until it is gone.
    pub(crate) fn end(self) {
        if !self.lives() {
            return;
        }
        match kill(Pid::from_raw(self.pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => tracing::warn!(pid = self.pid, %error, "cannot be killed"),
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        while self.lives() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

struct Stat {
    state: char,
    started: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name stands in parentheses and may hold anything, parentheses too.
        let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        Some(Self { state, started: fields.nth(18)?.parse().ok()? })
    }
}

/// The processes listed in a file, one JSON array; none when it is not there.
pub(crate) fn listed_in(file: &Path) -> Vec<Process> {
    std::fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}
