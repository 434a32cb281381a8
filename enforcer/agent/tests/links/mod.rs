//! Links whose pod is not known, programs that stand before ours, and everything taken away.

use crate::{
    restart::{Process, enforced},
    world::{Bpffs, SERVER, World, attachments, cluster, ip, policy, start_with, talk},
};
use agent::Agent;
use datapath::{Ahead, Attachment, Datapath, ForeignHook, Ignored, Overtaker, UnknownPod, attach_foreign, take_away};
use flow::Direction;
use model::cluster::Pod;
use std::{
    io::{BufRead, BufReader},
    net::UdpSocket,
    process::{Command, Stdio},
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
    for attachment in attachments() {
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

/// r0 = XDP_PASS; exit (`struct bpf_insn`).
const PASSES: [u64; 2] = [0xb7 | 2 << 32, 0x95];

fn tc(world: &World, arguments: &str) -> String {
    let words = format!("-n {} {arguments}", world.name("node"));
    let done = Command::new("tc").args(words.split_whitespace()).output().unwrap();
    assert!(done.status.success(), "tc {words}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn an_xdp_program_and_a_filter_ahead_are_told_until_they_go() {
    kernel_or_skip!();
    for attachment in attachments() {
        let (world, log) = (World::new(), tempfile::tempdir().unwrap());
        world.serve(8080);
        let options = datapath::Options { attachment: Some(attachment), ..datapath::Options::default() };
        let agent = running(&world, log.path(), options);
        let ahead = || agent.status().unwrap().ahead;
        let told = |what: &str| {
            let report = agent.report().unwrap();
            let problem = format!("link vserver is overtaken: {what}");
            assert!(report.problems().iter().any(|said| said.starts_with(&problem)), "{:?}", report.problems());
            let metrics = agent::metrics_text(&report).unwrap();
            assert!(metrics.contains("podfence_hooks_overtaken 1\n"), "{metrics}");
        };
        thread::sleep(Duration::from_millis(1200));
        assert!(ahead().is_empty(), "nothing stands before ours: {:?}", ahead());
        assert!(agent::metrics_text(&agent.report().unwrap()).unwrap().contains("podfence_hooks_overtaken 0\n"));

        let xdp = world.inside("node", || {
            let link = nix::net::if_::if_nametoindex("vserver").unwrap();
            attach_foreign(ForeignHook::Xdp, link, &PASSES).unwrap()
        });
        within("the XDP program is found", || ahead().contains_key("vserver"));
        let found = ahead().remove("vserver").unwrap();
        let is_xdp = |one: &Ahead| matches!(one.what, Overtaker::Xdp { program } if program != 0);
        assert!(found.len() == 1 && is_xdp(&found[0]) && found[0].direction == Direction::Outbound, "{found:?}");
        told("XDP program");
        talk(&mut world.connect("client", SERVER[0], 8080).unwrap()).expect("both let it pass");
        drop(xdp);
        within("it is forgotten", || ahead().is_empty());

        // A filter with our own priority runs first when it came later. This one takes every packet.
        if attachment == Attachment::Tcx {
            tc(&world, "qdisc add dev vserver clsact");
        }
        let node = world.name("node");
        let words = ["-n", &node, "filter", "add", "dev", "vserver", "ingress", "protocol", "all", "pref", "1"];
        let filter = ["handle", "0x9", "bpf", "bytecode", "1,6 0 0 4294967295"];
        assert!(Command::new("tc").args(words).args(filter).status().unwrap().success());
        match attachment {
            Attachment::Clsact => {
                within("the filter is found", || ahead().contains_key("vserver"));
                let found = ahead().remove("vserver").unwrap();
                let [Ahead { direction: Direction::Outbound, what }] = &found[..] else { panic!("{found:?}") };
                let Overtaker::Filter { kind, priority, handle, .. } = what else { panic!("{what:?}") };
                assert_eq!((kind.as_str(), *priority, *handle), ("bpf", 1, 9));
                told("bpf filter 0x9 of priority 1");
                tc(&world, "filter del dev vserver ingress protocol all pref 1 handle 0x9 bpf");
                within("it is forgotten", || ahead().is_empty());
            }
            // What is a clsact filter runs behind every TCX program.
            Attachment::Tcx => {
                thread::sleep(Duration::from_millis(1500));
                assert!(ahead().is_empty(), "{:?}", ahead());
            }
        }
        agent.stop().unwrap();
    }
}

#[test]
fn what_stands_ahead_is_found_with_three_capabilities() {
    kernel_or_skip!();
    let (world, log) = (World::new(), tempfile::tempdir().unwrap());
    let words = format!(
        "nsenter --net={} setpriv --bounding-set=-all,+bpf,+net_admin,+perfmon --inh-caps=-all --no-new-privs {} \
         --exact links::the_process_of_an_agent_with_three_capabilities --ignored --nocapture",
        world.path("node").display(),
        std::env::current_exe().unwrap().display()
    );
    let words: Vec<&str> = words.split_whitespace().collect();
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .env("PODFENCE_TEST_LOG", log.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("nsenter and setpriv, from util-linux");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut says = |what: &str| lines.any(|line| line.contains(what));
    assert!(says("may: 000000c000001000"), "PERFMON, BPF and NET_ADMIN: bits 38, 39 and 12 of capabilities(7)");
    assert!(says("ahead: []"));
    let xdp = world.inside("node", || {
        let link = nix::net::if_::if_nametoindex("vclient").unwrap();
        attach_foreign(ForeignHook::Xdp, link, &PASSES).unwrap()
    });
    assert!(says("ahead: [\"vclient: XDP program"));
    drop(xdp);
    assert!(says("ahead: []"), "it is forgotten");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
#[ignore = "another test starts it, as a process of its own"]
fn the_process_of_an_agent_with_three_capabilities() {
    let Ok(log) = std::env::var("PODFENCE_TEST_LOG") else { return };
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
    let may = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("may: {}", may.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap());
    let writer = flowlog::Writer::open(log.as_ref(), "test", "n1", flowlog::Options::default(), 0).unwrap();
    let agent = Agent::start(agent::Options::of_node("n1"), writer).unwrap();
    agent.update(&cluster("learn")).unwrap();
    let mut before = None;
    for _ in 0..600 {
        thread::sleep(Duration::from_millis(100));
        let ahead = agent.status().unwrap().ahead;
        let ahead: Vec<String> =
            ahead.iter().flat_map(|(link, all)| all.iter().map(move |one| format!("{link}: {one}"))).collect();
        if before.as_ref() != Some(&ahead) {
            println!("ahead: {ahead:?}");
            before = Some(ahead);
        }
    }
}

#[test]
fn where_a_foreign_filter_has_our_place_the_pod_is_told_as_not_covered() {
    kernel_or_skip!();
    let (world, log) = (World::new(), tempfile::tempdir().unwrap());
    tc(&world, "qdisc add dev vserver clsact");
    let filter = "dev vserver ingress protocol all pref 1";
    tc(&world, &format!("filter add {filter} u32 match u32 0 0 classid 1:1"));
    let options = datapath::Options { attachment: Some(Attachment::Clsact), ..datapath::Options::default() };
    let agent = start_with(&world, log.path(), options);
    let update = agent.update(&cluster("learn")).unwrap();
    let [not_covered] = &update.not_covered[..] else { panic!("{update:?}") };
    assert_eq!(&*not_covered.pod, "shop/server");
    assert!(not_covered.why.contains("vserver"), "{}", not_covered.why);
    tc(&world, &format!("filter del {filter}"));
    let update = agent.update(&cluster("learn")).unwrap();
    assert!(update.not_covered.is_empty(), "{update:?}");
    agent.stop().unwrap();
}

#[test]
fn what_else_hangs_on_the_interface_still_runs() {
    kernel_or_skip!();
    for attachment in attachments() {
        let (world, log) = (World::new(), tempfile::tempdir().unwrap());
        world.serve(8080);
        let options = datapath::Options { attachment: Some(attachment), ..datapath::Options::default() };
        let agent = running(&world, log.path(), options);
        let answered = || {
            let patience = Duration::from_secs(2);
            world.connect_within("client", SERVER[0], 8080, patience).is_ok_and(|mut stream| talk(&mut stream).is_ok())
        };
        assert!(answered(), "the way is open");
        let judged = || agent.status().unwrap().counters.packets(verdict::Reason::NotIsolated);

        // Filters behind ours, each way: what ours lets pass, they take away.
        if attachment == Attachment::Tcx {
            tc(&world, "qdisc add dev vserver clsact");
        }
        ip(&format!("-n {0} link add name sink type veth peer name drain", world.name("node")));
        ip(&format!("-n {0} link set sink up", world.name("node")));
        for hook in ["ingress", "egress"] {
            let filter = format!("dev vserver {hook} protocol all pref 100");
            tc(&world, &format!("filter add {filter} u32 match u32 0 0 action mirred egress redirect dev sink"));
            let before = judged();
            assert!(!answered(), "{attachment:?}: the filter at {hook} runs");
            assert!(judged() > before, "and ours has passed what it took");
            tc(&world, &format!("filter del {filter}"));
            assert!(answered(), "{attachment:?}: open again");
        }
        assert!(agent.status().unwrap().ahead.is_empty(), "none of them stood before ours");

        if attachment == Attachment::Tcx {
            // A TCX program behind ours: r0 = TCX_DROP; exit.
            let drops = [0xb7 | 2 << 32, 0x95];
            let behind = world.inside("node", || {
                let link = nix::net::if_::if_nametoindex("vserver").unwrap();
                attach_foreign(ForeignHook::TcxIngress, link, &drops).unwrap()
            });
            assert!(!answered(), "the program behind ours runs");
            thread::sleep(Duration::from_millis(1200));
            assert!(agent.status().unwrap().ahead.is_empty(), "and does not stand before it");
            drop(behind);
            assert!(answered(), "open again");
        }
        agent.stop().unwrap();
    }
}

#[test]
fn without_an_agent_everything_is_taken_away_and_told() {
    kernel_or_skip!();
    for attachment in attachments() {
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
