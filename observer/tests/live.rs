//! A live interface, in a network namespace of the test's own.

use flowlog::{Options, Writer, read_records};
use model::{record::FlowSource, view::AddressView};
use nix::sched::{CloneFlags, unshare};
use observer::{MeterOptions, Observer, observe_interface};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

fn observer(log: &std::path::Path) -> Observer {
    let writer = Writer::open(log, "test", "node-1", Options::default(), 0).unwrap();
    Observer::new(writer, AddressView::default(), "node-1", "node-1@0")
}

/// Moves this thread into a network namespace with nothing but a loopback interface; it goes with the thread.
fn alone() -> bool {
    let moved = unshare(CloneFlags::CLONE_NEWNET).map_err(|why| why.to_string()).and_then(|()| {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().map_err(|why| why.to_string())?;
        if up.success() { Ok(()) } else { Err(format!("ip link: {up}")) }
    });
    if let Err(why) = &moved {
        let required = std::env::var("PODFENCE_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|what| what == "kernel"), "PODFENCE_REQUIRE=kernel, and no namespace: {why}");
        println!("skipped: a network namespace needs root: {why}");
    }
    moved.is_ok()
}

#[test]
fn a_live_interface_is_metered_until_it_is_told_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().to_owned();
    let seen = thread::spawn(move || {
        if !alone() {
            return;
        }
        let stop = AtomicBool::new(false);
        let mut observer = observer(&log);
        let (summary, port) = thread::scope(|scope| {
            let talk = scope.spawn(|| {
                // Time for the capture to begin.
                thread::sleep(Duration::from_millis(500));
                let port = talk();
                thread::sleep(Duration::from_millis(500));
                stop.store(true, Ordering::Relaxed);
                port
            });
            let summary = observe_interface("lo", MeterOptions::default(), &stop, &mut observer).unwrap();
            (summary, talk.join().unwrap())
        });
        observer.close().unwrap();
        let (records, _, _) = read_records(&log).unwrap();
        let record = records.iter().find(|record| record.server.port == port).unwrap();
        assert_eq!(record.event.direction_rule.name(), "syn");
        assert_eq!((&*record.event.interface, record.event.source), ("lo", FlowSource::Pcap));
        // Only headers are captured; bytes are counted from the IP header.
        assert!(record.event.bytes_to_client > 100_000, "{}", record.event.bytes_to_client);
        assert!(summary.packets >= 6 && summary.flows >= 1, "{summary:?}");
    });
    seen.join().unwrap();
}

/// A connection to a server that answers with 100 kB; returns the server's port.
fn talk() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::scope(|scope| {
        scope.spawn(|| listener.accept().unwrap().0.write_all(&[7; 100_000]).unwrap());
        let mut answer = Vec::new();
        TcpStream::connect(("127.0.0.1", port)).unwrap().read_to_end(&mut answer).unwrap();
        assert_eq!(answer.len(), 100_000);
    });
    port
}

#[test]
fn an_interface_that_is_not_there_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let mut observer = observer(folder.path());
    let error = observe_interface("no-such-if", MeterOptions::default(), &stop, &mut observer).unwrap_err().to_string();
    assert!(error.starts_with("cannot capture on interface no-such-if: "), "{error}");
    assert!(error.ends_with("; `ip link` lists interfaces, and capturing needs root or CAP_NET_RAW"), "{error}");
}

#[test]
fn what_was_seen_just_before_an_interface_goes_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().to_owned();
    let seen = thread::spawn(move || {
        if !alone() {
            return;
        }
        let ip =
            |words: &str| assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success(), "{words}");
        ip("link add going type veth peer name other");
        ip("address add 10.9.9.1/24 dev going");
        ip("link set other up");
        ip("link set going up");
        ip("neighbor add 10.9.9.2 lladdr 02:00:00:00:00:02 dev going");
        let mut observer = observer(&log);
        let error = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(500));
                let socket = UdpSocket::bind(("10.9.9.1", 0)).unwrap();
                for _ in 0..5 {
                    socket.send_to(b"last words", ("10.9.9.2", 7)).unwrap();
                }
                ip("link delete going");
            });
            let stop = AtomicBool::new(false);
            observe_interface("going", MeterOptions::default(), &stop, &mut observer).unwrap_err().to_string()
        });
        assert!(error.starts_with("cannot capture on interface going: "), "{error}");
        observer.close().unwrap();
        let (records, _, _) = read_records(&log).unwrap();
        let packets = |port| {
            let of_port = records.iter().filter(|record| record.server.port == port);
            of_port.map(|record| record.event.packets_to_server).sum::<u64>()
        };
        assert_eq!(packets(7), 5);
    });
    seen.join().unwrap();
}
