//! Who owned an address when: (address, from, until) -> pod -> root owner.
//!
//! Always holds: an answer names a pod only if it alone held the address at that time. Kubernetes
//! stamps whole seconds, so an end at second N may be any moment of N; a stamp with a fraction is
//! taken as exact.

use crate::{
    cluster::{Cluster, Pod, TargetPort, WorkloadKey},
    record::{End, Entity, UnixNanos},
};
use ipnet::IpNet;
use jiff::Timestamp;
use std::{collections::HashMap, net::IpAddr, sync::Arc};

const SECOND: UnixNanos = 1_000_000_000;

/// The inventory's answer to "whose address was this then?". Built from a [`Cluster`] that may hold
/// ended pods; asked with the flow's own time.
#[derive(Clone, Debug, Default)]
pub struct AddressView {
    pods: HashMap<IpAddr, Vec<Claim>>,
    nodes: HashMap<IpAddr, NodeClaim>,
    services: HashMap<IpAddr, ServiceClaim>,
    pod_cidrs: Vec<IpNet>,
}

/// A pod held an address from `from` until just before `until`.
#[derive(Clone, Debug)]
struct Claim {
    from: UnixNanos,
    until: UnixNanos,
    owner: Arc<Owner>,
}

#[derive(Debug)]
struct Owner {
    namespace: Arc<str>,
    name: Arc<str>,
    uid: Arc<str>,
    workload: Arc<WorkloadKey>,
    /// (IP protocol number, port): declared by its containers, or the target of a Service.
    serves: Vec<(u8, u16)>,
}

#[derive(Clone, Debug)]
struct NodeClaim {
    name: Arc<str>,
    /// Ports of hostNetwork pods with their times.
    serves: Vec<(UnixNanos, UnixNanos, u8, u16)>,
}

#[derive(Clone, Debug)]
struct ServiceClaim {
    namespace: Arc<str>,
    name: Arc<str>,
    serves: Vec<(u8, u16)>,
}

/// What the view says about one address at one time.
enum Answer<'v> {
    Pod(&'v Owner),
    Node(&'v NodeClaim),
    Service(&'v ServiceClaim),
    Outside,
    Unknown(&'static str),
}

impl AddressView {
    /// The view of a cluster.
    pub fn new(cluster: &Cluster) -> Self {
        let mut view = Self::default();
        for (name, node) in &cluster.nodes {
            let claim = NodeClaim { name: name.as_str().into(), serves: Vec::new() };
            view.nodes.extend(node.addresses.iter().map(|ip| (ip.to_canonical(), claim.clone())));
            view.pod_cidrs.extend(node.pod_cidrs.iter().map(IpNet::trunc));
        }
        for ((namespace, name), service) in &cluster.services {
            let claim = ServiceClaim {
                namespace: namespace.as_str().into(),
                name: name.as_str().into(),
                serves: service.ports.iter().map(|p| (p.protocol.number(), p.port)).collect(),
            };
            let ips = service.cluster_ips.iter().chain(&service.external_ips);
            view.services.extend(ips.map(|ip| (ip.to_canonical(), claim.clone())));
        }
        let served = ServicePorts::new(cluster);
        for pod in &cluster.pods {
            view.claim(cluster, pod, &served);
        }
        view
    }

    fn claim(&mut self, cluster: &Cluster, pod: &Pod, services: &ServicePorts<'_>) {
        let (from, until) = held(pod);
        let mut serves: Vec<_> = pod.ports.iter().map(|p| (p.protocol.number(), p.port)).collect();
        services.targets(pod, &mut serves);
        if pod.host_network {
            // Its node need not be in the inventory for its address to be a node's.
            for ip in &pod.addresses {
                let node = self.nodes.entry(ip.to_canonical());
                let node = node.or_insert_with(|| NodeClaim { name: pod.node.as_str().into(), serves: Vec::new() });
                node.serves.extend(serves.iter().map(|(protocol, port)| (from, until, *protocol, *port)));
            }
            return;
        }
        let owner = Arc::new(Owner {
            namespace: pod.namespace.as_str().into(),
            name: pod.name.as_str().into(),
            uid: pod.uid.as_str().into(),
            workload: Arc::new(cluster.root_owner(pod)),
            serves,
        });
        for ip in &pod.addresses {
            let claim = Claim { from, until, owner: owner.clone() };
            self.pods.entry(ip.to_canonical()).or_default().push(claim);
        }
    }

    /// Who had this address at this time (with `port` copied into the answer).
    pub fn end(&self, ip: IpAddr, port: u16, at: UnixNanos) -> End {
        let none = End {
            ip,
            port,
            entity: Entity::Unknown,
            namespace: None,
            name: None,
            pod_uid: None,
            workload: None,
            unknown_reason: None,
        };
        match self.answer(ip, at) {
            Answer::Pod(owner) => End {
                entity: Entity::Pod,
                namespace: Some(owner.namespace.clone()),
                name: Some(owner.name.clone()),
                pod_uid: Some(owner.uid.clone()),
                workload: Some(owner.workload.clone()),
                ..none
            },
            Answer::Node(node) => End { entity: Entity::Node, name: Some(node.name.clone()), ..none },
            Answer::Service(service) => End {
                entity: Entity::Service,
                namespace: Some(service.namespace.clone()),
                name: Some(service.name.clone()),
                ..none
            },
            Answer::Outside => End { entity: Entity::Outside, ..none },
            Answer::Unknown(reason) => End { unknown_reason: Some(reason), ..none },
        }
    }

    /// Whether `port` of `protocol` (IP number) at this address was a Service's or a container's
    /// declared port then, or the port of a Service's backend.
    pub fn serves(&self, ip: IpAddr, protocol: u8, port: u16, at: UnixNanos) -> bool {
        match self.answer(ip, at) {
            Answer::Pod(owner) => owner.serves.contains(&(protocol, port)),
            Answer::Service(service) => service.serves.contains(&(protocol, port)),
            Answer::Node(node) => node
                .serves
                .iter()
                .any(|(from, until, p, number)| (*from..*until).contains(&at) && (*p, *number) == (protocol, port)),
            Answer::Outside | Answer::Unknown(_) => false,
        }
    }

    fn answer(&self, ip: IpAddr, at: UnixNanos) -> Answer<'_> {
        let ip = ip.to_canonical();
        if let Some(node) = self.nodes.get(&ip) {
            return Answer::Node(node);
        }
        if let Some(claims) = self.pods.get(&ip) {
            let mut then = claims.iter().filter(|c| (c.from..c.until).contains(&at));
            return match (then.next(), then.next()) {
                (Some(claim), None) => Answer::Pod(&claim.owner),
                (Some(_), Some(_)) => Answer::Unknown("ambiguous"),
                (None, _) => Answer::Unknown("outside-window"),
            };
        }
        if let Some(service) = self.services.get(&ip) {
            return Answer::Service(service);
        }
        if self.pod_cidrs.iter().any(|cidr| cidr.contains(&ip)) {
            return Answer::Unknown("never-seen");
        }
        Answer::Outside
    }
}

/// From when until when (exclusive) the pod held its addresses.
fn held(pod: &Pod) -> (UnixNanos, UnixNanos) {
    let from = pod.started.map_or(UnixNanos::MIN, nanos);
    let until = match pod.ended {
        Some(end) if end.subsec_nanosecond() == 0 => nanos(end).saturating_add(SECOND),
        Some(end) => nanos(end),
        // It holds none any more, and nobody says since when: it owned the address at other times only.
        None if pod.completed => from,
        None => UnixNanos::MAX,
    };
    (from, until)
}

fn nanos(time: Timestamp) -> UnixNanos {
    let (least, most) = (i128::from(UnixNanos::MIN), i128::from(UnixNanos::MAX));
    UnixNanos::try_from(time.as_nanosecond().clamp(least, most)).unwrap_or(UnixNanos::MAX)
}

/// Services by namespace, to find the ports at which they reach a pod.
struct ServicePorts<'c>(HashMap<&'c str, Vec<&'c crate::cluster::Service>>);

impl<'c> ServicePorts<'c> {
    fn new(cluster: &'c Cluster) -> Self {
        let mut by_namespace: HashMap<&str, Vec<_>> = HashMap::new();
        for ((namespace, _), service) in &cluster.services {
            by_namespace.entry(namespace).or_default().push(service);
        }
        Self(by_namespace)
    }

    fn targets(&self, pod: &Pod, serves: &mut Vec<(u8, u16)>) {
        let here = self.0.get(pod.namespace.as_str()).into_iter().flatten();
        for service in here.filter(|service| service.selects(&pod.labels)) {
            // Named targets are container ports, which are counted already.
            serves.extend(service.ports.iter().filter_map(|p| match p.target {
                TargetPort::Number(port) => Some((p.protocol.number(), port)),
                TargetPort::Name(_) => None,
            }));
        }
        serves.sort_unstable();
        serves.dedup();
    }
}
