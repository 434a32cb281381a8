//! The node, and pods: each a thread in a network namespace of its own behind a veth, that serves or asks until it ends.

use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use std::{
    fmt, fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::channel,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 207, 255, 1);
const ALLOWED_PORT: u16 = 8080;
const DENIED_PORT: u16 = 9090;
/// How long an allowed connection may take on a busy machine, and until a new pod is known.
const PATIENCE: Duration = Duration::from_secs(5);
const UNTIL_KNOWN: Duration = Duration::from_secs(20);
/// How long it is tried to get through where nobody may.
const TRIED: Duration = Duration::from_millis(300);
const BETWEEN_TRIES: Duration = Duration::from_millis(100);
/// Wrong verdicts that are shown.
const SHOWN: usize = 20;

/// What a pod may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Serves both ports; one is allowed to some.
    Server,
    /// May open the allowed port, and not the other.
    Allowed,
    /// May open nothing.
    Denied,
}

/// What became of all connections.
#[derive(Clone, Default)]
pub(crate) struct Tally(Arc<Counts>);

#[derive(Default)]
struct Counts {
    served: AtomicU64,
    refused: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Tally {
    pub(crate) fn served(&self) -> u64 {
        self.0.served.load(Ordering::Relaxed)
    }

    pub(crate) fn wrong(&self) -> Vec<String> {
        self.0.wrong.lock().expect("no pod failed").clone()
    }

    fn note(&self, what: String) {
        let mut wrong = self.0.wrong.lock().expect("no pod failed");
        if wrong.len() < SHOWN {
            wrong.push(what);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused = self.0.refused.load(Ordering::Relaxed);
        write!(f, "{} exchanges served, {refused} openings refused, {} wrong", self.served(), self.wrong().len())
    }
}

/// The node's namespace: this thread's.
pub(crate) struct Node;

impl Node {
    pub(crate) fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may");
        ip("link set lo up");
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("the namespace's own setting");
        Self
    }
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2 is installed");
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

fn address(number: u32) -> Ipv4Addr {
    let [.., high, low] = (number + 2).to_be_bytes();
    Ipv4Addr::new(10, 207, high, low)
}

/// A pod that lives.
pub(crate) struct Pod {
    number: u32,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Pod {
    /// Its object comes with its link; the agent may see the one or the other first.
    pub(crate) fn start(_: &Node, objects: &Path, number: u32, role: Role, at: u32, tally: &Tally) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, told) = channel();
        let (ready, made) = channel();
        let thread = thread::spawn({
            let (stop, tally, own) = (stop.clone(), tally.clone(), address(at));
            move || {
                unshare(CloneFlags::CLONE_NEWNET).expect("root may");
                tell.send(nix::unistd::gettid().as_raw()).expect("the node waits");
                made.recv().expect("the veth is there");
                ip("link set lo up");
                ip("link set eth0 up");
                ip(&format!("address add {own}/32 dev eth0"));
                ip(&format!("route add {GATEWAY}/32 dev eth0"));
                ip(&format!("route add default via {GATEWAY} dev eth0"));
                match role {
                    Role::Server => serve(&stop, &tally),
                    Role::Allowed | Role::Denied => ask(number, role, &stop, &tally),
                }
            }
        });
        let inside = told.recv().expect("the pod's thread");
        ip(&format!("link add pod{number} type veth peer name eth0 netns {inside}"));
        ip(&format!("link set pod{number} up"));
        ip(&format!("address add {GATEWAY}/32 dev pod{number}"));
        ip(&format!("route replace {}/32 dev pod{number}", address(at)));
        // A file under another name is not read.
        let (written, read) = (objects.join("pod.new"), objects.join(format!("pod{number}.json")));
        fs::write(&written, object(number, role, address(at)).to_string()).expect("a file");
        fs::rename(written, read).expect("a file");
        ready.send(()).expect("the pod's thread");
        Self { number, stop, thread }
    }

    pub(crate) fn end(self, objects: &Path) {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.thread.join().is_err();
        fs::remove_file(objects.join(format!("pod{}.json", self.number))).expect("its file");
        // Its link goes with its namespace, sooner or later.
        let link = format!("pod{}", self.number);
        let _ = Command::new("ip").args(["link", "delete", &link]).output();
        assert!(!failed, "pod{} failed", self.number);
    }
}

/// Answers what comes, on both ports, without a thread for each connection.
fn serve(stop: &AtomicBool, tally: &Tally) {
    let listeners =
        [ALLOWED_PORT, DENIED_PORT].map(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a port"));
    listeners.iter().for_each(|listener| listener.set_nonblocking(true).expect("a socket"));
    let mut streams: Vec<TcpStream> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let fresh = listeners.iter().flat_map(|listener| std::iter::from_fn(|| listener.accept().ok()));
        streams.extend(fresh.filter_map(|(stream, _)| stream.set_nonblocking(true).ok().map(|()| stream)));
        streams.retain_mut(|stream| {
            let mut bytes = [0; 64];
            match stream.read(&mut bytes) {
                Ok(got) if got > 0 => {
                    tally.0.served.fetch_add(1, Ordering::Relaxed);
                    stream.write_all(&bytes[..got]).is_ok()
                }
                Ok(_) => false,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            }
        });
        thread::sleep(Duration::from_millis(2));
    }
}

/// Opens what it may and what it may not, again and again, and keeps one connection all the time.
fn ask(number: u32, role: Role, stop: &AtomicBool, tally: &Tally) {
    let (server, began) = (address(0), Instant::now());
    let (mut standing, mut is_known) = (None, false);
    while !stop.load(Ordering::Relaxed) {
        if role == Role::Allowed {
            match exchange(&mut standing, SocketAddr::from((server, ALLOWED_PORT))) {
                Ok(()) => is_known = true,
                Err(_) if !is_known && began.elapsed() < UNTIL_KNOWN => standing = None,
                // Ended while it was asking.
                Err(_) if stop.load(Ordering::Relaxed) => {}
                Err(error) => {
                    tally.note(format!(
                        "pod{number} is allowed, known: {is_known}, after {:?}: {error}",
                        began.elapsed()
                    ));
                    standing = None;
                }
            }
            // A new connection now and then, beside the standing one.
            if is_known && let Err(error) = exchange(&mut None, SocketAddr::from((server, ALLOWED_PORT))) {
                tally.note(format!("pod{number} is allowed and known, a new connection: {error}"));
            }
        }
        let denied: &[u16] = if role == Role::Allowed { &[DENIED_PORT] } else { &[ALLOWED_PORT, DENIED_PORT] };
        for port in denied {
            match TcpStream::connect_timeout(&SocketAddr::from((server, *port)), TRIED) {
                Ok(_) => tally.note(format!("pod{number} ({role:?}) got through to port {port}")),
                Err(_) => drop(tally.0.refused.fetch_add(1, Ordering::Relaxed)),
            }
        }
        thread::sleep(BETWEEN_TRIES);
    }
}

/// Says something and waits for it to come back.
fn exchange(stream: &mut Option<TcpStream>, to: SocketAddr) -> io::Result<()> {
    let stream = match stream {
        Some(stream) => stream,
        None => stream.insert(TcpStream::connect_timeout(&to, PATIENCE)?),
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"hello")?;
    stream.read_exact(&mut [0; 5])
}

/// What the pods live in: workloads, so that a pod's end leaves no workload behind, and the server's policy.
pub(crate) fn cluster() -> String {
    let workload = |name: &str| {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name, "namespace": "soak"},
            "spec": {"selector": {"matchLabels": {"app": name}}}})
    };
    let from = json!([{"podSelector": {"matchLabels": {"app": "allowed"}}}]);
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "server", "namespace": "soak"},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": from, "ports": [{"port": ALLOWED_PORT}]}]},
    });
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
        "status": {"addresses": [{"type": "InternalIP", "address": GATEWAY.to_string()}]}});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "soak"}});
    let items = [node, namespace, policy, workload("server"), workload("allowed"), workload("denied")];
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

fn object(number: u32, role: Role, address: Ipv4Addr) -> Value {
    let app = format!("{role:?}").to_lowercase();
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": app, "uid": app, "controller": true}]);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod{number}"), "namespace": "soak", "uid": format!("uid{number}"),
            "labels": {"app": app}, "ownerReferences": owner},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "podIPs": [{"ip": address.to_string()}]},
    })
}
