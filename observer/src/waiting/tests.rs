use super::*;
use flow::Address;
use model::{
    cluster::{Cluster, Node, Pod},
    record::{DirectionRule, EndReason, FlowSource, FlowVerdict, ObservedAt},
};
use std::net::IpAddr;

const SECOND: UnixNanos = 1_000_000_000;
const WAIT: Wait = Wait { patience: 5 * SECOND, room: 3 };

fn event(number: u8, flow_start: UnixNanos, slice: u64) -> FlowEvent {
    FlowEvent {
        key: FlowKey {
            source: Address::v4([10, 0, 0, 1]),
            destination: Address::v4([10, 0, 0, number]),
            source_port: 40_000,
            destination_port: 80,
            protocol: flow::TCP,
        },
        direction_rule: DirectionRule::Syn,
        observed_at: ObservedAt::Wire,
        flow_start,
        start: flow_start,
        end: flow_start,
        packets_to_server: slice,
        packets_to_client: 1,
        bytes_to_server: 0,
        bytes_to_client: 0,
        tcp_flags_to_server: 0,
        tcp_flags_to_client: 0,
        adopted: false,
        verdict: FlowVerdict::Observed,
        reason: "".into(),
        rule: None,
        policy_generation: 0,
        staged_verdict: FlowVerdict::Observed,
        staged_reason: "".into(),
        end_reason: EndReason::Active,
        rtt_us: None,
        interface: "eth0".into(),
        source: FlowSource::Pcap,
    }
}

/// A view in which the pods of these last bytes are known.
fn view(pods: &[u8]) -> AddressView {
    let mut cluster = Cluster::default();
    let pod_cidrs = vec!["10.0.0.0/24".parse().expect("a CIDR")];
    cluster.nodes.insert("n".into(), Node { pod_cidrs, ..Node::default() });
    for number in pods {
        let addresses = vec![IpAddr::from([10, 0, 0, *number])];
        let name = format!("p{number}");
        cluster.pods.push(Pod { namespace: "a".into(), uid: name.clone(), name, addresses, ..Pod::default() });
    }
    AddressView::new(&cluster)
}

fn ports(events: &[FlowEvent]) -> Vec<(u8, u64)> {
    events.iter().map(|event| (event.key.destination.octets()[15], event.packets_to_server)).collect()
}

#[test]
fn an_event_whose_pods_are_known_does_not_wait() {
    let mut waiting = Waiting::new(WAIT);
    assert_eq!(ports(&waiting.take(event(2, 0, 1), &view(&[1, 2]))), [(2, 1)]);
    assert_eq!(waiting.waited(), Waited::default());
}

#[test]
fn an_event_waits_for_its_pod_and_its_slices_come_out_in_order() {
    let mut waiting = Waiting::new(WAIT);
    waiting.due(0, &view(&[]));
    assert_eq!(waiting.take(event(2, 0, 1), &view(&[1])), []);
    assert_eq!(waiting.due(SECOND, &view(&[1])), []);
    // Its pod is known by now, and the slice before it waits still.
    assert_eq!(waiting.take(event(2, 0, 2), &view(&[1, 2])), []);
    assert_eq!(ports(&waiting.due(2 * SECOND, &view(&[1, 2]))), [(2, 1), (2, 2)]);
    assert_eq!(waiting.waited(), Waited { found: 2, ..Waited::default() });
    assert_eq!(ports(&waiting.take(event(2, 0, 3), &view(&[1, 2]))), [(2, 3)], "nothing of it waits any more");
}

#[test]
fn patience_ends_and_the_event_comes_out_unknown() {
    let mut waiting = Waiting::new(WAIT);
    waiting.due(SECOND, &view(&[]));
    assert_eq!(waiting.take(event(2, SECOND, 1), &view(&[1])), []);
    assert_eq!(waiting.due(6 * SECOND - 1, &view(&[1])), []);
    assert_eq!(ports(&waiting.due(6 * SECOND, &view(&[1]))), [(2, 1)]);
    assert_eq!(waiting.waited(), Waited { gave_up: 1, ..Waited::default() });
    // One that is told so late that its patience is over already does not wait at all.
    assert_eq!(ports(&waiting.take(event(3, 0, 1), &view(&[1]))), [(3, 1)]);
}

#[test]
fn more_than_there_is_room_for_never_waits() {
    let mut waiting = Waiting::new(WAIT);
    waiting.due(0, &view(&[]));
    let out: Vec<_> = (2..8).flat_map(|number| waiting.take(event(number, 0, 1), &view(&[1]))).collect();
    assert_eq!(ports(&out), [(2, 1), (3, 1), (4, 1)]);
    assert_eq!(waiting.waited(), Waited { waiting: 3, crowded_out: 3, ..Waited::default() });
    assert_eq!(ports(&waiting.drain()), [(5, 1), (6, 1), (7, 1)]);
}
