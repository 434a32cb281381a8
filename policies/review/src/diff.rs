//! What opens and what closes from one set of policies and objects to another, and because of what.
//!
//! Always holds (law 12): there is no row exactly when reachability is equal, label combinations that
//! nobody runs included; each row's ports are denied in OLD and allowed in NEW, or the other way
//! round, between some pods of its ends; and each row names at least one change without which it
//! would not be there.

mod aligned;
mod causes;
mod compared;
mod grouped;
mod json;
mod markdown;
mod members;
mod objects;
mod rules;
mod sarif;
mod text;
mod used;

pub use aligned::align;
pub use json::{json_pieces, yaml_pieces};
pub use markdown::{MOST_BYTES, markdown};
pub use sarif::sarif;
pub use text::lines;
pub use used::{Seen, Use};

use crate::{
    evidence::{Evidence, EvidenceOf},
    reach::Direction,
    sets::{Allowed, SetId, Sets},
    universe::Input,
};
use ipnet::IpNet;
use model::{
    cluster::{Source, WorkloadKey},
    record::RuleName,
};
use std::fmt;

/// Everything that opens or closes.
pub struct Diff {
    parties: Vec<Party>,
    /// By party, workloads being first: whether both inputs have it.
    standing: Vec<bool>,
    rows: Vec<Row>,
    causes: Vec<Cause>,
    /// By a row's number, indices into `causes`.
    because: Vec<Vec<u32>>,
    sets: Sets,
    incomplete: Vec<String>,
    log: Option<Logged>,
    old: Named,
    new: Named,
}

/// What an input is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// As the user named it.
    pub input: String,
    /// The hash of its revision, where it is one.
    pub revision: Option<String>,
}

impl fmt::Display for Named {
    /// `git:main:deploy (0123456789ab)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_deref().map(|hash| hash.get(..12).unwrap_or(hash)) {
            None => f.pad(&self.input),
            Some(hash) => f.pad(&format!("{} ({hash})", self.input)),
        }
    }
}

/// What a flow log added.
#[derive(Clone, Debug, Default)]
pub(crate) struct Logged {
    /// What of the log could not be set against rows, for people.
    left_out: Vec<String>,
    /// By row; `None`: nobody used it.
    uses: Vec<Option<Use>>,
}

/// Whether something became possible or impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Kind {
    Opened,
    Closed,
}

impl Kind {
    /// As output has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Closed => "closed",
        }
    }
}

/// Who stands at an end of a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// The pods of a workload; from a workload to itself means from one of its pods to another.
    Workload(WorkloadKey),
    /// Addresses that are no pod's of the input, as the fewest blocks.
    Outside(Vec<IpNet>),
    /// Labels that no pod has both in OLD and in NEW: whoever comes with them walks through.
    Nobody {
        /// An existing namespace by name, others by labels.
        namespace: Namespaces,
        /// Their labels, as far as selectors look; `None`: any that no selector names.
        pods: Option<String>,
        /// Where they differ from others only by address.
        at: Vec<IpNet>,
    },
}

/// Where pods are that nobody runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Namespaces {
    /// In a namespace of the input.
    Named(String),
    /// In namespaces that do not exist yet and have such labels; `None`: any that no selector names.
    New(Option<String>),
}

/// Something that opens or closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub kind: Kind,
    from: u32,
    to: u32,
    ports: SetId,
    /// Not for every pod (or every address) of both ends.
    pub partial: bool,
    because: u32,
}

/// Why something opens or closes: one change from OLD to NEW.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// What happened to it.
    pub change: Change,
    /// What changed.
    pub subject: Subject,
    /// What it does at this row.
    pub effect: Effect,
    /// What was there in OLD, for people.
    pub was: Option<String>,
    /// What is there in NEW.
    pub is: Option<String>,
    /// Where it stands in OLD.
    pub old: Option<Source>,
    /// Where it stands in NEW.
    pub new: Option<Source>,
    /// What stands behind the rule.
    pub evidence: Option<Evidence>,
}

/// What can change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Subject {
    Policy { namespace: String, name: String },
    Namespace(String),
    Workload(WorkloadKey),
}

/// How it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Change {
    PolicyAdded,
    PolicyRemoved,
    RuleAdded,
    RuleRemoved,
    RuleChanged,
    /// `podSelector`.
    SelectorChanged,
    /// `policyTypes`.
    TypesChanged,
    NamespaceLabelChanged,
    WorkloadAdded,
    WorkloadRemoved,
    LabelChanged,
    ContainerPortChanged,
    AddressChanged,
    HostNetworkChanged,
}

impl Change {
    /// A stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PolicyAdded => "policy-added",
            Self::PolicyRemoved => "policy-removed",
            Self::RuleAdded => "rule-added",
            Self::RuleRemoved => "rule-removed",
            Self::RuleChanged => "rule-changed",
            Self::SelectorChanged => "selector-changed",
            Self::TypesChanged => "types-changed",
            Self::NamespaceLabelChanged => "namespace-label-changed",
            Self::WorkloadAdded => "workload-added",
            Self::WorkloadRemoved => "workload-removed",
            Self::LabelChanged => "label-changed",
            Self::ContainerPortChanged => "container-port-changed",
            Self::AddressChanged => "address-changed",
            Self::HostNetworkChanged => "host-network-changed",
        }
    }
}

/// What a change does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// A rule allows, or no longer does: its index in OLD and in NEW.
    Allows {
        /// Which list.
        side: Direction,
        /// In OLD.
        old: Option<usize>,
        /// In NEW.
        new: Option<usize>,
    },
    /// A policy isolates pods in this direction, or no longer does.
    Isolates(Direction),
    /// An object is another for selectors and rules.
    Differs,
}

impl Diff {
    /// What opens and closes from one input to the other. Both should be [`align`]ed before.
    pub fn of(old: Input<'_>, new: Input<'_>) -> Self {
        compared::compare(old, new)
    }

    /// The same with what its inputs are called.
    #[must_use]
    pub fn named(mut self, old: Named, new: Named) -> Self {
        (self.old, self.new) = (old, new);
        self
    }

    /// The same with what stands behind the rules that open or close: of a rule that is in NEW what is known there,
    /// else what was known in OLD.
    #[must_use]
    pub fn with_evidence(mut self, old: EvidenceOf<'_>, new: EvidenceOf<'_>) -> Self {
        for cause in &mut self.causes {
            let (Subject::Policy { namespace, name }, Effect::Allows { side, old: was, new: is }) =
                (&cause.subject, &cause.effect)
            else {
                continue;
            };
            let rule = |index: usize| RuleName {
                namespace: namespace.as_str().into(),
                name: name.as_str().into(),
                rule: format!("{}[{index}]", side_name(*side)).into(),
            };
            cause.evidence = match (is, was) {
                (Some(index), _) => new(&rule(*index)),
                (None, Some(index)) => old(&rule(*index)),
                (None, None) => None,
            };
        }
        self
    }

    /// Whether nothing opens and nothing closes.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Every row: what opens before what closes, in order of its ends.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Who opens the connection.
    pub fn from(&self, row: &Row) -> &Party {
        &self.parties[row.from as usize]
    }

    /// Who answers.
    pub fn to(&self, row: &Row) -> &Party {
        &self.parties[row.to as usize]
    }

    /// At which ports.
    pub fn ports(&self, row: &Row) -> Allowed {
        self.sets.get(row.ports)
    }

    /// Because of what; at least one.
    pub fn causes(&self, row: &Row) -> impl Iterator<Item = &Cause> {
        self.because[row.because as usize].iter().map(|cause| &self.causes[*cause as usize])
    }

    /// Whether it opens to, or for, labels that no pod has today.
    pub fn is_nobody_yet(&self, row: &Row) -> bool {
        row.kind == Kind::Opened && [self.from(row), self.to(row)].iter().any(|party| party.is_nobody())
    }

    /// Whether it opens to, or for, addresses outside.
    pub fn is_outside(&self, row: &Row) -> bool {
        row.kind == Kind::Opened && [self.from(row), self.to(row)].iter().any(|party| party.is_outside())
    }

    /// Who used it, as the log knows; `None` without a log, or when nobody did.
    pub fn used(&self, row: usize) -> Option<&Use> {
        self.log.as_ref()?.uses.get(row)?.as_ref()
    }

    /// Whether a flow log was asked.
    pub fn has_log(&self) -> bool {
        self.log.is_some()
    }

    /// What of the log was not set against rows, for people.
    pub fn left_out(&self) -> &[String] {
        self.log.as_ref().map_or(&[], |log| &log.left_out)
    }

    /// Namespaces in which more label combinations are told apart than were compared.
    pub fn incomplete(&self) -> &[String] {
        &self.incomplete
    }

    /// How many rows are of a kind that can be named.
    pub fn count(&self, what: Reportable) -> usize {
        (0..self.rows.len()).filter(|index| self.is(*index, what)).count()
    }

    /// Whether a row is of a kind that can be named.
    pub fn is(&self, index: usize, what: Reportable) -> bool {
        let row = &self.rows[index];
        match what {
            Reportable::Opened => row.kind == Kind::Opened,
            Reportable::Closed => row.kind == Kind::Closed,
            Reportable::NobodyYet => self.is_nobody_yet(row),
            Reportable::OpenedOutside => self.is_outside(row),
            Reportable::ClosedUsed => row.kind == Kind::Closed && self.used(index).is_some(),
            Reportable::OpenedUnused => row.kind == Kind::Opened && self.has_log() && self.used(index).is_none(),
        }
    }
}

/// What a caller can ask to be told of by exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reportable {
    /// Anything that opens.
    Opened,
    /// Anything that closes.
    Closed,
    /// What opens from or to addresses outside.
    OpenedOutside,
    /// What opens to labels that no pod has today.
    NobodyYet,
    /// What closes although the log shows that it was used.
    ClosedUsed,
    /// What opens although the log shows nobody who would use it.
    OpenedUnused,
}

impl Reportable {
    /// Every one, in order.
    pub const ALL: [Self; 6] =
        [Self::Opened, Self::Closed, Self::OpenedOutside, Self::NobodyYet, Self::ClosedUsed, Self::OpenedUnused];

    /// As it is typed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::OpenedOutside => "opened-outside",
            Self::NobodyYet => "nobody-yet",
            Self::ClosedUsed => "closed-used",
            Self::OpenedUnused => "opened-unused",
        }
    }

    /// Whether only a flow log can tell.
    pub const fn needs_log(self) -> bool {
        matches!(self, Self::ClosedUsed | Self::OpenedUnused)
    }
}

impl Party {
    /// Whether it is labels that nobody has.
    pub fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody { .. })
    }

    /// Whether it is addresses outside.
    pub fn is_outside(&self) -> bool {
        matches!(self, Self::Outside(_))
    }
}

impl fmt::Display for Party {
    /// `shop/Deployment/web`, `10.0.0.0/8, fd00::/8`, `(new pods with app=api in new namespaces with team=red)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocks = |all: &[IpNet]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Self::Workload(key) => key.fmt(f),
            Self::Outside(cidrs) => f.pad(&blocks(cidrs)),
            Self::Nobody { namespace, pods, at } => {
                let namespace = match namespace {
                    Namespaces::Named(name) => format!("in {name}"),
                    Namespaces::New(None) => "in any new namespace".to_owned(),
                    Namespaces::New(Some(labels)) => format!("in new namespaces with {labels}"),
                };
                let pods = pods.as_ref().map_or("any new pod".to_owned(), |labels| format!("new pods with {labels}"));
                let at = if at.is_empty() { String::new() } else { format!(" at {}", blocks(at)) };
                f.pad(&format!("({pods} {namespace}{at})"))
            }
        }
    }
}

/// The direction's name in a policy.
pub(crate) const fn side_name(side: Direction) -> &'static str {
    match side {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}
