//! Workloads that no policy isolates, and those that are isolated from DNS.

use super::{Found, Subject, count, kinds, some_of};
use crate::{
    reach::{Direction, Reach},
    sets::SetId,
    universe::{End, EndId, Universe},
};
use model::{
    cluster::{Pod, Service, Source, WorkloadKey},
    labels::Selector,
    policy::Protocol,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

const DNS: u16 = 53;

pub(super) fn look(subject: &Subject<'_, '_>, found: &mut Found) {
    let at = places(subject);
    for direction in [Direction::Ingress, Direction::Egress] {
        free(subject, direction, &at, found);
    }
    dns(subject, found);
}

/// Where each workload was read.
fn places(subject: &Subject<'_, '_>) -> HashMap<WorkloadKey, Source> {
    let cluster = subject.input.cluster;
    let mut all = HashMap::new();
    for (pod, _) in subject.universe.pods(0) {
        let key = cluster.root_owner(pod);
        let own = cluster.workloads.get(&key).and_then(|workload| workload.source.as_ref());
        if let Some(source) = own.or(pod.source.as_ref()) {
            all.entry(key).or_insert_with(|| source.clone());
        }
    }
    all
}

/// The workloads of a namespace that policies can isolate.
#[derive(Default)]
struct Namespace<'s> {
    all: usize,
    /// Those that are free, and whether only some of their pods are.
    free: Vec<(&'s WorkloadKey, bool)>,
}

fn free(subject: &Subject<'_, '_>, direction: Direction, at: &HashMap<WorkloadKey, Source>, found: &mut Found) {
    let kind = match direction {
        Direction::Ingress => kinds::INGRESS_FREE,
        Direction::Egress => kinds::EGRESS_FREE,
    };
    let name = match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let mut by_namespace: BTreeMap<&str, Namespace<'_>> = BTreeMap::new();
    for (key, ends) in subject.universe.workloads(0) {
        let covered = ends.iter().filter(|id| !is_host_network(subject.universe, **id));
        let isolated: Vec<bool> = covered.map(|id| subject.reach.isolated_by(direction, *id).is_some()).collect();
        if isolated.is_empty() {
            continue;
        }
        let here = by_namespace.entry(&key.namespace).or_default();
        here.all += 1;
        if isolated.contains(&false) {
            here.free.push((key, isolated.contains(&true)));
        }
    }
    for (namespace, Namespace { all, free }) in by_namespace {
        let whole = free.len() == all && all > 1 && free.iter().all(|(_, partly)| !partly);
        if whole {
            let own = subject.input.cluster.namespaces.get(namespace).and_then(|namespace| namespace.source.as_ref());
            let source = own.or_else(|| free.first().and_then(|(key, _)| at.get(*key)));
            let what = format!("none of its {} is isolated for {name}", count(all, "workload"));
            found.object(kind, format!("Namespace {namespace}"), source, what);
            continue;
        }
        for (key, partly) in free {
            let what = match partly {
                true => format!("some of its pods are not isolated for {name}"),
                false => format!("not isolated for {name}"),
            };
            found.object(kind, format!("{} {}/{}", key.kind, key.namespace, key.name), at.get(key), what);
        }
    }
}

fn is_host_network(universe: &Universe<'_>, id: EndId) -> bool {
    matches!(universe.end(id), End::Pods(class) if class.host_network)
}

/// What DNS the pods of one set of policies reach.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Dns {
    Nothing,
    UdpAlone,
    /// By both, or it needs none.
    Both,
}

fn dns(subject: &Subject<'_, '_>, found: &mut Found) {
    let servers = servers(subject);
    // By the policies that isolate them: the workloads, and the least that any of them reaches.
    let mut by_policies: BTreeMap<&[usize], (BTreeSet<String>, Dns)> = BTreeMap::new();
    let mut answers: HashMap<EndId, Dns> = HashMap::new();
    for (key, ends) in subject.universe.workloads(0) {
        for id in ends {
            let Some(policies) = subject.reach.isolated_by(Direction::Egress, *id) else { continue };
            let dns = *answers.entry(*id).or_insert_with(|| reached(subject.reach, *id, servers.as_ref()));
            if dns == Dns::Both {
                continue;
            }
            let (names, least) = by_policies.entry(policies).or_insert_with(|| (BTreeSet::new(), dns));
            names.insert(format!("{} {}", key.kind, key.name));
            *least = (*least).min(dns);
        }
    }
    for (policies, (names, least)) in by_policies {
        let Some(policy) = policies.first().and_then(|index| subject.policies().get(*index)) else { continue };
        let names = Vec::from_iter(names);
        let (kind, what) = match least {
            Dns::Nothing => (kinds::NO_DNS, format!("no DNS for {}", some_of(&names, 5))),
            _ => (kinds::NO_DNS_TCP, format!("DNS by UDP alone for {}", some_of(&names, 5))),
        };
        let what = match &policies[1..] {
            [] => what,
            others => format!("{what} ({} isolate them as well)", other_policies(subject, others)),
        };
        found.policy(kind, policy, what).field = "spec.egress".to_owned();
    }
}

fn other_policies(subject: &Subject<'_, '_>, others: &[usize]) -> String {
    let names = others.iter().filter_map(|index| subject.policies().get(*index)).map(|policy| policy.name.clone());
    some_of(&names.collect::<Vec<_>>(), 3)
}

/// The ends of pods that serve DNS, by the label of the cluster's DNS, or because a Service leads its
/// UDP port 53 to them; `None` when the input shows none.
fn servers(subject: &Subject<'_, '_>) -> Option<BTreeSet<EndId>> {
    let is_dns = |service: &Service| {
        let by_udp = service.ports.iter().any(|port| port.port == DNS && port.protocol == Protocol::Udp);
        by_udp && !service.selector.is_empty()
    };
    let services: Vec<_> = subject.input.cluster.services.iter().filter(|(_, service)| is_dns(service)).collect();
    let serves = |pod: &Pod| {
        pod.labels.get("k8s-app").is_some_and(|app| matches!(app.as_str(), "kube-dns" | "coredns"))
            || services.iter().any(|((namespace, _), service)| {
                *namespace == pod.namespace && Selector::of(service.selector.clone()).matches(&pod.labels)
            })
    };
    let serving = subject.universe.pods(0).iter().filter(|(pod, _)| serves(pod));
    let ends: BTreeSet<EndId> = serving.flat_map(|(_, ends)| ends.iter().copied()).collect();
    (!ends.is_empty()).then_some(ends)
}

/// Whether DNS is missing: not for who serves it, nor for who may ask nobody at all.
///
/// A DNS server is one of the pods that serve it, or an address: of a node's cache, or outside. Where
/// no pod is known to serve it, it may be anyone.
fn reached(reach: &Reach<'_, '_>, from: EndId, servers: Option<&BTreeSet<EndId>>) -> Dns {
    let universe = reach.universe();
    let may_serve = |id: EndId| match (universe.end(id), servers) {
        (End::Block(_), _) | (_, None) => true,
        (End::Pods(class), Some(servers)) => class.host_network || servers.contains(&id),
        (End::Nobody(_), Some(_)) => false,
    };
    let row = reach.row(from);
    let is_server = servers.is_some_and(|servers| servers.contains(&from));
    // Who may ask nobody has no names to resolve.
    if is_server || row.iter().all(|allowed| *allowed == SetId::NONE) {
        return Dns::Both;
    }
    let mut udp = false;
    for (to, allowed) in universe.ends().map(|(id, _)| id).zip(row) {
        if allowed == SetId::NONE || !may_serve(to) || !reach.sets().contains(allowed, Protocol::Udp, DNS) {
            continue;
        }
        udp = true;
        if reach.sets().contains(allowed, Protocol::Tcp, DNS) {
            return Dns::Both;
        }
    }
    if udp { Dns::UdpAlone } else { Dns::Nothing }
}
