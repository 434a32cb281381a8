//! A random cluster that the lab can play: its pods with addresses of their own, on one node, and a host outside.

use crate::arrivals::{Host, Opening};
use lab::{Lab, Scenario};
use model::policy::{PolicySet, Protocol};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{RngSeed, TestRunner},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt, net::IpAddr, path::Path};
use tests::{
    objects::{NAMESPACES, NODE, NODE_NAME, Objects, PORTS, objects},
    second::{self, Who},
};

/// Where pods get their addresses from: what policies name lies in it.
const PODS: [&str; 2] = ["10.0.0.0/26", "fd00::/112"];
/// A host outside the cluster, in the wider ones of the blocks that policies name.
const OUTSIDE: [&str; 2] = ["10.0.0.100", "fd00::1:9"];
const OUTSIDE_NAME: &str = "far";

/// Namespaces, pods without addresses, and policies.
pub(crate) struct World(Objects);

impl World {
    /// Random worlds without end, the same ones for the same seed.
    pub(crate) fn all(seed: u64) -> impl Iterator<Item = Self> {
        let config = ProptestConfig { rng_seed: RngSeed::Fixed(seed), ..ProptestConfig::default() };
        let (mut runner, strategy) = (TestRunner::new(config), objects());
        std::iter::from_fn(move || Some(Self::of(strategy.new_tree(&mut runner).ok()?.current().0)))
    }

    /// What of the objects the lab can play: a completed pod holds nothing, and a hostNetwork pod is its node.
    fn of(objects: Vec<Value>) -> Self {
        let is_named = |name: &str| objects.iter().any(|o| o["kind"] == "Namespace" && o["metadata"]["name"] == name);
        // Modes are labels on namespaces, so each is given.
        let unnamed = NAMESPACES.into_iter().filter(|name| !is_named(name));
        let mut all: Vec<Value> =
            unnamed.map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).collect();
        let is_played = |object: &Value| match object["kind"].as_str() {
            Some("Pod") => {
                let is_over = object["status"]["phase"] == "Succeeded" || object["status"]["phase"] == "Failed";
                !is_over && object["spec"]["hostNetwork"] != true
            }
            Some("Node") => false,
            _ => true,
        };
        all.extend(objects.into_iter().filter(is_played));
        for pod in all.iter_mut().filter(|object| object["kind"] == "Pod") {
            pod["status"] = Value::Null;
            pod["metadata"]["uid"] = Value::Null;
        }
        Self(Objects(all))
    }

    /// Its pods, by namespace and name.
    fn pods(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.0.iter().filter(|object| object["kind"] == "Pod").map(name_of)
    }

    /// The share of openings that pass, in percent, if pods have addresses in their order; `None` where hardly anybody is
    /// there.
    pub(crate) fn open_percent(&self) -> Option<usize> {
        let ends: Vec<Addressed> = self
            .pods()
            .enumerate()
            .map(|(i, (namespace, name))| Addressed {
                pod: Some((namespace.to_owned(), name.to_owned())),
                addresses: [format!("10.0.0.{}", i + 2), format!("fd00::{}", i + 2)].map(|ip| address(&ip)).to_vec(),
            })
            .collect();
        if ends.len() < 3 {
            return None;
        }
        let asked = openings(&ends);
        Some(100 * self.expected(&ends, &asked).len() / asked.len())
    }

    /// The same for the lab.
    pub(crate) fn scenario(&self) -> Scenario {
        let addresses = NODE.map(|address| json!({"type": "InternalIP", "address": address}));
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NODE_NAME},
            "spec": {"podCIDRs": PODS},
            "status": {"addresses": addresses},
        });
        let played = self.0.0.iter().filter(|object| object["kind"] != "NetworkPolicy");
        let cluster: String = [&node].into_iter().chain(played).map(|object| format!("---\n{object}\n")).collect();
        let traffic = json!({"outside": [{"name": OUTSIDE_NAME, "addresses": OUTSIDE}]}).to_string();
        let scenario = Scenario::parse("world", Path::new("."), ("cluster", &cluster), ("traffic", &traffic));
        scenario.unwrap_or_else(|error| panic!("{error}\n{cluster}"))
    }

    /// Its policies, as a person would apply them.
    pub(crate) fn policies(&self) -> PolicySet {
        let policies = self.0.0.iter().filter(|object| object["kind"] == "NetworkPolicy");
        let text: String = policies.map(|object| format!("---\n{object}\n")).collect();
        model::yaml::read_policies("policies", &text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// Those of the openings that the second evaluator lets through.
    pub(crate) fn expected(&self, ends: &[Addressed], asked: &BTreeSet<Opening>) -> BTreeSet<Opening> {
        let objects = self.placed(ends);
        let passes = |opening: &&Opening| {
            let Opening { protocol, from, to, port } = **opening;
            let [from, to] = [from, to].map(|ip| second::who(&objects, ip));
            debug_assert!(matches!(from, Who::Pod(..)) || matches!(to, Who::Pod(..)));
            second::allowed(&objects, from, to, Some(protocol.name()), port)
        };
        asked.iter().filter(passes).copied().collect()
    }

    /// The objects with the addresses that pods have.
    fn placed(&self, ends: &[Addressed]) -> Vec<Value> {
        let mut objects = self.0.0.clone();
        for pod in objects.iter_mut().filter(|object| object["kind"] == "Pod") {
            let (namespace, name) = name_of(pod);
            let is_it = |end: &&Addressed| end.pod.as_ref().is_some_and(|(n, p)| n == namespace && p == name);
            let end = ends.iter().find(is_it).expect("every pod is up");
            let ips: Vec<Value> = end.addresses.iter().map(|ip| json!({"ip": ip})).collect();
            pod["status"] = json!({"phase": "Running", "podIPs": ips});
        }
        objects
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn name_of(pod: &Value) -> (&str, &str) {
    let text = |field: &str| pod["metadata"][field].as_str();
    (text("namespace").unwrap_or("default"), text("name").expect("a name"))
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// An end with its addresses: a pod by namespace and name, or the host outside.
pub(crate) struct Addressed {
    pod: Option<(String, String)>,
    addresses: Vec<IpAddr>,
}

/// Everybody in a lab, and their network namespaces.
pub(crate) fn everybody(lab: &Lab) -> (Vec<Addressed>, Vec<Host>) {
    let mut all = (Vec::new(), Vec::new());
    for pod in lab.pods() {
        all.1.push(Host { netns: lab.pod_netns(&pod), addresses: pod.addresses.clone() });
        all.0.push(Addressed { pod: Some((pod.namespace, pod.name)), addresses: pod.addresses });
    }
    let addresses = OUTSIDE.map(address).to_vec();
    all.1.push(Host { netns: lab.host_netns(OUTSIDE_NAME), addresses: addresses.clone() });
    all.0.push(Addressed { pod: None, addresses });
    all
}

/// Every opening between two ends, over each family and protocol at each port.
pub(crate) fn openings(ends: &[Addressed]) -> BTreeSet<Opening> {
    let mut all = BTreeSet::new();
    for (i, client) in ends.iter().enumerate() {
        for (_, server) in ends.iter().enumerate().filter(|(j, _)| *j != i) {
            let pairs = client.addresses.iter().flat_map(|from| server.addresses.iter().map(move |to| (*from, *to)));
            for (from, to) in pairs.filter(|(from, to)| from.is_ipv4() == to.is_ipv4()) {
                let places = Protocol::ALL.iter().flat_map(|protocol| PORTS.map(|port| (*protocol, port)));
                all.extend(places.map(|(protocol, port)| Opening { protocol, from, to, port }));
            }
        }
    }
    all
}
