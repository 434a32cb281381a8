//! A cluster over a time: what is told, twice, late, and forgotten.

use jiff::Timestamp;
use model::{
    cluster::{Cluster, Node, Owner, Pod, Service},
    history::{Change, Entry, History, Settings, Told},
    record::{Entity, UnixNanos},
    view::AddressView,
};
use proptest::prelude::*;
use std::net::IpAddr;

const SECOND: UnixNanos = 1_000_000_000;
const START: UnixNanos = 1_767_225_600 * SECOND;
const SETTINGS: Settings = Settings { lag: 2 * SECOND, linger: 30 * SECOND, retention: 60 * SECOND };

fn stamp(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

fn pod(name: &str, ip: &str, started: i64) -> Pod {
    Pod {
        namespace: "a".into(),
        name: name.into(),
        uid: format!("{name}-u"),
        addresses: vec![ip.parse().unwrap()],
        started: Some(stamp(started)),
        running_since: Some(stamp(started)),
        ..Pod::default()
    }
}

fn told(at: i64, version: u64, change: Change, pod: &Pod) -> Told {
    Told { at: Some(START + at * SECOND), version: Some(version), change, entry: Entry::Pod(pod.clone()) }
}

fn list(pods: &[Pod]) -> Cluster {
    let node = Node { pod_cidrs: vec!["10.0.0.0/24".parse().unwrap()], ..Node::default() };
    Cluster { pods: pods.to_vec(), nodes: [("n".to_owned(), node)].into(), ..Cluster::default() }
}

fn who(history: &History, ip: &str, at: i64) -> String {
    let end = AddressView::new(history.cluster()).end(ip.parse().unwrap(), 80, START + at * SECOND);
    end.unknown_reason.map_or_else(|| end.name.as_deref().unwrap_or("-").to_owned(), str::to_owned)
}

#[test]
fn an_older_version_changes_nothing_and_what_is_deleted_stays_so() {
    let mut history = History::new(SETTINGS);
    history.relist(&list(&[]), START, None);
    let one = pod("one", "10.0.0.1", 5);
    history.tell(told(6, 2, Change::Applied, &one));
    history.tell(told(20, 5, Change::Deleted, &Pod { ended: Some(stamp(18)), completed: true, ..one.clone() }));
    history.tell(told(21, 3, Change::Applied, &one));
    history.tell(told(22, 9, Change::Applied, &one));
    history.tell(told(22, 5, Change::Deleted, &one));
    assert_eq!(history.counts().stale, 2);
    assert_eq!(who(&history, "10.0.0.1", 10), "one");
    assert_eq!(who(&history, "10.0.0.1", 25), "outside-window");
}

#[test]
fn what_ended_longer_ago_than_the_retention_is_forgotten_and_named_nobody() {
    let mut history = History::new(SETTINGS);
    history.relist(&list(&[]), START, None);
    for n in 0..1_000 {
        let one = pod(&format!("p{n}"), &format!("10.0.0.{}", n % 250), n);
        let version = n.unsigned_abs() * 2;
        history.tell(told(n, version + 1, Change::Applied, &one));
        let gone = Pod { ended: Some(stamp(n)), completed: true, ..one };
        history.tell(told(n + 1, version + 2, Change::Deleted, &gone));
        history.forget(START + n * SECOND);
        assert!(history.cluster().pods.len() <= 63, "{} pods", history.cluster().pods.len());
    }
    assert!(history.counts().forgotten > 900);
    assert_eq!(who(&history, "10.0.0.249", 999), "p999");
    assert_eq!(who(&history, "10.0.0.249", 749), "outside-window", "p749 is forgotten");
}

#[test]
fn a_gap_names_only_who_was_there_before_and_after() {
    let (stays, goes, comes) =
        (pod("stays", "10.0.0.1", -9), pod("goes", "10.0.0.2", -9), pod("comes", "10.0.0.2", 20));
    let mut history = History::new(SETTINGS);
    history.relist(&list(&[stays.clone(), goes]), START, None);
    history.gap(START + 10 * SECOND);
    assert_eq!(who(&history, "10.0.0.1", 11), "watch-gap", "nobody knows whether it is there still");
    history.relist(&list(&[stays, comes]), START + 30 * SECOND, None);
    let table = [(5, "stays", "goes"), (15, "stays", "watch-gap"), (25, "stays", "comes"), (31, "stays", "comes")];
    for (at, one, two) in table {
        assert_eq!(
            (who(&history, "10.0.0.1", at).as_str(), who(&history, "10.0.0.2", at).as_str()),
            (one, two),
            "{at}"
        );
    }
    assert_eq!(who(&history, "10.0.0.9", 15), "watch-gap", "a pod may have come and gone");
    assert_eq!(who(&history, "10.0.0.9", 35), "never-seen");
    assert_eq!(who(&history, "8.8.8.8", 15), "-");
}

#[test]
fn what_is_not_told_yet_is_nobodys() {
    let mut history = History::new(SETTINGS);
    history.relist(&list(&[pod("one", "10.0.0.1", -9)]), START, None);
    history.heard(START + 10 * SECOND);
    assert_eq!(who(&history, "10.0.0.1", 7), "one");
    assert_eq!(who(&history, "10.0.0.1", 8), "not-told-yet");
    history.heard(START + 20 * SECOND);
    assert_eq!(who(&history, "10.0.0.1", 8), "one");
}

#[test]
fn a_services_address_used_again_belongs_to_each_in_its_time() {
    let service = |ip: &str, second| Service {
        cluster_ips: vec![ip.parse().unwrap()],
        created: Some(stamp(second)),
        ..Service::default()
    };
    let tell = |history: &mut History, at: i64, change, name: &str, service: Service| {
        let entry = Entry::Service(("a".into(), name.into()), service);
        history.tell(Told { at: Some(START + at * SECOND), version: None, change, entry });
    };
    let mut history = History::new(SETTINGS);
    history.relist(&list(&[]), START, None);
    tell(&mut history, 5, Change::Applied, "old", service("10.96.0.1", 5));
    tell(&mut history, 20, Change::Deleted, "old", service("10.96.0.1", 5));
    tell(&mut history, 30, Change::Applied, "new", service("10.96.0.1", 29));
    let table = [(10, "old"), (25, "outside-window"), (35, "new")];
    for (at, expected) in table {
        assert_eq!(who(&history, "10.96.0.1", at), expected, "{at}");
    }
}

#[test]
fn an_address_of_the_link_is_the_nodes() {
    let view = AddressView::new(&list(&[]));
    for ip in ["169.254.20.10", "fe80::1"] {
        assert_eq!(view.end(ip.parse().unwrap(), 53, START).entity, Entity::Node, "{ip}");
    }
}

proptest! {
    /// Siblings share `app`, and each has labels that mean itself, its revision or its run, under names nobody knows.
    #[test]
    fn no_selector_names_a_label_that_changed_between_siblings(
        revisions in prop::collection::vec((0..4u8, "[a-z]{1,4}"), 1..6),
        keys in prop::collection::btree_set("[a-z]{3,6}(/[a-z]{1,4})?", 1..5),
        gone in prop::collection::vec(any::<bool>(), 6),
    ) {
        let keys: Vec<String> = keys.into_iter().filter(|key| key != "app").collect();
        let mut cluster = Cluster::default();
        for (n, (revision, salt)) in revisions.iter().enumerate() {
            let set = format!("roll-{revision}x");
            let name = format!("{set}-{salt}{n}");
            let ip = IpAddr::from([10, 0, 0, n as u8]);
            let mut one = pod(&name, &ip.to_string(), n as i64);
            one.labels.insert("app".into(), "roll".into());
            for (k, key) in keys.iter().enumerate() {
                let value = match k % 3 {
                    0 => format!("{revision}x"),
                    1 => name.clone(),
                    _ => n.to_string(),
                };
                one.labels.insert(key.clone(), value);
            }
            one.completed = gone[n % gone.len()];
            one.owner = Some(Owner { kind: "ReplicaSet".into(), name: set.clone(), uid: format!("{set}-u") });
            let owner = Some(Owner { kind: "Rollout".into(), name: "roll".into(), uid: "r".into() });
            let key = model::cluster::WorkloadKey { namespace: "a".into(), kind: "ReplicaSet".into(), name: set };
            cluster.workloads.insert(key, model::cluster::Workload { owner, ..Default::default() });
            cluster.pods.push(one);
        }
        let root = cluster.root_owner(&cluster.pods[0]);
        prop_assert_eq!(root.to_string(), "a/Rollout/roll");
        let selector = cluster.selector_of(&root).expect("`app` is left");
        // What one pod alone has, and nothing tells from its workload's, may stay; what changed may not.
        let changed = |key: &str| {
            let values: std::collections::BTreeSet<_> = cluster.pods.iter().map(|pod| pod.labels.get(key)).collect();
            values.len() > 1
        };
        prop_assert!(selector.keys().all(|key| !changed(key)), "{}", selector);
        // Even with one revision seen, its name is no part of the selector.
        for (k, key) in keys.iter().enumerate().filter(|(k, _)| k % 3 != 2) {
            prop_assert!(selector.keys().all(|other| other != key), "{} ({}): {}", key, k, selector);
        }
    }
}
