//! The addresses by which the node speaks to its pods.
//!
//! Its status names one or two. The kubelet's probes come from whichever lies on the way to the pod, with a bridge or
//! point-to-point links the gateway's of the pods' network, which no object names: the node's interfaces are asked.
//! An address alone exempts nothing: the kernel program also sees whether the node made the packet, and no pod can
//! give the node's interfaces an address.

use crate::Error;
use datapath::{Changed, Notices, own_addresses};
use model::cluster::Cluster;
use std::{collections::BTreeSet, net::IpAddr};

/// The node's interfaces, and what a cluster was told of them.
pub(super) struct Own {
    notices: Notices,
    now: Told,
}

/// What one cluster was told; it counts once the cluster is in force.
#[derive(Debug, Default)]
pub(super) struct Told {
    seen: BTreeSet<IpAddr>,
    added: BTreeSet<IpAddr>,
}

impl Own {
    pub(super) fn listen() -> Result<Self, Error> {
        Ok(Self { notices: Notices::of_addresses()?, now: Told::default() })
    }

    /// Tells a cluster the node's own addresses.
    pub(super) fn tell(cluster: &mut Cluster, node: &str) -> Result<Told, Error> {
        let seen = own_addresses()?;
        let added = add(cluster, node, &seen);
        Ok(Told { seen, added })
    }

    /// The cluster is in force.
    pub(super) fn done(&mut self, told: Told) {
        self.now = told;
    }

    /// The cluster that was given, out of the one in force.
    pub(super) fn given(&self, cluster: &mut Cluster, node: &str) {
        if let Some(node) = cluster.nodes.get_mut(node) {
            node.addresses.retain(|address| !self.now.added.contains(address));
        }
    }

    /// Whether the addresses are others than those in force. A notice alone says little: an address that a router
    /// advertises makes one with every advertisement.
    pub(super) fn changed(&self) -> Result<Changed, Error> {
        let is_other = self.notices.any()? == Changed::Yes && own_addresses()? != self.now.seen;
        Ok(if is_other { Changed::Yes } else { Changed::No })
    }
}

/// Gives the node the addresses of its interfaces, and returns those that were new to it. One that is a Service's
/// (kube-proxy's IPVS mode gives the node all of them) or a pod's is not the node's.
fn add(cluster: &mut Cluster, node: &str, seen: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    let services = cluster.services.values();
    let of_services = services.flat_map(|service| service.cluster_ips.iter().chain(&service.external_ips));
    let of_pods = cluster.pods.iter().filter(|pod| !pod.host_network).flat_map(|pod| &pod.addresses);
    let of_others: BTreeSet<IpAddr> = of_services.chain(of_pods).map(IpAddr::to_canonical).collect();
    let Some(node) = cluster.nodes.get_mut(node) else { return BTreeSet::new() };
    let known: BTreeSet<IpAddr> = node.addresses.iter().map(IpAddr::to_canonical).collect();
    let added: BTreeSet<IpAddr> =
        seen.iter().filter(|ip| !of_others.contains(ip) && !known.contains(ip)).copied().collect();
    node.addresses.extend(&added);
    added
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::cluster::{Node, Pod, Service};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address of the test")
    }

    #[test]
    fn a_node_has_what_its_interfaces_have_but_for_services_and_pods_addresses() {
        let mut cluster = Cluster::default();
        cluster.nodes.insert("n1".to_owned(), Node { addresses: vec![ip("10.89.0.11")], ..Node::default() });
        cluster.nodes.insert("n2".to_owned(), Node::default());
        let service =
            Service { cluster_ips: vec![ip("10.96.0.1")], external_ips: vec![ip("192.0.2.9")], ..Service::default() };
        cluster.services.insert(("default".to_owned(), "kubernetes".to_owned()), service);
        let pod = |address, host_network| Pod { addresses: vec![ip(address)], host_network, ..Pod::default() };
        cluster.pods = vec![pod("10.244.0.5", false), pod("10.89.0.12", true)];

        let seen = ["10.244.0.1", "10.89.0.11", "10.89.0.12", "10.96.0.1", "192.0.2.9", "10.244.0.5", "fd00::1"];
        let added = add(&mut cluster, "n1", &seen.map(ip).into());
        assert_eq!(added, ["10.244.0.1", "10.89.0.12", "fd00::1"].map(ip).into());
        assert_eq!(cluster.nodes["n1"].addresses, ["10.89.0.11", "10.89.0.12", "10.244.0.1", "fd00::1"].map(ip));
        assert!(cluster.nodes["n2"].addresses.is_empty());
        assert!(add(&mut cluster, "elsewhere", &seen.map(ip).into()).is_empty());
        assert_eq!(cluster.nodes.len(), 2, "a node that is not in the cluster stays a warning");
    }

    #[test]
    fn what_was_added_is_taken_out_again_and_nothing_else() {
        let given = vec![ip("10.89.0.11"), ip("10.244.0.1")];
        let mut cluster = Cluster::default();
        cluster.nodes.insert("n1".to_owned(), Node { addresses: given.clone(), ..Node::default() });
        let seen = ["10.244.0.1", "172.17.0.1"].map(ip).into();
        let added = add(&mut cluster, "n1", &seen);
        assert_eq!(cluster.nodes["n1"].addresses.len(), 3);
        let own = Own { notices: Notices::of_addresses().expect("netlink"), now: Told { seen, added } };
        own.given(&mut cluster, "n1");
        assert_eq!(cluster.nodes["n1"].addresses, given);
    }
}
