//! The whole path of one node on the running kernel: two pods' namespaces behind veths, real sockets,
//! an agent in the node's namespace. Learn, audit, enforce, revoke, and nothing left behind.

#[macro_use]
mod world;
mod away;
mod big;
mod ending;
mod foreign;
mod halves;
mod links;
mod path_mtu;
mod prefixes;
mod probes;
mod restart;
mod sizes;
mod upgrade;

use datapath::Attachment;
use flowlog::read_records;
use model::record::{DirectionRule, EndReason, FlowRecord, FlowVerdict, ObservedAt};
use std::{
    fs,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};
use verdict::Reason;
use world::{Bpffs, CLIENT, SERVER, World, cluster, ip, links_pinned, policy, start, start_with, talk};

fn rows(log: &std::path::Path) -> Vec<FlowRecord> {
    read_records(log).unwrap().0
}

/// Law 7 as far as user space can hold it: of each reason that makes events, and of each entry.
fn law_7(status: &agent::Status, told: &[FlowRecord]) {
    for ((reason, direction, dropped), counter) in &status.counters.verdicts {
        if reason.reports() {
            let sum = counter.events + counter.suppressed + counter.lost;
            assert_eq!(sum, counter.packets, "{reason:?} {direction:?} {dropped}");
        }
    }
    let made: u64 = status.counters.verdicts.values().map(|counter| counter.events).sum();
    assert_eq!(made + status.counters.ended.events, status.events, "every event was read");
    assert_eq!((status.lost_entries, status.unreadable_events), (0, 0));
    let entries: u64 = status.counted.values().map(|counted| counted.packets()).sum();
    let in_rows: u64 = told.iter().map(|row| row.event.packets_to_server + row.event.packets_to_client).sum();
    assert_eq!(in_rows, entries + status.rows_without_entry);
}

#[test]
fn learn_audit_enforce_and_revoke_on_the_running_kernel() {
    kernel_or_skip!();
    let world = World::new();
    let log = tempfile::tempdir().unwrap();
    world.serve(8080);
    world.serve(9090);
    let agent = start(&world, log.path());

    let update = agent.update(&cluster("learn")).unwrap();
    assert_eq!(update.covered.len(), 2, "{update:?}");
    assert!(update.not_covered.is_empty(), "{update:?}");
    for family in [0, 1] {
        for port in [8080, 9090] {
            talk(&mut world.connect("client", SERVER[family], port).unwrap()).unwrap();
        }
    }

    // Opened before any policy: what nothing allows is revoked when enforcing begins.
    let mut standing = world.connect("client", SERVER[0], 9090).unwrap();
    talk(&mut standing).unwrap();
    let mut kept = world.connect("client", SERVER[0], 8080).unwrap();
    talk(&mut kept).unwrap();

    // Audit, with the policy in force: the other port is logged and passes.
    let mut audited = cluster("audit");
    audited.policies = policy();
    agent.update(&audited).unwrap();
    for family in [0, 1] {
        talk(&mut world.connect("client", SERVER[family], 8080).unwrap()).unwrap();
        talk(&mut world.connect("client", SERVER[family], 9090).unwrap()).unwrap();
    }

    let mut enforced = cluster("enforce");
    enforced.policies = policy();
    agent.update(&enforced).unwrap();
    talk(&mut kept).expect("what is allowed goes on");
    talk(&mut standing).expect_err("what is not allowed ends");
    for family in [0, 1] {
        let allowed = world.connect("client", SERVER[family], 8080);
        let verdicts = agent.status().unwrap().counters.verdicts;
        talk(&mut allowed.unwrap_or_else(|e| panic!("{e}: {verdicts:?}"))).unwrap();
        let refused = world.connect_within("client", SERVER[family], 9090, Duration::from_secs(1));
        refused.expect_err("the other port is closed");
    }
    let during = agent.status().unwrap();
    assert!(during.counters.dropped() > 0);

    let stopped = agent.stop().unwrap();
    let rows = rows(log.path());
    law_7(&stopped.status, &rows);
    assert_eq!(stopped.status.log_failures, (0, None));

    let of = |at: ObservedAt, verdict: FlowVerdict, port: u16| {
        rows.iter().filter(|r| r.event.observed_at == at && r.event.verdict == verdict && r.server.port == port).count()
    };
    for family in [4, 6] {
        let v4 = |row: &&FlowRecord| row.server.ip.is_ipv4() == (family == 4);
        let learned = rows.iter().filter(v4).find(|row| {
            row.event.observed_at == ObservedAt::Server
                && row.event.verdict == FlowVerdict::Allow
                && row.server.port == 9090
        });
        let learned = learned.expect("the learned flow is in the log");
        assert_eq!(learned.event.direction_rule, DirectionRule::Syn);
        assert_eq!(&*learned.client.name.clone().unwrap(), "client");
        assert_eq!(&*learned.event.reason, Reason::NotIsolated.name());
    }
    assert!(of(ObservedAt::Client, FlowVerdict::Allow, 8080) > 0, "the client's hook saw it too");
    assert!(of(ObservedAt::Server, FlowVerdict::AuditDeny, 9090) >= 2, "would-be denials of both families");
    assert!(of(ObservedAt::Server, FlowVerdict::Deny, 9090) >= 2, "denials of both families");
    assert!(of(ObservedAt::Server, FlowVerdict::Revoked, 9090) >= 1, "the standing connection was revoked");
    assert!(rows.iter().any(|row| row.event.end_reason == EndReason::Fin));
    let by_rule = rows.iter().filter(|row| &*row.event.reason == Reason::AllowedByRule.name());
    let by_rule: Vec<_> = by_rule.map(|row| row.event.rule.clone().expect("the rule is named")).collect();
    assert!(by_rule.iter().all(|rule| &*rule.name == "server" && &*rule.rule == "ingress[0]"), "{by_rule:?}");

    // Detached: what was closed is open again, since no policy is left on the node.
    talk(&mut world.connect("client", SERVER[0], 9090).unwrap()).unwrap();
}

#[test]
fn a_staged_policy_is_judged_beside_the_one_in_force_and_denies_nothing() {
    kernel_or_skip!();
    let world = World::new();
    let log = tempfile::tempdir().unwrap();
    world.serve(9090);
    let agent = start(&world, log.path());
    let mut staged = cluster("enforce");
    staged.staged = policy();
    agent.update(&staged).unwrap();
    talk(&mut world.connect("client", SERVER[0], 9090).unwrap()).unwrap();
    let stopped = agent.stop().unwrap();
    let rows = rows(log.path());
    law_7(&stopped.status, &rows);
    let row = rows.iter().find(|row| row.event.observed_at == ObservedAt::Server).unwrap();
    assert_eq!(row.event.verdict, FlowVerdict::Allow);
    assert_eq!(row.event.staged_verdict, FlowVerdict::AuditDeny);
    assert_eq!(stopped.status.counters.dropped(), 0);
}

#[test]
fn an_older_kernels_way_to_attach_enforces_too() {
    kernel_or_skip!();
    let world = World::new();
    let log = tempfile::tempdir().unwrap();
    world.serve(8080);
    world.serve(9090);
    let clsact = datapath::Options { attachment: Some(Attachment::Clsact), ..datapath::Options::default() };
    let agent = start_with(&world, log.path(), clsact);
    let mut enforced = cluster("enforce");
    enforced.policies = policy();
    let update = agent.update(&enforced).unwrap();
    assert_eq!(update.covered.len(), 2, "{update:?}");
    assert_eq!(agent.status().unwrap().attachment, Attachment::Clsact);
    talk(&mut world.connect("client", SERVER[0], 8080).unwrap()).unwrap();
    let refused = world.connect_within("client", SERVER[0], 9090, Duration::from_secs(1));
    refused.expect_err("the other port is closed");
    let stopped = agent.stop().unwrap();
    law_7(&stopped.status, &rows(log.path()));
    talk(&mut world.connect("client", SERVER[0], 9090).unwrap()).expect("nothing is attached any more");
}

#[test]
fn a_pinned_hook_is_taken_over_and_at_the_end_only_the_counter_of_epochs_is_left() {
    kernel_or_skip!();
    let world = World::new();
    world.serve(9090);
    let bpffs = Bpffs::mount();
    let (pinned, layout) = (bpffs.options(), bpffs.layout());
    let log = tempfile::tempdir().unwrap();

    let first = start_with(&world, log.path(), pinned.clone());
    let mut enforced = cluster("enforce");
    enforced.policies = policy();
    first.update(&enforced).unwrap();
    assert_eq!(fs::read_dir(layout.join("links")).unwrap().count(), links_pinned());
    let refuse = || world.connect_within("client", SERVER[0], 9090, Duration::from_secs(1)).expect_err("closed");
    refuse();

    // A second agent takes the hooks over while the first still holds them.
    let other_log = tempfile::tempdir().unwrap();
    let second = start_with(&world, other_log.path(), pinned);
    second.update(&enforced).unwrap();
    refuse();
    let seen = second.stop().unwrap().status;
    assert!(seen.counters.dropped() > 0, "the second agent's program judged");
    first.stop().unwrap();
    let left: Vec<_> = fs::read_dir(&layout).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["epochs"]);
    talk(&mut world.connect("client", SERVER[0], 9090).unwrap()).expect("nothing is attached any more");
}

#[test]
fn a_pod_whose_link_comes_later_is_covered_without_another_update() {
    kernel_or_skip!();
    let world = World::new();
    ip(&format!("-n {} link delete vserver", world.name("node")));
    let log = tempfile::tempdir().unwrap();
    let agent = start(&world, log.path());
    let update = agent.update(&cluster("learn")).unwrap();
    assert_eq!(update.not_covered.len(), 1, "{update:?}");
    ip(&format!("netns delete {}", world.name("server")));
    world.add_pod("server", SERVER);
    world.serve(8080);
    let socket = world.inside("client", || UdpSocket::bind((CLIENT[0], 0)).unwrap());
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // A datagram to a closed port, seen at the server's hook once that is attached.
        socket.send_to(b"?", (SERVER[0], 7777)).unwrap();
        thread::sleep(Duration::from_millis(200));
        agent.flush().unwrap();
        if rows(log.path()).iter().any(|row| row.event.observed_at == ObservedAt::Server) {
            break;
        }
        assert!(Instant::now() < deadline, "the server's link was not found");
    }
}
