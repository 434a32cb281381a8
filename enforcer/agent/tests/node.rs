//! The whole path of one node on the running kernel: two pods' namespaces behind veths, real sockets,
//! an agent in the node's namespace. Learn, audit, enforce, revoke, and nothing left behind.

use agent::{Agent, Options};
use datapath::Attachment;
use flowlog::{Writer, read_records};
use model::{
    cluster::{Cluster, ContainerPort, Namespace, Node, Pod},
    labels::{Labels, Selector},
    policy::{NetworkPolicy, Peer, PolicySet, Port, PortMatch, Protocol, Rule},
    record::{DirectionRule, EndReason, FlowRecord, FlowVerdict, ObservedAt},
};
use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use verdict::Reason;

/// Namespaces of one test: removed with all that is in them, also when the test fails.
struct World {
    prefix: String,
}

static WORLDS: AtomicU32 = AtomicU32::new(0);
const CLIENT: [&str; 2] = ["10.201.0.1", "fd01:201::1"];
const SERVER: [&str; 2] = ["10.201.0.2", "fd01:201::2"];
const GATEWAY: [&str; 2] = ["10.201.255.1", "fd01:201::ffff"];

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2 is installed");
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Whether this process may load programs and make namespaces; else the reason is printed, and where
/// the test is required, it fails.
fn allowed() -> Result<(), String> {
    let required = std::env::var("PODFENCE_REQUIRE").unwrap_or_default().split(',').any(|what| what == "kernel");
    let why = if !nix::unistd::geteuid().is_root() {
        Err("not root".to_owned())
    } else {
        datapath::Datapath::load(&datapath::Options::default()).map(drop).map_err(|e| format!("{e:?}"))
    };
    match why {
        Err(why) if required => panic!("PODFENCE_REQUIRE names the kernel, and it cannot be used: {why}"),
        other => other,
    }
}

macro_rules! kernel_or_skip {
    () => {
        if let Err(why) = allowed() {
            eprintln!("skipped: {why}");
            return;
        }
    };
}

impl World {
    fn new() -> Self {
        let world = Self { prefix: format!("pfa{}x{}", std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed)) };
        let node = world.name("node");
        ip(&format!("netns add {node}"));
        ip(&format!("-n {node} link set lo up"));
        world.inside("node", || {
            for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                fs::write(format!("/proc/sys/net/{family}"), "1").unwrap();
            }
        });
        for (pod, addresses) in [("client", CLIENT), ("server", SERVER)] {
            world.add_pod(pod, addresses);
        }
        world
    }

    fn name(&self, of: &str) -> String {
        format!("{}{of}", self.prefix)
    }

    fn add_pod(&self, pod: &str, addresses: [&str; 2]) {
        let (node, namespace, link) = (self.name("node"), self.name(pod), format!("v{pod}"));
        ip(&format!("netns add {namespace}"));
        ip(&format!("-n {namespace} link set lo up"));
        ip(&format!("-n {node} link add {link} type veth peer name eth0 netns {namespace}"));
        ip(&format!("-n {node} link set {link} up"));
        ip(&format!("-n {namespace} link set eth0 up"));
        ip(&format!("-n {node} address add {}/32 dev {link}", GATEWAY[0]));
        ip(&format!("-n {node} address add {}/128 dev {link} nodad", GATEWAY[1]));
        ip(&format!("-n {node} route add {}/32 dev {link}", addresses[0]));
        ip(&format!("-n {node} route add {}/128 dev {link}", addresses[1]));
        ip(&format!("-n {namespace} address add {}/32 dev eth0", addresses[0]));
        ip(&format!("-n {namespace} address add {}/128 dev eth0 nodad", addresses[1]));
        ip(&format!("-n {namespace} route add {}/32 dev eth0", GATEWAY[0]));
        ip(&format!("-n {namespace} route add default via {} dev eth0", GATEWAY[0]));
        ip(&format!("-n {namespace} route add {}/128 dev eth0", GATEWAY[1]));
        ip(&format!("-n {namespace} route add default via {} dev eth0", GATEWAY[1]));
    }

    fn path(&self, of: &str) -> PathBuf {
        PathBuf::from(format!("/run/netns/{}", self.name(of)))
    }

    /// Runs in a namespace, on a thread of its own.
    fn inside<T: Send>(&self, of: &str, work: impl FnOnce() -> T + Send) -> T {
        let file = fs::File::open(self.path(of)).unwrap();
        thread::scope(|scope| {
            let worker = scope.spawn(move || {
                nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            worker.join().unwrap()
        })
    }

    /// A server that sends back what it gets, until the process ends.
    fn serve(&self, port: u16) {
        for address in ["0.0.0.0", "::"] {
            let listener = self.inside("server", || {
                if address == "::" {
                    // Of its own family only, beside the other listener.
                    fs::write("/proc/sys/net/ipv6/bindv6only", "1").unwrap();
                }
                TcpListener::bind((address, port)).unwrap()
            });
            thread::spawn(move || {
                for stream in listener.incoming().filter_map(Result::ok) {
                    thread::spawn(move || echo(stream));
                }
            });
        }
    }

    /// A connection, given up after a time that a busy machine needs when it is allowed.
    fn connect(&self, from: &str, to: &str, port: u16) -> io::Result<TcpStream> {
        self.connect_within(from, to, port, Duration::from_secs(10))
    }

    fn connect_within(&self, from: &str, to: &str, port: u16, patience: Duration) -> io::Result<TcpStream> {
        let to = SocketAddr::new(to.parse().unwrap(), port);
        self.inside(from, move || TcpStream::connect_timeout(&to, patience))
    }
}

fn echo(mut stream: TcpStream) {
    let mut bytes = [0; 1024];
    while let Ok(got @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..got]).is_err() {
            return;
        }
    }
}

fn talk(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"hello")?;
    let mut back = [0; 5];
    stream.read_exact(&mut back)
}

impl Drop for World {
    fn drop(&mut self) {
        for of in ["client", "server", "node"] {
            let _ = Command::new("ip").args(["netns", "delete", &self.name(of)]).output();
        }
    }
}

fn cluster(mode: &str) -> Cluster {
    let mut cluster = Cluster::default();
    let labels: Labels = [("kubernetes.io/metadata.name", "shop"), ("podfence.dev/mode", mode)]
        .map(|(k, v)| (k.into(), v.into()))
        .into();
    cluster.namespaces.insert("shop".into(), Namespace { labels, ..Namespace::default() });
    let addresses = GATEWAY.map(|address| address.parse::<IpAddr>().unwrap()).to_vec();
    cluster.nodes.insert("n1".into(), Node { addresses, ..Node::default() });
    for (name, addresses) in [("client", CLIENT), ("server", SERVER)] {
        cluster.pods.push(Pod {
            namespace: "shop".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
            labels: [("app".to_owned(), name.to_owned())].into(),
            addresses: addresses.map(|address| address.parse().unwrap()).to_vec(),
            node: "n1".into(),
            ports: vec![ContainerPort { name: None, port: 8080, protocol: Protocol::Tcp }],
            ..Pod::default()
        });
    }
    cluster
}

/// The server takes only port 8080 from the client.
fn policy() -> PolicySet {
    let from = Peer::Pods { namespaces: None, pods: Some(Selector::of([("app".into(), "client".into())].into())) };
    let port = Port { protocol: Protocol::Tcp, port: PortMatch::Range(8080, 8080) };
    PolicySet {
        policies: vec![NetworkPolicy {
            namespace: "shop".into(),
            name: "server".into(),
            labels: Labels::new(),
            annotations: Labels::new(),
            pod_selector: Selector::of([("app".into(), "server".into())].into()),
            ingress: Some(vec![Rule { peers: vec![from], ports: vec![port], source: None }]),
            egress: None,
            source: None,
        }],
    }
}

fn start(world: &World, log: &std::path::Path) -> Agent {
    start_with(world, log, datapath::Options::default())
}

fn start_with(world: &World, log: &std::path::Path, datapath: datapath::Options) -> Agent {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    let writer = Writer::open(log, "test", "n1", flowlog::Options::default(), now).unwrap();
    let options = Options {
        netns: Some(world.path("node")),
        sweep_every: Duration::from_millis(100),
        slice_every: Duration::from_secs(1),
        datapath,
        ..Options::of_node("n1")
    };
    Agent::start(options, writer).unwrap()
}

fn rows(log: &std::path::Path) -> Vec<FlowRecord> {
    read_records(log).unwrap().0
}

/// Law 7 as far as user space can hold it: of each reason that makes events, and of each entry.
fn law_7(status: &agent::Status, told: &[FlowRecord]) {
    for ((reason, direction, dropped), counter) in &status.counters.verdicts {
        if reason.reports() {
            let sum = counter.events + counter.suppressed + counter.lost;
            assert_eq!(sum, counter.packets, "{reason:?} {direction:?} {dropped}");
        }
    }
    let made: u64 = status.counters.verdicts.values().map(|counter| counter.events).sum();
    assert_eq!(made + status.counters.ended.events, status.events, "every event was read");
    assert_eq!((status.lost_entries, status.unreadable_events), (0, 0));
    let entries: u64 = status.counted.values().map(|counted| counted.packets()).sum();
    let in_rows: u64 = told.iter().map(|row| row.event.packets_to_server + row.event.packets_to_client).sum();
    assert_eq!(in_rows, entries + status.rows_without_entry);
}

#[test]
fn learn_audit_enforce_and_revoke_on_the_running_kernel() {
    kernel_or_skip!();
    let world = World::new();
    let log = tempfile::tempdir().unwrap();
    world.serve(8080);
    world.serve(9090);
    let agent = start(&world, log.path());

    let update = agent.update(&cluster("learn")).unwrap();
    assert_eq!(update.covered.len(), 2, "{update:?}");
    assert!(update.not_covered.is_empty(), "{update:?}");
    for family in [0, 1] {
        for port in [8080, 9090] {
            talk(&mut world.connect("client", SERVER[family], port).unwrap()).unwrap();
        }
    }

    // Opened before any policy: what nothing allows is revoked when enforcing begins.
    let mut standing = world.connect("client", SERVER[0], 9090).unwrap();
    talk(&mut standing).unwrap();
    let mut kept = world.connect("client", SERVER[0], 8080).unwrap();
    talk(&mut kept).unwrap();

    // Audit, with the policy in force: the other port is logged and passes.
    let mut audited = cluster("audit");
    audited.policies = policy();
    agent.update(&audited).unwrap();
    for family in [0, 1] {
        talk(&mut world.connect("client", SERVER[family], 8080).unwrap()).unwrap();
        talk(&mut world.connect("client", SERVER[family], 9090).unwrap()).unwrap();
    }

    let mut enforced = cluster("enforce");
    enforced.policies = policy();
    agent.update(&enforced).unwrap();
    talk(&mut kept).expect("what is allowed goes on");
    talk(&mut standing).expect_err("what is not allowed ends");
    for family in [0, 1] {
        let allowed = world.connect("client", SERVER[family], 8080);
        let verdicts = agent.status().unwrap().counters.verdicts;
        talk(&mut allowed.unwrap_or_else(|e| panic!("{e}: {verdicts:?}"))).unwrap();
        let refused = world.connect_within("client", SERVER[family], 9090, Duration::from_secs(1));
        refused.expect_err("the other port is closed");
    }
    let during = agent.status().unwrap();
    assert!(during.counters.dropped() > 0);

    let stopped = agent.stop().unwrap();
    let rows = rows(log.path());
    law_7(&stopped.status, &rows);
    assert_eq!(stopped.status.log_failures, (0, None));

    let of = |at: ObservedAt, verdict: FlowVerdict, port: u16| {
        rows.iter().filter(|r| r.event.observed_at == at && r.event.verdict == verdict && r.server.port == port).count()
    };
    for family in [4, 6] {
        let v4 = |row: &&FlowRecord| row.server.ip.is_ipv4() == (family == 4);
        let learned = rows.iter().filter(v4).find(|row| {
            row.event.observed_at == ObservedAt::Server
                && row.event.verdict == FlowVerdict::Allow
                && row.server.port == 9090
        });
        let learned = learned.expect("the learned flow is in the log");
        assert_eq!(learned.event.direction_rule, DirectionRule::Syn);
        assert_eq!(&*learned.client.name.clone().unwrap(), "client");
        assert_eq!(&*learned.event.reason, Reason::NotIsolated.name());
    }
    assert!(of(ObservedAt::Client, FlowVerdict::Allow, 8080) > 0, "the client's hook saw it too");
    assert!(of(ObservedAt::Server, FlowVerdict::AuditDeny, 9090) >= 2, "would-be denials of both families");
    assert!(of(ObservedAt::Server, FlowVerdict::Deny, 9090) >= 2, "denials of both families");
    assert!(of(ObservedAt::Server, FlowVerdict::Revoked, 9090) >= 1, "the standing connection was revoked");
    assert!(rows.iter().any(|row| row.event.end_reason == EndReason::Fin));
    let by_rule = rows.iter().filter(|row| &*row.event.reason == Reason::AllowedByRule.name());
    let by_rule: Vec<_> = by_rule.map(|row| row.event.rule.clone().expect("the rule is named")).collect();
    assert!(by_rule.iter().all(|rule| &*rule.name == "server" && &*rule.rule == "ingress[0]"), "{by_rule:?}");

    // Detached: what was closed is open again, since no policy is left on the node.
    talk(&mut world.connect("client", SERVER[0], 9090).unwrap()).unwrap();
}

#[test]
fn a_staged_policy_is_judged_beside_the_one_in_force_and_denies_nothing() {
    kernel_or_skip!();
    let world = World::new();
    let log = tempfile::tempdir().unwrap();
    world.serve(9090);
    let agent = start(&world, log.path());
    let mut staged = cluster("enforce");
    staged.staged = policy();
    agent.update(&staged).unwrap();
    talk(&mut world.connect("client", SERVER[0], 9090).unwrap()).unwrap();
    let stopped = agent.stop().unwrap();
    let rows = rows(log.path());
    law_7(&stopped.status, &rows);
    let row = rows.iter().find(|row| row.event.observed_at == ObservedAt::Server).unwrap();
    assert_eq!(row.event.verdict, FlowVerdict::Allow);
    assert_eq!(row.event.staged_verdict, FlowVerdict::AuditDeny);
    assert_eq!(stopped.status.counters.dropped(), 0);
}

#[test]
fn an_older_kernels_way_to_attach_enforces_too() {
    kernel_or_skip!();
    let world = World::new();
    let log = tempfile::tempdir().unwrap();
    world.serve(8080);
    world.serve(9090);
    let clsact = datapath::Options { attachment: Some(Attachment::Clsact), ..datapath::Options::default() };
    let agent = start_with(&world, log.path(), clsact);
    let mut enforced = cluster("enforce");
    enforced.policies = policy();
    let update = agent.update(&enforced).unwrap();
    assert_eq!(update.covered.len(), 2, "{update:?}");
    assert_eq!(agent.status().unwrap().attachment, Attachment::Clsact);
    talk(&mut world.connect("client", SERVER[0], 8080).unwrap()).unwrap();
    let refused = world.connect_within("client", SERVER[0], 9090, Duration::from_secs(1));
    refused.expect_err("the other port is closed");
    let stopped = agent.stop().unwrap();
    law_7(&stopped.status, &rows(log.path()));
    talk(&mut world.connect("client", SERVER[0], 9090).unwrap()).expect("nothing is attached any more");
}

#[test]
fn a_pinned_hook_is_taken_over_and_at_the_end_only_the_counter_of_epochs_is_left() {
    kernel_or_skip!();
    let world = World::new();
    world.serve(9090);
    // A bpffs of this thread's own mount namespace; the agent's thread is started from it.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let none = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("bpf"), folder.path(), Some("bpf"), none, None::<&str>).unwrap();
    let pinned = datapath::Options { bpffs: Some(folder.path().to_owned()), ..datapath::Options::default() };
    let layout = folder.path().join(format!("v{}", verdict::abi::LAYOUT));
    let log = tempfile::tempdir().unwrap();

    let first = start_with(&world, log.path(), pinned.clone());
    let mut enforced = cluster("enforce");
    enforced.policies = policy();
    first.update(&enforced).unwrap();
    assert_eq!(fs::read_dir(layout.join("links")).unwrap().count(), 4);
    let refuse = || world.connect_within("client", SERVER[0], 9090, Duration::from_secs(1)).expect_err("closed");
    refuse();

    // A second agent takes the hooks over while the first still holds them.
    let other_log = tempfile::tempdir().unwrap();
    let second = start_with(&world, other_log.path(), pinned);
    second.update(&enforced).unwrap();
    refuse();
    let seen = second.stop().unwrap().status;
    assert!(seen.counters.dropped() > 0, "the second agent's program judged");
    first.stop().unwrap();
    let left: Vec<_> = fs::read_dir(&layout).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["epochs"]);
    talk(&mut world.connect("client", SERVER[0], 9090).unwrap()).expect("nothing is attached any more");
    nix::mount::umount(folder.path()).unwrap();
}

#[test]
fn a_pod_whose_link_comes_later_is_covered_without_another_update() {
    kernel_or_skip!();
    let world = World::new();
    ip(&format!("-n {} link delete vserver", world.name("node")));
    let log = tempfile::tempdir().unwrap();
    let agent = start(&world, log.path());
    let update = agent.update(&cluster("learn")).unwrap();
    assert_eq!(update.not_covered.len(), 1, "{update:?}");
    ip(&format!("netns delete {}", world.name("server")));
    world.add_pod("server", SERVER);
    world.serve(8080);
    let socket = world.inside("client", || UdpSocket::bind((CLIENT[0], 0)).unwrap());
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // A datagram to a closed port, seen at the server's hook once that is attached.
        socket.send_to(b"?", (SERVER[0], 7777)).unwrap();
        thread::sleep(Duration::from_millis(200));
        agent.flush().unwrap();
        if rows(log.path()).iter().any(|row| row.event.observed_at == ObservedAt::Server) {
            break;
        }
        assert!(Instant::now() < deadline, "the server's link was not found");
    }
}
