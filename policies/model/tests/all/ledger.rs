//! The ledger: what feeds it (law 13) and that merging is safe in any order (law 10).

use flow::{FlowKey, tcp};
use model::{
    cluster::WorkloadKey,
    ledger::{self, Edge, Facts, Ledger, LinesError, Party, Row, SLICE, Tally, Unfit},
    record::{DirectionRule, End, EndReason, Entity, FlowEvent, FlowRecord, FlowSource, FlowVerdict, Gap, ObservedAt},
};
use proptest::{collection::vec, prelude::*, sample::select};
use std::{net::IpAddr, sync::Arc};

fn instance() -> Arc<str> {
    "n1@0".into()
}

fn end(name: &str, port: u16) -> End {
    let workload = WorkloadKey { namespace: "a".to_owned(), kind: "Deployment".to_owned(), name: name.to_owned() };
    End {
        ip: "10.0.0.1".parse().unwrap(),
        port,
        entity: Entity::Pod,
        namespace: Some("a".into()),
        name: Some(format!("{name}-1").into()),
        pod_uid: Some(format!("{name}-uid").into()),
        workload: Some(Arc::new(workload)),
        unknown_reason: None,
    }
}

fn not_a_pod(entity: Entity) -> End {
    End { entity, workload: None, pod_uid: None, ip: IpAddr::from([8, 8, 8, 8]), ..end("x", 80) }
}

/// A TCP connection from `web` to `api` that was opened, answered and closed, at its server.
fn flow() -> FlowRecord {
    FlowRecord {
        flow_id: "f1".to_owned(),
        community_id: String::new(),
        client: end("web", 40_000),
        server: end("api", 80),
        service: None,
        dns_name: None,
        node: "n1".into(),
        sampling: 1,
        event: FlowEvent {
            key: FlowKey { protocol: flow::TCP, destination_port: 80, source_port: 40_000, ..FlowKey::default() },
            direction_rule: DirectionRule::Syn,
            observed_at: ObservedAt::Server,
            flow_start: 5,
            start: 5,
            end: 9,
            packets_to_server: 3,
            packets_to_client: 3,
            bytes_to_server: 0,
            bytes_to_client: 0,
            tcp_flags_to_server: tcp::SYN | tcp::ACK,
            tcp_flags_to_client: tcp::SYN | tcp::ACK,
            adopted: false,
            verdict: FlowVerdict::Observed,
            reason: "".into(),
            rule: None,
            policy_generation: 0,
            staged_verdict: FlowVerdict::Observed,
            staged_reason: "".into(),
            end_reason: EndReason::Fin,
            rtt_us: None,
            interface: "veth".into(),
            source: FlowSource::Kernel,
        },
    }
}

fn ledger_of(records: &[FlowRecord]) -> Ledger {
    let mut ledger = Ledger::default();
    for record in records {
        ledger.add(&instance(), record);
    }
    ledger
}

/// What a row, changed from a good one, is: `None` feeds an edge.
fn unfit(change: impl FnOnce(&mut FlowRecord)) -> Option<Unfit> {
    let mut record = flow();
    change(&mut record);
    let ledger = ledger_of(&[record]);
    let reason = ledger.unfit.keys().next().map(|(reason, _)| *reason);
    assert_eq!(ledger.edges.len() + ledger.unfit.len(), 1, "one row, one place");
    reason
}

#[test]
fn a_connection_seen_whole_feeds_its_edge() {
    let ledger = ledger_of(&[flow()]);
    let (edge, seen) = ledger.edges.first_key_value().expect("an edge");
    let cells: Vec<_> = seen.sightings.cells().map(|(by, hour, flows)| (&**by, hour, flows)).collect();
    assert_eq!((&cells[..], edge.protocol, edge.port), (&[("n1@0", 0, 1)][..], flow::TCP, 80));
    assert!(matches!(&edge.client, Party::Workload(w) if w.name == "web"));
    assert_eq!((seen.first_seen, seen.last_seen), (5, 9));
    assert_eq!((seen.samples.as_slice(), seen.adopted_only), (&["f1".into()][..], false));
}

#[test]
fn what_law_13_keeps_out() {
    use FlowVerdict::{AuditDeny, Deny, Revoked};
    assert_eq!(unfit(|_| {}), None);
    assert_eq!(unfit(|r| r.event.direction_rule = DirectionRule::Unknown), Some(Unfit::DirectionUnknown));
    assert_eq!(unfit(|r| r.event.tcp_flags_to_client = 0), Some(Unfit::HandshakeNotSeen));
    assert_eq!(unfit(|r| r.event.tcp_flags_to_client = tcp::RST | tcp::ACK), Some(Unfit::HandshakeNotSeen));
    for verdict in [Deny, AuditDeny, Revoked] {
        assert_eq!(unfit(|r| r.event.verdict = verdict), Some(Unfit::Denied));
        assert_eq!(unfit(|r| r.event.staged_verdict = verdict), Some(Unfit::StagedDenied));
    }
}

#[test]
fn a_denial_for_another_reason_than_policy_refuses_no_edge() {
    let full = |r: &mut FlowRecord| (r.event.verdict, r.event.reason) = (FlowVerdict::Deny, "table-full".into());
    assert_eq!(unfit(full), Some(Unfit::DeniedOtherwise));
    let cut =
        |r: &mut FlowRecord| (r.event.verdict, r.event.reason) = (FlowVerdict::Deny, "truncated-ip-header".into());
    assert_eq!(unfit(cut), Some(Unfit::DeniedOtherwise));
    let no_rule = |r: &mut FlowRecord| (r.event.verdict, r.event.reason) = (FlowVerdict::AuditDeny, "no-rule".into());
    assert_eq!(unfit(no_rule), Some(Unfit::Denied));
}

#[test]
fn an_adopted_connection_needs_packets_both_ways_and_is_marked() {
    let adopted = |r: &mut FlowRecord| {
        (r.event.adopted, r.event.tcp_flags_to_server, r.event.tcp_flags_to_client) = (true, tcp::ACK, tcp::ACK);
        r.event.direction_rule = DirectionRule::Socket;
    };
    assert_eq!(unfit(adopted), None);
    let one_way = |r: &mut FlowRecord| (adopted(r), r.event.packets_to_client = 0).1;
    assert_eq!(unfit(one_way), Some(Unfit::HandshakeNotSeen));
    let older_than_its_capture = |r: &mut FlowRecord| (adopted(r), r.event.adopted = false).1;
    assert_eq!(unfit(older_than_its_capture), None);
    let mut record = flow();
    older_than_its_capture(&mut record);
    assert!(ledger_of(&[record]).edges.values().all(|seen| seen.adopted_only));
    let mut record = flow();
    adopted(&mut record);
    assert!(ledger_of(&[record.clone()]).edges.values().all(|seen| seen.adopted_only));
    assert!(ledger_of(&[record, flow()]).edges.values().all(|seen| !seen.adopted_only));
}

#[test]
fn datagrams_need_no_answer_and_sctp_does() {
    assert_eq!(unfit(|r| (r.event.key.protocol, r.event.packets_to_client) = (flow::UDP, 0)), None);
    assert_eq!(unfit(|r| r.event.key.protocol = flow::SCTP), None);
    let unanswered = |r: &mut FlowRecord| (r.event.key.protocol, r.event.packets_to_client) = (flow::SCTP, 0);
    assert_eq!(unfit(unanswered), Some(Unfit::HandshakeNotSeen));
}

#[test]
fn what_networkpolicy_cannot_express_is_listed() {
    for protocol in [flow::ICMP, flow::ICMPV6, 47] {
        let mut record = flow();
        record.event.key.protocol = protocol;
        let ledger = ledger_of(&[record]);
        let ((reason, edge), _) = ledger.unfit.first_key_value().expect("listed");
        assert_eq!((*reason, edge.as_ref().map(|e| e.port)), (Unfit::Inexpressible, Some(0)));
    }
}

#[test]
fn ends_that_are_no_pods() {
    assert_eq!(unfit(|r| r.server = not_a_pod(Entity::Outside)), None);
    assert_eq!(unfit(|r| r.client = not_a_pod(Entity::Node)), None);
    assert_eq!(unfit(|r| r.client = not_a_pod(Entity::Unknown)), Some(Unfit::Unattributed));
    assert_eq!(unfit(|r| r.server = not_a_pod(Entity::Service)), Some(Unfit::Inexpressible));
    let none = |r: &mut FlowRecord| (r.client, r.server) = (not_a_pod(Entity::Node), not_a_pod(Entity::Outside));
    assert_eq!(unfit(none), Some(Unfit::NoPod));
}

#[test]
fn what_always_passes_needs_no_rule() {
    assert_eq!(unfit(|r| r.client = end("api", 40_000)), Some(Unfit::Exempt));
    let probe = |r: &mut FlowRecord| (r.client, r.event.reason) = (not_a_pod(Entity::Node), "own-node".into());
    assert_eq!(unfit(probe), Some(Unfit::Exempt));
}

#[test]
fn the_clients_row_counts_only_where_the_server_has_none() {
    let at_client = |r: &mut FlowRecord| r.event.observed_at = ObservedAt::Client;
    assert_eq!(unfit(at_client), Some(Unfit::SeenAtServer));
    assert_eq!(unfit(|r| (at_client(r), r.server = not_a_pod(Entity::Outside)).1), None);
    let ended_there = |r: &mut FlowRecord| (at_client(r), r.event.verdict = FlowVerdict::Deny).1;
    assert_eq!(unfit(ended_there), Some(Unfit::Denied));
}

#[test]
fn slices_of_a_flow_count_as_one() {
    let mut later = flow();
    (later.event.start, later.event.end) = (SLICE + 1, SLICE + 2);
    let mut within = flow();
    (within.event.start, within.event.end) = (10, 20);
    let ledger = ledger_of(&[flow(), within, later]);
    let seen = ledger.edges.values().next().expect("an edge");
    let flows: Vec<_> = seen.sightings.cells().map(|(_, hour, flows)| (hour, flows)).collect();
    assert_eq!((&flows[..], seen.last_seen), (&[(0, 1), (1, 0)][..], SLICE + 2));
    assert_eq!(ledger.learned().values().map(|seen| seen.flows).sum::<u64>(), 1);
}

#[test]
fn a_handshake_may_come_in_a_later_slice() {
    let mut opening = flow();
    (opening.event.tcp_flags_to_client, opening.event.end_reason) = (0, EndReason::Active);
    let ledger = ledger_of(&[opening.clone()]);
    assert!(ledger.edges.is_empty() && ledger.unfit.is_empty(), "not decided yet");
    let mut answered = flow();
    answered.event.start = 7;
    assert_eq!(ledger_of(&[opening.clone(), answered]).learned().len(), 1);
    let mut never = opening.clone();
    (never.event.start, never.event.end_reason) = (7, EndReason::Idle);
    let ledger = ledger_of(&[opening, never]);
    assert_eq!(ledger.unfit.values().map(|left| left.sightings.flows()).collect::<Vec<_>>(), [1]);
}

#[test]
fn the_idle_end_of_an_adopted_connection_is_no_missing_answer() {
    let mut adopted = flow();
    (adopted.event.adopted, adopted.event.tcp_flags_to_server, adopted.event.end_reason) =
        (true, tcp::ACK, EndReason::Active);
    let mut idle = adopted.clone();
    (idle.event.start, idle.event.packets_to_server, idle.event.packets_to_client) = (8, 0, 0);
    idle.event.end_reason = EndReason::Idle;
    let ledger = ledger_of(&[adopted, idle]);
    assert_eq!((ledger.edges.len(), ledger.unfit.len()), (1, 0));
}

#[test]
fn an_edge_that_policy_denied_is_refused_however_often_it_was_seen() {
    let mut denied = flow();
    (denied.event.verdict, denied.event.observed_at) = (FlowVerdict::AuditDeny, ObservedAt::Client);
    let ledger = ledger_of(&[flow(), flow(), denied]);
    assert_eq!((ledger.edges.len(), ledger.refused().len(), ledger.learned().len()), (1, 1, 0));
}

#[test]
fn the_summary_is_by_reason_most_frequent_first() {
    let mut unknown = flow();
    unknown.event.direction_rule = DirectionRule::Unknown;
    let mut ping = flow();
    ping.event.key.protocol = flow::ICMP;
    assert_eq!(
        ledger_of(&[ping.clone(), unknown, ping, flow()]).unfit_summary(),
        ["2 flows: NetworkPolicy cannot express it", "1 flow: nobody knows which end opened it"]
    );
}

#[test]
fn what_two_observers_left_out_adds_up() {
    let mut unknown = flow();
    unknown.event.direction_rule = DirectionRule::Unknown;
    let mut all = Ledger::default();
    for instance in ["n1@0", "n2@0"] {
        let mut ledger = Ledger::default();
        (0..5).for_each(|_| ledger.add(&instance.into(), &unknown));
        all.merge(ledger.clone());
        all.merge(ledger);
    }
    assert_eq!(all.unfit_summary(), ["10 flows: nobody knows which end opened it"]);
}

#[test]
fn a_flow_with_one_known_end_is_counted_for_it() {
    let mut half = flow();
    half.server = not_a_pod(Entity::Unknown);
    let ledger = ledger_of(&[half.clone(), half, flow()]);
    let half: Vec<_> = ledger.half_known.iter().map(|(key, seen)| (key.name.as_str(), seen.flows())).collect();
    assert_eq!(half, [("web", 2)]);
}

fn record() -> impl Strategy<Value = FlowRecord> {
    let names = || select(vec!["a", "b", "c"]);
    let times = (0..3 * SLICE, 0..SLICE, any::<bool>());
    let verdicts = select(FlowVerdict::ALL.to_vec());
    let rules = select(DirectionRule::ALL.to_vec());
    let flags = (any::<bool>(), any::<bool>(), select(EndReason::ALL.to_vec()));
    let ends = (names(), names(), select(Entity::ALL.to_vec()), select(vec![80u16, 81]));
    (0u8..20, times, prop::option::weighted(0.1, verdicts), rules, flags, ends).prop_map(
        |(
            id,
            (start, length, is_first),
            verdict,
            rule,
            (answered, adopted, end_reason),
            (client, server, entity, port),
        )| {
            let mut record = flow();
            record.flow_id = format!("f{id:02}");
            (record.client, record.server) = (end(client, 1), end(server, port));
            if entity != Entity::Pod {
                record.client = not_a_pod(entity);
            }
            let event = &mut record.event;
            (event.start, event.end) = (start, start + length);
            event.flow_start = if is_first { start } else { start - 1 };
            event.verdict = verdict.unwrap_or_default();
            (event.direction_rule, event.adopted, event.end_reason) = (rule, adopted, end_reason);
            event.tcp_flags_to_client = if answered { tcp::SYN | tcp::ACK } else { 0 };
            record
        },
    )
}

fn ledger() -> impl Strategy<Value = Ledger> {
    (select(vec!["n1@0", "n1@9", "n2@0"]), vec(record(), 0..12)).prop_map(|(instance, records)| {
        let mut ledger = Ledger::default();
        records.iter().for_each(|record| ledger.add(&instance.into(), record));
        let gap = |r: &FlowRecord| Gap {
            start: r.event.start,
            end: r.event.end,
            node: r.node.clone(),
            reason: "x".into(),
            lost: 1,
        };
        ledger.gaps.extend(records.iter().take(1).map(gap));
        ledger
    })
}

fn lines(ledger: &Ledger) -> Vec<u8> {
    let mut text = Vec::new();
    ledger.write_lines(&mut text).unwrap();
    text
}

fn read(mut text: &[u8]) -> Result<Ledger, LinesError> {
    Ledger::read_lines(&mut text)
}

#[test]
fn what_is_no_ledger_says_why() {
    for (text, why) in [
        ("", "line 1: the ledger ends here without its end"),
        ("{\"ledger\":{\"version\":2}}\n", "line 1: a ledger of version 2; this podfence reads version 1"),
        ("{\"end\":{\"lines\":0}}\n", "line 1: a ledger begins with its version"),
        ("{\"ledger\":{\"version\":1}}\n{\"half_known\":[3,[]]}\n", "line 2: party 3 is not known yet"),
        ("{\"ledger\":{\"version\":1}}\n{\"end\":{\"lines\":7}}\n", "line 2: 1 lines came before, 7 were written"),
        ("{\"ledger\":{\"version\":1}}\n{\"party\":[\"moon\"]}\n", "line 2: [\"moon\"] is no party"),
    ] {
        let told = read(text.as_bytes()).unwrap_err().to_string();
        assert!(told.starts_with(why), "{told}");
    }
}

fn merged(ledgers: &[&Ledger]) -> Ledger {
    let mut all = Ledger::default();
    ledgers.iter().for_each(|ledger| all.merge((*ledger).clone()));
    all
}

proptest! {
    #[test]
    fn merging_gives_the_same_in_any_order_grouping_and_repetition(a in ledger(), b in ledger(), c in ledger()) {
        let all = merged(&[&a, &b, &c]);
        prop_assert_eq!(&merged(&[&c, &a, &b]), &all);
        prop_assert_eq!(&merged(&[&a, &merged(&[&b, &c])]), &all);
        prop_assert_eq!(&merged(&[&merged(&[&a, &b]), &c]), &all);
        prop_assert_eq!(&merged(&[&a, &b, &a, &c, &c, &b]), &all);
        prop_assert_eq!(&merged(&[&all, &b]), &all);
    }

    #[test]
    fn a_ledger_comes_back_from_its_lines(a in ledger(), b in ledger()) {
        let all = merged(&[&a, &b]);
        prop_assert_eq!(&read(&lines(&all)).unwrap(), &all);
    }

    #[test]
    fn a_ledger_cut_short_or_damaged_is_an_error_that_says_where(a in ledger(), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let text = lines(&a);
        let cut = cut.index(text.len() - 1);
        let told = read(&text[..cut]).unwrap_err().to_string();
        prop_assert!(told.contains("line "), "{}", told);
        let mut damaged = text.clone();
        damaged[cut] = byte;
        drop(read(&damaged));
    }

    #[test]
    fn a_tally_counts_as_a_ledger_does(records in vec(record(), 0..40)) {
        let (mut ledger, mut tally) = (Ledger::default(), Tally::default());
        for record in &records {
            ledger.add(&record.node, record);
            let mut number = |end: &End| ledger::party(end).map(|party| tally.party(party));
            let (client, server) = (number(&record.client), number(&record.server));
            tally.add(&Row {
                facts: Facts::of(record),
                client,
                server,
                port: record.server.port,
                start: record.event.start,
                end: record.event.end,
                flow_id: &record.flow_id,
                node: &record.node,
            });
        }
        prop_assert_eq!(tally.finish(), ledger);
    }

    #[test]
    fn a_fuller_ledger_of_the_same_observer_replaces_an_older_one(records in vec(record(), 0..20), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(records.len() + 1);
        let (older, fuller) = (ledger_of(&records[..cut]), ledger_of(&records));
        prop_assert_eq!(&merged(&[&older, &fuller]), &fuller);
    }

    #[test]
    fn rows_give_the_same_ledger_in_any_order(records in vec(record(), 0..20)) {
        let mut turned = records.clone();
        turned.reverse();
        prop_assert_eq!(ledger_of(&turned), ledger_of(&records));
    }

    #[test]
    fn nothing_that_law_13_names_feeds_an_edge(records in vec(record(), 0..20)) {
        let ledger = ledger_of(&records);
        let refused = |r: &&FlowRecord| matches!(r.event.verdict, FlowVerdict::Deny | FlowVerdict::AuditDeny | FlowVerdict::Revoked);
        let denied: Vec<Edge> = ledger.refused().into_iter().cloned().collect();
        prop_assert!(ledger.learned().keys().all(|edge| !denied.contains(edge)));
        let fed: Vec<&str> = ledger.edges.values().flat_map(|seen| &seen.samples).map(|id| &**id).collect();
        for record in records.iter().filter(refused) {
            let only_denied = records.iter().filter(|r| r.flow_id == record.flow_id).all(|r| refused(&r));
            prop_assert!(!only_denied || !fed.contains(&record.flow_id.as_str()));
        }
    }
}
