//! A second evaluator of NetworkPolicy, to hold the first one (`model::reference`) against: one question about one
//! packet that opens a connection, answered from the objects as JSON, sentence by sentence.
//!
//! Always holds: it shares no code with the crates it judges, not even how an object is read; it is naive and slow, and
//! each clause stands below the sentence it comes from. Those in quotes are of the API reference (networking.k8s.io/v1
//! and meta/v1, v1.34); what the API leaves open is marked as ours. It is for valid objects: what is not valid, it may
//! take for anything.

use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who is at an end of a packet.
#[derive(Clone, Copy, Debug)]
pub enum Who<'o> {
    /// A pod with addresses of its own, at this one; `None`: at one that no policy and no other object names.
    Pod(&'o Value, Option<IpAddr>),
    /// No pod that policies know: a node, a hostNetwork pod, an address outside.
    Address(IpAddr),
    /// The other end's own node.
    OwnNode,
}

impl Who<'_> {
    /// Its address, where that is known.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Pod(_, address) => *address,
            Self::Address(address) => Some(*address),
            Self::OwnNode => None,
        }
    }
}

/// Who is at an address.
pub fn who(objects: &[Value], address: IpAddr) -> Who<'_> {
    let holder = of_kind(objects, "Pod").find(|pod| {
        // A hostNetwork pod is selected by nothing, and as a peer is its node: it has no address of its own.
        let host_network = pod["spec"]["hostNetwork"] == true;
        // A completed pod holds no address.
        let completed = pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed";
        !host_network && !completed && addresses(pod).contains(&address)
    });
    holder.map_or(Who::Address(address), |pod| Who::Pod(pod, Some(address)))
}

/// The addresses a pod was given; none, if it has none yet.
pub fn addresses(pod: &Value) -> Vec<IpAddr> {
    // podIPs: "If this field is specified, the 0th entry must match the podIP field. … This list is empty if no IPs have
    // been allocated yet."
    let status = &pod["status"];
    let texts = list(&status["podIPs"]).iter().map(|item| &item["ip"]).chain([&status["podIP"]]);
    texts.filter_map(|text| text.as_str()?.parse().ok()).collect()
}

/// Whether `from` may open a connection to `to`. `protocol` is as the API writes it, `None` for one that rules cannot
/// name (ICMP); the port means nothing then.
pub fn allowed(objects: &[Value], from: Who<'_>, to: Who<'_>, protocol: Option<&str>, port: u16) -> bool {
    // "… OR if the traffic source is the pod's local node"; ours: its own node's replies and probes, either way.
    if matches!((from, to), (Who::OwnNode, _) | (_, Who::OwnNode)) {
        return true;
    }
    // A pod always reaches itself.
    if let (Who::Pod(from, _), Who::Pod(to, _)) = (from, to)
        && std::ptr::eq(from, to)
    {
        return true;
    }
    // Both ends must allow. Replies to an allowed connection pass; they are no question here.
    leaves(objects, from, to, protocol, port) && enters(objects, from, to, protocol, port)
}

/// The client's half of [`allowed`], as policies have it: whether they let the packet out.
pub fn leaves(objects: &[Value], from: Who<'_>, to: Who<'_>, protocol: Option<&str>, port: u16) -> bool {
    egress_allowed(objects, from, &Packet { to, protocol, port })
}

/// The server's half of it: whether they let the packet in.
pub fn enters(objects: &[Value], from: Who<'_>, to: Who<'_>, protocol: Option<&str>, port: u16) -> bool {
    ingress_allowed(objects, from, &Packet { to, protocol, port })
}

/// Where a packet goes to.
struct Packet<'o> {
    to: Who<'o>,
    protocol: Option<&'o str>,
    port: u16,
}

/// "Traffic is allowed to a pod if there are no NetworkPolicies selecting the pod …, OR …, OR if the traffic matches at
/// least one ingress rule across all of the NetworkPolicy objects whose podSelector matches the pod."
fn ingress_allowed(objects: &[Value], from: Who<'_>, packet: &Packet<'_>) -> bool {
    let isolating = || selecting(objects, packet.to).filter(|policy| affects_ingress(&policy["spec"]));
    isolating().next().is_none()
        || isolating().any(|policy| {
            // "If this field is empty then this NetworkPolicy does not allow any traffic." A rule's "traffic must match
            // both ports and from".
            let rules = list(&policy["spec"]["ingress"]);
            rules.iter().any(|rule| matches_peers(objects, policy, &rule["from"], from) && matches_ports(rule, packet))
        })
}

/// "Outgoing traffic is allowed if there are no NetworkPolicies selecting the pod …, OR if the traffic matches at least
/// one egress rule across all of the NetworkPolicy objects whose podSelector matches the pod."
fn egress_allowed(objects: &[Value], from: Who<'_>, packet: &Packet<'_>) -> bool {
    let isolating = || selecting(objects, from).filter(|policy| affects_egress(&policy["spec"]));
    isolating().next().is_none()
        || isolating().any(|policy| {
            // "If this field is empty then this NetworkPolicy limits all outgoing traffic." A rule's "traffic must match
            // both ports and to".
            let rules = list(&policy["spec"]["egress"]);
            rules
                .iter()
                .any(|rule| matches_peers(objects, policy, &rule["to"], packet.to) && matches_ports(rule, packet))
        })
}

/// The policies that apply to an end.
fn selecting<'o>(objects: &'o [Value], end: Who<'o>) -> impl Iterator<Item = &'o Value> {
    of_kind(objects, "NetworkPolicy").filter(move |policy| match end {
        // podSelector: "An empty selector matches all pods in the policy's namespace. … If it is not specified, it
        // defaults to an empty selector."
        Who::Pod(pod, _) => {
            namespace_of(policy) == namespace_of(pod) && selects(&policy["spec"]["podSelector"], &labels_of(pod))
        }
        Who::Address(_) | Who::OwnNode => false,
    })
}

/// "If this field is not specified, it will default based on the existence of ingress or egress rules; … all policies
/// (whether or not they contain an ingress section) are assumed to affect ingress."
fn affects_ingress(spec: &Value) -> bool {
    let types = list(&spec["policyTypes"]);
    types.is_empty() || types.iter().any(|kind| kind == "Ingress")
}

/// "Policies that contain an egress section are assumed to affect egress"; the server takes `egress: []` for none.
fn affects_egress(spec: &Value) -> bool {
    let types = list(&spec["policyTypes"]);
    if types.is_empty() { !list(&spec["egress"]).is_empty() } else { types.iter().any(|kind| kind == "Egress") }
}

/// "Items in this list are combined using a logical OR operation. If this field is empty or missing, this rule matches
/// all sources (traffic not restricted by source)."
fn matches_peers(objects: &[Value], policy: &Value, peers: &Value, end: Who<'_>) -> bool {
    let peers = list(peers);
    peers.is_empty() || peers.iter().any(|peer| matches_peer(objects, policy, peer, end))
}

fn matches_peer(objects: &[Value], policy: &Value, peer: &Value, end: Who<'_>) -> bool {
    // ipBlock: "If this field is set then neither of the other fields can be." It may cover a pod's address.
    if !peer["ipBlock"].is_null() {
        return end.address().is_some_and(|address| in_ip_block(&peer["ipBlock"], address));
    }
    let Who::Pod(pod, _) = end else { return false };
    let namespace_matches = match &peer["namespaceSelector"] {
        // "Otherwise it selects the pods matching podSelector in the policy's own namespace."
        Value::Null => namespace_of(pod) == namespace_of(policy),
        // "If present but empty, it selects all namespaces."
        selector => selects(selector, &namespace_labels(objects, namespace_of(pod))),
    };
    let pod_matches = match &peer["podSelector"] {
        // "Otherwise it selects all pods in the namespaces selected by namespaceSelector."
        Value::Null => true,
        // "If present but empty, it selects all pods."
        selector => selects(selector, &labels_of(pod)),
    };
    // "If namespaceSelector is also set, then the NetworkPolicyPeer as a whole selects the pods matching podSelector in
    // the namespaces selected by namespaceSelector."
    namespace_matches && pod_matches
}

/// "except is a slice of CIDRs that should not be included within an IPBlock": within this one, and no other.
fn in_ip_block(block: &Value, address: IpAddr) -> bool {
    in_cidr(&block["cidr"], address) && !list(&block["except"]).iter().any(|hole| in_cidr(hole, address))
}

/// "Each item in this list is combined using a logical OR. If this field is empty or missing, this rule matches all ports
/// (traffic not restricted by port)." Ours: a protocol that rules cannot name passes only then.
fn matches_ports(rule: &Value, packet: &Packet<'_>) -> bool {
    let ports = list(&rule["ports"]);
    let Some(protocol) = packet.protocol else { return ports.is_empty() };
    ports.is_empty() || ports.iter().any(|port| matches_port(port, protocol, packet))
}

/// "Only traffic on the specified protocol AND port will be matched."
fn matches_port(item: &Value, protocol: &str, packet: &Packet<'_>) -> bool {
    // "If not specified, this field defaults to TCP."
    item["protocol"].as_str().unwrap_or("TCP") == protocol
        && match (&item["port"], &item["endPort"]) {
            // "If this field is not provided, this matches all port names and numbers."
            (Value::Null, _) => true,
            // "This can either be a numerical or named port on a pod."
            (Value::String(name), _) => ports_named(packet.to, name, protocol).contains(&packet.port.into()),
            (first, Value::Null) => first == packet.port,
            // "endPort indicates that the range of ports from port to endPort if set, inclusive, should be allowed."
            (first, last) => first.as_u64() <= Some(packet.port.into()) && Some(packet.port.into()) <= last.as_u64(),
        }
}

/// A named port is looked up on the destination pod, by name and protocol: in its containers, and in the init containers
/// that go on running beside them.
fn ports_named(to: Who<'_>, name: &str, protocol: &str) -> Vec<u64> {
    let Who::Pod(pod, _) = to else { return Vec::new() };
    let sidecars = list(&pod["spec"]["initContainers"]).iter().filter(|c| c["restartPolicy"] == "Always");
    let ports = list(&pod["spec"]["containers"]).iter().chain(sidecars).flat_map(|c| list(&c["ports"]));
    // ContainerPort: "Protocol for port. Must be UDP, TCP, or SCTP. Defaults to TCP."
    let same = ports.filter(|p| p["name"] == name && p["protocol"].as_str().unwrap_or("TCP") == protocol);
    same.filter_map(|port| port["containerPort"].as_u64()).collect()
}

/// LabelSelector: "The result of matchLabels and matchExpressions are ANDed. An empty label selector matches all objects."
fn selects(selector: &Value, labels: &[(&str, &str)]) -> bool {
    let value_of = |key: &str| labels.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
    let equal = entries(&selector["matchLabels"]).all(|(key, value)| value_of(key) == Some(value));
    equal
        && list(&selector["matchExpressions"]).iter().all(|requirement| {
            let value = value_of(requirement["key"].as_str().unwrap_or_default());
            let listed = value.is_some_and(|value| list(&requirement["values"]).iter().any(|one| one == value));
            match requirement["operator"].as_str() {
                Some("In") => listed,
                // NotIn and DoesNotExist match a missing key.
                Some("NotIn") => !listed,
                Some("Exists") => value.is_some(),
                Some("DoesNotExist") => value.is_none(),
                _ => false,
            }
        })
}

/// The labels of a namespace: those of its object, if that is given, and its name, which the server adds to each.
fn namespace_labels<'o>(objects: &'o [Value], name: &'o str) -> Vec<(&'o str, &'o str)> {
    let namespace = of_kind(objects, "Namespace").find(|namespace| namespace["metadata"]["name"] == name);
    let mut labels = vec![("kubernetes.io/metadata.name", name)];
    labels.extend(namespace.map(labels_of).unwrap_or_default());
    labels
}

fn labels_of(object: &Value) -> Vec<(&str, &str)> {
    entries(&object["metadata"]["labels"]).collect()
}

/// "An empty namespace is equivalent to the "default" namespace."
fn namespace_of(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().filter(|name| !name.is_empty()).unwrap_or("default")
}

fn of_kind<'o>(objects: &'o [Value], kind: &'static str) -> impl Iterator<Item = &'o Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// The items of a list; none, if it is absent or null.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The entries of a map of strings; a null value is an empty one.
fn entries(value: &Value) -> impl Iterator<Item = (&str, &str)> {
    let map = value.as_object();
    map.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
}

/// "cidr is a string representing the IPBlock. Valid examples are "192.168.1.0/24" or "2001:db8::/64"". The server also
/// takes host bits, leading zeros, and IPv4 in IPv6's clothes, and warns.
fn in_cidr(cidr: &Value, address: IpAddr) -> bool {
    let Some((block, prefix)) = cidr.as_str().and_then(|text| text.split_once('/')) else { return false };
    let Ok(prefix) = prefix.parse::<u32>() else { return false };
    let zero_free =
        block.split('.').map(|part| part.trim_start_matches('0')).map(|p| if p.is_empty() { "0" } else { p });
    let v4 = zero_free.collect::<Vec<_>>().join(".").parse::<Ipv4Addr>();
    let v6 = block.parse::<Ipv6Addr>();
    match (v4, v6, address) {
        (Ok(block), _, IpAddr::V4(address)) => same_prefix(block.into(), address.into(), prefix),
        (_, Ok(block), IpAddr::V4(address)) => match block.to_ipv4_mapped() {
            Some(block) if prefix >= 96 => same_prefix(block.into(), address.into(), prefix - 96),
            _ => false,
        },
        (_, Ok(block), IpAddr::V6(address)) => {
            let is_v4 = block.to_ipv4_mapped().is_some() && prefix >= 96;
            let (block, address) = (u128::from(block), u128::from(address));
            !is_v4 && (prefix == 0 || (block ^ address) >> (128 - prefix) == 0)
        }
        _ => false,
    }
}

fn same_prefix(one: u32, other: u32, prefix: u32) -> bool {
    prefix == 0 || (one ^ other) >> (32 - prefix) == 0
}
