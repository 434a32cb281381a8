//! Ports that a rule must name rather than number: a workload whose pods answer under one name at
//! different numbers, as during a rollout that moves the port.
//!
//! Always holds: only the inventory decides, so that one more flow never turns a number into a name
//! (law 11); every pod and the template have the name, once, and none uses one of its numbers otherwise.

use crate::subjects::Subject;
use model::{
    cluster::{Cluster, ContainerPort},
    policy::Protocol,
};
use std::collections::{BTreeMap, BTreeSet};

/// Port number to the name that stands for it, at one workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PortNames {
    names: BTreeMap<(Protocol, u16), String>,
}

impl PortNames {
    /// The names that a workload's rules must use.
    pub fn of(cluster: &Cluster, subject: &Subject) -> Self {
        let pods = subject.pods.iter().map(|i| cluster.pods[*i].ports.as_slice());
        let template = cluster.workloads.get(&*subject.key).filter(|w| !w.template_labels.is_empty());
        let backends: Vec<&[ContainerPort]> = pods.chain(template.map(|w| w.template_ports.as_slice())).collect();
        let of_first = backends.first().copied().unwrap_or_default();
        let named: BTreeSet<(&str, Protocol)> =
            of_first.iter().filter_map(|port| Some((port.name.as_deref()?, port.protocol))).collect();
        let mut names = BTreeMap::new();
        for (name, protocol) in named {
            for number in moving_numbers(&backends, name, protocol).into_iter().flatten() {
                names.insert((protocol, number), name.to_owned());
            }
        }
        Self { names }
    }

    /// The name to write for a number.
    pub fn name(&self, protocol: Protocol, number: u16) -> Option<&str> {
        self.names.get(&(protocol, number)).map(String::as_str)
    }

    /// The numbers that a name stands for.
    pub fn numbers(&self, protocol: Protocol, name: &str) -> Vec<(u16, u16)> {
        let of_name = self.names.iter().filter(|((p, _), n)| *p == protocol && *n == name);
        of_name.map(|((_, number), _)| (*number, *number)).collect()
    }
}

/// The numbers of a name over all backends, where they differ and mean nothing else anywhere.
fn moving_numbers(backends: &[&[ContainerPort]], name: &str, protocol: Protocol) -> Option<BTreeSet<u16>> {
    let is_it = |port: &&ContainerPort| port.protocol == protocol && port.name.as_deref() == Some(name);
    let mut numbers = BTreeSet::new();
    for ports in backends {
        let mut own = ports.iter().filter(is_it);
        let (Some(port), None) = (own.next(), own.next()) else { return None };
        numbers.insert(port.port);
    }
    let of_others = |port: &ContainerPort| port.protocol == protocol && !is_it(&port) && numbers.contains(&port.port);
    let ambiguous = backends.iter().flat_map(|ports| ports.iter()).any(of_others);
    (numbers.len() > 1 && !ambiguous).then_some(numbers)
}
