//! What a cluster means, by the reference evaluator: pods by their policies, addresses of Services by their backends.

use flow::Direction;
use model::{
    cluster::{Backend, Cluster, Frontend, Pod},
    policy::{NetworkPolicy, PolicySet, Protocol},
    reference::{Endpoint, Reference},
};
use std::{net::IpAddr, sync::Arc};
use tests::{
    objects::{NODE, NODE_NAME, PORTS},
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

/// What policies say of an opening.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// Those of the pod at whose hook it is.
    pub(crate) own: bool,
    /// Those of the client, by UID, where they are asked there too.
    pub(crate) client: Option<(Arc<str>, bool)>,
}

impl Said {
    pub(crate) fn allows(&self) -> bool {
        self.own && self.client.as_ref().is_none_or(|(_, allows)| *allows)
    }

    /// The mode that decides what is done: that of whose policy refuses, of two the stronger. A client that is gone
    /// enforces.
    pub(crate) fn mode(&self, meaning: &Meaning<'_>, opening: &Opening) -> Mode {
        let own = meaning.mode(meaning.pod(&opening.uid));
        let Some((client, false)) = &self.client else { return own };
        let client = meaning.cluster.pods.iter().find(|pod| *pod.uid == **client);
        let client = client.map_or(Mode::Enforce, |pod| meaning.mode(pod));
        if self.own { client } else { own.min(client) }
    }
}

/// What a client's hook says of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtService {
    Allowed,
    InPart,
    Refused,
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

    /// What these policies say of an opening at this pod's hook.
    pub(crate) fn says(&self, policies: &PolicySet, opening: &Opening) -> Said {
        let Opening { own, peer, protocol, port, direction, .. } = *opening;
        let pod = self.pod(&opening.uid);
        if direction == Direction::Outbound {
            let at =
                |frontend: &&Frontend| (frontend.address, frontend.protocol, frontend.port) == (peer, protocol, port);
            let own = match self.frontends.iter().find(at) {
                Some(frontend) => self.at_service(policies, pod, frontend) != AtService::Refused,
                None => self.egress(policies, pod, peer, protocol, port),
            };
            return Said { own, client: None };
        }
        let reference = Reference::new(self.cluster, policies);
        let ingress = reference.decide(self.end(peer), Endpoint::Pod(pod, own), Some(protocol), port).ingress.allows();
        let client = self.client(opening);
        let client =
            client.map(|client| (client.uid.as_str().into(), self.egress(policies, client, own, protocol, port)));
        Said { own: ingress, client }
    }

    /// The pod that opens, where its own policy is asked again at the hook of the server: some Service is allowed it in
    /// part.
    pub(crate) fn client(&self, opening: &Opening) -> Option<&'a Pod> {
        let pods = if opening.direction == Direction::Inbound { &self.cluster.pods[..] } else { &[] };
        let client = pods.iter().find(|pod| pod.addresses.contains(&opening.peer) && pod.node == NODE_NAME)?;
        let staged = self.staged_selects(client).then_some(&self.staged);
        let leaves = |policies: &PolicySet| {
            self.frontends.iter().any(|of| self.at_service(policies, client, of) == AtService::InPart)
        };
        [Some(&self.in_force), staged].into_iter().flatten().any(leaves).then_some(client)
    }

    /// Whether something is staged for either end whose policy is asked.
    pub(crate) fn is_staged(&self, opening: &Opening) -> bool {
        let client = self.client(opening);
        self.staged_selects(self.pod(&opening.uid)) || client.is_some_and(|client| self.staged_selects(client))
    }

    /// Whether the refusal of some backends behind this address is left to their hooks.
    pub(crate) fn leaves_refusals(&self, opening: &Opening) -> bool {
        let Opening { peer, protocol, port, .. } = *opening;
        let here = self.frontends.iter().filter(|of| (of.address, of.protocol, of.port) == (peer, protocol, port));
        let pod = self.pod(&opening.uid);
        here.into_iter().any(|frontend| self.at_service(&self.in_force, pod, frontend) == AtService::InPart)
    }

    fn egress(&self, policies: &PolicySet, pod: &Pod, to: IpAddr, protocol: Protocol, port: u16) -> bool {
        let own = pod.addresses.iter().find(|own| own.is_ipv4() == to.is_ipv4()).expect("pods have both families");
        let reference = Reference::new(self.cluster, policies);
        reference.decide(Endpoint::Pod(pod, *own), self.end(to), Some(protocol), port).egress.allows()
    }

    /// Every backend but the client itself must be allowed, and one must be there; or some are, and those that are
    /// not are pods of this node, and the client is none of them.
    fn at_service(&self, policies: &PolicySet, pod: &Pod, frontend: &Frontend) -> AtService {
        if !selects(policies, pod, |policy| policy.egress.is_some()) {
            return AtService::Allowed;
        }
        let is_client = |backend: &&Backend| pod.addresses.contains(&backend.address);
        let others: Vec<_> = frontend.backends.iter().filter(|backend| !is_client(backend)).collect();
        let egress = |backend: &Backend| self.egress(policies, pod, backend.address, frontend.protocol, backend.port);
        let refused: Vec<_> = others.iter().filter(|backend| !egress(backend)).collect();
        let here = |address: &IpAddr| {
            self.cluster.pods.iter().any(|pod| pod.addresses.contains(address) && pod.node == NODE_NAME)
        };
        if !frontend.backends.is_empty() && refused.is_empty() {
            AtService::Allowed
        } else if refused.len() < others.len()
            && others.len() == frontend.backends.len()
            && refused.iter().all(|backend| here(&backend.address))
        {
            AtService::InPart
        } else {
            AtService::Refused
        }
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
