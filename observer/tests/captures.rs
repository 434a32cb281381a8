//! Captures of every form, whole and broken, through libpcap, meter, attribution and log, and back.

mod savefile;

use flowlog::{Options, Writer, read_records};
use model::{
    cluster::Cluster,
    record::{DirectionRule, EndReason, Entity, FlowRecord, Gap},
    view::AddressView,
};
use observer::{MeterOptions, Observer, Summary, observe_file};
use proptest::prelude::*;
use savefile::{Captured, Format, Host, Link, T0, captured, file, tcp, udp};
use std::path::Path;

const NOW: i64 = T0 as i64 * 1_000_000_000;

/// Redis with its Service, a client, DNS: what the captures below talk about.
const CLUSTER: &str = r#"
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
- {apiVersion: v1, kind: Node, metadata: {name: node-1}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {namespace: shop, name: redis}
  spec:
    selector: {matchLabels: {app: redis}}
    template: {metadata: {labels: {app: redis}}, spec: {containers: [{name: c, image: i, ports: [{containerPort: 6379}]}]}}
- apiVersion: v1
  kind: Pod
  metadata: {namespace: shop, name: redis-0, uid: u-redis, labels: {app: redis}}
  spec: {nodeName: node-1, containers: [{name: c, image: i, ports: [{containerPort: 6379}]}]}
  status: {phase: Running, podIPs: [{ip: 10.0.0.2}, {ip: "fd00::2"}]}
- apiVersion: v1
  kind: Pod
  metadata: {namespace: shop, name: frontend, uid: u-frontend, labels: {app: frontend}}
  spec: {nodeName: node-1, containers: [{name: c, image: i}]}
  status: {phase: Running, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
- apiVersion: v1
  kind: Pod
  metadata: {namespace: shop, name: dns, uid: u-dns, labels: {app: dns}}
  spec: {nodeName: node-1, containers: [{name: c, image: i, ports: [{containerPort: 53, protocol: UDP}]}]}
  status: {phase: Running, podIPs: [{ip: 10.0.0.53}]}
- apiVersion: v1
  kind: Pod
  metadata: {namespace: shop, name: first-owner, uid: u-first, creationTimestamp: 2026-07-01T10:00:00Z}
  spec: {nodeName: node-1, containers: [{name: c, image: i}]}
  status:
    phase: Succeeded
    startTime: 2026-07-01T10:00:00Z
    podIPs: [{ip: 10.0.0.9}]
    containerStatuses: [{name: c, state: {terminated: {exitCode: 0, finishedAt: 2026-07-01T10:20:02Z}}}]
- apiVersion: v1
  kind: Pod
  metadata: {namespace: shop, name: second-owner, uid: u-second, creationTimestamp: 2026-07-01T10:20:04Z}
  spec: {nodeName: node-1, containers: [{name: c, image: i}]}
  status: {phase: Running, startTime: 2026-07-01T10:20:04Z, podIPs: [{ip: 10.0.0.9}]}
"#;

fn view() -> AddressView {
    let mut cluster = Cluster::default();
    model::yaml::read_into(&mut cluster, "cluster.yaml", CLUSTER).unwrap();
    AddressView::new(&cluster)
}

struct Observed {
    summary: Summary,
    records: Vec<FlowRecord>,
    gaps: Vec<Gap>,
    ledger: model::ledger::Ledger,
}

/// A file's bytes through the whole observer and out of the log again.
fn observed(bytes: &[u8]) -> Result<Observed, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("traffic.pcap");
    std::fs::write(&path, bytes).unwrap();
    let log = folder.path().join("log");
    let writer = Writer::open(&log, "test", "node-1", Options::default(), NOW).unwrap();
    let mut observer = Observer::new(writer, view(), "node-1", "node-1@0");
    let told = observe_file(&path, MeterOptions::default(), &mut observer);
    let (ledger, _) = observer.close().unwrap();
    let (records, gaps, log_summary) = read_records(&log).unwrap();
    assert_eq!(log_summary.damaged, []);
    let place = folder.path().display().to_string();
    let summary = told.map_err(|error| error.to_string().replace(&place, "DIR"))?;
    assert_eq!(summary.slices, records.len() as u64);
    Ok(Observed { summary, records, gaps, ledger })
}

fn v4(last: u8) -> Host {
    Host::V4([10, 0, 0, last].into())
}

fn v6(last: u16) -> Host {
    Host::V6([0xfd00, 0, 0, 0, 0, 0, 0, last].into())
}

/// A whole connection from `client` to Redis; 500 bytes of payload come back.
fn conversation(client: Host, server: Host) -> Vec<Vec<u8>> {
    let (client, server) = ((client, 40_000), (server, 6379));
    vec![
        tcp(client, server, "S", 0),
        tcp(server, client, "SA", 0),
        tcp(client, server, "A", 0),
        tcp(server, client, "A", 500),
        tcp(client, server, "FA", 0),
        tcp(server, client, "FA", 0),
        tcp(client, server, "A", 0),
    ]
}

#[test]
fn every_link_type_format_and_family_gives_the_same_flow() {
    for link in Link::ALL {
        for format in Format::ALL {
            for (client, server, header) in [(v4(1), v4(2), 40), (v6(1), v6(2), 60)] {
                let packets = captured(link, &conversation(client, server));
                let bytes = file(format, link.link_type(header == 60), &packets);
                let seen = observed(&bytes).unwrap_or_else(|e| panic!("{link:?} {format:?}: {e}"));
                assert_eq!((seen.summary.packets, seen.summary.flows), (7, 1), "{link:?} {format:?}");
                let record = &seen.records[0];
                assert_eq!(record.client.name.as_deref(), Some("frontend"));
                assert_eq!(record.server.workload.as_ref().unwrap().name, "redis-0", "a bare pod is its own owner");
                let event = &record.event;
                assert_eq!((event.direction_rule, event.end_reason), (DirectionRule::Syn, EndReason::Fin));
                assert_eq!((event.packets_to_server, event.packets_to_client), (4, 3));
                assert_eq!((event.bytes_to_server, event.bytes_to_client), (4 * header, 3 * header + 500));
                let fine = matches!(format, Format::Nanos | Format::NgNanos);
                assert_eq!(event.start, NOW);
                assert_eq!(event.end, NOW + 6_000_000 + if fine { 6 } else { 0 }, "{format:?}");
                assert_eq!(event.rtt_us, Some(1000));
                assert_eq!(seen.ledger.edges.len(), 1);
            }
        }
    }
}

#[test]
fn a_capture_of_headers_alone_counts_the_same_bytes() {
    let mut packets = captured(Link::Ethernet, &conversation(v4(1), v4(2)));
    packets.iter_mut().for_each(|packet| packet.bytes.truncate(54));
    let seen = observed(&file(Format::Micros, 1, &packets)).unwrap();
    assert_eq!(seen.records[0].event.bytes_to_client, 3 * 40 + 500);
    assert!(seen.summary.skipped.by_reason.is_empty());
}

#[test]
fn a_datagram_is_oriented_by_the_port_that_the_cluster_declares() {
    let (client, dns) = ((v4(1), 40_000), (v4(53), 53));
    // The answer comes first: the capture began in between.
    let packets = captured(Link::Raw, &[udp(dns, client, 100), udp(client, dns, 30)]);
    let seen = observed(&file(Format::Nanos, 101, &packets)).unwrap();
    let record = &seen.records[0];
    assert_eq!(record.server.name.as_deref(), Some("dns"));
    assert_eq!(record.event.direction_rule, DirectionRule::Port);
    assert_eq!((record.event.bytes_to_server, record.event.bytes_to_client), (58, 128));
    // Nobody declares these ports.
    let packets = captured(Link::Raw, &[udp((v4(53), 9), (v4(1), 9), 1)]);
    let seen = observed(&file(Format::Nanos, 101, &packets)).unwrap();
    assert_eq!(seen.records[0].event.direction_rule, DirectionRule::Unknown);
}

/// A DNS answer from the IP header on: this name is at this address, for 60 seconds.
fn dns_answer(name: &str, address: [u8; 4]) -> Vec<u8> {
    let mut message = vec![0, 1, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    message.extend(address);
    let mut packet = udp((v4(53), 53), (v4(1), 40_001), message.len());
    let headers = packet.len() - message.len();
    packet.truncate(headers);
    packet.extend(message);
    packet
}

#[test]
fn a_flow_carries_the_name_by_which_its_client_found_the_address() {
    let address = [203, 0, 113, 7];
    let api = Host::V4(address.into());
    let mut packets = conversation(v4(1), api);
    packets.insert(0, dns_answer("api.example.com", address));
    packets.extend(conversation(v4(9), api));
    for link in Link::ALL {
        for is_cut in [false, true] {
            let mut packets = captured(link, &packets);
            // As a live capture keeps them: the answer is shorter than what is cut off.
            packets.iter_mut().filter(|_| is_cut).for_each(|packet| packet.bytes.truncate(120));
            let seen = observed(&file(Format::Nanos, link.link_type(false), &packets)).unwrap();
            let of = |client: [u8; 4]| {
                let mut records = seen.records.iter();
                records
                    .find(|r| r.client.ip == std::net::IpAddr::from(client) && r.server.port == 6379)
                    .unwrap()
                    .dns_name
                    .clone()
            };
            assert_eq!(of([10, 0, 0, 1]).as_deref(), Some("api.example.com"), "{link:?}");
            assert_eq!(of([10, 0, 0, 9]), None, "who asked nobody");
        }
    }
}

#[test]
fn an_end_that_nobody_knows_stays_unknown_or_outside_and_feeds_no_edge() {
    let stranger = Host::V4([203, 0, 113, 7].into());
    let packets = captured(Link::Raw, &[tcp((stranger, 1), (v4(2), 6379), "S", 0)]);
    let seen = observed(&file(Format::Nanos, 101, &packets)).unwrap();
    assert_eq!(seen.records[0].client.entity, Entity::Outside);
    assert_eq!(seen.ledger.edges.len(), 0, "an opening without its handshake");
}

#[test]
fn an_address_that_changes_hands_names_its_owner_at_the_flows_own_time() {
    let second = 1_000_000_000;
    let call = |at: u64, port: u16| {
        let steps = [("S", true), ("SA", false), ("A", true), ("RA", true)];
        steps.map(|(flags, forth)| {
            let (client, server) = ((v4(9), port), (v4(2), 6379));
            let bytes = if forth { tcp(client, server, flags, 0) } else { tcp(server, client, flags, 0) };
            Captured { at, length: bytes.len() as u32, bytes }
        })
    };
    let packets = [call(second, 1), call(3 * second + second / 2, 2), call(6 * second, 3)].concat();
    let seen = observed(&file(Format::Nanos, 101, &packets)).unwrap();
    let mut owners: Vec<_> = seen.records.iter().map(|r| (r.client.port, r.client.name.as_deref())).collect();
    owners.sort_unstable();
    assert_eq!(owners, [(1, Some("first-owner")), (2, None), (3, Some("second-owner"))]);
    let between = seen.records.iter().find(|record| record.client.port == 2).unwrap();
    assert_eq!((between.client.entity, between.client.unknown_reason), (Entity::Unknown, Some("outside-window")));
    assert_eq!(seen.ledger.edges.len(), 2, "what nobody owned feeds no edge");
}

#[test]
fn what_is_no_flow_is_counted_by_reason() {
    let arp =
        [&[0xff; 6][..], &[2; 6], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[2; 6], &[10, 0, 0, 1], &[0; 6], &[10, 0, 0, 2]];
    let cut = Link::Ethernet.frame(&udp((v4(1), 1), (v4(2), 2), 0)[..30 - 14]);
    let frames = [arp.concat(), [&[2; 12][..], &[0x88, 0xcc]].concat(), cut, vec![1, 2, 3]];
    let packets: Vec<Captured> =
        frames.into_iter().map(|bytes| Captured { at: 0, length: bytes.len() as u32, bytes }).collect();
    let seen = observed(&file(Format::Micros, 1, &packets)).unwrap();
    assert_eq!((seen.summary.packets, seen.summary.flows), (4, 0));
    assert_eq!(
        seen.summary.skipped.by_reason,
        [("arp", 1), ("not-ip", 1), ("truncated-ip-header", 1), ("truncated-link-header", 1)].into()
    );
}

#[test]
fn bad_captures_say_what_is_wrong_and_what_to_do() {
    let good = file(Format::Micros, 1, &captured(Link::Ethernet, &conversation(v4(1), v4(2))));
    let ng = file(Format::NgNanos, 1, &captured(Link::Ethernet, &conversation(v4(1), v4(2))));
    let as_tcpdump = "; it should be a pcap or pcapng file as `tcpdump -w` writes it, unpacked if it was compressed";
    let absurd = [&good[..32], &[0xff, 0xff, 0xff, 0x7f], &good[36..]].concat();
    let cases: [(&str, Vec<u8>, String); 9] = [
        ("empty", vec![], format!("cannot read the capture DIR/traffic.pcap: it is empty{as_tcpdump}")),
        (
            "cut in its header",
            good[..13].to_vec(),
            format!(
                "cannot read the capture DIR/traffic.pcap: truncated dump file; tried to read 24 file header bytes, \
                 only got 9{as_tcpdump}"
            ),
        ),
        (
            "shorter than any magic",
            good[..3].to_vec(),
            format!(
                "cannot read the capture DIR/traffic.pcap: truncated dump file; tried to read 4 file header bytes, \
                 only got 3{as_tcpdump}"
            ),
        ),
        (
            "no capture at all",
            b"apiVersion: v1\nkind: List\nitems: []\n".to_vec(),
            format!("cannot read the capture DIR/traffic.pcap: unknown file format{as_tcpdump}"),
        ),
        (
            "compressed",
            [&[0x1f, 0x8b, 8, 0][..], &[0; 60]].concat(),
            format!("cannot read the capture DIR/traffic.pcap: unknown file format{as_tcpdump}"),
        ),
        (
            "cut in its header, pcapng",
            ng[..20].to_vec(),
            format!(
                "cannot read the capture DIR/traffic.pcap: truncated pcapng dump file; tried to read 16 bytes, only got \
                 8{as_tcpdump}"
            ),
        ),
        (
            "of a link type that carries no IP",
            file(Format::Micros, 105, &[]),
            "DIR/traffic.pcap has link type IEEE802_11 (105), which is not supported; supported are EN10MB (Ethernet, \
             with VLAN tags), LINUX_SLL, LINUX_SLL2, RAW, IPV4 and IPV6"
                .to_owned(),
        ),
        (
            "of a link type that nobody knows",
            file(Format::Micros, 60_000, &[]),
            "DIR/traffic.pcap has link type unknown (60000), which is not supported; supported are EN10MB (Ethernet, \
             with VLAN tags), LINUX_SLL, LINUX_SLL2, RAW, IPV4 and IPV6"
                .to_owned(),
        ),
        (
            "with a first packet of absurd length",
            absurd,
            "cannot read the capture DIR/traffic.pcap: packet 1 is corrupt: invalid packet capture length 2147483647, \
             bigger than snaplen of 262144; nothing was read"
                .to_owned(),
        ),
    ];
    for (what, bytes, expected) in cases {
        assert_eq!(observed(&bytes).err().as_deref(), Some(expected.as_str()), "a file {what}");
    }
}

#[test]
fn a_missing_capture_and_a_folder_are_errors_that_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let writer = Writer::open(&folder.path().join("log"), "c", "n", Options::default(), NOW).unwrap();
    let mut observer = Observer::new(writer, view(), "n", "n@0");
    let mut text = |path: &Path| observe_file(path, MeterOptions::default(), &mut observer).unwrap_err().to_string();
    assert!(text(Path::new("/nowhere.pcap")).starts_with("cannot read the capture /nowhere.pcap: No such file"));
    assert!(text(folder.path()).contains(": it is a folder; "));
}

#[test]
fn a_capture_that_ends_early_is_kept_as_far_as_it_goes() {
    let packets = captured(Link::Ethernet, &conversation(v4(1), v4(2)));
    let good = file(Format::Micros, 1, &packets);
    let offset = |packet: usize| 24 + packets[..packet].iter().map(|p| 16 + p.bytes.len()).sum::<usize>();
    let cut = observed(&good[..offset(5) + 20]).unwrap();
    let text = cut.summary.ended_early.as_ref().unwrap().to_string();
    assert!(text.contains("traffic.pcap: cut short after 5 packets (truncated dump file; "), "{text}");
    assert!(text.ends_with("; what was read before is kept"), "{text}");
    assert_eq!((cut.summary.packets, cut.records.len(), cut.gaps.len()), (5, 1, 1));
    assert_eq!((&*cut.gaps[0].reason, cut.gaps[0].start), ("capture-cut-short", NOW + 4_000_000));

    let mut corrupt = good.clone();
    corrupt[offset(5) + 8..][..4].copy_from_slice(&[0xff; 4]);
    let corrupt = observed(&corrupt).unwrap();
    let text = corrupt.summary.ended_early.as_ref().unwrap().to_string();
    assert!(text.contains("traffic.pcap: packet 6 is corrupt (invalid packet capture length 4294967295, "), "{text}");
    assert!(text.ends_with("; the 5 before it are kept"), "{text}");
    assert_eq!(&*corrupt.gaps[0].reason, "capture-corrupt");
    assert_eq!(corrupt.records[0].event.packets_to_server, 3);

    let header_alone = observed(&good[..24]).unwrap();
    assert_eq!((header_alone.summary.packets, header_alone.summary.ended_early), (0, None));
}

#[test]
fn the_same_capture_gives_the_same_rows() {
    let mut packets = Vec::new();
    for port in 0..50 {
        packets.push(udp((v4(1), 10_000 + port), (v4(53), 53), 20));
        packets.push(tcp((v4(1), 10_000 + port), (v4(2), 6379), "S", 0));
    }
    let bytes = file(Format::NgNanos, 101, &captured(Link::Raw, &packets));
    let (first, second) = (observed(&bytes).unwrap(), observed(&bytes).unwrap());
    assert_eq!(first.records.len(), 100);
    assert_eq!(first.records, second.records);
    assert_eq!(first.ledger, second.ledger);
    let ids: std::collections::BTreeSet<_> = first.records.iter().map(|record| &record.flow_id).collect();
    assert_eq!(ids.len(), 100, "each flow has an id of its own");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Law 14 on the capture path: whatever a file holds, it is read or refused.
    #[test]
    fn no_bytes_make_the_capture_path_panic(
        link in prop::sample::select(Link::ALL.to_vec()),
        format in prop::sample::select(Format::ALL.to_vec()),
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..8),
        times in prop::collection::vec(any::<u32>(), 8),
    ) {
        let packets: Vec<Captured> = frames.into_iter().zip(times).map(|(bytes, at)| {
            Captured { at: u64::from(at) * 1000, length: bytes.len() as u32, bytes }
        }).collect();
        let seen = observed(&file(format, link.link_type(false), &packets)).unwrap();
        prop_assert_eq!(seen.summary.packets, packets.len() as u64);
        let counted: u64 = seen.records.iter().map(|r| r.event.packets_to_server + r.event.packets_to_client).sum();
        prop_assert_eq!(counted + seen.summary.skipped.total(), packets.len() as u64);
    }

    /// A good capture with bytes changed anywhere, or cut anywhere.
    #[test]
    fn no_damage_makes_the_capture_path_panic(
        format in prop::sample::select(Format::ALL.to_vec()),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut: prop::sample::Index,
    ) {
        let mut bytes = file(format, 1, &captured(Link::Vlan, &conversation(v6(1), v6(2))));
        for (index, with) in flips {
            let index = index.index(bytes.len());
            bytes[index] ^= with;
        }
        bytes.truncate(bytes.len() / 2 + cut.index(bytes.len() / 2 + 1));
        _ = observed(&bytes);
    }
}
