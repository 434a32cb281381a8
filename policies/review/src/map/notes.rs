//! What no row can say: what the API leaves open, and what was left out.

use super::{
    Filter, Options,
    chosen::{Side, is_on_host_network},
};
use crate::Universe;

/// What the API leaves open, and what podfence does about it.
const OPEN: [&str; 4] = [
    "a pod always reaches itself; a workload's row to itself is about two pods of it",
    "a node always reaches the pods that run on it, whatever policies say (its kubelet probes them); podfence lets it",
    "ICMP is in no rule: podfence lets an echo pass where a rule allows every port of every protocol, and errors about \
     connections that are allowed",
    "rows are about opening a connection, and replies to it pass; connections that stand when a policy changes are \
     judged again at once by podfence, the API leaves it open",
];

pub(super) fn all(universe: &Universe<'_>, options: &Options, clients: &Side, servers: &Side) -> Vec<String> {
    let mut notes: Vec<String> = OPEN.iter().map(|note| (*note).to_owned()).collect();
    let mut on_host = clients.pods.values().chain(servers.pods.values());
    if on_host.any(|ends| is_on_host_network(universe, ends)) {
        notes.push(
            "no policy selects pods on the host network (marked as hostNetwork): as peers they are their node, at its \
             addresses"
                .to_owned(),
        );
    }
    if !clients.outside.is_empty() || !servers.outside.is_empty() {
        notes.push(
            "addresses stand for whoever has them outside of this input: pods of it have rows of their own".to_owned(),
        );
    }
    for filter in [&options.from, &options.to].into_iter().flatten() {
        if let Filter::Block(net) = filter {
            let within = universe
                .pods(0)
                .iter()
                .filter(|(pod, _)| pod.addresses.iter().any(|address| net.contains(&address.to_canonical())));
            match within.count() {
                0 => {}
                n => notes.push(format!(
                    "pods of the input with addresses in {net} are not among these rows: {n}; name them"
                )),
            }
        }
    }
    if options.exposure && !universe.incomplete().is_empty() {
        notes.push(format!(
            "more combinations of labels are told apart than were looked at, so that rows of new pods may be missing: {}",
            universe.incomplete().join(", ")
        ));
    }
    notes
}
