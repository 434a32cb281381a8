//! One question to both sides: what the loaded tables say of an opening at one end, and what the reference evaluator
//! says of it over the same cluster.
//!
//! Always holds: the reference evaluator is given the cluster's objects and nothing that was compiled from them.

use datapath::Tables;
use flow::{Address, Direction};
use model::{
    cluster::{Cluster, Pod},
    policy::Protocol,
    reference::{Decision, Endpoint, Judgement, Reference},
};
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};
use verdict::{Asked, Verdict};

/// Whose an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// The pod of this index.
    Pod(usize),
    /// More than one pod says so.
    Several,
}

/// Who holds which address of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    by_address: HashMap<IpAddr, Holder>,
    /// Where a Service's backends answer, or may at some port: what passes there is not said by the address.
    services: HashSet<IpAddr>,
}

impl Holders {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let mut by_address = HashMap::new();
        for (index, pod) in cluster.pods.iter().enumerate().filter(|(_, pod)| holds_addresses(pod)) {
            for address in &pod.addresses {
                let holder = by_address.entry(address.to_canonical());
                holder.and_modify(|holder| *holder = Holder::Several).or_insert(Holder::Pod(index));
            }
        }
        let mut services: HashSet<IpAddr> = HashSet::new();
        for service in cluster.services.values() {
            services.extend(service.cluster_ips.iter().chain(&service.external_ips).map(IpAddr::to_canonical));
        }
        // A NodePort may be at any node's address.
        services.extend(cluster.nodes.values().flat_map(|node| &node.addresses).map(IpAddr::to_canonical));
        Self { by_address, services }
    }

    /// The end that an address is; `None` where two pods claim it.
    pub(crate) fn end<'c>(&self, cluster: &'c Cluster, address: IpAddr) -> Option<Endpoint<'c>> {
        match self.by_address.get(&address.to_canonical()) {
            None => Some(Endpoint::Address(address)),
            Some(Holder::Several) => None,
            Some(Holder::Pod(index)) => cluster.pods.get(*index).map(|pod| Endpoint::Pod(pod, address)),
        }
    }

    /// Addresses behind which Services may stand.
    pub(crate) fn services(&self) -> impl Iterator<Item = IpAddr> {
        self.services.iter().copied()
    }

    /// Whether a Service may stand behind an address.
    pub(crate) fn is_of_service(&self, address: IpAddr) -> bool {
        self.services.contains(&address.to_canonical())
    }
}

/// Whether a pod holds addresses that are its own.
pub(crate) fn holds_addresses(pod: &Pod) -> bool {
    pod.lives() && !pod.host_network && !pod.is_stand_in()
}

/// An opening as one covered end sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening<'c> {
    /// The covered end's ordinal.
    pub(crate) ordinal: u32,
    /// `Inbound`: the peer opens.
    pub(crate) opened: Direction,
    /// The covered end.
    pub(crate) own: Endpoint<'c>,
    /// The other.
    pub(crate) peer: Endpoint<'c>,
    /// The other's address.
    pub(crate) peer_address: IpAddr,
    /// `None`: a protocol without ports.
    pub(crate) protocol: Option<Protocol>,
    /// The server's port.
    pub(crate) port: u16,
}

/// What both say.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    /// The loaded tables.
    pub(crate) kernel: Verdict,
    /// The endpoint's word they answered under.
    pub(crate) word: u64,
    /// The reference evaluator, of this end alone.
    pub(crate) expected: Judgement,
}

impl Answers {
    /// Whether they differ about what may pass.
    pub(crate) fn differ(&self) -> bool {
        self.kernel.reason().allows() != self.expected.allows()
    }
}

/// Asks both.
pub(crate) fn ask(
    tables: &Tables,
    reference: &Reference<'_>,
    opening: &Opening<'_>,
) -> Result<Answers, datapath::Error> {
    let asked = Asked {
        endpoint: opening.ordinal,
        opened: opening.opened,
        protocol: opening.protocol.map_or(flow::ICMP, Protocol::number),
        port: opening.port,
        peer: Address::from(opening.peer_address),
    };
    let (kernel, word) = tables.ask(&asked)?;
    let decide = |from, to| reference.decide(from, to, opening.protocol, opening.port);
    let expected = match opening.opened {
        Direction::Inbound => {
            let Decision { ingress, .. } = decide(opening.peer, opening.own);
            ingress
        }
        Direction::Outbound => {
            let Decision { egress, .. } = decide(opening.own, opening.peer);
            egress
        }
    };
    Ok(Answers { kernel, word, expected })
}

/// What the reference evaluator says, in words.
pub(crate) fn judgement_text(judgement: &Judgement) -> String {
    match judgement {
        Judgement::NotIsolated => "allowed: no policy isolates it".to_owned(),
        Judgement::Exempt => "allowed: no policy is asked".to_owned(),
        Judgement::AllowedBy(rules) => {
            let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
            format!("allowed by {}", rules.join(", "))
        }
        Judgement::Denied(policies) => format!("denied: isolated by {}, and no rule allows it", policies.join(", ")),
    }
}
