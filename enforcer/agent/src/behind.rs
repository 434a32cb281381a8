//! An opening to an address of a Service: at the client's hook nobody knows yet which backend it will be, so what must
//! come of it is said by what the reference evaluator says of each.

use crate::expected::Holders;
use compile::RuleTable;
use datapath::Tables;
use flow::Address;
use model::{
    cluster::{Backend, Cluster, Frontend, Place, Pod},
    reference::{Decision, Endpoint, Judgement, Reference},
};
use std::net::IpAddr;
use verdict::{Asked, Verdict, abi};

/// A covered pod that opens to a Service from one of its addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client<'c> {
    pub(crate) ordinal: u32,
    pub(crate) pod: &'c Pod,
    pub(crate) address: IpAddr,
}

/// What all the backends come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meant {
    /// No policy judges what the client opens.
    NotIsolated,
    /// Nobody answers there.
    Nobody,
    /// Every backend but the client itself is allowed.
    Allowed,
    /// No backend is.
    Refused,
    /// Some are.
    InPart(Refusals),
}

/// Where backends that policy refuses may be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusals {
    /// At the client's hook alone.
    AtTheClient,
    /// At the backends' hooks too: all are pods of this node, and see who opens.
    AtTheBackends,
}

/// What the loaded tables say of such an opening, and what they must.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) kernel: Verdict,
    pub(crate) word: u64,
    /// Whether they name the client to the hooks of backends.
    names_client: bool,
    pub(crate) meant: Meant,
}

impl Said {
    /// Whether something passes that must not, or the other way round.
    pub(crate) fn differ(&self) -> bool {
        let allows = self.kernel.reason().allows();
        match self.meant {
            Meant::NotIsolated | Meant::Allowed => !allows,
            Meant::Nobody | Meant::Refused => allows,
            // Refused where no hook of a backend could refuse, or while one does not stand.
            Meant::InPart(Refusals::AtTheBackends) => allows && !self.names_client,
            Meant::InPart(Refusals::AtTheClient) => allows,
        }
    }
}

impl Meant {
    /// Whether a connection may come of it.
    pub(crate) fn may_pass(self) -> bool {
        !matches!(self, Self::Nobody | Self::Refused | Self::InPart(Refusals::AtTheClient))
    }

    /// In words.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::NotIsolated => "allowed: no policy isolates it",
            Self::Nobody => "denied: isolated, and the Service has no backends",
            Self::Allowed => "allowed at every backend of the Service",
            Self::Refused => "denied at every backend of the Service",
            Self::InPart(Refusals::AtTheClient) => {
                "denied: allowed at some backends of the Service and refused at others, which no hook of this node could \
                 tell apart"
            }
            Self::InPart(Refusals::AtTheBackends) => {
                "allowed at some backends of the Service; the others refuse at their own end (refused-by-client)"
            }
        }
    }
}

/// Asks both; `None`: who stands behind the Service cannot be told, as two pods claim an address.
pub(crate) fn ask(
    cluster: &Cluster,
    holders: &Holders,
    reference: &Reference<'_>,
    (table, tables): (&RuleTable, &Tables),
    client: Client<'_>,
    frontend: &Frontend,
) -> Result<Option<Said>, datapath::Error> {
    let Some(meant) = meant(cluster, holders, reference, table, client, frontend) else { return Ok(None) };
    let asked = Asked {
        endpoint: client.ordinal,
        opened: flow::Direction::Outbound,
        protocol: frontend.protocol.number(),
        port: frontend.port,
        peer: Address::from(frontend.address),
    };
    let (kernel, word) = tables.ask(&asked)?;
    let names_client = abi::client_of(tables.opens_from(Address::from(client.address))?) == client.ordinal;
    Ok(Some(Said { kernel, word, names_client, meant }))
}

fn meant(
    cluster: &Cluster,
    holders: &Holders,
    reference: &Reference<'_>,
    table: &RuleTable,
    client: Client<'_>,
    frontend: &Frontend,
) -> Option<Meant> {
    let from = Endpoint::Pod(client.pod, client.address);
    let egress = |to, port| {
        let Decision { egress, .. } = reference.decide(from, to, Some(frontend.protocol), port);
        egress
    };
    if egress(Endpoint::Address(frontend.address), frontend.port) == Judgement::NotIsolated {
        return Some(Meant::NotIsolated);
    }
    let is_client = |backend: &&Backend| client.pod.addresses.contains(&backend.address);
    let (own, others): (Vec<&Backend>, Vec<&Backend>) = frontend.backends.iter().partition(is_client);
    let mut refused = Vec::new();
    for backend in &others {
        if !egress(holders.end(cluster, backend.address)?, backend.port).allows() {
            refused.push(*backend);
        }
    }
    let of_this_node = |backend: &&Backend| table.endpoint_at(Address::from(backend.address)).is_some();
    let at_backends = frontend.place == Place::ClusterIp && own.is_empty() && refused.iter().all(of_this_node);
    Some(match (refused.len(), others.len() - refused.len(), own.len()) {
        (0, 0, 0) => Meant::Nobody,
        (0, ..) => Meant::Allowed,
        (_, 0, 0) => Meant::Refused,
        _ if at_backends => Meant::InPart(Refusals::AtTheBackends),
        _ => Meant::InPart(Refusals::AtTheClient),
    })
}
