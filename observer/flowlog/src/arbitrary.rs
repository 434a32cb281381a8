//! Rows of every kind, for tests.

use crate::Row;
use flow::FlowKey;
use model::{
    cluster::WorkloadKey,
    record::{
        DirectionRule, End, EndReason, Entity, FlowEvent, FlowRecord, FlowSource, FlowVerdict, Gap, ObservedAt,
        RuleName, UnixNanos,
    },
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use std::{net::IpAddr, sync::Arc};

/// 2026-07-01T10:20:00Z.
pub(crate) const T0: UnixNanos = 1_782_901_200 * 1_000_000_000;

/// A plain flow, told apart by its number.
pub(crate) fn record(number: u32, start: UnixNanos) -> FlowRecord {
    let [_, _, a, b] = number.to_be_bytes();
    let client = end(IpAddr::from([10, 0, a, b]), 40_000, Some("frontend"));
    let server = end(IpAddr::from([10, 1, 0, 1]), 6379, Some("redis"));
    FlowRecord {
        flow_id: format!("{:016x}", u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        community_id: format!("1:{number:027}="),
        service: Some("shop/redis".into()),
        dns_name: None,
        node: "node-1".into(),
        sampling: 1,
        event: FlowEvent {
            key: FlowKey {
                source: client.ip.into(),
                destination: server.ip.into(),
                source_port: client.port,
                destination_port: server.port,
                protocol: flow::TCP,
            },
            direction_rule: DirectionRule::Syn,
            observed_at: ObservedAt::Server,
            flow_start: start,
            start,
            end: start + 1_000_000,
            packets_to_server: 10,
            packets_to_client: 9,
            bytes_to_server: 1_000,
            bytes_to_client: 90_000,
            tcp_flags_to_server: 0x1b,
            tcp_flags_to_client: 0x1b,
            adopted: false,
            verdict: FlowVerdict::Allow,
            reason: "allowed-by-rule".into(),
            rule: None,
            policy_generation: 3,
            staged_verdict: FlowVerdict::Observed,
            staged_reason: "".into(),
            end_reason: EndReason::Fin,
            rtt_us: Some(120),
            interface: "veth1".into(),
            source: FlowSource::Kernel,
        },
        client,
        server,
    }
}

fn end(ip: IpAddr, port: u16, workload: Option<&str>) -> End {
    let key = |name: &str| {
        let (namespace, kind, name) = ("shop".to_owned(), "Deployment".to_owned(), name.to_owned());
        Arc::new(WorkloadKey { namespace, kind, name })
    };
    End {
        ip,
        port,
        entity: Entity::Pod,
        namespace: Some("shop".into()),
        name: workload.map(|name| format!("{name}-7d4b9c-x2x1z").into()),
        pod_uid: Some("11111111-2222-3333-4444-555555555555".into()),
        workload: workload.map(key),
        unknown_reason: None,
    }
}

/// Texts that have broken a log, a path or a query somewhere.
fn text() -> impl Strategy<Value = Arc<str>> {
    prop_oneof![
        "[a-z0-9-]{1,20}".prop_map(Arc::from),
        select(vec!["", "null", "NULL", "0x1f", "1_000", "'; drop table flows; --", "a/b", "..", "ß\u{0}\n"])
            .prop_map(Arc::from),
    ]
}

fn any_end() -> impl Strategy<Value = End> {
    let names = (option::of(text()), option::of(text()), option::of(text()), option::of((text(), text())));
    let reason = option::of(select(vec!["never-seen", "ambiguous", "outside-window"]));
    (any::<IpAddr>(), any::<u16>(), select(Entity::ALL), names, reason).prop_map(|(ip, port, entity, names, reason)| {
        let (namespace, name, pod_uid, workload) = names;
        let workload = workload.map(|(kind, name)| {
            let namespace = namespace.as_deref().unwrap_or_default().to_owned();
            Arc::new(WorkloadKey { namespace, kind: kind.to_string(), name: name.to_string() })
        });
        // One form for both families, as `flow` has it.
        End { ip: ip.to_canonical(), port, entity, namespace, name, pod_uid, workload, unknown_reason: reason }
    })
}

/// A counter as the log can hold it.
fn counter() -> impl Strategy<Value = u64> {
    0..=i64::MAX.unsigned_abs()
}

/// Times of a few hours, before and after the epoch too.
fn time() -> impl Strategy<Value = UnixNanos> {
    prop_oneof![
        9 => T0..T0 + 3 * 3_600_000_000_000,
        1 => select(vec![i64::MIN, i64::MAX, 0, -1, 253_402_300_800_000_000]),
    ]
}

fn any_event() -> impl Strategy<Value = FlowEvent> {
    let counters = (counter(), counter(), counter(), counter(), counter());
    let kinds = (
        select(DirectionRule::ALL),
        select(ObservedAt::ALL),
        select(FlowVerdict::ALL),
        select(FlowVerdict::ALL),
        select(EndReason::ALL),
        select(FlowSource::ALL),
    );
    let texts = (text(), option::of((text(), text(), text())), text(), text());
    let small = (any::<[u8; 3]>(), any::<bool>(), option::of(any::<u32>()));
    (counters, kinds, texts, small, (time(), time(), time())).prop_map(|(counters, kinds, texts, small, times)| {
        let (direction_rule, observed_at, verdict, staged_verdict, end_reason, source) = kinds;
        let (reason, rule, staged_reason, interface) = texts;
        let ([protocol, to_server, to_client], adopted, rtt_us) = small;
        FlowEvent {
            key: FlowKey { protocol, ..FlowKey::default() },
            direction_rule,
            observed_at,
            flow_start: times.0,
            start: times.1,
            end: times.2,
            packets_to_server: counters.0,
            packets_to_client: counters.1,
            bytes_to_server: counters.2,
            bytes_to_client: counters.3,
            tcp_flags_to_server: to_server,
            tcp_flags_to_client: to_client,
            adopted,
            verdict,
            reason,
            rule: rule.map(|(namespace, name, rule)| RuleName { namespace, name, rule }),
            policy_generation: counters.4,
            staged_verdict,
            staged_reason,
            end_reason,
            rtt_us,
            interface,
            source,
        }
    })
}

pub(crate) fn any_record() -> impl Strategy<Value = FlowRecord> {
    let ids = ("[0-9a-f]{16}", "1:[A-Za-z0-9+/]{27}=");
    (ids, any_end(), any_end(), any_event(), (option::of(text()), option::of(text()), text(), any::<u32>())).prop_map(
        |((flow_id, community_id), client, server, mut event, (service, dns_name, node, sampling))| {
            event.key.source = client.ip.into();
            event.key.destination = server.ip.into();
            event.key.source_port = client.port;
            event.key.destination_port = server.port;
            FlowRecord { flow_id, community_id, client, server, service, dns_name, node, sampling, event }
        },
    )
}

fn any_gap() -> impl Strategy<Value = Gap> {
    (time(), time(), text(), text(), counter()).prop_map(|(start, end, node, reason, lost)| Gap {
        start,
        end,
        node,
        reason,
        lost,
    })
}

pub(crate) fn any_rows(most: usize) -> impl Strategy<Value = Vec<Row>> {
    vec(prop_oneof![9 => any_record().prop_map(Row::Flow), 1 => any_gap().prop_map(Row::Gap)], 0..most)
}
