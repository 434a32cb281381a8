//! Clusters out of YAML for one test.

use model::{cluster::Cluster, policy::PolicySet};
use review::{End, EndId, Input, Reach, Universe};

/// A cluster with its policies.
pub(crate) struct World(pub(crate) Cluster, pub(crate) PolicySet);

pub(crate) fn world(yaml: &str) -> World {
    let mut cluster = Cluster::default();
    model::yaml::read_into(&mut cluster, "world.yaml", yaml).expect("YAML of the test");
    let policies = cluster.policies.clone();
    World(cluster, policies)
}

impl World {
    pub(crate) fn input(&self) -> Input<'_> {
        Input { cluster: &self.0, policies: &self.1 }
    }
}

/// The end of a pod of this name, its first.
pub(crate) fn pod(universe: &Universe<'_>, name: &str) -> EndId {
    let (_, ends) = universe.pods(0).iter().find(|(pod, _)| pod.name == name).expect("a pod of the test");
    ends[0]
}

/// The end of the label combination that nobody runs, as it describes itself.
pub(crate) fn nobody(universe: &Universe<'_>, described: &str) -> EndId {
    let found = universe.nobody().find(|(_, nobody)| nobody.described == described);
    found.unwrap_or_else(|| panic!("{described} is none of {:#?}", universe.nobody().collect::<Vec<_>>())).0
}

/// The end of the addresses that hold this one.
pub(crate) fn block(universe: &Universe<'_>, cidr: &str) -> EndId {
    let wanted: ipnet::IpNet = cidr.parse().expect("a CIDR of the test");
    let holds = |id: &&EndId| universe.cidrs([**id]).iter().any(|net| net.contains(&wanted));
    *universe.blocks().iter().find(holds).expect("a block")
}

/// What may pass, in words.
pub(crate) fn allowed(reach: &Reach<'_, '_>, from: EndId, to: EndId) -> String {
    assert_eq!(reach.row(from)[to_index(reach.universe(), to)], reach.allowed(from, to));
    reach.sets().get(reach.allowed(from, to)).to_string()
}

fn to_index(universe: &Universe<'_>, id: EndId) -> usize {
    universe.ends().position(|(known, _): (EndId, &End)| known == id).expect("an end")
}
