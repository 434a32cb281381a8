//! A cluster over a time: what a watch tells, one change after the other, becomes a [`Cluster`] that
//! still holds what ended, with the [`Tenure`] of everything that has addresses.
//!
//! Changes may come twice, late and out of order, with the connection lost in between. Time is an
//! argument: the caller says when it was told what.
//!
//! Always holds: an object's older version never replaces a newer one, and what is deleted does not
//! come back; memory is bounded by the cluster and what ended within the retention.

mod forget;

use crate::{
    cluster::{Cluster, EndpointSlice, Namespace, Node, Pod, Service, Workload, WorkloadKey},
    policy::NetworkPolicy,
    record::UnixNanos,
    tenure::{SECOND, Tenure, end_of, nanos},
};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

/// One object of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Entry {
    Namespace(String, Namespace),
    Node(String, Node),
    Pod(Pod),
    Service((String, String), Service),
    EndpointSlice((String, String), EndpointSlice),
    Workload(WorkloadKey, Workload),
    Policy(NetworkPolicy),
    Staged(NetworkPolicy),
}

/// What a watch says about one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is there, as it is now (`ADDED`, `MODIFIED`).
    Applied,
    /// It is gone; this was its last state (`DELETED`).
    Deleted,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct Told {
    /// When it was told; `None`: nobody noted that, and only the object's own stamps tell.
    pub at: Option<UnixNanos>,
    /// `metadata.resourceVersion`, which grows with each change of an object (KEP 5504).
    pub version: Option<u64>,
    /// What happened.
    pub change: Change,
    /// The object.
    pub entry: Entry,
}

/// How a history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What happens is told within this time, or in a gap.
    pub lag: UnixNanos,
    /// A pod whose object is gone before its end was told holds its addresses this long at most: a
    /// node still runs what was deleted by force.
    pub linger: UnixNanos,
    /// What ended longer ago than this is forgotten.
    pub retention: UnixNanos,
}

impl Default for Settings {
    fn default() -> Self {
        Self { lag: 2 * SECOND, linger: 30 * SECOND, retention: 3_600 * SECOND }
    }
}

/// What a cluster was before: only attribution of flows of then asks for it.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Pods under addresses they held before: pods that ended are among [`Cluster::pods`].
    pub pods: Vec<Pod>,
    /// Services that are gone, or that had other addresses.
    pub services: Vec<((String, String), Service)>,
    /// Nodes that are gone, or that had other addresses.
    pub nodes: Vec<(String, Node)>,
    /// Controllers that are gone, as they were last.
    pub workloads: BTreeMap<WorkloadKey, Workload>,
    /// From when until when nobody watched.
    pub gaps: Vec<(UnixNanos, UnixNanos)>,
    /// Since when nobody watches.
    pub blind_since: Option<UnixNanos>,
    /// Everything that was told before this time is known; `None`: everything.
    pub told_until: Option<UnixNanos>,
    /// See [`Settings::lag`].
    pub lag: UnixNanos,
    /// See [`Settings::linger`].
    pub linger: UnixNanos,
}

/// What became of what was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Changes that were told.
    pub told: u64,
    /// Of these, older than what was known: they came late, or twice.
    pub stale: u64,
    /// Lists of the whole cluster.
    pub lists: u64,
    /// Times in which nobody watched.
    pub gaps: u64,
    /// Pods forgotten.
    pub forgotten: u64,
}

type PodId = (String, String);

#[derive(Clone, Copy, Debug)]
struct Known {
    index: usize,
    told: UnixNanos,
    deleted: bool,
}

/// A cluster over a time.
#[derive(Clone, Debug, Default)]
pub struct History {
    settings: Settings,
    cluster: Cluster,
    pods: HashMap<PodId, Known>,
    /// The living pod of a name: there is one at most.
    by_name: HashMap<PodId, String>,
    versions: HashMap<String, (u64, UnixNanos)>,
    /// The version of the last list.
    listed: Option<u64>,
    /// When news began to be told one by one, after the first list.
    live_since: Option<UnixNanos>,
    counts: Counts,
}

impl History {
    /// One that knows nothing yet.
    pub fn new(settings: Settings) -> Self {
        let mut cluster = Cluster::default();
        (cluster.past.lag, cluster.past.linger) = (settings.lag, settings.linger);
        Self { settings, cluster, ..Self::default() }
    }

    /// One that knows a cluster from files: of what was before, its stamps tell.
    pub fn of(cluster: Cluster, settings: Settings) -> Self {
        let mut history = Self { settings, cluster, ..Self::default() };
        (history.cluster.past.lag, history.cluster.past.linger) = (settings.lag, settings.linger);
        for (index, pod) in history.cluster.pods.iter().enumerate() {
            let (id, deleted) = (pod_id(pod), !pod.lives());
            if !deleted {
                history.by_name.insert((pod.namespace.clone(), pod.name.clone()), pod.uid.clone());
            }
            history.pods.insert(id, Known { index, told: UnixNanos::MIN, deleted });
        }
        history
    }

    /// The cluster as it is now, with what ended.
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The same, when no more will be told.
    pub fn into_cluster(mut self) -> Cluster {
        self.cluster.pods.sort_by(|a, b| order(a).cmp(&order(b)));
        self.cluster
    }

    /// What became of what was told.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes one change.
    pub fn tell(&mut self, told: Told) {
        self.counts.told += 1;
        let id = id(&told.entry);
        let stale = match (told.version, self.versions.get(&id)) {
            (Some(version), Some((known, _))) if version <= *known => true,
            (version @ Some(_), _) => version <= self.listed,
            (None, _) => false,
        };
        if stale {
            self.counts.stale += 1;
            if let Entry::Pod(pod) = told.entry {
                self.late(&pod);
            }
            return;
        }
        if let Some(version) = told.version {
            self.versions.insert(id, (version, told.at.unwrap_or(UnixNanos::MAX)));
        }
        let deleted = told.change == Change::Deleted;
        self.apply(told.entry, told.at, told.version, deleted);
    }

    /// Takes the whole cluster as it is at a time: what is not in it is gone. Ends a gap. It also is how a
    /// history begins: of what ended before its first list nothing is known. `version` is the list's own
    /// `metadata.resourceVersion`: news of older ones comes late.
    pub fn relist(&mut self, now: &Cluster, at: UnixNanos, version: Option<u64>) {
        self.counts.lists += 1;
        self.listed = self.listed.max(version);
        let unseen = self.unseen(at);
        let listed: HashSet<PodId> = now.pods.iter().map(pod_id).collect();
        let missing: Vec<PodId> = self
            .pods
            .iter()
            .filter(|(id, known)| !known.deleted && !listed.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in missing {
            self.pod_gone(&id, unseen, Some(at));
        }
        let gone = |name: &&(String, String)| !now.services.contains_key(*name);
        for name in self.cluster.services.keys().filter(gone).cloned().collect::<Vec<_>>() {
            self.service_gone(&name, unseen, Some(at));
        }
        for name in self.cluster.nodes.keys().filter(|n| !now.nodes.contains_key(*n)).cloned().collect::<Vec<_>>() {
            self.node_gone(&name, unseen, Some(at));
        }
        let here = std::mem::take(&mut self.cluster.workloads);
        self.cluster.past.workloads.extend(here.into_iter().filter(|(key, _)| !now.workloads.contains_key(key)));
        self.cluster.workloads.clone_from(&now.workloads);
        self.cluster.namespaces.clone_from(&now.namespaces);
        self.cluster.endpoint_slices.clone_from(&now.endpoint_slices);
        self.cluster.policies.clone_from(&now.policies);
        self.cluster.staged.clone_from(&now.staged);
        self.cluster.passed_over.clone_from(&now.passed_over);
        let pods = now.pods.iter().cloned().map(Entry::Pod);
        let services = now.services.iter().map(|(name, service)| Entry::Service(name.clone(), service.clone()));
        let nodes = now.nodes.iter().map(|(name, node)| Entry::Node(name.clone(), node.clone()));
        for entry in pods.chain(services).chain(nodes) {
            self.apply(entry, Some(at), version, false);
        }
        // Nobody watched before the first list, either.
        let blind = self.cluster.past.blind_since.take();
        let blind = if self.live_since.is_none() { Some(UnixNanos::MIN) } else { blind };
        if let Some(since) = blind {
            self.cluster.past.gaps.push((since.saturating_sub(self.settings.lag), at));
        }
        self.live_since.get_or_insert(at);
        self.cluster.past.told_until = self.cluster.past.told_until.map(|told| told.max(at));
    }

    /// The watch was lost: until the next list nobody knows what happens.
    pub fn gap(&mut self, at: UnixNanos) {
        if self.cluster.past.blind_since.is_none() {
            self.counts.gaps += 1;
            self.cluster.past.blind_since = Some(at);
        }
    }

    /// Everything that the cluster told before `at` has been taken. Who never says so is believed to have told
    /// everything whenever he is asked.
    pub fn heard(&mut self, at: UnixNanos) {
        let told = self.cluster.past.told_until.get_or_insert(at);
        *told = (*told).max(at);
    }

    /// From when on, at a time, nobody knows whether what was told last still holds.
    fn unseen(&self, at: UnixNanos) -> UnixNanos {
        self.cluster.past.blind_since.unwrap_or(at).saturating_sub(self.settings.lag)
    }

    fn apply(&mut self, entry: Entry, at: Option<UnixNanos>, version: Option<u64>, deleted: bool) {
        let unseen = at.map_or(UnixNanos::MIN, |at| self.unseen(at));
        match entry {
            Entry::Pod(pod) => self.pod(pod, at, version, deleted),
            Entry::Service(name, _) if deleted => self.service_gone(&name, unseen, at),
            Entry::Service(name, mut service) => {
                let addresses = service_addresses(&service);
                let same = self.cluster.services.get(&name).filter(|before| service_addresses(before) == addresses);
                match same.map(|same| same.tenure) {
                    Some(tenure) => service.tenure = tenure,
                    None => {
                        service.tenure = Some(self.begun(service.created, at));
                        self.service_gone(&name, unseen, at);
                    }
                }
                self.cluster.services.insert(name, service);
            }
            Entry::Node(name, _) if deleted => self.node_gone(&name, unseen, at),
            Entry::Node(name, mut node) => {
                let same = self.cluster.nodes.get(&name).filter(|before| before.addresses == node.addresses);
                match same.map(|same| same.tenure) {
                    Some(tenure) => node.tenure = tenure,
                    None => {
                        node.tenure = Some(self.begun(node.created, at));
                        self.node_gone(&name, unseen, at);
                    }
                }
                self.cluster.nodes.insert(name, node);
            }
            Entry::Workload(key, _) if deleted => {
                if let Some(workload) = self.cluster.workloads.remove(&key) {
                    self.cluster.past.workloads.insert(key, workload);
                }
            }
            Entry::Workload(key, workload) => drop(self.cluster.workloads.insert(key, workload)),
            Entry::Namespace(name, _) if deleted => drop(self.cluster.namespaces.remove(&name)),
            Entry::Namespace(name, namespace) => drop(self.cluster.namespaces.insert(name, namespace)),
            Entry::EndpointSlice(name, _) if deleted => drop(self.cluster.endpoint_slices.remove(&name)),
            Entry::EndpointSlice(name, slice) => drop(self.cluster.endpoint_slices.insert(name, slice)),
            Entry::Policy(policy) => self.cluster.policies.replace(policy, deleted),
            Entry::Staged(policy) => self.cluster.staged.replace(policy, deleted),
        }
    }

    /// The tenure of addresses that were told first at a time, of something that has been there since a stamp.
    fn begun(&self, created: Option<Timestamp>, at: Option<UnixNanos>) -> Tenure {
        let stamped = Tenure::since(created, created);
        match (at, self.live_since) {
            // It did not have them before, or somebody would have said so.
            (Some(at), Some(_)) => Tenure { from: self.unseen(at).max(stamped.from), surely_from: at, ..stamped },
            (Some(at), None) => Tenure { surely_from: stamped.surely_from.min(at), ..stamped },
            (None, _) => stamped,
        }
    }

    fn service_gone(&mut self, name: &(String, String), unsure: UnixNanos, at: Option<UnixNanos>) {
        let Some(mut service) = self.cluster.services.remove(name) else { return };
        service.tenure.get_or_insert(Tenure::UNKNOWN).end(unsure, at.unwrap_or(UnixNanos::MAX));
        self.cluster.past.services.push((name.clone(), service));
    }

    fn node_gone(&mut self, name: &str, unsure: UnixNanos, at: Option<UnixNanos>) {
        let Some(mut node) = self.cluster.nodes.remove(name) else { return };
        node.tenure.get_or_insert(Tenure::UNKNOWN).end(unsure, at.unwrap_or(UnixNanos::MAX));
        self.cluster.past.nodes.push((name.to_owned(), node));
    }

    fn pod(&mut self, mut pod: Pod, at: Option<UnixNanos>, version: Option<u64>, deleted: bool) {
        let id = pod_id(&pod);
        let before = self.pods.get(&id).copied();
        if let Some(known) = before.filter(|known| known.deleted) {
            // A UID never comes back. A pod without one is known by its name, which may.
            if deleted || pod.uid != pod.name {
                return self.late(&pod);
            }
            let old = self.cluster.pods[known.index].clone();
            self.cluster.past.pods.push(old);
        }
        let before = before.filter(|known| !known.deleted);
        let deleted = deleted || self.end_namesake(&pod, at, version) == Namesake::Newer;
        let tenure = match before {
            Some(known) => self.moved(&mut pod, known, at),
            None => self.first(&pod, at),
        };
        pod.tenure = at.map(|at| self.tenure(tenure, &pod, at));
        let index = match self.pods.get(&id) {
            Some(known) => {
                let index = known.index;
                self.cluster.pods[index] = pod;
                index
            }
            None => {
                self.cluster.pods.push(pod);
                self.cluster.pods.len() - 1
            }
        };
        let told = at.or(before.map(|known| known.told)).unwrap_or(UnixNanos::MIN);
        let pod = &self.cluster.pods[index];
        if !deleted {
            self.by_name.insert((pod.namespace.clone(), pod.name.clone()), pod.uid.clone());
        }
        self.pods.insert(id.clone(), Known { index, told, deleted: false });
        if deleted {
            let unsure = at.map_or(UnixNanos::MIN, |at| self.unseen(at));
            self.pod_gone(&id, unsure, at);
        }
    }

    /// A pod that was not known: its stamp says since when, or the news before it, which did not name it.
    fn first(&self, pod: &Pod, at: Option<UnixNanos>) -> Tenure {
        let stamped = Tenure::since(pod.started, pod.running_since);
        match (at, self.live_since, pod.started) {
            (Some(at), Some(_), None) => Tenure { from: self.unseen(at), surely_from: at, ..stamped },
            _ => stamped,
        }
    }

    /// A pod that was known: it keeps its addresses where the news has none, and begins anew with others (a sandbox
    /// that was made again).
    fn moved(&mut self, pod: &mut Pod, known: Known, at: Option<UnixNanos>) -> Tenure {
        let old = &self.cluster.pods[known.index];
        let tenure = old.tenure.unwrap_or_else(|| Tenure::by_stamps(old));
        if pod.addresses.is_empty() {
            pod.addresses.clone_from(&old.addresses);
        }
        let stays = old.addresses.is_empty() || set(&old.addresses) == set(&pod.addresses);
        // It started anew while nobody watched, and may have had others in between.
        let unseen = self.cluster.past.blind_since.is_some()
            && old.running_since.is_some()
            && old.running_since != pod.running_since;
        let since = match (stays, at) {
            (true, Some(at)) if unseen => self.unseen(at),
            (true, _) => return tenure,
            (false, _) => known.told.saturating_sub(self.settings.lag),
        };
        let mut former = old.clone();
        let mut ended = tenure;
        ended.end(since, at.unwrap_or(UnixNanos::MAX));
        former.tenure = Some(ended);
        self.cluster.past.pods.push(former);
        Tenure { from: tenure.from.max(since), ..Tenure::UNKNOWN }
    }

    /// What an object that was told at a time adds to what was known.
    fn tenure(&self, mut tenure: Tenure, pod: &Pod, at: UnixNanos) -> Tenure {
        let unsure = self.unseen(at);
        if pod.lives() && !pod.addresses.is_empty() {
            tenure.surely_from = tenure.surely_from.min(at);
        }
        if let Some(since) = pod.running_since.map(end_of).filter(|since| *since >= tenure.from) {
            tenure.surely_from = tenure.surely_from.min(since);
        }
        match pod.ended {
            Some(end) if pod.completed => tenure.end(nanos(end), end_of(end)),
            None if pod.completed => tenure.end(unsure, at),
            // It may end at any moment, long before its grace is over. A stamp with a fraction is no grace's.
            Some(end) => {
                let slow = if end.subsec_nanosecond() == 0 { self.settings.linger } else { 0 };
                tenure.end(unsure, end_of(end).saturating_add(slow));
            }
            None => {}
        }
        tenure
    }

    /// A pod's object is gone.
    fn pod_gone(&mut self, id: &PodId, unsure: UnixNanos, at: Option<UnixNanos>) {
        let Some(known) = self.pods.get_mut(id) else { return };
        known.deleted = true;
        let pod = &mut self.cluster.pods[known.index];
        let name = (pod.namespace.clone(), pod.name.clone());
        if self.by_name.get(&name) == Some(&pod.uid) {
            self.by_name.remove(&name);
        }
        if pod.completed && pod.ended.is_some() {
            return;
        }
        match (at, &mut pod.tenure) {
            (Some(at), Some(tenure)) => {
                tenure.end(unsure, at.saturating_add(self.settings.linger));
                let gone = Timestamp::from_nanosecond(at.into()).ok();
                pod.ended = pod.ended.into_iter().chain(gone).min();
            }
            // Nobody noted when; its stamps tell, or nothing does.
            _ if pod.ended.is_none() => {
                pod.tenure = Some(Tenure::by_stamps(pod));
                pod.completed = true;
            }
            _ => {}
        }
    }

    /// Another pod of the same name was there: a name is given again when its pod is gone. Of two the newer one lives.
    fn end_namesake(&mut self, pod: &Pod, at: Option<UnixNanos>, version: Option<u64>) -> Namesake {
        let name = (pod.namespace.clone(), pod.name.clone());
        let Some(uid) = self.by_name.get(&name).filter(|uid| **uid != pod.uid) else { return Namesake::NoneOrOlder };
        let other = (pod.namespace.clone(), uid.clone());
        let versions = self.versions.get(&pod_version_id(&other)).map(|(known, _)| *known).zip(version);
        if versions.is_some_and(|(known, version)| version < known) {
            return Namesake::Newer;
        }
        let unsure = at.map_or(UnixNanos::MIN, |at| self.unseen(at));
        self.pod_gone(&other, unsure, at);
        Namesake::NoneOrOlder
    }

    /// News that is older than what is known says what was missing: addresses that the pod has, or that it had and left
    /// again before anybody said so.
    fn late(&mut self, pod: &Pod) {
        let id = pod_id(pod);
        let Some(known) = self.pods.get(&id).copied() else { return };
        let newer = &mut self.cluster.pods[known.index];
        if newer.addresses.is_empty() {
            newer.addresses.clone_from(&pod.addresses);
            return;
        }
        let theirs = set(&pod.addresses);
        let mut formers = self.cluster.past.pods.iter().filter(|former| pod_id(former) == id);
        let is_told = |one: &Pod| set(&one.addresses) == theirs;
        if theirs.is_empty() || is_told(newer) || formers.any(is_told) {
            return;
        }
        let until = if known.told == UnixNanos::MIN { UnixNanos::MAX } else { known.told };
        let mut tenure = Tenure::since(pod.started, pod.running_since);
        tenure.surely_from = tenure.surely_from.min(until);
        tenure.end(UnixNanos::MIN, until);
        self.cluster.past.pods.push(Pod { tenure: Some(tenure), ..pod.clone() });
    }
}

/// Whether a pod of the same name has taken the place of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namesake {
    NoneOrOlder,
    Newer,
}

fn pod_version_id((namespace, uid): &PodId) -> String {
    format!("Pod {namespace}/{uid}")
}

fn pod_id(pod: &Pod) -> PodId {
    (pod.namespace.clone(), pod.uid.clone())
}

fn order(pod: &Pod) -> impl Ord + '_ {
    (&pod.namespace, &pod.name, pod.started, &pod.uid)
}

fn set(addresses: &[IpAddr]) -> HashSet<IpAddr> {
    addresses.iter().map(IpAddr::to_canonical).collect()
}

fn service_addresses(service: &Service) -> HashSet<IpAddr> {
    service.cluster_ips.iter().chain(&service.external_ips).map(IpAddr::to_canonical).collect()
}

fn id(entry: &Entry) -> String {
    match entry {
        Entry::Namespace(name, _) => format!("Namespace {name}"),
        Entry::Node(name, _) => format!("Node {name}"),
        Entry::Pod(pod) => pod_version_id(&pod_id(pod)),
        Entry::Service((namespace, name), _) => format!("Service {namespace}/{name}"),
        Entry::EndpointSlice((namespace, name), _) => format!("EndpointSlice {namespace}/{name}"),
        Entry::Workload(key, _) => format!("{} {}/{}", key.kind, key.namespace, key.name),
        Entry::Policy(policy) => format!("NetworkPolicy {}/{}", policy.namespace, policy.name),
        Entry::Staged(policy) => format!("StagedNetworkPolicy {}/{}", policy.namespace, policy.name),
    }
}
