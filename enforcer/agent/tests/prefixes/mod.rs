//! A pod that others stand behind: what it sends from their addresses is its own where a guarded annotation says so.

use crate::world::{GATEWAY, SERVER, World, cluster, ip, options, policy, started, talk};
use agent::Agent;
use compile::{SOURCE_PREFIXES, SourcePrefixes};
use flowlog::read_records;
use model::{cluster::Cluster, policy::Peer};
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

/// Two behind the client, and one behind it that the annotation does not name.
const BEHIND: [&str; 3] = ["10.202.0.5", "10.202.0.6", "10.203.0.5"];
const PREFIX: &str = "10.202.0.0/24";

/// The client has these addresses, as if it forwarded for them, and the node routes them to it.
fn world() -> World {
    let world = World::new();
    for address in BEHIND {
        ip(&format!("-n {} address add {address}/32 dev lo", world.name("client")));
        ip(&format!("-n {} route add {address}/32 dev vclient", world.name("node")));
    }
    world.serve(8080);
    world
}

/// A connection from one of them, and from this port of its own.
fn connect(world: &World, from: &str, port: u16, patience: Duration) -> io::Result<TcpStream> {
    let (from, to) = (SocketAddr::new(from.parse().unwrap(), port), SocketAddr::new(SERVER[0].parse().unwrap(), 8080));
    world.inside("client", move || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())?;
        socket.connect_timeout(&to.into(), patience)?;
        Ok(socket.into())
    })
}

/// The server takes its port from everywhere behind the client; the client's annotation names some of it.
fn annotated(mode: &str) -> Cluster {
    let mut cluster = cluster(mode);
    cluster.policies = policy();
    for rule in cluster.policies.policies.iter_mut().flat_map(|policy| policy.ingress.iter_mut().flatten()) {
        rule.peers.push(Peer::Block { cidr: "10.202.0.0/15".parse().unwrap(), except: Vec::new() });
    }
    cluster.pods[0].annotations.insert(SOURCE_PREFIXES.into(), PREFIX.into());
    cluster
}

fn start(world: &World, log: &Path, source_prefixes: SourcePrefixes) -> Agent {
    let agent = started(agent::Options { source_prefixes, ..options(world, log, datapath::Options::default()) }, log);
    agent.unwrap()
}

const REFUSED: Duration = Duration::from_millis(500);
const ALLOWED: Duration = Duration::from_secs(10);

#[test]
fn a_pod_forwards_for_the_prefixes_of_its_annotation_where_that_is_guarded() {
    kernel_or_skip!();
    assert!(!GATEWAY.contains(&BEHIND[0]));
    let (world, log) = (world(), tempfile::tempdir().unwrap());
    // Without enforcement all of them arrive.
    for from in BEHIND {
        talk(&mut connect(&world, from, 0, ALLOWED).unwrap()).unwrap();
    }

    // An annotation that nobody guards counts for nothing, and status says so.
    let agent = start(&world, log.path(), SourcePrefixes::Ignored);
    agent.update(&annotated("enforce")).unwrap();
    connect(&world, BEHIND[0], 0, REFUSED).unwrap_err();
    let report = agent.report().unwrap();
    assert!(report.warnings.iter().any(|said| said.contains(SOURCE_PREFIXES)), "{:?}", report.warnings);
    agent.stop().unwrap();

    let agent = start(&world, log.path(), SourcePrefixes::Guarded);
    agent.update(&annotated("enforce")).unwrap();
    let client = agent.report().unwrap().endpoints.swap_remove(0);
    assert_eq!((client.pod.as_str(), client.source_prefixes), ("shop/client", vec![PREFIX.to_owned()]));
    // The same ports at either end, and only the addresses behind the pod tell the two apart.
    let mut streams: Vec<_> =
        BEHIND[..2].iter().map(|from| connect(&world, from, 40_000, ALLOWED).expect("the prefix is its own")).collect();
    for _ in 0..3 {
        streams.iter_mut().for_each(|stream| talk(stream).expect("its replies come back"));
    }
    connect(&world, BEHIND[2], 0, REFUSED).expect_err("what the annotation does not name is spoofed");
    // The prefix is taken back: what stands by it ends too.
    let mut without = annotated("enforce");
    without.pods[0].annotations.clear();
    agent.update(&without).unwrap();
    talk(&mut streams[0]).expect_err("spoofed from now on");
    agent.stop().unwrap();
    let rows = read_records(log.path()).unwrap().0;
    let behind: BTreeSet<IpAddr> = rows
        .iter()
        .filter(|row| row.client.port == 40_000 && row.event.packets_to_client > 0)
        .map(|row| row.client.ip)
        .collect();
    assert_eq!(behind, BEHIND[..2].iter().map(|address| address.parse().unwrap()).collect());
}
