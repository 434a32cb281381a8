//! Two evaluators of NetworkPolicy, by two readings of the specification, say the same: the reference evaluator and the
//! sets of `review` on one side, `tests::second` on the other, over random clusters given as JSON text and as JSON values,
//! so that reading and defaults are compared as well.
//!
//! `PODFENCE_SEED` is the seed, `PROPTEST_CASES` how many clusters each of the tests takes.

use model::{
    cluster::{Cluster, Pod},
    labels::METADATA_NAME,
    policy::Protocol,
    record::Entity,
    reference::{Endpoint, Reference},
    view::AddressView,
};
use proptest::{collection::vec, prelude::*};
use review::{Allowed, End, EndId, Family, Input, Nobody, Reach, Sets, Universe, Where};
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::IpAddr};
use tests::{
    objects::{Objects, coming, newcomer, objects},
    questions::{Mentioned, over_random, question, questions, read},
    second::{self, Who},
};

const CLUSTERS: u32 = 10_000;
/// YAML takes longer to read.
const CLUSTERS_AS_YAML: u32 = 1_000;
const CLUSTERS_WITH_NEWCOMERS: u32 = 1_000;

#[test]
fn the_reference_evaluator_and_a_second_one_agree_about_every_packet() {
    over_random(CLUSTERS, objects(), |objects| {
        let cluster = read(&objects.to_string());
        let (reference, view) = (Reference::new(&cluster, &cluster.policies), AddressView::new(&cluster));
        for (from, to, probes) in questions(&objects.0) {
            let subjects =
                (reference.subject(endpoint(&cluster, &view, from)), reference.subject(endpoint(&cluster, &view, to)));
            let (from_subject, to_subject) = &subjects;
            for (protocol, ports) in probes {
                let open = protocol.map(|protocol| Reference::ports_between(from_subject, to_subject, protocol));
                for port in ports {
                    let expected = second::allowed(&objects.0, from, to, protocol.map(Protocol::name), port);
                    let decision = Reference::decide_between(from_subject, to_subject, protocol, port);
                    prop_assert_eq!(decision.allows(), expected, "{}", question(from, to, protocol, port));
                    let Some(open) = &open else { continue };
                    let within = open.iter().any(|(first, last)| (*first..=*last).contains(&port));
                    prop_assert_eq!(within, expected, "ports {:?}: {}", open, question(from, to, protocol, port));
                }
            }
        }
        Ok(())
    });
}

#[test]
fn reach_says_of_each_member_what_the_second_evaluator_says() {
    over_random(CLUSTERS, objects(), |objects| {
        let cluster = read(&objects.to_string());
        let universe = Universe::of(&[Input { cluster: &cluster, policies: &cluster.policies }]);
        let sets = Sets::default();
        let reach = Reach::new(&universe, 0, &sets);
        let ends = ends(&universe, &Mentioned::by(&objects.0), &objects.0);
        for (from, to, probes) in questions(&objects.0) {
            let end = |who: Who<'_>| who.address().map(|address| ends[&address]);
            let (Some(from_end), Some(to_end)) = (end(from), end(to)) else { continue };
            let is_itself = matches!((from, to), (Who::Pod(one, _), Who::Pod(other, _)) if std::ptr::eq(one, other));
            if is_itself || [from_end, to_end].iter().all(|id| matches!(universe.end(*id), End::Block(_))) {
                continue;
            }
            let allowed: Allowed = sets.get(reach.allowed(from_end, to_end));
            for (protocol, ports) in probes {
                let Some(protocol) = protocol else { continue };
                for port in ports {
                    let expected = second::allowed(&objects.0, from, to, Some(protocol.name()), port);
                    let question = question(from, to, Some(protocol), port);
                    prop_assert_eq!(allowed.contains(protocol, port), expected, "{}: {}", allowed, question);
                }
            }
        }
        for (from, _) in universe.ends() {
            let singly: Vec<_> = universe.ends().map(|(to, _)| reach.allowed(from, to)).collect();
            prop_assert_eq!(reach.row(from), singly);
        }
        Ok(())
    });
}

#[test]
fn the_same_objects_are_read_alike_as_json_and_as_yaml() {
    over_random(CLUSTERS_AS_YAML, objects(), |objects| {
        // Places too, as every object stands on the same line.
        let yaml: String = objects.0.iter().map(|object| format!("--- {object}\n")).collect();
        prop_assert_eq!(format!("{:?}", read(&yaml)), format!("{:?}", read(&objects.to_string())));
        Ok(())
    });
}

#[test]
fn whoever_might_come_is_one_of_the_ends_that_reach_knows() {
    let newcomers = (objects(), vec(newcomer(), 3));
    over_random(CLUSTERS_WITH_NEWCOMERS, newcomers, |(objects, newcomers)| {
        let cluster = read(&objects.to_string());
        let universe = Universe::of(&[Input { cluster: &cluster, policies: &cluster.policies }]);
        let sets = Sets::default();
        let reach = Reach::new(&universe, 0, &sets);
        prop_assert!(universe.incomplete().is_empty());
        let mentioned = Mentioned::by(&objects.0);
        let ends = ends(&universe, &mentioned, &objects.0);
        let mut rows = Vec::new();
        for (id, nobody) in universe.nobody() {
            let row = row_of_nobody(&reach, &mentioned, &ends, id);
            prop_assert_eq!(&row, &row_of_newcomer(&mentioned, objects, &as_newcomer(nobody)), "{:?}", nobody);
            rows.push((&nobody.namespace, row));
        }
        for newcomer in newcomers {
            let namespace = newcomer.0.last().expect("a pod")["metadata"]["namespace"].as_str().expect("a namespace");
            let is_new = !cluster.namespaces.contains_key(namespace);
            let is_here = |at: &Where| match at {
                Where::Existing(name) => name == namespace,
                Where::New { .. } => is_new,
            };
            let row = row_of_newcomer(&mentioned, objects, newcomer);
            let is_nobody = || rows.iter().any(|(at, known)| is_here(at) && *known == row);
            // Pods that run stand for those like them, but for what their addresses and named ports add.
            let mut running =
                cluster.pods.iter().filter(|pod| pod.namespace == namespace && pod.lives() && !pod.host_network);
            let mut is_like_one_that_runs = || {
                running.any(|pod| {
                    let like = coming(namespace, None, json!(pod.labels));
                    row_of_newcomer(&mentioned, objects, &like) == row
                })
            };
            prop_assert!(is_nobody() || is_like_one_that_runs(), "{:?}", newcomer);
        }
        Ok(())
    });
}

// --- newcomers ------------------------------------------------------------------------------------------------

/// What may pass between a newcomer and every address, both ways, at every port.
fn row_of_newcomer(mentioned: &Mentioned, objects: &Objects, newcomer: &Objects) -> Vec<bool> {
    let all = [objects.0.as_slice(), newcomer.0.as_slice()].concat();
    let newcomer = Who::Pod(all.last().expect("a pod"), None);
    let mut row = Vec::new();
    for other in mentioned.addresses.iter().map(|address| second::who(&all, *address)) {
        for protocol in Protocol::ALL {
            for port in &mentioned.ports {
                row.push(second::allowed(&all, newcomer, other, Some(protocol.name()), *port));
                row.push(second::allowed(&all, other, newcomer, Some(protocol.name()), *port));
            }
        }
    }
    row
}

/// The same as `review` has it.
fn row_of_nobody(reach: &Reach<'_, '_>, mentioned: &Mentioned, ends: &Ends, nobody: EndId) -> Vec<bool> {
    let mut row = Vec::new();
    for address in &mentioned.addresses {
        let (there, back) = (reach.allowed(nobody, ends[address]), reach.allowed(ends[address], nobody));
        let (there, back) = (reach.sets().get(there), reach.sets().get(back));
        for protocol in Protocol::ALL {
            for port in &mentioned.ports {
                row.push(there.contains(protocol, *port));
                row.push(back.contains(protocol, *port));
            }
        }
    }
    row
}

fn as_newcomer(nobody: &Nobody) -> Objects {
    match &nobody.namespace {
        Where::Existing(name) => coming(name, None, json!(nobody.labels)),
        Where::New { labels, .. } => coming(&labels[METADATA_NAME], Some(json!(labels)), json!(nobody.labels)),
    }
}

// --- who is meant ---------------------------------------------------------------------------------------------

/// The same end for the reference evaluator, by what the inventory says of the address; a hostNetwork pod where one has it.
fn endpoint<'c>(cluster: &'c Cluster, view: &AddressView, who: Who<'_>) -> Endpoint<'c> {
    let Some(address) = who.address() else { return Endpoint::OwnNode };
    let end = view.end(address, 0, NOW);
    let is_it = |pod: &&Pod| match end.entity {
        Entity::Pod => Some(pod.uid.as_str()) == end.pod_uid.as_deref(),
        Entity::Node => pod.host_network && pod.addresses.contains(&address),
        _ => false,
    };
    let pod = cluster.pods.iter().find(is_it);
    pod.map_or(Endpoint::Address(address), |pod| Endpoint::Pod(pod, address))
}

/// Any time: the pods are there since ever.
const NOW: i64 = 1_800_000_000_000_000_000;

/// The end of `review` at each address.
type Ends = BTreeMap<IpAddr, EndId>;

/// The same ends for `review`: the pod's class at an address of this family, or the block that holds the address.
fn ends(universe: &Universe<'_>, mentioned: &Mentioned, objects: &[Value]) -> Ends {
    let blocks: Vec<_> = universe.blocks().iter().map(|id| (*id, universe.cidrs([*id]))).collect();
    let end = |address: &IpAddr| match second::who(objects, *address) {
        Who::Pod(pod, _) => {
            let same = universe.pods(0).iter().find(|(one, _)| pod["metadata"]["uid"] == one.uid);
            let (_, ends) = same.expect("every pod that holds an address is an end");
            let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
            let here = |id: &&EndId| matches!(universe.end(**id), End::Pods(class) if class.family.meets(family));
            *ends.iter().find(here).expect("an end for each address")
        }
        Who::Address(_) | Who::OwnNode => {
            let block = blocks.iter().find(|(_, cidrs)| cidrs.iter().any(|cidr| cidr.contains(address)));
            block.expect("every address is in a block").0
        }
    };
    mentioned.addresses.iter().map(|address| (*address, end(address))).collect()
}
