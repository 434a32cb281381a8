//! The node's agent, as far as it publishes, and packets put into the loaded program by test runs.

use crate::{
    AGENT_KILLED, CLIENT_ASKED, DID_NOT_FIT, IN_PART, POLICIES_KEPT, Seen,
    meaning::{Meaning, Opening, Said},
    step::Step,
    world::World,
};
use aya::programs::{TestRun, TestRunOptions};
use compile::{Changed, Compiler, Ending};
use datapath::{Datapath, Link, Options, TestInput};
use flow::{Address, Direction, SCTP, TCP, UDP};
use model::{cluster::Cluster, policy::Protocol};
use nix::{
    mount::{MsFlags, mount, umount},
    sched::{CloneFlags, unshare},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::Arc,
};
use tests::{
    frame::{Frame, transport},
    objects::NODE_NAME,
    random::Random,
};
use verdict::{Effect, Limits, Mode, Sockets, Staged, Standing, abi::Event, effect};

/// TC_ACT_SHOT.
const DROP: u32 = 2;
/// Openings tried at each pod after each step.
const OPENINGS: usize = 6;
/// Standing connections at once.
const STANDING: usize = 8;
const CONNECTIONS: u32 = 1 << 16;
const FIRST_PORT: u16 = 10_000;
/// The interface that packets from elsewhere came in by.
const UPLINK: u32 = 1;
const SECOND: u64 = 1_000_000_000;

/// A bpffs in a mount namespace of this thread's own.
pub(crate) struct Bpffs(tempfile::TempDir);

impl Bpffs {
    pub(crate) fn mount() -> Self {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).expect("private");
        let folder = tempfile::tempdir().expect("a folder");
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), None::<&str>).expect("a bpffs");
        Self(folder)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = umount(self.0.path());
    }
}

/// A link for each pod there can be, in a network namespace of this thread's own.
pub(crate) fn links() -> Vec<u32> {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    let indices = (100..).take(crate::step::PODS);
    for index in indices.clone() {
        let (name, peer, number) = (format!("pod{index}"), format!("peer{index}"), index.to_string());
        let arguments = ["link", "add", "name", &name, "index", &number, "type", "veth", "peer", "name", &peer];
        let made = Command::new("ip").args(arguments).status().expect("iproute2 is installed");
        assert!(made.success(), "a link in a namespace of the test's own");
    }
    indices.collect()
}

/// One agent after another, and the connections that stand.
pub(crate) struct Kernel<'a> {
    options: Options,
    links: &'a [u32],
    datapath: Option<Datapath>,
    compiler: Compiler,
    ending: Ending,
    bound: BTreeMap<Arc<str>, Link>,
    /// What was last published means.
    meant: Cluster,
    next_does_not_fit: bool,
    standing: Vec<Connection>,
    client_port: u16,
}

/// A connection, and what the kernel should have kept of it.
struct Connection {
    opening: Opening,
    /// What was said when it was judged last: of a denial, the mode of whose policy refuses decides what is done.
    refused: Said,
    client_port: u16,
    kept: Kept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Allowed,
    Denied,
    Nothing,
}

/// What the program did with a packet.
struct Done {
    dropped: bool,
    event: Option<Event>,
}

impl<'a> Kernel<'a> {
    pub(crate) fn new(bpffs: &Bpffs, links: &'a [u32]) -> Self {
        let room = u64::from(CONNECTIONS);
        let options = Options {
            bpffs: Some(bpffs.0.path().to_owned()),
            limits: Limits { half_open: room, established: room, tombstones: room },
            connections: Some(CONNECTIONS),
            events: u64::from(u32::MAX),
            test: Some(TestInput { now: 1_000 * SECOND, sockets: Sockets::None, standing: Standing::Revoked }),
            ..Options::default()
        };
        let datapath = Some(Datapath::load(&options).expect("the program loads"));
        Self {
            options,
            links,
            datapath,
            compiler: Compiler::new(NODE_NAME, Mode::Enforce),
            ending: Ending::new(NODE_NAME, 0),
            bound: BTreeMap::new(),
            meant: Cluster::default(),
            next_does_not_fit: false,
            standing: Vec::new(),
            client_port: FIRST_PORT,
        }
    }

    /// Removes the pins.
    pub(crate) fn end(mut self) {
        self.datapath().detach().expect("nothing is left");
    }

    fn datapath(&mut self) -> &mut Datapath {
        self.datapath.as_mut().expect("an agent is there")
    }

    /// What the agent does about a step.
    pub(crate) fn follow(&mut self, world: &World, step: &Step, seen: &mut Seen) -> Result<(), String> {
        match step {
            Step::DoesNotFit => {
                self.next_does_not_fit = true;
                return Ok(());
            }
            Step::EntriesLost => {
                let (sweep, tables) = self.datapath().sweep();
                sweep.drain(tables).map_err(|e| e.to_string())?;
                self.standing.iter_mut().for_each(|connection| connection.kept = Kept::Nothing);
                return Ok(());
            }
            Step::AgentKilled => {
                self.datapath = None;
                self.datapath = Some(Datapath::load(&self.options).map_err(|e| e.to_string())?);
                self.compiler = Compiler::new(NODE_NAME, Mode::Enforce);
                let remembered = self.ending.remembered();
                self.ending = Ending::new(NODE_NAME, 0);
                self.ending.after(remembered);
                self.next_does_not_fit = false;
                *seen.entry((AGENT_KILLED, true)).or_default() += 1;
            }
            _ => {}
        }
        self.publish(world, seen)
    }

    /// As the agent does it: once more, where a Service may be allowed in part now that hooks stand.
    fn publish(&mut self, world: &World, seen: &mut Seen) -> Result<(), String> {
        self.publish_once(world, seen)?;
        match self.compiler.cover(self.bound.keys().cloned().collect()) {
            Changed::Yes => self.publish_once(world, seen),
            Changed::No => Ok(()),
        }
    }

    fn publish_once(&mut self, world: &World, seen: &mut Seen) -> Result<(), String> {
        let mut cluster = world.shown();
        if !self.ending.keep(&mut cluster, 0).ending.is_empty() {
            *seen.entry((POLICIES_KEPT, true)).or_default() += 1;
        }
        let plan = self.compiler.plan(&cluster, &cluster.policies, &cluster.staged);
        let mut plan = plan.map_err(|e| e.to_string())?;
        self.datapath().number(&mut plan).map_err(|e| e.to_string())?;
        if std::mem::take(&mut self.next_does_not_fit) && plan.fits(&compile::Limits::default()).is_err() {
            *seen.entry((DID_NOT_FIT, true)).or_default() += 1;
            return Ok(());
        }
        let mut bound = std::mem::take(&mut self.bound);
        bound.retain(|uid, _| plan.table.endpoints.contains_key(uid));
        for uid in plan.table.endpoints.keys() {
            if bound.contains_key(uid) {
                continue;
            }
            let used: BTreeSet<u32> = bound.values().map(|link| link.ifindex).collect();
            let free = self.links.iter().find(|index| !used.contains(index)).expect("a link for each pod");
            bound.insert(uid.clone(), link(*free));
        }
        self.datapath().tables().publish(&plan, &bound).map_err(|e| e.to_string())?;
        self.compiler.adopt(&plan);
        self.standing.retain(|connection| bound.contains_key(&connection.opening.uid));
        self.bound = bound;
        self.meant = if world.is_ending() { world.meant() } else { cluster };
        Ok(())
    }

    /// New connections at every pod, and all standing ones: every verdict must be the one that is meant.
    pub(crate) fn hold(&mut self, at: usize, seen: &mut Seen) -> Result<(), String> {
        let cluster = std::mem::take(&mut self.meant);
        let meaning = Meaning::of(&cluster);
        let mut random = Random::new(at as u64 + 1);
        let done = self.hold_openings(&meaning, &mut random, seen);
        let done = done.and_then(|()| self.hold_standing(&meaning, &mut random, seen));
        self.meant = cluster;
        done
    }

    fn hold_openings(&mut self, meaning: &Meaning<'_>, random: &mut Random, seen: &mut Seen) -> Result<(), String> {
        let covered: Vec<Arc<str>> = self.bound.keys().cloned().collect();
        for uid in covered {
            let pod = meaning.pod(&uid);
            for _ in 0..OPENINGS {
                let Some(opening) = meaning.opening(pod, random) else { continue };
                self.client_port = if self.client_port == u16::MAX { FIRST_PORT } else { self.client_port + 1 };
                let client_port = self.client_port;
                let done = self.put(&opening, client_port, true)?;
                let said = meaning.says(&meaning.in_force, &opening);
                let allowed = said.allows();
                let mode = said.mode(meaning, &opening);
                let what = || format!("{opening:?} of {}/{}", pod.namespace, pod.name);
                let Some(event) = done.event else { return Err(format!("no event of {}", what())) };
                if event.reason.allows() != allowed || event.mode != mode as u8 {
                    return Err(format!("{}: meant to be allowed: {allowed} ({mode:?}); {event:?}", what()));
                }
                if done.dropped != (effect(mode, event.reason) == Effect::DropAndLog) || done.dropped && allowed {
                    return Err(format!("{}: dropped: {}; {event:?}", what(), done.dropped));
                }
                let staged = meaning.is_staged(&opening).then(|| meaning.says(&meaning.staged, &opening).allows());
                let says = [Staged::None, Staged::Allow, Staged::Deny].into_iter().find(|of| match of {
                    Staged::None => staged.is_none(),
                    Staged::Allow => staged == Some(true),
                    Staged::Deny => staged == Some(false),
                });
                if says != Some(event.staged) {
                    return Err(format!("{}: staged, meant to be allowed: {staged:?}; {event:?}", what()));
                }
                let service = meaning.is_service(opening.peer);
                *seen.entry((if service { "service" } else { "opening" }, allowed)).or_default() += 1;
                if service && meaning.leaves_refusals(&opening) {
                    *seen.entry((IN_PART, true)).or_default() += 1;
                }
                if let Some((_, allows)) = said.client {
                    *seen.entry((CLIENT_ASKED, allows)).or_default() += 1;
                }
                if let Some(staged) = staged {
                    *seen.entry(("staged", staged)).or_default() += 1;
                }
                if opening.protocol != Protocol::Sctp && random.once_in(12) {
                    if self.standing.len() >= STANDING {
                        self.standing.remove(random.below(STANDING));
                    }
                    let kept = if allowed { Kept::Allowed } else { Kept::Denied };
                    self.standing.push(Connection { refused: said, opening, client_port, kept });
                }
            }
        }
        Ok(())
    }

    fn hold_standing(&mut self, meaning: &Meaning<'_>, random: &mut Random, seen: &mut Seen) -> Result<(), String> {
        let mut standing = std::mem::take(&mut self.standing);
        for connection in &mut standing {
            let opening = &connection.opening;
            let tcp = opening.protocol == Protocol::Tcp;
            let opens = !tcp || random.once_in(8);
            let done = self.put(opening, connection.client_port, opens)?;
            // What was denied stays so until it is opened anew.
            let buried = connection.kept == Kept::Denied && !opens;
            let said = meaning.says(&meaning.in_force, opening);
            let allowed = !buried && said.allows();
            if !buried {
                connection.refused = said;
            }
            let mode = connection.refused.mode(meaning, opening);
            let told = done.event.is_none_or(|event| event.reason.allows() == allowed);
            if !told || done.dropped != (!allowed && mode == Mode::Enforce) {
                let (kept, event) = (connection.kept, done.event);
                return Err(format!(
                    "{opening:?} stood ({kept:?}), opens: {opens}; meant to be allowed: {allowed} ({mode:?}); dropped: {}, {event:?}",
                    done.dropped
                ));
            }
            connection.kept = if allowed { Kept::Allowed } else { Kept::Denied };
            *seen.entry(("standing", allowed)).or_default() += 1;
        }
        self.standing = standing;
        Ok(())
    }

    /// A packet of the client's.
    fn put(&mut self, opening: &Opening, client_port: u16, opens: bool) -> Result<Done, String> {
        let Opening { own, peer, direction, port, .. } = *opening;
        let ifindex = self.bound[&opening.uid].ifindex;
        let (from, to) = if direction == Direction::Inbound { (peer, own) } else { (own, peer) };
        let number = match opening.protocol {
            Protocol::Tcp => TCP,
            Protocol::Udp => UDP,
            Protocol::Sctp => SCTP,
        };
        let flags = if opens { flow::tcp::SYN } else { flow::tcp::ACK };
        let payload = transport(number, client_port, port, flags, 0);
        let frame = Frame::new(Address::from(from), Address::from(to), number, payload).bytes();
        let mut context = [0u8; 192];
        let ingress = if direction == Direction::Inbound { UPLINK } else { ifindex };
        context[36..40].copy_from_slice(&ingress.to_ne_bytes());
        context[40..44].copy_from_slice(&ifindex.to_ne_bytes());
        let options =
            TestRunOptions { data_in: Some(&frame), ctx_in: Some(&context), repeat: 1, ..TestRunOptions::new() };
        let datapath = self.datapath();
        let program = datapath.program(direction).map_err(|e| e.to_string())?;
        let result = program.test_run(options).map_err(|e| e.to_string())?;
        let of_this = |event: &Event| event.key.source_port == client_port && event.ifindex == ifindex;
        let event = datapath.events(64).into_iter().rfind(of_this);
        Ok(Done { dropped: result.return_value == DROP, event })
    }
}

fn link(ifindex: u32) -> Link {
    Link {
        ifindex,
        name: format!("pod{ifindex}").into(),
        netns_id: -1,
        peer_ifindex: 0,
        addresses: BTreeSet::new(),
        link_local: Address::default(),
    }
}
