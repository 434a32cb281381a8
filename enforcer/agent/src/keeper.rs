//! Keeps policies that go before the pods they isolate ([`compile::Ending`]), across the agent's lives.

use crate::{Options, remembered::File};
use compile::{Ending, Kept};
use datapath::monotonic_coarse;
use model::{cluster::Cluster, policy::PolicySet};

/// What is kept, and what it is kept beside.
#[derive(Debug)]
pub(crate) struct Keeper {
    now: Keeping,
    file: Option<File>,
    problem: Option<String>,
}

/// One cluster's keeping; it counts once the cluster is in force.
#[derive(Debug)]
pub(crate) struct Keeping {
    ending: Ending,
    given: PolicySet,
    kept: Kept,
}

impl Keeper {
    /// Goes on from what the agent before wrote. Where that cannot be read, namespaces that are being deleted are
    /// isolated wholly: what was allowed in them is not known.
    pub(crate) fn open(options: &Options) -> Self {
        let settles_after = u64::try_from(options.settles_after.as_nanos()).unwrap_or(u64::MAX);
        let mut ending = Ending::new(&options.node, settles_after);
        let file = options.remembers.clone().map(|path| File::new(path, &options.node));
        let mut problem = None;
        match file.as_ref().map(File::read).transpose() {
            Ok(read) => read.flatten().into_iter().for_each(|remembered| ending.after(remembered)),
            Err(error) => {
                ending.after_unknown();
                file.iter().for_each(File::set_aside);
                let why = crate::node::chain(&error);
                tracing::error!(
                    "{why}; pods of namespaces that are being deleted are isolated wholly, as nobody knows what was \
                     allowed; the file is set aside, and a new one written"
                );
                problem = Some(why);
            }
        }
        let now = Keeping { ending, given: PolicySet::default(), kept: Kept::default() };
        Self { now, file, problem }
    }

    /// Gives a cluster back what it lost.
    pub(crate) fn keep(&self, cluster: &mut Cluster) -> Keeping {
        let (mut ending, given) = (self.now.ending.clone(), cluster.policies.clone());
        let kept = ending.keep(cluster, monotonic_coarse());
        Keeping { ending, given, kept }
    }

    /// Writes for the next agent what is in force in a moment. Enforcement does not wait for a disk that is full.
    pub(crate) fn write(&mut self, keeping: &Keeping) {
        let Some(file) = &mut self.file else { return };
        let problem = file.write(&keeping.ending.remembered()).err().map(|error| crate::node::chain(&error));
        if let Some(problem) = problem.as_ref().filter(|problem| self.problem.as_ref() != Some(*problem)) {
            tracing::error!("{problem}; an agent that starts after this one may let go what is being deleted");
        }
        self.problem = problem;
    }

    /// The cluster is in force.
    pub(crate) fn done(&mut self, keeping: Keeping) {
        self.now = keeping;
    }

    /// Whether something that was waited with is to be let go.
    pub(crate) fn is_due(&self) -> bool {
        self.now.kept.until.is_some_and(|until| monotonic_coarse() >= until)
    }

    /// The cluster that was given, out of the one in force.
    pub(crate) fn given(&self, cluster: &mut Cluster) {
        cluster.policies.clone_from(&self.now.given);
    }

    pub(crate) fn kept(&self) -> &Kept {
        &self.now.kept
    }

    /// Why what is in force is not kept for the next agent, or what was kept could not be read.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}
