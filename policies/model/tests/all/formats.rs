//! YAML and JSON are two ways to write one thing, and read so, at whatever size: in pieces, side by
//! side, with what nobody looks at left out.

use model::{cluster::Cluster, yaml::read_into};
use serde_json::{Value, json};

/// Objects with every field that is read, and with some that are not.
fn objects(count: usize) -> Vec<Value> {
    let owner = |kind: &str, name: &str| json!([{"kind": kind, "name": name, "uid": "u", "controller": true, "x": 1}]);
    let container = json!({
        "name": "c", "env": [{"name": "A", "value": "1"}], "restartPolicy": "Always",
        "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}],
    });
    let pod_spec = json!({
        "containers": [container], "initContainers": [container], "hostNetwork": true, "nodeName": "n", "volumes": [{}],
    });
    let template = json!({"metadata": {"labels": {"app": "web", "env": "prod"}}, "spec": pod_spec});
    let finished =
        json!([{"state": {"terminated": {"finishedAt": "2026-01-02T03:05:00Z", "exitCode": 0}}, "ready": false}]);
    let meta = |name: &str| {
        json!({
            "name": name, "namespace": "a", "uid": format!("uid-{name}"), "labels": {"podfence.dev/mode": "audit", "env": "prod"},
            "annotations": {"note": "line\nbreak \"quoted\" \\ {brace}"}, "creationTimestamp": "2026-01-02T03:04:05Z",
            "managedFields": [{"fieldsV1": {"f:a": {}}}],
        })
    };
    let with_owner = |name: &str, kind: &str, of: &str| {
        let mut meta = meta(name);
        meta["ownerReferences"] = owner(kind, of);
        meta
    };
    let mut all = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": meta("a")}),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": meta("n"), "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}], "images": [{"names": ["x"]}]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("s"), "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "web"},
            "externalIPs": ["1.2.3.4"], "ports": [{"port": 80, "targetPort": "http", "name": "a"}]}, "status": {"loadBalancer": {"ingress": [{"ip": "5.6.7.8"}]}}}),
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": with_owner("w-1", "Deployment", "w"), "spec": {"template": template}}),
        json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta("c"), "spec": {"jobTemplate": {"spec": {"template": template}}}}),
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": with_owner("j", "CronJob", "c"), "spec": {"template": template},
            "status": {"conditions": [{"type": "Complete", "status": "True", "reason": "x"}]}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("m"), "data": {"kind": "Pod"}}),
    ];
    for kind in ["Deployment", "StatefulSet", "DaemonSet"] {
        all.push(json!({"apiVersion": "apps/v1", "kind": kind, "metadata": meta("w"), "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}}));
    }
    for index in 0..count {
        let mut meta = with_owner(&format!("p{index}"), "ReplicaSet", "w-1");
        meta["deletionTimestamp"] = json!("2026-01-02T03:06:05Z");
        all.push(json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod_spec, "status": {
            "phase": "Succeeded", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "conditions": [{}],
            "startTime": "2026-01-02T03:04:06Z", "containerStatuses": finished, "initContainerStatuses": finished,
        }}));
        all.push(json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": format!("p{index}"), "namespace": "b"},
            "spec": {"podSelector": {}, "ingress": [{}, {"ports": [{"port": 80, "endPort": 90}], "from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}}));
    }
    all
}

fn read(text: &str) -> Cluster {
    let mut cluster = Cluster::default();
    read_into(&mut cluster, "in", text).unwrap_or_else(|error| panic!("{error}"));
    cluster
}

/// A cluster as text, without lines, which differ from format to format.
fn meaning(cluster: &Cluster) -> String {
    let text = format!("{cluster:#?}");
    text.lines().filter(|line| !line.trim_start().starts_with("line: ")).collect::<Vec<_>>().join("\n")
}

fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).expect("JSON is YAML")
}

#[test]
fn the_same_objects_are_the_same_cluster_in_every_format() {
    // One piece, and so many that they are read side by side, in batches.
    for count in [1, 300] {
        let objects = objects(count);
        let list = json!({"apiVersion": "v1", "items": objects, "kind": "List", "metadata": {}});
        let expected = meaning(&read(&serde_json::to_string(&list).unwrap()));
        assert!(expected.contains("finished: true") && expected.contains("fd00::1"));
        let joined = |separator: &str, one: &dyn Fn(&Value) -> String| {
            objects.iter().map(|o| one(o) + separator).collect::<String>()
        };
        let compact = |o: &Value| o.to_string();
        let indented: String = yaml(&list)
            .lines()
            .map(|row| match row.starts_with(['-', ' ']) {
                true => format!("  {row}\n"),
                false => format!("{row}\n"),
            })
            .collect();
        let texts = [
            serde_json::to_string_pretty(&list).unwrap(),
            serde_json::to_string_pretty(&objects).unwrap(),
            joined("\n", &compact),
            joined("", &compact),
            joined("---\n", &yaml),
            yaml(&list),
            indented,
            yaml(&json!(objects)),
            format!("# generated\n{}", yaml(&list)).replace('\n', "\r\n"),
        ];
        for (index, text) in texts.iter().enumerate() {
            assert!(meaning(&read(text)) == expected, "format {index} of {count}");
        }
    }
}

#[test]
fn lines_are_right_however_the_text_is_cut() {
    let objects = objects(300);
    let list = json!({"apiVersion": "v1", "items": objects, "kind": "List"});
    for text in [
        serde_json::to_string_pretty(&list).unwrap(),
        yaml(&list),
        objects.iter().map(|o| format!("---\n{}", yaml(o))).collect(),
    ] {
        let rows: Vec<_> = text.lines().collect();
        let cluster = read(&text);
        assert_eq!(cluster.pods.len(), 300);
        for policy in &cluster.policies.policies {
            let line = |source: &Option<model::cluster::Source>| source.as_ref().map_or(0, |s| s.line as usize);
            let begin = line(&policy.source);
            let end = (begin..rows.len()).find(|n| rows[*n].contains("podSelector")).expect("a spec");
            let name = policy.name.clone();
            let is_named = |row: &&str| row.trim_end_matches(['"', ',']).ends_with(&name);
            assert!(rows[begin - 1..end].iter().any(|row| row.contains("name") && is_named(row)), "{name} at {begin}");
            let rules: Vec<_> =
                policy.ingress.iter().flatten().map(|rule| rows[line(&rule.source) - 1].trim()).collect();
            assert!(rules[0].contains("{}") && !rules[1].contains("{}"), "{rules:?}");
        }
    }
}

#[test]
fn a_list_whose_items_need_each_other_is_read_whole() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: p, labels: &l {app: web}}\n\
                - apiVersion: v1\n  kind: Pod\n  metadata: {name: q, labels: *l}\n";
    let cluster = read(text);
    assert_eq!(cluster.pods[0].labels, cluster.pods[1].labels);
}
