//! A link that only one half of connections crosses, as a CNI makes it that hands packets straight into pods
//! (`bpf_redirect_peer`): found, told, and its pod not brought to enforce until it is whole.

use crate::world::{SERVER, World, cluster, ip, start, talk};
use agent::{Agent, Certainty};
use datapath::{ForeignHook, attach_foreign};
use flow::Direction;
use model::cluster::Cluster;
use std::{
    net::TcpStream,
    os::fd::OwnedFd,
    process::Command,
    thread,
    time::{Duration, Instant},
};
use verdict::Mode;

const CLIENT_UID: &str = "uid-client";

/// What the server sends over IPv4 goes straight into the client, past the client's hook, until this is dropped.
fn short_cut(world: &World) -> OwnedFd {
    let node = world.name("node");
    let host = Command::new("ip").args(["-n", &node, "-o", "link", "show", "vserver"]).output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap();
    let mac = host.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap().to_owned();
    // What arrives there was for the server's gateway.
    ip(&format!("-n {} link set eth0 address {mac}", world.name("client")));
    ip(&format!("-n {node} neigh flush dev vclient"));
    world.inside("node", || {
        let [from, to] = ["vserver", "vclient"].map(|name| nix::net::if_::if_nametoindex(name).unwrap());
        // struct bpf_insn: opcode, registers, offset, immediate.
        let instruction = |opcode: u64, registers: u64, offset: u64, immediate: u64| {
            opcode | registers << 8 | offset << 16 | immediate << 32
        };
        let program = [
            instruction(0x61, 0x12, 16, 0),              // r2 = skb->protocol
            instruction(0x55, 0x02, 4, 0x0008),          // IPv4, in network order, or on to what lets it go
            instruction(0xb7, 0x01, 0, u64::from(to)),   // r1 = the client's link
            instruction(0xb7, 0x02, 0, 0),               // r2 = no flags
            instruction(0x85, 0x00, 0, 155),             // bpf_redirect_peer
            instruction(0x95, 0x00, 0, 0),               // exit
            instruction(0xb7, 0x00, 0, u32::MAX.into()), // r0 = TCX_NEXT
            instruction(0x95, 0x00, 0, 0),
        ];
        attach_foreign(ForeignHook::TcxIngress, from, &program).unwrap()
    })
}

/// A connection that has something to say, and is not over.
fn opened(world: &World) -> TcpStream {
    let mut stream = world.connect("client", SERVER[0], 8080).unwrap();
    talk(&mut stream).unwrap();
    stream
}

/// What is known of the client's link, once it is this.
fn becomes(agent: &Agent, expected: Option<Certainty>) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = agent.status().unwrap();
        let known = status.halves.get(CLIENT_UID);
        if known.map(|half| half.certainty) == expected {
            assert!(known.is_none_or(|half| half.missing == Direction::Inbound), "{known:?}");
            assert!(!status.halves.contains_key("uid-server"), "the server's link is whole: {:?}", status.halves);
            return;
        }
        assert!(Instant::now() < deadline, "{expected:?} is not found, but {known:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The mode that the agent's report gives a pod.
fn mode(agent: &Agent, pod: &str) -> String {
    let report = agent.report().unwrap();
    report.endpoints.into_iter().find(|endpoint| endpoint.pod == pod).unwrap().mode
}

/// The client with a label of its own workload, which a bare pod is itself.
fn labelled(mode: &str, own: &str) -> Cluster {
    let mut cluster = cluster(mode);
    cluster.pods[0].labels.insert("podfence.dev/mode".into(), own.into());
    cluster
}

#[test]
fn a_link_that_one_half_crosses_is_shown_and_holds_its_pod_back_until_it_is_whole() {
    kernel_or_skip!();
    let (world, log) = (World::new(), tempfile::tempdir().unwrap());
    world.serve(8080);
    let agent = start(&world, log.path());
    agent.update(&cluster("learn")).unwrap();

    let whole = [opened(&world), opened(&world), opened(&world), opened(&world)];
    thread::sleep(Duration::from_millis(1500));
    assert!(agent.status().unwrap().halves.is_empty(), "a link as it should be is not told of");
    assert!(agent.report().unwrap().half_links.is_empty());
    drop(whole);

    let short_cut = short_cut(&world);
    let half = opened(&world);
    becomes(&agent, Some(Certainty::Shown));
    let report = agent.report().unwrap();
    let told: Vec<_> = report.half_links.iter().map(|link| (&*link.pod, &*link.missing, &*link.certainty)).collect();
    assert_eq!(told, [("shop/client", "in", "shown")]);
    let problem = "pod shop/client: packets to the pod do not cross its hooks: both pods of 10.201.0.1:";
    assert!(report.problems().iter().any(|said| said.starts_with(problem)), "{:?}", report.problems());
    let metrics = agent::metrics_text(&report).unwrap();
    assert!(metrics.contains("podfence_half_links{certainty=\"shown\"} 1\n"), "{metrics}");

    let update = agent.update(&cluster("audit")).unwrap();
    assert_eq!(update.covered["shop/client"], Mode::Audit, "what drops nothing is not held back");
    let update = agent.update(&cluster("enforce")).unwrap();
    assert_eq!(update.covered["shop/client"], Mode::Audit, "it stays where it is");
    assert_eq!(update.covered["shop/server"], Mode::Enforce, "nobody else is held back");
    assert_eq!(mode(&agent, "shop/client"), "audit");
    let problems = agent.report().unwrap().problems();
    assert!(problems.iter().any(|said| said.contains("does not bring it to enforce")), "{problems:?}");

    // Whole again with the first connection that crosses both ways: nobody asks for another update.
    drop((half, short_cut));
    let _whole = opened(&world);
    becomes(&agent, None);
    let deadline = Instant::now() + Duration::from_secs(30);
    while mode(&agent, "shop/client") != "enforce" {
        assert!(Instant::now() < deadline, "it is brought to enforce after all");
        thread::sleep(Duration::from_millis(50));
    }
    agent.stop().unwrap();
}

#[test]
fn what_enforces_goes_on_and_a_workloads_own_label_is_the_operators_word() {
    kernel_or_skip!();
    let (world, log) = (World::new(), tempfile::tempdir().unwrap());
    world.serve(8080);
    let agent = start(&world, log.path());
    agent.update(&cluster("learn")).unwrap();
    let _short_cut = short_cut(&world);
    let _half = opened(&world);
    becomes(&agent, Some(Certainty::Shown));
    assert_eq!(agent.update(&cluster("enforce")).unwrap().covered["shop/client"], Mode::Learn, "held back");
    assert_eq!(agent.update(&labelled("enforce", "enforce")).unwrap().covered["shop/client"], Mode::Enforce);
    // From here on nothing lowers it.
    assert_eq!(agent.update(&cluster("enforce")).unwrap().covered["shop/client"], Mode::Enforce);
    becomes(&agent, Some(Certainty::Shown));
    assert_eq!(agent.update(&cluster("enforce")).unwrap().covered["shop/client"], Mode::Enforce);
    agent.stop().unwrap();
}
