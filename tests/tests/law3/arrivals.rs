//! Real packets between hosts of a lab: every opening is sent from the client's network namespace, and what arrives in the
//! server's is what passed.
//!
//! TCP and UDP go over sockets. SCTP's opening goes over raw ones, as few kernels have its sockets: the hooks see the same
//! packet.

use model::policy::Protocol;
use socket2::{Domain, Socket, Type};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};
use tests::frame;

/// What is to arrive has this long.
const PATIENCE: Duration = Duration::from_secs(15);
/// What is not to arrive has this long after everything else has come: a packet needs far less.
const QUIET: Duration = Duration::from_millis(300);
/// Datagrams get lost while an address is resolved, so they are sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// SCTP's first chunk of an association.
const INIT: u8 = 1;

/// Somebody with a network namespace.
pub(crate) struct Host {
    pub(crate) netns: PathBuf,
    pub(crate) addresses: Vec<IpAddr>,
}

/// The first packet of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Opening {
    pub(crate) protocol: Protocol,
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) port: u16,
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} at {}/{}", self.from, self.to, self.protocol.name(), self.port)
    }
}

/// Sends every opening that is asked for, and says which arrived; waits for those that are expected.
pub(crate) fn arrivals(hosts: &[Host], asked: &BTreeSet<Opening>, expected: &BTreeSet<Opening>) -> BTreeSet<Opening> {
    let ends: Vec<End> = hosts.iter().map(|host| within(&host.netns, || End::of(host, asked))).collect();
    ends.iter().for_each(End::connect);
    let begun = Instant::now();
    let (mut arrived, mut complete, mut due) = (BTreeSet::new(), None, begun);
    loop {
        if Instant::now() >= due {
            due = Instant::now() + AGAIN_AFTER;
            ends.iter().for_each(|end| end.send(asked.difference(&arrived)));
        }
        ends.iter().for_each(|end| end.receive(&mut arrived));
        if complete.is_none() && arrived.is_superset(expected) {
            complete = Some(Instant::now());
        }
        let is_quiet = complete.is_some_and(|since| since.elapsed() > QUIET);
        if arrived.is_superset(asked) || is_quiet || begun.elapsed() > PATIENCE {
            return arrived;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Sockets stay in the namespace they were made in.
fn within<T: Send>(netns: &Path, make: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let made = scope.spawn(|| {
            lab::enter(netns).expect("a namespace of the lab");
            make()
        });
        made.join().expect("sockets of the lab")
    })
}

/// A host's sockets, none of which blocks.
struct End {
    listeners: Vec<TcpListener>,
    /// Connections to be opened, and where to.
    connections: Vec<(Socket, SocketAddr)>,
    servers: Vec<UdpSocket>,
    /// By own address, for every port.
    clients: BTreeMap<IpAddr, UdpSocket>,
    /// SCTP both ways, by own address: raw, though of the type of datagrams.
    raw: BTreeMap<IpAddr, UdpSocket>,
}

impl End {
    fn of(host: &Host, asked: &BTreeSet<Opening>) -> Self {
        let served = |protocol| {
            let here = asked.iter().filter(move |opening| opening.protocol == protocol);
            let here = here.filter(|opening| host.addresses.contains(&opening.to));
            here.map(|opening| SocketAddr::new(opening.to, opening.port)).collect::<BTreeSet<_>>()
        };
        let of_this = |opening: &&Opening| opening.protocol == Protocol::Tcp && host.addresses.contains(&opening.from);
        let connection = |opening: &Opening| {
            let socket = bound(SocketAddr::new(opening.from, 0), Type::STREAM, None);
            (socket, SocketAddr::new(opening.to, opening.port))
        };
        let each = |make: fn(SocketAddr) -> Socket| {
            let all = host.addresses.iter();
            all.map(|ip| (*ip, make(SocketAddr::new(*ip, 0)).into())).collect::<BTreeMap<_, UdpSocket>>()
        };
        Self {
            listeners: served(Protocol::Tcp).into_iter().map(listener).collect(),
            connections: asked.iter().filter(of_this).map(connection).collect(),
            servers: served(Protocol::Udp).into_iter().map(|place| datagrams(place).into()).collect(),
            clients: each(datagrams),
            raw: each(raw_sctp),
        }
    }

    /// Opens its connections, once everybody listens. The kernel goes on by itself.
    fn connect(&self) {
        for (socket, place) in &self.connections {
            // It says that it is under way, or why not; then it does not arrive.
            let _ = socket.connect(&(*place).into());
        }
    }

    /// Sends those openings that are this host's and that no socket repeats. What cannot be sent does not arrive.
    fn send<'o>(&self, openings: impl Iterator<Item = &'o Opening>) {
        for Opening { protocol, from, to, port } in openings {
            let (Some(client), Some(raw)) = (self.clients.get(from), self.raw.get(from)) else { continue };
            let _ = match protocol {
                Protocol::Tcp => continue,
                Protocol::Udp => client.send_to(b"podfence", (*to, *port)),
                Protocol::Sctp => raw.send_to(&frame::sctp(port_of(client), *port, INIT), (*to, 0)),
            };
        }
    }

    fn receive(&self, arrived: &mut BTreeSet<Opening>) {
        let mut see = |protocol, from: SocketAddr, to, port| {
            arrived.insert(Opening { protocol, from: from.ip(), to, port });
        };
        for listener in &self.listeners {
            let place = listener.local_addr().expect("a bound socket");
            while let Ok((_, from)) = listener.accept() {
                see(Protocol::Tcp, from, place.ip(), place.port());
            }
        }
        for server in &self.servers {
            let place = server.local_addr().expect("a bound socket");
            while let Ok((_, from)) = server.recv_from(&mut [0; 16]) {
                see(Protocol::Udp, from, place.ip(), place.port());
            }
        }
        for (own, raw) in &self.raw {
            // IPv4's header comes with the packet, IPv6's does not.
            let header = if own.is_ipv4() { 20 } else { 0 };
            let mut packet = [0; 128];
            while let Ok((length, from)) = raw.recv_from(&mut packet) {
                if let Some([_, _, high, low, ..]) = packet[..length].get(header..) {
                    see(Protocol::Sctp, from, *own, u16::from_be_bytes([*high, *low]));
                }
            }
        }
    }
}

fn bound(place: SocketAddr, kind: Type, protocol: Option<socket2::Protocol>) -> Socket {
    let socket = Socket::new(Domain::for_address(place), kind, protocol).expect("a socket");
    if place.is_ipv6() && kind != Type::RAW {
        socket.set_only_v6(true).expect("an IPv6 socket");
    }
    // What an earlier round left of a connection keeps no port.
    socket.set_reuse_address(kind == Type::STREAM).expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    socket.bind(&place.into()).expect("an address of the host, and a free port");
    socket
}

fn datagrams(place: SocketAddr) -> Socket {
    bound(place, Type::DGRAM, None)
}

fn raw_sctp(place: SocketAddr) -> Socket {
    bound(place, Type::RAW, Some(i32::from(flow::SCTP).into()))
}

fn listener(place: SocketAddr) -> TcpListener {
    let socket = bound(place, Type::STREAM, None);
    socket.listen(128).expect("a free port");
    socket.into()
}

fn port_of(socket: &UdpSocket) -> u16 {
    socket.local_addr().expect("a bound socket").port()
}
