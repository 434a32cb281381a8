//! Law 5: for the same packets and the same state, a mode never changes a verdict, only its effect; and
//! outside enforce nothing is dropped.

use crate::pod::*;
use flow::{Direction, Fragment, Kind};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};
use std::{cell::RefCell, collections::BTreeSet};
use verdict::{Effect, Mode, Reason, Refuser, Sockets, Standing, effect};

/// What happens to the pod.
#[derive(Clone, Debug)]
enum Event {
    /// A packet, so many times.
    Packet(Sent, usize),
    Publish(u32, u32),
    /// The neighbor's policies, in force and staged.
    Neighbor(u32, u32),
    Unpublish,
    Wait(u64),
    Sockets(Sockets),
    ComingFrom(u32),
    Limits(u64),
    Standing(Standing),
}

#[test]
fn a_mode_changes_no_verdict_and_nothing_is_dropped_outside_enforce() {
    let met: RefCell<BTreeSet<Reason>> = RefCell::default();
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&vec(event(), 1..250), |events| {
        let pods = [Mode::Enforce, Mode::Audit, Mode::Learn].map(Pod::in_mode);
        for event in &events {
            let Event::Packet(sent, times) = event else {
                pods.iter().for_each(|pod| happen(pod, event));
                continue;
            };
            for _ in 0..*times {
                let judged = [&pods[0], &pods[1], &pods[2]].map(|pod| pod.judge_and_do(*sent));
                let [enforce, audit, learn] = judged.map(|(verdict, _)| verdict);
                prop_assert_eq!(enforce, audit);
                prop_assert_eq!(enforce, learn);
                met.borrow_mut().insert(enforce.reason());
                let reason = enforce.reason();
                let modes = [Mode::Enforce, Mode::Audit, Mode::Learn];
                // A pod that nothing is published for enforces; its neighbor never is one.
                if enforce.refuser() == Refuser::Client {
                    prop_assert_eq!(judged.map(|(_, mode)| mode), modes);
                }
                let dropped = modes.map(|mode| effect(mode, reason) == Effect::DropAndLog);
                prop_assert_eq!(dropped, [!reason.allows(), false, false]);
            }
        }
        let state = |pod: &Pod| {
            let mut all: Vec<_> = pod.memory.connections.borrow().iter().map(|(k, v)| (*k, format!("{v:?}"))).collect();
            all.sort();
            all
        };
        prop_assert_eq!(state(&pods[0]), state(&pods[1]));
        prop_assert_eq!(state(&pods[0]), state(&pods[2]));
        Ok(())
    });
    outcome.expect("law 5");
    let met = met.into_inner();
    // Refusals of the parser never reach `decide`, and a veth without a pod has no mode.
    let never = [Reason::UnknownPod];
    let missing: Vec<_> = Reason::ALL
        .iter()
        .filter(|reason| !met.contains(reason) && !never.contains(reason) && !is_parse_error(**reason))
        .collect();
    assert!(missing.is_empty(), "these reasons were never met: {missing:?}");
}

#[test]
fn the_effect_follows_from_mode_and_verdict() {
    for (mode, reason, wanted) in [
        (Mode::Enforce, Reason::NoRule, Effect::DropAndLog),
        (Mode::Audit, Reason::NoRule, Effect::PassAndLog),
        (Mode::Learn, Reason::NoRule, Effect::PassAndLog),
        (Mode::Enforce, Reason::Spoofed, Effect::DropAndLog),
        (Mode::Learn, Reason::HeadersTooLong, Effect::PassAndLog),
        (Mode::Enforce, Reason::AllowedByRule, Effect::Pass),
        (Mode::Learn, Reason::Established, Effect::Pass),
    ] {
        assert_eq!(effect(mode, reason), wanted, "{mode:?} {reason:?}");
    }
}

#[test]
fn what_was_never_written_denies() {
    assert_eq!(Mode::from_number(0), Mode::Enforce);
    assert_eq!(Mode::from_number(7), Mode::Enforce);
    assert!(!Reason::from_known(0).allows());
    assert!(!Reason::from_known(255).allows());
}

fn is_parse_error(reason: Reason) -> bool {
    flow::ParseError::ALL.into_iter().any(|error| Reason::from(error) == reason)
}

fn happen(pod: &Pod, event: &Event) {
    match event {
        Event::Packet(..) => {}
        Event::Publish(in_force, staged) => pod.publish(*in_force, *staged),
        Event::Neighbor(in_force, staged) => pod.neighbor(*in_force, *staged, pod.mode),
        Event::Unpublish => pod.unpublish(),
        Event::Wait(seconds) => pod.wait(*seconds),
        Event::Sockets(answer) => pod.memory.sockets.set(*answer),
        Event::ComingFrom(ifindex) => pod.coming_from(*ifindex),
        Event::Standing(standing) => pod.memory.standing.set(*standing),
        Event::Limits(share) => {
            pod.limits(*share, *share, *share);
            pod.memory.capacity.set(*share as usize * 2);
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let slots = || select(vec![POLICY, CLOSED, OPEN, NOTHING]);
    prop_oneof![
        30 => packet().prop_map(|sent| Event::Packet(sent, 1)),
        1 => Just(Event::Packet(neighbor(Kind::Arp, "10.1.0.2", "10.1.0.1", "10.1.0.1"), 101)),
        2 => (select(vec![POLICY, POLICY, CLOSED, OPEN]), slots()).prop_map(|(force, staged)| Event::Publish(force, staged)),
        1 => (select(vec![NEIGHBORS, NEIGHBORS, OPEN]), select(vec![NEIGHBORS, OPEN, NOTHING]))
            .prop_map(|(force, staged)| Event::Neighbor(force, staged)),
        1 => select(vec![0u64, 1, 31, 61, 200]).prop_map(Event::Wait),
        1 => select(vec![Sockets::None, Sockets::Client, Sockets::Server]).prop_map(Event::Sockets),
        1 => select(vec![0, LINK, 99]).prop_map(Event::ComingFrom),
        1 => select(vec![1u64, 3, 3, 100]).prop_map(Event::Limits),
        1 => select(vec![Standing::Revoked, Standing::Kept]).prop_map(Event::Standing),
        1 => Just(Event::Unpublish),
    ]
}

fn packet() -> impl Strategy<Value = Sent> {
    let peers = || {
        let ends = [CLIENT, NEIGHBOR, TRUSTED, STRANGER, DATABASE, RESOLVER, NODE, OTHER_NODE, POD, "224.0.0.1:8080"];
        select([&ends[..], &SERVICE].concat())
    };
    let own = || select(vec![WEB, POD]);
    let flags = select(vec![SYN, SYN | ACK, ACK, ACK, FIN | ACK, RST]);
    let conversation = (peers(), own(), flags, 0u8..6, any::<bool>()).prop_map(|(peer, own, flags, protocol, out)| {
        let (from, to) = if out { (own, peer) } else { (peer, own) };
        match protocol {
            0..3 => tcp(from, to, flags),
            3 => udp(from, to),
            4 if out && flags & SYN == 0 => udp("10.1.0.2:67", "10.9.9.9:68"),
            4 => sctp(from, to, flags),
            _ => echo(from, to, 3),
        }
    });
    let oddity = (conversation.clone(), 0u8..6, 0u32..3, any::<bool>()).prop_map(|(sent, what, id, out)| match what {
        0 => sent.piece(Fragment::First, id),
        1 => sent.piece(Fragment::Later, id),
        2 => sent.towards(if out { Direction::Outbound } else { Direction::Inbound }),
        3 => error_about(sent, STRANGER),
        _ => error_about(sent, POD),
    });
    let kinds = select(vec![Kind::Arp, Kind::Solicitation, Kind::Advertisement, Kind::RouterMessage]);
    let discovery = (kinds, select(vec!["fe80::2", "fe80::3"]))
        .prop_map(|(kind, from)| neighbor(kind, from, "ff02::1", "fe80::2").towards(Direction::Outbound));
    prop_oneof![10 => conversation, 4 => oddity, 3 => discovery]
}
