//! Whom a policy selects, and what is left when labels or policies go.

use crate::{
    class::{Class, Ends},
    cluster::{self, NAMESPACE, OPEN, add_namespace, anything, ingress, labels, one, pod_of, pods, policy, set},
    error::Stop,
    range::Who::{Attacker, Client, Server},
    trial::{BY_POLICY, Purpose, Trial, Volley},
};
use model::{
    cluster::{Cluster, Mode},
    labels::{METADATA_NAME, Selector},
    policy::{NetworkPolicy, Peer, PolicySet},
};
use std::{io::Write as _, net::SocketAddr, time::Duration};

pub(crate) const CLASSES: &[Class] = &[
    Class::new(
        ("colliding-keys", 2, "aws-network-policy-agent d145d20, bc504a4"),
        "Names of policies and namespaces, or keys and values of labels, that read the same when joined.",
        "keys-apart",
        colliding_keys,
    ),
    Class::new(
        ("deleted-beside-others", 6, "aws-network-policy-agent 80d9e98, cilium#33772"),
        "The deletion of one policy empties the other direction, or another workload's.",
        "publish",
        deleted_beside_others,
    ),
    Class::new(
        ("imitated-namespace-labels", 12, "GHSA-pfhr-pccp-hwmh"),
        "A pod's own labels imitate those of a namespace that is let in.",
        "selectors",
        imitated_namespace_labels,
    ),
    Class::new(
        ("label-taken-away", 13, "CVE-2023-39347"),
        "A label that let a pod in is taken from it, and its rights stay behind.",
        "epochs",
        label_taken_away,
    ),
    Class::new(
        ("selector-leaves-its-namespace", 14, "CVE-2023-41333"),
        "A selector without a namespace matches pods of another namespace.",
        "selectors",
        selector_leaves_its_namespace,
    ),
    Class::new(
        ("namespace-ends", 21, "CVE-2024-7598"),
        "A namespace is deleted, its policies go first, and its pods stand open until they are gone.",
        "last-isolation",
        namespace_ends,
    )
    .ends(Ends::ALL),
    Class::new(
        ("revoked-connection", 28, "calico#12353"),
        "A connection that policy no longer allows lives on, or is taken up again.",
        "epochs",
        revoked_connection,
    )
    .ends(Ends::ALL),
];

fn hits(t: &Trial<'_>, port: u16) -> Volley {
    Volley::new(Attacker, Server, [t.udp(Attacker, Server, port, OPEN)])
}

/// A cluster in enforce with these policies, in which the attacker has these labels and lives in this namespace.
fn with_attacker(policies: PolicySet, namespace: &str, pairs: &[(&str, &str)]) -> Cluster {
    let mut cluster = Cluster { policies, ..cluster::cluster(Mode::Enforce) };
    if namespace != NAMESPACE {
        add_namespace(&mut cluster, namespace, Mode::Enforce);
    }
    for pod in pod_of(&mut cluster, Attacker).into_iter() {
        (pod.namespace, pod.labels) = (namespace.to_owned(), labels(pairs));
    }
    cluster
}

fn colliding_keys(t: &mut Trial<'_>) -> Result<(), Stop> {
    // Joined, both read `deny-me-range`, and both pairs `abc`.
    let joined = format!("me-{NAMESPACE}");
    let select = [("app", "server")];
    let only =
        |pair| NetworkPolicy { ingress: Some(vec![anything(vec![pods(&[pair])])]), ..policy("deny-me", &select) };
    let everyone = NetworkPolicy {
        namespace: joined.clone(),
        ingress: Some(vec![anything(Vec::new())]),
        ..policy("deny", &select)
    };
    let cluster = |pair, namespace: &str| {
        let mut cluster =
            with_attacker(set(vec![only(("ab", "c")), everyone.clone()]), namespace, &[("app", "attacker"), pair]);
        add_namespace(&mut cluster, &joined, Mode::Enforce);
        cluster
    };
    t.apply(&cluster(("ab", "c"), NAMESPACE))?;
    t.control("with the label that is let in", hits(t, 5001))?;
    t.apply(&cluster(("a", "bc"), NAMESPACE))?;
    t.attack("with one that reads the same when joined", BY_POLICY, hits(t, 5002))?;
    t.apply(&cluster(("ab", "c"), &joined))?;
    t.attack("from the namespace whose policy reads the same", BY_POLICY, hits(t, 5003))
}

fn deleted_beside_others(t: &mut Trial<'_>) -> Result<(), Stop> {
    let inward = ingress(Server, vec![anything(vec![one(Client)])]);
    let outward = cluster::egress(Server, Vec::new());
    let other = ingress(Client, Vec::new());
    let to_client = |t: &Trial<'_>, port| Volley::new(Attacker, Client, [t.udp(Attacker, Client, port, OPEN)]);
    let from_server = |t: &Trial<'_>, port| Volley::new(Server, Attacker, [t.udp(Server, Attacker, port, OPEN)]);
    t.enforce(set(vec![inward.clone(), outward.clone(), other.clone()]))?;
    t.enforce(set(vec![inward.clone(), other.clone()]))?;
    t.attack("in, after the policy of the way out went", BY_POLICY, hits(t, 5011))?;
    t.attack("another workload, after that", BY_POLICY, to_client(t, 5012))?;
    t.control("out, after its policy went", from_server(t, 5013))?;
    t.enforce(set(vec![outward.clone(), other.clone()]))?;
    t.control("in, after its policy went", hits(t, 5014))?;
    t.attack("out, after the policy of the way in went", BY_POLICY, from_server(t, 5015))?;
    t.attack("another workload, after that too", BY_POLICY, to_client(t, 5016))?;
    t.enforce(set(Vec::new()))?;
    t.control("the other workload, after its policy went", to_client(t, 5017))
}

fn imitated_namespace_labels(t: &mut Trial<'_>) -> Result<(), Stop> {
    let namespaces = Some(Selector::of(labels(&[(METADATA_NAME, "trusted")])));
    let policies = || {
        let peer = Peer::Pods { namespaces: namespaces.clone(), pods: None };
        set(vec![ingress(Server, vec![anything(vec![peer])])])
    };
    let imitation = [("app", "attacker"), (METADATA_NAME, "trusted"), ("namespace", "trusted"), ("name", "trusted")];
    t.apply(&with_attacker(policies(), "trusted", &imitation))?;
    t.control("in that namespace", hits(t, 5021))?;
    t.apply(&with_attacker(policies(), NAMESPACE, &imitation))?;
    t.attack("in another, with its labels", BY_POLICY, hits(t, 5022))?;
    t.attack("on the standing flow", BY_POLICY, hits(t, 5021))
}

fn label_taken_away(t: &mut Trial<'_>) -> Result<(), Stop> {
    let policies = || set(vec![ingress(Server, vec![anything(vec![pods(&[("role", "friend")])])])]);
    let friend = [("app", "attacker"), ("role", "friend")];
    t.apply(&with_attacker(policies(), NAMESPACE, &friend))?;
    t.control("with the label", hits(t, 5031))?;
    t.apply(&with_attacker(policies(), NAMESPACE, &friend[..1]))?;
    t.attack("without it, on the standing flow", BY_POLICY, hits(t, 5031))?;
    t.attack("without it, anew", BY_POLICY, hits(t, 5032))
}

fn selector_leaves_its_namespace(t: &mut Trial<'_>) -> Result<(), Stop> {
    let own = ingress(Server, vec![anything(vec![pods(&[("app", "friend")])])]);
    let foreign = NetworkPolicy { namespace: "other".into(), ..ingress(Server, vec![anything(Vec::new())]) };
    let policies = || set(vec![own.clone(), foreign.clone()]);
    let friend = [("app", "friend")];
    t.apply(&with_attacker(set(vec![own.clone()]), NAMESPACE, &friend))?;
    t.control("in the policy's namespace", hits(t, 5041))?;
    t.apply(&with_attacker(policies(), "other", &friend))?;
    t.attack("in another, with the same labels", BY_POLICY, hits(t, 5042))
}

fn namespace_ends(t: &mut Trial<'_>) -> Result<(), Stop> {
    let ending = |policies| {
        let mut cluster = Cluster { policies, ..cluster::cluster(Mode::Enforce) };
        cluster.namespaces.values_mut().for_each(|namespace| namespace.terminating = true);
        cluster
    };
    t.enforce(t.open())?;
    t.control("where policy allows it", hits(t, 5061))?;
    t.enforce(t.closed())?;
    t.attack("before the end", BY_POLICY, hits(t, 5062))?;
    t.apply(&ending(t.closed()))?;
    t.apply(&ending(set(Vec::new())))?;
    t.attack("once the policies are gone", BY_POLICY, hits(t, 5063))?;
    t.attack("then, on the flow that was allowed once", BY_POLICY, hits(t, 5061))
}

fn revoked_connection(t: &mut Trial<'_>) -> Result<(), Stop> {
    t.serve(Server, OPEN)?;
    t.enforce(t.open())?;
    let to = SocketAddr::new(Server.address(t.family), OPEN);
    let refused = |why| crate::Error::range(format!("no connection to {to} where policy allows it: {why}"));
    let mut stream = t.connect(Attacker, to, Duration::from_secs(4))?.map_err(refused)?;
    let from = stream.local_addr().map_err(refused)?.port();
    let socket = t.socket(Attacker, 5051)?;
    let ends = (Attacker, Server);
    t.say(Purpose::Control, "a connection, while it is allowed", &[], ends, |bytes| stream.write_all(bytes))?;
    t.say(Purpose::Control, "a flow of datagrams, while it is allowed", &[], ends, |bytes| {
        socket.send_to(bytes, to).map(drop)
    })?;
    t.enforce(t.closed())?;
    t.say(Purpose::Attack, "the connection, once it is not", BY_POLICY, ends, |bytes| stream.write_all(bytes))?;
    t.say(Purpose::Attack, "the datagrams, once they are not", BY_POLICY, ends, |bytes| {
        socket.send_to(bytes, to).map(drop)
    })?;
    let again = t.tcp(Attacker, Server, from, OPEN, flow::tcp::ACK);
    t.attack("the connection, taken up by its middle", BY_POLICY, Volley::new(Attacker, Server, [again]))?;
    let middle = t.tcp(Attacker, Server, 5052, OPEN, flow::tcp::ACK);
    t.attack("the middle of one that never was", BY_POLICY, Volley::new(Attacker, Server, [middle]))
}
