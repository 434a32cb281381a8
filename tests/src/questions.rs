//! What is asked of two evaluators of NetworkPolicy about one random cluster: every pair of ends that its objects
//! mention, at every port at which anything could change.

use crate::{
    random::Random,
    second::{self, Who},
};
use model::{cluster::Cluster, policy::Protocol, yaml::read_into};
use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestRunner},
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Holds a law over this many random values, or `PROPTEST_CASES`; `PODFENCE_SEED` is the seed.
///
/// # Panics
/// With the smallest value that breaks it.
pub fn over_random<T: fmt::Debug>(
    cases: u32,
    strategy: impl Strategy<Value = T>,
    law: impl Fn(&T) -> Result<(), TestCaseError>,
) {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    let rng_seed = RngSeed::Fixed(Random::seed(5));
    let config = ProptestConfig { cases, rng_seed, failure_persistence: None, ..ProptestConfig::default() };
    if let Err(failure) = TestRunner::new(config).run(&strategy, |value| law(&value)) {
        panic!("{failure}");
    }
}

/// Objects as the command reads them.
///
/// # Panics
/// Where it refuses them.
pub fn read(text: &str) -> Cluster {
    let mut cluster = Cluster::default();
    if let Err(error) = read_into(&mut cluster, "objects", text) {
        panic!("{error}\n{text}");
    }
    cluster
}

/// Each protocol with the ports to ask about; `None`: one that rules cannot name, at no port.
pub type Probes = Vec<(Option<Protocol>, Vec<u16>)>;

/// Every ordered pair of ends that can meet and of which one is a pod, with every port at which anything could change.
pub fn questions(objects: &[Value]) -> Vec<(Who<'_>, Who<'_>, Probes)> {
    let mentioned = Mentioned::by(objects);
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

/// A question in words.
pub fn question(from: Who<'_>, to: Who<'_>, protocol: Option<Protocol>, port: u16) -> String {
    let name = |who: Who<'_>| match who {
        Who::Pod(pod, Some(address)) => format!("{} ({address})", pod["metadata"]["name"]),
        Who::Pod(pod, None) => pod["metadata"]["name"].to_string(),
        Who::Address(address) => address.to_string(),
        Who::OwnNode => "its node".to_owned(),
    };
    format!("{} to {} at {}/{port}", name(from), name(to), protocol.map_or("ICMP", Protocol::name))
}

/// Ports and addresses that objects mention, and their neighbours.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Mentioned {
    pub ports: BTreeSet<u16>,
    pub addresses: BTreeSet<IpAddr>,
}

impl Mentioned {
    /// What these mention.
    ///
    /// # Panics
    /// At a number that is no port.
    pub fn by(objects: &[Value]) -> Self {
        let mut mentioned = Self::default();
        objects.iter().for_each(|object| mentioned.look(object));
        mentioned
    }

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
