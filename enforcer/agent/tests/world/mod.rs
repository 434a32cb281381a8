//! Two pods and their node as network namespaces, and what the agents of the tests are told of them.

use agent::{Agent, Options};
use datapath::Attachment;
use flowlog::Writer;
use model::{
    cluster::{Cluster, ContainerPort, Namespace, Node, Pod},
    labels::{Labels, Selector},
    policy::{NetworkPolicy, Peer, PolicySet, Port, PortMatch, Protocol, Rule},
};
use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Namespaces of one test: removed with all that is in them, also when the test fails.
pub(crate) struct World {
    pub(crate) prefix: String,
}

static WORLDS: AtomicU32 = AtomicU32::new(0);
pub(crate) const CLIENT: [&str; 2] = ["10.201.0.1", "fd01:201::1"];
pub(crate) const SERVER: [&str; 2] = ["10.201.0.2", "fd01:201::2"];
pub(crate) const GATEWAY: [&str; 2] = ["10.201.255.1", "fd01:201::ffff"];

pub(crate) fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2 is installed");
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Whether this process may load programs and make namespaces; else the reason is printed, and where
/// the test is required, it fails.
pub(crate) fn allowed() -> Result<(), String> {
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

/// The ways to attach that this kernel has: TCX from 6.6 on, clsact always.
pub(crate) fn attachments() -> Vec<Attachment> {
    let kernel = datapath::Datapath::load(&datapath::Options::default()).unwrap();
    match kernel.hooks().attachment() {
        Attachment::Tcx => vec![Attachment::Tcx, Attachment::Clsact],
        Attachment::Clsact => {
            println!("left out: TCX, which this kernel does not have");
            vec![Attachment::Clsact]
        }
    }
}

/// Links that an agent pins for two pods, as this kernel attaches by itself: one a hook; filters of clsact stay without.
pub(crate) fn links_pinned() -> usize {
    if attachments().contains(&Attachment::Tcx) { 4 } else { 0 }
}

macro_rules! kernel_or_skip {
    () => {
        if let Err(why) = $crate::world::allowed() {
            eprintln!("skipped: {why}");
            return;
        }
    };
}

impl World {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn name(&self, of: &str) -> String {
        format!("{}{of}", self.prefix)
    }

    pub(crate) fn add_pod(&self, pod: &str, addresses: [&str; 2]) {
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

    pub(crate) fn path(&self, of: &str) -> PathBuf {
        PathBuf::from(format!("/run/netns/{}", self.name(of)))
    }

    /// Runs in a namespace, on a thread of its own.
    pub(crate) fn inside<T: Send>(&self, of: &str, work: impl FnOnce() -> T + Send) -> T {
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
    pub(crate) fn serve(&self, port: u16) {
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
    pub(crate) fn connect(&self, from: &str, to: &str, port: u16) -> io::Result<TcpStream> {
        self.connect_within(from, to, port, Duration::from_secs(10))
    }

    pub(crate) fn connect_within(&self, from: &str, to: &str, port: u16, patience: Duration) -> io::Result<TcpStream> {
        let to = SocketAddr::new(to.parse().unwrap(), port);
        self.inside(from, move || TcpStream::connect_timeout(&to, patience))
    }
}

/// A bpffs in a mount namespace of this thread's own; what it starts from then on shares it.
pub(crate) struct Bpffs(tempfile::TempDir);

impl Bpffs {
    pub(crate) fn mount() -> Self {
        use nix::mount::{MsFlags, mount};
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let folder = tempfile::tempdir().unwrap();
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where the pins of this layout lie.
    pub(crate) fn layout(&self) -> PathBuf {
        self.path().join(format!("v{}", verdict::abi::LAYOUT))
    }

    /// Options that pin here.
    pub(crate) fn options(&self) -> datapath::Options {
        datapath::Options { bpffs: Some(self.path().to_owned()), ..datapath::Options::default() }
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = nix::mount::umount(self.path());
    }
}

pub(crate) fn echo(mut stream: TcpStream) {
    let mut bytes = [0; 1024];
    while let Ok(got @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..got]).is_err() {
            return;
        }
    }
}

pub(crate) fn talk(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"hello")?;
    let mut back = [0; 5];
    stream.read_exact(&mut back)
}

impl Drop for World {
    fn drop(&mut self) {
        for of in ["client", "server", "stranger", "node"] {
            let _ = Command::new("ip").args(["netns", "delete", &self.name(of)]).output();
        }
    }
}

pub(crate) fn cluster(mode: &str) -> Cluster {
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
pub(crate) fn policy() -> PolicySet {
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

/// How long these agents put off what a policy's end opens.
pub(crate) const SETTLES_AFTER: Duration = Duration::from_secs(1);

pub(crate) fn start(world: &World, log: &Path) -> Agent {
    start_with(world, log, datapath::Options::default())
}

pub(crate) fn start_with(world: &World, log: &Path, datapath: datapath::Options) -> Agent {
    try_start(world, log, datapath).unwrap()
}

pub(crate) fn try_start(world: &World, log: &Path, datapath: datapath::Options) -> Result<Agent, agent::Error> {
    started(options(world, log, datapath), log)
}

/// An agent's options, as those of these tests have them.
pub(crate) fn options(world: &World, log: &Path, datapath: datapath::Options) -> Options {
    Options {
        netns: Some(world.path("node")),
        sweep_every: Duration::from_millis(100),
        slice_every: Duration::from_secs(1),
        settles_after: SETTLES_AFTER,
        remembers: Some(log.join("last-policies.yaml")),
        datapath,
        ..Options::of_node("n1")
    }
}

pub(crate) fn started(options: Options, log: &Path) -> Result<Agent, agent::Error> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    Agent::start(options, Writer::open(log, "test", "n1", flowlog::Options::default(), now).unwrap())
}
