//! One class tried once: an agent of its own on the range, and what its shots came to.
//!
//! Always holds: a packet counts as stopped only if it was seen to leave, was not seen to arrive, and the program
//! counted it as dropped for a reason that the class names. Anything else is an error and no pass.

use crate::{
    class::Ends,
    cluster,
    error::{Error, Stop},
    frame::{self, Frame},
    post::{Tag, inside},
    range::{Range, Who},
};
use agent::{Agent, Update};
use flow::{Address, ICMP, ICMPV6, TCP, UDP};
use flowlog::Writer;
use lab::Family;
use model::{
    cluster::{Cluster, Mode},
    policy::{PolicySet, Rule},
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;
use verdict::Reason;

/// What a shot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Must arrive: shows that the attack's packets can.
    Control,
    /// Must not arrive.
    Attack,
    /// Must arrive: what the class would cut.
    Kept,
}

/// Packets that were sent, and what became of them.
#[derive(Clone, Debug, Serialize)]
pub struct Shot {
    /// What it is for.
    pub purpose: Purpose,
    /// What was sent, in words.
    pub what: String,
    /// Packets sent.
    pub sent: u64,
    /// Packets seen to leave, before anything judged them.
    pub left: u64,
    /// Packets that the far end counted.
    pub arrived: u64,
    /// Packets that the program dropped meanwhile, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Of those, packets dropped for a reason that this shot names.
    pub stopped: u64,
    /// How many of those show that none passed: fewer than were sent where the node makes one of several.
    pub due: u64,
}

/// Frames from one party to another.
pub(crate) struct Volley {
    from: Who,
    to: Who,
    frames: Vec<Shape>,
    times: u64,
    station: Option<[u8; 6]>,
    due: Option<u64>,
}

/// A frame to be finished by the sender, or one that is whole but for its tag.
pub(crate) enum Shape {
    Frame(Frame),
    Whole(Vec<u8>),
}

impl From<Frame> for Shape {
    fn from(frame: Frame) -> Self {
        Self::Frame(frame)
    }
}

impl From<Vec<u8>> for Shape {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Whole(bytes)
    }
}

/// Each volley is sent so often, unless it says otherwise.
const TIMES: u64 = 3;

impl Volley {
    pub(crate) fn new<S: Into<Shape>>(from: Who, to: Who, frames: impl IntoIterator<Item = S>) -> Self {
        Self { from, to, frames: frames.into_iter().map(Into::into).collect(), times: TIMES, station: None, due: None }
    }

    pub(crate) fn once(self) -> Self {
        Self { times: 1, ..self }
    }

    /// The node puts the frames together: one of them is judged, and the rest goes with it.
    pub(crate) fn put_together(self) -> Self {
        Self { due: Some(1), ..self }
    }

    /// Addressed to this station instead of the next hop.
    pub(crate) fn at_station(self, station: [u8; 6]) -> Self {
        Self { station: Some(station), ..self }
    }
}

/// What policy says no with.
pub(crate) const BY_POLICY: &[Reason] = &[
    Reason::NoRule,
    Reason::NoRulePortless,
    Reason::NoRuleMasqueraded,
    Reason::NotAdopted,
    Reason::Revoked,
    Reason::StandingDenial,
];

/// A time that a packet needs on a busy machine, when it is to arrive.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a packet is waited for that is to be dropped and was not counted yet.
const DROP_PATIENCE: Duration = Duration::from_millis(1500);
/// What may still be on its way when everything is counted.
const SETTLE: Duration = Duration::from_millis(20);
const LOOK: Duration = Duration::from_millis(2);

/// A class's view of the range.
pub(crate) struct Trial<'r> {
    pub(crate) range: &'r Range,
    pub(crate) family: Family,
    pub(crate) ends: Ends,
    /// How the agent's program is loaded; to be set before the first policies.
    pub(crate) datapath: datapath::Options,
    /// How often the agent reads events; likewise.
    pub(crate) read_every: Duration,
    /// How names are shown to people, where this run shows some.
    pub(crate) shown: Option<fn(&str) -> String>,
    /// Whether the range is no longer as it was made.
    pub(crate) touched: bool,
    run: [u8; 8],
    stop: &'r AtomicBool,
    agent: Option<(Agent, TempDir)>,
    pub(crate) shots: Vec<Shot>,
    serving: Arc<AtomicBool>,
    servers: Vec<JoinHandle<()>>,
}

static SHOTS: AtomicU32 = AtomicU32::new(1);
/// Entries of the connection table: enough for the range, little memory on the node.
const CONNECTIONS: u32 = 16_384;

impl<'r> Trial<'r> {
    pub(crate) fn new(range: &'r Range, run: [u8; 8], family: Family, ends: Ends, stop: &'r AtomicBool) -> Self {
        Self {
            range,
            family,
            ends,
            datapath: datapath::Options { connections: Some(CONNECTIONS), ..datapath::Options::default() },
            read_every: Duration::from_millis(10),
            shown: None,
            touched: false,
            run,
            stop,
            agent: None,
            shots: Vec::new(),
            serving: Arc::new(AtomicBool::new(true)),
            servers: Vec::new(),
        }
    }

    // --- the agent --------------------------------------------------------------------------------------------

    /// The agent on the range; it starts with the first call.
    pub(crate) fn agent(&mut self) -> Result<&Agent, Error> {
        self.go_on()?;
        if self.agent.is_none() {
            let log = tempfile::tempdir().map_err(Error::system("no temporary folder can be made"))?;
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let now = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
            let writer = Writer::open(log.path(), "selftest", cluster::NODE, flowlog::Options::default(), now)
                .map_err(|why| Error::Log(why.into()))?;
            let options = agent::Options {
                netns: Some(self.range.path(Who::Node)),
                datapath: self.datapath.clone(),
                read_every: self.read_every,
                sweep_every: Duration::from_millis(100),
                // Policies come and go from trial to trial.
                settles_after: Duration::ZERO,
                ..agent::Options::of_node(cluster::NODE)
            };
            self.agent = Some((Agent::start(options, writer)?, log));
        }
        match &self.agent {
            Some((agent, _)) => Ok(agent),
            None => Err(Error::range("the agent of the range is gone; run it again")),
        }
    }

    /// Brings a cluster into force; an error where a pod of it is not covered.
    pub(crate) fn apply(&mut self, cluster: &Cluster) -> Result<Update, Stop> {
        let update = self.agent()?.update(cluster)?;
        match update.not_covered.first() {
            Some(not) => Err(Error::range(format!("pod {} is not covered: {}", not.pod, not.why)).into()),
            None => Ok(update),
        }
    }

    /// Takes the agent away: with a place for pins, what it enforces stays.
    pub(crate) fn agent_leaves(&mut self) -> Result<(), Stop> {
        if let Some((agent, _log)) = self.agent.take() {
            agent.leave()?;
        }
        Ok(())
    }

    /// Ends the agent and takes what it enforces away.
    pub(crate) fn agent_stops(&mut self) -> Result<(), Stop> {
        if let Some((agent, _log)) = self.agent.take() {
            agent.stop()?;
        }
        Ok(())
    }

    /// Brings policies for the three pods into force.
    pub(crate) fn enforce(&mut self, policies: PolicySet) -> Result<(), Stop> {
        self.apply(&Cluster { policies, ..cluster::cluster(Mode::Enforce) }).map(drop)
    }

    /// What [`Trial::enforce`] would deny passes.
    pub(crate) fn learn(&mut self, policies: PolicySet) -> Result<(), Stop> {
        self.apply(&Cluster { policies, ..cluster::cluster(Mode::Learn) }).map(drop)
    }

    /// The server takes from, and the attacker reaches, what `rules` and the trial's ends say; the client stays free.
    pub(crate) fn gates(&self, server: Vec<Rule>, attacker: Vec<Rule>) -> PolicySet {
        let server = cluster::ingress(Who::Server, server);
        let attacker = cluster::egress(Who::Attacker, attacker);
        cluster::set(match self.ends {
            Ends::Server => vec![server],
            Ends::Client => vec![attacker],
            Ends::Both => vec![server, attacker],
        })
    }

    /// The attacker does not reach the server: at the server's end, at its own, or at both.
    pub(crate) fn closed(&self) -> PolicySet {
        let client = || vec![cluster::anything(vec![cluster::one(Who::Client)])];
        self.gates(client(), client())
    }

    /// The same policies, with a rule more that lets the attacker reach the server with everything.
    pub(crate) fn open(&self) -> PolicySet {
        let two = |a, b| vec![cluster::anything(vec![cluster::one(a), cluster::one(b)])];
        self.gates(two(Who::Client, Who::Attacker), two(Who::Client, Who::Server))
    }

    /// The attacker reaches the server at one port.
    pub(crate) fn open_at(&self, port: u16) -> PolicySet {
        let rule = |who| vec![cluster::at(vec![cluster::one(who)], port, port)];
        self.gates(rule(Who::Attacker), rule(Who::Server))
    }

    // --- frames -----------------------------------------------------------------------------------------------

    pub(crate) fn address(&self, who: Who) -> Address {
        Address::from(who.address(self.family))
    }

    pub(crate) fn frame(&self, from: Who, to: Who, protocol: u8, payload: Vec<u8>) -> Frame {
        Frame::new(self.address(from), self.address(to), protocol, payload)
    }

    pub(crate) fn udp(&self, from: Who, to: Who, source_port: u16, port: u16) -> Frame {
        self.frame(from, to, UDP, frame::udp(source_port, port, 32))
    }

    pub(crate) fn tcp(&self, from: Who, to: Who, source_port: u16, port: u16, flags: u8) -> Frame {
        self.frame(from, to, TCP, frame::tcp(source_port, port, flags, 32))
    }

    /// An echo request or reply.
    pub(crate) fn echo(&self, from: Who, to: Who, id: u16, request: Echo) -> Frame {
        let (protocol, kind) = match (self.family, request) {
            (Family::V4, Echo::Request) => (ICMP, 8),
            (Family::V4, Echo::Reply) => (ICMP, 0),
            (Family::V6, Echo::Request) => (ICMPV6, 128),
            (Family::V6, Echo::Reply) => (ICMPV6, 129),
        };
        let [high, low] = id.to_be_bytes();
        self.frame(from, to, protocol, frame::icmp(kind, 0, [high, low, 0, 1], &[0; 32]))
    }

    // --- shots ------------------------------------------------------------------------------------------------

    /// The same packets as an attack's, where they may pass.
    pub(crate) fn control(&mut self, what: &str, volley: Volley) -> Result<(), Stop> {
        self.volley(Purpose::Control, what, &[], volley)
    }

    /// What must not arrive, and the reasons it may be dropped for.
    pub(crate) fn attack(&mut self, what: &str, by: &[Reason], volley: Volley) -> Result<(), Stop> {
        self.volley(Purpose::Attack, what, by, volley)
    }

    /// What must go on.
    pub(crate) fn kept(&mut self, what: &str, volley: Volley) -> Result<(), Stop> {
        self.volley(Purpose::Kept, what, &[], volley)
    }

    fn volley(&mut self, purpose: Purpose, what: &str, by: &[Reason], volley: Volley) -> Result<(), Stop> {
        let sent = volley.frames.len() as u64 * volley.times;
        let (from, to) = (volley.from, volley.to);
        let due = volley.due.unwrap_or(sent);
        self.shoot(purpose, what, by, (from, to), [sent, due], |trial, tag| trial.send(&volley, tag))
    }

    /// Packets that prepare a shot, and are no shot themselves; returns once they left.
    pub(crate) fn prepare(&mut self, volley: Volley) -> Result<(), Stop> {
        let tag = self.tag();
        let volley = volley.once();
        self.send(&volley, tag)?;
        self.until(PATIENCE, |trial| Ok(trial.range.left(volley.from, tag.shot)? >= volley.frames.len() as u64))?;
        thread::sleep(SETTLE);
        Ok(())
    }

    /// Many packets that are no shot: as fast as they go.
    pub(crate) fn flood(&mut self, from: Who, to: Who, frames: impl Iterator<Item = Frame>) -> Result<(), Stop> {
        let (sender, station) = (self.range.sender(from)?, self.range.station(from, to)?);
        for (index, frame) in frames.enumerate() {
            sender.send(&frame.sealed(sender.mac(), station))?;
            if index % 256 == 0 {
                self.go_on()?;
            }
        }
        thread::sleep(SETTLE);
        Ok(())
    }

    /// What a real socket sends in one go: it is given the bytes to say.
    pub(crate) fn say(
        &mut self,
        purpose: Purpose,
        what: &str,
        by: &[Reason],
        (from, to): (Who, Who),
        say: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> Result<(), Stop> {
        self.shoot(purpose, what, by, (from, to), [1, 1], |_, tag| {
            Ok(say(&tag.bytes()).map_err(Error::system("a socket of the range cannot send"))?)
        })
    }

    /// Something of the range that is no packet: whether it was seen.
    pub(crate) fn look(&mut self, purpose: Purpose, what: &str, seen: Seen) {
        let arrived = u64::from(seen == Seen::There);
        self.shots.push(Shot {
            purpose,
            what: what.to_owned(),
            sent: 1,
            left: 1,
            arrived,
            dropped: BTreeMap::new(),
            stopped: 1 - arrived,
            due: 1,
        });
    }

    pub(crate) fn shoot(
        &mut self,
        purpose: Purpose,
        what: &str,
        by: &[Reason],
        (from, to): (Who, Who),
        [sent, due]: [u64; 2],
        send: impl FnOnce(&mut Self, Tag) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        self.go_on()?;
        let tag = self.tag();
        let before = self.dropped()?;
        send(self, tag)?;
        // What the node itself makes leaves nowhere: only the far end counts it.
        let left = |trial: &Self| if from == Who::Node { Ok(sent) } else { trial.range.left(from, tag.shot) };
        self.until(PATIENCE, |trial| Ok(left(trial)? >= sent))?;
        match purpose {
            Purpose::Attack => self.until(DROP_PATIENCE, |trial| {
                let stopped = stopped(&since(&before, &trial.dropped()?), by);
                Ok(stopped >= due || trial.range.arrived(to, tag.shot)? > 0)
            })?,
            _ => self.until(PATIENCE, |trial| Ok(trial.range.arrived(to, tag.shot)? >= sent))?,
        }
        thread::sleep(SETTLE);
        let dropped = since(&before, &self.dropped()?);
        self.shots.push(Shot {
            purpose,
            what: what.to_owned(),
            sent,
            left: left(self)?,
            arrived: self.range.arrived(to, tag.shot)?,
            stopped: stopped(&dropped, by),
            due,
            dropped,
        });
        Ok(())
    }

    pub(crate) fn send(&mut self, volley: &Volley, tag: Tag) -> Result<(), Stop> {
        let (sender, hop) = (self.range.sender(volley.from)?, self.range.station(volley.from, volley.to)?);
        let station = volley.station.unwrap_or(hop);
        for shape in (0..volley.times).flat_map(|_| &volley.frames) {
            let bytes = match shape {
                Shape::Frame(frame) => {
                    let mut frame = frame.clone();
                    put(&mut frame.payload, tag);
                    frame.sealed(sender.mac(), station)
                }
                Shape::Whole(bytes) => {
                    let mut bytes = bytes.clone();
                    put(&mut bytes, tag);
                    bytes
                }
            };
            sender.send(&bytes)?;
        }
        Ok(())
    }

    fn tag(&self) -> Tag {
        Tag { run: self.run, shot: SHOTS.fetch_add(1, Ordering::Relaxed) }
    }

    /// Packets dropped so far, by reason.
    pub(crate) fn dropped(&mut self) -> Result<BTreeMap<&'static str, u64>, Error> {
        let mut all = BTreeMap::new();
        for ((reason, _, dropped), counter) in &self.agent()?.status()?.counters.verdicts {
            if *dropped {
                *all.entry(reason.name()).or_default() += counter.packets;
            }
        }
        Ok(all)
    }

    /// Packets that had a verdict of this reason so far, dropped or not.
    pub(crate) fn counted(&mut self, of: Reason) -> Result<u64, Error> {
        let verdicts = self.agent()?.status()?.counters.verdicts;
        Ok(verdicts.iter().filter(|((reason, ..), _)| *reason == of).map(|(_, counter)| counter.packets).sum())
    }

    fn until(
        &mut self,
        patience: Duration,
        mut done: impl FnMut(&mut Self) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + patience;
        while !done(self)? && Instant::now() < deadline {
            self.go_on()?;
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn go_on(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    // --- real sockets -----------------------------------------------------------------------------------------

    /// A listener that takes what it gets and answers each piece, over TCP and UDP, until the trial ends.
    pub(crate) fn serve(&mut self, who: Who, port: u16) -> Result<(), Stop> {
        let at = SocketAddr::new(who.address(self.family), port);
        let (tcp, udp) = inside(&self.range.path(who), || {
            let tcp = TcpListener::bind(at).and_then(|tcp| tcp.set_nonblocking(true).map(|()| tcp));
            let udp = UdpSocket::bind(at).and_then(|udp| udp.set_read_timeout(Some(SETTLE)).map(|()| udp));
            tcp.and_then(|tcp| Ok((tcp, udp?))).map_err(Error::system(format!("nothing can listen at {at}")))
        })?;
        let (of_tcp, of_udp) = (Arc::clone(&self.serving), Arc::clone(&self.serving));
        self.servers.push(thread::spawn(move || answer_tcp(&tcp, &of_tcp)));
        self.servers.push(thread::spawn(move || answer_udp(&udp, &of_udp)));
        Ok(())
    }

    /// A connection to an address and port, if it comes about within this time.
    pub(crate) fn connect(&self, from: Who, to: SocketAddr, within: Duration) -> Result<io::Result<TcpStream>, Stop> {
        let stream = inside(&self.range.path(from), || Ok(TcpStream::connect_timeout(&to, within)))?;
        if let Ok(stream) = &stream {
            stream.set_nodelay(true).map_err(Error::system("a connection cannot be set"))?;
        }
        Ok(stream)
    }

    /// A UDP socket at somebody's own address.
    pub(crate) fn socket(&self, of: Who, port: u16) -> Result<UdpSocket, Stop> {
        let at = SocketAddr::new(of.address(self.family), port);
        Ok(inside(&self.range.path(of), || UdpSocket::bind(at).map_err(Error::system(format!("{at} cannot be used"))))?)
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.serving.store(false, Ordering::Relaxed);
        self.servers.drain(..).for_each(|server| drop(server.join()));
    }
}

/// Which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    Request,
    Reply,
}

/// Whether something that is no packet was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    There,
    NotThere,
}

fn put(payload: &mut [u8], tag: Tag) {
    if let Some(at) = payload.len().checked_sub(Tag::LENGTH) {
        payload[at..].copy_from_slice(&tag.bytes());
    }
}

fn since(before: &BTreeMap<&'static str, u64>, now: &BTreeMap<&'static str, u64>) -> BTreeMap<&'static str, u64> {
    let more = now
        .iter()
        .map(|(reason, packets)| (*reason, packets.saturating_sub(before.get(reason).copied().unwrap_or_default())));
    more.filter(|(_, packets)| *packets > 0).collect()
}

fn stopped(dropped: &BTreeMap<&'static str, u64>, by: &[Reason]) -> u64 {
    by.iter().filter_map(|reason| dropped.get(reason.name())).sum()
}

fn answer_tcp(listener: &TcpListener, serving: &AtomicBool) {
    let mut open: Vec<TcpStream> = Vec::new();
    let mut buffer = [0; 2048];
    while serving.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept()
            && stream.set_nonblocking(true).is_ok()
        {
            open.push(stream);
        }
        open.retain_mut(|stream| match stream.read(&mut buffer) {
            Ok(0) => false,
            // A word back, not the same bytes: they carry the tag of the other direction.
            Ok(_) => stream.write_all(b"heard").is_ok(),
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        });
        thread::sleep(LOOK);
    }
}

fn answer_udp(socket: &UdpSocket, serving: &AtomicBool) {
    let mut buffer = [0; 2048];
    while serving.load(Ordering::Relaxed) {
        if let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(b"heard", from);
        }
    }
}
