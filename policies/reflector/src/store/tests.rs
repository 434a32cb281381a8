use super::*;
use kube::runtime::watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
use serde_json::{Value, json};

const NOW: fn() -> Instant = Instant::now;

fn raw(object: &Value) -> Raw {
    serde_json::from_str(&object.to_string()).expect("an object")
}

fn index(kind: &str) -> usize {
    KINDS.iter().position(|known| known.kind == kind).expect("a kind that is watched")
}

fn pod(name: &str, address: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": "1"},
        "spec": {"nodeName": "n1"}, "status": {"podIP": address, "podIPs": [{"ip": address}]}})
}

/// Of every kind an empty list has come.
fn listed() -> Store {
    let mut store = Store::default();
    for index in 0..KINDS.len() {
        assert!(!store.has_news(), "not before every kind was listed");
        store.event(index, Init);
        store.event(index, InitDone);
    }
    assert!(store.take().cluster.pods.is_empty());
    store
}

fn pods(store: &mut Store) -> Vec<String> {
    assert!(store.has_news());
    let cluster = store.take().cluster;
    cluster.pods.iter().map(|pod| format!("{} {:?}", pod.name, pod.addresses)).collect()
}

#[test]
fn nothing_is_given_before_every_kind_was_listed() {
    let mut store = listed();
    assert!(!store.has_news(), "given once");
    store.event(index("Pod"), Apply(raw(&pod("web", "10.0.0.1"))));
    assert_eq!(pods(&mut store), ["web [10.0.0.1]"]);
    store.event(index("Pod"), Apply(raw(&pod("web", "10.0.0.2"))));
    assert_eq!(pods(&mut store), ["web [10.0.0.2]"]);
    store.event(index("Pod"), Delete(raw(&pod("web", "10.0.0.2"))));
    assert!(pods(&mut store).is_empty());
}

#[test]
fn a_list_that_comes_again_takes_effect_as_a_whole() {
    let (mut store, of) = (listed(), index("Pod"));
    store.event(of, Apply(raw(&pod("gone-meanwhile", "10.0.0.1"))));
    store.event(of, Apply(raw(&pod("stays", "10.0.0.2"))));
    store.take();
    for event in [Init, InitApply(raw(&pod("stays", "10.0.0.2")))] {
        store.event(of, event);
        assert!(!store.has_news());
    }
    // The list breaks off, and begins anew.
    store.failed(of, NOW(), "connection reset".to_owned());
    assert_eq!(store.take().cluster.pods.len(), 2, "half a list is none");
    for event in [Init, InitApply(raw(&pod("new", "10.0.0.3"))), InitApply(raw(&pod("stays", "10.0.0.2"))), InitDone] {
        store.event(of, event);
    }
    assert_eq!(pods(&mut store), ["new [10.0.0.3]", "stays [10.0.0.2]"]);
    for event in [Init, InitApply(raw(&pod("stays", "10.0.0.2"))), InitApply(raw(&pod("new", "10.0.0.3"))), InitDone] {
        store.event(of, event);
    }
    assert!(!store.has_news(), "the same list");
}

#[test]
fn what_nobody_looks_at_is_no_news() {
    let (mut store, of) = (listed(), index("Pod"));
    let mut object = pod("web", "10.0.0.1");
    store.event(of, Apply(raw(&object)));
    store.take();
    object["metadata"]["resourceVersion"] = json!("2");
    object["metadata"]["annotations"] = json!({"a": "b"});
    object["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    store.event(of, Apply(raw(&object)));
    assert!(!store.has_news());
    object["metadata"]["labels"] = json!({"a": "b"});
    store.event(of, Apply(raw(&object)));
    assert!(store.has_news());
}

#[test]
fn an_object_that_cannot_be_read_is_left_out_and_named() {
    let (mut store, of) = (listed(), index("NetworkPolicy"));
    let policy = |name: &str, port: Value| {
        raw(&json!({"metadata": {"name": name, "namespace": "shop", "resourceVersion": "1"},
            "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": port}]}]}}))
    };
    store.event(of, Apply(policy("good", json!(80))));
    store.event(of, Apply(policy("bad", json!(99_999))));
    let seen = store.take();
    assert_eq!(seen.cluster.policies.policies.len(), 1);
    assert_eq!(seen.left_out.len(), 1);
    assert!(seen.left_out[0].contains("networkpolicies.networking.k8s.io"), "{:?}", seen.left_out);
    assert!(seen.left_out[0].contains("NetworkPolicy shop/bad: spec.ingress[0].ports[0].port"), "{:?}", seen.left_out);
    store.event(of, Apply(policy("bad", json!(9_999))));
    let seen = store.take();
    assert_eq!((seen.cluster.policies.policies.len(), seen.left_out.len()), (2, 0));
}

#[test]
fn a_list_item_need_not_name_its_kind_and_a_watched_object_may() {
    let (mut store, of) = (listed(), index("Pod"));
    let mut named = pod("web", "10.0.0.1");
    named["kind"] = json!("Pod");
    named["apiVersion"] = json!("v1");
    store.event(of, Apply(raw(&named)));
    store.take();
    store.event(of, Apply(raw(&pod("web", "10.0.0.1"))));
    assert!(!store.has_news(), "they are read alike");
}

#[test]
fn a_watch_that_fails_is_told_until_it_works_again() {
    let mut store = Store::default();
    assert_eq!(store.troubles(NOW()).len(), KINDS.len());
    assert_eq!(store.troubles(NOW())[0], "namespaces are not listed yet");
    store.failed(0, NOW(), "connection refused".to_owned());
    assert_eq!(store.troubles(NOW())[0], "namespaces cannot be listed: connection refused");
    let mut store = listed();
    assert!(store.troubles(NOW()).is_empty());
    store.failed(0, NOW(), "connection refused".to_owned());
    store.event(0, Init);
    assert_eq!(store.troubles(NOW()), ["watch of namespaces is behind: connection refused"]);
    assert!(store.troubles(NOW() + FORGETS).is_empty(), "it would have failed again");
    store.event(0, InitDone);
    assert!(store.troubles(NOW()).is_empty());
}
