//! The whole path on the running kernel: a lab's real traffic is learned, becomes policies, is audited and enforced, and
//! the log tells of it; afterwards nothing is left. What is expected comes from the scenario's traffic.yaml alone.

use generator::{Generated, Nodes, synthesize};
use lab::{Attack, CallOutcome, ExpectedEdge, Family, Lab, Party, Scenario};
use model::{
    cluster::{Cluster, Mode, Pod},
    ledger::{Ledger, Unfit},
    policy::PolicySet,
    record::{FlowRecord, FlowVerdict, UnixNanos},
    reference::{Endpoint, Reference},
};
use std::{
    collections::BTreeSet,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};
use tests::{
    privilege,
    story::{
        Applied, Bpffs, InKernel, Watch, alone, edge_of, is_expressible, lab_of, law_7, named, now, scenario,
        unanswered,
    },
};

const NONE: [String; 0] = [];

/// Prints how long the parts of a story take.
struct Pace(Instant);

impl Pace {
    fn mark(&mut self, what: &str) {
        println!("{:6.1} s  {what}", std::mem::replace(&mut self.0, Instant::now()).elapsed().as_secs_f32());
    }
}

#[test]
fn a_shop_is_learned_audited_and_enforced_and_nothing_is_left() {
    let (_alone, mut pace) = (alone(), Pace(Instant::now()));
    let scenario = scenario("shop");
    let test = "a_shop_is_learned_audited_and_enforced_and_nothing_is_left";
    let Some(lab) = lab_of(test, &scenario) else { return };
    let watch = Watch::start(&lab, datapath::Options::default());
    let held = InKernel::held();
    assert!(held.programs.len() >= 2, "two programs are loaded: {held:?}");
    pace.mark("the lab is up, the agent attached");

    let report = watch.run(Duration::from_secs(13));
    assert_eq!(unanswered(&report.failures), NONE, "nothing is in the way of learning");
    assert_eq!(watch.dropped(), 0, "learn drops nothing");
    pace.mark("learned");
    let ledger = watch.agent().ledger().expect("the agent answers");
    let cluster = lab.cluster().expect("the lab's objects can be read");
    let generated = generate(&scenario, &ledger, &cluster);
    let policies = through_yaml(&generated.policies);
    law_1(&scenario, &cluster, &policies, &generated);
    an_address_that_changed_hands_is_two_workloads(&lab, &watch.rows());
    pace.mark("generated, law 1 held");

    let audited = now();
    watch.apply(Applied { mode: Mode::Audit, policies: policies.clone(), ..Applied::default() });
    assert_eq!(unanswered(&watch.round()), NONE, "audit is in nobody's way");
    for attack in &scenario.attacks {
        assert_eq!(unanswered(&made(&lab, attack)), NONE, "what is only audited goes through: {}", attack.name);
    }
    assert_eq!(watch.dropped(), 0, "audit drops nothing");
    only_attacks_are_denied(&scenario, &watch.rows(), audited, FlowVerdict::AuditDeny);
    pace.mark("audited");

    let report = thread::scope(|scope| {
        let traffic = scope.spawn(|| watch.run(Duration::from_secs(4)));
        thread::sleep(Duration::from_millis(1500));
        watch.apply(Applied { mode: Mode::Enforce, policies, ..Applied::default() });
        traffic.join().expect("the traffic runs")
    });
    assert!(report.total().answered > 0);
    assert_eq!(unanswered(report.failures.iter().filter(|call| is_expressible(call))), NONE, "while it begins");
    pace.mark("enforced while traffic ran");

    let enforced = now();
    let round = watch.round();
    for family in Family::BOTH {
        let over = || round.iter().filter(|call| call.family == family && is_expressible(call));
        assert!(over().count() > 0);
        assert_eq!(unanswered(over()), NONE, "every learned call is answered over {family}");
    }
    for attack in &scenario.attacks {
        let outcomes = made(&lab, attack);
        assert!(outcomes.iter().all(|outcome| !outcome.answered()), "{}: {outcomes:?}", attack.name);
    }
    assert!(watch.dropped() > 0);
    only_attacks_are_denied(&scenario, &watch.rows(), enforced, FlowVerdict::Deny);
    pace.mark("the attacks are blocked and logged");

    let (stopped, rows) = watch.stop();
    law_7(&stopped, &rows);
    for attack in &scenario.attacks {
        assert_eq!(unanswered(&made(&lab, attack)), NONE, "detached, nothing is in the way: {}", attack.name);
    }
    let name = lab.name().to_owned();
    lab.down();
    assert_eq!(lab::leftovers(Some(&name)), NONE);
    assert_eq!(held.left(), InKernel::default(), "no program and no link is left");
    pace.mark("nothing is left");
}

#[test]
fn what_a_staged_policy_would_deny_passes_is_logged_and_not_learned() {
    let _alone = alone();
    let test = "what_a_staged_policy_would_deny_passes_is_logged_and_not_learned";
    if !privilege::kernel(test) {
        return;
    }
    let bpffs = Bpffs::mount();
    let scenario = scenario("tiny");
    let Some(lab) = lab_of(test, &scenario) else { return };
    let attack = &scenario.attacks[0];
    let learned = |ledger: &Ledger| -> BTreeSet<ExpectedEdge> {
        ledger.learned().keys().map(|edge| named(&scenario, edge)).collect()
    };

    let watch = Watch::start(&lab, datapath::Options::default());
    assert_eq!(unanswered(&watch.round()), NONE);
    let before = watch.rows();
    let ledger = watch.agent().ledger().expect("the agent answers");
    assert_eq!(learned(&ledger), scenario.expected_edges());
    let policies = generate(&scenario, &ledger, &lab.cluster().expect("objects")).policies;
    // The contrast: unless something is staged, the attack is learned like anything else.
    assert_eq!(unanswered(&made(&lab, attack)), NONE);
    let (stopped, rows) = watch.stop();
    assert!(rows.len() > before.len());
    assert!(learned(&stopped.ledger).is_superset(&scenario.edges_of_attack(attack)));
    law_7(&stopped, &rows);

    let pinned = datapath::Options { bpffs: Some(bpffs.path().to_owned()), ..datapath::Options::default() };
    let watch = Watch::start(&lab, pinned);
    let held = InKernel::held();
    assert!(bpffs.pins().len() > 1, "hooks are pinned: {:?}", bpffs.pins());
    watch.apply(Applied { mode: Mode::Enforce, staged: through_yaml(&policies), ..Applied::default() });
    assert_eq!(unanswered(&watch.round()), NONE);
    assert_eq!(unanswered(&made(&lab, attack)), NONE, "what is staged stops nothing");
    let (stopped, rows) = watch.stop();
    assert_eq!(stopped.status.counters.dropped(), 0);
    law_7(&stopped, &rows);
    let would_be_denied: Vec<&FlowRecord> =
        rows.iter().filter(|row| row.event.staged_verdict == FlowVerdict::AuditDeny).collect();
    let edges: BTreeSet<ExpectedEdge> = would_be_denied.iter().map(|row| edge_of(&scenario, row)).collect();
    assert_eq!(edges, scenario.edges_of_attack(attack), "staged: the attack would be denied, and nothing else");
    assert!(would_be_denied.iter().all(|row| row.event.verdict == FlowVerdict::Allow));
    assert_eq!(learned(&stopped.ledger), scenario.expected_edges(), "the attack is not learned");
    let unfit = stopped.ledger.unfit.keys().filter(|(reason, _)| *reason == Unfit::StagedDenied);
    let unfit: BTreeSet<ExpectedEdge> = unfit.filter_map(|(_, edge)| Some(named(&scenario, edge.as_ref()?))).collect();
    assert_eq!(unfit, edges);

    let name = lab.name().to_owned();
    lab.down();
    assert_eq!(lab::leftovers(Some(&name)), NONE);
    // The counter of epochs stays: none is used twice on a node.
    let still = held.left();
    assert_eq!((still.programs.len(), still.links.len(), still.maps.len()), (0, 0, 1), "{still:?}");
    let left: Vec<String> =
        bpffs.pins().iter().map(|pin| pin.file_name().expect("a name").display().to_string()).collect();
    assert_eq!(left, ["epochs"]);
}

fn generate(scenario: &Scenario, ledger: &Ledger, cluster: &Cluster) -> Generated {
    let options = generator::Options { nodes: Some(Nodes::Deny), ..generator::Options::default() };
    let generated = synthesize(ledger, cluster, &options).expect("policies");
    let (workloads, namespaces) = (generated.subjects.all().len(), generated.closed.closed.len());
    assert_eq!(generated.policies.policies.len(), workloads + namespaces, "{}", scenario.name);
    generated
}

/// As a person would apply them.
fn through_yaml(policies: &PolicySet) -> PolicySet {
    let mut text = String::new();
    for policy in &policies.policies {
        text += "---\n";
        text += &model::yaml::write_policy(policy);
    }
    model::yaml::read_policies("generated.yaml", &text).expect("what was written can be read")
}

/// Law 1: what traffic.yaml says is allowed by the reference, pod by pod and family by family; what no policy can
/// express is listed.
fn law_1(scenario: &Scenario, cluster: &Cluster, policies: &PolicySet, generated: &Generated) {
    let (expressible, rest): (BTreeSet<_>, BTreeSet<_>) =
        scenario.expected_edges().into_iter().partition(|edge| edge.protocol.is_some());
    let reference = Reference::new(cluster, policies);
    let mut asked = 0;
    for edge in &expressible {
        let (clients, servers) = (ends(scenario, cluster, &edge.client), ends(scenario, cluster, &edge.server));
        for (client_ip, client) in &clients {
            for (server_ip, server) in servers.iter().filter(|(ip, _)| ip.is_ipv4() == client_ip.is_ipv4()) {
                let decision = reference.decide(*client, *server, edge.protocol, edge.port);
                assert!(decision.allows(), "{edge:?}: {client_ip} to {server_ip} is {decision:?}");
                asked += 1;
            }
        }
    }
    assert!(asked >= 2 * expressible.len(), "both families of every edge: {asked} of {}", expressible.len());
    // The contrast: the same question about what nobody did.
    for attack in &scenario.attacks {
        for edge in scenario.edges_of_attack(attack) {
            let (clients, servers) = (ends(scenario, cluster, &edge.client), ends(scenario, cluster, &edge.server));
            for (client_ip, client) in clients {
                for (_, server) in servers.iter().filter(|(ip, _)| ip.is_ipv4() == client_ip.is_ipv4()) {
                    assert!(!reference.decide(client, *server, edge.protocol, edge.port).allows(), "{edge:?}");
                }
            }
        }
    }
    let left_out = generated.lessons.left_out.iter().filter_map(|left| left.edge.as_ref());
    let left_out: BTreeSet<ExpectedEdge> = left_out.map(|edge| named(scenario, edge)).collect();
    assert!(rest.is_subset(&left_out), "what no policy can express is listed: {rest:?} in {left_out:?}");
}

/// The ends a party means: its living pods at each of their addresses, or its addresses outside.
fn ends<'c>(scenario: &Scenario, cluster: &'c Cluster, party: &Party) -> Vec<(IpAddr, Endpoint<'c>)> {
    match party {
        Party::Workload(key) => {
            let pods = cluster.pods.iter().filter(|pod: &&Pod| cluster.root_owner(pod) == *key);
            pods.flat_map(|pod| pod.addresses.iter().map(move |ip| (*ip, Endpoint::Pod(pod, *ip)))).collect()
        }
        Party::Outside(name) => {
            scenario.outside[name].iter().map(|address| (*address, Endpoint::Address(*address))).collect()
        }
    }
}

/// Each flow of an address belongs to the workload whose pod held it when the flow began.
fn an_address_that_changed_hands_is_two_workloads(lab: &Lab, rows: &[FlowRecord]) {
    let pods = lab.pods();
    let nanos = |at: jiff::Timestamp| UnixNanos::try_from(at.as_nanosecond()).expect("this century");
    let mut hands = 0;
    for dead in pods.iter().filter(|pod| pod.ended.is_some()) {
        let Some(heir) = pods.iter().find(|pod| pod.uid != dead.uid && pod.addresses == dead.addresses) else {
            continue;
        };
        hands += 1;
        let ended = nanos(dead.ended.expect("it ended").at);
        let of_address = |row: &FlowRecord| {
            let ends = [row.client.clone(), row.server.clone()];
            ends.into_iter().find(|end| dead.addresses.contains(&end.ip)).map(|end| (row.event.flow_start, end))
        };
        let (mut before, mut after) = ([0, 0], [0, 0]);
        for (began, end) in rows.iter().filter_map(of_address) {
            let family = usize::from(end.ip.is_ipv6());
            let (count, owner) = if began < ended { (&mut before, dead) } else { (&mut after, heir) };
            assert_eq!(end.pod_uid.as_deref(), Some(owner.uid.as_str()), "{end:?} at {began}, {ended}");
            assert_eq!(end.workload.as_deref(), Some(&owner.workload), "{end:?} at {began}, {ended}");
            count[family] += 1;
        }
        println!(
            "{} flows' rows of {}, then {} of {}",
            before[0] + before[1],
            dead.name,
            after[0] + after[1],
            heir.name
        );
        assert!(
            before.iter().chain(&after).all(|rows| *rows > 0),
            "both owners over both families: {before:?} {after:?}"
        );
    }
    assert!(hands > 0, "an address changed hands");
}

/// The attack, made by one pod over each family.
fn made(lab: &Lab, attack: &Attack) -> Vec<CallOutcome> {
    let outcomes = lab.attack(attack).expect("the attacker is there");
    assert_eq!(outcomes.len(), 2, "over both families");
    outcomes
}

/// Since then each attack was denied in this way over both families, told with both ends' workloads; beside the attacks
/// only what no policy can express was.
fn only_attacks_are_denied(scenario: &Scenario, rows: &[FlowRecord], since: UnixNanos, verdict: FlowVerdict) {
    use FlowVerdict::{AuditDeny, Deny, Revoked};
    let denied = |row: &&FlowRecord| row.event.end >= since && matches!(row.event.verdict, AuditDeny | Deny | Revoked);
    let denied: Vec<_> = rows.iter().filter(denied).map(|row| (edge_of(scenario, row), row)).collect();
    for attack in &scenario.attacks {
        for edge in scenario.edges_of_attack(attack) {
            for family in Family::BOTH {
                let of_attack = |(seen, row): &&(ExpectedEdge, &FlowRecord)| {
                    *seen == edge && Family::of(row.server.ip) == family && row.event.verdict == verdict
                };
                let row = denied.iter().find(of_attack);
                let (_, row) = row.unwrap_or_else(|| panic!("not logged as {verdict} over {family}: {edge:?}"));
                assert_eq!(
                    row.client.workload.as_deref().map(|key| Party::Workload(key.clone())),
                    Some(edge.client.clone())
                );
                assert_eq!(&*row.event.reason, "no-rule");
            }
        }
    }
    let attacks: BTreeSet<ExpectedEdge> = scenario.attacks.iter().flat_map(|a| scenario.edges_of_attack(a)).collect();
    for (edge, row) in denied {
        assert!(edge.protocol.is_none() || attacks.contains(&edge), "denied, and no attack: {row:?}");
    }
}
