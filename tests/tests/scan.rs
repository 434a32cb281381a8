//! What is not learned is closed, port by port: the shop's traffic is learned and enforced, and then every pod scans
//! every other pod on a thousand TCP ports, over both families.
//!
//! The control: nothing answers differently for want of a listener. The same scan without enforcement is answered at
//! every port, by the listeners of traffic.yaml and by resets.

use generator::{Nodes, synthesize};
use lab::{Lab, LabPod, Party, Scenario, Server};
use model::{
    cluster::{Mode, WorkloadKey},
    ledger,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    thread,
    time::Instant,
};
use tests::{
    scan::{Answer, scan},
    story::{Applied, Watch, alone, is_expressible, lab_of, scenario, unanswered},
};

/// Ports of each pair.
const PORTS: usize = 1_000;

/// Client, server, port: by workload.
type Opened = BTreeSet<(WorkloadKey, WorkloadKey, u16)>;

/// Of each client pod's address and target, what came back.
type Scanned = BTreeMap<(IpAddr, SocketAddr), Answer>;

#[test]
fn after_learning_a_scan_of_every_pod_finds_open_what_was_learned_and_nothing_else() {
    let (_alone, began) = (alone(), Instant::now());
    let scenario = scenario("shop");
    let test = "after_learning_a_scan_of_every_pod_finds_open_what_was_learned_and_nothing_else";
    let Some(lab) = lab_of(test, &scenario) else { return };
    let watch = Watch::start(&lab, datapath::Options::default());
    assert_eq!(unanswered(&watch.round()), [""; 0], "nothing is in the way of learning");
    let ledger = watch.agent().ledger().expect("the agent answers");
    let cluster = lab.cluster().expect("the lab's objects can be read");
    let options = generator::Options { nodes: Some(Nodes::Deny), ..generator::Options::default() };
    let generated = synthesize(&ledger, &cluster, &options).expect("policies");
    let lessons = generated.lessons.lessons.iter().map(|lesson| &lesson.edge);
    let learned: Opened = lessons.filter(|edge| edge.protocol == flow::TCP).filter_map(by_workload).collect();
    watch.apply(Applied { mode: Mode::Enforce, policies: generated.policies, ..Applied::default() });

    let pods: Vec<LabPod> = lab.pods().into_iter().filter(|pod| pod.ended.is_none()).collect();
    let enforced = scan_all(&lab, &scenario, &pods);
    println!("{:5.1} s  scanned while enforced: {}", began.elapsed().as_secs_f64(), told(&enforced));
    let round = watch.round();
    let expressible = round.iter().filter(|call| is_expressible(call));
    assert_eq!(unanswered(expressible), [""; 0], "nothing learned is denied, after a scan neither");
    assert!(watch.dropped() > 0);
    drop(watch.end());

    let free = scan_all(&lab, &scenario, &pods);
    println!("{:5.1} s  scanned when nothing is enforced: {}", began.elapsed().as_secs_f64(), told(&free));
    assert_eq!(free.len(), 2 * PORTS * pods.len() * (pods.len() - 1), "both families of every pair of pods");
    let silent: Vec<_> = free.iter().filter(|(_, answer)| **answer == Answer::Silent).take(5).collect();
    assert!(silent.is_empty(), "without enforcement every port answers: {silent:?}");
    let listening = listeners(&scenario);
    let of = |address: IpAddr| &pods.iter().find(|pod| pod.addresses.contains(&address)).expect("a pod's").workload;
    for ((client, target), answer) in &free {
        let serves = listening.contains(&(of(target.ip()).clone(), target.port()));
        assert_eq!(*answer == Answer::Open, serves, "{client} to {target}, where nothing is enforced");
        let allowed = learned.contains(&(of(*client).clone(), of(target.ip()).clone(), target.port()));
        let expected = if allowed { *answer } else { Answer::Silent };
        let (from, to) = (of(*client), of(target.ip()));
        assert_eq!(enforced[&(*client, *target)], expected, "{from} to {to} port {}, {client}", target.port());
    }
    let closed = free.iter().filter(|(key, answer)| **answer == Answer::Open && enforced[key] == Answer::Silent);
    let open = enforced.values().filter(|answer| **answer == Answer::Open).count();
    let closed = closed.count();
    println!(
        "{:5.1} s  of what listens, {open} are open to whom it was learned from, {closed} closed",
        began.elapsed().as_secs_f64()
    );
    assert!(open > 0 && closed > open, "policy closed listeners: {closed}, and left {open}");
    let name = lab.name().to_owned();
    lab.down();
    assert_eq!(lab::leftovers(Some(&name)), [""; 0]);
}

fn by_workload(edge: &ledger::Edge) -> Option<(WorkloadKey, WorkloadKey, u16)> {
    let (client, server) = (edge.client.workload()?, edge.server.workload()?);
    Some(((**client).clone(), (**server).clone(), edge.port))
}

/// What listens on TCP in pods, as traffic.yaml says.
fn listeners(scenario: &Scenario) -> BTreeSet<(WorkloadKey, u16)> {
    let all = scenario.serves.iter().filter_map(|(party, served)| match party {
        Party::Workload(key) => Some((key, served)),
        Party::Outside(_) => None,
    });
    let tcp = |server: Server| server != Server::Udp;
    all.flat_map(|(key, served)| served.iter().filter(|s| tcp(s.server)).map(|s| (key.clone(), s.port))).collect()
}

/// A thousand ports: every one that something listens on, and the first that nothing does.
fn ports(scenario: &Scenario) -> Vec<u16> {
    let mut all: BTreeSet<u16> = listeners(scenario).into_iter().map(|(_, port)| port).collect();
    let mut next = 1..;
    while all.len() < PORTS {
        all.extend(next.next());
    }
    all.into_iter().collect()
}

/// Every pod scans every other, all at once.
fn scan_all(lab: &Lab, scenario: &Scenario, pods: &[LabPod]) -> Scanned {
    let ports = ports(scenario);
    let of_pod = |client: &LabPod| -> Scanned {
        let others = pods.iter().filter(|pod| pod.uid != client.uid).flat_map(|pod| &pod.addresses);
        let targets: Vec<SocketAddr> =
            others.flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port))).collect();
        let answers = scan(&lab.pod_netns(client), &client.addresses, &targets).expect("root may scan");
        let own = |target: &SocketAddr| client.addresses.iter().find(|own| own.is_ipv4() == target.is_ipv4());
        let keyed = |(target, answer): (SocketAddr, Answer)| ((*own(&target).expect("both families"), target), answer);
        answers.into_iter().map(keyed).collect()
    };
    thread::scope(|scope| {
        let scanning: Vec<_> = pods.iter().map(|client| scope.spawn(move || of_pod(client))).collect();
        scanning.into_iter().flat_map(|one| one.join().expect("it scans")).collect()
    })
}

fn told(scanned: &Scanned) -> String {
    let count = |wanted| scanned.values().filter(|answer| **answer == wanted).count();
    let (open, closed, silent) = (count(Answer::Open), count(Answer::Closed), count(Answer::Silent));
    format!("{} openings: {open} open, {closed} closed, {silent} silent", scanned.len())
}
