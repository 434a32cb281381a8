//! Agents that end, are killed, come back as another version: what is allowed goes on byte for byte, what is
//! denied stays denied, all the while.

use crate::world::{
    Bpffs, CLIENT, SERVER, World, attachments, cluster, links_pinned, policy, start_with, talk, try_start,
};
use datapath::Attachment;
use flowlog::read_records;
use model::policy::{PolicySet, PortMatch};
use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    mem::ManuallyDrop,
    net::{TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// UDP to this port is never allowed.
const CLOSED: u16 = 7777;

/// Port 9090 besides.
fn wider() -> PolicySet {
    let mut policies = policy();
    for rule in policies.policies.iter_mut().flat_map(|policy| policy.ingress.iter_mut().flatten()) {
        let mut port = rule.ports[0].clone();
        port.port = PortMatch::Range(9090, 9090);
        rule.ports.push(port);
    }
    policies
}

pub(crate) fn enforced(policies: PolicySet) -> model::cluster::Cluster {
    let mut enforced = cluster("enforce");
    enforced.policies = policies;
    enforced
}

/// An agent in a process of its own, which can be killed.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn spawn(world: &World, bpffs: &Bpffs, log: &Path, attachment: Attachment, policies: &str) -> Self {
        Self::of(&env::current_exe().unwrap(), world, bpffs, log, attachment, policies)
    }

    /// The agent of another build of these tests.
    pub(crate) fn of(
        build: &Path,
        world: &World,
        bpffs: &Bpffs,
        log: &Path,
        attachment: Attachment,
        policies: &str,
    ) -> Self {
        let child = Command::new(build)
            .args(["--exact", "restart::the_process_of_an_agent", "--ignored", "--nocapture"])
            .env("PODFENCE_TEST_WORLD", &world.prefix)
            .env("PODFENCE_TEST_BPFFS", bpffs.path())
            .env("PODFENCE_TEST_LOG", log)
            .env("PODFENCE_TEST_ATTACHMENT", format!("{attachment:?}"))
            .env("PODFENCE_TEST_POLICIES", policies)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Waits until it enforces.
    pub(crate) fn ready(mut self) -> Self {
        let mut lines = BufReader::new(self.0.stdout.take().unwrap()).lines();
        let said = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("enforces")));
        assert!(said.is_some(), "the agent's process ended early");
        // Read on, so that it never writes into nothing.
        thread::spawn(move || lines.for_each(drop));
        self
    }

    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "other tests start it, as a process of its own"]
fn the_process_of_an_agent() {
    let Ok(prefix) = env::var("PODFENCE_TEST_WORLD") else { return };
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
    let told = |name: &str| env::var(format!("PODFENCE_TEST_{name}")).unwrap();
    // The namespaces are another's to remove.
    let world = ManuallyDrop::new(World { prefix });
    let attachment =
        [Attachment::Tcx, Attachment::Clsact].into_iter().find(|way| format!("{way:?}") == told("ATTACHMENT"));
    let options = datapath::Options { bpffs: Some(told("BPFFS").into()), attachment, ..datapath::Options::default() };
    let agent = start_with(&world, Path::new(&told("LOG")), options);
    let policies = match &*told("POLICIES") {
        "wider" => wider(),
        "both ends" => crate::upgrade::both_ends(),
        _ => policy(),
    };
    let update = agent.update(&enforced(policies)).unwrap();
    assert_eq!(update.covered.len(), 2, "{update:?}");
    println!("enforces");
    thread::sleep(Duration::from_secs(600));
}

/// A thread that goes on until it is told to stop.
pub(crate) struct Ongoing<T> {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Ongoing<T> {
    pub(crate) fn start(work: impl FnOnce(&AtomicBool, &AtomicU64) -> T + Send + 'static) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, counting) = (stop.clone(), count.clone());
        let thread = Some(thread::spawn(move || work(&stopping, &counting)));
        Self { stop, count, thread }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until it has counted this many more.
    #[track_caller]
    pub(crate) fn goes_on(&self, more: u64) {
        let (until, deadline) = (self.count() + more, Instant::now() + Duration::from_secs(20));
        while self.count() < until {
            assert!(Instant::now() < deadline, "it went on no more after {}", self.count());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn end(mut self) -> T {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl<T> Drop for Ongoing<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Writes and reads back bytes of which no two rounds have the same, and compares.
pub(crate) fn byte_for_byte(mut stream: TcpStream) -> Ongoing<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    Ongoing::start(move |stop, rounds| {
        while !stop.load(Ordering::Relaxed) {
            let round = rounds.load(Ordering::Relaxed);
            let sent: Vec<u8> = (0..512u64).flat_map(|word| (round << 16 | word).to_ne_bytes()).collect();
            stream.write_all(&sent).expect("an allowed connection goes on");
            let mut back = vec![0; sent.len()];
            stream.read_exact(&mut back).expect("an allowed connection goes on");
            assert_eq!(sent, back, "round {round}");
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    })
}

/// A datagram of each family every millisecond to the closed port: what was sent. And what arrives there.
pub(crate) fn probes(world: &World) -> (Ongoing<()>, Ongoing<()>) {
    let [to_v4, to_v6] = SERVER;
    let bind = |of: &str, v4: &str, v6: &str, port: u16| {
        world.inside(of, || [UdpSocket::bind((v4, port)).unwrap(), UdpSocket::bind((v6, port)).unwrap()])
    };
    let servers = bind("server", to_v4, to_v6, CLOSED);
    let clients = bind("client", CLIENT[0], CLIENT[1], 0);
    let sent = Ongoing::start(move |stop, sent| {
        while !stop.load(Ordering::Relaxed) {
            for (client, to) in clients.iter().zip(SERVER) {
                client.send_to(b"probe", (to, CLOSED)).expect("a datagram leaves");
                sent.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_millis(1));
        }
    });
    let arrived = Ongoing::start(move |stop, arrived| {
        servers.iter().for_each(|server| server.set_nonblocking(true).unwrap());
        while !stop.load(Ordering::Relaxed) {
            for server in &servers {
                while server.recv(&mut [0; 16]).is_ok() {
                    arrived.fetch_add(1, Ordering::Relaxed);
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
    });
    (sent, arrived)
}

/// Nothing more arrives from here on, while `work` lasts and probes are sent all the time.
pub(crate) fn nothing_arrives<T>((sent, arrived): &(Ongoing<()>, Ongoing<()>), work: impl FnOnce() -> T) -> T {
    sent.goes_on(20);
    let before = (sent.count(), arrived.count());
    let made = work();
    sent.goes_on(20);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(arrived.count(), before.1, "of {} denied datagrams some arrived", sent.count() - before.0);
    made
}

#[test]
fn an_agent_killed_and_started_again_cuts_nothing_allowed_and_lets_nothing_denied_through() {
    kernel_or_skip!();
    for attachment in attachments() {
        let (world, bpffs, log) = (World::new(), Bpffs::mount(), tempfile::tempdir().unwrap());
        world.serve(8080);
        world.serve(9090);
        let probes = probes(&world);
        // Before anything is enforced, the same probes arrive.
        probes.1.goes_on(20);
        let [mut buried, mut idle] = [(); 2].map(|()| world.connect("client", SERVER[0], 9090).unwrap());
        talk(&mut buried).unwrap();
        talk(&mut idle).unwrap();
        let spawn = |policies| Process::spawn(&world, &bpffs, log.path(), attachment, policies);
        let mut agent = spawn("narrow").ready();
        let allowed = byte_for_byte(world.connect("client", SERVER[0], 8080).unwrap());
        let refused = || world.connect_within("client", SERVER[1], 9090, Duration::from_millis(300)).unwrap_err();
        let agent = nothing_arrives(&probes, || {
            talk(&mut buried).expect_err("revoked, with a tombstone");
            refused();
            for _ in 0..3 {
                allowed.goes_on(20);
                agent.kill();
                allowed.goes_on(20);
                refused();
                agent = spawn("narrow").ready();
                refused();
            }
            // Killed at any moment of its start, what is left is accepted by the next.
            agent.kill();
            for step in 0..12 {
                let half = spawn("narrow");
                thread::sleep(Duration::from_millis(35 * step));
                half.kill();
                allowed.goes_on(5);
            }
            let agent = spawn("wider").ready();
            allowed.goes_on(20);
            agent
        });
        // This policy allows the port: an idle connection to it goes on, and what was denied before does not.
        talk(&mut idle).expect("what nothing had denied goes on");
        talk(&mut world.connect("client", SERVER[0], 9090).unwrap()).expect("the port is open by now");
        talk(&mut buried).expect_err("the tombstone outlived every agent");
        allowed.end();
        agent.kill();
        let kept = read_records(log.path()).unwrap();
        let killed: Vec<_> = kept.1.iter().filter(|gap| &*gap.reason == "agent-killed").collect();
        // Slices of a second, which its last second had not handed over.
        assert!(!killed.is_empty() && killed.iter().all(|gap| gap.end - gap.start >= 1_000_000_000), "{killed:?}");
    }
}

#[test]
fn an_agent_that_leaves_hands_on_every_connection_and_its_counters() {
    kernel_or_skip!();
    let (world, bpffs, log) = (World::new(), Bpffs::mount(), tempfile::tempdir().unwrap());
    let mut open = policy();
    for rule in open.policies.iter_mut().flat_map(|policy| policy.ingress.iter_mut().flatten()) {
        rule.ports.clear();
    }
    let server = world.inside("server", || UdpSocket::bind((SERVER[0], CLOSED)).unwrap());
    let client = world.inside("client", || UdpSocket::bind((CLIENT[0], 0)).unwrap());
    client.connect((SERVER[0], CLOSED)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((length, from)) = server.recv_from(&mut bytes) {
            let _ = server.send_to(&bytes[..length], from);
        }
    });
    let rounds = |count: u64| {
        for _ in 0..count {
            client.send(b"twelve bytes").unwrap();
            client.recv(&mut [0; 64]).unwrap();
        }
    };
    let mut events = 0;
    for count in [3, 5, 7] {
        let agent = start_with(&world, log.path(), bpffs.options());
        agent.update(&enforced(open.clone())).unwrap();
        rounds(count);
        let left = agent.leave().unwrap().status;
        assert!(left.events > events, "events are counted on");
        events = left.events;
        let made: u64 = left.counters.verdicts.values().map(|counter| counter.events).sum();
        assert_eq!(made + left.counters.ended.events, left.events, "every event was read by one agent or another");
        assert_eq!(left.lost_entries, 0);
        // Nobody looks, and the kernel counts.
        rounds(10);
    }
    let agent = start_with(&world, log.path(), bpffs.options());
    agent.update(&enforced(open.clone())).unwrap();
    agent.stop().unwrap();
    let (rows, gaps, _) = read_records(log.path()).unwrap();
    for at in [model::record::ObservedAt::Server, model::record::ObservedAt::Client] {
        let flow: Vec<_> = rows
            .iter()
            .filter(|row| row.event.observed_at == at && row.server.port == CLOSED)
            .map(|row| &row.event)
            .collect();
        assert!(flow.len() >= 4, "a slice in each life: {flow:?}");
        assert!(flow.iter().all(|slice| slice.flow_start == flow[0].flow_start), "one flow: {flow:?}");
        let sum = |of: fn(&model::record::FlowEvent) -> u64| flow.iter().map(|slice| of(slice)).sum::<u64>();
        assert_eq!(sum(|slice| slice.packets_to_server), 3 + 5 + 7 + 30);
        assert_eq!(sum(|slice| slice.packets_to_client), 3 + 5 + 7 + 30);
        assert_eq!(sum(|slice| slice.bytes_to_server), (3 + 5 + 7 + 30) * (20 + 8 + 12));
    }
    assert!(gaps.iter().all(|gap| &*gap.reason != "agent-killed"), "{gaps:?}");
}

#[test]
fn tables_of_another_shape_are_refused_with_the_way_out_and_enforcement_stays() {
    kernel_or_skip!();
    let (world, bpffs, log) = (World::new(), Bpffs::mount(), tempfile::tempdir().unwrap());
    world.serve(9090);
    let refused = || world.connect_within("client", SERVER[0], 9090, Duration::from_millis(300)).unwrap_err();
    let small = datapath::Options { connections: Some(1000), ..bpffs.options() };
    let agent = start_with(&world, log.path(), small.clone());
    agent.update(&enforced(policy())).unwrap();
    agent.leave().unwrap();
    refused();
    let error = match try_start(&world, log.path(), bpffs.options()) {
        Err(agent::Error::Datapath(error @ datapath::Error::PinnedOtherwise { .. })) => error.to_string(),
        other => panic!("{:?}", other.map(drop)),
    };
    for part in ["CONNECTIONS", "1000 entries", "262144 entries", "podfence detach"] {
        assert!(error.contains(part), "{error}");
    }
    refused();
    let agent = start_with(&world, log.path(), small);
    agent.update(&enforced(policy())).unwrap();
    refused();
    agent.stop().unwrap();
    talk(&mut world.connect("client", SERVER[0], 9090).unwrap()).expect("taken away on purpose");
}

#[test]
fn another_layout_takes_over_and_the_old_one_takes_back() {
    kernel_or_skip!();
    let (world, bpffs, log) = (World::new(), Bpffs::mount(), tempfile::tempdir().unwrap());
    world.serve(8080);
    world.serve(9090);
    let probes = probes(&world);
    probes.1.goes_on(20);
    let mut buried = world.connect("client", SERVER[0], 9090).unwrap();
    talk(&mut buried).unwrap();
    let start = || {
        let agent = start_with(&world, log.path(), bpffs.options());
        agent.update(&enforced(policy())).unwrap();
        agent
    };
    let mut agent = start();
    let allowed = byte_for_byte(world.connect("client", SERVER[0], 8080).unwrap());
    let agent = nothing_arrives(&probes, || {
        talk(&mut buried).expect_err("revoked");
        for other in ["v0", "v4000000000"] {
            agent.leave().unwrap();
            // What is pinned is now another version's: its hooks are taken over, its tables are not.
            let other = bpffs.path().join(other);
            fs::rename(bpffs.layout(), &other).unwrap();
            agent = start();
            assert!(!other.exists(), "what the other version left is gone");
            assert_eq!(fs::read_dir(bpffs.layout().join("links")).unwrap().count(), links_pinned());
            allowed.goes_on(20);
            talk(&mut buried).expect_err("policy denies it without a tombstone too");
        }
        agent
    });
    allowed.end();
    agent.stop().unwrap();
    talk(&mut world.connect("client", SERVER[0], 9090).unwrap()).expect("nothing is attached any more");
}

#[test]
fn an_agent_that_attaches_otherwise_leaves_one_program_in_each_hook() {
    kernel_or_skip!();
    let [tcx, clsact] = attachments()[..] else { return };
    for (first, second) in [(tcx, clsact), (clsact, tcx)] {
        let (world, bpffs, log) = (World::new(), Bpffs::mount(), tempfile::tempdir().unwrap());
        let probes = probes(&world);
        probes.1.goes_on(20);
        let start = |attachment| {
            let options = datapath::Options { attachment: Some(attachment), ..bpffs.options() };
            let agent = start_with(&world, log.path(), options);
            agent.update(&enforced(policy())).unwrap();
            agent
        };
        let agent = start(first);
        nothing_arrives(&probes, || {
            agent.leave().unwrap();
            start(second).leave().unwrap();
        });
        let would = world.inside("node", || datapath::would_take_away(bpffs.path()).unwrap());
        let taken = world.inside("node", || datapath::take_away(bpffs.path()).unwrap());
        assert_eq!(would, taken, "what a dry run says is what happens");
        let hooks: Vec<_> = taken.links.values().map(|link| (link.tcx, link.filters)).collect();
        assert_eq!(hooks, [if second == tcx { (2, 0) } else { (0, 2) }; 2]);
        probes.1.goes_on(20);
    }
}

#[test]
fn shares_that_lost_count_are_counted_anew() {
    kernel_or_skip!();
    let (world, bpffs, log) = (World::new(), Bpffs::mount(), tempfile::tempdir().unwrap());
    world.serve(8080);
    let start = || {
        let agent = start_with(&world, log.path(), bpffs.options());
        agent.update(&enforced(policy())).unwrap();
        agent
    };
    let established = |agent: &agent::Agent| -> Vec<u64> {
        let endpoints = agent.report().unwrap().endpoints;
        endpoints.iter().map(|endpoint| endpoint.connections.established).collect()
    };
    let agent = start();
    let mut streams: Vec<_> = (0..3).map(|_| world.connect("client", SERVER[0], 8080).unwrap()).collect();
    streams.iter_mut().for_each(|stream| talk(stream).unwrap());
    assert_eq!(established(&agent), [3, 3]);
    agent.leave().unwrap();
    // The counts are lost, the connections are not.
    fs::remove_file(bpffs.layout().join("maps/SHARES")).unwrap();
    let agent = start();
    assert_eq!(established(&agent), [0, 0]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while established(&agent) != [3, 3] {
        assert!(Instant::now() < deadline, "{:?}", established(&agent));
        thread::sleep(Duration::from_millis(100));
    }
    streams.iter_mut().for_each(|stream| talk(stream).expect("it goes on"));
    agent.stop().unwrap();
}
