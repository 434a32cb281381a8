//! Two policies that disagree, over labels that change.

use model::cluster::Cluster;
use tests::questions::read;

pub(crate) const NODE: &str = "n1";
pub(crate) const POD_UID: &str = "uid-server";
pub(crate) const POD: [&str; 2] = ["10.206.0.2", "fd00:206::2"];
pub(crate) const GATEWAY: [&str; 2] = ["10.206.255.1", "fd00:206::ffff"];
/// Peers: one that is always of side `a`, one of side `b`, two that change, one outside.
pub(crate) const PEERS: [[&str; 2]; 5] = [
    ["10.206.1.1", "fd00:206:1::1"],
    ["10.206.1.2", "fd00:206:1::2"],
    ["10.206.1.3", "fd00:206:1::3"],
    ["10.206.1.4", "fd00:206:1::4"],
    ["198.51.100.9", "2001:db8::9"],
];
pub(crate) const PORTS: [u16; 5] = [8080, 8081, 9000, 9001, 53];

/// Labels of the two peers that change, in turn. Any two of these differ.
const SIDES: [[&str; 2]; 3] = [["a", "b"], ["b", "a"], ["a", "a"]];

/// What a turn puts in force: of two policies the one, over one of three sets of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Meaning {
    pub(crate) policy: usize,
    pub(crate) labels: usize,
}

impl Meaning {
    pub(crate) fn of(turn: usize) -> Self {
        Self { policy: turn % 2, labels: turn % SIDES.len() }
    }

    /// The policy of this turn over the labels of the next.
    pub(crate) fn changing(turn: usize) -> Self {
        Self { labels: Self::of(turn + 1).labels, ..Self::of(turn) }
    }
}

/// Turns until all have been there.
pub(crate) const ALL_TURNS: usize = 2 * SIDES.len();

/// The cluster of a turn, with the policy in force.
pub(crate) fn cluster(turn: usize) -> Cluster {
    let Meaning { policy: in_force, labels } = Meaning::of(turn);
    let pod = |name: &str, node: &str, labels: String, ips: [&str; 2]| {
        format!(
            r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}", "namespace": "shop", "uid": "uid-{name}",
                "labels": {{{labels}}}}}, "spec": {{"nodeName": "{node}", "containers": []}},
                "status": {{"phase": "Running", "podIPs": [{{"ip": "{}"}}, {{"ip": "{}"}}]}}}}"#,
            ips[0], ips[1]
        )
    };
    let side = |side: &str| format!(r#""side": "{side}""#);
    let node = |name: &str, ip: &str| {
        format!(
            r#"{{"apiVersion": "v1", "kind": "Node", "metadata": {{"name": "{name}"}},
                "status": {{"addresses": [{{"type": "InternalIP", "address": "{ip}"}}]}}}}"#
        )
    };
    let objects = [
        r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}"#.to_owned(),
        node(NODE, GATEWAY[0]),
        node("n2", "10.206.255.2"),
        pod("server", NODE, r#""app": "server""#.to_owned(), POD),
        pod("always-a", "n2", side("a"), PEERS[0]),
        pod("always-b", "n2", side("b"), PEERS[1]),
        pod("first", "n2", side(SIDES[labels][0]), PEERS[2]),
        pod("second", "n2", side(SIDES[labels][1]), PEERS[3]),
        policy(["a", "b"][in_force], turn),
    ];
    read(&objects.map(|object| format!("---\n{object}\n")).concat())
}

/// Port numbers, peers, blocks and the order of rules differ between the two. The last rule of each direction
/// speaks of a label value that is new every third turn, which changes what is told apart, and so every
/// identity's number.
fn policy(side: &str, turn: usize) -> String {
    let (web, dns, all) = if side == "a" { (8080, "UDP", 9000) } else { (8081, "TCP", 9001) };
    let block = if side == "a" { "198.51.100.0/24" } else { "2001:db8::/32" };
    let fresh = format!(
        r#"{{"podSelector": {{"matchExpressions": [{{"key": "turn", "operator": "NotIn", "values": ["t{}"]}}]}}}}"#,
        turn / 3
    );
    let of_side = format!(r#"{{"podSelector": {{"matchLabels": {{"side": "{side}"}}}}}}"#);
    let rules = |peers: &str| {
        let mut rules = [
            format!(r#"{{"{peers}": [{of_side}], "ports": [{{"port": {web}}}]}}"#),
            format!(
                r#"{{"{peers}": [{{"ipBlock": {{"cidr": "{block}"}}}}], "ports": [{{"port": 53, "protocol": "{dns}"}}]}}"#
            ),
            format!(r#"{{"{peers}": [{fresh}], "ports": [{{"port": {all}}}]}}"#),
        ];
        if side == "b" {
            rules.reverse();
        }
        rules.join(", ")
    };
    format!(
        r#"{{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {{"name": "policy-{side}",
            "namespace": "shop"}}, "spec": {{"podSelector": {{"matchLabels": {{"app": "server"}}}},
            "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]}}}}"#,
        rules("from"),
        rules("to")
    )
}
