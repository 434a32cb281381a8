//! Simulated clusters: who talks to whom in which hour, and how many new edges the next hour will truly bring on
//! average, which only a simulator knows.
//!
//! Always holds: the same seed is the same world; what is new is counted by edge, however many flows make it.

use super::random::Random;
use model::{
    cluster::{Cluster, WorkloadKey},
    ledger::{Edge, EdgeCounters, Ledger, Party, SLICE},
    record::{DirectionRule, UnixNanos},
};
use std::{fmt::Write as _, sync::Arc};

/// When the simulated watching begins: a whole hour.
pub(crate) const BEGIN: UnixNanos = 472_222 * SLICE;

const NAMESPACES: usize = 2;
const WORKLOADS: usize = 8;
const MINUTE: i64 = SLICE / 60;

/// How edges come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// By chance, at rates from every hour to once a year.
    Steady,
    /// By chance, all equally rare.
    Alike,
    /// Daily, weekly and monthly jobs beside busy edges, at hours nobody knows.
    Jobs,
    /// Rare edges, two hundred flows within ten minutes whenever they come.
    Bursts,
    /// Groups of three that always come together, at rates of all sizes.
    Together,
    /// New ends all the time, each for an hour, beside steady edges.
    Churn,
    /// Steady edges, and again and again a release that brings new edges which stay.
    Releases,
}

impl Kind {
    /// Those for which the bound is promised.
    pub(crate) const PROMISED: [Self; 6] =
        [Self::Steady, Self::Alike, Self::Jobs, Self::Bursts, Self::Together, Self::Churn];
}

/// A cluster whose traffic is simulated.
pub(crate) struct World {
    sources: Vec<Source>,
    /// New edges that live for an hour, an hour and pair of workloads.
    short_lived: f64,
    /// Edges that stay, an hour.
    released: f64,
    flows: u32,
}

/// An edge and when it comes.
struct Source {
    edge: Edge,
    comes: Comes,
}

#[derive(Clone, Copy)]
enum Comes {
    /// With this chance in each hour.
    ByChance(f64),
    /// With this chance, all of a group in the same hours.
    InGroup { chance: f64, seed: u64 },
    /// Every so many hours, at this one of them.
    Every { hours: u64, at: u64 },
}

/// What was seen of a world in some hours, and what the next will bring.
pub(crate) struct Watched {
    /// What an observer of every node learned.
    pub(crate) ledger: Ledger,
    /// Edges that it has not seen, with how many of each the next hour will bring on average.
    pub(crate) unseen: Vec<(Edge, f64)>,
    /// Flows of each edge seen, for those who count flows.
    pub(crate) flows: Vec<(Edge, u64)>,
}

/// A namespace's name.
pub(crate) fn namespace(index: usize) -> String {
    format!("team-{}", index % NAMESPACES)
}

/// A workload; the last one's edges are those of a job that runs once a month.
pub(crate) fn workload(index: usize) -> Arc<WorkloadKey> {
    let kind = if index == WORKLOADS { "CronJob" } else { "Deployment" };
    Arc::new(WorkloadKey { namespace: namespace(index), kind: kind.to_owned(), name: format!("w{index}") })
}

/// The monthly job.
pub(crate) fn monthly() -> Arc<WorkloadKey> {
    workload(WORKLOADS)
}

/// The cluster's objects: eight deployments on three nodes, and a monthly job that has no pod.
pub(crate) fn cluster() -> Cluster {
    let mut yaml = String::new();
    for index in 0..WORKLOADS {
        let (key, node) = (workload(index), index % 3);
        let _ = write!(
            yaml,
            "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{selector: {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}}}}}}\n\
             ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}-0, namespace: {namespace}, labels: {{app: {name}}}, \
             ownerReferences: [{{kind: Deployment, name: {name}, uid: u, controller: true}}]}}\n\
             spec: {{nodeName: node-{node}}}\nstatus: {{podIPs: [{{ip: 10.0.0.{ip}}}]}}\n",
            name = key.name,
            namespace = key.namespace,
            ip = index + 1,
        );
    }
    let job = monthly();
    let _ = write!(
        yaml,
        "---\napiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: \
         {{schedule: '0 3 1 * *', jobTemplate: {{spec: {{template: {{metadata: {{labels: {{app: {name}}}}}}}}}}}}}\n",
        name = job.name,
        namespace = job.namespace,
    );
    let mut cluster = Cluster::default();
    model::yaml::read_into(&mut cluster, "worlds", &yaml).expect("YAML of the simulator");
    cluster
}

impl World {
    /// A world of this kind.
    pub(crate) fn of(kind: Kind, random: &mut Random) -> Self {
        let mut world = Self { sources: Vec::new(), short_lived: 0.0, released: 0.0, flows: 1 };
        match kind {
            Kind::Steady => world.by_chance(random, 60, (-4.0, 0.0)),
            Kind::Alike => world.by_chance(random, 60, (-1.7, -1.7)),
            Kind::Bursts => {
                world.flows = 200;
                world.by_chance(random, 60, (-4.0, -1.0));
            }
            Kind::Together => {
                for _ in 0..100 {
                    let seed = random.bits();
                    let chance = 10_f64.powf(between(random, -4.0, 0.0));
                    let (client, server) = ends(random);
                    for _ in 0..3 {
                        world.add(&client, &server, Comes::InGroup { chance, seed });
                    }
                }
            }
            Kind::Jobs => {
                world.by_chance(random, 20, (-0.5, 0.0));
                for (count, hours) in [(15, 24), (10, 168)] {
                    for _ in 0..count {
                        let (client, server) = ends(random);
                        world.add(&client, &server, Comes::Every { hours, at: random.below(hours as usize) as u64 });
                    }
                }
                let at = random.below(720) as u64;
                for _ in 0..3 {
                    world.add(&monthly(), &ends(random).1, Comes::Every { hours: 720, at });
                }
            }
            Kind::Churn => {
                world.by_chance(random, 30, (-4.0, 0.0));
                world.short_lived = 0.3;
            }
            Kind::Releases => {
                world.by_chance(random, 30, (-4.0, 0.0));
                world.released = 0.05;
            }
        }
        world
    }

    fn by_chance(&mut self, random: &mut Random, edges: usize, (low, high): (f64, f64)) {
        for _ in 0..edges {
            let (client, server) = ends(random);
            self.add(&client, &server, Comes::ByChance(10_f64.powf(between(random, low, high))));
        }
    }

    fn add(&mut self, client: &Arc<WorkloadKey>, server: &Arc<WorkloadKey>, comes: Comes) {
        let edge = new_edge(client, server, self.sources.len());
        self.sources.push(Source { edge, comes });
    }

    /// Watches it for so many hours. `busier` multiplies the flows within each hour, and nothing else.
    pub(crate) fn watch(&self, hours: u64, busier: u32, random: &mut Random) -> Watched {
        let mut seen = Watched { ledger: Ledger::default(), unseen: Vec::new(), flows: Vec::new() };
        for node in 0..3 {
            let node: Arc<str> = format!("node-{node}").into();
            seen.ledger.watch(&node, &node, BEGIN, BEGIN + hours as i64 * SLICE - 1);
        }
        for source in &self.sources {
            let mut draws = match source.comes {
                Comes::InGroup { seed, .. } => Random::new(seed),
                _ => Random::new(random.bits()),
            };
            let comes: Vec<u64> = (0..hours).filter(|hour| source.comes_in(*hour, &mut draws)).collect();
            if comes.is_empty() {
                seen.unseen.push((source.edge.clone(), source.expected_in(hours)));
            }
            comes.iter().for_each(|hour| seen.see(&source.edge, *hour, self.flows * busier));
        }
        self.come_and_go(hours, busier, &mut seen, random);
        seen
    }

    /// Edges that did not exist before.
    fn come_and_go(&self, hours: u64, busier: u32, seen: &mut Watched, random: &mut Random) {
        for (rate, stays) in [(self.short_lived, 1), (self.released, hours)] {
            for hour in 0..hours {
                for _ in 0..poisson(random, rate) {
                    let (client, server) = ends(random);
                    let edge = new_edge(&client, &server, 1000 + seen.flows.len());
                    (hour..hours.min(hour + stays)).for_each(|hour| seen.see(&edge, hour, self.flows * busier));
                }
            }
            // On average over whom the next one is of.
            let pairs = WORKLOADS * (WORKLOADS - 1);
            for index in 0..pairs {
                let (client, server) = pair(index);
                let edge = new_edge(&workload(client), &workload(server), 9999);
                seen.unseen.extend((rate > 0.0).then_some((edge, rate / pairs as f64)));
            }
        }
    }
}

impl Source {
    fn comes_in(&self, hour: u64, draws: &mut Random) -> bool {
        match self.comes {
            Comes::ByChance(chance) | Comes::InGroup { chance, .. } => fraction(draws) < chance,
            Comes::Every { hours, at } => hour % hours == at,
        }
    }

    fn expected_in(&self, hour: u64) -> f64 {
        match self.comes {
            Comes::ByChance(chance) | Comes::InGroup { chance, .. } => chance,
            Comes::Every { hours, at } => f64::from(u8::from(hour % hours == at)),
        }
    }
}

impl Watched {
    /// Flows of an edge in an hour, spread over ten minutes where there are enough.
    fn see(&mut self, edge: &Edge, hour: u64, flows: u32) {
        let start = BEGIN + hour as i64 * SLICE;
        let parts = flows.min(10);
        for part in 0..parts {
            let at = start + i64::from(part) * MINUTE;
            let counters = EdgeCounters {
                flows: u64::from(flows / parts),
                first_seen: at,
                last_seen: at + 1,
                samples: Vec::new(),
                direction_rule: DirectionRule::Syn,
                adopted_only: false,
                nodes: Vec::new(),
            };
            self.ledger.see(&"node-0".into(), edge.clone(), counters);
        }
        match self.flows.last_mut() {
            Some((last, all)) if last == edge => *all += u64::from(flows),
            _ => self.flows.push((edge.clone(), flows.into())),
        }
    }

    /// New edges that the next hour will bring on average to whom `touches` says.
    pub(crate) fn truth(&self, touches: &dyn Fn(&WorkloadKey) -> bool) -> f64 {
        let of = self.unseen.iter().filter(|(edge, _)| edge.workloads().any(|key| touches(key)));
        of.map(|(_, expected)| expected).sum()
    }
}

fn new_edge(client: &Arc<WorkloadKey>, server: &Arc<WorkloadKey>, number: usize) -> Edge {
    let port = 1024 + u16::try_from(number).expect("few edges");
    Edge { client: Party::Workload(client.clone()), server: Party::Workload(server.clone()), protocol: 6, port }
}

fn ends(random: &mut Random) -> (Arc<WorkloadKey>, Arc<WorkloadKey>) {
    let (client, server) = pair(random.below(WORKLOADS * (WORKLOADS - 1)));
    (workload(client), workload(server))
}

/// Two different workloads.
fn pair(index: usize) -> (usize, usize) {
    let (client, other) = (index / (WORKLOADS - 1), index % (WORKLOADS - 1));
    (client, if other >= client { other + 1 } else { other })
}

fn between(random: &mut Random, low: f64, high: f64) -> f64 {
    low + (high - low) * fraction(random)
}

/// 0 to 1.
fn fraction(random: &mut Random) -> f64 {
    (random.bits() >> 11) as f64 / (1u64 << 53) as f64
}

/// How many of something that comes at a rate (Knuth).
fn poisson(random: &mut Random, rate: f64) -> u32 {
    let (mut count, mut left) = (0, fraction(random));
    while left > (-rate).exp() {
        left *= fraction(random);
        count += 1;
    }
    count
}
