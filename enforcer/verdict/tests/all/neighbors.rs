//! ARP, neighbour discovery and listener discovery: who may claim what, and how often.

use crate::pod::*;
use flow::Kind;
use verdict::Reason::*;

#[test]
fn a_pod_asks_and_answers_for_itself() {
    Pod::enforcing().judges(&[
        (Arp, neighbor(Kind::Arp, "10.1.0.2", "10.1.0.1", "10.1.0.1")),
        (Arp, neighbor(Kind::Arp, "10.1.0.1", "10.1.0.2", "10.1.0.2")),
        (NeighborDiscovery, neighbor(Kind::Solicitation, "fd00:1::2", "ff02::1:ff00:1", "fd00:1::1")),
        (NeighborDiscovery, neighbor(Kind::Solicitation, "fe80::2", "ff02::1:ff00:1", "fe80::1")),
        (NeighborDiscovery, neighbor(Kind::Advertisement, "fd00:1::2", "fd00:1::1", "fd00:1::2")),
        (NeighborDiscovery, neighbor(Kind::Advertisement, "fe80::2", "fe80::1", "fe80::2")),
        (NeighborDiscovery, neighbor(Kind::RouterSolicitation, "fe80::2", "ff02::2", "::")),
        (NeighborDiscovery, neighbor(Kind::ListenerReport, "fe80::2", "ff02::16", "::")),
        (NeighborDiscovery, neighbor(Kind::RouterMessage, "fe80::1", "ff02::1", "::")),
    ]);
}

#[test]
fn a_pod_without_an_address_yet_may_ask() {
    let out = flow::Direction::Outbound;
    Pod::enforcing().judges(&[
        (Arp, neighbor(Kind::Arp, "0.0.0.0", "10.1.0.2", "10.1.0.2").towards(out)),
        (NeighborDiscovery, neighbor(Kind::Solicitation, "::", "ff02::1:ff00:2", "fe80::2").towards(out)),
        (NeighborForged, neighbor(Kind::Advertisement, "::", "ff02::1", "fe80::2").towards(out)),
    ]);
}

#[test]
fn a_pod_claims_nothing_of_others() {
    let out = flow::Direction::Outbound;
    Pod::enforcing().judges(&[
        (NeighborForged, neighbor(Kind::Arp, "10.1.0.3", "10.1.0.1", "10.1.0.1").towards(out)),
        (NeighborForged, neighbor(Kind::Solicitation, "fe80::3", "ff02::1:ff00:1", "fe80::1").towards(out)),
        (NeighborForged, neighbor(Kind::Advertisement, "fe80::2", "ff02::1", "fd00:1::3")),
        (NeighborForged, neighbor(Kind::Advertisement, "fe80::3", "ff02::1", "fe80::2").towards(out)),
        (NeighborForged, neighbor(Kind::RouterMessage, "fe80::2", "ff02::1", "::")),
    ]);
}

#[test]
fn what_crossed_a_router_is_forged() {
    Pod::enforcing().judges(&[
        (NeighborForged, neighbor(Kind::Solicitation, "fe80::1", "fe80::2", "fe80::2").hops(254)),
        (NeighborForged, neighbor(Kind::ListenerReport, "fe80::2", "ff02::16", "::").hops(255)),
    ]);
}

#[test]
fn more_than_a_hundred_a_second_are_too_many() {
    let (pod, ask) = (Pod::enforcing(), neighbor(Kind::Arp, "10.1.0.2", "10.1.0.1", "10.1.0.1"));
    for _ in 0..100 {
        pod.judges(&[(Arp, ask)]);
    }
    pod.judges(&[(NeighborRate, ask)]);
    pod.wait(1);
    pod.judges(&[(Arp, ask)]);
}
