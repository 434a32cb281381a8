//! Whose an address was then.

use crate::cluster;
use model::{
    record::{End, Entity},
    view::AddressView,
};

const SECOND: i64 = 1_000_000_000;
/// 2026-01-01T00:00:00Z.
const START: i64 = 1_767_225_600 * SECOND;

fn pod(name: &str, ip: &str, started: &str, ended: &str) -> String {
    let status = match ended {
        "" => format!("phase: Running, podIP: {ip}, startTime: '2026-01-01T{started}Z'"),
        "?" => format!("phase: Succeeded, podIP: {ip}, startTime: '2026-01-01T{started}Z'"),
        _ => format!(
            "phase: Succeeded, podIP: {ip}, startTime: '2026-01-01T{started}Z', \
             containerStatuses: [{{state: {{terminated: {{finishedAt: '2026-01-01T{ended}Z'}}}}}}]"
        ),
    };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: a, uid: {name}-u}}\n\
         spec: {{containers: [{{ports: [{{containerPort: 80}}]}}]}}\nstatus: {{{status}}}\n---\n"
    )
}

fn at(view: &AddressView, ip: &str, nanos: i64) -> End {
    view.end(ip.parse().unwrap(), 7, START + nanos)
}

/// The pod's name, or the reason why none is named.
fn who(view: &AddressView, ip: &str, nanos: i64) -> String {
    let end = at(view, ip, nanos);
    match end.unknown_reason {
        Some(reason) => reason.to_owned(),
        None => format!("{}:{}", end.entity, end.name.as_deref().unwrap_or_default()),
    }
}

#[test]
fn an_address_used_again_belongs_to_each_in_its_time() {
    let text = pod("one", "10.0.0.1", "00:00:10", "00:00:20") + &pod("two", "10.0.0.1", "00:00:22", "");
    let view = AddressView::new(&cluster(&text));
    let table = [
        (9 * SECOND, "outside-window"),
        (10 * SECOND, "pod:one"),
        (20 * SECOND + SECOND - 1, "pod:one"),
        (21 * SECOND, "outside-window"),
        (22 * SECOND, "pod:two"),
        (i64::MAX / 2 - START, "pod:two"),
    ];
    for (time, expected) in table {
        assert_eq!(who(&view, "10.0.0.1", time), expected, "{time}");
    }
}

#[test]
fn whole_seconds_of_end_and_start_that_meet_are_ambiguous_for_that_second() {
    let text = pod("one", "10.0.0.1", "00:00:10", "00:00:20") + &pod("two", "10.0.0.1", "00:00:20", "");
    let view = AddressView::new(&cluster(&text));
    assert_eq!(who(&view, "10.0.0.1", 20 * SECOND - 1), "pod:one");
    assert_eq!(who(&view, "10.0.0.1", 20 * SECOND), "ambiguous");
    assert_eq!(who(&view, "10.0.0.1", 21 * SECOND - 1), "ambiguous");
    assert_eq!(who(&view, "10.0.0.1", 21 * SECOND), "pod:two");
}

#[test]
fn fractions_of_a_second_are_exact() {
    let text = pod("one", "10.0.0.1", "00:00:10.5", "00:00:20.25") + &pod("two", "10.0.0.1", "00:00:20.75", "");
    let view = AddressView::new(&cluster(&text));
    let half = SECOND / 2;
    assert_eq!(who(&view, "10.0.0.1", 10 * SECOND), "outside-window");
    assert_eq!(who(&view, "10.0.0.1", 20 * SECOND), "pod:one");
    assert_eq!(who(&view, "10.0.0.1", 20 * SECOND + half), "outside-window");
    assert_eq!(who(&view, "10.0.0.1", 20 * SECOND + half + half / 2), "pod:two");
}

#[test]
fn two_living_claimants_are_ambiguous() {
    let text = pod("one", "10.0.0.1", "00:00:10", "") + &pod("two", "10.0.0.1", "00:00:20", "");
    let view = AddressView::new(&cluster(&text));
    assert_eq!(who(&view, "10.0.0.1", 15 * SECOND), "pod:one");
    assert_eq!(who(&view, "10.0.0.1", 25 * SECOND), "ambiguous");
}

#[test]
fn a_completed_pod_without_an_end_holds_nothing() {
    let text = pod("one", "10.0.0.1", "00:00:10", "?") + &pod("two", "10.0.0.1", "00:00:20", "");
    let view = AddressView::new(&cluster(&text));
    assert_eq!(who(&view, "10.0.0.1", 15 * SECOND), "outside-window");
    assert_eq!(who(&view, "10.0.0.1", 25 * SECOND), "pod:two");
}

const REST: &str = "
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDRs: [10.0.0.0/24, 'fd00::/64']}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}, {type: Hostname, address: n1}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: a}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 81, targetPort: 8081}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: a, uid: w, labels: {app: web}}
spec: {containers: [{ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}]}]}
status: {podIPs: [{ip: 10.0.0.9}, {ip: 'fd00::9'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: host, namespace: a}
spec: {hostNetwork: true, nodeName: n1, containers: [{ports: [{containerPort: 9100}]}]}
status: {podIP: 192.168.0.1, startTime: '2026-01-01T00:00:10Z'}
";

#[test]
fn an_address_is_a_pods_a_nodes_a_services_or_outside() {
    let view = AddressView::new(&cluster(REST));
    let table = [
        ("10.0.0.9", "pod:web"),
        ("::ffff:10.0.0.9", "pod:web"),
        ("fd00::9", "pod:web"),
        ("192.168.0.1", "node:n1"),
        ("10.96.0.1", "service:web"),
        ("10.0.0.10", "never-seen"),
        ("fd00::10", "never-seen"),
        ("8.8.8.8", "outside:"),
    ];
    for (ip, expected) in table {
        assert_eq!(who(&view, ip, 0), expected, "{ip}");
    }
}

#[test]
fn a_host_network_pods_address_is_a_nodes_even_if_the_node_is_not_known() {
    let without_node = REST.split_once("---").expect("the node comes first").1;
    let view = AddressView::new(&cluster(without_node));
    assert_eq!(who(&view, "192.168.0.1", 0), "node:n1");
}

#[test]
fn an_end_says_all_that_is_known() {
    let view = AddressView::new(&cluster(REST));
    let end = at(&view, "10.0.0.9", 0);
    assert_eq!((end.port, end.entity), (7, Entity::Pod));
    assert_eq!((end.namespace.as_deref(), end.pod_uid.as_deref()), (Some("a"), Some("w")));
    assert_eq!(end.workload.map(|w| w.to_string()).as_deref(), Some("a/Pod/web"));
}

#[test]
fn what_serves_is_a_declared_port_or_a_services_or_its_target() {
    let view = AddressView::new(&cluster(REST));
    let table = [
        ("10.0.0.9", flow::TCP, 80, true),
        ("10.0.0.9", flow::UDP, 53, true),
        ("10.0.0.9", flow::TCP, 53, false),
        ("10.0.0.9", flow::TCP, 8081, true),
        ("10.0.0.9", flow::TCP, 81, false),
        ("10.96.0.1", flow::TCP, 81, true),
        ("10.96.0.1", flow::TCP, 8081, false),
        ("192.168.0.1", flow::TCP, 9100, true),
        ("8.8.8.8", flow::UDP, 53, false),
    ];
    for (ip, protocol, port, expected) in table {
        assert_eq!(view.serves(ip.parse().unwrap(), protocol, port, START + 60 * SECOND), expected, "{ip} {port}");
    }
    assert!(!view.serves("192.168.0.1".parse().unwrap(), flow::TCP, 9100, START), "before the pod started");
}

/// What a recorded watch leaves of an address.
fn recorded(events: &[&str]) -> AddressView {
    AddressView::new(&cluster(&events.join("\n")))
}

fn event(at: i64, change: &str, version: u32, pod: &str) -> String {
    let at = (START + at) / 1_000_000;
    let mut lines = pod.lines();
    assert_eq!((lines.next(), lines.next()), (Some("apiVersion: v1"), Some("kind: Pod")));
    let yaml: Vec<&str> = lines.take_while(|line| *line != "---").collect();
    let metadata = format!("metadata: {{resourceVersion: '{version}', ");
    let body = yaml.join(", ").replacen("metadata: {", &metadata, 1);
    format!("---\ntype: {change}\nat: {at}\nobject: {{apiVersion: v1, kind: Pod, {body}}}")
}

#[test]
fn a_recorded_watch_tells_who_was_there_before() {
    let one = event(10 * SECOND, "ADDED", 1, &pod("one", "10.0.0.1", "00:00:09", ""));
    let gone = event(30 * SECOND, "DELETED", 2, &pod("one", "10.0.0.1", "00:00:09", ""));
    let two = event(33 * SECOND, "ADDED", 3, &pod("two", "10.0.0.1", "00:00:31", ""));
    let table = [(8, "outside-window"), (20, "pod:one"), (29, "pod:one"), (32, "ambiguous"), (34, "pod:two")];
    for events in [[&one, &gone, &two], [&one, &two, &gone], [&gone, &one, &two], [&two, &gone, &one]] {
        let view = recorded(&events.map(String::as_str));
        for (at, expected) in table {
            // Until the first is told again, all that is sure of it is that it had gone.
            let is_late = *events[0] == gone || *events[1] == gone && *events[2] == one;
            if !is_late {
                assert_eq!(who(&view, "10.0.0.1", at * SECOND), expected, "{at}");
            }
            let said = who(&view, "10.0.0.1", at * SECOND);
            let is_wrong = matches!((at, said.as_str()), (8..=29, "pod:two") | (34.., "pod:one"));
            assert!(!is_wrong, "{at}: {said}");
        }
    }
}

#[test]
fn an_address_that_changed_hands_is_named_only_when_it_speaks() {
    use model::view::Spoke;
    let one = event(10 * SECOND, "ADDED", 1, &pod("one", "10.0.0.1", "00:00:09", ""));
    let gone = event(20 * SECOND, "DELETED", 2, &pod("one", "10.0.0.1", "00:00:09", "00:00:18"));
    let two = event(33 * SECOND, "ADDED", 3, &pod("two", "10.0.0.1", "00:00:31", ""));
    let view = recorded(&[&one, &gone, &two]);
    let ip = "10.0.0.1".parse().unwrap();
    let name = |spoke, at: i64| view.end_that(spoke, ip, 80, START + at * SECOND).name;
    assert_eq!(name(Spoke::Yes, 32).as_deref(), Some("two"), "stamped, and it spoke");
    assert_eq!(name(Spoke::No, 32), None, "who called may have meant the one before");
    assert_eq!(name(Spoke::No, 34).as_deref(), Some("two"), "it was told to be there");
}
