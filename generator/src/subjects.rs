//! Which workloads get a policy, and the selector that means each of them and nobody else.
//!
//! Always holds: a subject's selector matches every face of its own (the label sets its pods have
//! or will have) and no face of another workload of its namespace that exists; it names no label
//! that differs from pod to pod, revision to revision or run to run. Only the inventory decides, so
//! one more flow never changes a selector (law 11).

use crate::{
    closed::DEFAULT_DENY,
    refused::{Indistinguishable, Refused},
};
use model::{
    cluster::{Cluster, Pod, Workload, WorkloadKey, is_stable},
    labels::{Labels, Operator, Requirement, Selector},
    ledger::Party,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// A workload with a policy of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// Who it is.
    pub key: Arc<WorkloadKey>,
    /// Its policy's name, unique in the namespace.
    pub policy: String,
    /// What selects its pods and no others.
    pub selector: Selector,
    /// Whether there are pods.
    pub presence: Presence,
    /// Labels added to its own selector, with the workload each tells it from.
    pub narrowed: Vec<Narrowed>,
    /// Indices into `Cluster::pods` of the pods that show its faces.
    pub pods: Vec<usize>,
}

/// Whether a workload has pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// Pods live.
    Live,
    /// It exists; of its pods none lives now (scaled to zero, or a job between its runs).
    NoPodNow,
    /// It does not exist any more, or is a job of its own that is over (such a one does not run
    /// again); its pods ended within the inventory's time.
    Gone,
}

/// A condition added to a selector.
#[derive(Clone, Debug, PartialEq)]
pub struct Narrowed {
    /// `tier=web`, or `!canary`.
    pub by: String,
    /// A workload whose pods the selector would match without it.
    pub from: Arc<WorkloadKey>,
}

/// All subjects of a cluster, in order.
#[derive(Clone, Debug)]
pub struct Subjects {
    subjects: Vec<Subject>,
    index: HashMap<Arc<WorkloadKey>, usize>,
    /// Workloads that no policy can select: hostNetwork, or without labels or pods, or gone without
    /// a selector of their own.
    pub without_policy: BTreeMap<WorkloadKey, WithoutPolicy>,
}

/// Why a workload has no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WithoutPolicy {
    /// Its pods share their node's address; policies do not select them.
    HostNetwork,
    /// No pod of it was ever seen and its template has no stable label.
    NoLabels,
    /// It is gone, and what would select its pods would select a living workload's.
    GoneAndAlike,
}

impl WithoutPolicy {
    /// What it means, for a person.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::HostNetwork => "hostNetwork: it has its node's address, policies do not select it",
            Self::NoLabels => "no pod of it was seen and its template has no label to select it by",
            Self::GoneAndAlike => "gone, and its labels are those of a living workload",
        }
    }
}

/// A workload before it has a selector.
struct Candidate<'c> {
    key: Arc<WorkloadKey>,
    presence: Presence,
    pods: Vec<usize>,
    /// Distinct stable labels of its pods, now or by its template.
    faces: Vec<BTreeMap<&'c str, &'c str>>,
    selector: Option<Selector>,
}

impl Subjects {
    /// The subjects of a cluster.
    ///
    /// # Errors
    /// Workloads that no stable label tells apart, names that are none.
    pub fn of(cluster: &Cluster) -> Result<Self, Refused> {
        let mut without_policy = BTreeMap::new();
        let candidates = candidates(cluster, &mut without_policy);
        check_names(&candidates)?;
        let mut subjects = resolve(&candidates, &mut without_policy)?;
        subjects.sort_by(|a, b| a.key.cmp(&b.key));
        name_policies(&mut subjects);
        let index = subjects.iter().enumerate().map(|(i, s)| (s.key.clone(), i)).collect();
        Ok(Self { subjects, index, without_policy })
    }

    /// All of them, in order of namespace, kind, name.
    pub fn all(&self) -> &[Subject] {
        &self.subjects
    }

    /// The index of a workload's subject in [`Subjects::all`].
    pub fn find(&self, key: &WorkloadKey) -> Option<usize> {
        self.index.get(key).copied()
    }

    /// The index of the subject at one end of an edge; an address has none.
    pub(crate) fn at(&self, party: &Party) -> Option<usize> {
        match party {
            Party::Workload(key) => self.find(key),
            Party::Node(_) | Party::Outside(_) => None,
        }
    }
}

fn candidates<'c>(cluster: &'c Cluster, without: &mut BTreeMap<WorkloadKey, WithoutPolicy>) -> Vec<Candidate<'c>> {
    let mut pods: BTreeMap<WorkloadKey, Vec<usize>> = BTreeMap::new();
    for (index, pod) in cluster.pods.iter().enumerate() {
        pods.entry(cluster.root_owner(pod)).or_default().push(index);
    }
    for (key, _) in cluster.workloads.iter().filter(|(_, workload)| workload.owner.is_none()) {
        pods.entry(key.clone()).or_default();
    }
    let mut out = Vec::new();
    for (key, all) in pods {
        let workload = cluster.workloads.get(&key);
        let of_own_address: Vec<usize> = all.iter().copied().filter(|i| !cluster.pods[*i].host_network).collect();
        if of_own_address.is_empty() && (!all.is_empty() || workload.is_some_and(|w| w.host_network)) {
            without.insert(key, WithoutPolicy::HostNetwork);
            continue;
        }
        match candidate(cluster, Arc::new(key), workload, of_own_address) {
            Ok(candidate) => out.push(candidate),
            Err(key) => drop(without.insert((*key).clone(), WithoutPolicy::NoLabels)),
        }
    }
    out
}

fn candidate<'c>(
    cluster: &'c Cluster,
    key: Arc<WorkloadKey>,
    workload: Option<&'c Workload>,
    pods: Vec<usize>,
) -> Result<Candidate<'c>, Arc<WorkloadKey>> {
    let live: Vec<usize> = pods.iter().copied().filter(|i| lives(&cluster.pods[*i])).collect();
    let template = workload.map(|w| &w.template_labels).filter(|labels| !labels.is_empty());
    let is_over = key.kind == "Job" && !pods.is_empty();
    let presence = match (live.is_empty(), workload) {
        (false, _) => Presence::Live,
        (true, Some(_)) if !is_over => Presence::NoPodNow,
        (true, _) => Presence::Gone,
    };
    // What ended counts only where nothing tells how the next pod will look.
    let pods = if !live.is_empty() || template.is_some() { live } else { pods };
    // Of a custom controller nobody knows which of its pods' labels mean a revision or a run.
    let passing = match template {
        Some(_) => BTreeSet::new(),
        None => cluster.passing_labels(&key, &pods.iter().map(|i| &cluster.pods[*i]).collect::<Vec<_>>()),
    };
    let labels = pods.iter().map(|i| &cluster.pods[*i].labels).chain(template);
    let faces: BTreeSet<BTreeMap<&str, &str>> = labels.map(|labels| stable(labels, &passing)).collect();
    if faces.is_empty() || (pods.is_empty() && faces.iter().all(BTreeMap::is_empty)) {
        return Err(key);
    }
    let selector = cluster.selector_of(&key);
    Ok(Candidate { key, presence, pods, faces: faces.into_iter().collect(), selector })
}

fn lives(pod: &Pod) -> bool {
    pod.ended.is_none() && !pod.completed
}

fn stable<'l>(labels: &'l Labels, passing: &BTreeSet<String>) -> BTreeMap<&'l str, &'l str> {
    let lasts = |key: &String| is_stable(key) && !passing.contains(key);
    labels.iter().filter(|(key, _)| lasts(key)).map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

fn check_names(candidates: &[Candidate<'_>]) -> Result<(), Refused> {
    let is_name = |text: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends(text.chars().next())
            && ends(text.chars().last())
            && text.len() <= 253
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
    };
    let kind_is_word = |kind: &str| !kind.is_empty() && kind.chars().all(|c| c.is_ascii_alphanumeric());
    let is_legal = |key: &WorkloadKey| is_name(&key.namespace) && is_name(&key.name) && kind_is_word(&key.kind);
    let wrong: Vec<String> =
        candidates.iter().filter(|c| !is_legal(&c.key)).map(|c| crate::naming::workload(&c.key)).collect();
    if wrong.is_empty() { Ok(()) } else { Err(Refused::Name(wrong)) }
}

/// Gives each candidate a selector. What exists is told from what exists; what is gone must also
/// not be matched by a living workload's selector.
fn resolve(
    candidates: &[Candidate<'_>],
    without: &mut BTreeMap<WorkloadKey, WithoutPolicy>,
) -> Result<Vec<Subject>, Refused> {
    let mut by_namespace: BTreeMap<&str, Vec<&Candidate<'_>>> = BTreeMap::new();
    for candidate in candidates {
        by_namespace.entry(&candidate.key.namespace).or_default().push(candidate);
    }
    let (mut out, mut alike) = (Vec::new(), Vec::new());
    for here in by_namespace.values() {
        let (gone, existing): (Vec<_>, Vec<_>) = here.iter().copied().partition(|c| c.presence == Presence::Gone);
        let first_living = out.len();
        for candidate in &existing {
            match tell_apart(candidate, &existing) {
                Ok(subject) => out.push(subject),
                Err(other) => alike.push(Indistinguishable { workload: candidate.key.clone(), other }),
            }
        }
        let living: Vec<Selector> = out[first_living..].iter().map(|s| s.selector.clone()).collect();
        for candidate in &gone {
            let taken = candidate.faces.iter().any(|face| living.iter().any(|s| matches(s, face)));
            match tell_apart(candidate, here) {
                Ok(subject) if !taken => out.push(subject),
                _ => drop(without.insert((*candidate.key).clone(), WithoutPolicy::GoneAndAlike)),
            }
        }
    }
    if alike.is_empty() { Ok(out) } else { Err(Refused::Indistinguishable(alike)) }
}

/// The selector of `own`, narrowed until no other's face matches, by the condition that excludes
/// most at a time (the first by key of several): a label of all its own faces, else a key that none
/// of them has. `Err` names a workload that nothing stable tells it from.
fn tell_apart(own: &Candidate<'_>, here: &[&Candidate<'_>]) -> Result<Subject, Arc<WorkloadKey>> {
    let mut selector = base_selector(own);
    let mut narrowed = Vec::new();
    let shared = shared(&own.faces);
    loop {
        let others = here.iter().filter(|other| other.key != own.key);
        let confused: Vec<_> = others
            .flat_map(|other| other.faces.iter().map(move |face| (other, face)))
            .filter(|(_, face)| matches(&selector, face))
            .collect();
        let Some((other, _)) = confused.first() else { break };
        let excluded = |test: &dyn Fn(&BTreeMap<&str, &str>) -> bool| confused.iter().filter(|(_, f)| test(f)).count();
        let best_label = shared
            .iter()
            .map(|(key, value)| (excluded(&|face| face.get(key) != Some(value)), *key, *value))
            .filter(|(n, ..)| *n > 0)
            .max_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(a.1)));
        if let Some((_, key, value)) = best_label {
            narrowed.push(Narrowed { by: format!("{key}={value}"), from: other.key.clone() });
            selector.match_labels.insert(key.to_owned(), value.to_owned());
            continue;
        }
        let foreign = confused.iter().flat_map(|(_, face)| face.keys().copied());
        let best_absent = foreign
            .filter(|key| own.faces.iter().all(|face| !face.contains_key(key)))
            .map(|key| (excluded(&|face| face.contains_key(key)), key))
            .max_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(a.1)));
        let Some((_, key)) = best_absent else { return Err(other.key.clone()) };
        narrowed.push(Narrowed { by: format!("!{key}"), from: other.key.clone() });
        let absent = Requirement { key: key.to_owned(), operator: Operator::DoesNotExist, values: Vec::new() };
        selector.match_expressions.push(absent);
    }
    Ok(Subject {
        key: own.key.clone(),
        policy: String::new(),
        selector,
        presence: own.presence,
        narrowed,
        pods: own.pods.clone(),
    })
}

/// Its own selector where that is stable and matches all it should, else what all its faces share.
fn base_selector(own: &Candidate<'_>) -> Selector {
    let fits = |s: &&Selector| s.keys().all(is_stable) && own.faces.iter().all(|face| matches(s, face));
    match own.selector.as_ref().filter(fits) {
        Some(selector) => selector.clone(),
        None => Selector::of(shared(&own.faces).into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()),
    }
}

fn shared<'c>(faces: &[BTreeMap<&'c str, &'c str>]) -> BTreeMap<&'c str, &'c str> {
    let Some((first, rest)) = faces.split_first() else { return BTreeMap::new() };
    let in_all = |key: &&str, value: &&str| rest.iter().all(|face| face.get(key) == Some(value));
    first.iter().filter(|(key, value)| in_all(key, value)).map(|(key, value)| (*key, *value)).collect()
}

/// [`Selector::matches`] for a face, without making its labels anew.
fn matches(selector: &Selector, face: &BTreeMap<&str, &str>) -> bool {
    let labels = selector.match_labels.iter().all(|(key, value)| face.get(key.as_str()) == Some(&value.as_str()));
    labels
        && selector.match_expressions.iter().all(|requirement| {
            let value = face.get(requirement.key.as_str());
            let one = value.map(|v| (requirement.key.clone(), (*v).to_owned()));
            requirement.matches(&one.into_iter().collect())
        })
}

/// The workload's name; where two of a namespace share it, or the namespace's default-deny has it, with
/// the kind before it. As long as a name is taken twice, those who have it get their kind.
fn name_policies(subjects: &mut [Subject]) {
    let mut with_kind: BTreeSet<usize> = BTreeSet::new();
    loop {
        let mut taken: BTreeMap<(&str, String), Vec<usize>> = BTreeMap::new();
        for (index, subject) in subjects.iter().enumerate() {
            let name = policy_name(&subject.key, with_kind.contains(&index));
            taken.entry((&subject.key.namespace, name)).or_default().push(index);
        }
        let before = with_kind.len();
        let is_taken = |name: &str, all: &[usize]| all.len() > 1 || name == DEFAULT_DENY;
        with_kind.extend(taken.into_iter().filter(|((_, name), all)| is_taken(name, all)).flat_map(|(_, all)| all));
        if with_kind.len() == before {
            break;
        }
    }
    for (index, subject) in subjects.iter_mut().enumerate() {
        subject.policy = policy_name(&subject.key, with_kind.contains(&index));
    }
}

fn policy_name(key: &WorkloadKey, with_kind: bool) -> String {
    if with_kind { format!("{}-{}", key.kind.to_ascii_lowercase(), key.name) } else { key.name.clone() }
}
