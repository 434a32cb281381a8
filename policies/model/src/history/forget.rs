//! What ended longer ago than the retention goes.
//!
//! Always holds: no answer becomes wrong by forgetting. Where what goes may have held an address
//! together with what stays, what stays gives up that time.

use super::History;
use crate::{cluster::Pod, record::UnixNanos, tenure::Tenure};
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

/// So many gaps are told apart; of more the two oldest become one.
const MAX_GAPS: usize = 64;

impl History {
    /// Forgets what ended longer ago than the retention.
    pub fn forget(&mut self, now: UnixNanos) {
        let before = now.saturating_sub(self.settings.retention);
        let mut until: HashMap<IpAddr, UnixNanos> = HashMap::new();
        let ended = |tenure: Option<Tenure>| tenure.is_some_and(|tenure| tenure.until < before);
        let over = |pod: &Pod| ended(Some(pod.tenure.unwrap_or_else(|| Tenure::by_stamps(pod))));
        let mut note = |addresses: &mut dyn Iterator<Item = &IpAddr>, tenure: Option<Tenure>| {
            for ip in addresses {
                let last = until.entry(ip.to_canonical()).or_insert(UnixNanos::MIN);
                *last = (*last).max(tenure.map_or(UnixNanos::MIN, |tenure| tenure.until));
            }
        };
        let pods = self.cluster.pods.len();
        let known = &self.pods;
        self.cluster.pods.retain(|pod| {
            let goes = over(pod) && known.get(&super::pod_id(pod)).is_some_and(|known| known.deleted);
            if goes {
                note(&mut pod.addresses.iter(), pod.tenure);
            }
            !goes
        });
        self.counts.forgotten += (pods - self.cluster.pods.len()) as u64;
        let past = &mut self.cluster.past;
        past.pods.retain(|pod| {
            let goes = over(pod);
            if goes {
                note(&mut pod.addresses.iter(), pod.tenure);
            }
            !goes
        });
        past.services.retain(|(_, service)| {
            let goes = ended(service.tenure);
            if goes {
                note(&mut service.cluster_ips.iter().chain(&service.external_ips), service.tenure);
            }
            !goes
        });
        past.nodes.retain(|(_, node)| {
            let goes = ended(node.tenure);
            if goes {
                note(&mut node.addresses.iter(), node.tenure);
            }
            !goes
        });
        while past.gaps.len() > MAX_GAPS {
            let (from, _) = past.gaps.remove(0);
            if let Some(first) = past.gaps.first_mut() {
                first.0 = from;
            }
        }
        self.give_up(&until);
        self.versions.retain(|_, (_, at)| *at >= before);
        let here: HashMap<_, _> =
            self.cluster.pods.iter().enumerate().map(|(i, pod)| (super::pod_id(pod), i)).collect();
        self.pods.retain(|id, known| {
            here.get(id).is_some_and(|index| {
                known.index = *index;
                true
            })
        });
        self.forget_workloads();
    }

    /// What shared an address with what is forgotten holds it only from the other's end.
    fn give_up(&mut self, until: &HashMap<IpAddr, UnixNanos>) {
        if until.is_empty() {
            return;
        }
        let latest = |addresses: &mut dyn Iterator<Item = &IpAddr>| {
            addresses.filter_map(|ip| until.get(&ip.to_canonical()).copied()).max()
        };
        let trim = |tenure: &mut Option<Tenure>, last: Option<UnixNanos>| {
            if let (Some(tenure), Some(last)) = (tenure, last) {
                tenure.from = tenure.from.max(last.min(tenure.surely_from));
            }
        };
        let past = &mut self.cluster.past;
        for pod in self.cluster.pods.iter_mut().chain(&mut past.pods) {
            let last = latest(&mut pod.addresses.iter());
            trim(&mut pod.tenure, last);
        }
        for service in self.cluster.services.values_mut().chain(past.services.iter_mut().map(|(_, s)| s)) {
            let last = latest(&mut service.cluster_ips.iter().chain(&service.external_ips));
            trim(&mut service.tenure, last);
        }
        for node in self.cluster.nodes.values_mut().chain(past.nodes.iter_mut().map(|(_, n)| n)) {
            let last = latest(&mut node.addresses.iter());
            trim(&mut node.tenure, last);
        }
    }

    /// Controllers that are gone stay as long as something they owned does.
    fn forget_workloads(&mut self) {
        let mut needed = HashSet::new();
        for pod in &self.cluster.pods {
            let mut owner = pod.owner.as_ref().map(|owner| crate::ownership::key_of(&pod.namespace, owner));
            while let Some(key) = owner.take() {
                let past = self.cluster.past.workloads.get(&key);
                let Some(workload) = past.or_else(|| self.cluster.workloads.get(&key)) else { continue };
                owner = workload.owner.as_ref().map(|above| crate::ownership::key_of(&key.namespace, above));
                if !needed.insert(key) {
                    break;
                }
            }
        }
        self.cluster.past.workloads.retain(|key, _| needed.contains(key));
    }
}
