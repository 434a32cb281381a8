//! A podfence agent on a lab's node, and the cluster as the operator would have it: modes and policies set.

use crate::{ending::Failure, when};
use agent::{Agent, Stopped, Update};
use daemon::CLUSTER;
use flowlog::Writer;
use jiff::Timestamp;
use lab::Lab;
use model::{
    cluster::{Cluster, MODE_LABEL, Mode},
    policy::PolicySet,
};
use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

/// What the operator has applied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Applied {
    /// The label on every namespace.
    pub(crate) mode: Mode,
    /// NetworkPolicies in force, beside those of the scenario.
    pub(crate) policies: PolicySet,
}

/// An agent that follows a lab's cluster with what the operator has applied.
pub(crate) struct Watch<'l> {
    lab: &'l Lab,
    agent: Agent,
    applied: Mutex<Applied>,
}

impl<'l> Watch<'l> {
    /// Starts an agent on the lab's node that writes to `log`, everything in the mode learn.
    pub(crate) fn start(lab: &'l Lab, log: &Path) -> Result<Self, agent::Error> {
        let node = &lab.scenario().node.name;
        let now = when::nanos(Timestamp::now());
        let writer = Writer::open(log, CLUSTER, node, flowlog::Options::default(), now)
            .map_err(|e| agent::Error::Observer(e.into()))?;
        let options = agent::Options { netns: Some(lab.node_netns()), ..agent::Options::of_node(node) };
        Ok(Self { lab, agent: Agent::start(options, writer)?, applied: Mutex::default() })
    }

    /// Applies modes and policies; once this returns every packet is judged by them.
    pub(crate) fn apply(&self, applied: Applied) -> Result<Update, Failure> {
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner) = applied;
        let cluster = self.lab.cluster().map_err(|why| Failure::of("the lab's cluster cannot be read", why))?;
        self.follow(&cluster)
    }

    /// Brings the agent to a cluster that has changed.
    pub(crate) fn follow(&self, cluster: &Cluster) -> Result<Update, Failure> {
        let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        self.agent
            .update(&with(cluster, &applied))
            .map_err(|why| Failure::of("the node's tables cannot be brought up to date", why))
    }

    /// Everything that was seen until now is in the log.
    pub(crate) fn flush(&self) -> Result<(), Failure> {
        self.agent.flush().map_err(|why| Failure::of("the log is not up to date", why))
    }

    /// Detaches and closes the log.
    pub(crate) fn stop(self) -> Result<Stopped, Failure> {
        self.agent.stop().map_err(|why| Failure::of("the agent did not end in order", why))
    }
}

/// The cluster with what the operator has applied.
fn with(cluster: &Cluster, applied: &Applied) -> Cluster {
    let mut cluster = cluster.clone();
    for namespace in cluster.namespaces.values_mut() {
        namespace.labels.insert(MODE_LABEL.to_owned(), applied.mode.name().to_owned());
    }
    let theirs = &mut cluster.policies.policies;
    theirs.retain(|p| !applied.policies.policies.iter().any(|q| (&q.namespace, &q.name) == (&p.namespace, &p.name)));
    theirs.extend(applied.policies.policies.iter().cloned());
    theirs.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    cluster
}
