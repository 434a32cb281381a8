//! Real sockets between two pods' namespaces, routed by a node's, beside nothing in the way and beside
//! nftables rulesets in the node's forward chain that say the same; and while policies are published all the time.
//!
//! What a packet of the one stream costs in the program is what the kernel counts of it (BPF_STATS_RUN_TIME, which
//! adds some of its own): segments that stand for many, with payload outside the linear part.

use crate::spread;
use agent::{Agent, Options};
use aya::programs::loaded_programs;
use flowlog::Writer;
use lab::network::{self, Link, Purpose};
use model::{
    cluster::{Cluster, Mode, Namespace, Node, Pod},
    labels::{Labels, METADATA_NAME, Selector},
    policy::{NetworkPolicy, Peer, PolicySet, Port, PortMatch, Protocol, Rule},
};
use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use tests::story::InKernel;

const CLIENT: &str = "10.202.0.1";
const SERVER: &str = "10.202.0.2";
const NODE_ADDRESS: &str = "169.254.1.1";
const NODE: &str = "node-1";
const ECHO: u16 = 7;
const SINK: u16 = 9;
const ROUNDS: usize = 3;
const REQUESTS: usize = 4_000;
const OPENINGS: usize = 600;
const STREAMED: Duration = Duration::from_millis(700);
/// Requests go on for at least this long while policies are published.
const PUBLISHED: Duration = Duration::from_secs(2);

/// What stands between the pods.
#[derive(Clone, Copy)]
enum Between {
    Nothing,
    Podfence(usize),
    /// The same, while one rule comes and goes as fast as the agent publishes.
    Publishing(usize),
    Nftables {
        rules: usize,
        sets: bool,
    },
}

/// Figures of one round.
#[derive(Default)]
struct Figures {
    requests: Vec<u64>,
    openings: Vec<u64>,
    bits: Vec<u64>,
    /// Nanoseconds of the programs for each packet of the stream, and its bytes.
    packets: Vec<u64>,
    bytes: Vec<u64>,
    /// Milliseconds for each publish, everything counted, while requests go on.
    publishes: Vec<u64>,
}

pub(crate) fn main() {
    if Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("Over veths: left out, as `nft` is not installed (package nftables)");
        return;
    }
    let all = [
        Between::Nothing,
        Between::Podfence(100),
        Between::Podfence(10_000),
        Between::Publishing(100),
        Between::Publishing(10_000),
        Between::Nftables { rules: 100, sets: false },
        Between::Nftables { rules: 1_000, sets: false },
        Between::Nftables { rules: 10_000, sets: false },
        Between::Nftables { rules: 100, sets: true },
        Between::Nftables { rules: 10_000, sets: true },
    ];
    println!("Over veths, {ROUNDS} rounds: request and response of a byte, an opening and a closing, one stream");
    println!(
        "{:>30} {:>9} {:>9} {:>9} {:>9} {:>8} {:>10} {:>9} {:>10}",
        "between the pods", "request", "p99", "opening", "p99", "Gbit/s", "ns/packet", "of bytes", "a publish"
    );
    let mut figures: Vec<Figures> = all.iter().map(|_| Figures::default()).collect();
    for _ in 0..ROUNDS {
        for (between, figures) in all.iter().zip(&mut figures) {
            measure(*between, figures);
        }
    }
    for (between, figures) in all.iter().zip(figures) {
        let ((request, request_99), (opening, opening_99)) = (spread(figures.requests), spread(figures.openings));
        let (bits, _) = spread(figures.bits);
        let us = |ns: u64| format!("{:.1} us", ns as f64 / 1e3);
        let of = |values: Vec<u64>, unit: &str| match values.as_slice() {
            [] => String::new(),
            _ => format!("{}{unit}", spread(values).0),
        };
        println!(
            "{:>30} {:>9} {:>9} {:>9} {:>9} {:>8.2} {:>10} {:>9} {:>10}",
            name(*between),
            us(request),
            us(request_99),
            us(opening),
            us(opening_99),
            bits as f64 / 1e9,
            of(figures.packets, ""),
            of(figures.bytes, ""),
            of(figures.publishes, " ms")
        );
    }
}

fn name(between: Between) -> String {
    match between {
        Between::Nothing => "nothing".to_owned(),
        Between::Podfence(rules) => format!("podfence, {rules} rules"),
        Between::Publishing(rules) => format!("podfence, {rules}, publishing"),
        Between::Nftables { rules, sets: false } => format!("nftables, {rules} rules in a row"),
        Between::Nftables { rules, sets: true } => format!("nftables, {rules} rules in a set"),
    }
}

fn measure(between: Between, figures: &mut Figures) {
    let world = World::new();
    let log = tempfile::tempdir().expect("a folder");
    let agent = match between {
        Between::Nothing => None,
        Between::Podfence(rules) | Between::Publishing(rules) => Some(enforce(&world, log.path(), rules)),
        Between::Nftables { rules, sets } => {
            world.nft(&ruleset(rules, sets));
            None
        }
    };
    for port in [ECHO, SINK] {
        world.serve(port);
    }
    let mut stream = world.connect(ECHO).expect("the way is allowed");
    world.connect(ECHO + 1).expect_err("nobody listens there, or nobody may come");
    stream.set_nodelay(true).expect("an option");
    match (between, &agent) {
        (Between::Publishing(rules), Some(agent)) => {
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                let publishes = scope.spawn(|| publish(agent, rules, &stop));
                figures.requests.extend(requests(&mut stream, PUBLISHED));
                figures.openings.extend(world.openings());
                stop.store(true, Ordering::Relaxed);
                figures.publishes.extend(publishes.join().expect("the agent publishes"));
            });
        }
        _ => {
            figures.requests.extend(requests(&mut stream, Duration::ZERO));
            figures.openings.extend(world.openings());
        }
    }
    let mut stream = world.connect(SINK).expect("the way is allowed");
    let _counting = aya::sys::enable_stats(aya::sys::Stats::RunTime).expect("the kernel counts");
    let before = counted();
    let sent = stream_for(&mut stream);
    figures.bits.push((sent as f64 * 8.0 / STREAMED.as_secs_f64()) as u64);
    let (ns, packets) = counted().iter().zip(before).fold((0, 0), |sum, (now, before)| {
        (sum.0 + now.0.saturating_sub(before.0), sum.1 + now.1.saturating_sub(before.1))
    });
    if let Some(agent) = agent {
        figures.packets.extend(ns.checked_div(packets));
        // Each is seen at the one pod's link and at the other's.
        figures.bytes.extend((2 * sent).checked_div(packets));
        agent.stop().expect("the agent ends");
    }
}

/// How long each request takes: so many, and for at least this time.
fn requests(stream: &mut TcpStream, at_least: Duration) -> Vec<u64> {
    let (began, mut took, mut byte) = (Instant::now(), Vec::new(), [7]);
    while took.len() < REQUESTS || began.elapsed() < at_least {
        let begin = Instant::now();
        stream.write_all(&byte).and_then(|()| stream.read_exact(&mut byte)).expect("an echo");
        took.push(begin.elapsed().as_nanos() as u64);
    }
    took
}

/// Publishes without a pause; how long each took.
fn publish(agent: &Agent, rules: usize, stop: &AtomicBool) -> Vec<u64> {
    let clusters = [cluster(rules + 1), cluster(rules)];
    let mut took = Vec::new();
    for cluster in clusters.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let begin = Instant::now();
        let update = agent.update(cluster).expect("an update");
        assert!(update.endpoints > 0, "it published nothing");
        took.push(begin.elapsed().as_millis() as u64);
    }
    took
}

/// Of each program of this process: nanoseconds that it ran, and how often.
fn counted() -> Vec<(u64, u64)> {
    let own = InKernel::held().programs;
    let programs = loaded_programs().flatten().filter(|program| own.contains(&program.id()));
    programs.map(|program| (program.run_time().as_nanos() as u64, program.run_count())).collect()
}

/// Bytes that one stream carries in the time.
fn stream_for(stream: &mut TcpStream) -> u64 {
    let (block, begin, mut sent) = (vec![0u8; 1 << 17], Instant::now(), 0u64);
    while begin.elapsed() < STREAMED {
        stream.write_all(&block).expect("the stream goes on");
        sent += block.len() as u64;
    }
    sent
}

/// Addresses that rules name and nobody has.
fn stranger(number: usize) -> IpAddr {
    let [_, b, c, d] = (number as u32 + 1).to_be_bytes();
    IpAddr::from([11, b, c, d])
}

/// Both ends isolated; the server's rules name this many strangers, and the client.
fn enforce(world: &World, log: &std::path::Path, rules: usize) -> Agent {
    let options = Options { netns: Some(world.path("node")), ..Options::of_node(NODE) };
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_nanos();
    let writer = Writer::open(log, "bench", NODE, flowlog::Options::default(), since as i64).expect("a log");
    let agent = Agent::start(options, writer).expect("an agent");
    let update = agent.update(&cluster(rules)).expect("an update");
    assert_eq!(update.covered.len(), 2, "{update:?}");
    agent
}

fn cluster(rules: usize) -> Cluster {
    let mut cluster = Cluster::default();
    let labels = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
    let mut of_namespace = labels(METADATA_NAME, "x");
    of_namespace.extend(labels(model::cluster::MODE_LABEL, Mode::Enforce.name()));
    cluster.namespaces.insert("x".into(), Namespace { labels: of_namespace, ..Namespace::default() });
    cluster.nodes.insert(NODE.into(), Node { addresses: vec![ip(NODE_ADDRESS)], ..Node::default() });
    for (name, address) in [("client", CLIENT), ("server", SERVER)] {
        cluster.pods.push(Pod {
            namespace: "x".into(),
            name: name.into(),
            uid: name.into(),
            labels: labels("app", name),
            addresses: vec![ip(address)],
            node: NODE.into(),
            ..Pod::default()
        });
    }
    let port = |port| Port { protocol: Protocol::Tcp, port: PortMatch::Range(port, port) };
    let of = |name: &str| Peer::Pods { namespaces: None, pods: Some(Selector::of(labels("app", name))) };
    let strangers = (0..rules).map(|number| Peer::Block { cidr: stranger(number).into(), except: Vec::new() });
    let ports = vec![port(ECHO), port(SINK)];
    let rule = |peers| Rule { peers, ports: ports.clone(), source: None };
    let policy = |name: &str, ingress, egress| NetworkPolicy {
        namespace: "x".into(),
        name: name.into(),
        labels: Labels::new(),
        annotations: Labels::new(),
        pod_selector: Selector::of(labels("app", name)),
        ingress,
        egress,
        source: None,
    };
    cluster.policies = PolicySet {
        policies: vec![
            policy("client", Some(Vec::new()), Some(vec![rule(vec![of("server")])])),
            policy("server", Some(vec![rule(strangers.chain([of("client")]).collect())]), Some(Vec::new())),
        ],
    };
    cluster
}

/// The same for nftables, which knows connections: rules are asked for openings alone.
fn ruleset(rules: usize, sets: bool) -> String {
    let mut text = "table ip between {\n".to_owned();
    let last = format!("{CLIENT} . {SERVER} . ");
    if sets {
        text += "  set allowed { type ipv4_addr . ipv4_addr . inet_service;\n    elements = { ";
        for number in 0..rules {
            let _ = write!(text, "{} . {SERVER} . {ECHO}, ", stranger(number));
        }
        let _ = writeln!(text, "{last}{ECHO}, {last}{SINK} }}\n  }}");
    }
    text += "  chain forward { type filter hook forward priority 0; policy drop;\n    ct state established,related accept\n";
    if sets {
        text += "    ip saddr . ip daddr . tcp dport @allowed accept\n";
    } else {
        for number in 0..rules {
            let _ = writeln!(text, "    ip saddr {} ip daddr {SERVER} tcp dport {ECHO} accept", stranger(number));
        }
        let _ = writeln!(text, "    ip saddr {CLIENT} ip daddr {SERVER} tcp dport {{ {ECHO}, {SINK} }} accept");
    }
    text + "  }\n}\n"
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A node and two pods; removed with all that is in them.
struct World(String);

impl World {
    fn new() -> Self {
        let world = Self(format!("pfb{}", std::process::id()));
        let [node, client, server] = ["node", "client", "server"].map(|of| world.name(of));
        let leaf = |name: &String| (name.clone(), Purpose::Leaf);
        network::create(&[(node.clone(), Purpose::Router), leaf(&client), leaf(&server)]).expect("namespaces");
        let link = |name, leaf, addresses| Link { router: &node, name, leaf, addresses, sources: &[], behind: &[] };
        let addresses = [CLIENT, SERVER].map(|address| [ip(address)]);
        network::connect(&[link("vclient", &client, &addresses[0]), link("vserver", &server, &addresses[1])])
            .expect("links");
        world
    }

    fn name(&self, of: &str) -> String {
        format!("{}{of}", self.0)
    }

    fn path(&self, of: &str) -> PathBuf {
        network::path_of(&self.name(of))
    }

    /// Runs in a namespace, on a thread of its own.
    fn inside<T: Send>(&self, of: &str, work: impl FnOnce() -> T + Send) -> T {
        let namespace = self.path(of);
        thread::scope(|scope| {
            let worker = scope.spawn(move || {
                network::enter(&namespace).expect("entered");
                work()
            });
            worker.join().expect("done")
        })
    }

    fn nft(&self, rules: &str) {
        self.inside("node", || {
            let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft");
            child.stdin.take().expect("a pipe").write_all(rules.as_bytes()).expect("rules");
            assert!(child.wait().expect("an end").success(), "nft");
        });
    }

    /// Echoes, or only takes.
    fn serve(&self, port: u16) {
        let listener = self.inside("server", || TcpListener::bind((ip(SERVER), port)).expect("a listener"));
        thread::spawn(move || {
            for mut stream in listener.incoming().filter_map(Result::ok) {
                thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    let mut bytes = vec![0; 1 << 17];
                    while let Ok(got @ 1..) = stream.read(&mut bytes) {
                        if port == ECHO && stream.write_all(&bytes[..got]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }

    fn connect(&self, port: u16) -> std::io::Result<TcpStream> {
        let to = SocketAddr::new(ip(SERVER), port);
        self.inside("client", move || TcpStream::connect_timeout(&to, Duration::from_millis(500)))
    }

    /// How long openings and closings take, one after another.
    fn openings(&self) -> Vec<u64> {
        let to = SocketAddr::new(ip(SERVER), SINK);
        self.inside("client", move || {
            (0..OPENINGS)
                .map(|_| {
                    let begin = Instant::now();
                    drop(TcpStream::connect(to).expect("the way is allowed"));
                    begin.elapsed().as_nanos() as u64
                })
                .collect()
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for of in ["client", "server", "node"] {
            network::remove(&self.name(of));
        }
    }
}
