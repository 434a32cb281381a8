//! Addresses that the pod was given beside its own.

use crate::pod::*;
use flow::{Direction, Fragment};
use verdict::{
    Reason::*,
    abi::{FURTHER, connection_parts},
};

/// Two of the pod's, and one that nobody gave it.
const BEHIND: &str = "10.8.0.5:50001";
const ANOTHER: &str = "10.8.0.6:50001";
const NOT_GIVEN: &str = "10.8.1.5:50001";

fn given() -> Pod {
    let pod = Pod::enforcing();
    pod.memory.give(ENDPOINT, address("10.8.0.0"), 96 + 24);
    pod
}

#[test]
fn what_was_given_is_judged_by_policy_and_the_rest_is_spoofed() {
    let pod = given();
    pod.judges(&[
        (AllowedByRule, tcp(BEHIND, DATABASE, SYN).towards(Direction::Outbound)),
        (Established, tcp(DATABASE, BEHIND, SYN | ACK).towards(Direction::Inbound)),
        (Established, tcp(BEHIND, DATABASE, ACK).towards(Direction::Outbound)),
        (NoRule, tcp(BEHIND, "203.0.113.9:443", SYN).towards(Direction::Outbound)),
        (AllowedByRule, tcp(CLIENT, "10.8.0.5:8080", SYN).towards(Direction::Inbound)),
        (NoRule, tcp(STRANGER, "10.8.0.5:8080", SYN).towards(Direction::Inbound)),
        (Spoofed, tcp(NOT_GIVEN, DATABASE, SYN).towards(Direction::Outbound)),
        (NotForThisPod, tcp(CLIENT, "10.8.1.5:8080", SYN).towards(Direction::Inbound)),
    ]);
    pod.memory.further.borrow_mut().clear();
    pod.judges(&[(Spoofed, tcp(BEHIND, DATABASE, ACK).towards(Direction::Outbound))]);
}

#[test]
fn two_addresses_with_the_same_ports_are_two_connections() {
    let pod = given();
    let from = ["10.1.0.2:50001", BEHIND, ANOTHER];
    for from in from {
        pod.judges(&[(AllowedByRule, tcp(from, DATABASE, SYN).towards(Direction::Outbound))]);
    }
    let own = [address("10.1.0.2"), Default::default(), Default::default(), Default::default()];
    let entries = pod.memory.connections.borrow();
    let mut locals: Vec<_> = entries.keys().map(|key| connection_parts(key).local(&own).ip().to_string()).collect();
    locals.sort();
    assert_eq!(locals, ["10.1.0.2", "10.8.0.5", "10.8.0.6"]);
    let peer = address("10.3.0.5");
    assert!(entries.keys().all(|key| connection_parts(key).peer == peer));
    assert_eq!(entries.keys().filter(|key| connection_parts(key).own_address == FURTHER).count(), 2);
}

#[test]
fn its_errors_and_fragments_are_told_apart_too() {
    let pod = given();
    let first = |from: &str| udp(from, RESOLVER).piece(Fragment::First, 7).towards(Direction::Outbound);
    let later = |from: &str| udp(from, RESOLVER).piece(Fragment::Later, 7).towards(Direction::Outbound);
    pod.judges(&[
        (FragmentWithoutFirst, later(BEHIND)),
        (AllowedByRule, first(BEHIND)),
        (Established, later(BEHIND)),
        (FragmentWithoutFirst, later(ANOTHER)),
        (Spoofed, first(NOT_GIVEN)),
        (AllowedByRule, tcp(BEHIND, DATABASE, SYN).towards(Direction::Outbound)),
        (RelatedIcmpError, error_about(tcp(BEHIND, DATABASE, SYN), "192.0.2.1:0").towards(Direction::Inbound)),
        (UnrelatedIcmpError, error_about(tcp(ANOTHER, DATABASE, SYN), "192.0.2.1:0").towards(Direction::Inbound)),
        (NotForThisPod, error_about(tcp(NOT_GIVEN, DATABASE, SYN), "192.0.2.1:0").towards(Direction::Inbound)),
    ]);
}
