//! What stands: tombstones, changes of policy, adoption, shares, ends, errors about it.

use crate::pod::*;
use verdict::{Reason::*, Share, Sockets, Standing, abi::word};

#[test]
fn a_denial_leaves_a_tombstone_and_its_reply_is_denied_too() {
    Pod::enforcing().judges(&[
        (NoRule, tcp(STRANGER, WEB, SYN)),
        (StandingDenial, tcp(WEB, STRANGER, SYN | ACK)),
        (StandingDenial, tcp(STRANGER, WEB, ACK)),
        (NoRule, tcp(STRANGER, WEB, SYN)),
    ]);
}

#[test]
fn a_denied_datagram_is_not_answered() {
    Pod::enforcing().judges(&[
        (NoRule, udp(STRANGER, WEB)),
        (StandingDenial, udp(WEB, STRANGER)),
        (StandingDenial, udp(STRANGER, WEB)),
    ]);
}

#[test]
fn only_an_allowed_opening_replaces_a_tombstone() {
    let pod = Pod::enforcing();
    pod.publish(CLOSED, NOTHING);
    pod.judges(&[(NoRule, tcp(CLIENT, WEB, SYN))]);
    pod.publish(POLICY, NOTHING);
    pod.judges(&[
        (StandingDenial, tcp(CLIENT, WEB, ACK)),
        (StandingDenial, tcp(WEB, CLIENT, SYN | ACK)),
        (AllowedByRule, tcp(CLIENT, WEB, SYN)),
        (Established, tcp(WEB, CLIENT, SYN | ACK)),
    ]);
    assert_eq!(pod.entries(Share::Tombstone), 0);
}

#[test]
fn a_denied_datagram_asks_again_once_policy_has_changed() {
    let pod = Pod::enforcing();
    pod.publish(CLOSED, NOTHING);
    pod.judges(&[(NoRule, udp(POD, RESOLVER)), (StandingDenial, udp(POD, RESOLVER))]);
    pod.publish(POLICY, NOTHING);
    pod.judges(&[
        (StandingDenial, udp(RESOLVER, POD)),
        (AllowedByRule, udp(POD, RESOLVER)),
        (Established, udp(RESOLVER, POD)),
    ]);
}

/// What the pod itself sends to a denied peer does not keep the tombstone alive: it would for ever.
#[test]
fn an_unsolicited_datagram_silences_its_target_no_longer_than_a_tombstone_lives() {
    let pod = Pod::enforcing();
    pod.judges(&[(NoRule, udp(RESOLVER, POD)), (StandingDenial, udp(POD, RESOLVER))]);
    pod.wait(40);
    pod.judges(&[(StandingDenial, udp(POD, RESOLVER))]);
    pod.wait(30);
    pod.judges(&[(AllowedByRule, udp(POD, RESOLVER)), (Established, udp(RESOLVER, POD))]);
}

#[test]
fn a_denial_is_told_once_a_second() {
    let pod = Pod::enforcing();
    pod.judges(&[(NoRule, tcp(STRANGER, WEB, SYN))]);
    assert_eq!(pod.news_of(tcp(STRANGER, WEB, SYN), 50), 0);
    pod.wait(2);
    assert_eq!(pod.news_of(tcp(STRANGER, WEB, SYN), 50), 1);
}

#[test]
fn a_publish_judges_what_stands_once_more_in_its_own_direction() {
    let pod = Pod::enforcing();
    open(&pod);
    pod.publish(POLICY, NOTHING);
    // From the server: policy is asked about the client's opening, not about the pod's egress.
    pod.judges(&[(Rejudged, tcp(WEB, CLIENT, ACK)), (Established, tcp(CLIENT, WEB, ACK))]);
}

#[test]
fn a_publish_that_closes_revokes() {
    let pod = Pod::enforcing();
    open(&pod);
    pod.publish(CLOSED, NOTHING);
    pod.judges(&[
        (Revoked, tcp(CLIENT, WEB, ACK)),
        (StandingDenial, tcp(WEB, CLIENT, ACK)),
        (NoRule, tcp(CLIENT, WEB, SYN)),
    ]);
    assert_eq!((pod.entries(Share::Established), pod.entries(Share::Tombstone)), (0, 1));
}

#[test]
fn what_was_revoked_stays_so_until_it_is_opened_anew() {
    let pod = Pod::enforcing();
    open(&pod);
    pod.publish(CLOSED, NOTHING);
    pod.judges(&[(Revoked, tcp(CLIENT, WEB, ACK))]);
    pod.publish(POLICY, NOTHING);
    pod.judges(&[
        (StandingDenial, tcp(CLIENT, WEB, ACK)),
        (StandingDenial, tcp(WEB, CLIENT, ACK)),
        (AllowedByRule, tcp(CLIENT, WEB, SYN)),
    ]);
}

#[test]
fn a_denied_opening_the_other_way_round_revokes_nothing() {
    let pod = Pod::enforcing();
    open(&pod);
    pod.judges(&[(NoRule, tcp(WEB, CLIENT, SYN)), (Established, tcp(CLIENT, WEB, ACK))]);
}

#[test]
fn an_older_connection_is_adopted_where_policy_allows_its_own_way() {
    Pod::enforcing().judges(&[
        (Adopted, tcp(CLIENT, WEB, ACK)),
        (Established, tcp(WEB, CLIENT, ACK)),
        (Adopted, tcp(POD, DATABASE, ACK)),
        (NotAdopted, tcp(STRANGER, WEB, ACK)),
        (StandingDenial, tcp(WEB, STRANGER, ACK)),
    ]);
}

#[test]
fn a_reply_is_adopted_in_reverse_only_where_the_pods_sockets_show_it() {
    let pod = Pod::enforcing();
    pod.judges(&[(NotAdopted, tcp("10.1.0.2:8080", "10.2.0.7:40001", ACK))]);
    pod.memory.sockets.set(Sockets::Server);
    pod.judges(&[
        (AdoptedInReverse, tcp(WEB, CLIENT, ACK)),
        (NotAdopted, tcp(WEB, STRANGER, ACK)),
        (StandingDenial, tcp("10.1.0.2:8080", "10.2.0.7:40001", ACK)),
    ]);
    pod.memory.sockets.set(Sockets::Client);
    pod.judges(&[(AdoptedInReverse, tcp(DATABASE, POD, ACK)), (NotAdopted, tcp(STRANGER, POD, ACK))]);
}

#[test]
fn nothing_is_adopted_in_reverse_while_tombstones_have_no_room() {
    let pod = Pod::enforcing();
    pod.limits(100, 100, 1);
    pod.memory.sockets.set(Sockets::Server);
    pod.judges(&[
        (NoRule, tcp(STRANGER, WEB, SYN)),
        (NotAdopted, tcp(WEB, CLIENT, ACK)),
        (Adopted, tcp(CLIENT, WEB, ACK)),
    ]);
}

#[test]
fn datagrams_are_never_taken_for_replies() {
    let pod = Pod::enforcing();
    pod.memory.sockets.set(Sockets::Client);
    pod.judges(&[(NoRule, udp(RESOLVER, POD))]);
}

#[test]
fn half_open_connections_have_a_share_and_no_more() {
    let pod = Pod::enforcing();
    pod.limits(2, 100, 100);
    pod.judges(&[
        (AllowedByRule, tcp("10.2.0.7:1", WEB, SYN)),
        (AllowedByRule, tcp("10.2.0.7:2", WEB, SYN)),
        (HalfOpenFull, tcp("10.2.0.7:3", WEB, SYN)),
        (Established, tcp(WEB, "10.2.0.7:1", SYN | ACK)),
        (Established, tcp("10.2.0.7:1", WEB, ACK)),
        (AllowedByRule, tcp("10.2.0.7:3", WEB, SYN)),
    ]);
}

#[test]
fn established_connections_have_a_share_of_their_own() {
    let pod = Pod::enforcing();
    pod.limits(100, 1, 100);
    open(&pod);
    pod.judges(&[
        (AllowedByRule, tcp("10.2.0.7:2", WEB, SYN)),
        (Established, tcp(WEB, "10.2.0.7:2", SYN | ACK)),
        (EstablishedFull, tcp("10.2.0.7:2", WEB, ACK)),
        (EstablishedFull, tcp("10.2.0.7:3", WEB, ACK)),
        (Established, tcp(CLIENT, WEB, ACK)),
    ]);
}

#[test]
fn a_denial_needs_no_room() {
    let pod = Pod::enforcing();
    pod.limits(100, 100, 0);
    pod.judges(&[(NoRule, tcp(STRANGER, WEB, SYN)), (NoRule, tcp(STRANGER, WEB, SYN))]);
    pod.limits(100, 100, 100);
    pod.memory.capacity.set(0);
    pod.judges(&[(NoRule, tcp(STRANGER, WEB, SYN)), (TableFull, tcp(CLIENT, WEB, SYN))]);
}

#[test]
fn an_entry_that_is_over_its_time_is_gone() {
    let pod = Pod::enforcing();
    pod.judges(&[(AllowedByRule, tcp(CLIENT, WEB, SYN))]);
    pod.wait(61);
    pod.judges(&[(NotAdopted, tcp(WEB, CLIENT, SYN | ACK))]);
    open(&pod);
    pod.wait(3_599);
    pod.judges(&[(Established, tcp(CLIENT, WEB, ACK))]);
    pod.wait(3_601);
    pod.judges(&[(Adopted, tcp(CLIENT, WEB, ACK))]);
}

#[test]
fn a_closed_connection_is_opened_anew_and_its_counters_are_told() {
    let pod = Pod::enforcing();
    open(&pod);
    pod.judges(&[(Established, tcp(WEB, CLIENT, RST)), (AllowedByRule, tcp(CLIENT, WEB, SYN))]);
    let ended = pod.memory.ended.borrow();
    let [(_, record)] = ended.as_slice() else { panic!("one entry ended, not {}", ended.len()) };
    assert_eq!((record[word::PACKETS_IN], record[word::PACKETS_OUT]), (2, 2));
    assert_eq!((record[word::BYTES_IN], record[word::BYTES_OUT]), (120, 120));
}

#[test]
fn a_connection_that_both_ends_finished_makes_room() {
    let pod = Pod::enforcing();
    open(&pod);
    pod.judges(&[
        (Established, tcp(CLIENT, WEB, FIN | ACK)),
        (Established, tcp(WEB, CLIENT, FIN | ACK)),
        (Established, tcp(CLIENT, WEB, ACK)),
        (AllowedByRule, tcp(CLIENT, WEB, SYN)),
    ]);
    assert_eq!((pod.entries(Share::HalfOpen), pod.entries(Share::Established)), (1, 0));
}

#[test]
fn an_error_passes_only_about_a_connection_that_is_allowed() {
    let pod = Pod::enforcing();
    pod.judges(&[
        (UnrelatedIcmpError, error_about(tcp(POD, DATABASE, SYN), "192.0.2.1:0")),
        (AllowedByRule, tcp(POD, DATABASE, SYN)),
        (RelatedIcmpError, error_about(tcp(POD, DATABASE, SYN), "192.0.2.1:0")),
        (AllowedByRule, tcp(CLIENT, WEB, SYN)),
        (RelatedIcmpError, error_about(tcp(CLIENT, WEB, SYN), POD)),
        (RelatedIcmpError, error_about(tcp(WEB, CLIENT, SYN | ACK), "192.0.2.1:0")),
        (NoRule, tcp(STRANGER, WEB, SYN)),
        (UnrelatedIcmpError, error_about(tcp(STRANGER, WEB, SYN), POD)),
        (NotForThisPod, error_about(tcp(CLIENT, DATABASE, SYN), "192.0.2.1:0")),
    ]);
    pod.publish(POLICY, NOTHING);
    // What stands is judged again by its own packets, not by an error about it.
    pod.judges(&[(UnrelatedIcmpError, error_about(tcp(POD, DATABASE, SYN), "192.0.2.1:0"))]);
}

/// The client's connection to the pod's server, complete.
fn open(pod: &Pod) {
    pod.judges(&[
        (AllowedByRule, tcp(CLIENT, WEB, SYN)),
        (Established, tcp(WEB, CLIENT, SYN | ACK)),
        (Established, tcp(CLIENT, WEB, ACK)),
    ]);
}

#[test]
fn what_the_operator_keeps_goes_on_until_it_ends() {
    let pod = Pod::enforcing();
    pod.memory.standing.set(Standing::Kept);
    pod.judges(&[(AllowedByRule, tcp(CLIENT, WEB, SYN)), (Established, tcp(WEB, CLIENT, SYN | ACK))]);
    pod.judges(&[(Established, tcp(CLIENT, WEB, ACK))]);
    pod.publish(CLOSED, NOTHING);
    pod.judges(&[
        (Kept, tcp(WEB, CLIENT, ACK)),
        (Established, tcp(CLIENT, WEB, ACK)),
        // Openings go to policy, also the same one again.
        (NoRule, tcp("10.2.0.7:40001", WEB, SYN)),
        (Revoked, tcp(CLIENT, WEB, SYN)),
        (StandingDenial, tcp(CLIENT, WEB, ACK)),
    ]);
}

#[test]
fn segments_are_counted_as_they_go_over_the_wire() {
    let pod = Pod::enforcing();
    pod.judges(&[(AllowedByRule, tcp(CLIENT, WEB, SYN)), (Established, tcp(WEB, CLIENT, SYN | ACK))]);
    pod.judges(&[(Established, tcp(CLIENT, WEB, ACK))]);
    let before = pod.counted();
    let mut segments = tcp(CLIENT, WEB, ACK);
    (segments.packet.ip_length, segments.packet.headers) = (20 + 32 + 3 * 1000, 52);
    pod.segments.set(3);
    pod.judges(&[(Established, segments)]);
    let after = pod.counted();
    assert_eq!((after.0 - before.0, after.1 - before.1), (3, 3 * 1052));
}
