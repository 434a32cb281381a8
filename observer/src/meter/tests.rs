//! Packets in, slices out: by example and by law.

use super::*;
use flow::{Address, Direction};
use proptest::prelude::*;

const A: Address = Address::v4([10, 0, 0, 1]);
const B: Address = Address::v4([10, 0, 0, 2]);
const SYN: u8 = tcp::SYN;
const ACK: u8 = tcp::ACK;
const FIN_ACK: u8 = tcp::FIN | tcp::ACK;
const SYN_ACK: u8 = tcp::SYN | tcp::ACK;
const RST: u8 = tcp::RST;

/// A packet of 100 bytes between A's port 40000 and B's port 80; `Outbound` is from A.
fn tcp_packet(way: Direction, flags: u8) -> Packet {
    let key = FlowKey { source: A, destination: B, source_port: 40_000, destination_port: 80, protocol: flow::TCP };
    packet(if way == Direction::Outbound { key } else { key.reversed() }, flags)
}

fn udp_packet(way: Direction) -> Packet {
    let mut packet = tcp_packet(way, 0);
    packet.key.protocol = flow::UDP;
    packet
}

fn packet(key: FlowKey, tcp_flags: u8) -> Packet {
    let any = etherparse::PacketBuilder::ipv4([1; 4], [2; 4], 64).udp(1, 2);
    let mut bytes = Vec::new();
    any.write(&mut bytes, &[]).unwrap();
    let parsed = flow::parse_link(flow::LinkLayer::RawIp, bytes.as_slice()).unwrap();
    Packet { key, tcp_flags, ip_length: 100, ..parsed }
}

use Direction::{Inbound as From_B, Outbound as From_A};

/// Runs packets (seconds, packet) through a meter of the default bounds.
fn metered(packets: &[(i64, Packet)]) -> Vec<FlowEvent> {
    metered_with(MeterOptions::default(), packets).0
}

fn metered_with(options: MeterOptions, packets: &[(i64, Packet)]) -> (Vec<FlowEvent>, Meter) {
    let mut meter = Meter::new(options, "eth0");
    let mut out = Vec::new();
    for (seconds, packet) in packets {
        meter.packet(seconds * SECOND, packet, &mut out);
    }
    meter.finish(&mut out);
    (out, meter)
}

#[test]
fn a_connection_from_syn_to_fin_is_one_flow() {
    let events = metered(&[
        (0, tcp_packet(From_A, SYN)),
        (1, tcp_packet(From_B, SYN_ACK)),
        (1, tcp_packet(From_A, ACK)),
        (2, tcp_packet(From_A, FIN_ACK)),
        (3, tcp_packet(From_B, FIN_ACK)),
        (3, tcp_packet(From_A, ACK)),
    ]);
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!((event.key.source, event.key.destination_port), (A, 80));
    assert_eq!((event.direction_rule, event.end_reason), (DirectionRule::Syn, EndReason::Fin));
    assert_eq!((event.packets_to_server, event.packets_to_client), (4, 2));
    assert_eq!((event.bytes_to_server, event.bytes_to_client), (400, 200));
    assert_eq!((event.tcp_flags_to_server, event.tcp_flags_to_client), (SYN | FIN_ACK, SYN | FIN_ACK));
    assert_eq!((event.flow_start, event.start, event.end), (0, 0, 3 * SECOND));
    assert_eq!(event.rtt_us, Some(1_000_000));
}

#[test]
fn a_syn_ack_seen_first_names_its_receiver_as_client() {
    let events = metered(&[(0, tcp_packet(From_B, SYN_ACK)), (1, tcp_packet(From_A, ACK))]);
    assert_eq!((events[0].key.source, events[0].direction_rule), (A, DirectionRule::Syn));
    assert_eq!((events[0].packets_to_server, events[0].packets_to_client), (1, 1));
    assert_eq!(events[0].rtt_us, None);
}

#[test]
fn a_connection_older_than_the_capture_has_no_known_direction() {
    let events = metered(&[(0, tcp_packet(From_B, ACK)), (1, tcp_packet(From_A, ACK))]);
    assert_eq!((events[0].key.source, events[0].direction_rule), (B, DirectionRule::Unknown));
}

#[test]
fn a_refused_connection_is_a_reset() {
    let events = metered(&[(0, tcp_packet(From_A, SYN)), (0, tcp_packet(From_B, RST))]);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].end_reason, EndReason::Reset);
}

#[test]
fn datagrams_have_their_first_sender_as_client_and_no_known_direction() {
    let events = metered(&[(0, udp_packet(From_B)), (1, udp_packet(From_A))]);
    assert_eq!((events[0].key.source, events[0].direction_rule), (B, DirectionRule::Unknown));
    assert_eq!(events[0].end_reason, EndReason::Stopped);
}

#[test]
fn an_echo_reply_seen_first_names_its_receiver_as_client() {
    let mut reply = udp_packet(From_B);
    (reply.key.protocol, reply.kind, reply.message) = (flow::ICMP, Kind::Echo, 0);
    assert_eq!(metered(&[(0, reply)])[0].key.source, A);
}

#[test]
fn a_reused_port_is_a_new_flow() {
    let opened = tcp_packet(From_A, SYN);
    let answered = [tcp_packet(From_B, SYN_ACK), tcp_packet(From_A, ACK)];
    // After an end.
    let events = metered(&[(0, opened), (0, tcp_packet(From_B, RST)), (1, opened), (1, answered[0])]);
    assert_eq!(
        events.iter().map(|e| (e.flow_start, e.end_reason)).collect::<Vec<_>>(),
        [(0, EndReason::Reset), (SECOND, EndReason::Stopped)]
    );
    // In silence, where the end was missed.
    let events = metered(&[(0, opened), (0, answered[0]), (0, answered[1]), (11, opened)]);
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].end_reason, EndReason::Idle);
    // From the other side.
    let events = metered(&[(0, opened), (0, tcp_packet(From_B, RST)), (1, tcp_packet(From_B, SYN))]);
    assert_eq!(events.iter().map(|e| e.key.source).collect::<Vec<_>>(), [A, B]);
}

#[test]
fn a_syn_sent_again_is_the_same_flow() {
    let opened = tcp_packet(From_A, SYN);
    let events = metered(&[(0, opened), (1, opened), (3, opened), (17, opened)]);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].packets_to_server, 4);
}

#[test]
fn silence_ends_a_flow_when_it_is_longer_than_the_protocol_allows() {
    let hour = 3600;
    let count = |packets: [(i64, Packet); 2]| {
        let events = metered(&packets);
        let flows: std::collections::BTreeSet<UnixNanos> = events.iter().map(|event| event.flow_start).collect();
        flows.len()
    };
    assert_eq!(count([(0, udp_packet(From_A)), (60, udp_packet(From_A))]), 1);
    assert_eq!(count([(0, udp_packet(From_A)), (61, udp_packet(From_A))]), 2);
    assert_eq!(count([(0, tcp_packet(From_A, ACK)), (hour, tcp_packet(From_A, ACK))]), 1);
    assert_eq!(count([(0, tcp_packet(From_A, ACK)), (hour + 1, tcp_packet(From_A, ACK))]), 2);
}

#[test]
fn a_long_flow_comes_in_slices_that_share_their_start() {
    let events = metered(&[
        (0, udp_packet(From_A)),
        (50, udp_packet(From_B)),
        (70, udp_packet(From_A)),
        (100, udp_packet(From_A)),
    ]);
    assert_eq!(
        events.iter().map(|e| (e.flow_start, e.start / SECOND, e.end / SECOND, e.end_reason)).collect::<Vec<_>>(),
        [(0, 0, 50, EndReason::Active), (0, 70, 100, EndReason::Stopped)]
    );
}

#[test]
fn an_open_connection_is_shown_while_it_is_silent() {
    let mut meter = Meter::new(MeterOptions::default(), "eth0");
    let mut out = Vec::new();
    meter.packet(0, &tcp_packet(From_A, SYN), &mut out);
    meter.advance(59 * SECOND, &mut out);
    assert_eq!(out.len(), 0);
    meter.advance(61 * SECOND, &mut out);
    assert_eq!((out.len(), out[0].end_reason), (1, EndReason::Active));
    meter.advance(3600 * SECOND, &mut out);
    assert_eq!(out.len(), 1, "nothing new to show");
    meter.advance(3601 * SECOND, &mut out);
    assert_eq!(out.len(), 2);
    assert_eq!((out[1].end_reason, out[1].packets_to_server, out[1].flow_start), (EndReason::Idle, 0, 0));
}

#[test]
fn later_fragments_go_with_their_first() {
    let mut first = udp_packet(From_A);
    (first.fragment, first.fragment_id) = (Fragment::First, 7);
    let mut later = first;
    (later.key.source_port, later.key.destination_port) = (0, 0);
    (later.kind, later.fragment) = (Kind::LaterFragment, Fragment::Later);
    let mut stray = later;
    stray.fragment_id = 8;
    let (events, meter) = metered_with(MeterOptions::default(), &[(0, first), (0, later), (0, stray)]);
    assert_eq!((events.len(), events[0].packets_to_server, events[0].bytes_to_server), (1, 2, 200));
    assert_eq!(meter.skipped().by_reason, [("fragment-without-first", 1)].into());
}

#[test]
fn the_flow_that_would_end_next_makes_room() {
    let options = MeterOptions { most_flows: 2, ..MeterOptions::default() };
    let from_port = |port| {
        let mut packet = udp_packet(From_A);
        packet.key.source_port = port;
        packet
    };
    let (events, meter) =
        metered_with(options, &[(0, from_port(1)), (1, from_port(2)), (2, from_port(1)), (3, from_port(3))]);
    assert_eq!((meter.begun(), meter.evicted()), (3, 1));
    assert_eq!((events[0].key.source_port, events[0].end_reason), (2, EndReason::Active));
}

/// A packet of a few hosts and ports, so that flows meet; in the order of time, mostly.
fn any_packet() -> impl Strategy<Value = (UnixNanos, Packet)> {
    let key = (0u8..3, 0u8..3, 0u16..2, 0u16..2, prop::sample::select(vec![flow::TCP, flow::UDP, flow::ICMP, 47]));
    let flags = prop::sample::select(vec![SYN, SYN_ACK, ACK, ACK, ACK, FIN_ACK, RST, 0]);
    let step = prop_oneof![8 => 0..SECOND, 4 => 0..100 * SECOND, 1 => -SECOND..2 * 3600 * SECOND];
    (key, flags, step, 20u32..1500).prop_map(|((a, b, from, to, protocol), flags, step, ip_length)| {
        let address = |last| Address::v4([10, 0, 0, last]);
        let key =
            FlowKey { source: address(a), destination: address(b), source_port: from, destination_port: to, protocol };
        let flags = if protocol == flow::TCP { flags } else { 0 };
        (step, Packet { ip_length, ..packet(key, flags) })
    })
}

/// Steps become times.
fn timed(steps: Vec<(i64, Packet)>) -> Vec<(UnixNanos, Packet)> {
    let mut now = 1_000_000 * SECOND;
    let at = |(step, packet)| {
        now += step;
        (now, packet)
    };
    steps.into_iter().map(at).collect()
}

/// Sums over each flow, sorted: what slicing must not change.
fn flows(events: &[FlowEvent]) -> Vec<(UnixNanos, FlowKey, [u64; 4], UnixNanos, &'static str)> {
    let mut flows = std::collections::BTreeMap::new();
    for e in events {
        let flow = flows.entry((e.flow_start, e.key)).or_insert(([0; 4], i64::MIN, ""));
        let counters = [e.packets_to_server, e.packets_to_client, e.bytes_to_server, e.bytes_to_client];
        flow.0.iter_mut().zip(counters).for_each(|(sum, more)| *sum += more);
        flow.1 = flow.1.max(e.end);
        flow.2 = e.end_reason.name();
    }
    flows.into_iter().map(|((start, key), (sums, end, reason))| (start, key, sums, end, reason)).collect()
}

proptest! {
    #[test]
    fn every_packet_is_in_one_slice_and_slices_add_up(
        steps in prop::collection::vec(any_packet(), 0..200),
        slice in 1..200 * SECOND,
        ticks in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let packets = timed(steps);
        let run = |slice: i64, ticks: &[usize]| {
            let mut meter = Meter::new(MeterOptions { slice, ..MeterOptions::default() }, "eth0");
            let mut out = Vec::new();
            for (index, (at, packet)) in packets.iter().enumerate() {
                meter.packet(*at, packet, &mut out);
                if ticks.contains(&index) {
                    meter.advance(*at, &mut out);
                }
            }
            meter.finish(&mut out);
            out
        };
        let ticks: Vec<usize> = ticks.iter().map(|tick| tick.index(packets.len().max(1))).collect();
        let (sliced, whole) = (run(slice, &ticks), run(i64::MAX, &[]));
        prop_assert_eq!(flows(&sliced), flows(&whole), "slicing and ticking change no flow");
        let sum = |of: fn(&FlowEvent) -> u64| sliced.iter().map(of).sum::<u64>();
        prop_assert_eq!(sum(|e| e.packets_to_server + e.packets_to_client), packets.len() as u64);
        let bytes: u64 = packets.iter().map(|(_, packet)| u64::from(packet.ip_length)).sum();
        prop_assert_eq!(sum(|e| e.bytes_to_server + e.bytes_to_client), bytes);
        for event in &sliced {
            prop_assert!(event.start <= event.end);
        }
    }

    #[test]
    fn the_number_of_flows_is_bounded_and_nothing_is_lost(
        steps in prop::collection::vec(any_packet(), 0..200),
        most_flows in 1usize..5,
    ) {
        let packets = timed(steps);
        let mut meter = Meter::new(MeterOptions { most_flows, ..MeterOptions::default() }, "eth0");
        let mut out = Vec::new();
        for (at, packet) in &packets {
            meter.packet(*at, packet, &mut out);
            prop_assert!(meter.flows.len() <= most_flows);
            prop_assert!(meter.due.len() <= 20 * (most_flows + 1), "{} entries", meter.due.len());
        }
        meter.finish(&mut out);
        prop_assert_eq!(out.iter().map(|e| e.packets_to_server + e.packets_to_client).sum::<u64>(), packets.len() as u64);
    }
}
