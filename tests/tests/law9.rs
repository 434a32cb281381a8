//! Law 9: the kernel and a capture of the same traffic at the same hook yield the same graph.
//!
//! A capture runs on the host side of each pod's veth, beside the program. It knows neither whose link that is nor any
//! name; this test says whose link it was and attributes its flows as the agent does. A flow between two pods is seen
//! at two hooks and counted at its server's, by the ledger's own rule.

use flowlog::Writer;
use generator::{CommunicationGraph, graph::Link};
use lab::{Lab, Scenario};
use model::{
    cluster::Cluster,
    ledger::{Ledger, Party},
    record::{FlowEvent, FlowRecord, ObservedAt},
    view::AddressView,
};
use observer::{MeterOptions, Observer, Summary, attribute, observe_interface};
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tests::story::{Watch, alone, lab_of, now, scenario, unanswered};

#[test]
fn kernel_and_capture_see_the_same_graph() {
    same_graph("kernel_and_capture_see_the_same_graph", &scenario("tiny"), Duration::from_secs(2));
}

#[test]
fn kernel_and_capture_see_the_same_graph_while_pods_come_and_go() {
    same_graph(
        "kernel_and_capture_see_the_same_graph_while_pods_come_and_go",
        &scenario("shop"),
        Duration::from_secs(8),
    );
}

fn same_graph(test: &str, scenario: &Scenario, time: Duration) {
    let _alone = alone();
    let Some(lab) = lab_of(test, scenario) else { return };
    let captures = Captures::start(&lab);
    let watch = Watch::start(&lab, datapath::Options::default());
    let report = watch.run_and(time, &|_| captures.follow());
    assert_eq!(unanswered(&report.failures), [""; 0]);
    assert!(report.total().answered > 0);
    // What is under way when the time is over ends.
    thread::sleep(Duration::from_millis(500));
    let cluster = lab.cluster().expect("the lab's objects can be read");
    let captured = captures.stop(&cluster, &scenario.node.name);
    let (stopped, _) = watch.stop();

    let (kernel, capture) = (edges(&stopped.ledger), edges(&captured));
    let differences = differences(&kernel, &capture);
    assert!(differences.is_empty(), "{differences:#?}");
    let inexpressible = |ledger: &Ledger| ledger.unfit.keys().filter(|(_, edge)| edge.is_some()).cloned().collect();
    let (theirs, ours): (Vec<_>, Vec<_>) = (inexpressible(&stopped.ledger), inexpressible(&captured));
    assert_eq!(theirs, ours, "what feeds no rule is the same too, with its reasons");
    println!("{}: {} edges, {} flows", scenario.name, kernel.len(), kernel.values().sum::<u64>());
    it_has_teeth(&kernel);
}

/// The contrast: one edge less, or one flow less, is seen.
fn it_has_teeth(kernel: &Edges) {
    for dropped in kernel.keys() {
        let mut less = kernel.clone();
        less.remove(dropped);
        assert_eq!(differences(kernel, &less).len(), 1, "without {dropped}");
        assert_eq!(differences(&less, kernel).len(), 1, "without {dropped}");
        less.insert(dropped.clone(), kernel[dropped] - 1);
        assert_eq!(differences(kernel, &less).len(), 1, "one flow less of {dropped}");
    }
}

/// Client, server, protocol, port as the graph shows them; with flows.
type Edges = BTreeMap<String, u64>;

fn edges(ledger: &Ledger) -> Edges {
    let graph = CommunicationGraph::of(ledger);
    let row = |(client, server, link): (&Party, &Party, &Link)| {
        (format!("{client:?} -> {server:?} {}/{}", link.protocol, link.port), link.seen.flows)
    };
    graph.links().map(row).collect()
}

fn differences(kernel: &Edges, capture: &Edges) -> Vec<String> {
    let all: std::collections::BTreeSet<&String> = kernel.keys().chain(capture.keys()).collect();
    let differs = |edge: &&&String| kernel.get(**edge) != capture.get(**edge);
    let told = |edge: &String| format!("{edge}: kernel {:?}, capture {:?}", kernel.get(edge), capture.get(edge));
    all.iter().filter(differs).map(|edge| told(edge)).collect()
}

/// A capture on each pod's link, those that come later too.
struct Captures<'l> {
    lab: &'l Lab,
    stop: Arc<AtomicBool>,
    running: Mutex<BTreeMap<String, Capture>>,
}

struct Capture {
    log: TempDir,
    thread: JoinHandle<Result<Summary, observer::Error>>,
}

impl<'l> Captures<'l> {
    fn start(lab: &'l Lab) -> Self {
        let captures = Self { lab, stop: Arc::default(), running: Mutex::default() };
        captures.follow();
        captures
    }

    /// Every pod's link is captured when this returns.
    fn follow(&self) {
        let mut running = self.running.lock().expect("no capture panicked");
        let node = self.lab.node_netns();
        for pod in self.lab.pods().iter().filter(|pod| pod.ended.is_none()) {
            running.entry(pod.uid.clone()).or_insert_with(|| capture(node.clone(), &pod.link, self.stop.clone()));
        }
        let living = self.lab.pods().iter().filter(|pod| pod.ended.is_none()).count();
        let deadline = Instant::now() + Duration::from_secs(10);
        while listening(&node) < living {
            assert!(Instant::now() < deadline, "{} of {living} captures listen", listening(&node));
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The ledger of all that was captured, attributed with the cluster as it has been.
    fn stop(self, cluster: &Cluster, node: &str) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let (view, node): (_, Arc<str>) = (AddressView::new(cluster), node.into());
        let mut ledger = Ledger::default();
        let pods = self.lab.pods();
        for (uid, Capture { log, thread }) in self.running.into_inner().expect("no capture panicked") {
            let pod = pods.iter().find(|pod| pod.uid == uid).expect("a pod of the lab");
            match thread.join().expect("a capture ends") {
                Ok(summary) => assert_eq!((summary.dropped, summary.evicted, summary.log_full), (0, 0, None)),
                Err(error) => assert!(pod.ended.is_some(), "{}: {error}", pod.link),
            }
            let (rows, gaps, _) = flowlog::read_records(log.path()).expect("the capture's log can be read");
            assert!(gaps.is_empty(), "{gaps:?}");
            for FlowRecord { event, .. } in rows {
                let served_here = pod.addresses.contains(&event.key.destination.ip());
                let observed_at = if served_here { ObservedAt::Server } else { ObservedAt::Client };
                ledger.add(&uid.as_str().into(), &attribute(&view, &node, FlowEvent { observed_at, ..event }));
            }
        }
        ledger
    }
}

/// A capture by the observer itself, without a name for anything.
fn capture(netns: PathBuf, link: &str, stop: Arc<AtomicBool>) -> Capture {
    let log = tempfile::tempdir().expect("a folder");
    let writer = Writer::open(log.path(), "test", link, flowlog::Options::default(), now()).expect("a log");
    let mut observer = Observer::new(writer, AddressView::default(), link, link);
    let link = link.to_owned();
    let thread = thread::spawn(move || {
        lab::enter(&netns).expect("root may");
        let seen = observe_interface(&link, MeterOptions::default(), &stop, &mut observer);
        observer.close().expect("the log is whole");
        seen
    });
    Capture { log, thread }
}

/// Packet sockets that run in a network namespace.
fn listening(netns: &std::path::Path) -> usize {
    thread::scope(|scope| {
        let table = scope.spawn(|| {
            lab::enter(netns).expect("root may");
            fs::read_to_string("/proc/thread-self/net/packet").expect("proc is mounted")
        });
        let table = table.join().expect("it can be read");
        // Columns: address, references, type, protocol, interface, running, ...
        table.lines().skip(1).filter(|line| line.split_whitespace().nth(5) == Some("1")).count()
    })
}
