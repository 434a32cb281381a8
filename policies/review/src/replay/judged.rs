//! What is said of each pair of ends, gathered into rows.

use super::{Change, Counters, DeniedSide, Pair, Replay, Row, SAMPLES, Who, place_of};
use crate::{
    Direction, Input,
    missing::{self, Missing, PeerEnd, Side},
};
use model::{
    cluster::{Pod, WorkloadKey},
    ledger::{Edge, Party},
    policy::{Port, PortMatch, Protocol},
    reference::{Decision, Endpoint, Judgement, Reference},
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

const NO_UID: &str = "a pod without UID in the log";
const NO_POD: &str = "a pod that the input does not hold, nor its workload";
const PODS_DIFFER: &str = "a pod that the input does not hold, and policies tell the pods of its workload apart";
const NO_RULE_FOUND: &str = "no rule was found that opens this and nothing else";

/// Pods by what the log calls them.
struct Pods<'c> {
    by_uid: HashMap<&'c str, &'c Pod>,
    by_workload: BTreeMap<WorkloadKey, Vec<&'c Pod>>,
}

/// `namespace/name->namespace/name:port/protocol`.
pub(super) fn edge_text(edge: &Edge) -> String {
    let end = |party: &Party, is_server: bool| match party {
        Party::Workload(key) => format!("{}/{}", key.namespace, key.name),
        Party::Node(IpAddr::V6(ip)) | Party::Outside(IpAddr::V6(ip)) if is_server => format!("[{ip}]"),
        Party::Node(ip) | Party::Outside(ip) => ip.to_string(),
    };
    let (client, server) = (end(&edge.client, false), end(&edge.server, true));
    match Protocol::from_number(edge.protocol) {
        Some(protocol) => format!("{client} -> {server} {} {}", protocol.name(), edge.port),
        None if [flow::ICMP, flow::ICMPV6].contains(&edge.protocol) => format!("{client} -> {server} ICMP"),
        None => format!("{client} -> {server} IP protocol {}", edge.protocol),
    }
}

/// Pairs of one row with what each is.
struct Gathered<'p> {
    row: Row,
    /// The pods at each end, and the addresses, in the log's order.
    pairs: Vec<(Endpoint<'p>, Endpoint<'p>)>,
    clients: BTreeSet<IpAddr>,
}

/// The rows and what is missing for those that are newly denied.
pub(super) fn rows(replay: &mut Replay<'_>) -> (Vec<Row>, Vec<Missing>) {
    let input = replay.input;
    let ends = input.cluster.ends();
    let pods = Pods::of(input, &ends);
    let reference = Reference::new(input.cluster, input.policies);
    let pairs = std::mem::take(&mut replay.pairs);
    let mut gathered: BTreeMap<Key, Gathered<'_>> = BTreeMap::new();
    for (pair, counters) in &pairs {
        match judge(&reference, &pods, pair) {
            Err(why) => {
                let flows = counters.flows[0].max(counters.flows[1]);
                replay.leave_out_flows(why, edge_text(&pair.edge), flows, &counters.samples);
            }
            Ok((decision, endpoints)) => gather(&mut gathered, pair, counters, decision, endpoints),
        }
    }
    let mut gathered: Vec<Gathered<'_>> = gathered.into_values().collect();
    let mut missing = Vec::new();
    for one in &mut gathered {
        let few = one.clients.iter().take(SAMPLES).copied().collect();
        one.row.clients = (few, one.clients.len());
        if matches!(one.row.change, Change::NewlyDenied | Change::StillDenied) {
            denied_sides(input, &ends, one, &mut missing);
        }
    }
    if !would_allow(input, &gathered, &missing) {
        for side in gathered.iter_mut().flat_map(|one| &mut one.row.denied) {
            if side.missing.take().is_some() {
                side.no_rule = Some(NO_RULE_FOUND.to_owned());
            }
        }
        missing.clear();
    }
    (gathered.into_iter().map(|one| one.row).collect(), missing)
}

impl<'c> Pods<'c> {
    fn of(input: Input<'c>, ends: &'c [Cow<'_, Pod>]) -> Self {
        let mut by_workload: BTreeMap<WorkloadKey, Vec<&Pod>> = BTreeMap::new();
        for pod in ends {
            by_workload.entry(input.cluster.root_owner(pod)).or_default().push(pod);
        }
        Self { by_uid: input.cluster.pods.iter().map(|pod| (pod.uid.as_str(), pod)).collect(), by_workload }
    }

    /// The pod that held the address; where the input does not hold it (any more), the pods that its
    /// workload has now stand for it.
    fn find(&self, at: &super::At, party: &Party) -> Result<Vec<Endpoint<'c>>, &'static str> {
        let Party::Workload(key) = party else { return Ok(vec![Endpoint::Address(at.address)]) };
        let uid = at.pod_uid.as_deref().ok_or(NO_UID)?;
        if let Some(pod) = self.by_uid.get(uid) {
            return Ok(vec![Endpoint::Pod(pod, at.address)]);
        }
        let stand_in = self.by_workload.get(&**key).ok_or(NO_POD)?;
        Ok(stand_in.iter().map(|pod| Endpoint::Pod(pod, at.address)).collect())
    }
}

type Judged<'p> = (Decision, (Endpoint<'p>, Endpoint<'p>));

fn judge<'p>(reference: &Reference<'_>, pods: &Pods<'p>, pair: &Pair) -> Result<Judged<'p>, &'static str> {
    let clients = pods.find(&pair.client, &pair.edge.client)?;
    let servers = pods.find(&pair.server, &pair.edge.server)?;
    let protocol = Protocol::from_number(pair.edge.protocol);
    let mut judged: Option<Judged<'p>> = None;
    for client in &clients {
        for server in &servers {
            let decision = reference.decide(*client, *server, protocol, pair.edge.port);
            match &judged {
                None => judged = Some((decision, (*client, *server))),
                Some((known, _)) if known.allows() == decision.allows() => {}
                Some(_) => return Err(PODS_DIFFER),
            }
        }
    }
    judged.ok_or(NO_POD)
}

/// What one row is about: change (worst first), not answered, client, server, protocol, port, both
/// sides' reasons.
type Key = (Change, bool, Who, Who, Protocol, u16, String);

fn gather<'p>(
    gathered: &mut BTreeMap<Key, Gathered<'p>>,
    pair: &Pair,
    counters: &Counters,
    decision: Decision,
    endpoints: (Endpoint<'p>, Endpoint<'p>),
) {
    // The log has no edge of another protocol: NetworkPolicy cannot express it.
    let Some(protocol) = Protocol::from_number(pair.edge.protocol) else { return };
    let change = match (pair.was_denied, decision.allows()) {
        (false, true) => Change::StillAllowed,
        (false, false) => Change::NewlyDenied,
        (true, true) => Change::NewlyAllowed,
        (true, false) => Change::StillDenied,
    };
    // What was denied could not be answered.
    let is_answered = counters.is_answered || pair.was_denied;
    let who = |party: &Party, is_client: bool| match party {
        Party::Workload(key) => Who::Workload(key.clone()),
        Party::Node(ip) => Who::Node(*ip),
        Party::Outside(_) if is_client => Who::Clients,
        Party::Outside(ip) => Who::Outside(*ip),
    };
    let (client, server) = (who(&pair.edge.client, true), who(&pair.edge.server, false));
    let reasons = format!("{:?}", (&decision.egress, &decision.ingress));
    let key = (change, !is_answered, client.clone(), server.clone(), protocol, pair.edge.port, reasons);
    let one = gathered.entry(key).or_insert_with(|| Gathered {
        row: Row {
            change,
            is_answered,
            client,
            clients: (Vec::new(), 0),
            server,
            protocol,
            port: pair.edge.port,
            flows: 0,
            first_seen: counters.first_seen,
            last_seen: counters.last_seen,
            samples: Vec::new(),
            egress: decision.egress,
            ingress: decision.ingress,
            denied: Vec::new(),
        },
        pairs: Vec::new(),
        clients: BTreeSet::new(),
    });
    let row = &mut one.row;
    row.flows += counters.flows[0].max(counters.flows[1]);
    row.first_seen = row.first_seen.min(counters.first_seen);
    row.last_seen = row.last_seen.max(counters.last_seen);
    row.samples.extend(counters.samples.iter().cloned());
    row.samples.sort_unstable();
    row.samples.dedup();
    row.samples.truncate(SAMPLES);
    if let Party::Outside(ip) = pair.edge.client {
        one.clients.insert(ip);
    }
    one.pairs.push(endpoints);
}

fn denied_sides(input: Input<'_>, ends: &[Cow<'_, Pod>], one: &mut Gathered<'_>, missing: &mut Vec<Missing>) {
    let row = &one.row;
    let client = (&row.client, one.pairs.iter().map(|pair| pair.0).collect::<Vec<_>>());
    let server = (&row.server, one.pairs.iter().map(|pair| pair.1).collect::<Vec<_>>());
    let port = Port { protocol: row.protocol, port: PortMatch::Range(row.port, row.port) };
    let sides = [
        (Direction::Egress, "egress", &row.egress, &client, &server),
        (Direction::Ingress, "ingress", &row.ingress, &server, &client),
    ];
    let mut denied = Vec::new();
    for (direction, name, judgement, own, peer) in sides {
        let (Judgement::Denied(policies), Who::Workload(owner)) = (judgement, own.0) else { continue };
        let mut side = DeniedSide {
            direction: name,
            owner: owner.clone(),
            policies: policies.iter().map(|name| place_of(input, name)).collect(),
            missing: None,
            no_rule: None,
        };
        // What was denied before lacks nothing.
        if row.change == Change::NewlyDenied {
            let needed = Side {
                direction,
                workload: owner,
                pods: pods(&own.1),
                peer: peer_end(peer.0, &peer.1),
                port: port.clone(),
            };
            match missing::find(input, ends, &needed, missing) {
                Err(why) => side.no_rule = Some(why),
                Ok(index) => side.missing = Some(index),
            }
        }
        denied.push(side);
    }
    one.row.denied = denied;
}

fn pods<'p>(endpoints: &[Endpoint<'p>]) -> Vec<&'p Pod> {
    let mut all: Vec<&Pod> = Vec::new();
    for endpoint in endpoints {
        if let Endpoint::Pod(pod, _) = endpoint
            && !all.iter().any(|known| std::ptr::eq(*known, *pod))
        {
            all.push(pod);
        }
    }
    all
}

fn peer_end<'p>(who: &'p Who, endpoints: &[Endpoint<'p>]) -> PeerEnd<'p> {
    match who {
        Who::Workload(key) => PeerEnd::Pods(arc(key), pods(endpoints)),
        Who::Node(_) | Who::Outside(_) | Who::Clients => {
            let addresses = endpoints.iter().filter_map(|endpoint| match endpoint {
                Endpoint::Address(ip) => Some(ip.to_canonical()),
                Endpoint::Pod(..) | Endpoint::OwnNode => None,
            });
            PeerEnd::Addresses(addresses.collect::<BTreeSet<_>>().into_iter().collect())
        }
    }
}

fn arc(key: &Arc<WorkloadKey>) -> &WorkloadKey {
    key
}

/// Whether the policies with what is missing, written and read back, let pass what they newly deny.
fn would_allow(input: Input<'_>, gathered: &[Gathered<'_>], missing: &[Missing]) -> bool {
    if missing.is_empty() {
        return true;
    }
    let Some(policies) = missing::with_all(input.policies, missing) else { return false };
    let reference = Reference::new(input.cluster, &policies);
    let found = gathered.iter().filter(|one| {
        one.row.change == Change::NewlyDenied && one.row.denied.iter().all(|side| side.missing.is_some())
    });
    found
        .flat_map(|one| one.pairs.iter().map(move |pair| (&one.row, pair)))
        .all(|(row, (client, server))| reference.decide(*client, *server, Some(row.protocol), row.port).allows())
}
