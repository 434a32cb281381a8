//! Whose address a packet carries.

use crate::{
    class::{Class, Ends, V4, V6},
    cluster::{self, NODE, OPEN, SHUT, anything, at, ingress, labels, one, pod_of, set},
    error::{Error, Stop},
    frame::{self, Frame},
    post::inside,
    range::{
        self,
        Who::{self, Attacker, Client, Node, Outside, Server},
    },
    trial::{BY_POLICY, Purpose, Shape, Trial, Volley},
};
use datapath::UnknownPod;
use flow::{Address, ICMPV6};
use lab::Family;
use model::cluster::{Cluster, Mode};
use std::net::UdpSocket;
use verdict::Reason;

pub(crate) const CLASSES: &[Class] = &[
    Class::new(
        ("forged-source", 1, "aws-network-policy-agent 8147f19"),
        "A pod sends from an allowed pod's address, or opens an entry in another's name that a third then uses.",
        "own-address",
        forged_source,
    ),
    Class::new(
        ("taken-for-the-node", 11, "CVE-2023-27594"),
        "A host outside, with its own address or with the node's, is taken for the node, which policy lets in.",
        "own-node",
        taken_for_the_node,
    )
    .ends(Ends::SERVER),
    Class::new(
        ("nodes-labels-and-address", 18, "CVE-2025-30163"),
        "A pod carries its node's labels, forges its node's address, or has it in its status.",
        "own-node",
        nodes_labels_and_address,
    )
    .ends(Ends::SERVER),
    Class::new(
        ("router-messages", 22, "CVE-2020-13597"),
        "A pod sends router advertisements and redirects to its neighbours.",
        "neighbour-messages",
        router_messages,
    )
    .bridged()
    .only(V6),
    Class::new(
        ("dhcp-answers", 22, "CVE-2020-13597"),
        "A pod answers its neighbours as a DHCP server.",
        "dhcp-answers",
        dhcp_answers,
    )
    .bridged()
    .only(V4),
    Class::new(
        ("two-claim-one-address", 23, "CVE-2022-28224"),
        "A second pod claims, in its status and on its interface, the address of one that has it already.",
        "unknown-pod",
        two_claim_one_address,
    ),
    Class::new(
        ("another-pods-address", 34, "thought of here"),
        "A pod gives its interface another pod's address and speaks from it.",
        "own-address",
        another_pods_address,
    ),
    Class::new(
        ("neighbour-forgery", 34, "thought of here"),
        "A pod tells its neighbours, by ARP or neighbour discovery, that another pod's address is its own.",
        "neighbour-messages",
        neighbour_forgery,
    )
    .bridged(),
];

fn forged_source(t: &mut Trial<'_>) -> Result<(), Stop> {
    let policies = || set(vec![ingress(Server, vec![at(vec![one(Client)], OPEN, OPEN)])]);
    t.learn(policies())?;
    t.control("in learn, from the allowed pod's address", forged(t, OPEN))?;
    t.enforce(policies())?;
    t.control("from the allowed pod itself", Volley::new(Client, Server, [t.udp(Client, Server, 4000, OPEN)]))?;
    t.attack("from the allowed pod's address", &[Reason::Spoofed], forged(t, OPEN))?;

    // An opening in the server's name must leave nothing that lets its peer in.
    t.prepare(Volley::new(Attacker, Client, [t.udp(Server, Client, SHUT, 4001)]))?;
    let answer = |port| [t.udp(Client, Server, port, SHUT)];
    let (first, second) = (Volley::new(Client, Server, answer(4001)), Volley::new(Client, Server, answer(4002)));
    t.attack("the answer to an opening that was forged", BY_POLICY, first)?;
    t.prepare(Volley::new(Server, Client, [t.udp(Server, Client, SHUT, 4002)]))?;
    t.control("the answer to one that was not", second)
}

fn forged(t: &Trial<'_>, port: u16) -> Volley {
    Volley::new(Attacker, Server, [t.udp(Client, Server, 4000, port)])
}

fn another_pods_address(t: &mut Trial<'_>) -> Result<(), Stop> {
    let policies = || set(vec![ingress(Server, vec![at(vec![one(Client)], OPEN, OPEN)])]);
    let address = Client.address(t.family);
    let (prefix, nodad) = if address.is_ipv4() { (32, "") } else { (128, " nodad") };
    t.touched = true;
    t.range.ip(Attacker, &format!("address add {address}/{prefix} dev eth0{nodad}\n"))?;
    t.learn(policies())?;
    let socket = inside(&t.range.path(Attacker), || {
        UdpSocket::bind((address, 4000)).map_err(Error::system(format!("{address} cannot be used")))
    })?;
    let to = (Server.address(t.family), OPEN);
    let say = |bytes: &[u8]| socket.send_to(bytes, to).map(drop);
    t.say(Purpose::Control, "in learn, from a socket of the attacker", &[], (Attacker, Server), say)?;
    // The agent looks at the links again: the address is a proposal, and the pod that has it keeps its own link.
    t.enforce(policies())?;
    t.control("from the pod that has the address", Volley::new(Client, Server, [t.udp(Client, Server, 4000, OPEN)]))?;
    t.say(Purpose::Attack, "from a socket of the attacker", &[Reason::Spoofed], (Attacker, Server), say)
}

fn taken_for_the_node(t: &mut Trial<'_>) -> Result<(), Stop> {
    let mut as_node = t.udp(Outside, Server, 4000, OPEN);
    as_node.source = t.address(Node);
    let own = t.udp(Outside, Server, 4000, OPEN);
    let volley = |frame: &Frame| Volley::new(Outside, Server, [frame.clone()]);
    t.enforce(set(vec![ingress(Server, vec![anything(Vec::new())])]))?;
    t.control("from outside, where everyone may", volley(&own))?;
    t.control("from outside as the node, where everyone may", volley(&as_node))?;
    t.enforce(t.closed())?;
    t.attack("from outside", BY_POLICY, volley(&own))?;
    t.attack("from outside as the node", &[Reason::NoRuleMasqueraded, Reason::Revoked, Reason::StandingDenial], {
        volley(&as_node)
    })?;
    as_node.payload = frame::udp(4001, OPEN, 32);
    t.attack("from outside as the node, anew", &[Reason::NoRuleMasqueraded, Reason::StandingDenial], volley(&as_node))
}

fn nodes_labels_and_address(t: &mut Trial<'_>) -> Result<(), Stop> {
    let mut as_node = t.udp(Attacker, Server, 4000, OPEN);
    as_node.source = t.address(Node);
    let own = t.udp(Attacker, Server, 4000, OPEN);
    let volley = |frame: &Frame| Volley::new(Attacker, Server, [frame.clone()]);
    let cluster = |policies, mode| {
        let mut cluster = Cluster { policies, ..cluster::cluster(mode) };
        let of_node = labels(&[("kubernetes.io/hostname", NODE), ("app", "attacker")]);
        cluster.nodes.values_mut().for_each(|node| node.labels.clone_from(&of_node));
        pod_of(&mut cluster, Attacker).into_iter().for_each(|pod| pod.labels.clone_from(&of_node));
        cluster
    };
    t.apply(&cluster(t.closed(), Mode::Learn))?;
    t.control("in learn, as the node", volley(&as_node))?;
    t.apply(&cluster(t.open(), Mode::Enforce))?;
    t.control("where policy allows it", volley(&own))?;
    t.attack("as the node", &[Reason::Spoofed], volley(&as_node))?;
    let mut claims = cluster(t.closed(), Mode::Enforce);
    t.apply(&claims)?;
    t.attack("with the node's labels", BY_POLICY, volley(&own))?;
    pod_of(&mut claims, Attacker).into_iter().for_each(|pod| pod.addresses.extend(Node.addresses()));
    t.apply(&claims)?;
    let by = [BY_POLICY, &[Reason::Spoofed]].concat();
    t.attack("with the node's address in its status", &by, volley(&as_node))
}

/// The link-local address that an interface gives itself (RFC 4291, appendix A).
fn link_local(mac: [u8; 6]) -> Address {
    let [a, b, c, d, e, f] = mac;
    Address::v6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// An option of neighbour discovery that nobody knows (RFC 4727), with room for a tag.
const UNKNOWN_OPTION: [u8; 24] = [253, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn router_messages(t: &mut Trial<'_>) -> Result<(), Stop> {
    let from = link_local(t.range.sender(Attacker)?.mac());
    let everyone = Address::from(range::address("ff02::1"));
    let message = |kind, rest, body: &[u8]| {
        let payload = frame::icmp(kind, 0, rest, &[body, &UNKNOWN_OPTION].concat());
        let mut frame = Frame::new(from, everyone, ICMPV6, payload);
        frame.hop_limit = 255;
        Volley::new(Attacker, Server, [frame]).at_station([0x33, 0x33, 0, 0, 0, 1])
    };
    let redirect = [t.address(Outside).octets(), t.address(Outside).octets()].concat();
    let advertisement = || message(134, [64, 0, 7, 8], &[0; 8]);
    let redirect = || message(137, [0; 4], &redirect);
    t.learn(set(Vec::new()))?;
    t.control("in learn, an advertisement", advertisement())?;
    t.control("in learn, a redirect", redirect())?;
    t.enforce(set(Vec::new()))?;
    t.attack("a router advertisement", &[Reason::NeighborForged], advertisement())?;
    t.attack("a redirect", &[Reason::NeighborForged], redirect())
}

fn dhcp_answers(t: &mut Trial<'_>) -> Result<(), Stop> {
    let mut answer = t.udp(Attacker, Server, 67, 68);
    answer.destination = Address::v4([255; 4]);
    let volley = || Volley::new(Attacker, Server, [answer.clone()]).at_station([0xff; 6]);
    t.learn(set(Vec::new()))?;
    t.control("in learn, to everyone", volley())?;
    t.enforce(set(Vec::new()))?;
    t.attack("to everyone", &[Reason::DhcpServer], volley())
}

fn two_claim_one_address(t: &mut Trial<'_>) -> Result<(), Stop> {
    let [v4, v6] = Server.addresses();
    t.datapath.unknown_pod = UnknownPod::Deny;
    let own = t.udp(Attacker, Client, 4000, OPEN);
    let as_server = t.udp(Server, Client, 4000, OPEN);
    let volley = |frame: &Frame| Volley::new(Attacker, Client, [frame.clone()]);
    t.learn(set(Vec::new()))?;
    t.control("in learn, with an address of its own", volley(&own))?;
    t.control("in learn, with the other's address", volley(&as_server))?;
    t.agent_leaves()?;
    t.touched = true;
    t.range.ip(Attacker, &format!("address add {v4}/32 dev eth0\naddress add {v6}/128 dev eth0 nodad\n"))?;
    let mut both = cluster::cluster(Mode::Enforce);
    pod_of(&mut both, Attacker).into_iter().for_each(|pod| pod.addresses = Server.addresses().to_vec());
    let update = t.agent()?.update(&both)?;
    let is_covered = |who: Who| update.covered.keys().any(|pod| pod.ends_with(who.name()));
    if !is_covered(Server) || is_covered(Attacker) {
        let what = format!("the second claimant was bound, or the first was not: {:?}", update.covered);
        return Err(Error::range(what).into());
    }
    t.control("from the pod that has it", Volley::new(Server, Client, [as_server.clone()]))?;
    t.attack("from the second claimant", &[Reason::UnknownPod], volley(&as_server))?;
    t.attack("from its other address", &[Reason::UnknownPod], volley(&own))
}

fn neighbour_forgery(t: &mut Trial<'_>) -> Result<(), Stop> {
    let mac = t.range.sender(Attacker)?.mac();
    let claim = |address: Who| -> Shape {
        match t.family {
            Family::V4 => {
                let mut bytes = frame::arp(2, t.address(address), t.address(Client));
                bytes[6..12].copy_from_slice(&mac);
                bytes[22..28].copy_from_slice(&mac);
                bytes.resize(bytes.len() + 18, 0);
                bytes.into()
            }
            Family::V6 => {
                let target = t.address(address).octets();
                let body = [&target[..], &[2, 1], &mac, &UNKNOWN_OPTION].concat();
                let mut frame = t.frame(Attacker, Client, ICMPV6, frame::icmp(136, 0, [0x20, 0, 0, 0], &body));
                frame.hop_limit = 255;
                frame.into()
            }
        }
    };
    let own = Volley::new(Attacker, Client, [claim(Attacker)]);
    let [first, second] = [(), ()].map(|()| Volley::new(Attacker, Client, [claim(Server)]));
    t.learn(set(Vec::new()))?;
    t.control("in learn, another's address", first)?;
    t.enforce(set(Vec::new()))?;
    t.control("its own address", own)?;
    t.attack("another's address", &[Reason::NeighborForged], second)
}
