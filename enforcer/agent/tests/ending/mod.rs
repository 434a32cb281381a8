//! A namespace that is being deleted, on the running kernel: isolated to its last packet, whatever is heard first and
//! whoever is killed meanwhile.

use crate::{
    restart::{Process, enforced, nothing_arrives, probes},
    world::{Bpffs, SETTLES_AFTER, World, attachments, policy, start_with},
};
use model::{
    cluster::{Cluster, Source},
    policy::PolicySet,
};
use std::{fs, thread, time::Instant};

/// The cluster with its namespace's object, and these policies.
fn given(policies: PolicySet) -> Cluster {
    let mut cluster = enforced(policies);
    let source = || Some(Source { file: "cluster.yaml".into(), line: 1 });
    cluster.namespaces.values_mut().for_each(|namespace| namespace.source = source());
    cluster
}

/// Its namespace marked, and its policies gone.
fn ends() -> Cluster {
    let mut cluster = given(PolicySet::default());
    cluster.namespaces.values_mut().for_each(|namespace| namespace.terminating = true);
    cluster
}

/// Its namespace's object gone too, and with it the mode that is its label; pods are left.
fn gone() -> Cluster {
    Cluster { namespaces: Default::default(), ..ends() }
}

#[test]
fn a_namespace_that_is_being_deleted_stays_isolated_though_its_agent_is_killed() {
    kernel_or_skip!();
    let (world, bpffs, log) = (World::new(), Bpffs::mount(), tempfile::tempdir().unwrap());
    let probes = probes(&world);
    probes.1.goes_on(20);
    // The agent of another process, and killed: it knew of no end.
    let first = Process::spawn(&world, &bpffs, log.path(), attachments()[0], "narrow").ready();
    nothing_arrives(&probes, || {
        first.kill();
        for left in [ends, gone, gone] {
            let agent = start_with(&world, log.path(), bpffs.options());
            let update = agent.update(&left()).unwrap();
            assert_eq!(update.kept.ending, ["shop/server"]);
            thread::sleep(2 * SETTLES_AFTER);
            agent.leave().unwrap();
        }
    });
    // What was kept is damaged: nobody knows what was allowed, and all of the namespace stays closed.
    let kept = log.path().join("last-policies.yaml");
    let text = fs::read_to_string(&kept).unwrap();
    fs::write(&kept, text.replace("8080", "7777")).unwrap();
    let agent = nothing_arrives(&probes, || {
        let agent = start_with(&world, log.path(), bpffs.options());
        agent.update(&ends()).unwrap();
        agent
    });
    let told = agent.report().unwrap();
    assert_eq!(told.kept_policies[0].policy, "shop/podfence-not-known");
    // A namespace of that name that does not end has no policy, and is open.
    agent.update(&given(PolicySet::default())).unwrap();
    probes.1.goes_on(20);
    agent.stop().unwrap();
}

#[test]
fn a_policys_end_that_is_heard_before_its_namespaces_lets_no_packet_through() {
    kernel_or_skip!();
    let (world, bpffs, log) = (World::new(), Bpffs::mount(), tempfile::tempdir().unwrap());
    let probes = probes(&world);
    probes.1.goes_on(20);
    let agent = start_with(&world, log.path(), bpffs.options());
    agent.update(&given(policy())).unwrap();
    nothing_arrives(&probes, || {
        let update = agent.update(&given(PolicySet::default())).unwrap();
        assert_eq!(update.kept.settling, ["shop/server"]);
        thread::sleep(SETTLES_AFTER / 2);
        agent.update(&ends()).unwrap();
        thread::sleep(2 * SETTLES_AFTER);
        agent.update(&gone()).unwrap();
    });
    // The same without an end of the namespace: the policy was deleted, and that opens, a moment later.
    agent.update(&given(policy())).unwrap();
    let deleted = Instant::now();
    nothing_arrives(&probes, || drop(agent.update(&given(PolicySet::default())).unwrap()));
    probes.1.goes_on(1);
    let opened = deleted.elapsed();
    println!("a deleted policy opened after {opened:?}, put off for {SETTLES_AFTER:?}");
    assert!(opened >= SETTLES_AFTER);
    assert_eq!(agent.report().unwrap().kept_policies, []);
    agent.stop().unwrap();
}
