//! The nearest missing rule: what would have to be added for a denied side of a connection to pass.
//!
//! Always holds: the rule goes where the pods are isolated already, so that adding it closes nothing;
//! its peer is one workload or address and nothing wider, as far as labels can tell; whom it opens
//! beside those it was asked for is named.

use crate::{reach::Direction, universe::Input, why::place_text};
use ipnet::IpNet;
use model::{
    cluster::{Pod, Source, WorkloadKey},
    labels::{Labels, METADATA_NAME, Selector},
    policy::{NetworkPolicy, Peer, PolicySet, Port, Rule},
    yaml::{read_policies, write_policy},
};
use std::{borrow::Cow, collections::BTreeSet, net::IpAddr};

/// The longest name an object may have.
const LONGEST_NAME: usize = 253;
/// More addresses than these are not listed in a rule.
const MOST_ADDRESSES: usize = 8;

/// A rule that would open one side, and where it goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Missing {
    /// Into which list.
    pub direction: Direction,
    /// The policy as it would be, the rule last in its list.
    pub policy: NetworkPolicy,
    /// Where the policy to be extended stands; `None`: it is a new one.
    pub extends: Option<Source>,
    /// Whether there is such a policy already.
    pub is_new: bool,
    /// Whom else it opens, whose labels are no different: workloads beside the own, and beside the peer.
    pub also: Vec<String>,
}

/// The other end of a missing rule.
#[derive(Clone, Debug)]
pub(crate) enum PeerEnd<'p> {
    /// Pods of a workload.
    Pods(&'p WorkloadKey, Vec<&'p Pod>),
    /// Addresses: outside, of nodes, of hostNetwork pods.
    Addresses(Vec<IpAddr>),
}

/// The side that denies.
pub(crate) struct Side<'p> {
    pub(crate) direction: Direction,
    /// Whose side.
    pub(crate) workload: &'p WorkloadKey,
    /// Its pods that are asked about, none of them hostNetwork.
    pub(crate) pods: Vec<&'p Pod>,
    pub(crate) peer: PeerEnd<'p>,
    pub(crate) port: Port,
}

impl Missing {
    /// The policy with this rule alone.
    fn alone(&self) -> NetworkPolicy {
        let mut alone = self.policy.clone();
        let (list, other) = match self.direction {
            Direction::Ingress => (&mut alone.ingress, &mut alone.egress),
            Direction::Egress => (&mut alone.egress, &mut alone.ingress),
        };
        *other = None;
        if let Some(rules) = list {
            rules.drain(..rules.len().saturating_sub(1));
        }
        alone
    }

    /// The rule as the list item that it is in its policy.
    pub fn rule_yaml(&self) -> String {
        let text = write_policy(&self.alone());
        let key = format!("  {}:", self.list());
        let item = text.lines().skip_while(|line| *line != key).skip(1);
        item.fold(String::new(), |text, line| text + line.strip_prefix("  ").unwrap_or(line) + "\n")
    }

    /// The same after it was written as YAML and read back; `None` if that is refused.
    fn read_back(&self) -> Option<Self> {
        let read = read_policies("-", &write_policy(&self.alone())).ok()?;
        Some(Self { policy: read.policies.into_iter().next()?, ..self.clone() })
    }

    /// The whole policy with it.
    pub fn policy_yaml(&self) -> String {
        write_policy(&self.policy)
    }

    /// The list of its policy that it goes into.
    pub fn list(&self) -> &'static str {
        match self.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }

    /// What is to be pasted: the policy if it is new, else the rule.
    pub fn yaml(&self) -> String {
        if self.is_new { self.policy_yaml() } else { self.rule_yaml() }
    }

    /// Where it is to be pasted, and whom else it would be for.
    pub fn place_text(&self) -> String {
        let place = match self.is_new {
            true => "as a policy of its own".to_owned(),
            false => format!(
                "at the end of spec.{} of {}{}",
                self.list(),
                self.policy_name(),
                place_text(self.extends.as_ref())
            ),
        };
        match self.also.is_empty() {
            true => place,
            false => format!("{place}; it would also be for {}, whose labels are no different", self.also.join(", ")),
        }
    }

    /// `namespace/name` of the policy.
    pub fn policy_name(&self) -> String {
        format!("{}/{}", self.policy.namespace, self.policy.name)
    }

    /// Puts the rule into a set that holds the policy it extends, perhaps extended before.
    pub fn add_to(&self, policies: &mut PolicySet) {
        let same = |p: &&mut NetworkPolicy| (&p.namespace, &p.name) == (&self.policy.namespace, &self.policy.name);
        match policies.policies.iter_mut().find(same) {
            None => {
                policies.policies.push(self.policy.clone());
                policies.sort();
            }
            Some(known) => {
                let (list, rule) = match self.direction {
                    Direction::Ingress => (&mut known.ingress, self.policy.ingress.iter().flatten().last()),
                    Direction::Egress => (&mut known.egress, self.policy.egress.iter().flatten().last()),
                };
                list.get_or_insert_default().extend(rule.cloned());
            }
        }
    }
}

/// The set with everything that is missing, each as it is after it was written and read back.
pub(crate) fn with_all(policies: &PolicySet, missing: &[Missing]) -> Option<PolicySet> {
    let mut all = policies.clone();
    for one in missing {
        one.read_back()?.add_to(&mut all);
    }
    Some(all)
}

/// What to add for this side, and its place in `missing`, where it is put if it is not there yet; or why
/// nothing can be written.
pub(crate) fn find(
    input: Input<'_>,
    ends: &[Cow<'_, Pod>],
    side: &Side<'_>,
    missing: &mut Vec<Missing>,
) -> Result<usize, String> {
    let mut found = nearest(input, ends, side)?;
    let name = found.policy.name.clone();
    for number in 2.. {
        match missing.iter().position(|known| known.policy_name() == found.policy_name()) {
            Some(_) if missing.contains(&found) => break,
            // A new policy takes one rule, and each its own name.
            Some(_) if found.is_new => found.policy.name = free_name(input.policies, side, &format!("{name}-{number}")),
            _ => {
                missing.push(found);
                return Ok(missing.len() - 1);
            }
        }
    }
    Ok(missing.iter().position(|known| *known == found).unwrap_or_default())
}

fn nearest(input: Input<'_>, ends: &[Cow<'_, Pod>], side: &Side<'_>) -> Result<Missing, String> {
    let (peer, peer_also) = peer(input, ends, &side.peer)?;
    let rule = Rule { peers: peer, ports: vec![side.port.clone()], source: None };
    let isolating = isolating(input, side);
    let Some(first) = isolating.first() else { return Err("no policy isolates this side".to_owned()) };
    let own = own_selector(input, side.workload, &side.pods);
    if let Some(policy) = isolating.iter().copied().find(|policy| is_of_workload_alone(input, ends, side, policy)) {
        let extended = with_rule(policy.clone(), side.direction, rule);
        return Ok(Missing {
            direction: side.direction,
            policy: extended,
            extends: policy.source.clone(),
            is_new: false,
            also: peer_also,
        });
    }
    let own = own.ok_or_else(|| format!("no label tells {} from others; give it one", side.workload))?;
    let base = isolating.iter().copied().min_by_key(|p| p.pod_selector.keys().count()).unwrap_or(first);
    let pod_selector = both(&own, &base.pod_selector);
    let also = ends.iter().filter(|pod| !pod.host_network && pod.namespace == side.workload.namespace);
    let also = also.filter(|pod| pod_selector.matches(&pod.labels)).map(|pod| input.cluster.root_owner(pod));
    let also: BTreeSet<String> = also.filter(|key| key != side.workload).map(|key| key.to_string()).collect();
    let empty = NetworkPolicy {
        namespace: side.workload.namespace.clone(),
        name: new_name(input.policies, side),
        labels: Labels::new(),
        annotations: Labels::new(),
        pod_selector,
        ingress: None,
        egress: None,
        source: None,
    };
    Ok(Missing {
        direction: side.direction,
        policy: with_rule(empty, side.direction, rule),
        extends: None,
        is_new: true,
        also: also.into_iter().chain(peer_also).collect(),
    })
}

/// The policies that isolate every pod of the side.
fn isolating<'i>(input: Input<'i>, side: &Side<'_>) -> Vec<&'i NetworkPolicy> {
    let isolates = |policy: &&NetworkPolicy| {
        let direction = match side.direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        policy.namespace == side.workload.namespace
            && direction.is_some()
            && side.pods.iter().all(|pod| policy.pod_selector.matches(&pod.labels))
    };
    input.policies.policies.iter().filter(isolates).collect()
}

/// Whether a policy selects by labels, and pods of this workload and nobody else's.
fn is_of_workload_alone(input: Input<'_>, ends: &[Cow<'_, Pod>], side: &Side<'_>, policy: &NetworkPolicy) -> bool {
    if policy.pod_selector.keys().next().is_none() {
        return false;
    }
    let selected = ends.iter().filter(|pod| !pod.host_network && pod.namespace == policy.namespace);
    let mut selected = selected.filter(|pod| policy.pod_selector.matches(&pod.labels));
    selected.all(|pod| input.cluster.root_owner(pod) == *side.workload)
}

fn with_rule(mut policy: NetworkPolicy, direction: Direction, rule: Rule) -> NetworkPolicy {
    let list = match direction {
        Direction::Ingress => &mut policy.ingress,
        Direction::Egress => &mut policy.egress,
    };
    list.get_or_insert_default().push(rule);
    policy
}

/// The peers of the rule, and whom else they hold.
fn peer(input: Input<'_>, ends: &[Cow<'_, Pod>], peer: &PeerEnd<'_>) -> Result<(Vec<Peer>, Vec<String>), String> {
    match peer {
        PeerEnd::Addresses(addresses) if addresses.is_empty() => {
            Err("the other end is on the host network, and the input does not tell its node's address".to_owned())
        }
        PeerEnd::Addresses(addresses) if addresses.len() > MOST_ADDRESSES => Err(format!(
            "the other end has {} addresses, too many to list; choose a block that holds them",
            addresses.len()
        )),
        PeerEnd::Addresses(addresses) => {
            let block = |address: &IpAddr| Peer::Block { cidr: IpNet::from(*address), except: Vec::new() };
            Ok((addresses.iter().map(block).collect(), Vec::new()))
        }
        PeerEnd::Pods(workload, pods) => {
            let selector = own_selector(input, workload, pods)
                .ok_or_else(|| format!("no label tells {workload} from others; give it one"))?;
            let at = Selector::of(Labels::from([(METADATA_NAME.to_owned(), workload.namespace.clone())]));
            let held = ends.iter().filter(|pod| !pod.host_network && pod.namespace == workload.namespace);
            let held = held.filter(|pod| selector.matches(&pod.labels)).map(|pod| input.cluster.root_owner(pod));
            let also: BTreeSet<String> = held.filter(|key| key != *workload).map(|key| key.to_string()).collect();
            Ok((vec![Peer::Pods { namespaces: Some(at), pods: Some(selector) }], also.into_iter().collect()))
        }
    }
}

/// What selects these pods of a workload: its own selector if that does, else the stable labels they share.
fn own_selector(input: Input<'_>, workload: &WorkloadKey, pods: &[&Pod]) -> Option<Selector> {
    let selects = |selector: &Selector| pods.iter().all(|pod| selector.matches(&pod.labels));
    if let Some(selector) = input.cluster.selector_of(workload).filter(selects) {
        return Some(selector);
    }
    let (first, rest) = pods.split_first()?;
    let shared = first.labels.iter().filter(|(key, value)| rest.iter().all(|pod| pod.labels.get(*key) == Some(*value)));
    let stable = shared.filter(|(key, _)| model::cluster::is_stable(key));
    let labels: Labels = stable.map(|(key, value)| (key.clone(), value.clone())).collect();
    (!labels.is_empty()).then(|| Selector::of(labels))
}

/// A selector of what both select. What `base` isolates stays the most that it can select.
fn both(own: &Selector, base: &Selector) -> Selector {
    let mut all = own.clone();
    for (key, value) in &base.match_labels {
        all.match_labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let more = base.match_expressions.iter().filter(|requirement| !own.match_expressions.contains(requirement));
    all.match_expressions.extend(more.cloned());
    all
}

/// A name that no policy of the namespace has.
fn new_name(policies: &PolicySet, side: &Side<'_>) -> String {
    let (way, peer) = match (side.direction, &side.peer) {
        (Direction::Ingress, PeerEnd::Pods(key, _)) => ("from", key.name.clone()),
        (Direction::Egress, PeerEnd::Pods(key, _)) => ("to", key.name.clone()),
        (Direction::Ingress, PeerEnd::Addresses(_)) => ("from", "address".to_owned()),
        (Direction::Egress, PeerEnd::Addresses(_)) => ("to", "address".to_owned()),
    };
    let mut name = format!("{}-{way}-{peer}", side.workload.name);
    if name.len() > LONGEST_NAME - 8 || !name.is_ascii() {
        name = format!("allow-{way}-peer");
    }
    free_name(policies, side, &name)
}

/// The name, with a number where a policy has it.
fn free_name(policies: &PolicySet, side: &Side<'_>, name: &str) -> String {
    let is_free = |name: &String| policies.get(&side.workload.namespace, name).is_none();
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(is_free).unwrap_or_default()
}
