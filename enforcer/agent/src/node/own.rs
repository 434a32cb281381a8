//! Addresses by which a node talks to its pods.

use model::cluster::Cluster;
use std::{collections::BTreeSet, net::IpAddr};

/// A node's status names one address or two. What it sends to its pods comes from others too, that of the pods' gateway
/// above all: those on its own interfaces, except where the address is a Service's (kube-proxy's IPVS mode).
pub(super) fn add(cluster: &mut Cluster, node: &str, own: &BTreeSet<IpAddr>) {
    let of_services =
        cluster.services.values().flat_map(|service| service.cluster_ips.iter().chain(&service.external_ips));
    let of_services: BTreeSet<IpAddr> = of_services.copied().collect();
    let Some(node) = cluster.nodes.get_mut(node) else { return };
    for address in own.difference(&of_services) {
        if !node.addresses.contains(address) {
            node.addresses.push(*address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::cluster::{Node, Service};

    #[test]
    fn a_nodes_own_addresses_are_its_interfaces_without_those_of_services() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let mut cluster = Cluster::default();
        cluster.nodes.insert("n1".to_owned(), Node { addresses: vec![ip("10.89.0.11")], ..Node::default() });
        cluster.nodes.insert("n2".to_owned(), Node::default());
        let service = Service { cluster_ips: vec![ip("10.96.0.1")], ..Service::default() };
        cluster.services.insert(("default".to_owned(), "kubernetes".to_owned()), service);
        let own = ["10.244.0.1", "10.89.0.11", "10.96.0.1"].map(ip).into();
        add(&mut cluster, "n1", &own);
        assert_eq!(cluster.nodes["n1"].addresses, ["10.89.0.11", "10.244.0.1"].map(ip));
        assert!(cluster.nodes["n2"].addresses.is_empty());
        add(&mut cluster, "elsewhere", &own);
        assert_eq!(cluster.nodes.len(), 2, "a node that is not in the cluster stays a warning");
    }
}
