//! What a cluster means, by the reference evaluator: pods by their policies, addresses of Services by their backends.

use flow::Direction;
use model::{
    cluster::{Cluster, Frontend, Pod},
    policy::{NetworkPolicy, PolicySet, Protocol},
    reference::{Endpoint, Reference},
};
use std::{net::IpAddr, sync::Arc};
use tests::{
    objects::{NODE, PORTS},
    random::Random,
};
use verdict::Mode;

/// Ends beside the pods.
const OTHERS: [&str; 6] = ["10.0.0.200", "203.0.113.9", NODE[0], "fd00::c8", "2001:db8::9", NODE[1]];

/// A question to policy, at one pod's hook.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) uid: Arc<str>,
    pub(crate) own: IpAddr,
    pub(crate) peer: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) direction: Direction,
}

/// A cluster with what is asked of it again and again.
pub(crate) struct Meaning<'a> {
    cluster: &'a Cluster,
    frontends: Vec<Frontend>,
    ends: Vec<IpAddr>,
    /// The policies in force.
    pub(crate) in_force: PolicySet,
    /// The same where staged ones replace or join them.
    pub(crate) staged: PolicySet,
}

impl<'a> Meaning<'a> {
    pub(crate) fn of(cluster: &'a Cluster) -> Self {
        let frontends = cluster.frontends();
        let others = OTHERS.iter().map(|text| text.parse().expect("an address"));
        let pods = cluster.pods.iter().flat_map(|pod| pod.addresses.iter().copied());
        let ends = pods.chain(others).chain(frontends.iter().map(|frontend| frontend.address)).collect();
        let replaced = |policy: &&NetworkPolicy| {
            !cluster.staged.policies.iter().any(|by| (&by.namespace, &by.name) == (&policy.namespace, &policy.name))
        };
        let kept = cluster.policies.policies.iter().filter(replaced).cloned();
        let mut policies: Vec<_> = kept.chain(cluster.staged.policies.iter().cloned()).collect();
        policies.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Self { cluster, frontends, ends, in_force: cluster.policies.clone(), staged: PolicySet { policies } }
    }

    pub(crate) fn pod(&self, uid: &str) -> &'a Pod {
        self.cluster.pods.iter().find(|pod| pod.uid == uid).expect("a pod that was published")
    }

    /// The mode of a pod: its namespace's label, else enforce.
    pub(crate) fn mode(&self, pod: &Pod) -> Mode {
        let namespace = self.cluster.namespaces.get(&pod.namespace);
        match namespace.and_then(|namespace| namespace.labels.get("podfence.dev/mode")).map(String::as_str) {
            Some("learn") => Mode::Learn,
            Some("audit") => Mode::Audit,
            _ => Mode::Enforce,
        }
    }

    pub(crate) fn is_service(&self, address: IpAddr) -> bool {
        self.frontends.iter().any(|frontend| frontend.address == address)
    }

    /// Whether a staged policy selects the pod.
    pub(crate) fn staged_selects(&self, pod: &Pod) -> bool {
        selects(&self.cluster.staged, pod, |_| true)
    }

    /// Some opening at this pod's hook; `None` where the draw came to nothing.
    pub(crate) fn opening(&self, pod: &Pod, random: &mut Random) -> Option<Opening> {
        let own = random.one(&pod.addresses);
        let peer = random.one(&self.ends);
        if peer.is_ipv4() != own.is_ipv4() || pod.addresses.contains(&peer) {
            return None;
        }
        let uid = pod.uid.as_str().into();
        let (mut protocol, mut port) = (random.one(&Protocol::ALL), random.one(&PORTS));
        let mut direction = random.one(&[Direction::Inbound, Direction::Outbound]);
        if let Some(frontend) = self.frontends.iter().find(|frontend| frontend.address == peer) {
            direction = Direction::Outbound;
            if !random.once_in(4) {
                (protocol, port) = (frontend.protocol, frontend.port);
            }
        }
        Some(Opening { uid, own, peer, protocol, port, direction })
    }

    /// Whether these policies let it pass at this pod's hook.
    pub(crate) fn allows(&self, policies: &PolicySet, opening: &Opening) -> bool {
        let Opening { own, peer, protocol, port, .. } = *opening;
        let reference = Reference::new(self.cluster, policies);
        let pod = self.pod(&opening.uid);
        let subject = Endpoint::Pod(pod, own);
        if opening.direction == Direction::Inbound {
            return reference.decide(self.end(peer), subject, Some(protocol), port).ingress.allows();
        }
        let egress =
            |to: IpAddr, port: u16| reference.decide(subject, self.end(to), Some(protocol), port).egress.allows();
        let at = |frontend: &&Frontend| (frontend.address, frontend.protocol, frontend.port) == (peer, protocol, port);
        let Some(frontend) = self.frontends.iter().find(at) else { return egress(peer, port) };
        if !selects(policies, pod, |policy| policy.egress.is_some()) {
            return true;
        }
        // Every backend but the client itself must be allowed, and one must be there.
        let mut others = frontend.backends.iter().filter(|backend| !pod.addresses.contains(&backend.address));
        !frontend.backends.is_empty() && others.all(|backend| egress(backend.address, backend.port))
    }

    fn end(&self, address: IpAddr) -> Endpoint<'a> {
        let holder = self.cluster.pods.iter().find(|pod| pod.addresses.contains(&address));
        holder.map_or(Endpoint::Address(address), |pod| Endpoint::Pod(pod, address))
    }
}

fn selects(policies: &PolicySet, pod: &Pod, of: impl Fn(&NetworkPolicy) -> bool) -> bool {
    let mut selecting = policies
        .policies
        .iter()
        .filter(|policy| policy.namespace == pod.namespace && policy.pod_selector.matches(&pod.labels));
    selecting.any(of)
}
