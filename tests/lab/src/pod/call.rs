//! A client's call: resolve, reach, talk, and what came of it.

use super::{
    connection::{Connected, Question},
    resolver::{Over, Resolver},
};
use crate::{
    control::{Answer, CallOrder, Outcome, PodSpec, Stage},
    destination::{Family, Host, Scheme},
    traffic::Connection,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt::Display,
    io,
    net::{IpAddr, SocketAddr},
};
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout},
};

/// What a call sends where the protocol lets it choose.
pub(super) const GREETING: &str = "podfence lab";

/// Who answered, or how far the call came and what the client saw.
pub(super) type Result<T = Option<String>> = std::result::Result<T, (Stage, String)>;

/// Makes the pod's calls.
pub(super) struct Caller {
    resolver: Resolver,
    name: String,
    kept: RefCell<HashMap<(Scheme, SocketAddr), Connected>>,
}

/// What is known of a call when its time is over.
struct Progress {
    stage: Cell<Stage>,
    address: Cell<Option<IpAddr>>,
}

impl Caller {
    pub(super) fn new(spec: &PodSpec) -> io::Result<Self> {
        Ok(Self { resolver: Resolver::new(spec)?, name: spec.name.clone(), kept: RefCell::default() })
    }

    pub(super) async fn call(&self, order: CallOrder) -> Answer {
        let begun = Instant::now();
        let progress = Progress { stage: Cell::new(Stage::Resolve), address: Cell::new(order.address) };
        let result = match timeout(order.within, self.try_call(&order, &progress)).await {
            Ok(result) => result,
            Err(_) => Err((progress.stage.get(), format!("no answer within {:?}", order.within))),
        };
        let outcome = match result {
            Ok(by) => Outcome::Answered { by },
            Err((stage, error)) => Outcome::Failed { stage, error },
        };
        Answer { address: progress.address.get(), outcome, elapsed: begun.elapsed() }
    }

    async fn try_call(&self, order: &CallOrder, progress: &Progress) -> Result {
        let Some(address) = self.address(order).await? else { return Ok(None) };
        progress.address.set(Some(address));
        progress.stage.set(Stage::Reach);
        let place = SocketAddr::new(address, order.to.port.unwrap_or(0));
        match order.to.scheme {
            Scheme::Http | Scheme::Redis | Scheme::Tcp => self.talk(order, place, progress).await,
            Scheme::Udp => udp(place, progress).await,
            Scheme::Icmp => ping(place).await,
            Scheme::Dns | Scheme::DnsTcp => Ok(None),
        }
    }

    /// Where to go; `None` when looking the name up was all.
    async fn address(&self, order: &CallOrder) -> Result<Option<IpAddr>> {
        let name = match (&order.to.host, order.address) {
            (_, Some(ip)) => return Ok(Some(ip)),
            (Host::Address(ip), None) => return Ok(Some(*ip)),
            (Host::EveryPod { .. }, None) => return Err((Stage::Resolve, "no pod was named".to_owned())),
            (Host::Name(name), None) => name,
        };
        let over = if order.to.scheme == Scheme::DnsTcp { Over::Tcp } else { Over::Udp };
        let found = self.resolver.lookup(name, order.family, over, order.within).await;
        let found = found.map_err(|error| (Stage::Resolve, error))?;
        if matches!(order.to.scheme, Scheme::Dns | Scheme::DnsTcp) {
            return Ok(None);
        }
        let chosen = found.get(order.turn % found.len().max(1)).copied();
        chosen.map(Some).ok_or_else(|| (Stage::Resolve, format!("{name} has no {} address", order.family)))
    }

    /// Over a connection that was kept, where the call keeps one and it stands; else over a new one.
    async fn talk(&self, order: &CallOrder, place: SocketAddr, progress: &Progress) -> Result {
        let question = Question { path: &order.to.path, client: &self.name };
        let kept = order.connection == Connection::Kept;
        let earlier = if kept { self.kept.borrow_mut().remove(&(order.to.scheme, place)) } else { None };
        if let Some(mut connected) = earlier.filter(Connected::stands) {
            progress.stage.set(Stage::Talk);
            // One that ended meanwhile is opened again; one that goes silent takes all the call's time.
            if let Ok(by) = connected.talk(&question).await {
                self.kept.borrow_mut().insert((order.to.scheme, place), connected);
                return Ok(by);
            }
        }
        progress.stage.set(Stage::Reach);
        let mut connected = Connected::open(order.to.scheme, place, order.within).await?;
        progress.stage.set(Stage::Talk);
        let by = connected.talk(&question).await?;
        if kept {
            self.kept.borrow_mut().insert((order.to.scheme, place), connected);
        }
        Ok(by)
    }
}

async fn udp(place: SocketAddr, progress: &Progress) -> Result {
    let any: SocketAddr = (unspecified(place.ip()), 0).into();
    let socket = UdpSocket::bind(any).await.at(Stage::Reach)?;
    socket.connect(place).await.at(Stage::Reach)?;
    socket.send(GREETING.as_bytes()).await.at(Stage::Reach)?;
    let mut answer = [0; 64];
    // Without an answer nobody was reached: a datagram has no handshake.
    let length = socket.recv(&mut answer).await.at(Stage::Reach)?;
    progress.stage.set(Stage::Talk);
    right(&answer[..length] == GREETING.as_bytes(), String::from_utf8_lossy(&answer[..length]))?;
    Ok(None)
}

fn unspecified(ip: IpAddr) -> IpAddr {
    match Family::of(ip) {
        Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// An echo request over the kernel's ping socket, which fills in identifier and checksum.
async fn ping(place: SocketAddr) -> Result {
    const ECHO_REQUEST_V4: u8 = 8;
    const ECHO_REQUEST_V6: u8 = 128;
    let (domain, protocol, echo_request) = match Family::of(place.ip()) {
        Family::V4 => (Domain::IPV4, Protocol::ICMPV4, ECHO_REQUEST_V4),
        Family::V6 => (Domain::IPV6, Protocol::ICMPV6, ECHO_REQUEST_V6),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol)).at(Stage::Reach)?;
    socket.set_nonblocking(true).at(Stage::Reach)?;
    let socket = UdpSocket::from_std(socket.into()).at(Stage::Reach)?;
    socket.connect(place).await.at(Stage::Reach)?;
    let mut message = vec![echo_request, 0, 0, 0, 0, 0, 0, 1];
    message.extend_from_slice(GREETING.as_bytes());
    socket.send(&message).await.at(Stage::Reach)?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer).await.at(Stage::Reach)?;
    right(answer[..length].ends_with(GREETING.as_bytes()), "another echo")?;
    Ok(None)
}

pub(super) fn right(condition: bool, seen: impl Display) -> Result<()> {
    if condition { Ok(()) } else { Err((Stage::Talk, format!("not the answer that was asked for: {seen}"))) }
}

/// Marks an error with how far the call had come.
pub(super) trait At<T> {
    fn at(self, stage: Stage) -> Result<T>;
}

impl<T, E: Display> At<T> for std::result::Result<T, E> {
    fn at(self, stage: Stage) -> Result<T> {
        self.map_err(|error| (stage, error.to_string()))
    }
}
