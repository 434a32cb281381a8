//! Where a client reaches a Service, and what stands behind it: what rules speak of.

use crate::{
    cluster::{Cluster, ContainerPort, Pod, Service, ServicePort, Source, TargetPort},
    labels::Labels,
    ledger::{Edge, Party},
    policy::Protocol,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

/// The label by which an EndpointSlice names its Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Addresses behind a Service, as an endpoint controller or a person wrote them (discovery.k8s.io/v1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The Service's name, in the slice's own namespace.
    pub service: Option<String>,
    /// The addresses of all endpoints, ready or not; none where they are names (FQDN).
    pub addresses: Vec<IpAddr>,
    /// The backends' ports.
    pub ports: Vec<SlicePort>,
    /// Where it was read.
    pub source: Option<Source>,
}

/// A port of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The Service port's name, empty where that has none.
    pub name: String,
    /// TCP when absent.
    pub protocol: Protocol,
    /// The backend's port; `None`: every port.
    pub port: Option<u16>,
}

/// An address and port that lead to a Service's backends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// ClusterIP, external or load balancer address, or a node's.
    pub address: IpAddr,
    /// Protocol, both before and after translation.
    pub protocol: Protocol,
    /// The port at `address`.
    pub port: u16,
    /// What the address is.
    pub place: Place,
    /// Every backend of the address's family, in order, ready or not.
    pub backends: Vec<Backend>,
}

/// What the address of a [`Frontend`] is: whether the server sees who opens depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The Service's own, inside the cluster: a pod that opens to it keeps its address, unless it comes back to itself.
    ClusterIp,
    /// An external or load balancer address.
    External,
    /// A node's, at a NodePort.
    Node,
}

/// An end behind a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub struct Backend {
    pub address: IpAddr,
    pub port: u16,
}

impl Cluster {
    /// Every address and port at which nodes translate to the backends of a Service, in order. Where
    /// two Services claim one place, the first by namespace and name has it.
    ///
    /// Backends come from the Service's EndpointSlices, ready or not and terminating ones too, for
    /// connections to these may stand; where a Service has none in the input, from the pods that it selects.
    pub fn frontends(&self) -> Vec<Frontend> {
        let mut slices: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
        for ((namespace, _), slice) in &self.endpoint_slices {
            if let Some(service) = &slice.service {
                slices.entry((namespace, service)).or_default().push(slice);
            }
        }
        let mut pods: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
        let live: HashSet<&IpAddr> = self
            .pods
            .iter()
            .filter(|pod| !pod.completed && pod.ended.is_none())
            .flat_map(|pod| &pod.addresses)
            .collect();
        for pod in self.pods.iter().filter(|pod| !pod.completed && !pod.addresses.is_empty()) {
            // One that is being deleted holds its address until another pod has it.
            if pod.ended.is_none() || !pod.addresses.iter().any(|address| live.contains(address)) {
                pods.entry(&pod.namespace).or_default().push(pod);
            }
        }
        let mut found: BTreeMap<(IpAddr, Protocol, u16), Frontend> = BTreeMap::new();
        for ((namespace, name), service) in &self.services {
            let given = slices.get(&(namespace.as_str(), name.as_str()));
            let selected: Vec<&Pod> = match given {
                Some(_) => Vec::new(),
                None => {
                    let here = pods.get(namespace.as_str()).into_iter().flatten();
                    here.copied().filter(|pod| service.selects(&pod.labels)).collect()
                }
            };
            for port in &service.ports {
                let backends: BTreeSet<Backend> = match given {
                    Some(slices) => slices.iter().flat_map(|slice| slice.backends(port)).collect(),
                    None => selected.iter().flat_map(|pod| port.at(pod)).collect(),
                };
                for (address, at, place) in self.places(service, port) {
                    let of_family = backends.iter().filter(|backend| backend.address.is_ipv4() == address.is_ipv4());
                    let backends = of_family.copied().collect();
                    let frontend = Frontend { address, protocol: port.protocol, port: at, place, backends };
                    found.entry((address, port.protocol, at)).or_insert(frontend);
                }
            }
        }
        found.into_values().collect()
    }

    /// Addresses and ports of one port of a Service.
    fn places<'c>(&'c self, service: &'c Service, port: &'c ServicePort) -> impl Iterator<Item = (IpAddr, u16, Place)> {
        let own = service.cluster_ips.iter().map(|address| (*address, port.port, Place::ClusterIp));
        let external = service.external_ips.iter().map(|address| (*address, port.port, Place::External));
        let nodes = self.nodes.values().flat_map(|node| &node.addresses);
        let at_nodes =
            port.node_port.into_iter().flat_map(move |port| nodes.clone().map(move |a| (*a, port, Place::Node)));
        own.chain(external).chain(at_nodes)
    }
}

/// Services none of whose backends is a pod of its own address (the API server, a database outside). Their clients'
/// hooks see the Service's address, no server's hook sees anything, and policy judges what is behind.
#[derive(Clone, Debug, Default)]
pub struct ServicesElsewhere {
    backends: HashMap<(IpAddr, u8, u16), Vec<(Party, u16)>>,
}

impl ServicesElsewhere {
    /// The edges to everything behind such a Service, for an edge to its address; `None`: that is no such Service's.
    pub fn behind(&self, edge: &Edge) -> Option<Vec<Edge>> {
        let (Party::Outside(ip) | Party::Node(ip)) = &edge.server else { return None };
        let backends = self.backends.get(&(ip.to_canonical(), edge.protocol, edge.port))?;
        let to = |(server, port): &(Party, u16)| Edge { server: server.clone(), port: *port, ..edge.clone() };
        Some(backends.iter().map(to).collect())
    }
}

impl Cluster {
    /// The Services that lead elsewhere than to pods.
    pub fn services_elsewhere(&self) -> ServicesElsewhere {
        let pods = self.pods.iter().filter(|pod| !pod.host_network);
        let pods: HashSet<IpAddr> = pods.flat_map(|pod| &pod.addresses).map(IpAddr::to_canonical).collect();
        let nodes = self.nodes.values().flat_map(|node| &node.addresses);
        let nodes: HashSet<IpAddr> = nodes.map(IpAddr::to_canonical).collect();
        let party = |ip: IpAddr| if nodes.contains(&ip) { Party::Node(ip) } else { Party::Outside(ip) };
        let mut backends = HashMap::new();
        for frontend in self.frontends() {
            let is_pod = |backend: &Backend| pods.contains(&backend.address.to_canonical());
            // A node's own address may be anyone's.
            let is_node = nodes.contains(&frontend.address.to_canonical());
            if !is_node && !frontend.backends.is_empty() && !frontend.backends.iter().any(is_pod) {
                let all = frontend.backends.iter().map(|b| (party(b.address.to_canonical()), b.port)).collect();
                let place = (frontend.address.to_canonical(), frontend.protocol.number(), frontend.port);
                backends.insert(place, all);
            }
        }
        ServicesElsewhere { backends }
    }
}

impl Service {
    /// Whether it leads to pods of its namespace with these labels. Without a selector it leads to none: its
    /// endpoints come from EndpointSlices alone.
    pub fn selects(&self, labels: &Labels) -> bool {
        !self.selector.is_empty() && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl ServicePort {
    /// The number it has on a backend that declares these ports; `None` where none has its name.
    pub fn number_on(&self, ports: &[ContainerPort]) -> Option<u16> {
        match &self.target {
            TargetPort::Number(port) => Some(*port),
            TargetPort::Name(name) => {
                let named =
                    |port: &&ContainerPort| port.protocol == self.protocol && port.name.as_deref() == Some(name);
                ports.iter().find(named).map(|port| port.port)
            }
        }
    }

    /// This port at the addresses of a pod that has it.
    fn at<'p>(&self, pod: &'p Pod) -> impl Iterator<Item = Backend> + use<'p> {
        let port = self.number_on(&pod.ports);
        port.into_iter().flat_map(|port| pod.addresses.iter().map(move |address| Backend { address: *address, port }))
    }
}

impl EndpointSlice {
    /// Its addresses at the port that stands for a Service's.
    fn backends(&self, of: &ServicePort) -> impl Iterator<Item = Backend> {
        let port = self.ports.iter().find(|port| port.name == of.name && port.protocol == of.protocol);
        // A slice port without a number takes every port as it is.
        let port = port.map(|port| port.port.unwrap_or(of.port));
        port.into_iter().flat_map(|port| self.addresses.iter().map(move |address| Backend { address: *address, port }))
    }
}
