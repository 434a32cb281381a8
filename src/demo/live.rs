//! The whole story: learn, generate, audit, enforce, on a lab and its kernel.

use super::{
    Place,
    denials::{self, Denial},
    expected,
    step::{Step, Story, count},
};
use crate::{
    ending::Failure,
    files, flows, graph, laboratory, learned, output,
    watch::{Applied, Watch},
    when,
};
use generator::{CommunicationGraph, Generated, Nodes, Options, explain, render};
use jiff::Timestamp;
use lab::{Attack, CallOutcome, ExpectedEdge, Family, Lab, Party, RunReport, Scenario, Scheme, traffic::Expect};
use model::{
    cluster::{Cluster, Mode},
    ledger::Ledger,
    policy::PolicySet,
    record::UnixNanos,
};
use std::{collections::BTreeSet, thread, time::Duration};

type Told = Result<(), Failure>;

/// Runs it; the lab is up and the agent watches nothing yet.
pub(crate) fn tell(story: &mut Story, lab: &Lab, watch: Watch<'_>, place: &Place) -> Told {
    let scene = Scene { lab, watch: &watch, place, scenario: lab.scenario() };
    scene.up(story)?;
    scene.learn(story)?;
    let ledger = scene.graph(story)?;
    let policies = scene.generate(story, &ledger)?;
    scene.audit(story, &policies)?;
    let enforced = scene.enforce(story, &policies)?;
    scene.query(story, enforced)?;
    let stopped = watch.stop()?;
    let lost = stopped.status.counters.lost() + stopped.status.lost_entries + stopped.log.lost;
    let differences = if lost == 0 { Vec::new() } else { vec![format!("{lost} events, entries or rows were lost")] };
    let seen = format!("{} rows in the log, {lost} lost", stopped.log.rows);
    say(story.tell(Step::judged("the agent ends", "every flow is in the log", seen, differences)))
}

/// Once the lab is down.
pub(crate) fn nothing_left(name: &str) -> Step {
    let left = lab::leftovers(Some(name));
    let seen = format!("{} left", left.len());
    Step::judged("the lab is down", "no namespace, folder or process of it is left", seen, left)
}

fn say(said: std::io::Result<()>) -> Told {
    said.map_err(output::failed)
}

/// How long traffic must run for every call, job and event of the scenario to happen.
fn learning_time(scenario: &Scenario) -> Duration {
    let calls = scenario.calls.iter().map(|call| call.every * 2);
    let jobs = scenario.jobs.iter().flat_map(|job| job.at.iter().map(|at| *at + job.lives));
    let events = scenario.events.iter().map(|event| {
        event.at + event.address_to.as_ref().map_or(Duration::ZERO, |(_, after)| *after) + Duration::from_secs(2)
    });
    let longest = calls.chain(jobs).chain(events).max().unwrap_or_default();
    longest.clamp(Duration::from_secs(5), Duration::from_secs(25)) + Duration::from_secs(1)
}

struct Scene<'s> {
    lab: &'s Lab,
    watch: &'s Watch<'s>,
    place: &'s Place,
    scenario: &'s Scenario,
}

impl Scene<'_> {
    /// Every workload of traffic.yaml has pods, with both families, that the kernel program covers.
    fn up(&self, story: &mut Story) -> Told {
        let pods = self.lab.pods();
        let with_pods: BTreeSet<_> = pods.iter().map(|pod| Party::Workload(pod.workload.clone())).collect();
        let later: BTreeSet<_> = self.scenario.jobs.iter().map(|job| Party::Workload(job.workload.clone())).collect();
        let named = self.scenario.serves.keys().chain(self.scenario.calls.iter().map(|call| &call.from));
        let named: BTreeSet<&Party> =
            named.filter(|party| matches!(party, Party::Workload(_)) && !later.contains(party)).collect();
        let update = self.watch.apply(Applied::default())?;
        let without = named.iter().filter(|party| !with_pods.contains(party)).map(|party| format!("no pod of {party}"));
        let single = pods.iter().filter(|pod| Family::BOTH.iter().any(|family| family.pick(&pod.addresses).is_none()));
        let single = single.map(|pod| format!("{} has not both address families", pod.full_name()));
        let uncovered = update.not_covered.iter().map(|pod| format!("{} is not covered: {}", pod.pod, pod.why));
        let differences = without.chain(single).chain(uncovered).collect();
        let namespaces: BTreeSet<_> = pods.iter().map(|pod| pod.namespace.as_str()).collect();
        let promised = format!("pods of {}, dual-stack, each covered at its veth", count(named.len(), "workload"));
        let seen = format!(
            "{} of {} in {}, {} covered",
            count(pods.len(), "pod"),
            count(with_pods.len(), "workload"),
            count(namespaces.len(), "namespace"),
            update.covered.len()
        );
        say(story.tell(Step::judged("the lab is up", promised, seen, differences)))
    }

    /// Traffic runs, and nothing is in its way.
    fn learn(&self, story: &mut Story) -> Told {
        let time = learning_time(self.scenario);
        let report = self.run(time)?;
        let outcomes = self.round()?;
        let total = report.total();
        let failed = outcomes.iter().filter(|outcome| !outcome.answered());
        let differences = report.failures.iter().chain(failed).map(ToString::to_string).collect();
        let seen = format!(
            "{} answered in {} s and {} in a round of all, {} failed",
            total.answered,
            time.as_secs(),
            outcomes.iter().filter(|outcome| outcome.answered()).count(),
            total.failed as usize + outcomes.iter().filter(|outcome| !outcome.answered()).count()
        );
        say(story.tell(Step::judged("learn", "every call of traffic.yaml is answered", seen, differences)))
    }

    /// What was seen is what traffic.yaml says.
    fn graph(&self, story: &mut Story) -> Result<Ledger, Failure> {
        self.watch.flush()?;
        let ledger = learned::read(&self.place.log())?.ledger;
        show_graph(story, self.scenario, &ledger)?;
        Ok(ledger)
    }

    /// Policies, written as YAML and read back from it.
    fn generate(&self, story: &mut Story, ledger: &Ledger) -> Result<PolicySet, Failure> {
        let cluster = self.lab.cluster().map_err(laboratory::failed)?;
        let objects = std::fs::read(self.lab.cluster_file())
            .map_err(|why| Failure::of("the lab's objects cannot be read", why))?;
        files::replace(&self.place.cluster(), &objects)?;
        let generated = generate(story, self.scenario, ledger, &cluster)?;
        files::replace_folder(&self.place.generated(), &crate::generate::laid_out(&generated), &|_, _| true)?;
        crate::generate::read_policies(&self.place.generated())
    }

    /// The attacks go through, and are logged as what would be denied; nothing else is.
    fn audit(&self, story: &mut Story, policies: &PolicySet) -> Told {
        let since = self.apply(Mode::Audit, policies)?;
        let mut differences = Vec::new();
        for outcome in self.round()?.iter().filter(|outcome| !outcome.answered()) {
            differences.push(outcome.to_string());
        }
        let mut answered = 0;
        for attack in &self.scenario.attacks {
            let outcomes = self.attack(attack)?;
            answered += outcomes.iter().filter(|outcome| outcome.answered()).count();
            let failed = outcomes.iter().filter(|outcome| !outcome.answered());
            differences.extend(failed.map(|outcome| format!("{}: {outcome}", attack.name)));
        }
        let denials = self.denials(since)?;
        differences.extend(self.judge(&denials, "audit_deny", Reach::Server));
        let names: Vec<&str> = self.scenario.attacks.iter().map(|attack| attack.name.as_str()).collect();
        let promised = format!("goes through, is logged as would-be denied, and nothing else is: {}", names.join("; "));
        let seen = format!("{} went through; {}", count(answered, "attempt"), logged(&denials));
        say(story.tell(Step::judged("audit", promised, seen, differences)))
    }

    /// The attacks fail and are logged; everything learned goes on, while the change happens and after.
    fn enforce(&self, story: &mut Story, policies: &PolicySet) -> Result<UnixNanos, Failure> {
        let time = Duration::from_secs(4);
        let (report, since) = thread::scope(|scope| {
            let traffic = scope.spawn(|| self.run(time));
            thread::sleep(time / 3);
            let since = self.apply(Mode::Enforce, policies);
            let report =
                traffic.join().unwrap_or_else(|_| Err(Failure::new("the traffic's thread is gone", "try again")));
            (report, since)
        });
        let (report, since) = (report?, since?);
        let failures = report.failures.iter().filter(|outcome| !is_inexpressible(outcome));
        let differences: Vec<String> = failures.map(ToString::to_string).collect();
        let seen = format!("{} answered, {} failed", report.total().answered, differences.len());
        let promised = "no call that a policy can express fails while enforcement begins";
        say(story.tell(Step::judged("enforce, while traffic runs", promised, seen, differences)))?;
        self.attacks_fail(story, since)?;
        self.learned_calls_succeed(story)?;
        Ok(since)
    }

    fn attacks_fail(&self, story: &mut Story, since: UnixNanos) -> Told {
        let mut differences = Vec::new();
        let mut blocked = 0;
        for attack in &self.scenario.attacks {
            for outcome in self.attack(attack)? {
                match (attack.expect, outcome.answered()) {
                    (Expect::Denied, false) => blocked += 1,
                    (Expect::Allowed, true) => {}
                    _ => differences.push(format!("{}: {outcome}", attack.name)),
                }
            }
        }
        let denials = self.denials(since)?;
        differences.extend(self.judge(&denials, "deny", Reach::Anywhere));
        let seen = format!("{} blocked; {}", count(blocked, "attempt"), logged(&denials));
        let promised = "the same attacks are blocked and logged, over IPv4 and IPv6, and nothing else is";
        say(story.tell(Step::judged("the attacks under enforcement", promised, seen, differences)))
    }

    fn learned_calls_succeed(&self, story: &mut Story) -> Told {
        let outcomes = self.round()?;
        let (apart, outcomes): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(is_inexpressible);
        let over = |family: Family| outcomes.iter().filter(move |outcome| outcome.family == family);
        let answered = |family: Family| over(family).filter(|outcome| outcome.answered()).count();
        let promised = format!(
            "every learned call succeeds: {} over IPv4, {} over IPv6",
            over(Family::V4).count(),
            over(Family::V6).count()
        );
        let seen = format!("{} over IPv4, {} over IPv6", answered(Family::V4), answered(Family::V6));
        let failed = outcomes.iter().filter(|outcome| !outcome.answered());
        say(story.tell(Step::judged("the learned calls", promised, seen, failed.map(ToString::to_string).collect())))?;
        if !apart.is_empty() {
            let passed = apart.iter().filter(|outcome| outcome.answered()).count();
            let apart = count(apart.len(), "ping");
            say(story.say(&format!("{apart}, which no NetworkPolicy can express: {passed} answered, the rest denied")))?;
        }
        Ok(())
    }

    /// The log is asked who was denied.
    fn query(&self, story: &mut Story, since: UnixNanos) -> Told {
        self.watch.flush()?;
        let query = denials::query(since);
        say(story.say(&format!("podfence flows --log {} --sql \"{query}\"", self.place.log().display())))?;
        let answer = flows::answer(&self.place.log(), &query)?;
        flows::show(&answer)?;
        let found: BTreeSet<ExpectedEdge> =
            self.denials(since)?.into_iter().map(|denial| denial.edge).filter(|edge| edge.protocol.is_some()).collect();
        let attacks: BTreeSet<ExpectedEdge> = self.edges_of_attacks();
        let surplus =
            found.difference(&attacks).map(|edge| format!("denied, and no attack: {}", expected::shown(edge)));
        let absent = self.scenario.attacks.iter().filter(|attack| attack.expect == Expect::Denied);
        let absent = absent.filter(|attack| self.scenario.edges_of_attack(attack).is_disjoint(&found));
        let differences = surplus.chain(absent.map(|attack| format!("not found: {}", attack.name))).collect();
        let seen = format!("{} in {} rows", count(found.len(), "denied edge"), denials::rows(&answer));
        say(story.tell(Step::judged("the log is asked", "it names the attacks, and only them", seen, differences)))
    }

    fn edges_of_attacks(&self) -> BTreeSet<ExpectedEdge> {
        let denied = self.scenario.attacks.iter().filter(|attack| attack.expect == Expect::Denied);
        denied.flat_map(|attack| self.scenario.edges_of_attack(attack)).collect()
    }

    /// What of the denials is not as it should be: each attack logged with this verdict over each family, nothing else
    /// denied but what no policy can express.
    fn judge(&self, denials: &[Denial], verdict: &str, reach: Reach) -> Vec<String> {
        let mut differences = Vec::new();
        let attacks = self.edges_of_attacks();
        for denial in denials {
            if denial.edge.protocol.is_some() && !attacks.contains(&denial.edge) {
                let edge = expected::shown(&denial.edge);
                differences.push(format!("denied, and no attack: {edge} over {} ({})", denial.family, denial.verdict));
            }
            let as_denied = denial.verdict == verdict || (verdict == "deny" && denial.verdict == "revoked");
            if denial.edge.protocol.is_some() && !as_denied {
                differences.push(format!("{} is {}, not {verdict}", expected::shown(&denial.edge), denial.verdict));
            }
        }
        let logged = |edge: &ExpectedEdge, family| denials.iter().any(|d| d.edge == *edge && d.family == family);
        for attack in self.scenario.attacks.iter().filter(|attack| attack.expect == Expect::Denied) {
            for family in families_of(attack) {
                let wanted = self.scenario.edges_of_attack(attack).into_iter().filter(|edge| match reach {
                    Reach::Server => attack.servers.contains(&edge.server),
                    Reach::Anywhere => true,
                });
                let wanted: Vec<ExpectedEdge> = wanted.collect();
                if !wanted.is_empty() && !wanted.iter().any(|edge| logged(edge, family)) {
                    let wanted: Vec<String> = wanted.iter().map(expected::shown).collect();
                    differences.push(format!("not logged over {family}: {}", wanted.join(" or ")));
                }
            }
        }
        differences
    }

    fn denials(&self, since: UnixNanos) -> Result<Vec<Denial>, Failure> {
        self.watch.flush()?;
        denials::since(&self.place.log(), self.scenario, since)
    }

    /// Applies a mode; the time from which it is in effect everywhere.
    fn apply(&self, mode: Mode, policies: &PolicySet) -> Result<UnixNanos, Failure> {
        self.watch.apply(Applied { mode, policies: policies.clone() })?;
        Ok(when::nanos(Timestamp::now()))
    }

    fn run(&self, time: Duration) -> Result<RunReport, Failure> {
        let _busy = output::busy(format!("traffic runs for {} s", time.as_secs()));
        let mut lagging = None;
        let report = self.lab.run(time, &mut |cluster| {
            let followed = self.watch.follow(cluster);
            lagging = lagging.take().or(followed.err());
        });
        lagging.map_or(Ok(()), Err)?;
        report.map_err(laboratory::failed)
    }

    fn round(&self) -> Result<Vec<CallOutcome>, Failure> {
        let _busy = output::busy("makes each call once");
        let mut lagging = None;
        let outcomes = self.lab.round(&mut |cluster| {
            let followed = self.watch.follow(cluster);
            lagging = lagging.take().or(followed.err());
        });
        lagging.map_or(Ok(()), Err)?;
        outcomes.map_err(laboratory::failed)
    }

    fn attack(&self, attack: &Attack) -> Result<Vec<CallOutcome>, Failure> {
        self.lab.attack(attack).map_err(laboratory::failed)
    }
}

/// How far an attack came, and so what of it must be in the log.
#[derive(Clone, Copy)]
enum Reach {
    /// Nothing was blocked: the server was reached.
    Server,
    /// What is blocked first ends it, a look-up perhaps.
    Anywhere,
}

/// A call that no NetworkPolicy can express.
fn is_inexpressible(outcome: &CallOutcome) -> bool {
    outcome.to.scheme == Scheme::Icmp
}

/// The families an attack is made over.
fn families_of(attack: &Attack) -> Vec<Family> {
    match attack.to.host {
        lab::Host::Address(ip) => vec![Family::of(ip)],
        _ => Family::BOTH.to_vec(),
    }
}

fn logged(denials: &[Denial]) -> String {
    let edges: BTreeSet<String> = denials
        .iter()
        .filter(|denial| denial.edge.protocol.is_some())
        .map(|denial| format!("{} {} over {}", denial.verdict, expected::shown(&denial.edge), denial.family))
        .collect();
    if edges.is_empty() { "nothing logged".to_owned() } else { edges.into_iter().collect::<Vec<_>>().join("; ") }
}

/// The graph, beside the one that traffic.yaml draws.
pub(crate) fn show_graph(story: &mut Story, scenario: &Scenario, ledger: &Ledger) -> Told {
    let graph = CommunicationGraph::of(ledger);
    graph::table(&graph).write(&mut std::io::stdout().lock()).map_err(output::failed)?;
    let (expected, inexpressible) = expected::split(scenario.expected_edges());
    let seen = expected::of_graph(scenario, &graph);
    let mut differences = expected::differences(&expected, &seen);
    let unfit = ledger.unfit.keys().filter_map(|(_, edge)| edge.as_ref());
    let listed: BTreeSet<ExpectedEdge> = unfit.map(|edge| expected::named(scenario, edge)).collect();
    let unlisted = inexpressible.difference(&listed);
    differences.extend(unlisted.map(|edge| format!("not listed: {}", expected::shown(edge))));
    let promised = expected::counted(expected.len(), inexpressible.len());
    let seen = expected::counted(seen.len(), inexpressible.intersection(&listed).count());
    say(story.tell(Step::judged("the graph", promised, seen, differences)))
}

/// Policies for what was learned, shown and judged.
pub(crate) fn generate(
    story: &mut Story,
    scenario: &Scenario,
    ledger: &Ledger,
    cluster: &Cluster,
) -> Result<Generated, Failure> {
    let options = Options { nodes: Some(Nodes::Deny), ..Options::default() };
    let generated =
        generator::synthesize(ledger, cluster, &options).map_err(|why| Failure::of("no policies were written", why))?;
    say(story.say(&render::summary(&generated)))?;
    say(story.tell(generated_step(&generated, &expected::split(scenario.expected_edges()).0, scenario)))?;
    show_policy(story, scenario, &generated)?;
    Ok(generated)
}

/// A policy for every workload, whose rules come from the edges that traffic.yaml says.
fn generated_step(generated: &Generated, expected: &BTreeSet<ExpectedEdge>, scenario: &Scenario) -> Step {
    let mut differences = Vec::new();
    let taught: BTreeSet<ExpectedEdge> = generated
        .lessons
        .lessons
        .iter()
        .filter(|lesson| !lesson.basis.is_generalisation())
        .map(|lesson| expected::named(scenario, &lesson.edge))
        .collect();
    differences.extend(expected::differences(expected, &taught));
    let (policies, subjects) = (generated.policies.policies.len(), generated.subjects.all().len());
    let namespaces: BTreeSet<&str> = generated.subjects.all().iter().map(|s| s.key.namespace.as_str()).collect();
    if policies != subjects + namespaces.len() {
        differences.push(format!("{policies} policies for {subjects} workloads in {} namespaces", namespaces.len()));
    }
    let promised = format!(
        "{}, one a workload and one that closes each namespace, allowing each learned edge and nothing else",
        policy_count(subjects + namespaces.len())
    );
    let seen = format!(
        "{}, verified over {} pairs of pods and {} of pod and address",
        policy_count(policies),
        generated.verified.pairs,
        generated.verified.addresses
    );
    Step::judged("generate", promised, seen, differences)
}

fn policy_count(n: usize) -> String {
    if n == 1 { "1 policy".to_owned() } else { format!("{n} policies") }
}

/// The policy of what is attacked, with its evidence.
fn show_policy(story: &mut Story, scenario: &Scenario, generated: &Generated) -> Told {
    let attacked: BTreeSet<String> = scenario
        .attacks
        .iter()
        .flat_map(|attack| &attack.servers)
        .filter_map(|party| match party {
            Party::Workload(key) => Some(generator::naming::workload(key)),
            Party::Outside(_) => None,
        })
        .collect();
    let evidence = |policy: &model::policy::NetworkPolicy| {
        generated.evidence.policies.get(&format!("{}/{}", policy.namespace, policy.name))
    };
    let of_attacked = generated
        .policies
        .policies
        .iter()
        .find(|policy| evidence(policy).is_some_and(|evidence| attacked.contains(&evidence.workload)));
    let Some(policy) = of_attacked.or(generated.policies.policies.first()) else { return Ok(()) };
    say(story.say(&model::yaml::write_policy(policy)))?;
    say(story.say(&explain::policy(policy, &generated.evidence)))?;
    let all = generated.evidence.policies.values().flat_map(|policy| &policy.rules);
    let (rules, bare): (usize, Vec<String>) = all.fold((0, Vec::new()), |(n, mut bare), rule| {
        if rule.proofs.is_empty() {
            bare.push(format!("no evidence behind {}", rule.rule));
        }
        (n + 1, bare)
    });
    let seen = format!("evidence behind {} of {}", rules - bare.len(), count(rules, "rule"));
    say(story.tell(Step::judged("the evidence", "flows stand behind every rule", seen, bare)))
}
