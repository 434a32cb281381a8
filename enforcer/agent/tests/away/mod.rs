//! Hooks that go on without an agent: what is over makes room, and is told to the next agent.

use crate::{
    restart::enforced,
    world::{Bpffs, CLIENT, SERVER, World, policy, start_with},
};
use flowlog::read_records;
use model::record::{FlowVerdict, ObservedAt};
use std::{
    collections::BTreeMap,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};
use verdict::Limits;

/// Datagrams go one way to this port.
const PORT: u16 = 7777;
/// How many flows each pod's share holds that were never answered.
const ROOM: usize = 8;
/// Longer than such a flow lives: `verdict::lives`.
const LIFETIME: Duration = Duration::from_secs(31);

#[test]
fn without_an_agent_new_connections_are_allowed_once_the_old_ones_are_over() {
    kernel_or_skip!();
    let (world, bpffs, log) = (World::new(), Bpffs::mount(), tempfile::tempdir().unwrap());
    let mut open = policy();
    open.policies.iter_mut().flat_map(|policy| policy.ingress.iter_mut().flatten()).for_each(|rule| rule.ports.clear());
    let limits = Limits { half_open: ROOM as u64, established: 100, tombstones: 100 };
    let start = || {
        let agent = start_with(&world, log.path(), datapath::Options { limits, ..bpffs.options() });
        agent.update(&enforced(open.clone())).unwrap();
        agent
    };
    let server = world.inside("server", || UdpSocket::bind((SERVER[0], PORT)).unwrap());
    let client = || world.inside("client", || UdpSocket::bind((CLIENT[0], 0)).unwrap());
    let arrives = |client: &UdpSocket| {
        client.send_to(b"twelve bytes", (SERVER[0], PORT)).unwrap();
        server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        server.recv(&mut [0; 64]).is_ok()
    };
    start().leave().unwrap();
    let old: Vec<UdpSocket> = (0..ROOM).map(|_| client()).collect();
    assert!(old.iter().all(arrives), "there is room for so many");
    let late = client();
    assert!(!arrives(&late), "and no more");
    thread::sleep(LIFETIME);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !arrives(&late) {
        assert!(Instant::now() < deadline, "what is long over leaves no room");
    }
    let more: Vec<UdpSocket> = (1..ROOM).map(|_| client()).collect();
    assert!(more.iter().all(arrives), "all of the share has room again");

    // The next agent tells what went meanwhile, whole.
    let told = start().stop().unwrap().status;
    assert_eq!((told.lost_entries, told.counters.ended.lost), (0, 0));
    assert_eq!(told.counters.ended.events, 2 * ROOM as u64, "at either hook");
    let rows = read_records(log.path()).unwrap().0;
    for at in [ObservedAt::Client, ObservedAt::Server] {
        let allowed = rows.iter().filter(|row| row.event.observed_at == at && row.event.verdict == FlowVerdict::Allow);
        let mut packets: BTreeMap<u16, u64> = BTreeMap::new();
        allowed.for_each(|row| *packets.entry(row.client.port).or_default() += row.event.packets_to_server);
        assert!(packets.len() == 2 * ROOM && packets.values().all(|packets| *packets == 1), "{at:?}: {packets:?}");
    }
}
