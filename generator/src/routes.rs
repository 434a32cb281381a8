//! How clients came to a server: through which Service, and by which DNS name. Evidence; and what endpoints a
//! Service has that are no pods, which no view of a flow names.
//!
//! Always holds: what a route says does not depend on the order of rows; of the names that led one client
//! to one address the first few in order are kept.

use crate::subjects::Subject;
use model::{
    cluster::{Cluster, WorkloadKey},
    ledger::{Edge, Party, denial, is_answered},
    policy::Protocol,
    record::{DirectionRule, End, Entity, FlowRecord},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// What became of all calls of one client at one port of a Service, the worst of them last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// None was answered, or nobody knows who opened.
    Attempted,
    /// One was answered.
    Answered,
    /// Policy in force or staged denied one (law 13).
    Denied,
}

/// So many names are kept of one client's one address.
const NAMES: usize = 8;

/// A call of a Service: its `namespace/name`, IP protocol number and its own port.
type Call = (Arc<str>, u8, u16);

/// What a flow log says of the ways that clients took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routes {
    /// By client.
    services: BTreeMap<Arc<WorkloadKey>, BTreeMap<Call, Fate>>,
    /// Client and address to names.
    names: BTreeMap<(Arc<WorkloadKey>, IpAddr), BTreeSet<Arc<str>>>,
}

impl Routes {
    /// Takes what one row of the flow log says.
    pub fn add(&mut self, record: &FlowRecord) {
        let End { entity: Entity::Pod, workload: Some(client), .. } = &record.client else { return };
        let server = &record.server;
        if let (Some(service), Entity::Service) = (&record.service, server.entity) {
            let call = (service.clone(), record.event.key.protocol, server.port);
            let is_known = record.event.direction_rule != DirectionRule::Unknown && is_answered(record);
            let fate = match denial(record) {
                Some(_) => Fate::Denied,
                None if is_known => Fate::Answered,
                None => Fate::Attempted,
            };
            let worst = self.services.entry(client.clone()).or_default().entry(call).or_insert(fate);
            *worst = fate.max(*worst);
        }
        if let (Some(name), Entity::Outside | Entity::Node) = (&record.dns_name, server.entity) {
            let names = self.names.entry((client.clone(), server.ip.to_canonical())).or_default();
            names.insert(name.clone());
            if names.len() > NAMES {
                names.pop_last();
            }
        }
    }

    /// The Services through which an edge's client called, as far as they lead to its server at its port.
    pub(crate) fn services(&self, edge: &Edge, server: Option<&Subject>, cluster: &Cluster) -> Vec<String> {
        let (Party::Workload(client), Some(server)) = (&edge.client, server) else { return Vec::new() };
        let leads_there = |(name, protocol, port): &&Call| {
            let (Some((namespace, service)), Some(protocol)) = (name.split_once('/'), Protocol::from_number(*protocol))
            else {
                return false;
            };
            let of_edge = namespace == server.key.namespace && protocol.number() == edge.protocol;
            let Some(service) = cluster.services.get(&(namespace.to_owned(), service.to_owned())).filter(|_| of_edge)
            else {
                return false;
            };
            let item = service.ports.iter().find(|item| (item.port, item.protocol) == (*port, protocol));
            let pods = server.pods.iter().map(|index| &cluster.pods[*index]);
            item.is_some_and(|item| {
                pods.filter(|pod| service.selects(&pod.labels)).any(|pod| item.number_on(&pod.ports) == Some(edge.port))
            })
        };
        let calls = self.services.get(client).into_iter().flat_map(BTreeMap::keys);
        let names: BTreeSet<String> = calls.filter(leads_there).map(|(name, ..)| name.to_string()).collect();
        names.into_iter().collect()
    }

    /// The endpoints of the Services that clients called, as edges: a client's own view of a call ends at the
    /// Service's address, and where its endpoints are no pods (the API server's, a person's EndpointSlice) nobody
    /// sees the other end. Only calls that were answered and never denied.
    pub(crate) fn endpoints(&self, cluster: &Cluster) -> BTreeSet<Edge> {
        let nodes: BTreeSet<IpAddr> =
            cluster.nodes.values().flat_map(|node| &node.addresses).map(IpAddr::to_canonical).collect();
        let frontends = cluster.frontends();
        let mut all = BTreeSet::new();
        for (client, calls) in &self.services {
            for ((name, protocol, port), _) in calls.iter().filter(|(_, fate)| **fate == Fate::Answered) {
                let service = name.split_once('/').map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
                let Some(service) = service.and_then(|name| cluster.services.get(&name)) else { continue };
                let of_call = frontends.iter().filter(|frontend| {
                    let place = (frontend.protocol.number(), frontend.port) == (*protocol, *port);
                    place && service.cluster_ips.contains(&frontend.address)
                });
                for backend in of_call.flat_map(|frontend| &frontend.backends) {
                    let ip = backend.address.to_canonical();
                    let server = if nodes.contains(&ip) { Party::Node(ip) } else { Party::Outside(ip) };
                    let client = Party::Workload(client.clone());
                    all.insert(Edge { client, server, protocol: *protocol, port: backend.port });
                }
            }
        }
        all
    }

    /// The DNS names that led an edge's client to the server's address.
    pub(crate) fn names(&self, edge: &Edge) -> Vec<String> {
        let (Party::Workload(client), Party::Outside(ip) | Party::Node(ip)) = (&edge.client, &edge.server) else {
            return Vec::new();
        };
        let names = self.names.get(&(client.clone(), ip.to_canonical()));
        names.into_iter().flatten().map(ToString::to_string).collect()
    }
}
