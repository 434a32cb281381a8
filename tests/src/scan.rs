//! A scan of TCP ports from inside a pod: an opening to each, and what came back.
//!
//! Always holds: a port counts as open or closed only by an answer to that very opening; what did not answer is asked
//! twice. Openings are sent by hand (RFC 9293, 3.1) from one port, so that a scan needs no descriptor a port, and the
//! pod's kernel resets what opens.

use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// The port that openings come from, of those that no client in the lab draws.
const FROM: u16 = 1_000;
/// Openings before answers are read: fewer than a queue of the kernel holds.
const AT_ONCE: usize = 100;
/// How long the last answer may take.
const PATIENCE: Duration = Duration::from_millis(400);

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const SYN_ACK: u8 = 0x12;

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// A SYN with an ACK.
    Open,
    /// A reset: the opening arrived, and nobody serves there.
    Closed,
    /// Nothing.
    Silent,
}

/// Opens each target from a network namespace that has these addresses, over the families it has.
///
/// # Errors
/// Where the namespace cannot be entered, or has no raw socket to give.
pub fn scan(netns: &Path, own: &[IpAddr], targets: &[SocketAddr]) -> io::Result<BTreeMap<SocketAddr, Answer>> {
    let scanned = thread::scope(|scope| {
        // A thread of its own, as the namespace is the thread's.
        let scanning = scope.spawn(|| {
            lab::enter(netns).map_err(io::Error::other)?;
            let mut all = BTreeMap::new();
            for own in own {
                let of_family = targets.iter().filter(|target| target.is_ipv4() == own.is_ipv4());
                let mut scan = Scan::of(*own, of_family.copied())?;
                scan.open_all()?;
                scan.open_all()?;
                all.append(&mut scan.answers);
            }
            Ok::<_, io::Error>(all)
        });
        scanning.join()
    });
    scanned.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

struct Scan {
    own: IpAddr,
    socket: UdpSocket,
    answers: BTreeMap<SocketAddr, Answer>,
}

impl Scan {
    fn of(own: IpAddr, targets: impl Iterator<Item = SocketAddr>) -> io::Result<Self> {
        let domain = if own.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::TCP))?;
        socket.set_recv_buffer_size(4 << 20)?;
        socket.set_nonblocking(true)?;
        // A raw socket sends and receives as one of datagrams does.
        let socket = UdpSocket::from(OwnedFd::from(socket));
        Ok(Self { own, socket, answers: targets.map(|target| (target, Answer::Silent)).collect() })
    }

    /// Opens what has not answered, and waits for the answers.
    fn open_all(&mut self) -> io::Result<()> {
        let silent = self.answers.iter().filter(|(_, answer)| **answer == Answer::Silent);
        let silent: Vec<SocketAddr> = silent.map(|(target, _)| *target).collect();
        for some in silent.chunks(AT_ONCE) {
            for target in some {
                self.socket.send_to(&opening(self.own, *target), (target.ip(), 0))?;
            }
            self.read()?;
        }
        let deadline = Instant::now() + PATIENCE;
        while !silent.is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
            self.read()?;
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        let mut packet = [0; 256];
        loop {
            let (length, from) = match self.socket.recv_from(&mut packet) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                received => received?,
            };
            // IPv4 comes with its header, IPv6 without.
            let header = if from.is_ipv4() { usize::from(packet[0] & 15) * 4 } else { 0 };
            let Some(tcp) = packet[..length].get(header..header + 14) else { continue };
            let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
            if port(2) != FROM {
                continue;
            }
            if let Some(answer) = self.answers.get_mut(&SocketAddr::new(from.ip(), port(0))) {
                match tcp[13] & (SYN_ACK | RST) {
                    SYN_ACK => *answer = Answer::Open,
                    flags if flags & RST != 0 && *answer == Answer::Silent => *answer = Answer::Closed,
                    _ => {}
                }
            }
        }
    }
}

/// A SYN without options, with its checksum (RFC 9293, 3.1; over IPv6: RFC 8200, 8.1).
fn opening(from: IpAddr, to: SocketAddr) -> [u8; 20] {
    let mut header = [0; 20];
    header[..2].copy_from_slice(&FROM.to_be_bytes());
    header[2..4].copy_from_slice(&to.port().to_be_bytes());
    header[4..8].copy_from_slice(&0x5eed_0000_u32.to_be_bytes());
    header[12] = 5 << 4;
    header[13] = SYN;
    header[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    // An IPv4 address written as an IPv6 one adds words that come to the same on both sides: none for ::a.b.c.d.
    let wide = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => Ipv6Addr::from(u128::from(ip.to_bits())),
        IpAddr::V6(ip) => ip,
    };
    let words =
        |bytes: &[u8]| bytes.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u32>();
    let mut sum = words(&wide(from).octets()) + words(&wide(to.ip()).octets()) + words(&header) + 20 + 6;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    header[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    header
}
