//! Addresses that a pod has beside its own, by annotation: what stands behind a VPN, keepalived, a virtual machine.
//!
//! Whoever may annotate a pod could so give it any address to send from. The annotation counts only where the operator
//! says that admission guards it, and never for addresses that are others': pods', nodes' and Services'.

use crate::{Prefix, Warning};
use ipnet::{IpNet, Ipv4Net};
use model::cluster::{Cluster, Pod};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};
use verdict::abi::FURTHER_PREFIXES;

/// The annotation: IPv4 prefixes, with commas between them.
pub const SOURCE_PREFIXES: &str = "podfence.dev/source-prefixes";

/// What the annotation counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SourcePrefixes {
    /// Nothing: who may annotate a pod is not known.
    #[default]
    Ignored,
    /// Admission lets only those write it who may: pods have these prefixes.
    Guarded,
}

/// Shorter prefixes hold whole clusters.
const SHORTEST: u8 = 16;

/// Whose addresses no pod is given.
#[derive(Debug, Default)]
pub(crate) struct Taken<'a> {
    addresses: BTreeMap<Ipv4Addr, Vec<Owner<'a>>>,
    blocks: Vec<(Ipv4Net, &'a str)>,
}

#[derive(Debug)]
enum Owner<'a> {
    Pod(&'a Pod),
    Node(&'a str),
    Service(&'a (String, String)),
}

impl<'a> Taken<'a> {
    /// All of a cluster's, if some pod of the node has the annotation.
    pub(crate) fn of(cluster: &'a Cluster, node: &str) -> Self {
        let asks = |pod: &Pod| pod.node == node && pod.annotations.contains_key(SOURCE_PREFIXES);
        let mut taken = Self::default();
        if !cluster.pods.iter().any(asks) {
            return taken;
        }
        for pod in cluster.pods.iter().filter(|pod| !pod.completed && !pod.host_network) {
            taken.add(&pod.addresses, || Owner::Pod(pod));
        }
        for (name, node) in &cluster.nodes {
            taken.add(&node.addresses, || Owner::Node(name));
            taken.blocks.extend(node.pod_cidrs.iter().filter_map(|net| match net {
                IpNet::V4(net) => Some((*net, name.as_str())),
                IpNet::V6(_) => None,
            }));
        }
        for (name, service) in &cluster.services {
            taken.add(&service.cluster_ips, || Owner::Service(name));
            taken.add(&service.external_ips, || Owner::Service(name));
        }
        taken
    }

    fn add(&mut self, addresses: &[IpAddr], owner: impl Fn() -> Owner<'a>) {
        for address in addresses {
            if let IpAddr::V4(address) = address {
                self.addresses.entry(*address).or_default().push(owner());
            }
        }
    }

    /// The prefixes a pod has by its annotation; what of it does not count is a warning.
    pub(crate) fn prefixes(&self, pod: &Pod, setting: SourcePrefixes, warnings: &mut BTreeSet<Warning>) -> Vec<Prefix> {
        let Some(value) = pod.annotations.get(SOURCE_PREFIXES) else { return Vec::new() };
        let mut warn = |what: &str, why: String| {
            let pod = format!("{}/{}", pod.namespace, pod.name);
            warnings.insert(Warning::SourcePrefix { pod, what: what.to_owned(), why });
        };
        if setting == SourcePrefixes::Ignored {
            let why = "nothing says that admission guards the annotation; where it does, use --source-prefixes-guarded";
            warn(value, why.to_owned());
            return Vec::new();
        }
        let mut prefixes = BTreeSet::new();
        for text in value.split(',').map(str::trim) {
            match self.allowed(text, pod) {
                Ok(_) if prefixes.len() == FURTHER_PREFIXES => {
                    warn(text, format!("a pod may have {FURTHER_PREFIXES} prefixes; write fewer, wider ones"));
                }
                Ok(net) => drop(prefixes.insert(Prefix::of(&IpNet::V4(net)))),
                Err(why) => warn(text, why),
            }
        }
        prefixes.into_iter().collect()
    }

    /// The prefix, or why no pod may have it.
    fn allowed(&self, text: &str, pod: &Pod) -> Result<Ipv4Net, String> {
        let net = match text.parse::<IpNet>() {
            Ok(IpNet::V4(net)) => net,
            Ok(IpNet::V6(_)) => return Err("only IPv4 prefixes can be given to a pod".to_owned()),
            Err(_) => return Err("it is no prefix; write ADDRESS/LENGTH".to_owned()),
        };
        if net.addr() != net.network() {
            return Err(format!("bits behind its length are set; write {}", net.trunc()));
        }
        if net.prefix_len() < SHORTEST {
            return Err(format!("it is too wide; write /{SHORTEST} or longer"));
        }
        let (first, last) = (net.network(), net.broadcast());
        let special = |address: Ipv4Addr| {
            address.octets()[0] == 0 || address.is_loopback() || address.is_link_local() || address.octets()[0] >= 224
        };
        if special(first) || special(last) {
            return Err("such addresses are nobody's to send from".to_owned());
        }
        if let Some((block, node)) = self.blocks.iter().find(|(block, _)| block.contains(&net) || net.contains(block)) {
            return Err(format!("node {node} gives its pods addresses of {block}"));
        }
        let others =
            self.addresses.range(first..=last).flat_map(|(address, owners)| owners.iter().map(move |o| (address, o)));
        for (address, owner) in others {
            match owner {
                Owner::Pod(other) if other.uid == pod.uid => {}
                Owner::Pod(other) => return Err(format!("{address} is pod {}/{}", other.namespace, other.name)),
                Owner::Node(node) => return Err(format!("{address} is node {node}")),
                Owner::Service((namespace, name)) => return Err(format!("{address} is service {namespace}/{name}")),
            }
        }
        Ok(net)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::cluster::{Node, Service};

    fn pod(name: &str, address: [u8; 4], annotation: Option<&str>) -> Pod {
        Pod {
            namespace: "shop".into(),
            name: name.into(),
            uid: name.into(),
            node: "n1".into(),
            addresses: vec![address.into()],
            annotations: annotation.map(|value| (SOURCE_PREFIXES.into(), value.into())).into_iter().collect(),
            ..Pod::default()
        }
    }

    /// What the pod has by this annotation, as text, and what is said of the rest.
    fn given(value: &str, setting: SourcePrefixes) -> (Vec<String>, Vec<String>) {
        let mut cluster = Cluster::default();
        cluster.pods = vec![pod("vpn", [10, 77, 0, 2], Some(value)), pod("db", [10, 9, 3, 4], None)];
        let addresses = vec![[192, 0, 2, 10].into()];
        let pod_cidrs = vec!["10.77.0.0/24".parse().unwrap()];
        cluster.nodes.insert("n1".into(), Node { addresses, pod_cidrs, ..Node::default() });
        let service = Service {
            selector: Default::default(),
            cluster_ips: vec![[10, 96, 0, 20].into()],
            external_ips: vec![[203, 0, 113, 80].into()],
            ports: Vec::new(),
            created: None,
            tenure: None,
            source: None,
        };
        cluster.services.insert(("shop".into(), "api".into()), service);
        let mut warnings = BTreeSet::new();
        let prefixes = Taken::of(&cluster, "n1").prefixes(&cluster.pods[0], setting, &mut warnings);
        (prefixes.iter().map(ToString::to_string).collect(), warnings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_guarded_annotation_gives_what_is_nobody_elses() {
        let (prefixes, warnings) = given("10.8.0.0/24, 172.20.1.1/32,10.77.0.2/32", SourcePrefixes::Guarded);
        assert_eq!(prefixes, ["10.8.0.0/24", "172.20.1.1/32"]);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }

    #[test]
    fn an_annotation_that_nothing_guards_gives_nothing_and_is_told() {
        let (prefixes, warnings) = given("10.8.0.0/24", SourcePrefixes::Ignored);
        assert!(prefixes.is_empty());
        assert!(warnings[0].contains("shop/vpn") && warnings[0].contains("--source-prefixes-guarded"), "{warnings:?}");
    }

    #[test]
    fn what_is_others_too_wide_or_no_prefix_is_refused_with_why() {
        for (value, why) in [
            ("10.9.0.0/16", "10.9.3.4 is pod shop/db"),
            ("192.0.2.0/24", "192.0.2.10 is node n1"),
            ("10.96.0.0/16", "10.96.0.20 is service shop/api"),
            ("203.0.113.80/32", "203.0.113.80 is service shop/api"),
            ("10.77.0.128/25", "node n1 gives its pods addresses of 10.77.0.0/24"),
            ("10.0.0.0/8", "too wide"),
            ("0.0.0.0/0", "too wide"),
            ("10.8.0.1/24", "write 10.8.0.0/24"),
            ("127.0.0.0/16", "nobody's to send from"),
            ("224.0.0.0/24", "nobody's to send from"),
            ("169.254.0.0/16", "nobody's to send from"),
            ("fd00:8::/64", "only IPv4"),
            ("vpn", "no prefix"),
            ("", "no prefix"),
            ("10.8.0.1", "no prefix"),
        ] {
            let (prefixes, warnings) = given(value, SourcePrefixes::Guarded);
            assert!(prefixes.is_empty(), "{value}");
            assert!(warnings.len() == 1 && warnings[0].contains(why), "{value}: {warnings:?}");
        }
        let many: Vec<String> = (0..9).map(|number| format!("10.8.{number}.0/24")).collect();
        let (prefixes, warnings) = given(&many.join(","), SourcePrefixes::Guarded);
        assert_eq!((prefixes.len(), warnings.len()), (FURTHER_PREFIXES, 1), "{warnings:?}");
    }
}
