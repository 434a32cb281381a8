//! A capture of what crosses a lab's node, as a file that `observe --pcap` and tcpdump read.

use crate::ending::Failure;
use pcap::{Capture, Precision};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Headers are all that is kept of a packet, as nothing here reads further.
const SNAPLEN: i32 = 128;
/// How long to sleep when nothing comes.
const PAUSE: Duration = Duration::from_millis(10);

/// A capture under way, in a thread of its own, since a network namespace belongs to a thread.
pub(crate) struct Tap {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64, String>>>,
    file: PathBuf,
}

impl Tap {
    /// Captures on every interface of a network namespace, each packet once: where it comes in.
    pub(crate) fn start(netns: &Path, file: &Path) -> Result<Self, Failure> {
        let (ready, begun) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, netns, to) = (stop.clone(), netns.to_owned(), file.to_owned());
        let thread = thread::spawn(move || capture(&netns, &to, &flag, &ready));
        let mut tap = Self { stop, thread: Some(thread), file: file.to_owned() };
        match begun.recv() {
            Ok(()) => Ok(tap),
            Err(_) => Err(tap.end().err().unwrap_or_else(|| tap.failed("it ended before it began"))),
        }
    }

    /// Ends it; how many packets are in the file.
    pub(crate) fn stop(mut self) -> Result<u64, Failure> {
        self.end()
    }

    fn end(&mut self) -> Result<u64, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(Ok(packets))) => Ok(packets),
            Some(Ok(Err(why))) => Err(self.failed(&why)),
            Some(Err(_)) | None => Err(self.failed("its thread is gone")),
        }
    }

    fn failed(&self, why: &str) -> Failure {
        Failure::new(
            format!("cannot capture into {}; {why}", self.file.display()),
            "choose a file that can be written; capturing needs root",
        )
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn capture(netns: &Path, file: &Path, stop: &AtomicBool, ready: &mpsc::Sender<()>) -> Result<u64, String> {
    lab::enter(netns).map_err(|e| e.to_string())?;
    let said = |e: pcap::Error| e.to_string();
    let inactive = Capture::from_device("any").map_err(said)?.precision(Precision::Micro);
    let mut live = inactive.snaplen(SNAPLEN).buffer_size(32 << 20).immediate_mode(true).open().map_err(said)?;
    live.filter("inbound and (ip or ip6)", true).map_err(said)?;
    let mut live = live.setnonblock().map_err(said)?;
    let mut out = live.savefile(file).map_err(said)?;
    ready.send(()).map_err(|e| e.to_string())?;
    let mut packets = 0;
    loop {
        match live.next_packet() {
            Ok(packet) => {
                out.write(&packet);
                packets += 1;
            }
            Err(pcap::Error::TimeoutExpired) if stop.load(Ordering::Relaxed) => break,
            Err(pcap::Error::TimeoutExpired) => thread::sleep(PAUSE),
            Err(error) => return Err(said(error)),
        }
    }
    out.flush().map_err(said)?;
    Ok(packets)
}
