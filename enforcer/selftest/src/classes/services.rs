//! Services: what the node translates, as kube-proxy writes it.

use crate::{
    class::{Class, Ends},
    cluster::{self, NAMESPACE, OPEN, anything, egress, ingress, labels, one, set},
    error::{Error, Stop},
    frame::Frame,
    range::{
        Nft,
        Who::{self, Attacker, Client, Node, Outside, Server},
        address,
    },
    trial::{BY_POLICY, Purpose, Trial, Volley},
};
use flow::Address;
use lab::Family;
use model::{
    cluster::{Cluster, EndpointSlice, Mode, Service, ServicePort, SlicePort, TargetPort},
    policy::{PolicySet, Protocol},
};
use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use verdict::Reason;

/// Why a class that needs translation cannot be tried.
pub(crate) const NO_NFT: &str = "the program nft is not there; install nftables";

pub(crate) const CLASSES: &[Class] = &[
    Class::new(
        ("service-on-the-same-node", 19, "CVE-2026-33726, CVE-2025-30162"),
        "A pod reaches a closed one through a Service whose backends are on its own node.",
        "services",
        same_node,
    )
    .ends(Ends::ALL),
    Class::new(
        ("masqueraded-node-port", 32, "thought of here"),
        "A pod reaches a closed one through a node's port, and arrives with the node's address.",
        "own-node",
        node_port,
    )
    .ends(Ends::ALL),
    Class::new(
        ("mixed-service", 33, "thought of here"),
        "A Service without a selector mixes an allowed pod with an address outside.",
        "mixed-backends",
        mixed_service,
    )
    .ends(Ends::CLIENT),
    Class::new(
        ("refused-backend", 33, "thought of here"),
        "A Service of pods of one node, of which policy allows one, leads to the other.",
        "client-asked-again",
        refused_backend,
    ),
];

/// The Service's address and ports.
const SERVICE_PORT: u16 = 80;
const NODE_PORT: u16 = 30_080;

fn service_address(family: Family) -> IpAddr {
    address(if family == Family::V4 { "10.203.96.10" } else { "fd03:203:0:96::10" })
}

/// A Service with these backends, or with the pods labelled `app: server`.
fn with_service(policies: PolicySet, backends: Option<&[Who]>) -> Cluster {
    let mut cluster = Cluster { policies, ..cluster::cluster(Mode::Enforce) };
    let name = (NAMESPACE.to_owned(), "service".to_owned());
    let port = ServicePort {
        name: String::new(),
        port: SERVICE_PORT,
        protocol: Protocol::Udp,
        target: TargetPort::Number(OPEN),
        node_port: Some(NODE_PORT),
    };
    let service = Service {
        selector: if backends.is_none() { labels(&[("app", "server")]) } else { labels(&[]) },
        cluster_ips: Family::BOTH.map(service_address).to_vec(),
        ports: vec![port],
        ..Service::default()
    };
    cluster.services.insert(name.clone(), service);
    for family in backends.iter().flat_map(|_| Family::BOTH) {
        let slice = EndpointSlice {
            service: Some("service".into()),
            addresses: backends.unwrap_or_default().iter().map(|who| who.address(family)).collect(),
            ports: vec![SlicePort { name: String::new(), protocol: Protocol::Udp, port: Some(OPEN) }],
            source: None,
        };
        cluster.endpoint_slices.insert((NAMESPACE.to_owned(), format!("service-{family:?}")), slice);
    }
    cluster
}

/// Translation to one backend, as kube-proxy does it: a node's port is masqueraded, and so is a hairpin.
fn translate(t: &mut Trial<'_>, backend: Who) -> Result<(), Stop> {
    t.touched = true;
    let (ip, service, node) =
        (if t.family == Family::V4 { "ip" } else { "ip6" }, service_address(t.family), Node.address(t.family));
    let to = SocketAddr::new(backend.address(t.family), OPEN);
    let (at, pod) = (to.ip(), to);
    let rules = format!(
        "table {ip} selftest\ndelete table {ip} selftest\ntable {ip} selftest {{
            chain prerouting {{
                type nat hook prerouting priority -100;
                {ip} daddr {service} udp dport {SERVICE_PORT} dnat to {pod}
                {ip} daddr {node} udp dport {NODE_PORT} meta mark set 0x4000 dnat to {pod}
            }}
            chain postrouting {{
                type nat hook postrouting priority 100;
                meta mark 0x4000 masquerade
                {ip} saddr {at} {ip} daddr {at} masquerade
            }}
        }}\n"
    );
    match t.range.nft(&rules)? {
        Nft::Loaded => Ok(()),
        Nft::Missing => Err(Stop::NotRun(NO_NFT.into())),
    }
}

/// A datagram from the attacker to an address that is no pod's.
fn to(t: &Trial<'_>, address: IpAddr, source_port: u16, port: u16) -> Frame {
    Frame { destination: Address::from(address), ..t.udp(Attacker, Server, source_port, port) }
}

fn same_node(t: &mut Trial<'_>) -> Result<(), Stop> {
    translate(t, Server)?;
    let service = service_address(t.family);
    let volley = |t: &Trial<'_>, port| Volley::new(Attacker, Server, [to(t, service, port, SERVICE_PORT)]);
    t.apply(&with_service(t.open(), None))?;
    t.control("where policy allows it", volley(t, 5601))?;
    t.apply(&with_service(t.closed(), None))?;
    t.attack("through the Service", BY_POLICY, volley(t, 5602))?;
    t.attack("through the Service, on the standing flow", BY_POLICY, volley(t, 5601))?;
    // The server is a backend of its own Service.
    let socket = t.socket(Server, 5603)?;
    t.say(Purpose::Kept, "the server through its own Service", &[], (Server, Server), |bytes| {
        socket.send_to(bytes, (service, SERVICE_PORT)).map(drop)
    })
}

fn node_port(t: &mut Trial<'_>) -> Result<(), Stop> {
    translate(t, Server)?;
    t.serve(Server, OPEN)?;
    let node = Node.address(t.family);
    let volley = |t: &Trial<'_>, port| Volley::new(Attacker, Server, [to(t, node, port, NODE_PORT)]);
    // Masqueraded, it comes from the node's address: a rule that names the attacker does not match it.
    let everyone = t.gates(vec![anything(Vec::new())], vec![anything(vec![one(Client), one(Server)])]);
    t.apply(&with_service(everyone, None))?;
    t.control("where policy allows everyone", volley(t, 5611))?;
    t.apply(&with_service(t.closed(), None))?;
    t.attack("through the node's port", BY_POLICY, volley(t, 5612))?;
    let server = SocketAddr::new(Server.address(t.family), OPEN);
    let refused = |why| Error::range(format!("the node's probe of {server} found nobody: {why}"));
    let mut probe = t.connect(Node, server, Duration::from_secs(4))?.map_err(refused)?;
    t.say(Purpose::Kept, "the node's own probe", &[], (Node, Server), |bytes| probe.write_all(bytes))
}

fn mixed_service(t: &mut Trial<'_>) -> Result<(), Stop> {
    let service = service_address(t.family);
    let volley = |t: &Trial<'_>, far, port| Volley::new(Attacker, far, [to(t, service, port, SERVICE_PORT)]);
    let only_client = || set(vec![egress(Attacker, vec![anything(vec![one(Client)])])]);
    let ends = |t: &Trial<'_>, mut policies: PolicySet| {
        if t.ends == Ends::Both {
            policies.policies.push(ingress(Client, vec![anything(vec![one(Attacker)])]));
        }
        set(policies.policies)
    };
    translate(t, Client)?;
    t.apply(&with_service(ends(t, only_client()), Some(&[Client])))?;
    t.control("to a Service of allowed pods", volley(t, Client, 5621))?;
    translate(t, Outside)?;
    t.apply(&with_service(ends(t, set(vec![egress(Attacker, vec![anything(Vec::new())])])), Some(&[Client, Outside])))?;
    t.control("to a mixed one, where policy allows everything", volley(t, Outside, 5622))?;
    t.apply(&with_service(ends(t, only_client()), Some(&[Client, Outside])))?;
    let by = [BY_POLICY, &[Reason::ServiceMixed]].concat();
    t.attack("to a mixed one", &by, volley(t, Outside, 5623))
}

fn refused_backend(t: &mut Trial<'_>) -> Result<(), Stop> {
    let service = service_address(t.family);
    let volley = |t: &Trial<'_>, far, port| Volley::new(Attacker, far, [to(t, service, port, SERVICE_PORT)]);
    let only = |peers| set(vec![egress(Attacker, vec![anything(peers)])]);
    let behind = Some(&[Client, Server][..]);
    translate(t, Server)?;
    t.apply(&with_service(only(Vec::new()), behind))?;
    t.control("to either backend, where policy allows both", volley(t, Server, 5631))?;
    t.apply(&with_service(only(vec![one(Client)]), behind))?;
    let by = [Reason::RefusedByClient, Reason::Revoked, Reason::StandingDenial];
    t.attack("to the backend that is refused", &by, volley(t, Server, 5632))?;
    t.attack("to the backend that is refused, on the standing flow", &by, volley(t, Server, 5631))?;
    translate(t, Client)?;
    t.control("to the backend that is allowed", volley(t, Client, 5633))
}
