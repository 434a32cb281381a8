//! Random clusters and policies as JSON, over a world so small that things meet: all that is generated is valid, and every
//! field comes absent, null, empty and filled.

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select},
    strategy::BoxedStrategy,
};
use serde_json::{Map, Value, json};
use std::fmt;

/// Every namespace; objects need not name all of them.
pub const NAMESPACES: [&str; 3] = ["a", "b", "default"];
const VALUES: [(&str, &[&str]); 3] = [("app", &["web", "api"]), ("tier", &["front", "back", ""]), ("env", &["prod"])];
/// The ports that policies and containers name.
pub const PORTS: [u16; 5] = [1, 80, 81, 8080, 65535];
const NAMES: [&str; 2] = ["http", "dns"];

/// Objects of a cluster, which print as JSON.
#[derive(Clone)]
pub struct Objects(pub Vec<Value>);

impl fmt::Display for Objects {
    /// One a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|object| writeln!(f, "{object}"))
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}")
    }
}

/// A pod that is not there yet, before it the namespace that comes with it.
pub fn newcomer() -> impl Strategy<Value = Objects> {
    let labels = || {
        let label = prop_oneof![3 => label(), 1 => select(&VALUES[..]).prop_map(|(key, _)| (key, "other"))];
        vec(label, 0..=3)
            .prop_map(|labels| labels.into_iter().map(|(k, v)| (k.to_owned(), json!(v))).collect::<Value>())
    };
    let namespace = prop_oneof![
        2 => select(&NAMESPACES[..]).prop_map(|name| (name, None)),
        1 => labels().prop_map(|labels| ("new", Some(labels))),
    ];
    (namespace, labels())
        .prop_map(|((namespace, namespace_labels), labels)| coming(namespace, namespace_labels, labels))
}

/// A pod with these labels, and its namespace where that has labels of its own.
pub fn coming(namespace: &str, namespace_labels: Option<Value>, labels: Value) -> Objects {
    let home = namespace_labels.map(
        |labels| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}),
    );
    let metadata = json!({"name": "newcomer", "namespace": namespace, "labels": labels});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata});
    Objects(home.into_iter().chain([pod]).collect())
}

/// Namespaces, a node, pods and policies.
pub fn objects() -> impl Strategy<Value = Objects> {
    let namespaces = NAMESPACES.map(|name| option::weighted(0.8, namespace(name)));
    let pods = vec(pod(), 3..=6).prop_map(|pods| pods.into_iter().enumerate().map(|(i, pod)| pod.at(i)).collect());
    (namespaces, pods, vec(policy(), 0..=4)).prop_map(|(namespaces, pods, policies)| {
        let pods: Vec<Value> = pods;
        let policies = policies.into_iter().enumerate().map(|(index, mut policy)| {
            policy["metadata"]["name"] = json!(format!("p{index}"));
            policy
        });
        let status = json!({"addresses": NODE.map(|address| json!({"type": "InternalIP", "address": address}))});
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE_NAME}, "status": status});
        Objects(namespaces.into_iter().flatten().chain([node]).chain(pods).chain(policies).collect())
    })
}

/// The node that every pod is on.
pub const NODE_NAME: &str = "n1";
/// Its addresses, which hostNetwork pods share.
pub const NODE: [&str; 2] = ["192.168.0.1", "fd00:1::1"];

// --- fields ---------------------------------------------------------------------------------------------------

/// `None`: the field is absent.
type Field = BoxedStrategy<Option<Value>>;

/// Absent, null, or this.
fn maybe(value: impl Strategy<Value = Value> + 'static) -> Field {
    prop_oneof![2 => Just(None), 1 => Just(Some(Value::Null)), 7 => value.prop_map(Some)].boxed()
}

fn always(value: impl Strategy<Value = Value> + 'static) -> Field {
    value.prop_map(Some).boxed()
}

/// An object of these fields.
fn object<const N: usize>(fields: [(&'static str, Field); N]) -> impl Strategy<Value = Value> + 'static {
    let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    values.prop_map(move |values| {
        let there = names.iter().zip(values).filter_map(|(name, value)| Some(((*name).to_owned(), value?)));
        Value::Object(there.collect::<Map<_, _>>())
    })
}

fn list(item: impl Strategy<Value = Value> + 'static, most: usize) -> impl Strategy<Value = Value> + 'static {
    vec(item, 0..=most).prop_map(Value::Array)
}

fn one_of<T: Into<Value> + Copy + std::fmt::Debug + 'static>(of: &'static [T]) -> impl Strategy<Value = Value> {
    select(of).prop_map(Into::into)
}

// --- labels and selectors -------------------------------------------------------------------------------------

fn label() -> impl Strategy<Value = (&'static str, &'static str)> {
    select(&VALUES[..]).prop_flat_map(|(key, values)| (Just(key), select(values)))
}

/// Labels that selectors look for.
pub fn labels() -> impl Strategy<Value = Value> {
    vec(label(), 0..=3).prop_map(|labels| labels.into_iter().map(|(k, v)| (k.to_owned(), json!(v))).collect())
}

fn requirement() -> impl Strategy<Value = Value> {
    let listed =
        (label(), vec(label(), 0..=2), select(&["In", "NotIn"][..])).prop_map(|((key, value), more, operator)| {
            let values: Vec<_> = [value].into_iter().chain(more.into_iter().map(|(_, value)| value)).collect();
            json!({"key": key, "operator": operator, "values": values})
        });
    let plain = object([
        ("key", always(label().prop_map(|(key, _)| json!(key)))),
        ("operator", always(one_of(&["Exists", "DoesNotExist"]))),
        ("values", maybe(Just(json!([])))),
    ]);
    prop_oneof![2 => listed, 1 => plain]
}

fn selector() -> impl Strategy<Value = Value> {
    let one = label().prop_map(|(key, value)| json!({key: value}));
    let match_labels = prop_oneof![4 => one, 1 => labels()];
    prop_oneof![
        1 => Just(json!({})),
        4 => object([("matchLabels", maybe(match_labels)), ("matchExpressions", maybe(list(requirement(), 1)))]),
        2 => object([("matchExpressions", always(list(requirement(), 2)))]),
    ]
}

fn namespace_selector() -> impl Strategy<Value = Value> {
    let names = select(&NAMESPACES[..]).prop_map(|name| json!({"matchLabels": {"kubernetes.io/metadata.name": name}}));
    prop_oneof![1 => names, 2 => selector()]
}

// --- namespaces and pods --------------------------------------------------------------------------------------

fn namespace(name: &'static str) -> impl Strategy<Value = Value> {
    let metadata = object([("name", always(Just(json!(name)))), ("labels", maybe(labels()))]);
    metadata.prop_map(|metadata| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
}

/// A pod but for its name and addresses, which depend on its place among the others.
#[derive(Clone, Debug)]
struct Pod {
    metadata: Value,
    spec: Value,
    phase: Option<Value>,
    families: &'static str,
    /// The pod whose address it had, if it is completed.
    successor: Index,
}

fn pod() -> impl Strategy<Value = Pod> {
    let metadata = object([("namespace", in_namespace()), ("labels", maybe(labels()))]);
    let host_network = prop_oneof![6 => Just(None), 1 => Just(Some(json!(true))), 1 => Just(Some(json!(false)))];
    let init = object([("restartPolicy", maybe(Just(json!("Always")))), ("ports", always(container_ports()))]);
    let spec = object([
        ("nodeName", always(Just(json!(NODE_NAME)))),
        ("hostNetwork", host_network.boxed()),
        ("containers", always(list(object([("ports", maybe(container_ports()))]), 2))),
        ("initContainers", prop_oneof![3 => Just(None), 1 => list(init, 1).prop_map(Some)].boxed()),
    ]);
    let phases = ["Running", "Running", "Running", "Running", "Pending", "Succeeded", "Failed"];
    let phase = prop_oneof![1 => Just(None), 7 => select(phases.to_vec()).prop_map(|phase| Some(json!(phase)))];
    let families = select(&["46", "46", "4", "4", "4", "6", ""][..]);
    (metadata, spec, phase, families, any::<Index>()).prop_map(|(metadata, spec, phase, families, successor)| Pod {
        metadata,
        spec,
        phase,
        families,
        successor,
    })
}

/// "default" is often left out.
fn in_namespace() -> Field {
    prop_oneof![1 => Just(None), 6 => one_of(&NAMESPACES).prop_map(Some)].boxed()
}

/// The ports of a container, some by name.
pub fn container_ports() -> impl Strategy<Value = Value> {
    let port = object([
        ("containerPort", always(one_of(&PORTS))),
        ("name", prop_oneof![1 => Just(None), 4 => one_of(&NAMES).prop_map(Some)].boxed()),
        ("protocol", maybe(protocol())),
    ]);
    list(port, 2)
}

fn protocol() -> impl Strategy<Value = Value> {
    one_of(&["TCP", "TCP", "UDP", "SCTP"])
}

impl Pod {
    fn at(mut self, index: usize) -> Value {
        self.metadata["name"] = json!(format!("pod{index}"));
        self.metadata["uid"] = json!(format!("uid{index}"));
        let completed = self.phase.as_ref().is_some_and(|phase| phase == "Succeeded" || phase == "Failed");
        // Its address may have been given away since.
        let number = 1 + if completed { self.successor.index(6) } else { index };
        let own = |family| format!("{}{number}", if family == '4' { "10.0.0." } else { "fd00::" });
        let ips: Vec<String> = match self.spec["hostNetwork"] == true {
            true => NODE.map(str::to_owned).to_vec(),
            false => self.families.chars().map(own).collect(),
        };
        let mut status = json!({});
        if let Some(phase) = self.phase {
            status["phase"] = phase;
        }
        if let Some(first) = ips.first() {
            status["podIP"] = json!(first);
            status["podIPs"] = ips.iter().map(|ip| json!({"ip": ip})).collect();
        }
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": self.metadata, "spec": self.spec, "status": status})
    }
}

// --- policies -------------------------------------------------------------------------------------------------

/// A NetworkPolicy without a name.
pub fn policy() -> impl Strategy<Value = Value> {
    let types = || {
        let some = [
            json!([]),
            json!(["Ingress"]),
            json!(["Egress"]),
            json!(["Ingress", "Egress"]),
            json!(["Egress", "Egress"]),
        ];
        select(some.to_vec())
    };
    let spec = object([
        ("podSelector", maybe(selector())),
        ("policyTypes", maybe(types())),
        ("ingress", maybe(list(rule("from"), 2))),
        ("egress", maybe(list(rule("to"), 2))),
    ]);
    (object([("namespace", in_namespace())]), spec).prop_map(|(metadata, spec)| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
    })
}

fn rule(peers: &'static str) -> impl Strategy<Value = Value> {
    let rule = object([(peers, maybe(list(peer(), 2))), ("ports", maybe(list(port(), 2)))]);
    prop_oneof![1 => Just(Value::Null), 12 => rule]
}

fn peer() -> impl Strategy<Value = Value> {
    let absent = || prop_oneof![Just(None), Just(Some(Value::Null))].boxed();
    prop_oneof![
        2 => object([("podSelector", always(selector())), ("namespaceSelector", absent()), ("ipBlock", absent())]),
        2 => object([("podSelector", absent()), ("namespaceSelector", always(namespace_selector()))]),
        2 => object([("podSelector", always(selector())), ("namespaceSelector", always(namespace_selector()))]),
        3 => object([("podSelector", absent()), ("ipBlock", always(ip_block()))]),
    ]
}

/// A block around one of the world's addresses, and holes that are smaller, in all the ways the server reads.
fn ip_block() -> impl Strategy<Value = Value> {
    let v4 = (0u8..16, select(&[0u8, 8, 24, 28, 29, 30, 31, 32][..]), vec((0u8..16, 1u8..=4, 0u8..4), 0..=2), 0u8..4)
        .prop_map(|(low, bits, holes, form)| {
            // The server compares the prefixes' lengths as they are written.
            let hole = |(other, more, hole_form): (u8, u8, u8)| {
                let hole_bits = (bits.max(24) + more).min(32);
                let hole_form = if form == MAPPED { MAPPED } else { hole_form };
                let same = if bits >= 28 { 0xffu8.checked_shl(32 - u32::from(bits)).unwrap_or(0) } else { 0 };
                let smaller = hole_bits > bits || (hole_form == MAPPED && form != MAPPED);
                smaller.then(|| v4_text((low & same) | (other & !same), hole_bits, hole_form))
            };
            json!({"cidr": v4_text(low, bits, form), "except": holes.into_iter().filter_map(hole).collect::<Vec<_>>()})
        });
    let v6 = (0u8..16, select(&[0u8, 8, 64, 125, 126, 127, 128][..]), vec((0u8..16, 1u8..=3), 0..=2)).prop_map(
        |(low, bits, holes)| {
            let hole = |(other, more): (u8, u8)| {
                let hole_bits = (bits.max(123) + more).min(128);
                let same = if bits >= 124 { 0xffu8.checked_shl(128 - u32::from(bits)).unwrap_or(0) } else { 0 };
                (hole_bits > bits).then(|| format!("fd00::{:x}/{hole_bits}", (low & same) | (other & !same)))
            };
            json!({"cidr": format!("fd00::{low:x}/{bits}"), "except": holes.into_iter().filter_map(hole).collect::<Vec<_>>()})
        },
    );
    let node = Just(json!({"cidr": "192.168.0.0/24"}));
    let bare = |mut block: Value| {
        // An empty list may also be absent or null.
        if block["except"] == json!([]) {
            block["except"] = Value::Null;
        }
        block
    };
    prop_oneof![8 => v4.clone(), 2 => v4.prop_map(bare), 3 => v6, 1 => node]
}

const MAPPED: u8 = 1;

/// With its host bits, with leading zeros, or as IPv6 writes it.
fn v4_text(low: u8, bits: u8, form: u8) -> String {
    match form {
        0 => format!("010.0.00.{low:03}/{bits}"),
        MAPPED => format!("::ffff:10.0.0.{low}/{}", bits + 96),
        _ => format!("10.0.0.{low}/{bits}"),
    }
}

fn port() -> impl Strategy<Value = Value> {
    let range = (select(&PORTS[..]), select(&PORTS[..]))
        .prop_map(|(one, other)| json!({"port": one.min(other), "endPort": one.max(other)}));
    let with_protocol = |item: BoxedStrategy<Value>| {
        (item, maybe(protocol())).prop_map(|(mut item, protocol)| {
            if let Some(protocol) = protocol {
                item["protocol"] = protocol;
            }
            item
        })
    };
    prop_oneof![
        1 => Just(Value::Null),
        1 => with_protocol(object([("port", maybe(Just(Value::Null)))]).boxed()),
        4 => with_protocol(object([("port", always(one_of(&PORTS))), ("endPort", maybe(Just(Value::Null)))]).boxed()),
        3 => with_protocol(range.boxed()),
        4 => with_protocol(object([("port", always(one_of(&NAMES)))]).boxed()),
    ]
}
