//! Ports that a server picks at random: one range where a protocol that does so was seen, or where a
//! person says so by name; never a rule for each.
//!
//! Always holds: a range is written only between two ends that were seen to use it; one more port
//! seen never makes a range smaller or takes it away (law 11).

use crate::{
    lessons::Lesson,
    naming::{self, RangeName},
    refused::{ManyPorts, Refused},
};
use flow::{TCP, UDP};
use model::{
    cluster::Cluster,
    ledger::{Edge, Party},
};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What Linux picks from unless told otherwise (`net.ipv4.ip_local_port_range`).
const LINUX: (u16, u16) = (32_768, 60_999);

/// Dynamic ports (RFC 6335, section 6), which Windows picks from.
const DYNAMIC: (u16, u16) = (49_152, 65_535);

/// So many ports among those a system picks from make a range of all of them.
const SOME: usize = 2;

/// So many ports that are none of these make a range from the first to the last (a configured one).
const SEVERAL: usize = 4;

/// More ports than these, from [`LINUX`]'s first on and declared nowhere, of no known protocol: refused.
pub const MANY: usize = 8;

/// Why a range is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RangeReason {
    /// 21/tcp was seen: data connections go to ports that the server picks (RFC 959, 4.1.2, PASV).
    PassiveFtp,
    /// 111 was seen: programs register at ports that they pick (RFC 1833).
    Portmapper,
    /// 135/tcp was seen: the endpoint mapper of DCE RPC hands out dynamic ports.
    EndpointMapper,
    /// A person said so by name.
    ByName,
}

impl RangeReason {
    /// What it means, for a person.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::PassiveFtp => "passive FTP: the server picks its data ports",
            Self::Portmapper => "RPC by portmapper: programs pick their ports",
            Self::EndpointMapper => "DCE RPC: the endpoint mapper hands out dynamic ports",
            Self::ByName => "a range given by name",
        }
    }

    /// Mapper's port and protocol, protocols of the picked ports, what they are picked from.
    const KNOWN: [Known; 3] = [
        (Self::PassiveFtp, 21, &[TCP], &[TCP], LINUX),
        (Self::Portmapper, 111, &[TCP, UDP], &[TCP, UDP], LINUX),
        (Self::EndpointMapper, 135, &[TCP], &[TCP], DYNAMIC),
    ];
}

/// A protocol whose servers pick ports.
type Known = (RangeReason, u16, &'static [u8], &'static [u8], (u16, u16));

/// One range between two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
    /// Why.
    pub reason: RangeReason,
}

/// Client, server, IP protocol number.
type Pair<'l> = (&'l Party, &'l Party, u8);

/// The ranges between all ends.
#[derive(Clone, Debug, Default)]
pub struct Ranges<'l>(BTreeMap<Pair<'l>, Vec<Range>>);

impl<'l> Ranges<'l> {
    /// The ranges that lessons need, and those that `names` give.
    ///
    /// # Errors
    /// Names that mean no edge; ends with [`MANY`] undeclared ports for which nothing says why.
    pub fn of(lessons: &'l [Lesson], cluster: &Cluster, names: &[String]) -> Result<Self, Refused> {
        let mut ports: BTreeMap<Pair<'l>, BTreeSet<u16>> = BTreeMap::new();
        for Lesson { edge, .. } in lessons {
            ports.entry((&edge.client, &edge.server, edge.protocol)).or_default().insert(edge.port);
        }
        let mut all = Self(given(&ports, names)?);
        for (pair, seen) in &ports {
            for (reason, mapper, of_mapper, of_picked, picked_from) in RangeReason::KNOWN {
                let mapper_seen =
                    |protocol: &u8| ports.get(&(pair.0, pair.1, *protocol)).is_some_and(|seen| seen.contains(&mapper));
                if of_picked.contains(&pair.2) && of_mapper.iter().any(mapper_seen) {
                    let known = picked(seen, picked_from).into_iter();
                    let ranges = known.map(|(first, last)| Range { first, last, reason });
                    all.0.entry(*pair).or_default().extend(ranges);
                }
            }
        }
        all.0.values_mut().for_each(|ranges| *ranges = joined(std::mem::take(ranges)));
        all.refuse_many(&ports, &Declared::of(cluster))?;
        Ok(all)
    }

    /// The range that holds an edge's port.
    pub fn holding(&self, edge: &'l Edge) -> Option<Range> {
        let ranges = self.0.get(&(&edge.client, &edge.server, edge.protocol))?;
        ranges.iter().find(|range| (range.first..=range.last).contains(&edge.port)).copied()
    }

    fn refuse_many(&self, ports: &BTreeMap<Pair<'l>, BTreeSet<u16>>, declared: &Declared<'_>) -> Result<(), Refused> {
        let mut wrong = Vec::new();
        for (pair, seen) in ports {
            let ranges = self.0.get(pair).map_or(&[][..], Vec::as_slice);
            let in_range = |port: u16| ranges.iter().any(|range| (range.first..=range.last).contains(&port));
            let open = seen.iter().copied().filter(|port| *port >= LINUX.0 && !in_range(*port));
            let open: Vec<u16> = open.filter(|port| !declared.has(pair.1, pair.2, *port)).collect();
            if let (true, Some(first), Some(last)) = (open.len() > MANY, open.first(), open.last()) {
                let name = naming::range(pair.0, pair.1, (*first, *last), pair.2);
                wrong.push(ManyPorts { ports: open.len(), name });
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(Refused::ManyPorts(wrong)) }
    }
}

/// The ranges that a person gave; each must hold an edge.
fn given<'l>(
    ports: &BTreeMap<Pair<'l>, BTreeSet<u16>>,
    names: &[String],
) -> Result<BTreeMap<Pair<'l>, Vec<Range>>, Refused> {
    let (mut all, mut wrong) = (BTreeMap::<Pair<'l>, Vec<Range>>::new(), Vec::new());
    for text in names {
        let name: RangeName = match text.parse() {
            Ok(name) => name,
            Err(error) => {
                wrong.push(error);
                continue;
            }
        };
        let holds = |(pair, seen): &(&Pair<'l>, &BTreeSet<u16>)| {
            name.names(pair.0, pair.1, pair.2) && seen.range(name.first..=name.last).next().is_some()
        };
        let meant: Vec<Pair<'l>> = ports.iter().filter(holds).map(|(pair, _)| *pair).collect();
        let range = Range { first: name.first, last: name.last, reason: RangeReason::ByName };
        meant.iter().for_each(|pair| all.entry(*pair).or_default().push(range));
        if meant.is_empty() {
            let text = naming::printable(text);
            wrong.push(format!("`{text}`: no learned edge lies in this range, so it would open what nobody used"));
        }
    }
    if wrong.is_empty() { Ok(all) } else { Err(Refused::Accept(wrong)) }
}

/// The ranges that ports above the well-known ones make.
fn picked(seen: &BTreeSet<u16>, picked_from: (u16, u16)) -> Vec<(u16, u16)> {
    let mut out = Vec::new();
    if seen.range(picked_from.0..=picked_from.1).count() >= SOME {
        out.push(picked_from);
    }
    let below = (1024, picked_from.0 - 1);
    let above = picked_from.1.checked_add(1).map(|first| (first, u16::MAX));
    for span in [Some(below), above].into_iter().flatten() {
        let here: Vec<u16> = seen.range(span.0..=span.1).copied().collect();
        if let (true, Some(first), Some(last)) = (here.len() >= SEVERAL, here.first(), here.last()) {
            out.push((*first, *last));
        }
    }
    out
}

/// Overlapping and touching ranges as one, with the first reason.
fn joined(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut out: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(before) if u32::from(range.first) <= u32::from(before.last) + 1 => {
                before.last = before.last.max(range.last);
                before.reason = before.reason.min(range.reason);
            }
            _ => out.push(range),
        }
    }
    out
}

/// Ports that workloads declare or Services lead to.
struct Declared<'c> {
    cluster: &'c Cluster,
    containers: HashSet<(String, String, String, u8, u16)>,
}

impl<'c> Declared<'c> {
    fn of(cluster: &'c Cluster) -> Self {
        let of_pods = cluster.pods.iter().map(|pod| (cluster.root_owner(pod), &pod.ports));
        let of_templates = cluster.workloads.iter().map(|(key, workload)| (key.clone(), &workload.template_ports));
        let containers = of_pods.chain(of_templates).flat_map(|(key, ports)| {
            let place = move |p: &model::cluster::ContainerPort| {
                let key = key.clone();
                (key.namespace, key.kind, key.name, p.protocol.number(), p.port)
            };
            ports.iter().map(place)
        });
        Self { cluster, containers: containers.collect() }
    }

    fn has(&self, server: &Party, protocol: u8, port: u16) -> bool {
        let Party::Workload(key) = server else { return false };
        let name = (key.namespace.clone(), key.kind.clone(), key.name.clone(), protocol, port);
        let is_target = |p: &model::cluster::ServicePort| {
            p.protocol.number() == protocol && p.target == model::cluster::TargetPort::Number(port)
        };
        let services = self.cluster.services.iter().filter(|((namespace, _), _)| *namespace == key.namespace);
        self.containers.contains(&name) || services.flat_map(|(_, service)| &service.ports).any(is_target)
    }
}
