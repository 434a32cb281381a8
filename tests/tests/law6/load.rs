//! A pod behind a veth, and packets that rush past it from both ends: raw sockets, each packet from another port.
//!
//! Both namespaces belong to threads and go with them.

use crate::policies::{GATEWAY, PEERS, POD, PORTS};
use flow::{Address, TCP, UDP};
use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    process::Command,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tests::frame::{Frame, transport};

/// IPPROTO_RAW: the packet is given with its IP header.
const WITH_HEADER: i32 = 255;
/// Ephemeral ports that packets come from.
const FIRST_PORT: u16 = 10_000;

/// Moves this thread into a network namespace of its own, which is the node's.
pub(crate) fn own_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    ip("link set lo up");
    // What is not for the node itself ends there.
    for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        fs::write(format!("/proc/sys/net/{family}"), "0").expect("the namespace's own setting");
    }
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2 is installed");
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// The pod: a thread in a namespace of its own, at the far end of a veth.
pub(crate) struct Pod {
    sockets: [Arc<Socket>; 2],
    leave: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Pod {
    pub(crate) fn new() -> Self {
        let (tell, told) = channel();
        let (ready, made) = channel();
        let (opened, sockets) = channel();
        let (leave, left) = channel();
        let thread = thread::spawn(move || inside(&tell, &made, &opened, &left));
        let thread_id: i32 = told.recv().expect("the pod's thread");
        ip(&format!("link add pod type veth peer name eth0 netns {thread_id}"));
        ip("link set pod up");
        for (gateway, (pod, bits)) in GATEWAY.iter().zip(POD.iter().zip([32, 128])) {
            ip(&format!("address add {gateway}/{bits} dev pod {}", if bits == 128 { "nodad" } else { "" }));
            ip(&format!("route add {pod}/{bits} dev pod"));
        }
        ready.send(()).expect("the pod's thread");
        Self { sockets: sockets.recv().expect("raw sockets"), leave, thread: Some(thread) }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.leave.send(());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn inside(tell: &Sender<i32>, made: &Receiver<()>, opened: &Sender<[Arc<Socket>; 2]>, left: &Receiver<()>) {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    tell.send(nix::unistd::gettid().as_raw()).expect("the test waits");
    made.recv().expect("the veth is there");
    ip("link set lo up");
    ip("link set eth0 up");
    for (gateway, (pod, bits)) in GATEWAY.iter().zip(POD.iter().zip([32, 128])) {
        ip(&format!("address add {pod}/{bits} dev eth0 {}", if bits == 128 { "nodad" } else { "" }));
        ip(&format!("route add {gateway}/{bits} dev eth0"));
        ip(&format!("route add default via {gateway} dev eth0"));
    }
    opened.send(sockets()).expect("the test waits");
    let _ = left.recv();
}

/// Raw sockets of this thread's namespace, one a family.
fn sockets() -> [Arc<Socket>; 2] {
    [Domain::IPV4, Domain::IPV6].map(|domain| {
        Arc::new(Socket::new(domain, Type::RAW, Some(Protocol::from(WITH_HEADER))).expect("a raw socket"))
    })
}

/// Both senders, until they are stopped.
pub(crate) struct Load {
    told: Arc<Told>,
    senders: Vec<JoinHandle<()>>,
}

/// What the senders are told: to end, and to hold still while somebody holds the lock for writing.
#[derive(Default)]
struct Told {
    stop: AtomicBool,
    pause: RwLock<()>,
}

impl Load {
    pub(crate) fn start(pod: &Pod) -> Self {
        let told = Arc::new(Told::default());
        let ends = [(sockets(), To::Pod), (pod.sockets.clone(), To::Peers)];
        let senders = ends.map(|(sockets, to)| {
            let told = told.clone();
            thread::spawn(move || send(&sockets, to, &told))
        });
        Self { told, senders: senders.into() }
    }

    pub(crate) fn wait_until_it_flows(&self, flows: impl Fn() -> bool) {
        let began = Instant::now();
        while !flows() {
            assert!(began.elapsed() < Duration::from_secs(10), "no packet arrived at the hook");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Does something while no packet is sent: a table that grows cannot be read to its end.
    pub(crate) fn pause(&self, work: impl FnOnce()) {
        let _held = self.told.pause.write().expect("no sender failed");
        work();
    }

    pub(crate) fn stop(self) {
        self.told.stop.store(true, Ordering::Relaxed);
        for sender in self.senders {
            sender.join().expect("a sender");
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Pod,
    Peers,
}

/// One opening after another: every peer, port, protocol and family, then the same from the next port.
fn send(sockets: &[Arc<Socket>; 2], to: To, told: &Told) {
    for client_port in (FIRST_PORT..=u16::MAX).cycle() {
        for peer in PEERS {
            for (family, socket) in sockets.iter().enumerate() {
                let [peer, pod] = [peer[family], POD[family]].map(|text| text.parse::<IpAddr>().expect("an address"));
                let (source, destination) = if to == To::Pod { (peer, pod) } else { (pod, peer) };
                let target = SocketAddr::new(destination, 0).into();
                let _moving = told.pause.read().expect("no look failed");
                for (port, protocol) in PORTS.iter().flat_map(|port| [(*port, TCP), (*port, UDP)]) {
                    if told.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let payload = transport(protocol, client_port, port, flow::tcp::SYN, 0);
                    let packet =
                        Frame::new(Address::from(source), Address::from(destination), protocol, payload).internet();
                    // What a full queue or a missing neighbour refuses was never judged.
                    let _ = socket.send_to(&packet, &target);
                }
            }
        }
    }
}
