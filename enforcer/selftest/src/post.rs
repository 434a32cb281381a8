//! A place on the range that sends frames byte by byte, and counts those that come with this run's tag.
//!
//! Always holds: a packet is counted by the far end's own socket, not by who sent it and not by who judged it.

use crate::error::Error;
use nix::{
    ifaddrs::getifaddrs,
    sys::{
        socket::{LinkAddr, MsgFlags, recvfrom, sendto, setsockopt, sockopt},
        time::TimeVal,
    },
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// What every frame of one shot carries in its last bytes: the run, then the shot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) run: [u8; 8],
    pub(crate) shot: u32,
}

impl Tag {
    pub(crate) const LENGTH: usize = 12;

    pub(crate) fn bytes(self) -> [u8; Self::LENGTH] {
        let mut out = [0; Self::LENGTH];
        out[..8].copy_from_slice(&self.run);
        out[8..].copy_from_slice(&self.shot.to_be_bytes());
        out
    }
}

/// Runs on a thread of its own in a network namespace.
pub(crate) fn inside<T: Send>(namespace: &Path, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            lab::enter(namespace)?;
            work()
        });
        worker.join().unwrap_or_else(|_| Err(Error::range("a thread of the range ended early; run it again")))
    })
}

/// The interfaces of a namespace, by name.
pub(crate) fn interfaces(namespace: &Path) -> Result<BTreeMap<String, LinkAddr>, Error> {
    inside(namespace, || {
        let all = getifaddrs().map_err(Error::system("interfaces cannot be listed"))?;
        Ok(all.filter_map(|one| Some((one.interface_name, *one.address?.as_link_addr()?))).collect())
    })
}

/// Which bytes stand in an Ethernet header for an interface.
pub(crate) fn mac(link: &LinkAddr) -> [u8; 6] {
    link.addr().unwrap_or_default()
}

/// Sends frames out of one interface.
#[derive(Debug)]
pub(crate) struct Sender {
    socket: Socket,
    link: LinkAddr,
}

impl Sender {
    pub(crate) fn new(namespace: &Path, link: LinkAddr) -> Result<Self, Error> {
        let socket = inside(namespace, || packet_socket(0))?;
        Ok(Self { socket, link })
    }

    pub(crate) fn mac(&self) -> [u8; 6] {
        mac(&self.link)
    }

    pub(crate) fn send(&self, frame: &[u8]) -> Result<(), Error> {
        sendto(self.socket.as_raw_fd(), frame, &self.link, MsgFlags::empty())
            .map(drop)
            .map_err(Error::system(format!("a frame of {} bytes cannot be sent", frame.len())))
    }
}

fn packet_socket(protocol: u16) -> Result<Socket, Error> {
    let protocol = Protocol::from(i32::from(protocol.to_be()));
    Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).map_err(Error::system("no packet socket can be opened"))
}

/// How a tagged frame passed a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Passed {
    shot: u32,
    ifindex: usize,
    way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Way {
    In,
    Out,
}

type Counts = Arc<Mutex<HashMap<Passed, u64>>>;

/// Counts the tagged frames that pass the interfaces of a namespace.
#[derive(Debug)]
pub(crate) struct Tap {
    counts: Counts,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

/// ETH_P_ALL: frames of every protocol.
const EVERYTHING: u16 = 3;
/// `sll_pkttype` of what this host sends (packet(7)).
const OUTGOING: u8 = 4;

impl Tap {
    pub(crate) fn new(namespace: &Path, run: [u8; 8]) -> Result<Self, Error> {
        let socket = inside(namespace, || packet_socket(EVERYTHING))?;
        let patience = TimeVal::new(0, 20_000);
        setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &patience)
            .and_then(|()| setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &(8 << 20)))
            .map_err(Error::system("a packet socket cannot be set"))?;
        let (counts, stop) = (Counts::default(), Arc::new(AtomicBool::new(false)));
        let (into, until) = (Arc::clone(&counts), Arc::clone(&stop));
        let read = move || {
            let mut buffer = vec![0; 1 << 16];
            while !until.load(Ordering::Relaxed) {
                let Ok((length, Some(from))) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) else { continue };
                let Some(shot) = shot_of(&buffer[..length], &run) else { continue };
                let way = if from.pkttype() == OUTGOING { Way::Out } else { Way::In };
                *locked(&into).entry(Passed { shot, ifindex: from.ifindex(), way }).or_default() += 1;
            }
        };
        let reader = thread::Builder::new().name("tap".into()).spawn(read);
        let reader = reader.map_err(Error::system("a thread cannot be started"))?;
        Ok(Self { counts, stop, reader: Some(reader) })
    }

    /// Frames of a shot that came in at an interface; `None`: at any.
    pub(crate) fn came_in(&self, shot: u32, at: Option<usize>) -> u64 {
        let counts = locked(&self.counts);
        let of =
            |passed: &Passed| passed.shot == shot && passed.way == Way::In && at.is_none_or(|at| at == passed.ifindex);
        counts.iter().filter(|(passed, _)| of(passed)).map(|(_, count)| count).sum()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn locked(counts: &Counts) -> MutexGuard<'_, HashMap<Passed, u64>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number behind the run's tag.
fn shot_of(frame: &[u8], run: &[u8; 8]) -> Option<u32> {
    let at = frame.windows(run.len()).position(|window| window == run)?;
    let number = frame.get(at + run.len()..)?.first_chunk()?;
    Some(u32::from_be_bytes(*number))
}

/// Random bytes, for the tag and the names of one run.
pub(crate) fn random() -> Result<[u8; 8], Error> {
    use io::Read as _;
    let mut bytes = [0; 8];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(Error::system("/dev/urandom cannot be read"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_wherever_it_stands_and_only_this_runs() {
        let tag = Tag { run: *b"podfence", shot: 7 };
        let frame = [&[0; 30][..], &tag.bytes(), &[1; 4]].concat();
        assert_eq!(shot_of(&frame, &tag.run), Some(7));
        assert_eq!(shot_of(&frame, b"another "), None);
        assert_eq!(shot_of(&frame[..40], &tag.run), None);
    }
}
