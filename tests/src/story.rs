//! A lab with an agent on its node, and the cluster as an operator would have it: what the stories across crates share.
//!
//! Always holds: what a story makes goes with it, and stories of one process are told one after another
//! ([`alone`]), so that what the kernel holds for this process is the story's.

use crate::privilege;
use agent::{Agent, NotCovered, Stopped, Update};
use flowlog::Writer;
use lab::{CallOutcome, ExpectedEdge, Lab, Party, RunReport, Scenario, Scheme};
use model::{
    cluster::{Cluster, MODE_LABEL, Mode},
    ledger::{self, Edge},
    policy::{PolicySet, Protocol},
    record::{FlowRecord, UnixNanos},
};
use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;
use verdict::Reason;

/// The scenario of a folder under policies/examples.
pub fn scenario(name: &str) -> Scenario {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/examples");
    Scenario::load(&examples.join(name)).expect("an example can be read")
}

/// One story at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static TOLD: Mutex<()> = Mutex::new(());
    TOLD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A lab of this scenario, called so that no other process has one of that name. Calls have the time that a busy
/// machine needs. `None`, said aloud, where something that a lab needs is not there.
///
/// # Panics
/// Where `PODFENCE_REQUIRE` names `kernel` and there is none, and where the lab does not come up.
pub fn lab_of(test: &str, scenario: &Scenario) -> Option<Lab> {
    static LABS: AtomicU32 = AtomicU32::new(0);
    if !privilege::kernel(test) {
        return None;
    }
    let up = lab::pod_program().and_then(|program| {
        let options = lab::Options {
            name: Some(format!("story-{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed))),
            pod_command: vec![program.into()],
            call_within: Duration::from_secs(3),
            ..lab::Options::default()
        };
        Lab::up(scenario, &options)
    });
    match up {
        Ok(lab) => Some(lab),
        Err(why @ lab::Error::Lacking { .. }) if !privilege::required() => {
            println!("skipped: {test}: {why}");
            None
        }
        Err(why) => panic!("{test}: the lab does not come up: {why}"),
    }
}

/// What the operator has applied.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The label on every namespace.
    pub mode: Mode,
    /// NetworkPolicies in force.
    pub policies: PolicySet,
    /// StagedNetworkPolicies.
    pub staged: PolicySet,
}

/// An agent that follows a lab's cluster with what the operator has applied.
pub struct Watch<'l> {
    lab: &'l Lab,
    agent: Agent,
    log: TempDir,
    applied: Mutex<Applied>,
}

impl<'l> Watch<'l> {
    /// Starts it on the lab's node, everything in the mode learn; every pod is covered when this returns.
    pub fn start(lab: &'l Lab, datapath: datapath::Options) -> Self {
        let log = tempfile::tempdir().expect("a folder for the log");
        let node = &lab.scenario().node.name;
        let writer = Writer::open(log.path(), "test", node, flowlog::Options::default(), now()).expect("a log");
        let options = agent::Options { netns: Some(lab.node_netns()), datapath, ..agent::Options::of_node(node) };
        let agent = Agent::start(options, writer).expect("the agent starts");
        let watch = Self { lab, agent, log, applied: Mutex::default() };
        let update = watch.apply(Applied::default());
        let living = lab.pods().iter().filter(|pod| pod.ended.is_none()).count();
        let none: [NotCovered; 0] = [];
        assert_eq!((update.covered.len(), &update.not_covered[..]), (living, &none[..]), "every pod is covered");
        watch
    }

    /// Applies modes and policies; every packet after this is judged by them.
    pub fn apply(&self, applied: Applied) -> Update {
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner) = applied;
        self.follow(&self.lab.cluster().expect("the lab's objects can be read"))
    }

    fn follow(&self, cluster: &Cluster) -> Update {
        let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cluster = cluster.clone();
        for namespace in cluster.namespaces.values_mut() {
            namespace.labels.insert(MODE_LABEL.to_owned(), applied.mode.name().to_owned());
        }
        cluster.policies = applied.policies.clone();
        cluster.staged = applied.staged.clone();
        self.agent.update(&cluster).expect("the node's tables are brought up to date")
    }

    /// The scenario's traffic for a time; the agent hears of every change before anybody calls a new pod.
    pub fn run(&self, time: Duration) -> RunReport {
        self.run_and(time, &|_| ())
    }

    /// The same; before the agent, somebody else hears of every change.
    pub fn run_and(&self, time: Duration, hear: &dyn Fn(&Cluster)) -> RunReport {
        let mut changed = |cluster: &Cluster| {
            hear(cluster);
            drop(self.follow(cluster));
        };
        self.lab.run(time, &mut changed).expect("the lab plays")
    }

    /// Each of the scenario's calls once.
    pub fn round(&self) -> Vec<CallOutcome> {
        self.lab.round(&mut |cluster| drop(self.follow(cluster))).expect("the lab plays")
    }

    /// The agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Packets dropped so far.
    pub fn dropped(&self) -> u64 {
        self.agent.status().expect("the agent answers").counters.dropped()
    }

    /// Every row of the log by now.
    pub fn rows(&self) -> Vec<FlowRecord> {
        self.agent.flush().expect("the log takes rows");
        rows(self.log.path())
    }

    /// Ends the agent: what it says at last. Of the log it may have lost rows.
    pub fn end(self) -> Stopped {
        self.agent.stop().expect("the agent ends in order")
    }

    /// Ends the agent: what it says at last, and the whole log.
    pub fn stop(self) -> (Stopped, Vec<FlowRecord>) {
        let stopped = self.agent.stop().expect("the agent ends in order");
        (stopped, rows(self.log.path()))
    }
}

fn rows(log: &Path) -> Vec<FlowRecord> {
    let (rows, gaps, summary) = flowlog::read_records(log).expect("the log can be read");
    assert!(gaps.is_empty() && summary.damaged.is_empty(), "{gaps:?} {summary:?}");
    rows
}

/// Unix time.
pub fn now() -> UnixNanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixNanos::try_from(since.as_nanos()).unwrap_or(UnixNanos::MAX)
}

/// Whether a NetworkPolicy can speak of such a call.
pub fn is_expressible(call: &CallOutcome) -> bool {
    call.to.scheme != Scheme::Icmp
}

/// Calls that were not answered, for a message.
pub fn unanswered<'c>(calls: impl IntoIterator<Item = &'c CallOutcome>) -> Vec<String> {
    calls.into_iter().filter(|call| !call.answered()).map(ToString::to_string).collect()
}

/// An edge that was seen, as a scenario names it.
pub fn named(scenario: &Scenario, edge: &Edge) -> ExpectedEdge {
    let party = |party: &ledger::Party| match party {
        ledger::Party::Workload(key) => Party::Workload(key.as_ref().clone()),
        ledger::Party::Outside(ip) | ledger::Party::Node(ip) => outside(scenario, *ip),
    };
    let protocol = Protocol::from_number(edge.protocol);
    ExpectedEdge { client: party(&edge.client), server: party(&edge.server), protocol, port: edge.port }
}

/// The edge of a row, as a scenario names it.
pub fn edge_of(scenario: &Scenario, row: &FlowRecord) -> ExpectedEdge {
    let party = |end: &model::record::End| match &end.workload {
        Some(key) => Party::Workload(key.as_ref().clone()),
        None => outside(scenario, end.ip),
    };
    let protocol = Protocol::from_number(row.event.key.protocol);
    let port = if protocol.is_some() { row.server.port } else { 0 };
    ExpectedEdge { client: party(&row.client), server: party(&row.server), protocol, port }
}

/// The host outside that has an address; else the address itself.
fn outside(scenario: &Scenario, ip: IpAddr) -> Party {
    let host = scenario.outside.iter().find(|(_, addresses)| addresses.contains(&ip));
    Party::Outside(host.map_or_else(|| ip.to_string(), |(name, _)| name.clone()))
}

/// Ids of BPF programs, links and maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct InKernel {
    pub programs: BTreeSet<u32>,
    pub links: BTreeSet<u32>,
    pub maps: BTreeSet<u32>,
}

impl InKernel {
    /// What this process holds.
    pub fn held() -> Self {
        Self::held_by(std::process::id())
    }

    /// What a process holds; nothing where it has ended.
    pub fn held_by(process: u32) -> Self {
        let mut held = Self::default();
        for file in fs::read_dir(format!("/proc/{process}/fdinfo")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            let number = |field: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
                line.and_then(|number| number.trim().parse::<u32>().ok())
            };
            held.programs.extend(number("prog_id"));
            held.links.extend(number("link_id"));
            held.maps.extend(number("map_id"));
        }
        held
    }

    /// What of this the kernel still has after the time it may take to let go.
    pub fn left(&self) -> Self {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let programs = aya::programs::loaded_programs().flatten().map(|program| program.id());
            let links = aya::programs::loaded_links().flatten().map(|link| link.id());
            let maps = aya::maps::loaded_maps().flatten().map(|map| map.id());
            let left = Self {
                maps: maps.filter(|id| self.maps.contains(id)).collect(),
                programs: programs.filter(|id| self.programs.contains(id)).collect(),
                links: links.filter(|id| self.links.contains(id)).collect(),
            };
            if left == Self::default() || Instant::now() > deadline {
                return left;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A bpffs in a mount namespace of this thread's own, which goes with the thread.
pub struct Bpffs(TempDir);

impl Bpffs {
    /// Mounts it; threads and processes started after this share the mount namespace.
    pub fn mount() -> Self {
        use nix::mount::{MsFlags, mount};
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("root may");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("root may");
        let folder = tempfile::tempdir().expect("a folder");
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), None::<&str>).expect("the kernel has a bpffs");
        Self(folder)
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Every pin in its folders, in order. (Files at its root are the kernel's own.)
    pub fn pins(&self) -> Vec<PathBuf> {
        fn below(folder: &Path, found: &mut Vec<PathBuf>) {
            for path in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
                if path.is_dir() { below(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        below(self.path(), &mut found);
        found.retain(|pin| pin.parent() != Some(self.path()));
        found.sort();
        found
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = nix::mount::umount(self.path());
    }
}

/// Law 7, as far as user space can hold it: what the kernel counted is what events and rows tell.
pub fn law_7(stopped: &Stopped, told: &[FlowRecord]) {
    let status = &stopped.status;
    for ((reason, direction, dropped), counter) in &status.counters.verdicts {
        if reason.reports() {
            let sum = counter.events + counter.suppressed + counter.lost;
            assert_eq!(sum, counter.packets, "{reason:?} {direction:?} {dropped}");
        }
    }
    let made: u64 = status.counters.verdicts.values().map(|counter| counter.events).sum();
    assert_eq!(made + status.counters.ended.events, status.events, "every event was read");
    assert_eq!((status.lost_entries, status.unreadable_events, stopped.log.lost), (0, 0, 0), "nothing was lost");
    assert_eq!(status.log_failures, (0, None), "the log took every row");
    let entries = status.counted.values().fold([0; 2], |[packets, bytes], counted| {
        [packets + counted.packets(), bytes + counted.bytes_in + counted.bytes_out]
    });
    let [packets, bytes] = told.iter().map(|row| &row.event).fold([0; 2], |[packets, bytes], event| {
        let more = event.packets_to_server + event.packets_to_client;
        [packets + more, bytes + event.bytes_to_server + event.bytes_to_client]
    });
    assert_eq!(packets, entries[0] + status.rows_without_entry, "packets in slices are what entries counted");
    if status.rows_without_entry == 0 {
        assert_eq!(bytes, entries[1], "bytes in slices are what entries counted");
    }
    let [all_packets, all_bytes] = counted_by_reason(&status.counters);
    assert_eq!(packets, all_packets, "packets in slices are what the kernel judged");
    assert_eq!(bytes, all_bytes - all_packets * ETHERNET, "bytes in slices are what the kernel judged");
    println!(
        "law 7: {packets} packets and {bytes} bytes in {} rows, {} of {} events were denials without an entry",
        told.len(),
        status.rows_without_entry,
        status.events
    );
}

/// Bytes of a link's header, which counters by reason hold and flows do not.
const ETHERNET: u64 = 14;

/// Packets and bytes that the kernel judged, but for what makes no flow and what passed before its pod was known.
fn counted_by_reason(counters: &datapath::Counters) -> [u64; 2] {
    let no_flow = [Reason::Arp, Reason::NeighborDiscovery, Reason::RelatedIcmpError, Reason::UnknownPod];
    let flows = counters.verdicts.iter().filter(|((reason, ..), _)| !no_flow.contains(reason));
    flows.fold([0; 2], |[packets, bytes], (_, counter)| [packets + counter.packets, bytes + counter.bytes])
}
