//! What a rule says, and how many there are.

use crate::{
    class::{Class, Ends},
    cluster::{self, NAMESPACE, OPEN, SHUT, anything, at, block, ingress, set},
    error::{Error, Stop},
    range::Who::{self, Attacker, Client, Server},
    trial::{BY_POLICY, Purpose, Seen, Trial, Volley},
};
use lab::Family;
use model::{
    cluster::{Cluster, Mode},
    policy::{Peer, PolicySet, Port, PortMatch, Protocol, Rule},
    yaml::read_policies,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const CLASSES: &[Class] = &[
    Class::new(
        ("blocks-not-canonical", 3, "aws-network-policy-agent 9fdad23"),
        "Two blocks that are one network, written differently: the second takes the first one's place.",
        "canonical-blocks",
        blocks_not_canonical,
    ),
    Class::new(
        ("table-too-large", 5, "aws-network-policy-agent 8f36492"),
        "A policy that does not fit is told as applied, or takes the one before it away.",
        "preflight",
        table_too_large,
    )
    .ends(Ends::SERVER),
    Class::new(
        ("narrower-blocks", 15, "CVE-2024-47825"),
        "A narrower block in a tree of blocks and exceptions opens what an exception took away.",
        "blocks",
        narrower_blocks,
    ),
    Class::new(
        ("port-ranges", 16, "CVE-2024-52529"),
        "Ports just outside of ranges that begin or end at the edge, or overlap.",
        "port-classes",
        port_ranges,
    ),
    Class::new(
        ("empty-missing-null", 17, "CVE-2025-64715"),
        "Fields that are empty, missing or null change their meaning on the way from YAML or JSON.",
        "reading",
        empty_missing_null,
    ),
    Class::new(
        ("seventy-thousand-rules", 20, "CVE-2026-25804"),
        "So many rules that an index overflows and one rule stands for another.",
        "rule-numbers",
        seventy_thousand_rules,
    ),
    Class::new(
        ("generated-pivot", 25, "CVE-2026-32737"),
        "A generated policy permits a way that nobody took.",
        "generated",
        generated_pivot,
    ),
];

fn from(t: &Trial<'_>, who: Who, source_port: u16, port: u16) -> Volley {
    Volley::new(who, Server, [t.udp(who, Server, source_port, port)])
}

fn host(ip: IpAddr) -> String {
    format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })
}

fn read(text: &str) -> Result<PolicySet, Stop> {
    read_policies("selftest", text)
        .map_err(|why| Error::range(format!("a policy of the class was not read: {why}")).into())
}

/// A policy for the server, as a person writes it.
fn written(spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{namespace: {NAMESPACE}, name: server}}\n\
         spec:\n  podSelector: {{matchLabels: {{app: server}}}}\n{spec}"
    )
}

fn blocks_not_canonical(t: &mut Trial<'_>) -> Result<(), Stop> {
    let (wide, same) = match t.family {
        Family::V4 => ("10.161.0.0/8", "10.0.0.0/8"),
        Family::V6 => ("fd03:161::/16", "fd03::/16"),
    };
    let except = host(Attacker.address(t.family));
    let rules = |first: &str, second: &str| {
        written(&format!(
            "  ingress:\n  - from: [{{ipBlock: {{cidr: '{first}'}}}}]\n    ports: [{{protocol: UDP, port: {OPEN}}}]\n  \
             - from: [{{ipBlock: {{cidr: '{second}', except: ['{except}']}}}}]\n    ports: [{{protocol: UDP, port: {SHUT}}}]\n"
        ))
    };
    for (index, (first, second)) in [(wide, same), (same, wide)].into_iter().enumerate() {
        let port = 5100 + 10 * u16::try_from(index).unwrap_or_default();
        t.enforce(read(&rules(first, second))?)?;
        t.control("the port of the first", from(t, Attacker, port, OPEN))?;
        t.control("the port of the second, from who is not excepted", from(t, Client, port + 1, SHUT))?;
        t.attack("the port of the second, from who is", BY_POLICY, from(t, Attacker, port + 2, SHUT))?;
    }
    // The exception is written as an address behind the attacker's: where host bits count, it begins too late. A rule for
    // the attacker alone gives it a class of its own, which is worked out before that.
    let hole = if t.family == Family::V4 { "10.203.0.99/24" } else { "fd03:203::99/64" };
    let alone = format!("from: [{{podSelector: {{matchLabels: {{app: attacker}}}}}}], ports: [{{port: {OPEN}}}]");
    let excepted = |except: &str| {
        let block = format!("from: [{{ipBlock: {{cidr: '{wide}', except: [{except}]}}}}]");
        written(&format!("  ingress: [{{{block}, ports: [{{protocol: UDP, port: {SHUT}}}]}}, {{{alone}}}]\n"))
    };
    t.enforce(read(&excepted(""))?)?;
    t.control("without the exception", from(t, Attacker, 5118, SHUT))?;
    t.enforce(read(&excepted(&format!("'{hole}'")))?)?;
    t.attack("from who is in an exception with host bits", BY_POLICY, from(t, Attacker, 5119, SHUT))
}

fn table_too_large(t: &mut Trial<'_>) -> Result<(), Stop> {
    t.enforce(t.open())?;
    t.control("where policy allows it", from(t, Attacker, 5121, OPEN))?;
    t.enforce(t.closed())?;
    // Every port by itself, from many networks: more keys than any table of the program holds.
    let peers: Vec<Peer> = (0..8).map(|net| block(&format!("100.{}.0.0/16", 64 + net), &[])).collect();
    let rule = |port| Rule {
        peers: peers.clone(),
        ports: vec![Port { protocol: Protocol::Udp, port: PortMatch::Range(port, port) }],
        source: None,
    };
    let mut rules: Vec<Rule> = (1..=u16::MAX).map(rule).collect();
    rules.push(anything(Vec::new()));
    let large = Cluster { policies: set(vec![ingress(Server, rules)]), ..cluster::cluster(Mode::Enforce) };
    let told = if t.agent()?.update(&large).is_ok() { Seen::There } else { Seen::NotThere };
    t.look(Purpose::Attack, "500,000 keys that do not fit, told as applied", told);
    t.attack("after what would open it did not fit", BY_POLICY, from(t, Attacker, 5122, OPEN))?;
    t.control("from who was let in before", from(t, Client, 5123, OPEN))?;
    t.enforce(t.open())?;
    t.control("after one that fits", from(t, Attacker, 5124, OPEN))
}

fn narrower_blocks(t: &mut Trial<'_>) -> Result<(), Stop> {
    let (wide, middle, narrow) = match t.family {
        Family::V4 => ("10.0.0.0/8", "10.203.0.0/24", "10.203.0.16/28"),
        Family::V6 => ("fd03::/16", "fd03:203::/64", "fd03:203::20/123"),
    };
    let attacker = host(Attacker.address(t.family));
    let policies = |except: &[&str]| {
        let wide = at(vec![block(wide, &[middle])], OPEN, OPEN);
        let narrow = at(vec![block(narrow, except)], OPEN, OPEN);
        let middle = at(vec![block(middle, &[narrow_of(t.family)])], SHUT, SHUT);
        set(vec![ingress(Server, vec![wide, middle, narrow])])
    };
    let (open, closed) = (policies(&[]), policies(&[&attacker]));
    t.enforce(open)?;
    t.control("in the narrow block", from(t, Attacker, 5131, OPEN))?;
    t.control("in the middle one, outside of the narrow one", from(t, Client, 5132, SHUT))?;
    t.attack("in the narrow one, at the middle one's port", BY_POLICY, from(t, Attacker, 5133, SHUT))?;
    t.attack("in the middle one, at the wide one's port", BY_POLICY, from(t, Client, 5134, OPEN))?;
    t.enforce(closed)?;
    t.attack("excepted from the narrow one", BY_POLICY, from(t, Attacker, 5135, OPEN))?;
    t.attack("excepted from the narrow one, on the standing flow", BY_POLICY, from(t, Attacker, 5131, OPEN))
}

/// The narrow block: it holds the attacker (.30) and not the client (.10).
const fn narrow_of(family: Family) -> &'static str {
    match family {
        Family::V4 => "10.203.0.16/28",
        Family::V6 => "fd03:203::20/123",
    }
}

fn port_ranges(t: &mut Trial<'_>) -> Result<(), Stop> {
    let peer = || vec![cluster::one(Attacker)];
    let ranges = [(1, 1), (8080, 8090), (8085, 9000), (65_535, 65_535)];
    let rules = ranges.map(|(first, last)| at(peer(), first, last)).to_vec();
    let to = |t: &Trial<'_>, ports: &[u16]| {
        Volley::new(Attacker, Server, ports.iter().map(|port| t.udp(Attacker, Server, 5140, *port)).collect::<Vec<_>>())
    };
    t.enforce(set(vec![ingress(Server, rules)]))?;
    t.control("inside of the ranges", to(t, &[1, 8080, 8084, 8085, 8090, 8091, 9000, 65_535]))?;
    let outside = [0, 2, 3, 8079, 9001, 9002, 32_768, 65_534];
    t.attack("just outside of them", BY_POLICY, to(t, &outside))?;
    t.enforce(set(vec![ingress(Server, vec![at(peer(), 1, 65_535)])]))?;
    t.control("outside of them, once every port is open", to(t, &outside[1..]))
}

fn empty_missing_null(t: &mut Trial<'_>) -> Result<(), Stop> {
    let closed = [
        "",
        "  ingress: []\n",
        "  ingress: null\n",
        "  ingress:\n",
        "  policyTypes: [Ingress]\n",
        "  policyTypes: []\n",
        "  policyTypes: null\n  egress: []\n",
        "  policyTypes: [Ingress, Egress]\n  egress: [{}]\n",
        "  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: []}]\n",
        "  ingress: [{from: [{podSelector: {}, namespaceSelector: {matchLabels: {no: such}}}]}]\n",
        "  ingress: [{ports: [{protocol: TCP}]}]\n",
        "  ingress: [{ports: [{port: 8080}]}]\n",
    ];
    let open = [
        "  ingress: [{}]\n",
        "  ingress: [{from: [], ports: []}]\n",
        "  ingress: [{from: null, ports: null}]\n",
        "  ingress: [{from: [{podSelector: {}}]}]\n",
        "  ingress: [{from: [{namespaceSelector: {}}]}]\n",
        "  policyTypes: [Egress]\n  egress: [{}]\n",
        "  ingress: [{ports: [{protocol: UDP}]}]\n",
    ];
    let mut port = 5150;
    for spec in open {
        port += 1;
        t.enforce(read(&written(spec))?)?;
        t.control(&format!("open: {}", spec.trim()), from(t, Attacker, port, OPEN))?;
    }
    for spec in closed {
        port += 1;
        t.enforce(read(&written(spec))?)?;
        t.attack(&format!("closed: {}", spec.trim()), BY_POLICY, from(t, Attacker, port, OPEN))?;
    }
    let json = |ingress: &str| {
        format!(
            r#"{{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {{"namespace": "{NAMESPACE}", "name": "server"}},
                "spec": {{"podSelector": {{"matchLabels": {{"app": "server"}}}}, "ingress": {ingress}}}}}"#
        )
    };
    t.enforce(read(&json(r#"[{"from": null}]"#))?)?;
    t.control("open, as JSON", from(t, Attacker, port + 1, OPEN))?;
    t.enforce(read(&json("null"))?)?;
    t.attack("closed, as JSON", BY_POLICY, from(t, Attacker, port + 2, OPEN))
}

/// More than a 16-bit index counts.
const MANY: u32 = 70_000;
/// A rule beyond that, whose number is the sixth one's modulo 65,536.
const BEYOND: u32 = 65_536 + 5;

fn seventy_thousand_rules(t: &mut Trial<'_>) -> Result<(), Stop> {
    let family = t.family;
    let peer = |index: u32| -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::from(0xc612_0000 + index).into(),
            Family::V6 => Ipv6Addr::from((0x2001_0db8_0099_u128 << 80) + u128::from(index)).into(),
        }
    };
    let rule = |index: u32| {
        // The sixth rule opens the closed port to somebody else; the one beyond, the open port to the attacker.
        let (who, port) = match index {
            5 => (peer(index), SHUT),
            BEYOND => (Attacker.address(family), OPEN),
            _ => (peer(index), OPEN),
        };
        let port = Port { protocol: Protocol::Udp, port: PortMatch::Range(port, port) };
        Rule { peers: vec![block(&host(who), &[])], ports: vec![port], source: None }
    };
    t.enforce(set(vec![ingress(Server, (0..MANY).map(rule).collect())]))?;
    t.control("what the rule beyond opens", from(t, Attacker, 5201, OPEN))?;
    t.attack("what its namesake opens to somebody else", BY_POLICY, from(t, Attacker, 5202, SHUT))?;
    t.attack("what it opens, from who is in no rule", BY_POLICY, from(t, Client, 5203, OPEN))
}

fn generated_pivot(t: &mut Trial<'_>) -> Result<(), Stop> {
    let cluster = cluster::cluster(Mode::Learn);
    t.serve(Server, OPEN)?;
    t.apply(&cluster)?;
    let to = std::net::SocketAddr::new(Server.address(t.family), OPEN);
    let stream = t.connect(Client, to, std::time::Duration::from_secs(4))?;
    let mut stream = stream.map_err(|why| Error::range(format!("nobody could be observed: {why}")))?;
    t.say(crate::Purpose::Control, "what was observed", &[], (Client, Server), |bytes| {
        std::io::Write::write_all(&mut stream, bytes)
    })?;
    drop(stream);
    t.agent()?.flush()?;
    let ledger = t.agent()?.ledger()?;
    let options = generator::Options { nodes: Some(generator::Nodes::Deny), ..generator::Options::default() };
    let generated = generator::synthesize(&ledger, &cluster, &options)
        .map_err(|why| Error::range(format!("no policies were generated: {why}")))?;
    t.enforce(generated.policies)?;
    let syn = |t: &Trial<'_>, from, to, port| Volley::new(from, to, [t.tcp(from, to, port, OPEN, flow::tcp::SYN)]);
    t.control("the observed way", syn(t, Client, Server, 5211))?;
    t.attack("the same server from somebody else", BY_POLICY, syn(t, Attacker, Server, 5212))?;
    t.attack("the other way round", BY_POLICY, syn(t, Server, Client, 5213))?;
    t.attack("a pivot behind the client", BY_POLICY, syn(t, Attacker, Client, 5214))
}
