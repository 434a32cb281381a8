//! A [`FlowEvent`] and a view of the cluster make a [`FlowRecord`].
//!
//! Both ends are asked for at the time the flow began, so that all its slices name the same pods: a
//! connection belongs to the pod that held the address when it was opened. An end that cannot be
//! attributed stays unknown, with the reason; so does one that has not answered where an address
//! changed hands, until it does.

use community_id::calculate_community_id;
use flow::FlowKey;
use model::{
    record::{DirectionRule, End, Entity, FlowEvent, FlowRecord, ObservedAt},
    view::{AddressView, Spoke},
};
use std::sync::Arc;

/// Attributes both ends; orients a flow of unknown direction by the ports that the cluster declares.
pub fn attribute(view: &AddressView, node: &Arc<str>, event: FlowEvent) -> FlowRecord {
    let event = oriented(view, event);
    let key = event.key;
    let spoke = |packets: u64, at: ObservedAt| {
        // Who is at the hook where it was seen held the address, whether it said anything or not.
        if packets > 0 || event.observed_at == at { Spoke::Yes } else { Spoke::No }
    };
    let (client, server) = (
        spoke(event.packets_to_server, ObservedAt::Client),
        spoke(event.packets_to_client.max(event.tcp_flags_to_client.into()), ObservedAt::Server),
    );
    let client = view.end_that(client, key.source.ip(), key.source_port, event.flow_start);
    let server = view.end_that(server, key.destination.ip(), key.destination_port, event.flow_start);
    FlowRecord {
        flow_id: flow_id(node, &event),
        community_id: community_id(&key),
        client,
        service: service(&server),
        server,
        dns_name: None,
        node: node.clone(),
        sampling: 1,
        event,
    }
}

/// The Service whose address the client called.
fn service(server: &End) -> Option<Arc<str>> {
    let (namespace, name) = server.namespace.as_deref().zip(server.name.as_deref())?;
    // Also of one that leads elsewhere than to pods.
    (server.entity != Entity::Pod).then(|| format!("{namespace}/{name}").into())
}

/// The rule `port`: of two ends, the one whose port is declared is the server. If both or none are, nothing is known.
fn oriented(view: &AddressView, event: FlowEvent) -> FlowEvent {
    let key = event.key;
    if event.direction_rule != DirectionRule::Unknown || matches!(key.protocol, flow::ICMP | flow::ICMPV6) {
        return event;
    }
    let serves = |ip, port| view.serves(ip, key.protocol, port, event.flow_start);
    let source = serves(key.source.ip(), key.source_port);
    let destination = serves(key.destination.ip(), key.destination_port);
    match (source, destination) {
        (true, false) => FlowEvent { direction_rule: DirectionRule::Port, ..flipped(event) },
        (false, true) => FlowEvent { direction_rule: DirectionRule::Port, ..event },
        _ => event,
    }
}

/// The same flow, told from its other end.
fn flipped(event: FlowEvent) -> FlowEvent {
    FlowEvent {
        key: event.key.reversed(),
        packets_to_server: event.packets_to_client,
        packets_to_client: event.packets_to_server,
        bytes_to_server: event.bytes_to_client,
        bytes_to_client: event.bytes_to_server,
        tcp_flags_to_server: event.tcp_flags_to_client,
        tcp_flags_to_client: event.tcp_flags_to_server,
        observed_at: match event.observed_at {
            ObservedAt::Server => ObservedAt::Client,
            ObservedAt::Client => ObservedAt::Server,
            ObservedAt::Wire => ObservedAt::Wire,
        },
        ..event
    }
}

/// Sixteen hex digits that all slices of a flow share and, but for chance, no other flow has: a hash over node,
/// source, interface, both ends whatever their order, protocol and the flow's start.
pub fn flow_id(node: &str, event: &FlowEvent) -> String {
    let key = event.key;
    let ends = [(key.source, key.source_port), (key.destination, key.destination_port)];
    let [low, high] = if ends[0] <= ends[1] { ends } else { [ends[1], ends[0]] };
    let mut hash = blake3::Hasher::new();
    for text in [node, event.source.name(), &event.interface] {
        hash.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    for (address, port) in [low, high] {
        hash.update(&address.octets()).update(&port.to_be_bytes());
    }
    hash.update(&[key.protocol]).update(&event.flow_start.to_be_bytes());
    hash.finalize().to_hex()[..16].to_owned()
}

/// Community ID v1 (github.com/corelight/community-id-spec), as Zeek and Suricata write it. It takes ICMP's type and
/// code for ports; a flow holds an echo's both directions, so it is that of the request.
fn community_id(key: &FlowKey) -> String {
    let (source_port, destination_port) = match key.protocol {
        flow::ICMP => (8, 0),
        flow::ICMPV6 => (128, 0),
        _ => (key.source_port, key.destination_port),
    };
    let (source, destination) = (key.source.ip(), key.destination.ip());
    let has_ports = matches!(key.protocol, flow::TCP | flow::UDP | flow::SCTP | flow::ICMP | flow::ICMPV6);
    let port = |port| has_ports.then_some(port);
    // Refused only for ICMP of the other family's kind, which is no flow that two hosts understand.
    calculate_community_id(0, source, destination, port(source_port), port(destination_port), key.protocol, false)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::Address;
    use model::record::{EndReason, FlowSource, FlowVerdict};

    fn event(source: [u8; 4], destination: [u8; 4], protocol: u8) -> FlowEvent {
        FlowEvent {
            key: FlowKey {
                source: Address::v4(source),
                destination: Address::v4(destination),
                source_port: 1122,
                destination_port: 3344,
                protocol,
            },
            direction_rule: DirectionRule::Unknown,
            observed_at: ObservedAt::Client,
            flow_start: 5,
            start: 5,
            end: 6,
            packets_to_server: 1,
            packets_to_client: 2,
            bytes_to_server: 3,
            bytes_to_client: 4,
            tcp_flags_to_server: 5,
            tcp_flags_to_client: 6,
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

    #[test]
    fn a_flow_told_from_its_other_end_and_back_is_the_same() {
        let event = event([1, 2, 3, 4], [5, 6, 7, 8], flow::UDP);
        let flipped_once = flipped(event.clone());
        assert_eq!(flipped_once.key, event.key.reversed());
        assert_eq!((flipped_once.packets_to_server, flipped_once.bytes_to_client), (2, 3));
        assert_eq!((flipped_once.tcp_flags_to_server, flipped_once.observed_at), (6, ObservedAt::Server));
        assert_eq!(flipped(flipped_once), event);
    }

    #[test]
    fn the_flow_id_is_of_the_flow_not_of_the_slice_or_the_direction() {
        let first = event([1, 2, 3, 4], [5, 6, 7, 8], flow::TCP);
        let id = flow_id("node-1", &first);
        assert_eq!(id.len(), 16);
        let later = FlowEvent { start: 70, end: 80, packets_to_server: 9, ..first.clone() };
        assert_eq!(flow_id("node-1", &later), id);
        assert_eq!(flow_id("node-1", &flipped(first.clone())), id);
        for other in [
            flow_id("node-2", &first),
            flow_id("node-1", &FlowEvent { flow_start: 6, ..first.clone() }),
            flow_id("node-1", &FlowEvent { interface: "eth1".into(), ..first.clone() }),
            flow_id("node-1", &FlowEvent { source: FlowSource::Kernel, ..first.clone() }),
            flow_id("node-1", &event([1, 2, 3, 4], [5, 6, 7, 8], flow::UDP)),
            flow_id("node-1", &event([1, 2, 3, 5], [5, 6, 7, 8], flow::TCP)),
        ] {
            assert_ne!(other, id);
        }
    }

    /// The examples of the specification's baseline, which Zeek and Suricata agree on.
    #[test]
    fn the_community_id_is_the_one_other_tools_write() {
        let tcp = event([1, 2, 3, 4], [5, 6, 7, 8], flow::TCP).key;
        assert_eq!(community_id(&tcp), "1:wCb3OG7yAFWelaUydu0D+125CLM=");
        assert_eq!(community_id(&tcp.reversed()), "1:wCb3OG7yAFWelaUydu0D+125CLM=");
        let echo = event([192, 168, 0, 89], [192, 168, 0, 1], flow::ICMP).key;
        assert_eq!(community_id(&echo), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=");
    }
}
