//! Two evaluators of NetworkPolicy, by two readings of the specification, say the same: the reference evaluator and the
//! sets of `review` on one side, `tests::second` on the other, over random clusters given as JSON text and as JSON values,
//! so that reading and defaults are compared as well.
//!
//! `PODFENCE_SEED` is the seed, `PROPTEST_CASES` how many clusters each of the tests takes.

mod objects;

use model::{
    cluster::Cluster,
    policy::Protocol,
    record::Entity,
    reference::{Endpoint, Reference},
    view::AddressView,
    yaml::read_into,
};
use objects::objects;
use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestError, TestRunner},
};
use review::{Allowed, End, EndId, Family, Input, Reach, Sets, Universe};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use tests::{
    random::Random,
    second::{self, Who},
};

const CLUSTERS: u32 = 10_000;

#[test]
fn the_reference_evaluator_and_a_second_one_agree_about_every_packet() {
    over_random_clusters(|objects| {
        let cluster = read(objects);
        let (reference, view) = (Reference::new(&cluster, &cluster.policies), AddressView::new(&cluster));
        for (from, to, probes) in questions(objects) {
            let subjects =
                (reference.subject(endpoint(&cluster, &view, from)), reference.subject(endpoint(&cluster, &view, to)));
            let (from_subject, to_subject) = &subjects;
            for (protocol, ports) in probes {
                let open = protocol.map(|protocol| Reference::ports_between(from_subject, to_subject, protocol));
                for port in ports {
                    let expected = second::allowed(objects, from, to, protocol.map(Protocol::name), port);
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
    over_random_clusters(|objects| {
        let cluster = read(objects);
        let universe = Universe::of(&[Input { cluster: &cluster, policies: &cluster.policies }]);
        let sets = Sets::default();
        let reach = Reach::new(&universe, 0, &sets);
        for (from, to, probes) in questions(objects) {
            let (Some(from_end), Some(to_end)) = (end(&universe, from), end(&universe, to)) else { continue };
            let is_itself = matches!((from, to), (Who::Pod(one, _), Who::Pod(other, _)) if std::ptr::eq(one, other));
            if is_itself || [from_end, to_end].iter().all(|id| matches!(universe.end(*id), End::Block(_))) {
                continue;
            }
            let allowed: Allowed = sets.get(reach.allowed(from_end, to_end));
            for (protocol, ports) in probes {
                let Some(protocol) = protocol else { continue };
                for port in ports {
                    let expected = second::allowed(objects, from, to, Some(protocol.name()), port);
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

fn over_random_clusters(law: impl Fn(&[Value]) -> Result<(), TestCaseError>) {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CLUSTERS);
    let rng_seed = RngSeed::Fixed(Random::seed(5));
    let config = ProptestConfig { cases, rng_seed, failure_persistence: None, ..ProptestConfig::default() };
    match TestRunner::new(config).run(&objects(), |objects| law(&objects)) {
        Ok(()) => {}
        Err(TestError::Fail(reason, objects)) => panic!("{reason}\n{}", json_lines(&objects)),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// As the command reads it.
fn read(objects: &[Value]) -> Cluster {
    let mut cluster = Cluster::default();
    if let Err(error) = read_into(&mut cluster, "objects.json", &json_lines(objects)) {
        panic!("{error}\n{}", json_lines(objects));
    }
    cluster
}

fn json_lines(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("{object}\n")).collect()
}

// --- what is asked --------------------------------------------------------------------------------------------

type Probes = Vec<(Option<Protocol>, Vec<u16>)>;

/// Every ordered pair of ends that can meet and of which one is a pod, with every port at which anything could change.
fn questions(objects: &[Value]) -> Vec<(Who<'_>, Who<'_>, Probes)> {
    let mut mentioned = Mentioned::default();
    objects.iter().for_each(|object| mentioned.look(object));
    let probes: Probes = Protocol::ALL
        .into_iter()
        .map(|protocol| (Some(protocol), mentioned.ports.iter().copied().collect()))
        .chain([(None, vec![0])])
        .collect();
    let ends: Vec<Who<'_>> = mentioned.addresses.iter().map(|address| second::who(objects, *address)).collect();
    let is_pod = |who: &Who<'_>| matches!(who, Who::Pod(..));
    let mut questions = Vec::new();
    for from in &ends {
        for to in ends.iter().filter(|to| can_meet(from, to) && (is_pod(from) || is_pod(to))) {
            questions.push((*from, *to, probes.clone()));
        }
        if is_pod(from) {
            questions.extend([(*from, Who::OwnNode, probes.clone()), (Who::OwnNode, *from, probes.clone())]);
        }
    }
    questions
}

fn can_meet(one: &Who<'_>, other: &Who<'_>) -> bool {
    one.address().map(|ip| ip.is_ipv4()) == other.address().map(|ip| ip.is_ipv4())
}

fn question(from: Who<'_>, to: Who<'_>, protocol: Option<Protocol>, port: u16) -> String {
    let name = |who: Who<'_>| match who {
        Who::Pod(pod, address) => format!("{} ({address})", pod["metadata"]["name"]),
        Who::Address(address) => address.to_string(),
        Who::OwnNode => "its node".to_owned(),
    };
    format!("{} to {} at {}/{port}", name(from), name(to), protocol.map_or("ICMP", Protocol::name))
}

/// Ports and addresses that objects mention, and their neighbours.
#[derive(Default)]
struct Mentioned {
    ports: BTreeSet<u16>,
    addresses: BTreeSet<IpAddr>,
}

impl Mentioned {
    fn look(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => fields.values().for_each(|value| self.look(value)),
            Value::Array(items) => items.iter().for_each(|value| self.look(value)),
            Value::Number(number) => {
                let port = number.as_u64().and_then(|number| u16::try_from(number).ok()).expect("a port");
                let around = [port.saturating_sub(1), port, port.saturating_add(1)];
                self.ports.extend(around.into_iter().filter(|port| *port > 0));
            }
            Value::String(text) => self.look_at_text(text),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn look_at_text(&mut self, text: &str) {
        if let Ok(address) = text.parse::<IpAddr>() {
            self.addresses.insert(address);
        } else if let Some(block) = model::cidr::parse_cidr(text) {
            let (first, last) = (block.network(), block.broadcast());
            self.addresses.extend([first, last].into_iter().chain(step(first, false)).chain(step(last, true)));
        }
    }
}

/// The next address, or the one before.
fn step(address: IpAddr, up: bool) -> Option<IpAddr> {
    match address {
        IpAddr::V4(ip) => {
            let bits = u32::from(ip);
            let next = if up { bits.checked_add(1) } else { bits.checked_sub(1) };
            next.map(|bits| Ipv4Addr::from(bits).into())
        }
        IpAddr::V6(ip) => {
            let bits = u128::from(ip);
            let next = if up { bits.checked_add(1) } else { bits.checked_sub(1) };
            next.map(|bits| Ipv6Addr::from(bits).into())
        }
    }
}

// --- who is meant ---------------------------------------------------------------------------------------------

/// The same end for the reference evaluator, by what the inventory says of the address.
fn endpoint<'c>(cluster: &'c Cluster, view: &AddressView, who: Who<'_>) -> Endpoint<'c> {
    let Some(address) = who.address() else { return Endpoint::OwnNode };
    let end = view.end(address, 0, NOW);
    let pod =
        cluster.pods.iter().find(|pod| end.entity == Entity::Pod && Some(pod.uid.as_str()) == end.pod_uid.as_deref());
    pod.map_or(Endpoint::Address(address), |pod| Endpoint::Pod(pod, address))
}

/// Any time: the pods are there since ever.
const NOW: i64 = 1_800_000_000_000_000_000;

/// The same end for `review`: the pod's class at an address of this family, or the block that holds the address.
fn end(universe: &Universe<'_>, who: Who<'_>) -> Option<EndId> {
    let address = who.address()?;
    let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
    match who {
        Who::Pod(pod, _) => {
            let same = universe.pods(0).iter().find(|(one, _)| pod["metadata"]["uid"] == one.uid);
            let (_, ends) = same.expect("every pod that holds an address is an end");
            let here = |id: &&EndId| matches!(universe.end(**id), End::Pods(class) if class.family.meets(family));
            Some(*ends.iter().find(here).expect("an end for each address"))
        }
        _ => {
            let holds = |id: &&EndId| universe.cidrs([**id]).iter().any(|cidr| cidr.contains(&address));
            Some(*universe.blocks().iter().find(holds).expect("every address is in a block"))
        }
    }
}
