//! Path MTU discovery through an enforcing pod (RFC 1191, RFC 8201): the error that tells a sender
//! to send less comes from a router that no policy names, and passes because of the connection it is
//! about.

use crate::world::{World, cluster, ip, start};
use model::{
    cluster::Cluster,
    labels::{Labels, Selector},
    policy::{NetworkPolicy, Peer, PolicySet, Port, PortMatch, Protocol, Rule},
};
use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener},
    process::Command,
    thread,
    time::Duration,
};
use verdict::Reason;

/// A server outside, behind a router whose link to it is narrower than all others on the way, and
/// than what the server's own link makes it say in its handshake.
struct Beyond<'w>(&'w World);

const FAR: [&str; 2] = ["10.202.0.2", "fd01:202::2"];
const NARROW: u32 = 1400;
const PORT: u16 = 8080;
const OTHER: u16 = 9090;
/// Many times what both ends can hold on the way.
const BYTES: usize = 4 << 20;

impl<'w> Beyond<'w> {
    fn new(world: &'w World) -> Self {
        let [node, router, far] = ["node", "router", "far"].map(|of| world.name(of));
        let beyond = Self(world);
        for namespace in [&router, &far] {
            ip(&format!("netns add {namespace}"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        world.inside("router", || {
            for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{family}"), "1").unwrap();
            }
        });
        ip(&format!("-n {node} link add uplink type veth peer name node netns {router}"));
        ip(&format!("-n {router} link add far type veth peer name eth0 netns {far}"));
        for (namespace, link, v4, v6) in [
            (&node, "uplink", "10.203.0.1/24", "fd01:203::1/64"),
            (&router, "node", "10.203.0.2/24", "fd01:203::2/64"),
            (&router, "far", "10.202.0.1/24", "fd01:202::1/64"),
            (&far, "eth0", "10.202.0.2/24", "fd01:202::2/64"),
        ] {
            ip(&format!("-n {namespace} link set {link} up"));
            ip(&format!("-n {namespace} address add {v4} dev {link}"));
            ip(&format!("-n {namespace} address add {v6} dev {link} nodad"));
        }
        ip(&format!("-n {router} link set far mtu {NARROW}"));
        for (namespace, v4, v6) in [
            (&node, "10.203.0.2", "fd01:203::2"),
            (&router, "10.203.0.1", "fd01:203::1"),
            (&far, "10.202.0.1", "fd01:202::1"),
        ] {
            ip(&format!("-n {namespace} route add default via {v4}"));
            ip(&format!("-n {namespace} route add default via {v6}"));
        }
        beyond
    }

    /// A server that counts what it gets, and says how much once the client has sent all.
    fn count(&self, family: usize, port: u16) {
        let listener = self.0.inside("far", || TcpListener::bind((FAR[family], port)).unwrap());
        thread::spawn(move || {
            for mut stream in listener.incoming().filter_map(Result::ok) {
                let got = io::copy(&mut stream, &mut io::sink()).unwrap_or(0);
                let _ = stream.write_all(&got.to_be_bytes());
            }
        });
    }

    /// Sends `BYTES` in packets as large as the sender believes the path takes.
    fn send(&self, family: usize, patience: Duration) -> io::Result<u64> {
        let mut stream = self.0.connect("client", FAR[family], PORT)?;
        stream.set_write_timeout(Some(patience))?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(&vec![7; BYTES])?;
        stream.shutdown(Shutdown::Write)?;
        let mut got = [0; 8];
        stream.read_exact(&mut got)?;
        Ok(u64::from_be_bytes(got))
    }

    /// Whether the client's namespace has learned the narrow link's MTU.
    fn learned(&self, family: usize) -> bool {
        let client = self.0.name("client");
        let asked = Command::new("ip").args(["-n", &client, "route", "get", FAR[family]]).output().unwrap();
        String::from_utf8_lossy(&asked.stdout).contains(&format!("mtu {NARROW}"))
    }

    fn forget(&self) {
        let client = self.0.name("client");
        ip(&format!("-n {client} route flush cache"));
        ip(&format!("-n {client} -6 route flush cache"));
    }
}

impl Drop for Beyond<'_> {
    fn drop(&mut self) {
        for of in ["router", "far"] {
            let _ = Command::new("ip").args(["netns", "delete", &self.0.name(of)]).output();
        }
    }
}

/// The client may open one port of the far server, and nothing else either way.
fn one_port_out() -> Cluster {
    let mut enforced = cluster("enforce");
    let far =
        FAR.map(|address| Peer::Block { cidr: address.parse::<std::net::IpAddr>().unwrap().into(), except: vec![] });
    let port = Port { protocol: Protocol::Tcp, port: PortMatch::Range(PORT, PORT) };
    enforced.policies = PolicySet {
        policies: vec![NetworkPolicy {
            namespace: "shop".into(),
            name: "client".into(),
            labels: Labels::new(),
            annotations: Labels::new(),
            pod_selector: Selector::of([("app".into(), "client".into())].into()),
            ingress: Some(vec![]),
            egress: Some(vec![Rule { peers: far.to_vec(), ports: vec![port], source: None }]),
            source: None,
        }],
    };
    enforced
}

#[test]
fn path_mtu_discovery_works_through_an_enforcing_pod() {
    kernel_or_skip!();
    let (world, log) = (World::new(), tempfile::tempdir().unwrap());
    let beyond = Beyond::new(&world);
    for family in [0, 1] {
        beyond.count(family, PORT);
        beyond.count(family, OTHER);
    }
    // The way is as narrow as it is meant to be, without podfence too.
    for family in [0, 1] {
        assert!(!beyond.learned(family));
        drop(world.connect("client", FAR[family], OTHER).unwrap());
        assert_eq!(beyond.send(family, Duration::from_secs(20)).unwrap(), BYTES as u64);
        assert!(beyond.learned(family), "the sender was told by the router");
    }
    beyond.forget();

    let agent = start(&world, log.path());
    agent.update(&one_port_out()).unwrap();
    for family in [0, 1] {
        assert!(!beyond.learned(family), "told anew below");
        world
            .connect_within("client", FAR[family], OTHER, Duration::from_millis(500))
            .expect_err("the pod is isolated: what no rule allows is closed");
        assert_eq!(beyond.send(family, Duration::from_secs(20)).unwrap(), BYTES as u64);
        assert!(beyond.learned(family), "the router's error reached the pod");
    }
    let counters = agent.status().unwrap().counters;
    assert!(counters.packets(Reason::RelatedIcmpError) >= 2, "{:?}", counters.verdicts);
    agent.stop().unwrap();
}
