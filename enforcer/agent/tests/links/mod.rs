//! Links whose pod is not known, programs that stand before ours, and everything taken away.

use crate::{
    restart::{BOTH, Process, enforced},
    world::{Bpffs, SERVER, World, cluster, ip, policy, start_with, talk},
};
use agent::Agent;
use datapath::{Ahead, Attachment, Datapath, Ignored, Overtaker, UnknownPod, take_away};
use flow::Direction;
use model::cluster::Pod;
use std::{
    net::UdpSocket,
    process::Command,
    thread,
    time::{Duration, Instant},
};

const STRANGER: [&str; 2] = ["10.201.0.3", "fd01:201::3"];

fn unknown(unknown_pod: UnknownPod, ignore: &[&str]) -> datapath::Options {
    let ignore_interfaces = Ignored(ignore.iter().map(|name| (*name).to_owned()).collect());
    datapath::Options { unknown_pod, ignore_interfaces, ..datapath::Options::default() }
}

fn running(world: &World, log: &std::path::Path, options: datapath::Options) -> Agent {
    let agent = start_with(world, log, options);
    agent.update(&cluster("learn")).unwrap();
    agent
}

/// How many of the stranger's datagrams the server gets.
fn arrive(world: &World, server: &UdpSocket) -> usize {
    let stranger = world.inside("stranger", || UdpSocket::bind((STRANGER[0], 0)).unwrap());
    (0..5)
        .filter(|_| {
            stranger.send_to(b"?", server.local_addr().unwrap()).unwrap();
            server.recv(&mut [0; 8]).is_ok()
        })
        .count()
}

fn within(what: &str, mut found: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !found() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_link_whose_pod_is_not_known_has_the_nodes_setting_as_its_rule() {
    kernel_or_skip!();
    let ignored: &[&str] = &["vstr*"];
    for (setting, ignore, expected) in
        [(UnknownPod::Pass, &[][..], 5), (UnknownPod::Deny, &[][..], 0), (UnknownPod::Deny, ignored, 5)]
    {
        let (world, log) = (World::new(), tempfile::tempdir().unwrap());
        let server = world.inside("server", || UdpSocket::bind((SERVER[0], 7777)).unwrap());
        server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let agent = running(&world, log.path(), unknown(setting, ignore));
        world.add_pod("stranger", STRANGER);
        if ignore.is_empty() {
            within("the new link is attached", || agent.status().unwrap().window.links == 1);
        }
        assert_eq!(arrive(&world, &server), expected, "{setting:?} {ignore:?}");
        let counted = agent.status().unwrap().counters.packets(verdict::Reason::UnknownPod);
        assert_eq!(counted > 0, ignore.is_empty(), "{setting:?} {ignore:?}");

        // Once the pod is known, policy rules.
        let mut known = cluster("learn");
        let [v4, v6] = STRANGER.map(|address| address.parse().unwrap());
        let stranger = Pod {
            name: "stranger".into(),
            uid: "uid-stranger".into(),
            addresses: vec![v4, v6],
            ..known.pods[0].clone()
        };
        known.pods.push(stranger);
        let update = agent.update(&known).unwrap();
        assert_eq!(update.covered.len(), if ignore.is_empty() { 3 } else { 2 }, "{update:?}");
        // The stranger's questions for neighbours, denied until now, are asked again after a second.
        within("policy rules", || arrive(&world, &server) == 5);
        agent.stop().unwrap();
    }
}

#[test]
fn new_links_are_attached_at_once_and_how_soon_is_told() {
    kernel_or_skip!();
    let (world, log) = (World::new(), tempfile::tempdir().unwrap());
    let agent = running(&world, log.path(), unknown(UnknownPod::Deny, &[]));
    let node = world.name("node");
    ip(&format!("netns add {}", world.name("stranger")));
    for link in 0..20 {
        ip(&format!("-n {node} link add vs{link} type veth peer name eth{link} netns {}", world.name("stranger")));
        thread::sleep(Duration::from_millis(30));
    }
    within("all links are attached", || agent.status().unwrap().window.links == 20);
    let window = agent.status().unwrap().window;
    println!("20 links attached while they came: the last within {:?}, each within {:?}", window.last, window.longest);
    // A bound that only a loop which waits for its tick would break.
    assert!(window.longest < Duration::from_secs(5), "{window:?}");
    agent.stop().unwrap();
}

#[test]
fn what_stands_before_our_program_is_found_and_what_goes_is_forgotten() {
    kernel_or_skip!();
    for attachment in BOTH {
        let (world, log) = (World::new(), tempfile::tempdir().unwrap());
        let agent = running(
            &world,
            log.path(),
            datapath::Options { attachment: Some(attachment), ..datapath::Options::default() },
        );
        let ahead = || agent.status().unwrap().ahead;
        thread::sleep(Duration::from_millis(1200));
        assert_eq!(ahead().len(), 0, "nothing stands before ours: {:?}", ahead());
        // Another program, which asks to be the first, as ours did.
        let other = world.inside("node", || {
            let options = datapath::Options { attachment: Some(Attachment::Tcx), ..datapath::Options::default() };
            let mut other = Datapath::load(&options).unwrap();
            let found = datapath::discover(&Ignored::default()).unwrap();
            let link = found.links.values().find(|link| &*link.name == "vserver").unwrap();
            other.attach(link).unwrap();
            other
        });
        within("the other program is found", || ahead().contains_key("vserver"));
        let found = ahead().remove("vserver").unwrap();
        assert_eq!(ahead().len(), 1, "on that link alone");
        let id = |direction| other.program(direction).unwrap().info().unwrap().id();
        let expected = [Direction::Outbound, Direction::Inbound]
            .map(|direction| Ahead { direction, what: Overtaker::Tcx { program: id(direction) } });
        assert_eq!(found, expected);
        drop(other);
        within("it is forgotten", || ahead().is_empty());
        if attachment == Attachment::Clsact {
            let tc = format!("-n {} filter del dev vserver ingress pref 1", world.name("node"));
            assert!(Command::new("tc").args(tc.split_whitespace()).status().unwrap().success());
            let gone = [Ahead { direction: Direction::Outbound, what: Overtaker::OursIsGone }];
            within("that ours was taken out is found", || ahead().get("vserver").is_some_and(|found| found == &gone));
        }
        agent.stop().unwrap();
    }
}

#[test]
fn without_an_agent_everything_is_taken_away_and_told() {
    kernel_or_skip!();
    for attachment in BOTH {
        let (world, bpffs, log) = (World::new(), Bpffs::mount(), tempfile::tempdir().unwrap());
        world.serve(9090);
        let taken = || world.inside("node", || take_away(bpffs.path()).unwrap());
        assert!(taken().is_empty(), "there is nothing yet");
        // A qdisc that is another's stays.
        let qdiscs = || {
            let listed = Command::new("tc").args(["-n", &world.name("node"), "qdisc"]).output().unwrap();
            String::from_utf8(listed.stdout).unwrap().lines().filter(|line| line.contains("clsact")).count()
        };
        let other = format!("-n {} qdisc add dev vclient clsact", world.name("node"));
        assert!(Command::new("tc").args(other.split_whitespace()).status().unwrap().success());
        Process::spawn(&world, &bpffs, log.path(), attachment, "narrow").ready().kill();
        let refused = world.connect_within("client", SERVER[0], 9090, Duration::from_millis(300));
        refused.expect_err("enforced, without an agent");
        let told = taken();
        assert_eq!(told.failed, [] as [String; 0]);
        let lost: Vec<_> = told.links.values().map(|link| (&*link.name, link.tcx, link.filters, link.qdisc)).collect();
        match attachment {
            Attachment::Tcx => assert_eq!(lost, [("vclient", 2, 0, 0), ("vserver", 2, 0, 0)]),
            Attachment::Clsact => assert_eq!(lost, [("vclient", 0, 2, 0), ("vserver", 0, 2, 1)]),
        }
        assert_eq!(qdiscs(), 1);
        assert_eq!(told.layouts.len(), 1);
        assert!(!bpffs.layout().exists());
        talk(&mut world.connect("client", SERVER[0], 9090).unwrap()).expect("nothing is enforced any more");
        assert!(taken().is_empty(), "nothing is left");
        // And a new start begins from nothing.
        let agent =
            start_with(&world, log.path(), datapath::Options { attachment: Some(attachment), ..bpffs.options() });
        agent.update(&enforced(policy())).unwrap();
        let refused = world.connect_within("client", SERVER[0], 9090, Duration::from_millis(300));
        refused.expect_err("enforced again");
        agent.stop().unwrap();
    }
}
