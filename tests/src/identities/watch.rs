//! What a watch tells of a world, and a history that is told it.

use super::{MS, Plan, START, WATCH_LAG, World};
use model::{
    cluster::{Cluster, Namespace, Node, Workload, WorkloadKey},
    history::{Change, Entry, History, Settings, Told},
    labels::{Labels, METADATA_NAME, Selector},
    record::UnixNanos,
    view::AddressView,
};

/// Somebody who watches.
#[derive(Debug)]
pub struct Watcher<'w> {
    world: &'w World,
    /// When each piece of news comes, and which it is, in that order.
    coming: Vec<(UnixNanos, usize)>,
    next: usize,
    /// From when until when nobody watches.
    gap: Option<(UnixNanos, UnixNanos)>,
    /// What was told so far.
    pub history: History,
    now: UnixNanos,
    view: Option<AddressView>,
}

/// How long after it happened everything is told: the kubelet's delays and the watch's.
pub const LAG: UnixNanos = (900 + WATCH_LAG as UnixNanos) * MS;

impl<'w> Watcher<'w> {
    /// Watches from the beginning on.
    pub fn new(plan: &Plan, world: &'w World) -> Self {
        let mut coming = Vec::new();
        for (number, news) in world.news.iter().enumerate() {
            let late = UnixNanos::from(plan.late[number % plan.late.len()]) * MS;
            coming.push((news.at + late, number));
            if plan.twice[number % plan.twice.len()] {
                coming.push((news.at + late * 2 + MS, number));
            }
        }
        coming.sort_unstable();
        let gap = plan.gap.map(|(at, length)| {
            let from = START + (world.until - START) / 65_536 * UnixNanos::from(at);
            (from, from + UnixNanos::from(length) * MS)
        });
        let mut history = History::new(Settings { lag: LAG, ..Settings::default() });
        // Long enough before that nobody lingers from then.
        let begun = START - 60_000 * MS;
        history.relist(&beginning(), begun, Some(0));
        Self { world, coming, next: 0, gap, history, now: begun, view: None }
    }

    /// The time in which nobody watched.
    pub const fn gap(&self) -> Option<(UnixNanos, UnixNanos)> {
        self.gap
    }

    /// What it knows at a time; times are asked in order.
    pub fn view_at(&mut self, now: UnixNanos) -> &AddressView {
        while let Some((at, number)) = self.coming.get(self.next).copied().filter(|(at, _)| *at <= now) {
            self.next += 1;
            self.pass(at);
            let news = &self.world.news[number];
            let lost = self.gap.is_some_and(|(from, until)| (from..until).contains(&at));
            if !lost {
                let version = Some(number as u64 + 1);
                self.history.tell(Told { at: Some(at), version, change: news.change, entry: news.entry.clone() });
                self.view = None;
            }
        }
        self.pass(now);
        let blind = self.gap.is_some_and(|(from, until)| (from..until).contains(&now));
        if !blind {
            self.history.heard(now);
            self.view = None;
        }
        self.view.get_or_insert_with(|| AddressView::new(self.history.cluster()))
    }

    /// Lets time pass, over the ends of the gap.
    fn pass(&mut self, now: UnixNanos) {
        let (before, passed) = (self.now, |at: UnixNanos, before| before < at && at <= now);
        self.now = self.now.max(now);
        let Some((from, until)) = self.gap else { return };
        if passed(from, before) {
            self.history.gap(from);
            self.view = None;
        }
        if passed(until, before) {
            let (cluster, version) = list(self.world, until);
            self.history.relist(&cluster, until, Some(version));
            self.view = None;
        }
    }
}

/// The cluster before anything happens.
fn beginning() -> Cluster {
    let mut cluster = Cluster::default();
    let labels = Labels::from([(METADATA_NAME.to_owned(), super::lives::NAMESPACE.to_owned())]);
    cluster.namespaces.insert(super::lives::NAMESPACE.into(), Namespace { labels, ..Namespace::default() });
    let cidrs = ["10.244.0.0/24", "fd00::/64"].map(|cidr| cidr.parse().expect("a CIDR"));
    let node = Node {
        addresses: vec!["192.0.2.1".parse().expect("an address")],
        pod_cidrs: cidrs.to_vec(),
        ..Node::default()
    };
    cluster.nodes.insert("node-1".into(), node);
    for (kind, name) in super::lives::WORKLOADS {
        // A Rollout is of a kind that nobody reads; a bare pod is its own.
        if matches!(kind, "Rollout" | "Pod") {
            continue;
        }
        let labels = Labels::from([("app".to_owned(), name.to_owned())]);
        let workload = Workload {
            selector: (kind != "CronJob").then(|| Selector::of(labels.clone())),
            template_labels: labels,
            host_network: kind == "DaemonSet",
            replicas: 1,
            ..Workload::default()
        };
        let key = WorkloadKey { namespace: super::lives::NAMESPACE.into(), kind: kind.into(), name: name.into() };
        cluster.workloads.insert(key, workload);
    }
    cluster
}

/// What the API server lists at a time, and the version of that list.
fn list(world: &World, at: UnixNanos) -> (Cluster, u64) {
    let mut cluster = beginning();
    let mut version = 0;
    for (number, news) in world.news.iter().enumerate().take_while(|(_, news)| news.at <= at) {
        version = number as u64 + 1;
        match &news.entry {
            Entry::Pod(pod) => {
                cluster.pods.retain(|other| other.uid != pod.uid);
                if news.change == Change::Applied {
                    cluster.pods.push(pod.clone());
                }
            }
            Entry::Workload(key, workload) => match news.change {
                Change::Applied => drop(cluster.workloads.insert(key.clone(), workload.clone())),
                Change::Deleted => drop(cluster.workloads.remove(key)),
            },
            _ => {}
        }
    }
    (cluster, version)
}
