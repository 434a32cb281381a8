//! What is over makes room while no agent sweeps.

use crate::pod::*;
use verdict::{Reason::*, Share, abi::word};

/// Openings to the server, each from a port of its own.
fn openings(pod: &Pod, ports: std::ops::Range<u16>) -> Vec<verdict::Reason> {
    ports.map(|port| pod.judge(tcp(&format!("10.2.0.7:{port}"), WEB, SYN)).reason()).collect()
}

#[test]
fn without_an_agent_what_is_over_makes_room() {
    let pod = Pod::enforcing();
    pod.limits(2, 100, 100);
    assert_eq!(openings(&pod, 1..4), [AllowedByRule, AllowedByRule, HalfOpenFull]);
    pod.wait(59);
    assert_eq!(openings(&pod, 4..5), [HalfOpenFull], "they may still be answered");
    pod.wait(2);
    // The one that finds no room is denied, and has it made for the next.
    assert_eq!(openings(&pod, 5..9), [HalfOpenFull, AllowedByRule, AllowedByRule, HalfOpenFull]);
    let ended = pod.memory.ended.borrow();
    let packets: Vec<u64> = ended.iter().map(|(_, record)| record[word::PACKETS_IN]).collect();
    assert_eq!(packets, [1, 1], "their last counters are told");
}

#[test]
fn while_an_agent_sweeps_expiry_is_left_to_it() {
    let pod = Pod::enforcing();
    pod.limits(1, 100, 100);
    assert_eq!(openings(&pod, 1..2), [AllowedByRule]);
    pod.wait(100);
    pod.sweeps();
    pod.wait(10);
    assert_eq!(openings(&pod, 2..4), [HalfOpenFull, HalfOpenFull]);
    pod.wait(1);
    assert_eq!(openings(&pod, 4..6), [HalfOpenFull, AllowedByRule]);
}

#[test]
fn every_share_and_the_table_have_room_made() {
    let pod = Pod::enforcing();
    pod.limits(100, 1, 1);
    pod.judges(&[
        (AllowedByRule, tcp(CLIENT, WEB, SYN)),
        (Established, tcp(WEB, CLIENT, SYN | ACK)),
        (Established, tcp(CLIENT, WEB, ACK)),
        (NoRule, tcp(STRANGER, WEB, SYN)),
    ]);
    pod.wait(61);
    // The tombstone is over, and the established connection is not.
    pod.judges(&[(NoRule, tcp("203.0.113.8:1", WEB, SYN)), (EstablishedFull, tcp("10.2.0.7:3", WEB, ACK))]);
    assert_eq!((pod.entries(Share::Established), pod.entries(Share::Tombstone)), (1, 0));
    pod.wait(3600);
    pod.judges(&[(EstablishedFull, tcp("10.2.0.7:3", WEB, ACK)), (Adopted, tcp("10.2.0.7:3", WEB, ACK))]);
    pod.memory.capacity.set(1);
    pod.judges(&[(TableFull, tcp("10.2.0.7:4", WEB, SYN))]);
    pod.wait(3601);
    pod.judges(&[(TableFull, tcp("10.2.0.7:4", WEB, SYN)), (AllowedByRule, tcp("10.2.0.7:4", WEB, SYN))]);
}

#[test]
fn the_table_is_gone_through_once_a_second_at_most() {
    let pod = Pod::enforcing();
    pod.limits(1, 100, 100);
    pod.wait(100);
    assert_eq!(openings(&pod, 1..3), [AllowedByRule, HalfOpenFull]);
    let first = pod.memory.expired.get();
    assert_ne!(first, 0);
    pod.ticks(249);
    assert_eq!(openings(&pod, 3..30), [HalfOpenFull; 27]);
    assert_eq!(pod.memory.expired.get(), first);
    pod.ticks(1);
    assert_eq!(openings(&pod, 30..31), [HalfOpenFull]);
    assert_eq!(pod.memory.expired.get(), first + 1_000_000_000);
}

/// The clock is read before the entry is met, and another CPU may have used it since.
#[test]
fn a_packet_whose_clock_is_behind_its_entrys_belongs_to_it() {
    let pod = Pod::enforcing();
    pod.judges(&[(AllowedByRule, tcp(CLIENT, WEB, SYN)), (Established, tcp(WEB, CLIENT, SYN | ACK))]);
    pod.ticks(-1);
    pod.judges(&[
        (Established, tcp(CLIENT, WEB, ACK)),
        (AllowedByRule, udp(POD, RESOLVER)),
        (Established, udp(RESOLVER, POD)),
    ]);
    pod.ticks(-1);
    pod.judges(&[(Established, udp(POD, RESOLVER)), (RelatedIcmpError, error_about(tcp(CLIENT, WEB, SYN), POD))]);
    assert_eq!(pod.memory.ended.borrow().len(), 0);
}
