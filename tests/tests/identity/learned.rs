//! What is learned while pods come and go and addresses change hands, held against what truly happened: laws 1, 2, 8,
//! 10, 11 and 13 from the watch's news and the flows on to the policies.

use super::identities::{Hold, LAG, MS, Plan, START, Watcher, World, addresses, plans};
use flow::FlowKey;
use generator::{Generated, Options, Refused, render, synthesize};
use model::{
    cluster::{Cluster, Pod},
    ledger::{Edge, Ledger, Party, Unfit},
    policy::{PolicySet, Protocol},
    record::{DirectionRule, EndReason, Entity, FlowEvent, FlowRecord, FlowSource, FlowVerdict, ObservedAt, UnixNanos},
    reference::{Endpoint, Reference},
};
use observer::attribute;
use proptest::prelude::*;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// How long a flow waits for news of its ends.
const PATIENCE: UnixNanos = LAG + 1_000 * MS;

/// What may be wrong with a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    None,
    Denied,
    DirectionUnknown,
}

/// A flow that took place: who called whom truly, and its record.
#[derive(Clone, Debug)]
struct Flow {
    client: Hold,
    server: Hold,
    defect: Defect,
    record: FlowRecord,
}

impl Flow {
    /// The edge that it truly is of.
    fn edge(&self) -> Edge {
        let party = |hold: &Hold| Party::Workload(Arc::new(hold.workload.clone()));
        let (client, server) = (party(&self.client), party(&self.server));
        Edge { client, server, protocol: flow::TCP, port: self.record.event.key.destination_port }
    }

    /// Whether both ends are known.
    fn is_attributed(&self) -> bool {
        [&self.record.client, &self.record.server].iter().all(|end| end.entity == Entity::Pod)
    }
}

/// Plays a plan and observes its flows; the cluster as it is known in the end.
fn played(plan: &Plan) -> (Vec<Flow>, Cluster) {
    let world = World::of(plan);
    let mut watcher = Watcher::new(plan, &world);
    let mut calls: Vec<_> = plan.calls.iter().collect();
    calls.sort_by_key(|call| call.at);
    let mut flows = Vec::new();
    for (number, call) in calls.into_iter().enumerate() {
        let at = START + (world.until - START) / 65_536 * UnixNanos::from(call.at);
        let speaks = |hold: &&Hold| (hold.speaks_from..hold.speaks_until).contains(&at);
        let speakers: Vec<&Hold> = world.holds.iter().filter(speaks).collect();
        if speakers.is_empty() {
            continue;
        }
        let (client, server) =
            (speakers[call.client.index(speakers.len())], speakers[call.server.index(speakers.len())]);
        if client.uid == server.uid {
            continue;
        }
        let defect = match call.at % 8 {
            0 => Defect::Denied,
            1 => Defect::DirectionUnknown,
            _ => Defect::None,
        };
        let view = watcher.view_at(at + PATIENCE);
        let node: Arc<str> = if number % 2 == 0 { "node-1" } else { "node-2" }.into();
        let record = attribute(view, &node, event(client, server, at, number, defect));
        flows.push(Flow { client: client.clone(), server: server.clone(), defect, record });
    }
    let _ = watcher.view_at(world.until + PATIENCE);
    (flows, watcher.history.into_cluster())
}

fn event(client: &Hold, server: &Hold, at: UnixNanos, number: usize, defect: Defect) -> FlowEvent {
    let family = number / 2 % 2;
    FlowEvent {
        key: FlowKey {
            source: addresses(client.address)[family].into(),
            destination: addresses(server.address)[family].into(),
            source_port: 40_000 + number as u16,
            // At a port that somebody declares a direction becomes known.
            destination_port: if defect == Defect::DirectionUnknown { 8_888 } else { 80 },
            protocol: flow::TCP,
        },
        direction_rule: if defect == Defect::DirectionUnknown { DirectionRule::Unknown } else { DirectionRule::Syn },
        observed_at: ObservedAt::Server,
        flow_start: at,
        start: at,
        end: at + MS,
        packets_to_server: 3,
        packets_to_client: 2,
        bytes_to_server: 300,
        bytes_to_client: 200,
        tcp_flags_to_server: 0x1b,
        tcp_flags_to_client: 0x1b,
        adopted: false,
        verdict: if defect == Defect::Denied { FlowVerdict::AuditDeny } else { FlowVerdict::Allow },
        reason: if defect == Defect::Denied { "no-rule" } else { "allowed-by-rule" }.into(),
        rule: None,
        policy_generation: 1,
        staged_verdict: FlowVerdict::Observed,
        staged_reason: "".into(),
        end_reason: EndReason::Fin,
        rtt_us: None,
        interface: "veth0".into(),
        source: FlowSource::Kernel,
    }
}

fn ledger<'f>(flows: impl IntoIterator<Item = &'f Flow>) -> Ledger {
    let mut ledger = Ledger::default();
    for flow in flows {
        ledger.add(&format!("{}@0", flow.record.node).into(), &flow.record);
    }
    ledger
}

fn generated(ledger: &Ledger, cluster: &Cluster) -> Result<Option<Generated>, TestCaseError> {
    match synthesize(ledger, cluster, &Options::default()) {
        Ok(generated) => Ok(Some(generated)),
        Err(Refused::Indistinguishable(_)) => Ok(None),
        Err(why) => Err(TestCaseError::fail(why.to_string())),
    }
}

/// The living pods of the cluster's own network.
fn living(cluster: &Cluster) -> Vec<&Pod> {
    let lives = |pod: &&Pod| pod.ended.is_none() && !pod.completed && !pod.host_network && !pod.addresses.is_empty();
    cluster.pods.iter().filter(lives).collect()
}

/// Between which workloads of living pods what is open over TCP: asked of the reference, pod by pod.
fn open(policies: &PolicySet, cluster: &Cluster) -> BTreeSet<Edge> {
    let reference = Reference::new(cluster, policies);
    let party = |pod: &Pod| Party::Workload(Arc::new(cluster.root_owner(pod)));
    let mut all = BTreeSet::new();
    for from in living(cluster) {
        for to in living(cluster).into_iter().filter(|to| to.uid != from.uid) {
            let ends = [from, to].map(|pod| Endpoint::Pod(pod, pod.addresses[0]));
            for (first, last) in reference.ports(ends[0], ends[1], Protocol::Tcp) {
                let ports = if last - first > 100 { first..=first } else { first..=last };
                let edge = |port| Edge { client: party(from), server: party(to), protocol: flow::TCP, port };
                all.extend(ports.map(edge));
            }
        }
    }
    all
}

#[derive(Debug, Default)]
struct Asked {
    flows: u64,
    edges: u64,
    open: u64,
    refused: u64,
    apart: u64,
}

fn holds(plan: &Plan, order: &[u64], asked: &RefCell<Asked>) -> Result<(), TestCaseError> {
    let (flows, cluster) = played(plan);
    let all = ledger(&flows);
    let mut asked = asked.borrow_mut();
    // Every edge is one that truly was, and what was not attributed is counted.
    let truth: BTreeSet<Edge> = flows.iter().filter(|f| f.defect == Defect::None).map(Flow::edge).collect();
    for edge in all.edges.keys() {
        prop_assert!(truth.contains(edge), "learned, and nobody ever did so: {edge:?}");
    }
    let left: u64 = all.unfit.values().map(|left| left.sightings.flows()).sum();
    let fed: u64 = all.edges.values().map(|seen| seen.sightings.flows()).sum();
    prop_assert_eq!(fed + left, flows.len() as u64);
    let unknown: u64 =
        all.unfit.iter().filter(|((why, _), _)| *why == Unfit::Unattributed).map(|(_, l)| l.sightings.flows()).sum();
    prop_assert!(unknown >= flows.iter().filter(|f| f.defect == Defect::None && !f.is_attributed()).count() as u64);
    // Law 10: by node, in another order, and each twice.
    let of_node = |name: &str| ledger(flows.iter().filter(|flow| &*flow.record.node == name));
    let mut merged = of_node("node-2");
    for again in ["node-1", "node-2", "node-1"] {
        merged.merge(of_node(again));
    }
    prop_assert_eq!(&merged, &all, "law 10");
    let Some(first) = generated(&all, &cluster)? else {
        asked.apart += 1;
        return Ok(());
    };
    // Law 8: flows, pods and ledgers in another order.
    let mut shuffled: Vec<(u64, &Flow)> = order.iter().copied().cycle().zip(&flows).collect();
    shuffled.sort_by_key(|(key, flow)| (*key, std::cmp::Reverse(flow.record.event.start)));
    let mut turned = cluster.clone();
    turned.pods.reverse();
    let again = generated(&ledger(shuffled.into_iter().map(|(_, flow)| flow)), &turned)?;
    let again = again.ok_or_else(|| TestCaseError::fail("law 8: told apart in one order alone"))?;
    prop_assert_eq!(render::files(&first), render::files(&again), "law 8");
    // Law 13: nothing that was denied, whatever else was seen of it, and nothing of unknown direction.
    let denied: BTreeSet<Edge> =
        flows.iter().filter(|f| f.defect == Defect::Denied && f.is_attributed()).map(Flow::edge).collect();
    let reach = open(&first.policies, &cluster);
    for edge in &denied {
        prop_assert!(!reach.contains(edge), "law 13: {edge:?}");
    }
    // Law 2: what is open was truly done; law 1: what was done, and known to be, is open.
    for edge in &reach {
        prop_assert!(truth.contains(edge) && !denied.contains(edge), "law 2: {edge:?}");
    }
    let attributed = |f: &&Flow| f.defect == Defect::None && f.is_attributed() && !denied.contains(&f.edge());
    let here: BTreeMap<Party, usize> = living(&cluster).into_iter().fold(BTreeMap::new(), |mut all, pod| {
        *all.entry(Party::Workload(Arc::new(cluster.root_owner(pod)))).or_default() += 1;
        all
    });
    for flow in flows.iter().filter(attributed) {
        let edge = flow.edge();
        let pods = |party: &Party| here.get(party).copied().unwrap_or(0);
        let pairs = if edge.client == edge.server {
            pods(&edge.client) > 1
        } else {
            pods(&edge.client) * pods(&edge.server) > 0
        };
        if pairs {
            prop_assert!(reach.contains(&edge), "law 1: {edge:?}");
            asked.open += 1;
        }
    }
    // Law 11: the last flow more closes nothing.
    if let Some((last, before)) = flows.split_last()
        && last.defect == Defect::None
        && let Some(fewer) = generated(&ledger(before), &cluster)?
    {
        prop_assert!(open(&fewer.policies, &cluster).is_subset(&reach), "law 11");
    }
    asked.flows += flows.len() as u64;
    asked.edges += all.edges.len() as u64;
    asked.refused += denied.len() as u64;
    Ok(())
}

#[test]
fn what_is_learned_while_addresses_change_hands_is_what_truly_happened() {
    let asked = RefCell::default();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let input = (any::<bool>().prop_flat_map(plans), prop::collection::vec(any::<u64>(), 7));
    if let Err(why) = runner.run(&input, |(plan, order)| holds(&plan, &order, &asked)) {
        panic!("{why}");
    }
    let asked: Asked = asked.into_inner();
    println!("{asked:?}");
    assert!(asked.flows > 2_000 && asked.edges > 1_000 && asked.open > 300 && asked.refused > 200, "{asked:?}");
}
