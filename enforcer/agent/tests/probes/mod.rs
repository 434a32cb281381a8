//! The kubelet's probes come from whatever address the node has on the way to the pod: with the reference plugins the
//! gateway's, which no Node object names. They pass, and what the node only forwards from that address does not.

use crate::world::{CLIENT, GATEWAY, SERVER, World, cluster, ip, policy, start, talk};
use agent::Agent;
use model::cluster::Cluster;
use std::{
    io::Write,
    net::{IpAddr, UdpSocket},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use verdict::Reason;

/// What the Node object says, and no interface has.
const STATUS: [&str; 2] = ["10.202.0.1", "fd01:202::1"];
/// Addresses that the node gets later.
const LATER: [&str; 2] = ["10.201.255.3", "fd01:201::fffe"];
/// A port of the server that no rule opens.
const CLOSED: u16 = 9090;
/// The port of the node that leads there.
const NODE_PORT: u16 = 30_090;
/// A datagram from the node to here gets a source address of [`LATER`].
const TRANSLATED: u16 = 7777;

/// How the node reaches its pods, as the reference plugins lay it out.
#[derive(Clone, Copy, Debug)]
enum Plugin {
    /// Each link a route, the gateway's address on each.
    Ptp,
    /// All links in a bridge that has the gateway's address.
    Bridge,
}

fn world(plugin: Plugin) -> World {
    let world = World::new();
    let node = world.name("node");
    if matches!(plugin, Plugin::Bridge) {
        ip(&format!("-n {node} link add cni0 type bridge"));
        for (link, address) in [("vclient", CLIENT), ("vserver", SERVER)] {
            ip(&format!("-n {node} route delete {}/32", address[0]));
            ip(&format!("-n {node} route delete {}/128", address[1]));
            ip(&format!("-n {node} address flush dev {link} scope global"));
            ip(&format!("-n {node} link set {link} master cni0"));
        }
        ip(&format!("-n {node} link set cni0 up"));
        ip(&format!("-n {node} address add {}/16 dev cni0", GATEWAY[0]));
        ip(&format!("-n {node} address add {}/64 dev cni0 nodad", GATEWAY[1]));
    }
    world
}

/// A node's port to the closed one, masqueraded as kube-proxy does it, and a source for some datagrams of the node.
fn translate(world: &World) {
    let node = world.name("node");
    let mut rules = String::from("table inet services {\n chain in { type nat hook prerouting priority dstnat;\n");
    for (family, index) in [("ip", 0), ("ip6", 1)] {
        let to = if index == 0 { SERVER[0].to_owned() } else { format!("[{}]", SERVER[1]) };
        rules += &format!("  {family} daddr {} tcp dport {NODE_PORT} dnat {family} to {to}:{CLOSED}\n", GATEWAY[index]);
    }
    rules += " }\n chain out { type nat hook postrouting priority srcnat;\n  ct status dnat masquerade\n";
    for (family, index) in [("ip", 0), ("ip6", 1)] {
        let to = format!("{family} daddr {} udp dport {TRANSLATED}", SERVER[index]);
        rules += &format!("  {to} snat {family} to {}\n", LATER[index]);
    }
    rules += " }\n}\n";
    let mut nft = Command::new("ip")
        .args(["netns", "exec", &node, "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("nftables is installed");
    nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "{rules}");
}

fn named_by_status(mode: &str) -> Cluster {
    let mut cluster = cluster(mode);
    cluster.nodes.get_mut("n1").unwrap().addresses = STATUS.map(|address| address.parse::<IpAddr>().unwrap()).to_vec();
    cluster.policies = policy();
    cluster
}

fn packets(agent: &Agent, reason: Reason) -> u64 {
    agent.status().unwrap().counters.packets(reason)
}

#[test]
fn the_nodes_probes_pass_from_an_address_that_no_node_object_names() {
    kernel_or_skip!();
    for plugin in [Plugin::Ptp, Plugin::Bridge] {
        let (world, log) = (world(plugin), tempfile::tempdir().unwrap());
        world.serve(CLOSED);
        translate(&world);
        let agent = start(&world, log.path());
        let brief = Duration::from_millis(700);
        let forwarded = |family: usize, patience| {
            world
                .connect_within("client", GATEWAY[family], NODE_PORT, patience)
                .and_then(|mut stream| talk(&mut stream))
        };
        agent.update(&named_by_status("learn")).unwrap();
        for family in [0, 1] {
            forwarded(family, Duration::from_secs(10)).expect("the node's port leads to the server");
        }
        let update = agent.update(&named_by_status("enforce")).unwrap();
        assert_eq!(update.covered.len(), 2, "{update:?}");
        for family in [0, 1] {
            world.connect_within("client", SERVER[family], CLOSED, brief).expect_err("the port is closed");
            let before = packets(&agent, Reason::OwnNode);
            let probe = world.connect_within("node", SERVER[family], CLOSED, Duration::from_secs(3));
            let mut probe = probe.unwrap_or_else(|e| panic!("{plugin:?}: the probe is denied: {e}"));
            assert_eq!(probe.local_addr().unwrap().ip().to_string(), GATEWAY[family], "from the gateway's address");
            talk(&mut probe).unwrap();
            assert!(packets(&agent, Reason::OwnNode) > before, "{plugin:?}: as the node's own");

            let before = packets(&agent, Reason::NoRuleMasqueraded);
            forwarded(family, brief).expect_err("what the node forwards as itself is judged by policy");
            assert!(packets(&agent, Reason::NoRuleMasqueraded) > before, "{plugin:?}");
        }
        agent.stop().unwrap();
    }
}

#[test]
fn an_address_of_the_node_that_comes_and_goes_is_followed() {
    kernel_or_skip!();
    for plugin in [Plugin::Ptp, Plugin::Bridge] {
        let (world, log) = (world(plugin), tempfile::tempdir().unwrap());
        translate(&world);
        let agent = start(&world, log.path());
        let update = agent.update(&named_by_status("enforce")).unwrap();
        assert_eq!(update.covered.len(), 2, "{update:?}");
        let link = if matches!(plugin, Plugin::Ptp) { "vserver" } else { "cni0" };
        for family in [0, 1] {
            let server = world.inside("server", || UdpSocket::bind((SERVER[family], TRANSLATED)).unwrap());
            server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            // A socket of its own each time: translation stays with a connection.
            let arrives = || {
                let node = world.inside("node", || UdpSocket::bind((GATEWAY[family], 0)).unwrap());
                node.send_to(b"probe", (SERVER[family], TRANSLATED)).unwrap();
                server.recv_from(&mut [0; 8]).ok().map(|(_, from)| from.ip().to_string())
            };
            let turns = |to: Option<&str>| {
                let deadline = Instant::now() + Duration::from_secs(20);
                while arrives().as_deref() != to {
                    assert!(Instant::now() < deadline, "{plugin:?}: a probe from {} is not {to:?}", LATER[family]);
                    thread::sleep(Duration::from_millis(50));
                }
            };
            let address = ["/32", "/128 nodad"].map(|length| length.split_once(' ').unwrap_or((length, "")));
            let (length, flags) = address[family];
            let change = |what: &str| {
                let flags = if what == "add" { flags } else { "" };
                let place = format!("{}{length} dev {link} {flags}", LATER[family]);
                ip(&format!("-n {} address {what} {place}", world.name("node")));
            };
            assert_eq!(arrives(), None, "{plugin:?}: made here, from an address of nobody");
            change("add");
            turns(Some(LATER[family]));
            change("del");
            turns(None);
        }
        agent.stop().unwrap();
    }
}
