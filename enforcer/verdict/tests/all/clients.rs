//! The client's own policy at the hook of the server: what it refuses is refused there, and its mode says what is done.

use crate::pod::*;
use verdict::{
    Effect, Mode,
    Reason::{self, *},
    Refuser, Staged, effect,
};

const REFUSED: &str = TO_NEIGHBOR[0];
const ALLOWED: &str = TO_NEIGHBOR[1];
const NEITHER: &str = TO_NEIGHBOR[2];

/// A pod in one mode with its neighbor in another.
fn beside(neighbor: Mode, own: Mode) -> Pod {
    let pod = Pod::in_mode(own);
    pod.neighbor(NEIGHBORS, NOTHING, neighbor);
    pod
}

fn dropped(pod: &Pod, sent: Sent) -> (Reason, bool) {
    let (verdict, mode) = pod.judge_and_do(sent);
    (verdict.reason(), effect(mode, verdict.reason()) == Effect::DropAndLog)
}

#[test]
fn what_the_clients_policy_refuses_is_refused_at_the_server() {
    let pod = Pod::enforcing();
    pod.judges(&[
        (RefusedByClient, tcp(NEIGHBOR, REFUSED, SYN)),
        (StandingDenial, tcp(REFUSED, NEIGHBOR, SYN | ACK)),
        (AllowedByRule, tcp(NEIGHBOR, ALLOWED, SYN)),
        (Established, tcp(ALLOWED, NEIGHBOR, SYN | ACK)),
        (NoRule, tcp(NEIGHBOR, NEITHER, SYN)),
    ]);
    let refusers = [REFUSED, ALLOWED, NEITHER].map(|to| pod.judge(tcp(NEIGHBOR, to, SYN)).refuser());
    assert_eq!(refusers, [Refuser::Client, Refuser::Endpoint, Refuser::Both]);
    // Nobody else's policy is asked.
    pod.judges(&[(AllowedByRule, tcp(CLIENT, WEB, SYN)), (NoRule, tcp(STRANGER, WEB, SYN))]);
    assert_eq!(pod.judge(tcp(STRANGER, WEB, SYN)).refuser(), Refuser::Endpoint);
}

/// Opening, reply, and the packet after: whose policy refuses decides all three.
#[test]
fn what_is_done_follows_the_mode_of_whose_policy_refuses() {
    use Mode::{Audit, Enforce, Learn};
    for (neighbor, own, to, first, drops) in [
        (Enforce, Enforce, REFUSED, RefusedByClient, true),
        (Enforce, Audit, REFUSED, RefusedByClient, true),
        (Enforce, Learn, REFUSED, RefusedByClient, true),
        (Audit, Enforce, REFUSED, RefusedByClient, false),
        (Learn, Enforce, REFUSED, RefusedByClient, false),
        (Learn, Audit, REFUSED, RefusedByClient, false),
        (Audit, Enforce, NEITHER, NoRule, true),
        (Enforce, Audit, NEITHER, NoRule, true),
        (Learn, Audit, NEITHER, NoRule, false),
    ] {
        let pod = beside(neighbor, own);
        let sent = [tcp(NEIGHBOR, to, SYN), tcp(to, NEIGHBOR, SYN | ACK), tcp(NEIGHBOR, to, ACK)];
        let done = sent.map(|sent| dropped(&pod, sent));
        let meant = [first, StandingDenial, StandingDenial].map(|reason| (reason, drops));
        assert_eq!(done, meant, "client {neighbor:?}, server {own:?}, to {to}");
        // The mode of now counts, though the tombstone is older.
        pod.neighbor(NEIGHBORS, NOTHING, Learn);
        let server_drops = to == NEITHER && own == Enforce;
        assert_eq!(dropped(&pod, sent[2]), (StandingDenial, server_drops), "client {neighbor:?}, server {own:?}");
    }
}

#[test]
fn a_change_of_the_clients_policy_revokes_at_the_server_and_lets_it_in_again() {
    let pod = Pod::enforcing();
    pod.neighbor(OPEN, NOTHING, Mode::Enforce);
    pod.judges(&[
        (AllowedByRule, tcp(NEIGHBOR, REFUSED, SYN)),
        (Established, tcp(REFUSED, NEIGHBOR, SYN | ACK)),
        (Established, tcp(NEIGHBOR, REFUSED, ACK)),
    ]);
    pod.neighbor(NEIGHBORS, NOTHING, Mode::Audit);
    pod.publish(POLICY, NOTHING);
    // Whichever end speaks first, and under the client's mode.
    assert_eq!(dropped(&pod, tcp(REFUSED, NEIGHBOR, ACK)), (Revoked, false));
    assert_eq!(pod.judge(tcp(NEIGHBOR, REFUSED, ACK)).refuser(), Refuser::Client);
    pod.neighbor(NEIGHBORS, NOTHING, Mode::Enforce);
    assert_eq!(dropped(&pod, tcp(NEIGHBOR, REFUSED, ACK)), (StandingDenial, true));
    pod.neighbor(OPEN, NOTHING, Mode::Enforce);
    pod.publish(POLICY, NOTHING);
    pod.judges(&[
        (StandingDenial, tcp(NEIGHBOR, REFUSED, ACK)),
        (AllowedByRule, tcp(NEIGHBOR, REFUSED, SYN)),
        (Established, tcp(REFUSED, NEIGHBOR, SYN | ACK)),
    ]);
}

#[test]
fn a_datagram_that_the_client_is_refused_asks_again_after_a_change() {
    let pod = Pod::enforcing();
    pod.judges(&[(RefusedByClient, udp(NEIGHBOR, REFUSED)), (StandingDenial, udp(NEIGHBOR, REFUSED))]);
    pod.neighbor(OPEN, NOTHING, Mode::Enforce);
    pod.publish(POLICY, NOTHING);
    pod.judges(&[(AllowedByRule, udp(NEIGHBOR, REFUSED)), (Established, udp(REFUSED, NEIGHBOR))]);
}

/// Nothing staged for an end means that what is in force for it stays.
#[test]
fn what_is_staged_for_either_end_counts_for_both() {
    let staged = |server: (u32, u32), client: (u32, u32), to: &str| {
        let pod = Pod::enforcing();
        pod.publish(server.0, server.1);
        pod.neighbor(client.0, client.1, Mode::Enforce);
        let verdict = pod.judge(tcp(NEIGHBOR, to, SYN));
        (verdict.reason().allows(), verdict.staged())
    };
    use Staged::{Allow, Deny, None};
    assert_eq!(staged((POLICY, NOTHING), (NEIGHBORS, NOTHING), ALLOWED), (true, None));
    assert_eq!(staged((POLICY, NOTHING), (OPEN, NEIGHBORS), REFUSED), (true, Deny));
    assert_eq!(staged((POLICY, NOTHING), (OPEN, NEIGHBORS), ALLOWED), (true, Allow));
    assert_eq!(staged((POLICY, NOTHING), (NEIGHBORS, OPEN), REFUSED), (false, Allow));
    assert_eq!(staged((POLICY, OPEN), (NEIGHBORS, NOTHING), REFUSED), (false, Deny));
    assert_eq!(staged((CLOSED, NOTHING), (OPEN, OPEN), REFUSED), (false, Deny));
    assert_eq!(staged((OPEN, CLOSED), (OPEN, NOTHING), REFUSED), (true, Deny));
}

/// Before its first generation, and once it is gone, there is nobody to ask.
#[test]
fn a_client_without_a_generation_has_no_say() {
    let pod = Pod::enforcing();
    pod.neighbor_goes();
    pod.judges(&[(AllowedByRule, tcp(NEIGHBOR, REFUSED, SYN)), (NoRule, tcp(NEIGHBOR, NEITHER, SYN))]);
}
