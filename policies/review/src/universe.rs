//! Every end that the policies of one input, or of two at once, could tell apart.
//!
//! Always holds: two pods in one class are treated alike by every policy of every input, at the same
//! port and in both directions; so are two addresses in one block, and two label combinations in one
//! class of nobody. Whoever could come is like a class of pods that run, over the address families
//! these have, or is one of nobody.

use crate::{
    atoms::{AtomId, Atoms},
    boxes::{KeySet, LabelBox, cells},
};
use ipnet::IpNet;
use model::{
    cluster::{Cluster, ContainerPort, Pod, WorkloadKey},
    labels::{Labels, METADATA_NAME, Selector},
    policy::{Peer, PolicySet, Port, PortMatch, Rule},
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

/// Label combinations are told apart up to this many in one namespace; what is left out is named in
/// [`Universe::incomplete`].
const MOST_CELLS: usize = 2000;

/// Objects and the policies over them.
#[derive(Clone, Copy, Debug)]
pub struct Input<'c> {
    /// Pods, workloads, namespaces.
    pub cluster: &'c Cluster,
    /// The policies that are asked.
    pub policies: &'c PolicySet,
}

/// An end's number in its [`Universe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndId(pub(crate) u32);

impl EndId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Who can stand at an end of a connection.
#[derive(Clone, Debug)]
pub enum End {
    /// Pods that run, or would: see `Cluster::ends`.
    Pods(PodClass),
    /// Addresses that are no pod's of the input.
    Block(Block),
    /// Labels that no pod has in any input, over all address families that pods have.
    Nobody(Nobody),
}

/// Which addresses an end has, as far as rules can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Both, or not known: the same is said of both.
    Both,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Whether ends of these families can have a connection.
    pub fn meets(self, other: Self) -> bool {
        self == Self::Both || other == Self::Both || self == other
    }
}

/// Pods that no policy tells apart, at addresses that none tells apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodClass {
    /// Their namespace.
    pub namespace: String,
    /// Their labels, of the keys that a selector looks at in their namespace.
    pub labels: Labels,
    /// Their container ports of names that some rule uses: name, protocol number, port; in order.
    pub ports: Vec<(String, u8, u16)>,
    /// hostNetwork: selected by nothing, and as peers their node.
    pub host_network: bool,
    /// At their addresses of this family.
    pub family: Family,
    /// The class of these addresses, where a block holds them.
    pub atom: Option<AtomId>,
}

/// Addresses that no rule tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    /// Their class.
    pub atom: AtomId,
    /// Their family.
    pub family: Family,
}

/// Pods that nobody runs yet, and that policies would tell from those that run. They have no address
/// and no named port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nobody {
    /// Where.
    pub namespace: Where,
    /// One combination of labels of this class.
    pub labels: Labels,
    /// What its labels are, as far as selectors look: for people.
    pub described: String,
    /// Pods that run with such labels, over fewer address families than the others have. What they
    /// may, and may receive, is theirs to tell, with the addresses and the named ports that they have.
    pub like: Vec<EndId>,
    /// The families over which it could come and be like none of those that run.
    pub over: Family,
}

/// A namespace of pods that nobody runs yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Where {
    /// One of the input.
    Existing(String),
    /// One that does not exist.
    New {
        /// One combination of labels that tells it from others.
        labels: Labels,
        /// The same for people.
        described: String,
    },
}

/// All ends of one or more inputs.
pub struct Universe<'c> {
    inputs: Vec<Input<'c>>,
    ends: Vec<End>,
    atoms: Atoms<'c>,
    /// By input: who is there, in the cluster's order, with the ends each stands for.
    pods: Vec<Vec<(Cow<'c, Pod>, Vec<EndId>)>>,
    /// By input: workloads with their ends.
    workloads: Vec<BTreeMap<WorkloadKey, Vec<EndId>>>,
    /// Ends that policies of a namespace can select, or that its name leads to.
    by_namespace: BTreeMap<String, Vec<EndId>>,
    in_new_namespaces: Vec<EndId>,
    blocks: Vec<EndId>,
    by_atom: HashMap<AtomId, Vec<EndId>>,
    /// Which addresses pods of any input have; both families where none is known.
    families: Family,
    incomplete: Vec<String>,
}

impl<'c> Universe<'c> {
    /// The ends of these inputs, each told from the others where a policy of any input does.
    pub fn of(inputs: &[Input<'c>]) -> Self {
        let rules = || inputs.iter().flat_map(|input| &input.policies.policies).flat_map(rules_of);
        let mut universe = Self {
            inputs: inputs.to_vec(),
            ends: Vec::new(),
            atoms: Atoms::new(rules().flat_map(|rule| &rule.peers)),
            pods: Vec::new(),
            workloads: Vec::new(),
            by_namespace: BTreeMap::new(),
            in_new_namespaces: Vec::new(),
            blocks: Vec::new(),
            by_atom: HashMap::new(),
            families: families_of(inputs),
            incomplete: Vec::new(),
        };
        let names = rules().flat_map(|rule| &rule.ports).filter_map(named).collect();
        let lookers = Lookers::of(inputs);
        universe.add_pods(&lookers, &names);
        universe.add_blocks();
        universe.add_nobody(&lookers);
        universe
    }

    /// The inputs, in the order given.
    pub fn inputs(&self) -> &[Input<'c>] {
        &self.inputs
    }

    /// Every end with its number.
    pub fn ends(&self) -> impl Iterator<Item = (EndId, &End)> {
        (0..).map(EndId).zip(&self.ends)
    }

    /// How many ends there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no end; there are always addresses.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// An end.
    pub fn end(&self, id: EndId) -> &End {
        &self.ends[id.index()]
    }

    /// The pods of an input that are ends now, stand-ins included, with the ends each stands for (one
    /// for each family where rules tell these apart).
    pub fn pods(&self, input: usize) -> &[(Cow<'c, Pod>, Vec<EndId>)] {
        &self.pods[input]
    }

    /// The workloads of an input with their ends.
    pub fn workloads(&self, input: usize) -> &BTreeMap<WorkloadKey, Vec<EndId>> {
        &self.workloads[input]
    }

    /// The address blocks.
    pub fn blocks(&self) -> &[EndId] {
        &self.blocks
    }

    /// The block that an address lies in, whoever has it.
    pub fn block_at(&self, address: IpAddr) -> EndId {
        let atom = self.atoms.at(address);
        let is_it = |id: &&EndId| matches!(self.end(**id), End::Block(block) if block.atom == atom);
        // Every address lies in a class, and every class has its block.
        self.blocks.iter().find(is_it).copied().unwrap_or(EndId(0))
    }

    /// The label combinations that nobody runs yet.
    pub fn nobody(&self) -> impl Iterator<Item = (EndId, &Nobody)> {
        self.ends().filter_map(|(id, end)| match end {
            End::Nobody(nobody) => Some((id, nobody)),
            End::Pods(_) | End::Block(_) => None,
        })
    }

    /// Namespaces in which more label combinations are told apart than were looked at.
    pub fn incomplete(&self) -> &[String] {
        &self.incomplete
    }

    /// These blocks together as the fewest CIDRs; ends that are no blocks do not count.
    pub fn cidrs(&self, ends: impl IntoIterator<Item = EndId>) -> Vec<IpNet> {
        let atoms = ends.into_iter().filter_map(|id| match self.end(id) {
            End::Block(block) => Some(block.atom),
            End::Pods(_) | End::Nobody(_) => None,
        });
        self.atoms.cidrs(&atoms.collect())
    }

    /// A class of addresses as the fewest CIDRs.
    pub(crate) fn cidrs_of(&self, atom: AtomId) -> Vec<IpNet> {
        self.atoms.cidrs(&BTreeSet::from([atom]))
    }

    /// Pods and combinations of a namespace that its policies can select.
    pub(crate) fn in_namespace(&self, namespace: &str) -> &[EndId] {
        self.by_namespace.get(namespace).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn in_new_namespaces(&self) -> &[EndId] {
        &self.in_new_namespaces
    }

    /// The ends at addresses that a block with its holes holds.
    pub(crate) fn at_block<'s>(&'s self, cidr: &'c IpNet, except: &'c [IpNet]) -> impl Iterator<Item = EndId> + 's {
        self.atoms.of_block(cidr, except).iter().filter_map(|atom| self.by_atom.get(atom)).flatten().copied()
    }

    /// The labels that selectors look at, of an end that has some.
    pub(crate) fn labels(&self, id: EndId) -> Option<&Labels> {
        match self.end(id) {
            End::Pods(class) => Some(&class.labels),
            End::Nobody(nobody) => Some(&nobody.labels),
            End::Block(_) => None,
        }
    }

    /// The namespace of the input that an end is in.
    pub(crate) fn namespace(&self, id: EndId) -> Option<&str> {
        match self.end(id) {
            End::Pods(class) => Some(&class.namespace),
            End::Nobody(Nobody { namespace: Where::Existing(name), .. }) => Some(name),
            End::Nobody(_) | End::Block(_) => None,
        }
    }

    pub(crate) fn family(&self, id: EndId) -> Family {
        match self.end(id) {
            End::Pods(class) => class.family,
            End::Block(block) => block.family,
            End::Nobody(_) => Family::Both,
        }
    }

    /// Whether two ends could have a connection, now or once somebody comes: who comes has addresses
    /// of the families that pods have.
    pub(crate) fn could_meet(&self, from: EndId, to: EndId) -> bool {
        let fits = |one: EndId, other: EndId| match self.end(one) {
            End::Nobody(nobody) => nobody.over.meets(self.family(other)),
            End::Pods(_) | End::Block(_) => true,
        };
        self.family(from).meets(self.family(to)) && fits(from, to) && fits(to, from)
    }

    /// The families that pods have and these ends have not; `None` where they have all.
    fn beyond(&self, ends: &[EndId]) -> Option<Family> {
        let has = |family: Family| ends.iter().any(|end| self.family(*end).meets(family));
        let is_missing = |family: Family| family.meets(self.families) && !has(family);
        match (is_missing(Family::V4), is_missing(Family::V6)) {
            (true, true) => Some(Family::Both),
            (true, false) => Some(Family::V4),
            (false, true) => Some(Family::V6),
            (false, false) => None,
        }
    }

    fn push(&mut self, end: End) -> EndId {
        let id = EndId(u32::try_from(self.ends.len()).unwrap_or(u32::MAX));
        self.ends.push(end);
        id
    }

    fn add_pods(&mut self, lookers: &Lookers<'c>, names: &HashSet<&str>) {
        let mut known: HashMap<PodClass, EndId> = HashMap::new();
        for input in self.inputs.clone() {
            let (mut pods, mut workloads) = (Vec::new(), BTreeMap::<WorkloadKey, Vec<EndId>>::new());
            for pod in input.cluster.ends() {
                let mut ends = Vec::with_capacity(1);
                for class in self.classes(&pod, lookers, names) {
                    let id = match known.get(&class) {
                        Some(id) => *id,
                        None => {
                            let id = self.push(End::Pods(class.clone()));
                            if !class.host_network {
                                self.by_namespace.entry(class.namespace.clone()).or_default().push(id);
                            }
                            if let Some(atom) = class.atom {
                                self.by_atom.entry(atom).or_default().push(id);
                            }
                            known.insert(class, id);
                            id
                        }
                    };
                    ends.push(id);
                }
                workloads.entry(input.cluster.root_owner(&pod)).or_default().extend(&ends);
                pods.push((pod, ends));
            }
            for ends in workloads.values_mut() {
                ends.sort_unstable();
                ends.dedup();
            }
            self.pods.push(pods);
            self.workloads.push(workloads);
        }
    }

    /// The classes of a pod: one where no rule tells its addresses apart, else one for each family.
    fn classes(&self, pod: &Pod, lookers: &Lookers<'c>, names: &HashSet<&str>) -> Vec<PodClass> {
        let keys = lookers.keys.get(&pod.namespace);
        let looked_at = |key: &&String| !pod.host_network && keys.is_some_and(|keys| keys.contains(key.as_str()));
        let mut ports: Vec<_> = match pod.host_network {
            true => Vec::new(),
            false => pod.ports.iter().filter_map(|port| named_port(port, names)).collect(),
        };
        ports.sort();
        ports.dedup();
        let class = PodClass {
            namespace: pod.namespace.clone(),
            labels: pod.labels.iter().filter(|(key, _)| looked_at(key)).map(|(k, v)| (k.clone(), v.clone())).collect(),
            ports,
            host_network: pod.host_network,
            family: Family::Both,
            atom: None,
        };
        let mut at: BTreeSet<(Family, Option<AtomId>)> = BTreeSet::new();
        for address in &pod.addresses {
            let atom = self.atoms.at(*address);
            let family = if self.atoms.is_v4(atom) { Family::V4 } else { Family::V6 };
            at.insert((family, Some(atom).filter(|atom| self.atoms.is_in_a_block(*atom))));
        }
        let families: BTreeSet<Family> = at.iter().map(|(family, _)| *family).collect();
        if at.is_empty() || (families.len() == 2 && at.iter().all(|(_, atom)| atom.is_none())) {
            return vec![class];
        }
        at.into_iter().map(|(family, atom)| PodClass { family, atom, ..class.clone() }).collect()
    }

    fn add_blocks(&mut self) {
        for atom in self.atoms.all() {
            let family = if self.atoms.is_v4(atom) { Family::V4 } else { Family::V6 };
            let id = self.push(End::Block(Block { atom, family }));
            self.by_atom.entry(atom).or_default().push(id);
            self.blocks.push(id);
        }
    }

    fn add_nobody(&mut self, lookers: &Lookers<'c>) {
        let named = self.inputs.iter().flat_map(|input| input.cluster.namespaces.keys()).map(String::as_str);
        let everywhere: BTreeSet<&str> = named.chain(lookers.policy_namespaces.iter().copied()).collect();
        for namespace in everywhere.iter().copied() {
            let selectors = lookers.pod_selectors.get(namespace).map_or(&[][..], Vec::as_slice);
            let signature = |labels: &Labels| selectors.iter().map(|s| s.matches(labels)).collect::<Vec<_>>();
            let mut running: HashMap<Vec<bool>, Vec<EndId>> = HashMap::new();
            for id in self.in_namespace(namespace) {
                running.entry(self.labels(*id).map(signature).unwrap_or_default()).or_default().push(*id);
            }
            let (cells, complete) = cells(LabelBox::default(), selectors, MOST_CELLS);
            if !complete {
                self.incomplete.push(format!("namespace {namespace}"));
            }
            for cell in cells {
                let labels = cell.witness();
                let like = running.remove(&signature(&labels)).unwrap_or_default();
                let Some(over) = self.beyond(&like) else { continue };
                let (at, described) = (Where::Existing(namespace.to_owned()), cell.to_string());
                let id = self.push(End::Nobody(Nobody { namespace: at, labels, described, like, over }));
                self.by_namespace.entry(namespace.to_owned()).or_default().push(id);
            }
        }
        self.add_new_namespaces(lookers, &everywhere);
    }

    fn add_new_namespaces(&mut self, lookers: &Lookers<'c>, existing: &BTreeSet<&str>) {
        let names = KeySet::present_but(existing.iter().map(|name| (*name).to_owned()));
        let Some(whole) = LabelBox::default().with(METADATA_NAME, &names) else { return };
        let (namespaces, complete) = cells(whole, &lookers.namespace_selectors, MOST_CELLS);
        if !complete {
            self.incomplete.push("namespaces that do not exist yet".to_owned());
        }
        for namespace in namespaces {
            let labels = namespace.witness();
            let described = describe_namespace(&namespace, &labels);
            let peers = lookers.peers.iter().filter(|(namespaces, _)| namespaces.matches(&labels));
            let selectors: Vec<&Selector> = peers.map(|(_, pods)| *pods).collect::<BTreeSet<_>>().into_iter().collect();
            let (cells, complete) = cells(LabelBox::default(), &selectors, MOST_CELLS);
            if !complete {
                self.incomplete.push(format!("namespaces that do not exist yet ({described})"));
            }
            for cell in cells {
                let namespace = Where::New { labels: labels.clone(), described: described.clone() };
                let (labels, described) = (cell.witness(), cell.to_string());
                let nobody = Nobody { namespace, labels, described, like: Vec::new(), over: self.families };
                let id = self.push(End::Nobody(nobody));
                self.in_new_namespaces.push(id);
            }
        }
    }
}

/// The families of addresses that pods have of their own.
fn families_of(inputs: &[Input<'_>]) -> Family {
    let ends = inputs.iter().flat_map(|input| input.cluster.ends());
    let addresses: Vec<IpAddr> = ends.filter(|pod| !pod.host_network).flat_map(|pod| pod.addresses.clone()).collect();
    match (addresses.iter().any(IpAddr::is_ipv4), addresses.iter().any(IpAddr::is_ipv6)) {
        (true, false) => Family::V4,
        (false, true) => Family::V6,
        (true, true) | (false, false) => Family::Both,
    }
}

/// What tells a new namespace from others; its name only where a selector asks for it.
fn describe_namespace(namespace: &LabelBox, labels: &Labels) -> String {
    let fresh = labels.get(METADATA_NAME).is_some_and(|name| KeySet::is_fresh(name));
    let told = if fresh { namespace.clone().without(METADATA_NAME) } else { namespace.clone() };
    if told.says_nothing() { "any other namespace".to_owned() } else { told.to_string() }
}

fn rules_of(policy: &model::policy::NetworkPolicy) -> impl Iterator<Item = &Rule> {
    policy.ingress.iter().chain(&policy.egress).flatten()
}

fn named(port: &Port) -> Option<&str> {
    match &port.port {
        PortMatch::Named(name) => Some(name),
        PortMatch::All | PortMatch::Range(..) => None,
    }
}

fn named_port(port: &ContainerPort, names: &HashSet<&str>) -> Option<(String, u8, u16)> {
    let name = port.name.as_deref().filter(|name| names.contains(name))?;
    Some((name.to_owned(), port.protocol.number(), port.port))
}

/// Which selectors look where.
struct Lookers<'c> {
    /// By namespace, those that look at its pods.
    pod_selectors: HashMap<String, Vec<&'c Selector>>,
    /// By namespace, the label keys these look at.
    keys: HashMap<String, HashSet<&'c str>>,
    /// Those that look at namespaces.
    namespace_selectors: Vec<&'c Selector>,
    /// Both of a peer, where it has both; the namespace's alone goes with everything.
    peers: BTreeSet<(&'c Selector, &'c Selector)>,
    /// Namespaces that hold policies.
    policy_namespaces: BTreeSet<&'c str>,
}

impl<'c> Lookers<'c> {
    fn of(inputs: &[Input<'c>]) -> Self {
        let mut looks: BTreeSet<(String, &'c Selector)> = BTreeSet::new();
        let (mut namespaces, mut peers, mut policy_namespaces) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for input in inputs {
            let mut led_to: HashMap<&Selector, Vec<String>> = HashMap::new();
            for policy in &input.policies.policies {
                policy_namespaces.insert(policy.namespace.as_str());
                looks.insert((policy.namespace.clone(), &policy.pod_selector));
                for peer in rules_of(policy).flat_map(|rule| &rule.peers) {
                    let Peer::Pods { namespaces: at, pods } = peer else { continue };
                    namespaces.extend(at);
                    let Some(pods) = pods else { continue };
                    match at {
                        None => drop(looks.insert((policy.namespace.clone(), pods))),
                        Some(at) => {
                            peers.insert((at, pods));
                            let matching = || namespaces_matching(input.cluster, at);
                            let names = led_to.entry(at).or_insert_with(matching);
                            looks.extend(names.iter().map(|name| (name.clone(), pods)));
                        }
                    }
                }
            }
        }
        let (mut pod_selectors, mut keys) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, HashSet<_>>::new());
        for (namespace, selector) in looks {
            keys.entry(namespace.clone()).or_default().extend(selector.keys());
            pod_selectors.entry(namespace).or_default().push(selector);
        }
        Self { pod_selectors, keys, namespace_selectors: namespaces.into_iter().collect(), peers, policy_namespaces }
    }
}

/// The namespaces of a cluster that a selector leads to.
pub(crate) fn namespaces_matching(cluster: &Cluster, selector: &Selector) -> Vec<String> {
    let matching = cluster.namespaces.iter().filter(|(_, namespace)| selector.matches(&namespace.labels));
    matching.map(|(name, _)| name.clone()).collect()
}
