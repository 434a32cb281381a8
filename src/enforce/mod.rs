//! `enforce`: a folder of manifests, enforced on this node's veths until somebody ends it.
//!
//! Always holds: what cannot be read or does not fit changes nothing and is said.

mod folder;
mod told;

use crate::{
    ending::{Ending, Failure},
    escape::printable,
    flows::stop_flag,
    typed, watch, when,
};
use agent::{Agent, Doors};
use flowlog::Writer;
use folder::Folder;
use jiff::Timestamp;
use miette::Result;
use model::cluster::{Cluster, Mode};
use std::{collections::BTreeSet, sync::atomic::Ordering, thread, time::Duration};
use told::Told;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What is kept of the flow log.
const KEEP_BYTES: u64 = 4 << 30;
const KEEP_AGE: Duration = Duration::from_hours(30 * 24);

pub(crate) fn run(typed: &typed::Enforce) -> Result<Ending> {
    let stop = stop_flag()?;
    say_on_standard_error();
    let mut folder = Folder::new(&typed.cluster);
    let cluster = folder.read()?;
    let node = node_name(typed.node.as_deref(), &cluster)?;
    let log = flowlog::Options {
        keep_bytes: Some(KEEP_BYTES),
        keep_age: i64::try_from(KEEP_AGE.as_nanos()).ok(),
        ..flowlog::Options::default()
    };
    let writer = Writer::open(&typed.log, watch::CLUSTER, &node, log, when::nanos(Timestamp::now()))
        .map_err(|why| Failure::whole(&why))?;
    let agent =
        Agent::start(options(typed, &node), writer).map_err(|why| Failure::of("the agent does not start", why))?;
    let from = typed.cluster.display().to_string();
    let doors = Doors { socket: Some(typed.socket.clone()), metrics: typed.metrics };
    let served = agent.serve(&doors).map_err(|why| Failure::whole(&why))?;
    agent.comes_from(&from).map_err(|why| Failure::whole(&why))?;
    let mut told = Told::default();
    let report = agent.report().map_err(|why| Failure::whole(&why))?;
    tracing::info!("tables: {}", told::tables(&report));
    let update = agent.update(&cluster).map_err(|why| Failure::of("nothing is enforced", why))?;
    told.update(&from, &update);
    if let Some(at) = served.metrics() {
        tracing::info!("metrics are served at http://{at}/metrics");
    }
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(LOOK_EVERY);
        match folder.changed() {
            None => {}
            Some(Err(why)) => keeps(&agent, &why),
            Some(Ok(cluster)) => match agent.update(&cluster) {
                Ok(update) => told.update(&from, &update),
                Err(why) => keeps(&agent, &Failure::whole(&why)),
            },
        }
    }
    drop(served);
    let left = agent.leave().map_err(|why| Failure::of("the agent did not end in order", why))?;
    let rows = left.log.rows;
    match &typed.bpffs {
        Some(pins) => tracing::info!(
            "ended; what is enforced stays in force, pinned at {}: another `podfence enforce` goes on with it, \
             `podfence detach` takes it away; {rows} rows in the log",
            pins.display()
        ),
        None => tracing::info!("ended and detached from every link; {rows} rows in the log"),
    }
    Ok(Ending::Done)
}

/// Said aloud whenever an update came to nothing.
fn keeps(agent: &Agent, why: &Failure) {
    // Its status cannot be told where it is gone, which the next update says.
    let _ = agent.refused(&why.to_string());
    tracing::error!("{}; what was enforced before stays in force", printable(&why.to_string()));
}

/// The agent's own words and this verb's go to standard error, with their time.
fn say_on_standard_error() {
    let subscriber = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).finish();
    // Refused only where somebody listens already.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// The node that was named, or this machine; it must be one of the cluster's.
fn node_name(typed: Option<&str>, cluster: &Cluster) -> Result<String, Failure> {
    let name = typed.map_or_else(crate::observe::this_machine, str::to_owned);
    let of_pods = cluster.pods.iter().map(|pod| pod.node.as_str()).filter(|node| !node.is_empty());
    let nodes: BTreeSet<&str> = cluster.nodes.keys().map(String::as_str).chain(of_pods).collect();
    if nodes.contains(name.as_str()) {
        return Ok(name);
    }
    let nodes: Vec<&str> = nodes.into_iter().collect();
    let there = match nodes.as_slice() {
        [] => "it names no node".to_owned(),
        nodes => format!("its nodes are {}", nodes.join(", ")),
    };
    let what = format!("node {name} is not in the cluster: no Node and no pod's spec.nodeName has this name, {there}");
    Err(Failure::new(what, "name this machine's node with --node NAME"))
}

fn options(typed: &typed::Enforce, node: &str) -> agent::Options {
    let defaults = agent::Options::of_node(node);
    let datapath = datapath::Options {
        bpffs: typed.bpffs.clone(),
        unknown_pod: match typed.unknown_pod {
            typed::UnknownPod::Pass => datapath::UnknownPod::Pass,
            typed::UnknownPod::Deny => datapath::UnknownPod::Deny,
        },
        limits: verdict::Limits {
            half_open: typed.half_open_of_pod,
            established: typed.established_of_pod,
            tombstones: typed.denied_of_pod,
        },
        standing: match typed.standing {
            typed::Standing::Judge => verdict::Standing::Revoked,
            typed::Standing::Keep => verdict::Standing::Kept,
        },
        connections: typed.connections,
        rules: typed.rules,
        identities: typed.identities,
        ignore_interfaces: datapath::Ignored(typed.ignore_interfaces.clone()),
        ..defaults.datapath.clone()
    };
    let default_mode = match typed.default_mode {
        Mode::Learn => verdict::Mode::Learn,
        Mode::Audit => verdict::Mode::Audit,
        Mode::Enforce => verdict::Mode::Enforce,
    };
    let clients = if typed.masquerade_all { agent::Clients::Masqueraded } else { agent::Clients::Seen };
    let remembers = Some(typed.state.clone().unwrap_or_else(|| typed.log.join("last-policies.yaml")));
    let source_prefixes = match typed.source_prefixes_guarded {
        true => agent::SourcePrefixes::Guarded,
        false => agent::SourcePrefixes::Ignored,
    };
    agent::Options {
        netns: typed.netns.clone(),
        default_mode,
        clients,
        source_prefixes,
        datapath,
        remembers,
        ..defaults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_not_there_is_answered_with_those_that_are() {
        let mut cluster = Cluster::default();
        let why = node_name(Some("n9"), &cluster).expect_err("no such node").to_string();
        assert!(why.contains("it names no node"), "{why}");
        cluster.nodes.insert("n1".to_owned(), model::cluster::Node::default());
        cluster.pods.push(model::cluster::Pod { node: "n2".to_owned(), ..model::cluster::Pod::default() });
        let why = node_name(Some("n9"), &cluster).expect_err("no such node").to_string();
        assert!(why.contains("its nodes are n1, n2"), "{why}");
        assert_eq!(node_name(Some("n2"), &cluster).expect("a pod's node"), "n2");
    }
}
