//! Policies as YAML, the way kubectl prints them: the same policy gives the same bytes (law 8).

use crate::{
    labels::{Labels, Operator, Requirement, Selector},
    policy::{NetworkPolicy, Peer, Port, PortMatch, Rule},
};
use ipnet::IpNet;
use serde::{Serialize, Serializer};

/// One policy as a YAML document (with the leading `---`), byte-stable, every string quoted where a
/// YAML 1.1 reader would change it. Fields in the API's order; labels sorted; `policyTypes` always
/// there, so that no reader's default decides.
pub fn write_policy(policy: &NetworkPolicy) -> String {
    write(policy, "networking.k8s.io/v1", "NetworkPolicy")
}

/// The same as a StagedNetworkPolicy: judged, never enforced.
pub fn write_staged_policy(policy: &NetworkPolicy) -> String {
    write(policy, "podfence.dev/v1alpha1", "StagedNetworkPolicy")
}

fn write(policy: &NetworkPolicy, api_version: &'static str, kind: &'static str) -> String {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let mut out = String::from("---\n");
    let document = Document {
        api_version,
        kind,
        metadata: Metadata {
            name: &policy.name,
            namespace: &policy.namespace,
            labels: &policy.labels,
            annotations: &policy.annotations,
        },
        spec: Spec::of(policy),
    };
    // Strings, numbers, lists and maps with string keys: nothing the serializer could refuse.
    serde_saphyr::to_fmt_writer_with_options(&mut out, &document, options)
        .expect("a policy consists of what YAML can hold");
    out
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'p> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'p>,
    spec: Spec<'p>,
}

#[derive(Serialize)]
struct Metadata<'p> {
    name: &'p str,
    namespace: &'p str,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    labels: &'p Labels,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    annotations: &'p Labels,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'p> {
    pod_selector: WrittenSelector<'p>,
    policy_types: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<Vec<IngressRule<'p>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<Vec<EgressRule<'p>>>,
}

impl<'p> Spec<'p> {
    fn of(policy: &'p NetworkPolicy) -> Self {
        let types = [("Ingress", policy.ingress.is_some()), ("Egress", policy.egress.is_some())];
        Self {
            pod_selector: WrittenSelector::of(&policy.pod_selector),
            policy_types: types.iter().filter(|(_, isolates)| *isolates).map(|(name, _)| *name).collect(),
            ingress: policy.ingress.as_ref().map(|rules| rules.iter().map(IngressRule::of).collect()),
            egress: policy.egress.as_ref().map(|rules| rules.iter().map(EgressRule::of).collect()),
        }
    }
}

#[derive(Serialize)]
struct IngressRule<'p> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    from: Vec<WrittenPeer<'p>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<WrittenPort<'p>>,
}

#[derive(Serialize)]
struct EgressRule<'p> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    to: Vec<WrittenPeer<'p>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<WrittenPort<'p>>,
}

impl<'p> IngressRule<'p> {
    fn of(rule: &'p Rule) -> Self {
        Self { from: peers(rule), ports: ports(rule) }
    }
}

impl<'p> EgressRule<'p> {
    fn of(rule: &'p Rule) -> Self {
        Self { to: peers(rule), ports: ports(rule) }
    }
}

fn peers(rule: &Rule) -> Vec<WrittenPeer<'_>> {
    rule.peers.iter().map(WrittenPeer::of).collect()
}

fn ports(rule: &Rule) -> Vec<WrittenPort<'_>> {
    rule.ports.iter().map(WrittenPort::of).collect()
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct WrittenPeer<'p> {
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace_selector: Option<WrittenSelector<'p>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_selector: Option<WrittenSelector<'p>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_block: Option<WrittenBlock>,
}

impl<'p> WrittenPeer<'p> {
    fn of(peer: &'p Peer) -> Self {
        match peer {
            // Neither selector: all pods of the policy's namespace, which an empty peer cannot say.
            Peer::Pods { namespaces: None, pods: None } => {
                Self { pod_selector: Some(WrittenSelector::default()), ..Self::default() }
            }
            Peer::Pods { namespaces, pods } => Self {
                namespace_selector: namespaces.as_ref().map(WrittenSelector::of),
                pod_selector: pods.as_ref().map(WrittenSelector::of),
                ip_block: None,
            },
            Peer::Block { cidr, except } => Self {
                ip_block: Some(WrittenBlock {
                    cidr: cidr.to_string(),
                    except: except.iter().map(|hole| written_hole(cidr, hole)).collect(),
                }),
                ..Self::default()
            },
        }
    }
}

/// A hole must be written with a longer prefix than its block. One that takes away all was read from
/// an IPv4-mapped one, and is written so.
fn written_hole(cidr: &IpNet, hole: &IpNet) -> String {
    match hole {
        IpNet::V4(v4) if hole.contains(cidr) => format!("::ffff:{}/{}", v4.addr(), v4.prefix_len().saturating_add(96)),
        _ => hole.to_string(),
    }
}

#[derive(Serialize)]
struct WrittenBlock {
    cidr: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    except: Vec<String>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct WrittenSelector<'p> {
    #[serde(skip_serializing_if = "Option::is_none")]
    match_labels: Option<&'p Labels>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    match_expressions: Vec<WrittenRequirement<'p>>,
}

impl<'p> WrittenSelector<'p> {
    fn of(selector: &'p Selector) -> Self {
        Self {
            match_labels: (!selector.match_labels.is_empty()).then_some(&selector.match_labels),
            match_expressions: selector.match_expressions.iter().map(WrittenRequirement::of).collect(),
        }
    }
}

#[derive(Serialize)]
struct WrittenRequirement<'p> {
    key: &'p str,
    operator: &'static str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    values: &'p [String],
}

impl<'p> WrittenRequirement<'p> {
    fn of(requirement: &'p Requirement) -> Self {
        let operator = match requirement.operator {
            Operator::In => "In",
            Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
        };
        Self { key: &requirement.key, operator, values: &requirement.values }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenPort<'p> {
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<NumberOrName<'p>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_port: Option<u16>,
}

enum NumberOrName<'p> {
    Number(u16),
    Name(&'p str),
}

impl Serialize for NumberOrName<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u16(*number),
            Self::Name(name) => serializer.serialize_str(name),
        }
    }
}

impl<'p> WrittenPort<'p> {
    fn of(port: &'p Port) -> Self {
        let (port_field, end_port) = match &port.port {
            PortMatch::All => (None, None),
            PortMatch::Range(first, last) => (Some(NumberOrName::Number(*first)), (last > first).then_some(*last)),
            PortMatch::Named(name) => (Some(NumberOrName::Name(name)), None),
        };
        Self { protocol: port.protocol.name(), port: port_field, end_port }
    }
}
