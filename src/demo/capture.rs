//! The half of the story that needs no privilege: from a capture to policies, the attacks judged in simulation.

use super::{
    Place, expected, live,
    step::{Step, Story, count},
};
use crate::{
    ending::Failure,
    escape, files, learned, output,
    scenarios::{self, Recording},
    when,
};
use daemon::CLUSTER;
use flowlog::Writer;
use jiff::Timestamp;
use lab::{ExpectedEdge, Family, Party, Scenario, traffic::Expect};
use model::{
    cluster::{Cluster, Pod},
    policy::{PolicySet, Protocol},
    reference::{Decision, Endpoint, Judgement, Reference},
    view::AddressView,
};
use observer::{MeterOptions, Observer};
use std::{collections::BTreeSet, net::IpAddr};

type Told = Result<(), Failure>;

/// Tells it, and what it leaves out because of `why`.
pub(crate) fn tell(story: &mut Story, scenario: &Scenario, place: &Place, why: &str) -> Told {
    let lead = format!("without the kernel's half: {why}");
    println!("{}", escape::printable(&lead));
    story.leave_out(format!("the lab, audit and enforcement in the kernel, as {why}"));
    let Recording { capture, objects } = scenarios::recording(scenario)?;
    let file = place.root.join("capture.pcap");
    files::replace(&file, &capture)?;
    files::replace(&place.cluster(), objects.as_bytes())?;
    let cluster = inventory::read(&[place.cluster()])
        .map_err(|why| Failure::of("the objects beside the capture cannot be read", why))?;
    observe(story, &file, &cluster, place)?;
    let ledger = learned::read(&place.log())?.ledger;
    live::show_graph(story, scenario, &ledger)?;
    let generated = live::generate(story, scenario, &ledger, &cluster)?;
    files::replace_folder(&place.generated(), &crate::generate::laid_out(&generated), &|_, _| true)?;
    let policies = crate::generate::read_policies(&place.generated())?;
    simulate(story, &Simulation { scenario, cluster: &cluster, policies: &policies })
}

/// The capture becomes a log, every end with its name.
fn observe(story: &mut Story, file: &std::path::Path, cluster: &Cluster, place: &Place) -> Told {
    let now = when::nanos(Timestamp::now());
    let writer = Writer::open(&place.log(), CLUSTER, "capture", flowlog::Options::default(), now)
        .map_err(|why| Failure::of("the log cannot be written", why))?;
    let mut observer = Observer::new(writer, AddressView::new(cluster), "capture", "capture");
    let summary = observer::observe_file(file, MeterOptions::default(), &mut observer)
        .map_err(|why| Failure::of("the capture was not observed", why))?;
    let unknown = observer.unknown_ends().clone();
    observer.close().map_err(|why| Failure::of("the log is not complete", why))?;
    let mut differences: Vec<String> =
        unknown.iter().map(|(reason, ends)| format!("{} unknown: {reason}", count(*ends as usize, "end"))).collect();
    differences.extend(summary.ended_early.iter().map(ToString::to_string));
    let seen = format!(
        "{}, {}, {} of no flow",
        count(summary.packets as usize, "packet"),
        count(summary.flows as usize, "flow"),
        summary.skipped.total()
    );
    let promised = "a capture of the scenario becomes flows, both ends of each known";
    story.tell(Step::judged("observe", promised, seen, differences)).map_err(output::failed)
}

/// What the policies would do, by the reference evaluator.
struct Simulation<'s> {
    scenario: &'s Scenario,
    cluster: &'s Cluster,
    policies: &'s PolicySet,
}

fn simulate(story: &mut Story, simulation: &Simulation<'_>) -> Told {
    story.tell(simulation.attacks()).map_err(output::failed)?;
    story.tell(simulation.learned_calls()).map_err(output::failed)
}

impl Simulation<'_> {
    fn attacks(&self) -> Step {
        let (mut differences, mut told) = (Vec::new(), BTreeSet::new());
        for attack in self.scenario.attacks.iter().filter(|attack| attack.expect == Expect::Denied) {
            let edges = self.scenario.edges_of_attack(attack);
            let judged = edges.iter().flat_map(|edge| self.decisions(edge));
            let mut denied = 0;
            for (family, decision) in judged {
                if decision.allows() {
                    differences.push(format!("{}: allowed over {family}", attack.name));
                } else {
                    denied += 1;
                    told.insert(format!("{}: {}", attack.name, because(&decision)));
                }
            }
            if denied == 0 {
                differences.push(format!("{}: nothing of it would be denied", attack.name));
            }
        }
        let seen = told.into_iter().collect::<Vec<_>>().join("; ");
        Step::judged(
            "the attacks, in simulation",
            "every attack would be denied, over IPv4 and IPv6",
            seen,
            differences,
        )
    }

    fn learned_calls(&self) -> Step {
        let (expected, _) = expected::split(self.scenario.expected_edges());
        let (mut asked, mut differences) = (0, Vec::new());
        for edge in &expected {
            let decisions = self.decisions(edge);
            if decisions.is_empty() {
                differences.push(format!("nobody to ask about: {}", expected::shown(edge)));
            }
            asked += decisions.len();
            let denied = decisions.iter().filter(|(_, decision)| !decision.allows());
            differences.extend(
                denied.map(|(family, decision)| {
                    format!("{} over {family}: {}", expected::shown(edge), because(decision))
                }),
            );
        }
        let promised = format!("each of {} would be allowed", count(expected.len(), "edge"));
        let seen = format!("{} of {asked} pairs of addresses allowed", asked - differences.len().min(asked));
        Step::judged("the learned calls, in simulation", promised, seen, differences)
    }

    /// Every pair of addresses that an edge means, judged.
    fn decisions(&self, edge: &ExpectedEdge) -> Vec<(Family, Decision)> {
        let reference = Reference::new(self.cluster, self.policies);
        let (clients, servers) = (self.ends(&edge.client), self.ends(&edge.server));
        let mut decisions = Vec::new();
        for (client_ip, client) in &clients {
            let same_family = servers.iter().filter(|(ip, _)| ip.is_ipv4() == client_ip.is_ipv4());
            for (_, server) in same_family {
                let protocol: Option<Protocol> = edge.protocol;
                let decision = reference.decide(*client, *server, protocol, edge.port);
                decisions.push((Family::of(*client_ip), decision));
            }
        }
        decisions
    }

    /// The ends a party means, with their addresses: its pods, ended ones too, or its addresses outside.
    fn ends(&self, party: &Party) -> Vec<(IpAddr, Endpoint<'_>)> {
        match party {
            Party::Workload(key) => {
                let pods = self.cluster.pods.iter().filter(|pod: &&Pod| self.cluster.root_owner(pod) == *key);
                pods.flat_map(|pod| pod.addresses.iter().map(move |ip| (*ip, Endpoint::Pod(pod, *ip)))).collect()
            }
            Party::Outside(name) => {
                let addresses = self.scenario.outside.get(name).into_iter().flatten();
                addresses.map(|ip| (*ip, Endpoint::Address(*ip))).collect()
            }
        }
    }
}

fn because(decision: &Decision) -> String {
    let of = |what: &str, judgement: &Judgement| match judgement {
        Judgement::Denied(policies) => Some(format!("{what} denied by {}", policies.join(", "))),
        _ => None,
    };
    let parts: Vec<String> =
        [of("egress", &decision.egress), of("ingress", &decision.ingress)].into_iter().flatten().collect();
    if parts.is_empty() { "allowed".to_owned() } else { parts.join(", ") }
}
