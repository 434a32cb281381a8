//! What opens a flow, and what policy, the node and the wire's own oddities make of it.

use crate::pod::*;
use flow::{Direction, Fragment, TCP};
use verdict::{Reason::*, Staged, abi::RulePort};

#[test]
fn a_rule_opens_and_replies_follow() {
    Pod::enforcing().judges(&[
        (AllowedByRule, tcp(CLIENT, WEB, SYN)),
        (Established, tcp(WEB, CLIENT, SYN | ACK)),
        (Established, tcp(CLIENT, WEB, ACK)),
        (Established, tcp(WEB, CLIENT, ACK)),
        (AllowedByRule, tcp(CLIENT_V6, WEB_V6, SYN)),
        (AllowedByRule, tcp(POD, DATABASE, SYN)),
        (Established, tcp(DATABASE, POD, SYN | ACK)),
        (AllowedByRule, udp(POD, RESOLVER)),
        (Established, udp(RESOLVER, POD)),
        (AllowedByRule, sctp(CLIENT, WEB, 1)),
        (Established, sctp(WEB, CLIENT, 2)),
    ]);
}

#[test]
fn what_no_rule_names_is_denied() {
    Pod::enforcing().judges(&[
        (NoRule, tcp(STRANGER, WEB, SYN)),
        (NoRule, tcp(CLIENT, "10.1.0.2:8081", SYN)),
        (NoRule, udp(CLIENT, WEB)),
        (NoRule, tcp(POD, "10.3.0.5:5433", SYN)),
        (NoRule, tcp(POD, CLIENT, SYN)),
        (NoRule, tcp(POD, "203.0.113.9:443", SYN)),
        (NoRule, tcp(STRANGER, "[::ffff:10.1.0.2]:8080", SYN)),
    ]);
}

#[test]
fn a_verdict_names_its_rule() {
    let pod = Pod::enforcing();
    assert_eq!(pod.judge(tcp(CLIENT, WEB, SYN)).rule(), 101);
    assert_eq!(pod.judge(tcp(WEB, CLIENT, SYN | ACK)).rule(), 101, "a reply is allowed by what allowed the opening");
    assert_eq!(pod.judge(tcp(STRANGER, WEB, SYN)).rule(), 0);
}

#[test]
fn a_pod_that_no_policy_selects_is_not_isolated() {
    let pod = Pod::enforcing();
    pod.publish(OPEN, NOTHING);
    pod.judges(&[
        (NotIsolated, tcp(STRANGER, WEB, SYN)),
        (NotIsolated, udp(POD, STRANGER)),
        (NotIsolated, echo(STRANGER, POD, 1)),
    ]);
}

#[test]
fn a_service_is_judged_by_its_backends() {
    let pod = Pod::enforcing();
    // Rules for everyone at these ports are about backends' ports, not about a Service's own.
    for port in [80, 81, 82, 83, 84, 5432] {
        pod.rule(POLICY, 0, Direction::Outbound, TCP, RulePort::Class(port), 106);
    }
    let [allowed, refused, mixed, none, own] = SERVICE;
    pod.judges(&[
        (AllowedByRule, tcp(POD, allowed, SYN)),
        (Established, tcp(allowed, POD, SYN | ACK)),
        (NoRule, tcp(POD, refused, SYN)),
        (ServiceMixed, tcp(POD, mixed, SYN)),
        (ServiceNoBackends, tcp(POD, none, SYN)),
        (Itself, tcp(POD, own, SYN)),
        (AllowedByRule, tcp(POD, NO_SERVICE, SYN)),
        // Another protocol leads to no Service, and no rule names it.
        (NoRule, udp(POD, allowed)),
    ]);
    assert_eq!(pod.judge(tcp(POD, allowed, SYN)).rule(), 105);
}

#[test]
fn a_standing_connection_to_a_service_is_judged_by_its_backends_again() {
    let pod = Pod::enforcing();
    let service = SERVICE[0];
    pod.judges(&[(AllowedByRule, tcp(POD, service, SYN)), (Established, tcp(service, POD, SYN | ACK))]);
    pod.publish(POLICY, NOTHING);
    pod.judges(&[(Rejudged, tcp(POD, service, ACK)), (Established, tcp(POD, service, ACK))]);
    pod.publish(CLOSED, NOTHING);
    pod.judges(&[(Revoked, tcp(POD, service, ACK)), (StandingDenial, tcp(service, POD, ACK))]);
}

#[test]
fn what_comes_back_masqueraded_over_the_pods_own_link_is_the_pod_itself() {
    let pod = Pod::enforcing();
    pod.coming_from(LINK);
    pod.judges(&[(Itself, tcp(NODE, WEB, SYN)), (NoRule, tcp(STRANGER, WEB, SYN))]);
    pod.coming_from(LINK + 1);
    pod.judges(&[(NoRuleMasqueraded, tcp("10.1.0.1:33001", WEB, SYN))]);
}

#[test]
fn protocols_without_ports_follow_a_rule_for_all_of_them() {
    Pod::enforcing().judges(&[
        (AllowedByRule, echo(TRUSTED, POD, 9)),
        (Established, echo(POD, TRUSTED, 9)),
        (NoRulePortless, echo(CLIENT, POD, 9)),
        (StandingDenial, echo(POD, CLIENT, 9)),
        (AllowedByRule, portless(TRUSTED, POD, 47)),
        (NoRulePortless, portless(STRANGER, POD, 47)),
    ]);
}

#[test]
fn a_rule_for_all_protocols_opens_every_port() {
    Pod::enforcing().judges(&[
        (AllowedByRule, tcp(TRUSTED, "10.1.0.2:1", SYN)),
        (AllowedByRule, udp(TRUSTED, "10.1.0.2:65535")),
        (AllowedByRule, sctp(TRUSTED, "10.1.0.2:9", 1)),
    ]);
}

#[test]
fn a_range_of_ports_is_a_class_of_its_slot() {
    let pod = Pod::enforcing();
    let key = |port| verdict::abi::port_key(WITH_RANGES, flow::TCP, port);
    // 8000 to 8063 in one block of 2^6 ports.
    pod.memory.put_port_class(key(8000), verdict::abi::PORT_PREFIX - 6, 1);
    pod.rule(WITH_RANGES, 11, Direction::Inbound, flow::TCP, RulePort::Class(1), 105);
    pod.publish(WITH_RANGES, NOTHING);
    pod.judges(&[
        (AllowedByRule, tcp(CLIENT, "10.1.0.2:8000", SYN)),
        (AllowedByRule, tcp(CLIENT, "10.1.0.2:8063", SYN)),
        (NoRule, tcp(CLIENT, "10.1.0.2:8064", SYN)),
        (NoRule, tcp(CLIENT, "10.1.0.2:7999", SYN)),
        (NoRule, tcp(CLIENT, "10.1.0.2:1", SYN)),
    ]);
}

#[test]
fn a_source_that_is_not_the_pods_is_spoofed_and_leaves_nothing() {
    let pod = Pod::enforcing();
    pod.judges(&[
        (Spoofed, tcp(CLIENT, DATABASE, SYN).towards(Direction::Outbound)),
        (Spoofed, udp("[fd00:1::3]:1", "[fd00:2::7]:53").towards(Direction::Outbound)),
        (Spoofed, udp("[fe80::2]:1", "[fd00:2::7]:53")),
        (Spoofed, error_about(tcp(CLIENT, WEB, SYN), STRANGER).towards(Direction::Outbound)),
    ]);
    assert!(pod.memory.connections.borrow().is_empty());
}

#[test]
fn what_comes_for_another_address_is_not_for_this_pod() {
    let pod = Pod::enforcing();
    pod.judges(&[
        (NotForThisPod, tcp(CLIENT, "10.1.0.3:8080", SYN)),
        (NotForThisPod, tcp(CLIENT_V6, "[fd00:1::3]:8080", SYN)),
        (NotForThisPod, tcp(CLIENT, "0.0.0.0:8080", SYN)),
    ]);
    assert!(pod.memory.connections.borrow().is_empty());
}

#[test]
fn groups_are_judged_each_time_without_an_entry() {
    let pod = Pod::enforcing();
    pod.judges(&[
        (NoRule, udp(CLIENT, "224.0.0.251:5353")),
        (NoRule, udp(POD, "255.255.255.255:67")),
        (NoRule, udp("[fd00:1::2]:1", "[ff02::1:3]:5355")),
        (AllowedByRule, udp(TRUSTED, "224.0.0.251:5353")),
        (AllowedByRule, udp(TRUSTED, "224.0.0.251:5353")),
    ]);
    assert!(pod.memory.connections.borrow().is_empty());
}

#[test]
fn the_pods_own_node_reaches_it_and_what_it_forwards_does_not() {
    let pod = Pod::enforcing();
    pod.judges(&[(NoRuleMasqueraded, tcp(NODE, WEB, SYN))]);
    pod.coming_from(0);
    pod.judges(&[
        (OwnNode, tcp("10.1.0.1:33001", WEB, SYN)),
        (Established, tcp(WEB, "10.1.0.1:33001", SYN | ACK)),
        (NoRule, tcp(OTHER_NODE, WEB, SYN)),
        (NoRule, tcp(POD, "10.1.0.1:10250", SYN)),
    ]);
}

#[test]
fn a_probe_goes_on_whatever_is_published() {
    let pod = Pod::enforcing();
    pod.coming_from(0);
    pod.judges(&[(OwnNode, tcp(NODE, WEB, SYN)), (Established, tcp(WEB, NODE, SYN | ACK))]);
    pod.publish(CLOSED, NOTHING);
    pod.judges(&[(Rejudged, tcp(WEB, NODE, ACK)), (Established, tcp(NODE, WEB, ACK))]);
}

#[test]
fn a_pod_reaches_itself_on_its_own_link() {
    let pod = Pod::enforcing();
    pod.judges(&[
        (Itself, tcp(POD, WEB, SYN)),
        // Either end is local, so each way has an entry of its own.
        (Itself, tcp(WEB, POD, SYN | ACK)),
        (Established, tcp(WEB, POD, SYN | ACK)),
        // A source that is the pod's own but came in elsewhere is judged as what it looks like.
        (NoRule, tcp("10.1.0.2:50001", WEB, SYN).towards(Direction::Inbound)),
    ]);
    pod.coming_from(LINK);
    pod.judges(&[(Itself, tcp("10.1.0.2:50002", WEB, SYN).towards(Direction::Inbound))]);
}

#[test]
fn a_known_pod_without_a_generation_is_not_ready() {
    let pod = Pod::enforcing();
    pod.unpublish();
    pod.judges(&[(NotReady, tcp(CLIENT, WEB, SYN)), (NotReady, udp(POD, RESOLVER))]);
    pod.publish(NOTHING, NOTHING);
    pod.judges(&[(NotReady, tcp(CLIENT, WEB, SYN))]);
    pod.publish(POLICY, NOTHING);
    pod.judges(&[(AllowedByRule, tcp(CLIENT, WEB, SYN))]);
}

#[test]
fn the_staged_slot_is_judged_beside_and_decides_nothing() {
    let pod = Pod::enforcing();
    pod.publish(POLICY, CLOSED);
    let verdict = pod.judge(tcp(CLIENT, WEB, SYN));
    assert_eq!((verdict.reason(), verdict.staged(), verdict.staged_rule()), (AllowedByRule, Staged::Deny, 0));
    pod.publish(CLOSED, POLICY);
    let verdict = pod.judge(tcp(TRUSTED, WEB, SYN));
    assert_eq!((verdict.reason(), verdict.staged(), verdict.staged_rule()), (NoRule, Staged::Allow, 104));
    pod.publish(POLICY, NOTHING);
    assert_eq!(pod.judge(tcp(TRUSTED, WEB, SYN)).staged(), Staged::None);
}

#[test]
fn what_stands_is_judged_under_a_new_staged_slot_too() {
    let pod = Pod::enforcing();
    pod.judges(&[(AllowedByRule, tcp(CLIENT, WEB, SYN))]);
    pod.publish(POLICY, CLOSED);
    let verdict = pod.judge(tcp(WEB, CLIENT, SYN | ACK));
    assert_eq!((verdict.reason(), verdict.staged()), (Rejudged, Staged::Deny));
    assert_eq!(pod.judge(tcp(CLIENT, WEB, ACK)).staged(), Staged::Deny, "the entry keeps it");
}

#[test]
fn later_fragments_share_the_ports_of_their_first() {
    Pod::enforcing().judges(&[
        (FragmentWithoutFirst, udp(POD, RESOLVER).piece(Fragment::Later, 77)),
        (AllowedByRule, udp(POD, RESOLVER).piece(Fragment::First, 77)),
        (Established, udp(POD, RESOLVER).piece(Fragment::Later, 77)),
        (FragmentWithoutFirst, udp(POD, RESOLVER).piece(Fragment::Later, 78)),
        (NoRule, udp(STRANGER, WEB).piece(Fragment::First, 5)),
        (StandingDenial, udp(STRANGER, WEB).piece(Fragment::Later, 5)),
        (Spoofed, udp(CLIENT, RESOLVER).piece(Fragment::First, 6).towards(Direction::Outbound)),
    ]);
}

#[test]
fn who_was_asked_for_an_echo_may_answer_and_not_ask_in_turn() {
    let pod = Pod::enforcing();
    // The pod may open to anybody; only the trusted peer may open to it.
    pod.rule(POLICY, 0, Direction::Outbound, 0, RulePort::Any, 106);
    let mut asked = echo(POD, STRANGER, 7);
    asked.packet.message = 8;
    let mut turned = echo(STRANGER, POD, 7);
    turned.packet.message = 8;
    pod.judges(&[
        (AllowedByRule, asked),
        (Established, echo(STRANGER, POD, 7)),
        (NoRulePortless, turned),
        // What was denied the other way round changes nothing of what was allowed.
        (Established, echo(STRANGER, POD, 7)),
        (Established, asked),
    ]);
}
