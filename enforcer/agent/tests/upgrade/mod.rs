//! An agent of another layout takes over, and the old one takes back: its tables cannot be read, and under traffic
//! nothing allowed is cut, nothing denied passes.
//!
//! The other build is these tests with the feature `next-layout`, which `./run test` makes, or of another version:
//! `PODFENCE_OTHER_LAYOUT` names it. Without one this is skipped.

use crate::{
    restart::{Ongoing, Process, byte_for_byte, nothing_arrives, probes},
    world::{Bpffs, CLIENT, SERVER, World, attachments, policy},
};
use model::{
    labels::Selector,
    policy::{NetworkPolicy, Peer, PolicySet, Port, PortMatch, Protocol, Rule},
};
use std::{
    collections::BTreeMap,
    env, fs,
    net::UdpSocket,
    path::PathBuf,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

/// UDP to this port is allowed.
const OPEN: u16 = 8081;

/// Both ends isolated both ways; the client may open the server's two ports.
pub(crate) fn both_ends() -> PolicySet {
    let pods = |name: &str| Selector::of([("app".to_owned(), name.to_owned())].into());
    let ports = [(Protocol::Tcp, 8080), (Protocol::Udp, OPEN)];
    let ports: Vec<Port> = ports.map(|(protocol, port)| Port { protocol, port: PortMatch::Range(port, port) }).to_vec();
    let rule = |peer: &str| {
        let peers = vec![Peer::Pods { namespaces: None, pods: Some(pods(peer)) }];
        Rule { peers, ports: ports.clone(), source: None }
    };
    let [server] = <[NetworkPolicy; 1]>::try_from(policy().policies).unwrap();
    let client = NetworkPolicy {
        name: "client".into(),
        pod_selector: pods("client"),
        ingress: Some(Vec::new()),
        egress: Some(vec![rule("server")]),
        ..server.clone()
    };
    let server = NetworkPolicy { ingress: Some(vec![rule("client")]), egress: Some(Vec::new()), ..server };
    PolicySet::new(vec![client, server])
}

/// Datagrams to the open port, one after another, and their answers: the rounds, and what had no answer within a second.
fn answered(world: &World, family: usize) -> Ongoing<u64> {
    let server = world.inside("server", || UdpSocket::bind((SERVER[family], OPEN)).unwrap());
    let client = world.inside("client", || UdpSocket::bind((CLIENT[family], 0)).unwrap());
    client.connect((SERVER[family], OPEN)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((length, from)) = server.recv_from(&mut bytes) {
            let _ = server.send_to(&bytes[..length], from);
        }
    });
    Ongoing::start(move |stop, rounds| {
        let mut unanswered = 0;
        while !stop.load(Ordering::Relaxed) {
            client.send(&rounds.load(Ordering::Relaxed).to_ne_bytes()).unwrap();
            match client.recv(&mut [0; 8]) {
                Ok(_) => drop(rounds.fetch_add(1, Ordering::Relaxed)),
                Err(_) => unanswered += 1,
            }
            thread::sleep(Duration::from_millis(1));
        }
        unanswered
    })
}

#[test]
fn another_layout_takes_over_under_traffic_and_the_old_one_takes_back() {
    kernel_or_skip!();
    let Some(other) = env::var_os("PODFENCE_OTHER_LAYOUT").map(PathBuf::from) else {
        eprintln!("skipped: PODFENCE_OTHER_LAYOUT names no other build of these tests");
        return;
    };
    let own = env::current_exe().unwrap();
    for attachment in attachments() {
        let (world, bpffs, log) = (World::new(), Bpffs::mount(), tempfile::tempdir().unwrap());
        world.serve(8080);
        world.serve(9090);
        let probes = probes(&world);
        probes.1.goes_on(20);
        let agent = |build| Process::of(build, &world, &bpffs, log.path(), attachment, "both ends").ready();
        let mut running = agent(&own);
        let streams: Vec<_> =
            SERVER.map(|to| byte_for_byte(world.connect("client", to, 8080).unwrap())).into_iter().collect();
        let datagrams = [0, 1].map(|family| answered(&world, family));
        let refused = || world.connect_within("client", SERVER[1], 9090, Duration::from_millis(300)).unwrap_err();
        let all_go_on = || {
            streams.iter().for_each(|stream| stream.goes_on(20));
            datagrams.iter().for_each(|datagrams| datagrams.goes_on(20));
        };
        all_go_on();
        let mut layouts: BTreeMap<String, usize> = BTreeMap::new();
        let begun = Instant::now();
        nothing_arrives(&probes, || {
            for build in [&other, &own, &other, &own] {
                running.kill();
                all_go_on();
                refused();
                running = agent(build);
                all_go_on();
                refused();
                let folders = fs::read_dir(bpffs.path()).unwrap();
                let names = folders.map(|folder| folder.unwrap().file_name().into_string().unwrap());
                // What has a dot is the kernel's own.
                let names: Vec<_> = names.filter(|name| !name.contains('.')).collect();
                assert_eq!(names.len(), 1, "one layout's pins are left: {names:?}");
                *layouts.entry(names.concat()).or_default() += 1;
            }
            running.kill();
        });
        assert_eq!(layouts.values().copied().collect::<Vec<_>>(), [2, 2], "two layouts: {layouts:?}");
        streams.into_iter().for_each(Ongoing::end);
        let unanswered = datagrams.map(Ongoing::end);
        println!("{attachment:?}: four changes of layout in {:?}, datagrams lost: {unanswered:?}", begun.elapsed());
        // One that was on its way while a hook changed hands may be lost, and asked for again.
        assert!(unanswered.iter().all(|lost| *lost <= 8), "exchanges were cut: {unanswered:?}");
    }
}
