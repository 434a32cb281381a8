//! `podfence why --kernel`: a question about two ends, put to the loaded tables at whichever ends this node covers, and
//! to the reference evaluator.

use crate::{
    behind::{self, Client},
    expected::{Holders, Opening, ask, holds_addresses, judgement_text},
    mode_name,
};
use compile::RuleTable;
use datapath::Tables;
use flow::{Address, Direction};
use model::{
    cluster::{Cluster, Frontend, Pod},
    reference::{Endpoint, Reference},
};
use review::why::{AskedPort, Named, PortName, Target};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use verdict::{Staged, Verdict, abi};

/// Pairs of addresses that one question is answered for.
const PAIRS: usize = 256;

/// What is asked: may `from` open a connection to `to`?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The client: a pod, a workload, an address.
    pub from: String,
    /// The server, its port and its protocol.
    pub to: String,
}

/// The answer, pair by pair.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// The question.
    pub from: String,
    /// The question.
    pub to: String,
    /// Each pair of addresses of one family.
    pub pairs: Vec<Pair>,
    /// Pairs beyond those shown.
    pub left_out: usize,
}

/// A client's address and a server's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pair {
    /// The client.
    pub client: End,
    /// The server.
    pub server: End,
    /// The server's port.
    pub port: u16,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// The client's side.
    pub egress: Side,
    /// The server's side.
    pub ingress: Side,
}

/// One end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct End {
    /// `namespace/name`, where it is a pod.
    pub pod: Option<String>,
    /// Its address.
    pub address: Option<IpAddr>,
}

/// One direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Side {
    /// What the loaded tables say; `null`: this node does not cover the end.
    pub kernel: Option<Said>,
    /// Whether the reference evaluator allows it.
    pub expected_allows: bool,
    /// What the reference evaluator says.
    pub expected: String,
    /// Whether the two differ about what may pass.
    pub differs: bool,
}

/// What the loaded tables say of an end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Said {
    /// Whether they allow it.
    pub allows: bool,
    /// Why.
    pub reason: String,
    /// The deciding rule, where one decides.
    pub rule: Option<String>,
    /// What the staged slot says: `allow`, `deny`; `null`: nothing is staged.
    pub staged: Option<String>,
    /// The mode, which says what is done about a denial.
    pub mode: String,
    /// The generation they answered under.
    pub generation: u32,
    /// Its epoch.
    pub epoch: u64,
}

impl Answer {
    /// Whether kernel and reference differ anywhere.
    pub fn differs(&self) -> bool {
        self.pairs.iter().any(|pair| pair.egress.differs || pair.ingress.differs)
    }
}

/// What there is to ask.
pub(crate) struct Asker<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) table: &'a RuleTable,
    pub(crate) tables: &'a Tables,
}

/// An end that was found.
#[derive(Clone, Copy)]
struct Found<'c> {
    pod: Option<&'c Pod>,
    address: IpAddr,
}

impl Asker<'_> {
    /// Answers; the error says what cannot be answered and what to ask instead.
    pub(crate) fn answer(&self, question: &Question) -> Result<Answer, String> {
        let from: Named = question.from.parse().map_err(|problem: review::why::Problem| problem.to_string())?;
        let to: Target = question.to.parse().map_err(|problem: review::why::Problem| problem.to_string())?;
        let Some(port) = to.port else {
            return Err(format!("`{}` names no port; end it with :PORT or :PORT/PROTOCOL", question.to));
        };
        let (clients, servers) = (self.find(&from, &question.from)?, self.find(&to.end, &question.to)?);
        let reference = Reference::new(self.cluster, &self.cluster.policies);
        let (holders, frontends) = (Holders::of(self.cluster), self.cluster.frontends());
        let mut answer = Answer { from: question.from.clone(), to: question.to.clone(), ..Answer::default() };
        for client in &clients {
            for server in servers.iter().filter(|server| server.address.is_ipv4() == client.address.is_ipv4()) {
                let number = number(&port, *server)?;
                if answer.pairs.len() == PAIRS {
                    answer.left_out += 1;
                    continue;
                }
                answer.pairs.push(self.pair(&reference, (&holders, &frontends), *client, *server, &port, number)?);
            }
        }
        if answer.pairs.is_empty() {
            return Err(format!(
                "{} and {} have no address family in common; give two ends that both have IPv4 or both IPv6",
                question.from, question.to
            ));
        }
        Ok(answer)
    }

    fn find(&self, named: &Named, asked: &str) -> Result<Vec<Found<'_>>, String> {
        let (namespace, kind, name) = match named {
            Named::Address(address) => {
                let pod = self.cluster.pods.iter().find(|pod| holds_addresses(pod) && pod.addresses.contains(address));
                return Ok(vec![Found { pod, address: *address }]);
            }
            Named::Name { namespace, kind, name } => (namespace.as_deref(), kind.as_deref(), name),
        };
        let of_kind = |known: &str| kind.is_none_or(|kind| kind.eq_ignore_ascii_case(known));
        let is_meant = |pod: &&Pod| {
            let root = self.cluster.root_owner(pod);
            let is_it = pod.name == *name && of_kind("Pod") || root.name == *name && of_kind(&root.kind);
            is_it && holds_addresses(pod) && namespace.is_none_or(|namespace| namespace == pod.namespace)
        };
        let pods = self.cluster.pods.iter().filter(is_meant);
        let found: Vec<Found<'_>> = pods
            .flat_map(|pod| pod.addresses.iter().map(move |address| Found { pod: Some(pod), address: *address }))
            .collect();
        if found.is_empty() {
            let try_this = "give NAMESPACE/NAME of a pod or workload that runs, or an address";
            return Err(format!("`{asked}` names no pod with an address; {try_this}"));
        }
        Ok(found)
    }

    fn pair(
        &self,
        reference: &Reference<'_>,
        (holders, frontends): (&Holders, &[Frontend]),
        client: Found<'_>,
        server: Found<'_>,
        asked: &AskedPort,
        port: u16,
    ) -> Result<Pair, String> {
        let ends = self.end(holders, client).zip(self.end(holders, server));
        let Some((from, to)) = ends else {
            return Err("an address that two pods claim is nobody's; ask by the pods' names".to_owned());
        };
        let decision = reference.decide(from, to, Some(asked.protocol), port);
        let is_there = |of: &&Frontend| (of.address, of.protocol, of.port) == (server.address, asked.protocol, port);
        let frontend = frontends.iter().find(is_there);
        let side = |own: Found<'_>, peer: Found<'_>, opened, expected| {
            let Some(endpoint) = self.table.endpoint_at(Address::from(own.address)) else {
                return Ok(Side::of(None, expected));
            };
            let own_pod = own.pod;
            let (own, peer_end) = if opened == Direction::Inbound { (to, from) } else { (from, to) };
            let opening = Opening {
                ordinal: endpoint.ordinal,
                opened,
                own,
                peer: peer_end,
                peer_address: peer.address,
                protocol: Some(asked.protocol),
                port,
            };
            // There the tables answer for the backends.
            let to_service = if opened == Direction::Outbound { frontend.zip(own_pod) } else { None };
            if let Some((frontend, pod)) = to_service {
                let client = Client { ordinal: endpoint.ordinal, pod, address: client.address };
                let tables = (self.table, self.tables);
                let said = behind::ask(self.cluster, holders, reference, tables, client, frontend);
                let Some(said) = said.map_err(|error| crate::node::chain(&error))? else {
                    return Err(
                        "two pods claim the address of a backend there; ask about backends by their names".into()
                    );
                };
                return Ok(Side::of_service(self.said(endpoint, said.kernel, said.word), &said));
            }
            let answers = ask(self.tables, reference, &opening).map_err(|error| crate::node::chain(&error))?;
            let side = Side::of(Some((self.said(endpoint, answers.kernel, answers.word), answers.differ())), expected);
            Ok::<Side, String>(side)
        };
        let shown = |found: Found<'_>| End {
            pod: found.pod.map(|pod| format!("{}/{}", pod.namespace, pod.name)),
            address: Some(found.address),
        };
        Ok(Pair {
            client: shown(client),
            server: shown(server),
            port,
            protocol: asked.protocol.name().to_owned(),
            egress: side(client, server, Direction::Outbound, &decision.egress)?,
            ingress: side(server, client, Direction::Inbound, &decision.ingress)?,
        })
    }

    fn end<'c>(&'c self, holders: &Holders, found: Found<'c>) -> Option<Endpoint<'c>> {
        match found.pod {
            Some(pod) => Some(Endpoint::Pod(pod, found.address)),
            None => holders.end(self.cluster, found.address),
        }
    }

    fn said(&self, endpoint: &compile::Endpoint, verdict: Verdict, word: u64) -> Said {
        Said {
            allows: verdict.reason().allows(),
            reason: verdict.reason().name().to_owned(),
            rule: self.table.rules.get(&verdict.rule()).map(|origin| origin.name.to_string()),
            staged: match verdict.staged() {
                Staged::None => None,
                Staged::Allow => Some("allow".to_owned()),
                Staged::Deny => Some("deny".to_owned()),
            },
            mode: mode_name(endpoint.mode).to_owned(),
            generation: abi::generation_of(word),
            epoch: abi::epoch_of(word),
        }
    }
}

impl Side {
    fn of_service(said: Said, answers: &behind::Said) -> Self {
        Self {
            kernel: Some(said),
            expected_allows: answers.meant.may_pass(),
            expected: answers.meant.text().to_owned(),
            differs: answers.differ(),
        }
    }

    fn of(kernel: Option<(Said, bool)>, expected: &model::reference::Judgement) -> Self {
        let differs = kernel.as_ref().is_some_and(|(_, differs)| *differs);
        Self {
            kernel: kernel.map(|(said, _)| said),
            expected_allows: expected.allows(),
            expected: judgement_text(expected),
            differs,
        }
    }
}

/// The port's number at a server.
fn number(asked: &AskedPort, server: Found<'_>) -> Result<u16, String> {
    match &asked.port {
        PortName::Number(number) => Ok(*number),
        PortName::Name(name) => {
            let ports = server.pod.map_or(&[][..], |pod| &pod.ports[..]);
            let named = |port: &&model::cluster::ContainerPort| {
                port.protocol == asked.protocol && port.name.as_deref() == Some(name.as_str())
            };
            let known = ports.iter().find(named).map(|port| port.port);
            known.ok_or_else(|| format!("{} has no port named {name}; give a number", server.address))
        }
    }
}
