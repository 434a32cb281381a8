//! Whom `--from` and `--to` name, and who stands on each side of the rows.

use super::By;
use crate::{
    EndId, Universe,
    universe::End,
    why::{self, Named, Problem},
};
use ipnet::IpNet;
use model::cluster::WorkloadKey;
use std::{collections::BTreeMap, str::FromStr};

/// One side of the rows, as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// `10.0.0.0/8`: addresses outside.
    Block(IpNet),
    /// A workload, a pod, an address, a namespace.
    Named {
        /// What was typed.
        text: String,
        /// What it means, if no namespace has this name.
        named: Named,
    },
}

impl FromStr for Filter {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        match model::cidr::parse_cidr(text) {
            Some(net) => Ok(Self::Block(net)),
            None => Ok(Self::Named { text: text.to_owned(), named: text.parse()? }),
        }
    }
}

/// Who stands on a side.
#[derive(Clone, Debug, Default)]
pub(super) struct Side {
    /// Workloads or pods, in order, with their ends.
    pub(super) pods: BTreeMap<WorkloadKey, Vec<EndId>>,
    /// Addresses outside, none where only pods were named.
    pub(super) outside: Vec<IpNet>,
    /// Nobody was named, so that newcomers count too.
    pub(super) is_everyone: bool,
}

impl Side {
    /// Who a filter names.
    pub(super) fn of(universe: &Universe<'_>, by: By, filter: Option<&Filter>) -> Result<Self, Problem> {
        match filter {
            None => {
                let outside = vec![IpNet::V4(ipnet::Ipv4Net::default()), IpNet::V6(ipnet::Ipv6Net::default())];
                Ok(Self { pods: pods(universe, by, |_| true), outside, is_everyone: true })
            }
            Some(Filter::Block(net)) => Ok(Self { outside: vec![*net], ..Self::default() }),
            Some(Filter::Named { text, named }) => Self::named(universe, by, text, named),
        }
    }

    fn named(universe: &Universe<'_>, by: By, text: &str, named: &Named) -> Result<Self, Problem> {
        let cluster = universe.inputs()[0].cluster;
        if cluster.namespaces.contains_key(text) {
            return Ok(Self { pods: pods(universe, by, |key| key.namespace == text), ..Self::default() });
        }
        let who = why::find(universe, named)?;
        let ends: Vec<EndId> = who.members.iter().map(|member| member.end).collect();
        let first = who.members.first().filter(|_| who.is_one);
        Ok(match (who.workload, first) {
            // A pod by itself, also where rows are workloads'.
            (Some(_), Some(member)) => {
                let at = member.pod.unwrap_or_default();
                Self { pods: BTreeMap::from([(pod_key(universe, at), ends)]), ..Self::default() }
            }
            (Some(workload), None) => match by {
                By::Workload => Self { pods: BTreeMap::from([(workload, ends)]), ..Self::default() },
                By::Pod => {
                    let mut pods: BTreeMap<WorkloadKey, Vec<EndId>> = BTreeMap::new();
                    for member in &who.members {
                        let key = pod_key(universe, member.pod.unwrap_or_default());
                        pods.entry(key).or_default().push(member.end);
                    }
                    Self { pods, ..Self::default() }
                }
            },
            (None, _) => {
                let outside = who.members.iter().filter_map(|member| member.address).map(IpNet::from).collect();
                Self { outside, ..Self::default() }
            }
        })
    }
}

/// Everyone who is to have rows of their own.
fn pods(universe: &Universe<'_>, by: By, wanted: impl Fn(&WorkloadKey) -> bool) -> BTreeMap<WorkloadKey, Vec<EndId>> {
    match by {
        By::Workload => {
            let wanted = universe.workloads(0).iter().filter(|(key, _)| wanted(key));
            wanted.map(|(key, ends)| (key.clone(), ends.clone())).collect()
        }
        By::Pod => {
            let mut all: BTreeMap<WorkloadKey, Vec<EndId>> = BTreeMap::new();
            for (at, (_, ends)) in universe.pods(0).iter().enumerate() {
                let key = pod_key(universe, at);
                if wanted(&key) {
                    all.entry(key).or_default().extend(ends);
                }
            }
            all
        }
    }
}

/// A pod as a party; the template of a workload without pods is the workload.
fn pod_key(universe: &Universe<'_>, at: usize) -> WorkloadKey {
    let (pod, _) = &universe.pods(0)[at];
    match pod.is_stand_in() {
        true => universe.inputs()[0].cluster.root_owner(pod),
        false => WorkloadKey { namespace: pod.namespace.clone(), kind: "Pod".to_owned(), name: pod.name.clone() },
    }
}

/// Whether some of these ends are on the host network.
pub(super) fn is_on_host_network(universe: &Universe<'_>, ends: &[EndId]) -> bool {
    ends.iter().any(|end| matches!(universe.end(*end), End::Pods(class) if class.host_network))
}
