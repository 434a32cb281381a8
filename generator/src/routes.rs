//! What the ways that clients took mean for an edge: evidence; and what endpoints a Service has that are no pods,
//! which no view of a flow names.

use crate::subjects::Subject;
use model::{
    cluster::Cluster,
    ledger::{Edge, Party},
    policy::Protocol,
    routes::{Call, Fate, Routes},
};
use std::{collections::BTreeSet, net::IpAddr};

/// The Services through which an edge's client called, as far as they lead to its server at its port.
pub(crate) fn services(routes: &Routes, edge: &Edge, server: Option<&Subject>, cluster: &Cluster) -> Vec<String> {
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
    let calls = routes.calls_of(client).map(|(call, _)| call);
    let names: BTreeSet<String> = calls.filter(leads_there).map(|(name, ..)| name.to_string()).collect();
    names.into_iter().collect()
}

/// The endpoints of the Services that clients called, as edges: a client's own view of a call ends at the
/// Service's address, and where its endpoints are no pods (the API server's, a person's EndpointSlice) nobody
/// sees the other end. Only calls that were answered and never denied.
pub(crate) fn endpoints(routes: &Routes, cluster: &Cluster) -> BTreeSet<Edge> {
    let nodes: BTreeSet<IpAddr> =
        cluster.nodes.values().flat_map(|node| &node.addresses).map(IpAddr::to_canonical).collect();
    let frontends = cluster.frontends();
    let mut all = BTreeSet::new();
    for (client, calls) in routes.calls() {
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
pub(crate) fn names(routes: &Routes, edge: &Edge) -> Vec<String> {
    let (Party::Workload(client), Party::Outside(ip) | Party::Node(ip)) = (&edge.client, &edge.server) else {
        return Vec::new();
    };
    routes.names_of(client, *ip).map(ToString::to_string).collect()
}
