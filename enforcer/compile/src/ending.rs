//! Namespaces that are being deleted: the API server removes policies and pods in any order, and a pod
//! stays isolated until it is gone (CVE-2024-7598).

use model::{
    cluster::Cluster,
    policy::{NetworkPolicy, PolicySet},
};
use std::collections::{BTreeMap, BTreeSet};

/// Keeps the policies of namespaces that are being deleted, as they were last seen, while pods are in them.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    ending: BTreeSet<String>,
    in_force: BTreeMap<String, Vec<NetworkPolicy>>,
    staged: BTreeMap<String, Vec<NetworkPolicy>>,
}

impl Ending {
    /// Gives the cluster back the policies that its ending namespaces lost since the last call, and returns
    /// how many these are. A namespace counts as ending from when it says so until it is there anew or its
    /// last pod is gone: its own object may go before the last pod is seen to.
    pub fn keep(&mut self, cluster: &mut Cluster) -> usize {
        let peopled: BTreeSet<&str> =
            cluster.pods.iter().filter(|pod| !pod.completed).map(|pod| pod.namespace.as_str()).collect();
        let given = |name: &str| cluster.namespaces.get(name).filter(|namespace| namespace.source.is_some());
        self.ending.retain(|name| given(name).is_none());
        let says_so = cluster.namespaces.iter().filter(|(_, namespace)| namespace.terminating);
        self.ending.extend(says_so.map(|(name, _)| name.clone()));
        self.ending.retain(|name| peopled.contains(name.as_str()));
        restore(&self.ending, &mut self.in_force, &mut cluster.policies)
            + restore(&self.ending, &mut self.staged, &mut cluster.staged)
    }
}

/// Adds what is missing of these namespaces, and remembers what there is now.
fn restore(
    ending: &BTreeSet<String>,
    remembered: &mut BTreeMap<String, Vec<NetworkPolicy>>,
    set: &mut PolicySet,
) -> usize {
    let there: BTreeSet<(String, String)> =
        set.policies.iter().map(|policy| (policy.namespace.clone(), policy.name.clone())).collect();
    let of_ending = ending.iter().filter_map(|namespace| remembered.get(namespace)).flatten();
    let lost: Vec<NetworkPolicy> =
        of_ending.filter(|policy| !there.contains(&(policy.namespace.clone(), policy.name.clone()))).cloned().collect();
    let count = lost.len();
    if count > 0 {
        set.policies.extend(lost);
        set.sort();
    }
    remembered.clear();
    for policy in &set.policies {
        remembered.entry(policy.namespace.clone()).or_default().push(policy.clone());
    }
    count
}
