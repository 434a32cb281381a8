//! What packets were judged by, held against the policy of the epoch they were judged in.

use crate::policies::{ALL_TURNS, Meaning, PEERS, POD, POD_UID, PORTS, cluster};
use compile::RuleOrigin;
use datapath::{Counters, SweptEntry};
use flow::{Direction, TCP, UDP};
use model::{
    cluster::Cluster,
    policy::Protocol,
    record::RuleName,
    reference::{Endpoint, Judgement, Reference},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};
use tests::fraction;
use verdict::{
    Phase, Reason, State,
    abi::{Event, EventKind, connection_parts, epoch_of, word},
};

/// Mixtures that are kept to be shown.
const SHOWN: usize = 20;

/// One question: peer, server's port, protocol, who opened.
type Question = (IpAddr, u16, u8, bool);
/// What a policy says to each question: the rules that allow it, or none.
type Answers = BTreeMap<Question, BTreeSet<RuleName>>;

/// Everything that was seen.
#[derive(Default)]
pub(crate) struct Record {
    answers: BTreeMap<Meaning, Answers>,
    rules: BTreeMap<u32, RuleOrigin>,
    /// Epoch of the pod's word after each publish, and its turn.
    epochs: BTreeMap<u64, usize>,
    /// How many publishes there were.
    pub(crate) publishes: u64,
    /// Packets that no policy accounts for, the first of them.
    pub(crate) mixtures: Vec<String>,
    judged: BTreeMap<(Meaning, bool), u64>,
    events: u64,
    packets: u64,
    counted: BTreeMap<Reason, u64>,
}

impl Record {
    /// Rule numbers of a plan. A number never gets another meaning.
    pub(crate) fn learn(&mut self, rules: &BTreeMap<u32, RuleOrigin>) {
        for (number, origin) in rules {
            let before = self.rules.insert(*number, origin.clone());
            assert!(before.is_none_or(|before| before == *origin), "rule {number} was another one before");
        }
    }

    /// The pod's word has this epoch now.
    pub(crate) fn published(&mut self, epoch: u64, turn: usize) {
        self.epochs.insert(epoch, turn);
        if self.answers.is_empty() {
            self.answers.extend((0..ALL_TURNS).map(|turn| (Meaning::of(turn), answers(&cluster(turn)))));
        }
    }

    /// What an epoch stands for, and what it may stand for while the next publish is carried out. An epoch between
    /// two publishes is one of the older policy.
    fn meanings(&self, epoch: u64) -> Option<[Meaning; 2]> {
        let (_, turn) = self.epochs.range(..=epoch).next_back()?;
        Some([Meaning::of(*turn), Meaning::changing(*turn)])
    }

    /// What became of one packet, or of one and its answers.
    pub(crate) fn entry(&mut self, entry: &SweptEntry) {
        self.packets += entry.counted.packets();
        let parts = connection_parts(&entry.key);
        let state = State(entry.record[word::STATE]);
        let inbound = state.opened() == Direction::Inbound;
        let port = if inbound { parts.local_port } else { parts.peer_port };
        let question = (parts.peer.ip(), port, parts.protocol, inbound);
        let allowed = state.phase() != Phase::Tombstone;
        let rule = entry.record[word::RULES] as u32;
        self.hold(question, state.epoch(), allowed.then_some(rule), &|| format!("{:?}", state.reason()));
    }

    /// An event names the whole word.
    pub(crate) fn event(&mut self, event: &Event) {
        let by_policy = matches!(event.reason, Reason::AllowedByRule | Reason::NoRule);
        if event.kind != EventKind::Verdict || !by_policy || !matches!(event.key.protocol, TCP | UDP) {
            return;
        }
        self.events += 1;
        let inbound = event.direction == Direction::Inbound;
        let peer = if inbound { event.key.source } else { event.key.destination };
        let question = (peer.ip(), event.key.destination_port, event.key.protocol, inbound);
        let rule = event.reason.allows().then_some(event.rule);
        self.hold(question, epoch_of(event.word), rule, &|| format!("event {:x?}", event.word));
    }

    fn hold(&mut self, question: Question, epoch: u64, rule: Option<u32>, what: &dyn Fn() -> String) {
        let meanings = self.meanings(epoch);
        let name = rule.map(|number| self.rules.get(&number).map(|origin| &origin.name));
        let agrees = |meaning: &&Meaning| {
            let allowed = self.answers.get(meaning).and_then(|answers| answers.get(&question));
            match (name, allowed) {
                (_, None) => false,
                (None, Some(rules)) => rules.is_empty(),
                (Some(name), Some(rules)) => name.is_some_and(|name| rules.contains(name)),
            }
        };
        let during = |meaning: &Meaning| {
            !self.epochs.contains_key(&epoch) || meanings.is_some_and(|[whole, _]| *meaning != whole)
        };
        match meanings.iter().flatten().find(agrees) {
            Some(meaning) => {
                let key = (*meaning, during(meaning));
                *self.judged.entry(key).or_default() += 1;
            }
            None if self.mixtures.len() < SHOWN => {
                let what = what();
                self.mixtures.push(format!("{question:?}, epoch {epoch} of {meanings:?}: {rule:?} ({name:?}), {what}"));
            }
            None => {}
        }
    }

    /// The kernel's counters: every packet was judged by policy, and none is missing here.
    pub(crate) fn compare(&mut self, counters: &Counters) {
        for ((reason, ..), counter) in &counters.verdicts {
            *self.counted.entry(*reason).or_default() += counter.packets;
        }
    }

    /// Whether packets were judged by each of the policies while it changed.
    pub(crate) fn met_changes_of_both(&self) -> bool {
        let met = |policy| self.judged.keys().any(|(meaning, during)| *during && meaning.policy == policy);
        met(0) && met(1)
    }

    /// Packets were judged under both policies and while they changed, and nothing but policy judged them.
    pub(crate) fn assert_under_load(&self) {
        for policy in [0, 1] {
            for (during, least) in [(false, fraction::of(1_000)), (true, 1)] {
                let of =
                    self.judged.iter().filter(|((meaning, while_), _)| meaning.policy == policy && *while_ == during);
                let judged: u64 = of.map(|(_, packets)| packets).sum();
                assert!(
                    judged >= least,
                    "policy {policy} (while it changed: {during}) judged {judged} packets: {self}"
                );
            }
        }
        let by_policy = [Reason::AllowedByRule, Reason::NoRule].map(|reason| self.counted.get(&reason).copied());
        let by_policy: u64 = by_policy.into_iter().flatten().sum();
        assert!(self.packets >= by_policy, "{by_policy} packets were judged by policy: {self}");
        use Reason::{HalfOpenFull, NotReady, TableFull, UnknownPod};
        for never in [NotReady, UnknownPod, HalfOpenFull, TableFull] {
            assert_eq!(self.counted.get(&never), None, "{self}");
        }
    }
}

/// What the policy of a cluster says of every packet of the load.
fn answers(cluster: &Cluster) -> Answers {
    let reference = Reference::new(cluster, &cluster.policies);
    let server = cluster.pods.iter().find(|pod| pod.uid == POD_UID).expect("the server");
    let mut all = Answers::new();
    for (family, own) in POD.iter().enumerate() {
        let own = Endpoint::Pod(server, own.parse().expect("an address"));
        for peer in PEERS.map(|peer| peer[family].parse::<IpAddr>().expect("an address")) {
            let pod = cluster.pods.iter().find(|pod| pod.addresses.contains(&peer));
            let other = pod.map_or(Endpoint::Address(peer), |pod| Endpoint::Pod(pod, peer));
            for port in PORTS {
                for (number, protocol) in [(TCP, Protocol::Tcp), (UDP, Protocol::Udp)] {
                    let inbound = reference.decide(other, own, Some(protocol), port).ingress;
                    let outbound = reference.decide(own, other, Some(protocol), port).egress;
                    all.insert((peer, port, number, true), rules(inbound));
                    all.insert((peer, port, number, false), rules(outbound));
                }
            }
        }
    }
    all
}

fn rules(judgement: Judgement) -> BTreeSet<RuleName> {
    match judgement {
        Judgement::AllowedBy(rules) => rules.into_iter().collect(),
        Judgement::Denied(_) => BTreeSet::new(),
        other => panic!("both policies isolate the pod both ways: {other:?}"),
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |during| self.judged.iter().filter(|((_, of), _)| *of == during).map(|(_, n)| n).sum::<u64>();
        write!(
            f,
            "{} publishes; {} connections and events held, {} of them judged while a publish was carried out; {} packets in \
             entries, {} events; counted: {:?}",
            self.publishes,
            sum(false) + sum(true),
            sum(true),
            self.packets,
            self.events,
            self.counted
        )
    }
}
