//! Captures through libpcap: files and live interfaces, into the meter.
//!
//! A capture may be hostile: no content of it is trusted to be a packet, a time or a length.

use crate::{EndedEarly, Error, Meter, MeterOptions, Observer, Summary};
use flow::{LinkLayer, parse_link};
use model::record::{FlowEvent, UnixNanos};
use pcap::{Active, Capture, Linktype, Offline, Precision};
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Bytes of a packet that a live capture keeps: headers beyond this are not looked at anyway.
const SNAPLEN: i32 = 256;
/// How long the kernel may keep a packet before it hands it over with others, milliseconds.
const BLOCK: u16 = 100;
/// How long a live capture sleeps when nothing comes, which is also how soon it sees the stop flag.
const PAUSE: Duration = Duration::from_millis(20);
const SECOND: i64 = 1_000_000_000;
/// The port of DNS (RFC 1035, 4.2).
const DNS: u16 = 53;

/// Meters a capture file (classic pcap or pcapng, micro- or nanoseconds) and gives its flows to the observer. A file
/// that ends early is read as far as it goes; the summary says why, and a gap row too.
pub fn observe_file(path: &Path, options: MeterOptions, observer: &mut Observer) -> Result<Summary, Error> {
    let file = path.display().to_string();
    let open_error = |why: String| Error::Open { file: file.clone(), why };
    // What libpcap opens and what it says of a folder depends on its version.
    let metadata = std::fs::metadata(path).map_err(|e| open_error(e.to_string()))?;
    if metadata.is_dir() {
        return Err(open_error("it is a folder".into()));
    }
    if metadata.is_file() && metadata.len() == 0 {
        return Err(open_error("it is empty".into()));
    }
    if path.to_str().is_none() {
        return Err(open_error("its name is not UTF-8; rename it".into()));
    }
    let mut capture = Capture::from_file_with_precision(path, Precision::Nano).map_err(|e| open_error(said(&e)))?;
    let link = link_layer(capture.get_datalink(), &file)?;
    let mut reading = Reading::new(link, options, &file, observer, WhenFull::Stop);
    reading.file(&mut capture, &file)?;
    reading.end()
}

/// Meters a live interface until `stop` is set.
pub fn observe_interface(
    interface: &str,
    options: MeterOptions,
    stop: &AtomicBool,
    observer: &mut Observer,
) -> Result<Summary, Error> {
    let live_error = |e: pcap::Error| Error::Live { interface: interface.to_owned(), why: said(&e) };
    let mut capture = Capture::from_device(interface)
        .and_then(|inactive| {
            inactive.precision(Precision::Nano).snaplen(SNAPLEN).buffer_size(32 << 20).timeout(BLOCK.into()).open()
        })
        .and_then(|active| active.setnonblock())
        .map_err(live_error)?;
    let link = link_layer(capture.get_datalink(), &format!("interface {interface}"))?;
    let mut reading = Reading::new(link, options, interface, observer, WhenFull::GoOn);
    reading.live(&mut capture, interface, stop)?;
    reading.end()
}

/// libpcap's own words, without the crate's.
fn said(error: &pcap::Error) -> String {
    match error {
        pcap::Error::PcapError(words) => words.clone(),
        other => other.to_string(),
    }
}

fn link_layer(link: Linktype, from: &str) -> Result<LinkLayer, Error> {
    match link.0 {
        1 => Ok(LinkLayer::Ethernet),
        113 => Ok(LinkLayer::LinuxSll),
        276 => Ok(LinkLayer::LinuxSll2),
        // DLT_RAW is 12 on Linux and 14 on OpenBSD, LINKTYPE_RAW 101; DLT_IPV4, DLT_IPV6.
        12 | 14 | 101 | 228 | 229 => Ok(LinkLayer::RawIp),
        number => Err(Error::LinkType {
            from: from.to_owned(),
            name: link.get_name().unwrap_or_else(|_| "unknown".into()),
            number,
        }),
    }
}

/// One capture being read.
struct Reading<'a> {
    link: LinkLayer,
    meter: Meter,
    observer: &'a mut Observer,
    summary: Summary,
    /// Events between meter and observer.
    events: Vec<FlowEvent>,
    last: UnixNanos,
    when_full: WhenFull,
}

/// What is done when the log has no room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WhenFull {
    /// A file can be read again.
    Stop,
    /// What passes on an interface cannot: the log counts what it loses until there is room.
    GoOn,
}

impl<'a> Reading<'a> {
    fn new(
        link: LinkLayer,
        options: MeterOptions,
        name: &str,
        observer: &'a mut Observer,
        when_full: WhenFull,
    ) -> Self {
        // A capture file stands for an interface; its folder is this machine's, and no one else's business.
        let interface = Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or(name);
        let meter = Meter::new(options, interface);
        Self { link, meter, observer, summary: Summary::default(), events: Vec::new(), last: UnixNanos::MIN, when_full }
    }

    fn file(&mut self, capture: &mut Capture<Offline>, file: &str) -> Result<(), Error> {
        loop {
            match capture.next_packet() {
                Ok(packet) => self.packet(&packet)?,
                Err(pcap::Error::NoMorePackets) => return Ok(()),
                Err(error) => return self.ended_early(file, said(&error)),
            }
        }
    }

    fn live(&mut self, capture: &mut Capture<Active>, interface: &str, stop: &AtomicBool) -> Result<(), Error> {
        let mut ticked = now();
        while !stop.load(Ordering::Relaxed) {
            match capture.next_packet() {
                Ok(packet) => self.packet(&packet)?,
                Err(pcap::Error::TimeoutExpired) => thread::sleep(PAUSE),
                Err(error) => {
                    self.last_packets(capture)?;
                    self.dropped(capture, ticked)?;
                    let error = Error::Live { interface: interface.to_owned(), why: said(&error) };
                    // What was seen until now is kept.
                    self.finish()?;
                    return Err(error);
                }
            }
            let at = now();
            if at.saturating_sub(ticked) >= SECOND {
                self.dropped(capture, ticked)?;
                self.meter.advance(at, &mut self.events);
                self.hand_over()?;
                self.observer.watched(at);
                let ticked_log = self.observer.tick(at);
                self.logged(ticked_log)?;
                ticked = at;
            }
        }
        self.last_packets(capture)?;
        self.dropped(capture, ticked)
    }

    /// What was seen and not handed over when the capture is to end, or its interface went.
    fn last_packets(&mut self, capture: &mut Capture<Active>) -> Result<(), Error> {
        thread::sleep(Duration::from_millis(BLOCK.into()) + PAUSE);
        // No more than that: a busy interface never falls silent.
        let until = now();
        while let Ok(packet) = capture.next_packet() {
            if time(packet.header) > until {
                break;
            }
            self.packet(&packet)?;
        }
        Ok(())
    }

    fn packet(&mut self, packet: &pcap::Packet<'_>) -> Result<(), Error> {
        let at = time(packet.header);
        self.last = at;
        self.summary.packets += 1;
        self.summary.bytes += u64::from(packet.header.len);
        match parse_link(self.link, packet.data) {
            Ok(parsed) => {
                if let Some(message) = dns_message(&parsed, packet) {
                    self.observer.hear_dns(at, parsed.key.destination.ip(), message);
                }
                self.meter.packet(at, &parsed, &mut self.events);
            }
            Err(error) => self.meter.unreadable(error),
        }
        if self.events.is_empty() { Ok(()) } else { self.hand_over() }
    }

    /// What the kernel dropped since the last look becomes a gap.
    fn dropped(&mut self, capture: &mut Capture<Active>, since: UnixNanos) -> Result<(), Error> {
        let Ok(stat) = capture.stats() else { return Ok(()) };
        let dropped = u64::from(stat.dropped) + u64::from(stat.if_dropped);
        let more = dropped.saturating_sub(self.summary.dropped);
        if more > 0 {
            self.summary.dropped = dropped;
            let gap = self.observer.gap(since, now(), "capture-dropped", more);
            self.logged(gap)?;
        }
        Ok(())
    }

    fn ended_early(&mut self, file: &str, why: String) -> Result<(), Error> {
        let packets = self.summary.packets;
        let cut = why.contains("truncated");
        if packets == 0 && !cut {
            return Err(Error::Corrupt { file: file.to_owned(), why });
        }
        let file = file.into();
        self.summary.ended_early = Some(if cut {
            EndedEarly::CutShort { file, packets, why }
        } else {
            EndedEarly::Corrupt { file, packets, why }
        });
        if packets > 0 {
            let reason = if cut { "capture-cut-short" } else { "capture-corrupt" };
            self.observer.gap(self.last, self.last, reason, 0)?;
        }
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), Error> {
        self.summary.slices += self.events.len() as u64;
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            let observed = self.observer.observe(event);
            self.logged(observed)?;
        }
        self.events = events; // Empty, with its room.
        Ok(())
    }

    /// Whether to go on after the log was written to.
    fn logged(&mut self, written: Result<(), Error>) -> Result<(), Error> {
        match written {
            Err(Error::Log(full @ flowlog::Error::Full { .. })) if self.when_full == WhenFull::GoOn => {
                self.summary.log_full = Some(full.to_string());
                Ok(())
            }
            other => other,
        }
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.meter.finish(&mut self.events);
        self.hand_over()?;
        let flushed = self.observer.flush();
        self.logged(flushed)
    }

    fn end(mut self) -> Result<Summary, Error> {
        self.finish()?;
        self.summary.flows = self.meter.begun();
        self.summary.evicted = self.meter.evicted();
        self.summary.skipped = self.meter.skipped().clone();
        Ok(self.summary)
    }
}

/// What a DNS server says in a whole UDP packet, as far as the capture holds it. The IP packet is the frame's end: an
/// answer with an address in it is longer than what Ethernet pads.
fn dns_message<'p>(parsed: &flow::Packet, packet: &'p pcap::Packet<'_>) -> Option<&'p [u8]> {
    let is_answer = (parsed.key.protocol, parsed.key.source_port) == (flow::UDP, DNS);
    if !is_answer || parsed.fragment != flow::Fragment::Whole {
        return None;
    }
    let begins = packet.header.len.checked_sub(parsed.ip_length)?.checked_add(parsed.headers)?;
    packet.data.get(usize::try_from(begins).ok()?..)
}

/// A packet's time. Every capture here is opened with nanoseconds, so libpcap puts them where `timeval` has microseconds.
fn time(header: &pcap::PacketHeader) -> UnixNanos {
    header.ts.tv_sec.saturating_mul(SECOND).saturating_add(header.ts.tv_usec)
}

fn now() -> UnixNanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixNanos::try_from(since.as_nanos()).unwrap_or(UnixNanos::MAX)
}
