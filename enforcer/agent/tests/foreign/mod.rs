//! A pod that sends from an address that is not its own, as a VPN, keepalived or a virtual machine in it does.

use crate::{
    rows,
    world::{CLIENT, SERVER, World, cluster, ip, start},
};
use model::record::FlowVerdict;
use std::{net::UdpSocket, time::Duration};
use verdict::Reason;

const FOREIGN: &str = "10.99.0.7";

#[test]
fn a_pod_that_sends_from_an_address_that_is_not_its_own_is_named_before_enforce_stops_it() {
    kernel_or_skip!();
    let (world, log) = (World::new(), tempfile::tempdir().unwrap());
    ip(&format!("-n {} address add {FOREIGN}/32 dev lo", world.name("client")));
    ip(&format!("-n {} route add {FOREIGN}/32 dev vclient", world.name("node")));
    let server = world.inside("server", || UdpSocket::bind((SERVER[0], 7777)).unwrap());
    server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let [own, foreign] =
        [CLIENT[0], FOREIGN].map(|from| world.inside("client", || UdpSocket::bind((from, 0)).unwrap()));
    let arrives = |socket: &UdpSocket| {
        socket.send_to(b"?", server.local_addr().unwrap()).unwrap();
        server.recv(&mut [0; 8]).is_ok()
    };
    assert!(arrives(&own) && arrives(&foreign), "nothing is in the way before");

    let agent = start(&world, log.path());
    for (mode, passes) in [("learn", true), ("audit", true), ("enforce", false)] {
        agent.update(&cluster(mode)).unwrap();
        assert!(arrives(&own), "{mode}");
        assert_eq!(arrives(&foreign), passes, "{mode}");
    }
    agent.flush().unwrap();
    let report = agent.report().unwrap();
    let sources = |pod: &str| {
        let endpoint = report.endpoints.iter().find(|endpoint| endpoint.pod == pod).unwrap();
        let sources = endpoint.foreign_sources.iter().map(|source| (source.address, source.events));
        (sources.collect::<Vec<_>>(), endpoint.foreign_left_out)
    };
    assert_eq!(sources("shop/client"), (vec![(Some(FOREIGN.parse().unwrap()), 3)], 0));
    assert_eq!(sources("shop/server"), (Vec::new(), 0));

    agent.stop().unwrap();
    let told = rows(log.path());
    let forged = told.iter().filter(|row| *row.event.reason == *Reason::Spoofed.name());
    let forged: Vec<_> =
        forged.map(|row| (row.client.ip.to_string(), &*row.event.interface, row.event.verdict)).collect();
    let row = |verdict| (FOREIGN.to_owned(), "vclient", verdict);
    assert_eq!(forged, [FlowVerdict::AuditDeny, FlowVerdict::AuditDeny, FlowVerdict::Deny].map(row));
}
