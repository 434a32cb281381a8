//! Over random clusters, `why` says what a second evaluator says; every rule it names decides; and the rule it proposes,
//! pasted, opens the connection and closes nothing.
//!
//! `PODFENCE_SEED` is the seed, `PROPTEST_CASES` how many clusters.

use model::{
    cluster::{Cluster, Pod},
    policy::{NetworkPolicy, PolicySet, Protocol},
    record::RuleName,
    reference::{Endpoint, Reference},
    yaml::{read_into, read_policies},
};
use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestRunner},
};
use review::{
    Input, Missing,
    why::{self, Case, Judgement, Question, Side, Why},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, net::IpAddr};
use tests::{
    objects::objects,
    random::Random,
    second::{self, Who},
};

const CLUSTERS: u32 = 10_000;
/// So many questions a cluster.
const QUESTIONS: usize = 24;
const PORTS: [u16; 5] = [1, 80, 81, 8080, 65_535];
const ELSEWHERE: [&str; 4] = ["10.0.0.9", "fd00::9", "192.168.0.1", "203.0.113.1"];

#[test]
fn the_verdict_is_right_each_rule_named_decides_and_the_missing_one_opens_it() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CLUSTERS);
    let seed = Random::seed(11);
    let config = ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&(objects(), any::<u64>()), |(objects, seed)| {
        let objects = with_owners(objects.0, seed % 2 == 0);
        let text: String = objects.iter().map(|object| format!("{object}\n")).collect();
        let mut cluster = Cluster::default();
        read_into(&mut cluster, "objects", &text).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let world = World { objects: &objects, cluster: &cluster };
        let mut random = Random::new(seed);
        for (from, to) in world.questions(&mut random) {
            world.check(&from, &to)?;
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// Some pods belong to one workload, so that workloads have pods that differ; and in half of the worlds everyone is in
/// one namespace, so that policies meet.
fn with_owners(mut objects: Vec<Value>, in_one_namespace: bool) -> Vec<Value> {
    for object in objects.iter_mut().filter(|_| in_one_namespace) {
        if object["kind"] == "Pod" || object["kind"] == "NetworkPolicy" {
            object["metadata"]["namespace"] = json!("a");
        }
    }
    for (index, pod) in objects.iter_mut().filter(|object| object["kind"] == "Pod").enumerate() {
        if index % 3 > 0 {
            let owner =
                json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "set", "uid": "u", "controller": true});
            pod["metadata"]["ownerReferences"] = json!([owner]);
        }
    }
    objects
}

struct World<'w> {
    objects: &'w [Value],
    cluster: &'w Cluster,
}

impl<'w> World<'w> {
    /// Workloads, pods and addresses, at ports by number and by name.
    fn questions(&self, random: &mut Random) -> Vec<(String, String)> {
        let living: Vec<&Pod> = self.cluster.pods.iter().filter(|pod| pod.lives()).collect();
        let mut ends: BTreeSet<String> = living.iter().map(|pod| self.cluster.root_owner(pod).to_string()).collect();
        ends.extend(living.iter().map(|pod| format!("{}/Pod/{}", pod.namespace, pod.name)));
        let mut ends: Vec<String> = ends.into_iter().collect();
        ends.extend(ELSEWHERE.map(|address| format!("[{address}]")));
        let one = |random: &mut Random| ends[random.below(ends.len())].clone();
        let questions = (0..QUESTIONS).map(|_| {
            let (from, to) = (one(random), one(random));
            let port = match random.below(6) {
                0 => random.one(&["http", "dns"]).to_owned(),
                _ => random.one(&PORTS).to_string(),
            };
            (from, format!("{to}:{port}/{}", random.one(&["TCP", "TCP", "UDP", "SCTP"])))
        });
        questions.collect()
    }

    fn check(&self, from: &str, to: &str) -> Result<(), TestCaseError> {
        let question = Question {
            from: from.parse().map_err(|why: why::Problem| TestCaseError::fail(why.to_string()))?,
            to: to.parse().map_err(|why: why::Problem| TestCaseError::fail(why.to_string()))?,
        };
        let input = Input { cluster: self.cluster, policies: &self.cluster.policies };
        let Ok(answer) = why::why(input, &question, &|_| None) else { return Ok(()) };
        let about = format!("{from} -> {to}\n{}", answer.lines().join("\n"));
        let protocol = question.to.port.as_ref().map_or(Protocol::Tcp, |port| port.protocol);
        for case in &answer.cases {
            let Some(port) = case.number.or_else(|| asked_number(&question)) else { continue };
            self.verdict(case, protocol, port, &about)?;
            self.rules(case, protocol, port, &about)?;
        }
        self.missing(&answer, &question, protocol, &about)
    }

    /// Every pair of addresses that a case is about.
    fn pairs(&self, case: &Case) -> Vec<(At<'w>, At<'w>)> {
        let (from, to) = (self.at(&case.from), self.at(&case.to));
        let itself = case.egress.judgement == Judgement::Exempt;
        let mut pairs = Vec::new();
        for one in &from {
            for other in &to {
                let same_pod = one.pod.is_some() && one.pod.map(|pod| &pod.name) == other.pod.map(|pod| &pod.name);
                if one.address.is_ipv4() == other.address.is_ipv4() && (itself || !same_pod) {
                    pairs.push((*one, *other));
                }
            }
        }
        pairs
    }

    fn at(&self, names: &[String]) -> Vec<At<'w>> {
        let mut all = Vec::new();
        for name in names {
            if let Ok(address) = name.parse() {
                all.push(At { pod: None, address });
                continue;
            }
            let (name, family) = name.split_once(" over ").unwrap_or((name, ""));
            let pod = self.cluster.pods.iter().find(|pod| pod.name == name).expect("a pod of the answer");
            let of_family = |ip: &&IpAddr| family.is_empty() || ip.is_ipv4() == (family == "IPv4");
            all.extend(pod.addresses.iter().filter(of_family).map(|ip| At { pod: Some(pod), address: *ip }));
        }
        all
    }

    fn verdict(&self, case: &Case, protocol: Protocol, port: u16, about: &str) -> Result<(), TestCaseError> {
        for (from, to) in self.pairs(case) {
            let expected = second::allowed(self.objects, self.who(from), self.who(to), Some(protocol.name()), port);
            prop_assert_eq!(case.is_allowed, expected, "{:?} -> {:?}: {}", from.address, to.address, about);
            prop_assert_eq!(case.allowed.contains(protocol, port), expected, "ports of {}", about);
        }
        Ok(())
    }

    fn who(&self, at: At<'w>) -> Who<'w> {
        match at.pod.filter(|pod| !pod.host_network) {
            None => Who::Address(at.address),
            Some(pod) => {
                let is_it =
                    |object: &&Value| object["kind"] == "Pod" && object["metadata"]["name"] == pod.name.as_str();
                Who::Pod(self.objects.iter().find(is_it).expect("the pod"), Some(at.address))
            }
        }
    }

    /// Each rule named is enough on its side, and without them all the side denies.
    fn rules(&self, case: &Case, protocol: Protocol, port: u16, about: &str) -> Result<(), TestCaseError> {
        for (side, is_egress) in [(&case.egress, true), (&case.ingress, false)] {
            if side.judgement != Judgement::Allowed {
                prop_assert!(side.rules.is_empty(), "{}", about);
                continue;
            }
            prop_assert!(!side.rules.is_empty() && !side.isolated_by.is_empty(), "{}", about);
            let named: BTreeSet<&RuleName> = side.rules.iter().map(|rule| &rule.name).collect();
            let without = self.only(is_egress, |rule| !named.contains(rule));
            prop_assert!(!self.passes(&without, case, side, (protocol, port, is_egress)), "without them: {}", about);
            for name in &named {
                let alone = self.only(is_egress, |rule| rule == *name);
                prop_assert!(self.passes_all(&alone, case, (protocol, port, is_egress)), "{} alone: {}", name, about);
            }
        }
        Ok(())
    }

    /// The policies with only the rules of one direction that are kept; isolation stays.
    fn only(&self, is_egress: bool, keep: impl Fn(&RuleName) -> bool) -> PolicySet {
        let mut policies = self.cluster.policies.clone();
        for policy in &mut policies.policies {
            let name = |index| match is_egress {
                true => RuleName::egress(policy, index),
                false => RuleName::ingress(policy, index),
            };
            let names: Vec<RuleName> = (0..8).map(name).collect();
            let list = if is_egress { &mut policy.egress } else { &mut policy.ingress };
            if let Some(rules) = list {
                let mut index = 0;
                rules.retain(|_| {
                    index += 1;
                    keep(&names[index - 1])
                });
            }
        }
        policies
    }

    /// Whether the side passes for some pair.
    fn passes(&self, policies: &PolicySet, case: &Case, _: &Side, asked: (Protocol, u16, bool)) -> bool {
        self.sides(policies, case, asked).contains(&true)
    }

    fn passes_all(&self, policies: &PolicySet, case: &Case, asked: (Protocol, u16, bool)) -> bool {
        !self.sides(policies, case, asked).contains(&false)
    }

    fn sides(
        &self,
        policies: &PolicySet,
        case: &Case,
        (protocol, port, is_egress): (Protocol, u16, bool),
    ) -> Vec<bool> {
        let reference = Reference::new(self.cluster, policies);
        let judge = |(from, to): (At<'w>, At<'w>)| {
            let decision = reference.decide(from.endpoint(), to.endpoint(), Some(protocol), port);
            if is_egress { decision.egress.allows() } else { decision.ingress.allows() }
        };
        self.pairs(case).into_iter().map(judge).collect()
    }

    fn missing(&self, answer: &Why, question: &Question, protocol: Protocol, about: &str) -> Result<(), TestCaseError> {
        let sides = answer.cases.iter().flat_map(|case| [&case.egress, &case.ingress]);
        for side in sides.filter(|side| side.judgement == Judgement::Denied) {
            prop_assert!(side.missing.is_some() != side.no_rule.is_some(), "{}", about);
            let fine = side.no_rule.as_deref().is_none_or(|why| {
                why.starts_with("no label tells") || why.contains("does not tell its node's address")
            });
            prop_assert!(fine, "{:?}: {}", side.no_rule, about);
        }
        let mut mended = self.cluster.policies.clone();
        answer.missing.iter().for_each(|missing| paste(&mut mended, missing));
        let (before, after) =
            (Reference::new(self.cluster, &self.cluster.policies), Reference::new(self.cluster, &mended));
        for case in &answer.cases {
            let Some(port) = case.number.or_else(|| asked_number(question)) else { continue };
            if [&case.egress, &case.ingress].iter().any(|side| side.no_rule.is_some()) {
                continue;
            }
            for (from, to) in self.pairs(case) {
                let decision = after.decide(from.endpoint(), to.endpoint(), Some(protocol), port);
                prop_assert!(decision.allows(), "with what is missing: {}", about);
            }
        }
        let everyone: Vec<At<'w>> = self.everyone();
        for from in &everyone {
            for to in everyone.iter().filter(|to| to.address.is_ipv4() == from.address.is_ipv4()) {
                for port in PORTS {
                    let open = |reference: &Reference<'_>| {
                        reference.decide(from.endpoint(), to.endpoint(), Some(protocol), port).allows()
                    };
                    prop_assert!(!open(&before) || open(&after), "closes {:?} -> {:?}: {}", from, to, about);
                }
            }
        }
        Ok(())
    }

    fn everyone(&self) -> Vec<At<'w>> {
        let pods = self.cluster.pods.iter().filter(|pod| pod.lives());
        let pods = pods.flat_map(|pod| pod.addresses.iter().map(move |ip| At { pod: Some(pod), address: *ip }));
        let elsewhere = ELSEWHERE.iter().map(|ip| At { pod: None, address: ip.parse().expect("an address") });
        pods.chain(elsewhere).collect()
    }
}

#[derive(Clone, Copy)]
struct At<'w> {
    pod: Option<&'w Pod>,
    address: IpAddr,
}

impl std::fmt::Debug for At<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.pod.map_or("", |pod| &pod.name), self.address)
    }
}

impl<'w> At<'w> {
    fn endpoint(self) -> Endpoint<'w> {
        self.pod.map_or(Endpoint::Address(self.address), |pod| Endpoint::Pod(pod, self.address))
    }
}

fn asked_number(question: &Question) -> Option<u16> {
    match question.to.port.as_ref()?.port {
        why::PortName::Number(number) => Some(number),
        why::PortName::Name(_) => None,
    }
}

/// As a person would: the document as it is, or the list item at the end of its list.
fn paste(policies: &mut PolicySet, missing: &Missing) {
    let yaml = missing.yaml();
    if missing.is_new {
        let read = read_policies("new", &yaml).expect("a policy");
        policies.policies.extend(read.policies);
        policies.sort();
        return;
    }
    let types = if missing.list() == "egress" { "[Egress]" } else { "[Ingress]" };
    let item: String = yaml.lines().map(|line| format!("  {line}\n")).collect();
    let document = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: x, namespace: x}}\nspec:\n  \
         podSelector: {{}}\n  policyTypes: {types}\n  {}:\n{item}",
        missing.list()
    );
    let read = read_policies("rule", &document).expect("a rule").policies.remove(0);
    let is_it = |policy: &&mut NetworkPolicy| format!("{}/{}", policy.namespace, policy.name) == missing.policy_name();
    let policy = policies.policies.iter_mut().find(is_it).expect("the policy to extend");
    match missing.list() {
        "egress" => policy.egress.as_mut().expect("isolated").extend(read.egress.into_iter().flatten()),
        _ => policy.ingress.as_mut().expect("isolated").extend(read.ingress.into_iter().flatten()),
    }
}
