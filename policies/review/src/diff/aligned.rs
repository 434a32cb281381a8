//! What both inputs must agree on before they are compared, where one of them is silent.

use model::cluster::{Cluster, Pod};
use std::collections::BTreeMap;

/// Fills in of each what only the other knows: namespaces that one does not name at all, and the addresses of
/// workloads that one gives as running pods and the other as pod templates. Returns for how many workloads addresses
/// were filled in.
///
/// A folder of policies need not repeat every namespace, and a manifest has no addresses: neither is a change.
pub fn align(old: &mut Cluster, new: &mut Cluster) -> usize {
    for (one, other) in [(0, 1), (1, 0)] {
        let clusters = [&*old, &*new];
        let missing: BTreeMap<_, _> = clusters[other]
            .namespaces
            .iter()
            .filter(|(name, _)| !clusters[one].namespaces.contains_key(*name))
            .map(|(name, namespace)| (name.clone(), namespace.clone()))
            .collect();
        [&mut *old, &mut *new][one].namespaces.extend(missing);
    }
    let (to_old, to_new) = (running_in(new, old), running_in(old, new));
    let filled = to_old.len() + to_new.len();
    for (cluster, pods) in [(old, to_old), (new, to_new)] {
        cluster.pods.extend(pods.into_iter().flatten());
        cluster.pods.sort_by(|a, b| order(a).cmp(&order(b)));
    }
    filled
}

fn order(pod: &Pod) -> impl Ord + '_ {
    (&pod.namespace, &pod.name, pod.started, &pod.uid)
}

/// For each workload that `templates` knows by one template alone: its pods, as that template would make them, at the
/// addresses that `running` has.
fn running_in(running: &Cluster, templates: &Cluster) -> Vec<Vec<Pod>> {
    let mut stand_ins: BTreeMap<_, Vec<Pod>> = BTreeMap::new();
    for pod in templates.stand_ins() {
        stand_ins.entry(templates.root_owner(&pod)).or_default().push(pod);
    }
    if stand_ins.is_empty() {
        return Vec::new();
    }
    let (by_owner, mut all) = (running.pods_by_root_owner(), Vec::new());
    for (key, made) in stand_ins {
        let [template] = made.as_slice() else { continue };
        let pods: Vec<Pod> = by_owner
            .get(&key)
            .into_iter()
            .flatten()
            .filter(|pod| pod.lives() && !pod.addresses.is_empty() && pod.host_network == template.host_network)
            .map(|pod| Pod {
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                addresses: pod.addresses.clone(),
                ..template.clone()
            })
            .collect();
        if !pods.is_empty() {
            all.push(pods);
        }
    }
    all
}
