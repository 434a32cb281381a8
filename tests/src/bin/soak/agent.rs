//! The agent as a process, and what it holds.

use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};
use tests::story::InKernel;
use verdict::abi::{ConnectionKey, ConnectionRecord, RuleKey, connection_parts, maps};

/// `podfence enforce`, in this thread's network namespace.
pub(crate) struct Agent {
    child: Mutex<Child>,
    process: u32,
}

/// What it holds at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// Resident memory, the pages of the command's own file among it.
    pub(crate) resident_kib: u64,
    /// What of it is the agent's alone, and no page of a file that the system may drop.
    pub(crate) own_kib: u64,
    pub(crate) links: usize,
    files: usize,
    programs: usize,
    maps: usize,
    /// Table -> entries.
    entries: BTreeMap<&'static str, usize>,
    /// Entries of connections whose endpoint is gone.
    orphans: usize,
}

impl Agent {
    pub(crate) fn start(command: &Path, folder: &Path) -> Self {
        let output = fs::File::create(folder.join("agent.txt")).expect("a file");
        let child = Command::new(command)
            .args(["enforce", "--node", "n1", "--default-mode", "enforce"])
            .arg("--cluster")
            .arg(folder.join("cluster"))
            .arg("--log")
            .arg(folder.join("log"))
            .arg("--socket")
            .arg(folder.join("socket"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; ./run build makes it", command.display()));
        let process = child.id();
        Self { child: Mutex::new(child), process }
    }

    pub(crate) fn process(&self) -> u32 {
        self.process
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.child.lock().expect("no look failed").try_wait(), Ok(None))
    }

    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn() -> bool, wrong: &mut Vec<String>) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so() {
            if Instant::now() > deadline || !self.is_running() {
                wrong.push(format!("not within 30 s: {what}"));
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    pub(crate) fn held(&self) -> Held {
        let in_kernel = InKernel::held_by(self.process);
        let status = fs::read_to_string(format!("/proc/{}/status", self.process)).unwrap_or_default();
        let memory = |name: &str| {
            let kib = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
            kib.and_then(|kib| kib.parse().ok()).unwrap_or_default()
        };
        let mut held = Held {
            resident_kib: memory("VmRSS:"),
            own_kib: memory("RssAnon:"),
            links: in_kernel.links.len(),
            files: fs::read_dir(format!("/proc/{}/fd", self.process)).map_or(0, Iterator::count),
            programs: in_kernel.programs.len(),
            maps: in_kernel.maps.len(),
            ..Held::default()
        };
        held.count(&in_kernel.maps);
        held
    }

    /// As an operator would.
    pub(crate) fn stop(&self) {
        let mut child = self.child.lock().expect("no look failed");
        let process = nix::unistd::Pid::from_raw(self.process.cast_signed());
        let _ = nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(20);
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Held {
    /// Looks into the tables; one that changes meanwhile may be counted wrong, the next look is right.
    fn count(&mut self, ids: &BTreeSet<u32>) {
        let (mut endpoints, mut connections) = (BTreeSet::new(), Vec::new());
        for data in ids.iter().filter_map(|id| MapData::from_id(*id).ok()) {
            let Ok(info) = data.info() else { continue };
            let (Some(name), Ok(map)) = (info.name_as_str().map(str::to_owned), Map::from_map_data(data)) else {
                continue;
            };
            let counted = match name.as_str() {
                maps::LINKS => HashMap::<_, u32, u32>::try_from(map).map(|links| {
                    endpoints.extend(links.iter().flatten().map(|(_, endpoint)| endpoint));
                    (maps::LINKS, endpoints.len())
                }),
                maps::RULES => {
                    HashMap::<_, RuleKey, u32>::try_from(map).map(|rules| (maps::RULES, rules.keys().count()))
                }
                maps::IDENTITIES => {
                    LpmTrie::<_, [u8; 16], u32>::try_from(map).map(|of| (maps::IDENTITIES, of.keys().count()))
                }
                maps::CONNECTIONS => HashMap::<_, ConnectionKey, ConnectionRecord>::try_from(map).map(|of| {
                    connections.extend(of.keys().flatten());
                    (maps::CONNECTIONS, connections.len())
                }),
                _ => Err(MapError::KeyNotFound),
            };
            self.entries.extend(counted);
        }
        self.orphans = connections.iter().filter(|key| !endpoints.contains(&connection_parts(key).endpoint)).count();
    }

    /// Memory and living connections apart.
    pub(crate) fn is_no_more_than(&self, before: &Self) -> bool {
        let tables = [maps::LINKS, maps::RULES, maps::IDENTITIES];
        tables.iter().all(|table| self.entries.get(table) == before.entries.get(table))
            && (self.programs, self.links, self.maps) == (before.programs, before.links, before.maps)
            && self.files <= before.files
            && self.orphans == 0
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} KiB ({} its own), {} files, {} programs, {} links, {} maps; entries {:?}, {} of nobody",
            self.resident_kib,
            self.own_kib,
            self.files,
            self.programs,
            self.links,
            self.maps,
            self.entries,
            self.orphans
        )
    }
}
