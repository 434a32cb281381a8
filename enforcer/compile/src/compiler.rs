//! Numbers that go on from compile to compile.

use crate::{
    Changed, Endpoint, Error, RuleTable, SourcePrefixes, Warning,
    classes::{Class, Prefix, Universe, classes, longest},
    frontends::frontends,
    plan::{Bridge, EndpointChange, Plan, plan},
    slots::{Identities, Slot, expand},
    subjects::{Grants, Modes, Names, Policies, Subject, holders, subjects},
    terms::{Interner, PortName},
};
use flow::Address;
use model::{cluster::Cluster, policy::PolicySet};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};
use verdict::{
    Mode, abi,
    abi::{ANYONE, FRONTENDS, GENERATION_BITS, GenerationRecord, MAX_ENDPOINTS},
};

/// Terms of policies that are gone which identities may still tell apart, beside as many as are in use.
const SPARE: usize = 64;

/// Compiles for one node, again and again, with numbers that keep their meaning.
#[derive(Clone, Debug)]
pub struct Compiler {
    node: String,
    modes: Modes,
    names: Names,
    identities: Interner<Class>,
    slots: Interner<Arc<Slot>>,
    next_generation: u32,
    next_ordinal: u32,
    covered: BTreeSet<Arc<str>>,
    state: State,
}

/// Slots of one compile, by grants and the addresses that tell a pod from others with the same. Equal grants
/// are one, so that it is enough to look at where they lie.
type Expanded = HashMap<(*const Grants, Vec<Address>), (u32, Arc<Slot>)>;

/// What is in force, by content and by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    subjects: BTreeMap<Arc<str>, Subject>,
    classes: BTreeMap<Prefix, Class>,
    universe: Universe,
    table: RuleTable,
}

impl Compiler {
    /// For the pods of `node`; `default_mode` holds where no label says another.
    pub fn new(node: &str, default_mode: Mode) -> Self {
        Self {
            node: node.to_owned(),
            modes: Modes { default: default_mode, held: BTreeMap::new(), source_prefixes: SourcePrefixes::Ignored },
            names: Names::default(),
            identities: Interner::default(),
            slots: Interner::default(),
            next_generation: 1,
            next_ordinal: 1,
            covered: BTreeSet::new(),
            state: State::default(),
        }
    }

    /// Pods, by UID, that a namespace's label or the default brings no further than to this mode, from the next
    /// plan on. Their workload's own label does: it is the operator's word for them.
    pub fn hold(&mut self, held: BTreeMap<Arc<str>, Mode>) {
        self.modes.held = held;
    }

    /// What pods' annotations of source prefixes count for, from the next plan on.
    pub fn source_prefixes(&mut self, setting: SourcePrefixes) {
        self.modes.source_prefixes = setting;
    }

    /// The tables in force: those of the plan last adopted.
    pub fn table(&self) -> &RuleTable {
        &self.state.table
    }

    /// The pods, by UID, at whose links both hooks stand, from the next plan on: a Service may be allowed in part only
    /// where each backend that is refused is one of them. [`Changed::Yes`]: a plan made now may differ.
    pub fn cover(&mut self, pods: BTreeSet<Arc<str>>) -> Changed {
        if self.covered == pods {
            return Changed::No;
        }
        self.covered = pods;
        Changed::Yes
    }

    /// The way from the tables in force to what this cluster and these policies need. Nothing changes
    /// until the plan is [adopted](Self::adopt).
    pub fn plan(&mut self, cluster: &Cluster, in_force: &PolicySet, staged: &PolicySet) -> Result<Plan, Error> {
        let mut warnings = BTreeSet::new();
        let held = holders(cluster, &mut warnings);
        let policies = Policies::new(in_force, staged);
        let subjects = subjects(cluster, &held, &policies, &self.node, &self.modes, &mut self.names, &mut warnings)?;
        let universe = self.universe(&subjects)?;
        let mut classes = classes(cluster, &held, &universe, &self.names);
        self.frontends(cluster, &subjects, &universe, &mut classes)?;
        let numbered = self.number(classes.values())?;
        let mut table = RuleTable {
            identities: classes.iter().map(|(prefix, class)| (*prefix, numbered[class])).collect(),
            peers: self.nodes(cluster, &mut warnings),
            ..RuleTable::default()
        };
        let identities = Identities::new(numbered.iter().map(|(class, number)| (*class, *number)), &self.names);
        table.frontends = identities.frontend_keys().collect();
        let mut taken = Taken::of(&self.state.table);
        self.endpoints(&mut table, &subjects, &identities, &mut taken)?;
        clients(&mut table);
        let bridges = self.bridges(&table, &numbered, &mut taken)?;
        table.rules = self.rules(&table, &bridges);
        table.warnings = warnings.into_iter().collect();
        let next = State { subjects, classes: classes.clone(), universe, table: table.clone() };
        Ok(plan(&self.state.table, table, bridges, next))
    }

    /// The plan was carried out: its tables are in force.
    pub fn adopt(&mut self, plan: &Plan) {
        self.state = plan.next.clone();
        let table = &self.state.table;
        let used: BTreeSet<u32> = table.identities.values().copied().collect();
        self.identities.retain(|number| used.contains(&number) || used.contains(&(number | FRONTENDS)));
        let used: BTreeSet<u32> = self.state.classes.values().map(|class| class.frontends).collect();
        self.names.frontends.retain(|number| used.contains(&number));
        let used: BTreeSet<u32> = table.slots.keys().map(|number| abi::slot_index(*number)).collect();
        self.slots.retain(|index| used.contains(&index));
    }

    /// Terms and port names that identities tell apart: those of the new policies and, where they
    /// change, of the old ones too, under which the new identities are judged for a moment.
    fn universe(&mut self, subjects: &BTreeMap<Arc<str>, Subject>) -> Result<Universe, Error> {
        let needed = Universe::of(subjects.values(), &mut self.names)?;
        let before = &self.state.universe;
        // Telling apart more than needed is right too, and spares renumbering at every small change.
        if before.holds(&needed) && before.len() <= 2 * needed.len() + SPARE {
            return Ok(before.clone());
        }
        Ok(Universe::of(self.state.subjects.values(), &mut self.names)?.united(&needed))
    }

    /// Puts the Services that addresses lead to into the classes of these addresses.
    fn frontends(
        &mut self,
        cluster: &Cluster,
        subjects: &BTreeMap<Arc<str>, Subject>,
        universe: &Universe,
        classes: &mut BTreeMap<Prefix, Class>,
    ) -> Result<(), Error> {
        let covered = subjects.iter().filter(|(uid, _)| self.covered.contains(*uid));
        let covered = covered.flat_map(|(_, subject)| subject.addresses).filter(|a| *a != Address::default()).collect();
        let found = frontends(&cluster.frontends(), classes, &universe.openers, &covered);
        let numbered = found.into_iter().map(|(address, frontends)| {
            let number = self.names.frontends.number(&frontends.into(), u32::MAX);
            let prefix = Prefix::host(address);
            let class = longest(classes, &prefix).cloned().unwrap_or_default();
            let frontends = number.ok_or(Error::Exhausted { what: "frontend" })?;
            Ok((prefix, Class { frontends, ..class }))
        });
        let numbered: Vec<_> = numbered.collect::<Result<_, Error>>()?;
        classes.extend(numbered);
        Ok(())
    }

    /// The number of each class; addresses that nothing tells apart have none.
    fn number<'a>(&mut self, classes: impl Iterator<Item = &'a Class>) -> Result<HashMap<&'a Class, u32>, Error> {
        let mut numbered = HashMap::new();
        for class in classes {
            if *class == Class::default() {
                numbered.insert(class, ANYONE);
            } else if !numbered.contains_key(class) {
                let number = self.identities.number(class, FRONTENDS).ok_or(Error::Exhausted { what: "identity" })?;
                numbered.insert(class, if class.frontends == 0 { number } else { number | FRONTENDS });
            }
        }
        Ok(numbered)
    }

    fn nodes(&self, cluster: &Cluster, warnings: &mut BTreeSet<Warning>) -> BTreeMap<Address, u32> {
        if !cluster.nodes.contains_key(&self.node) {
            warnings.insert(Warning::UnknownNode { node: self.node.clone() });
        }
        let mut nodes = BTreeMap::new();
        for (name, node) in &cluster.nodes {
            let own = *name == self.node;
            for address in &node.addresses {
                let of = nodes.entry(Address::from(*address)).or_insert(abi::OTHER_NODE);
                if own {
                    *of = abi::OWN_NODE;
                }
            }
        }
        nodes
    }

    fn endpoints(
        &mut self,
        table: &mut RuleTable,
        subjects: &BTreeMap<Arc<str>, Subject>,
        identities: &Identities,
        taken: &mut Taken,
    ) -> Result<(), Error> {
        let mut expanded = Expanded::default();
        for (uid, subject) in subjects {
            let mut number = |grants: &Arc<Grants>| -> Result<u32, Error> {
                let (number, slot) = self.slot(grants, &subject.addresses, identities, &mut expanded)?;
                table.slots.insert(number, slot);
                Ok(number)
            };
            let in_force = number(&subject.in_force)?;
            let staged = subject.staged.as_ref().map(&mut number).transpose()?.unwrap_or(0);
            let record = record(in_force, staged, subject.mode);
            let generation = self.generation(record, taken)?;
            table.generations.insert(generation, record);
            let before = self.state.table.endpoints.get(uid).filter(|before| before.addresses == subject.addresses);
            let ordinal = match before {
                Some(before) => before.ordinal,
                None => self.ordinal(taken)?,
            };
            let endpoint = Endpoint {
                ordinal,
                uid: uid.clone(),
                namespace: subject.namespace.clone(),
                name: subject.name.clone(),
                addresses: subject.addresses,
                further: subject.further.clone(),
                mode: subject.mode,
                in_force,
                staged,
                generation,
            };
            table.endpoints.insert(uid.clone(), endpoint);
        }
        Ok(())
    }

    /// The old policies over old and new identities, for endpoints that stay and do not know the new ones.
    fn bridges(
        &mut self,
        table: &RuleTable,
        numbered: &HashMap<&Class, u32>,
        taken: &mut Taken,
    ) -> Result<Vec<Bridge>, Error> {
        let mut bridges = Vec::new();
        let old = self.state.clone();
        if table.identities == old.table.identities {
            return Ok(bridges);
        }
        let old_classes: BTreeSet<&Class> = old.classes.values().collect();
        let both: HashMap<&Class, u32> =
            self.number(old_classes.into_iter())?.into_iter().chain(numbered.iter().map(|(c, n)| (*c, *n))).collect();
        let identities = Identities::new(both.iter().map(|(class, number)| (*class, *number)), &self.names);
        let mut expanded = Expanded::default();
        for (uid, before) in &old.table.endpoints {
            let stays = table.endpoints.get(uid).is_some_and(|after| after.ordinal == before.ordinal);
            let Some(subject) = old.subjects.get(uid).filter(|_| stays) else { continue };
            let (in_force, slot) = self.slot(&subject.in_force, &subject.addresses, &identities, &mut expanded)?;
            let mut slots = vec![(in_force, slot)];
            let mut staged = 0;
            if let Some(grants) = &subject.staged {
                let (number, slot) = self.slot(grants, &subject.addresses, &identities, &mut expanded)?;
                slots.push((number, slot));
                staged = number;
            }
            if (in_force, staged) == (before.in_force, before.staged) {
                continue;
            }
            let record = record(in_force, staged, before.mode);
            let generation = self.generation(record, taken)?;
            let change = EndpointChange { ordinal: before.ordinal, uid: uid.clone(), generation };
            bridges.push(Bridge { change, record, slots });
        }
        Ok(bridges)
    }

    /// The slot of these grants for a pod with these addresses.
    fn slot(
        &mut self,
        grants: &Arc<Grants>,
        own: &[Address],
        identities: &Identities,
        expanded: &mut Expanded,
    ) -> Result<(u32, Arc<Slot>), Error> {
        let names = &self.names.ports;
        let port_number = |name: &PortName| names.known(name).unwrap_or(0);
        let own = identities.telling(grants, own, &port_number);
        let key = (Arc::as_ptr(grants), own.to_vec());
        if let Some((number, slot)) = expanded.get(&key) {
            return Ok((*number, slot.clone()));
        }
        let slot = Arc::new(expand(grants, identities, own, &port_number));
        let index = self.slots.number(&slot, abi::SLOT_INDICES).ok_or(Error::Exhausted { what: "slot" })?;
        let number = slot.number(index);
        expanded.insert(key, (number, slot.clone()));
        Ok((number, slot))
    }

    /// The generation of this content: one that stands, or the next index that is free. Indices are
    /// used again, in turn: the epoch beside them in an endpoint's word is not.
    fn generation(&mut self, record: GenerationRecord, taken: &mut Taken) -> Result<u32, Error> {
        if let Some(index) = taken.generations.get(&record) {
            return Ok(*index);
        }
        let last = (1 << GENERATION_BITS) - 1;
        for _ in 0..=last {
            let index = self.next_generation;
            // A wheel of the smallest useful size keeps the array short.
            let wheel = (taken.indices.len() as u32 * 2).clamp(1024, last);
            self.next_generation = if index >= wheel { 1 } else { index + 1 };
            if taken.indices.insert(index) {
                taken.generations.insert(record, index);
                return Ok(index);
            }
        }
        Err(Error::Exhausted { what: "generation" })
    }

    /// The next free ordinal, in turn, so that one that was given back rests for long.
    fn ordinal(&mut self, taken: &mut Taken) -> Result<u32, Error> {
        for _ in 0..MAX_ENDPOINTS {
            let ordinal = self.next_ordinal;
            self.next_ordinal = if ordinal + 1 >= MAX_ENDPOINTS { 1 } else { ordinal + 1 };
            if taken.ordinals.insert(ordinal) {
                return Ok(ordinal);
            }
        }
        Err(Error::Exhausted { what: "endpoint" })
    }

    /// The names of the rules in the slots, the bridges' included: events may name them.
    fn rules(&self, table: &RuleTable, bridges: &[Bridge]) -> BTreeMap<u32, crate::RuleOrigin> {
        let bridged = bridges.iter().flat_map(|bridge| bridge.slots.iter().map(|(_, slot)| slot));
        let used: BTreeSet<u32> =
            table.slots.values().chain(bridged).flat_map(|slot| slot.rules(0)).map(|(_, rule)| rule).collect();
        used.into_iter().filter_map(|rule| Some((rule, self.names.rules.content(rule)?.clone()))).collect()
    }
}

/// Names the clients whose slots leave refusals to the hooks of backends.
fn clients(table: &mut RuleTable) {
    let clients = table.endpoints.values().filter(|endpoint| table.leaves_refusals(endpoint));
    let named: Vec<_> = clients.flat_map(Endpoint::as_client).collect();
    for (address, peer) in named {
        table.peers.entry(address).or_insert(peer);
    }
}

fn record(in_force: u32, staged: u32, mode: Mode) -> GenerationRecord {
    [u64::from(in_force) | u64::from(staged) << 32, mode as u64]
}

/// Indices that are in use, in the tables in force or in those being made.
struct Taken {
    generations: HashMap<GenerationRecord, u32>,
    indices: BTreeSet<u32>,
    ordinals: BTreeSet<u32>,
}

impl Taken {
    fn of(table: &RuleTable) -> Self {
        Self {
            generations: table.generations.iter().map(|(index, record)| (*record, *index)).collect(),
            indices: table.generations.keys().copied().collect(),
            ordinals: table.endpoints.values().map(|endpoint| endpoint.ordinal).collect(),
        }
    }
}
