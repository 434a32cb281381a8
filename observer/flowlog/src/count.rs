//! A log counted into a ledger and the ways that clients took: only the columns that these look at, on every core.
//!
//! Always holds: ledger and ways are those that adding every row's record gives. Rows of
//! one node's files are counted by one thread; where a row names another node, what the threads counted adds up.

use crate::{
    Damaged, Error, Listing, Summary,
    decode::{Texts, columns, counter, flags, int, optional, text},
    read::batches,
    schema, segments,
};
use arrow::{
    array::{Array, BooleanArray, Int64Array, UInt8Array, UInt16Array},
    record_batch::RecordBatch,
};
use foldhash::fast::RandomState;
use model::{
    cluster::WorkloadKey,
    ledger::{Facts, Ledger, Party, PartyId, Row, Tally},
    record::{DirectionRule, EndReason, Entity, FlowVerdict, Gap, ObservedAt},
    routes::{Fate, Routes},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

columns! {
    start_ns: &'a Int64Array, end_ns: &'a Int64Array, flow_id: Texts<'a>,
    client_ip: Texts<'a>, client_namespace: Texts<'a>, client_pod_uid: Texts<'a>,
    client_workload: Texts<'a>, client_workload_kind: Texts<'a>, client_entity: Texts<'a>,
    server_ip: Texts<'a>, server_port: &'a UInt16Array, server_namespace: Texts<'a>, server_pod_uid: Texts<'a>,
    server_workload: Texts<'a>, server_workload_kind: Texts<'a>, server_entity: Texts<'a>,
    protocol: Texts<'a>, direction_rule: Texts<'a>, observed_at: Texts<'a>, verdict: Texts<'a>, reason: Texts<'a>,
    packets_to_server: &'a Int64Array, packets_to_client: &'a Int64Array,
    tcp_flags_to_server: &'a UInt8Array, tcp_flags_to_client: &'a UInt8Array,
    end_reason: Texts<'a>, node: Texts<'a>, staged_verdict: Texts<'a>, staged_reason: Texts<'a>,
    service: Texts<'a>, dns_name: Texts<'a>,
    adopted: &'a BooleanArray, flow_start_ns: &'a Int64Array, row_kind: Texts<'a>,
    // Of gaps alone.
    lost: &'a Int64Array,
}

/// A log, counted.
#[derive(Debug, Default)]
pub struct Counted {
    /// Who talked to whom.
    pub ledger: Ledger,
    /// Through which Services and by which names clients came.
    pub routes: Routes,
    /// What was read, and what could not be.
    pub summary: Summary,
}

/// Counts a whole log. The observer instance is the node: what a log holds of a node was written once, by one
/// observer after the other. A damaged file is named in the summary and the rest is counted.
pub fn count(root: &Path) -> Result<Counted, Error> {
    let Listing { segments, wals, damaged } = segments(root)?;
    let mut by_node: BTreeMap<String, Vec<Part>> = BTreeMap::new();
    for segment in segments {
        by_node.entry(segment.node).or_default().push(Part::Segment(segment.path));
    }
    for wal in wals {
        by_node.entry(wal.node).or_default().push(Part::Wal(wal.path, wal.batches));
    }
    // The fullest nodes first, so that no thread is left with the last of them.
    let mut nodes: Vec<Vec<Part>> = by_node.into_values().collect();
    nodes.sort_by_key(Vec::len);
    let threads = thread::available_parallelism().map_or(1, usize::from).min(nodes.len()).max(1);
    let nodes = Mutex::new(nodes);
    let counted = thread::scope(|scope| {
        let work = || scope.spawn(|| one_after_another(&nodes));
        let threads: Vec<_> = (0..threads).map(|_| work()).collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut all = Counted { summary: Summary { damaged, ..Summary::default() }, ..Counted::default() };
    for counted in counted {
        let Counted { ledger, routes, summary } = counted.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        all.ledger.append(ledger);
        all.routes.merge(routes);
        all.summary.rows += summary.rows;
        all.summary.gaps += summary.gaps;
        all.summary.damaged.extend(summary.damaged);
    }
    all.summary.damaged.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(all)
}

/// Rows that are counted together: what their texts mean is worked out once for all of them.
const BATCH: usize = 1 << 15;

/// Rows of a node in one place.
enum Part {
    Segment(PathBuf),
    Wal(PathBuf, Vec<RecordBatch>),
}

fn one_after_another(nodes: &Mutex<Vec<Vec<Part>>>) -> Counted {
    let mut counting = Counting::default();
    loop {
        let next = nodes.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(parts) = next else { break };
        for part in parts {
            let before = counting.summary.rows + counting.summary.gaps;
            let (path, read) = match part {
                Part::Segment(path) => {
                    let read =
                        batches(&path, Some(Columns::NAMES), &|_| true, BATCH, &mut |batch| counting.batch(batch));
                    (path, read)
                }
                Part::Wal(path, batches) => (path, batches.iter().try_for_each(|batch| counting.batch(batch))),
            };
            if let Err(why) = read {
                let read = counting.summary.rows + counting.summary.gaps - before;
                let why = if read == 0 { why } else { format!("{why}; {read} rows before that were read") };
                counting.summary.damaged.push(Damaged { path, why });
            }
        }
    }
    let mut ledger = counting.tally.finish();
    ledger.gaps = counting.gaps;
    Counted { ledger, routes: counting.routes, summary: counting.summary }
}

#[derive(Default)]
struct Counting {
    tally: Tally,
    nodes: HashSet<Arc<str>>,
    gaps: BTreeSet<Gap>,
    routes: Routes,
    summary: Summary,
}

impl Counting {
    fn batch(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let columns = Columns::of(batch)?;
        let mut reading = Reading::of(&columns);
        let read =
            (0..batch.num_rows()).try_for_each(|i| reading.row(i, self).map_err(|why| format!("row {i}: {why}")));
        reading.take_routes(self);
        read
    }

    fn node(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.nodes.get(name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.nodes.insert(name.clone());
        name
    }
}

/// A batch while its rows are counted: what its texts mean, each worked out once.
struct Reading<'a> {
    c: &'a Columns<'a>,
    is_flow: Known<'a, bool>,
    client: End<'a>,
    server: End<'a>,
    protocol: Known<'a, u8>,
    direction_rule: Known<'a, DirectionRule>,
    observed_at: Known<'a, ObservedAt>,
    verdict: Known<'a, FlowVerdict>,
    staged_verdict: Known<'a, FlowVerdict>,
    end_reason: Known<'a, EndReason>,
    node: Known<'a, Arc<str>>,
    /// By client, place of the Service's name, protocol and port.
    calls: HashMap<(PartyId, usize, u8, u16), Fate, RandomState>,
    /// Client, address, and place of the name that led there.
    names: HashSet<(PartyId, IpAddr, usize), RandomState>,
}

impl<'a> Reading<'a> {
    fn of(c: &'a Columns<'a>) -> Self {
        Self {
            c,
            is_flow: Known::of("row_kind", &c.row_kind),
            client: End::of(
                ["client_entity", "client_ip"],
                [&c.client_entity, &c.client_ip, &c.client_namespace, &c.client_workload_kind, &c.client_workload],
            ),
            server: End::of(
                ["server_entity", "server_ip"],
                [&c.server_entity, &c.server_ip, &c.server_namespace, &c.server_workload_kind, &c.server_workload],
            ),
            protocol: Known::of("protocol", &c.protocol),
            direction_rule: Known::of("direction_rule", &c.direction_rule),
            observed_at: Known::of("observed_at", &c.observed_at),
            verdict: Known::of("verdict", &c.verdict),
            staged_verdict: Known::of("staged_verdict", &c.staged_verdict),
            end_reason: Known::of("end_reason", &c.end_reason),
            node: Known::of("node", &c.node),
            calls: HashMap::default(),
            names: HashSet::default(),
        }
    }

    /// Hands on the ways that clients took, each once.
    fn take_routes(&self, counting: &mut Counting) {
        let text = |column: &Texts<'_>, place: usize| Arc::from(column.texts.value(place));
        for ((client, service, protocol, port), fate) in &self.calls {
            if let Some(client) = counting.tally.workload(*client) {
                counting.routes.call(client, (text(&self.c.service, *service), *protocol, *port), *fate);
            }
        }
        for (client, ip, name) in &self.names {
            if let Some(client) = counting.tally.workload(*client) {
                counting.routes.name(client, *ip, text(&self.c.dns_name, *name));
            }
        }
    }

    fn row(&mut self, i: usize, counting: &mut Counting) -> Result<(), String> {
        let is_flow = *self.is_flow.get(i, |kind| match kind {
            schema::FLOW => Ok(true),
            schema::GAP => Ok(false),
            other => Err(format!("row_kind is `{other}`")),
        })?;
        if is_flow { self.flow(i, counting) } else { self.gap(i, counting) }
    }

    fn gap(&mut self, i: usize, counting: &mut Counting) -> Result<(), String> {
        let gap = Gap {
            start: int(self.c.start_ns, i, "start_ns")?,
            end: int(self.c.end_ns, i, "end_ns")?,
            node: self.node.get(i, |name| Ok(counting.node(name)))?.clone(),
            reason: text(&self.c.reason, i, "reason")?.into(),
            lost: counter(self.c.lost, i, "lost")?,
        };
        counting.summary.gaps += 1;
        counting.gaps.insert(gap);
        Ok(())
    }

    fn flow(&mut self, i: usize, counting: &mut Counting) -> Result<(), String> {
        let c = self.c;
        let node = self.node.get(i, |name| Ok(counting.node(name)))?.clone();
        let start = int(c.start_ns, i, "start_ns")?;
        let (client, server) = (self.client.get(i, &mut counting.tally)?, self.server.get(i, &mut counting.tally)?);
        let known = |end: &Found| end.entity != Entity::Pod || end.party.is_some();
        let packets = [
            counter(c.packets_to_server, i, "packets_to_server")?,
            counter(c.packets_to_client, i, "packets_to_client")?,
        ];
        let facts = Facts {
            client: client.entity,
            server: server.entity,
            workloads_known: known(&client) && known(&server),
            itself: c.client_pod_uid.get(i).is_some_and(|uid| c.server_pod_uid.get(i) == Some(uid)),
            protocol: *self
                .protocol
                .get(i, |name| schema::protocol_number(name).ok_or_else(|| format!("protocol is `{name}`")))?,
            direction_rule: *self.direction_rule.parsed(i)?,
            observed_at: *self.observed_at.parsed(i)?,
            verdict: *self.verdict.parsed(i)?,
            reason: text(&c.reason, i, "reason")?,
            staged_verdict: *self.staged_verdict.parsed(i)?,
            staged_reason: text(&c.staged_reason, i, "staged_reason")?,
            both_ways: packets.iter().all(|packets| *packets > 0),
            tcp_flags_to_server: flags(c.tcp_flags_to_server, i, "tcp_flags_to_server")?,
            tcp_flags_to_client: flags(c.tcp_flags_to_client, i, "tcp_flags_to_client")?,
            end_reason: *self.end_reason.parsed(i)?,
            adopted: optional(c.adopted, i, BooleanArray::value).ok_or("adopted is null")?,
            is_first_slice: optional(c.flow_start_ns, i, Int64Array::value).is_none_or(|begun| start <= begun),
        };
        let port = optional(c.server_port, i, UInt16Array::value).ok_or("server_port is null")?;
        self.route(i, &facts, client.party, port)?;
        counting.tally.add(&Row {
            facts,
            client: client.party,
            server: server.party,
            port,
            start,
            end: int(c.end_ns, i, "end_ns")?,
            flow_id: text(&c.flow_id, i, "flow_id")?,
            node: &node,
        });
        counting.summary.rows += 1;
        Ok(())
    }

    /// The way that a row's client took, as far as the row says.
    fn route(&mut self, i: usize, facts: &Facts<'_>, client: Option<PartyId>, port: u16) -> Result<(), String> {
        let Some(client) = client.filter(|_| facts.client == Entity::Pod) else { return Ok(()) };
        if let (Some(service), Some(fate)) = (self.c.service.index(i), Fate::of(facts)) {
            let worst = self.calls.entry((client, service, facts.protocol, port)).or_insert(fate);
            *worst = fate.max(*worst);
        }
        if let (Some(name), Entity::Outside | Entity::Node) = (self.c.dns_name.index(i), facts.server) {
            self.names.insert((client, self.server.ip(i)?, name));
        }
        Ok(())
    }
}

/// What a column's texts mean, each worked out when it is first met.
struct Known<'a, T> {
    name: &'static str,
    texts: &'a Texts<'a>,
    known: Vec<Option<T>>,
}

impl<'a, T> Known<'a, T> {
    fn of(name: &'static str, texts: &'a Texts<'a>) -> Self {
        Self { name, texts, known: Vec::new() }
    }

    fn get(&mut self, i: usize, meaning: impl FnOnce(&str) -> Result<T, String>) -> Result<&T, String> {
        let index = self.texts.index(i).ok_or_else(|| format!("{} is null", self.name))?;
        if self.known.len() <= index {
            self.known.resize_with(self.texts.texts.len(), || None);
        }
        match &mut self.known[index] {
            Some(known) => Ok(known),
            empty => Ok(empty.insert(meaning(self.texts.texts.value(index))?)),
        }
    }

    fn parsed(&mut self, i: usize) -> Result<&T, String>
    where
        T: FromStr<Err = String>,
    {
        let name = self.name;
        self.get(i, |text| text.parse().map_err(|why| format!("{name}: {why}")))
    }
}

/// One end of a row.
#[derive(Clone, Copy)]
struct Found {
    entity: Entity,
    party: Option<PartyId>,
}

/// The columns of one end, and whom each combination of their texts means.
struct End<'a> {
    entity: Known<'a, Entity>,
    ip: Known<'a, IpAddr>,
    namespace: &'a Texts<'a>,
    kind: &'a Texts<'a>,
    workload: &'a Texts<'a>,
    workloads: HashMap<[Option<usize>; 3], PartyId, RandomState>,
    addresses: HashMap<(Entity, IpAddr), PartyId, RandomState>,
}

impl<'a> End<'a> {
    fn of(names: [&'static str; 2], [entity, ip, namespace, kind, workload]: [&'a Texts<'a>; 5]) -> Self {
        Self {
            entity: Known::of(names[0], entity),
            ip: Known::of(names[1], ip),
            namespace,
            kind,
            workload,
            workloads: HashMap::default(),
            addresses: HashMap::default(),
        }
    }

    fn get(&mut self, i: usize, tally: &mut Tally) -> Result<Found, String> {
        let entity = *self.entity.parsed(i)?;
        let party = match entity {
            Entity::Pod => self.pod(i, tally),
            Entity::Node | Entity::Outside => Some(self.address(entity, i, tally)?),
            Entity::Service | Entity::Unknown => None,
        };
        Ok(Found { entity, party })
    }

    fn pod(&mut self, i: usize, tally: &mut Tally) -> Option<PartyId> {
        let at = [self.namespace, self.kind, self.workload].map(|column| column.index(i));
        let [_, Some(_), Some(_)] = at else { return None };
        if let Some(known) = self.workloads.get(&at) {
            return Some(*known);
        }
        let text = |column: &Texts<'_>| column.get(i).unwrap_or_default().to_owned();
        let (namespace, kind, name) = (text(self.namespace), text(self.kind), text(self.workload));
        let party = tally.party(Party::Workload(Arc::new(WorkloadKey { namespace, kind, name })));
        self.workloads.insert(at, party);
        Some(party)
    }

    fn ip(&mut self, i: usize) -> Result<IpAddr, String> {
        let name = self.ip.name;
        let parsed = |text: &str| text.parse().map_err(|why| format!("{name} is `{text}`: {why}"));
        self.ip.get(i, parsed).copied()
    }

    fn address(&mut self, entity: Entity, i: usize, tally: &mut Tally) -> Result<PartyId, String> {
        let ip = self.ip(i)?;
        let party = if entity == Entity::Node { Party::Node(ip) } else { Party::Outside(ip) };
        Ok(*self.addresses.entry((entity, ip)).or_insert_with(|| tally.party(party)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Options, Row, Writer,
        arbitrary::{T0, any_rows, record},
        read,
    };
    use proptest::prelude::*;

    /// The ledger and the ways as the rows' records give them, and the rows' and gaps' number.
    fn row_by_row(root: &Path) -> (Ledger, Routes, u64, u64) {
        let (mut ledger, mut routes) = (Ledger::default(), Routes::default());
        let summary = read(root, &crate::Filter::default(), &mut |row| match row {
            Row::Flow(record) => {
                ledger.add(&record.node, &record);
                routes.add(&record);
            }
            Row::Gap(gap) => drop(ledger.gaps.insert(gap)),
        })
        .unwrap();
        (ledger, routes, summary.rows, summary.gaps)
    }

    fn write(root: &Path, node: &str, rows: &[Row], options: &Options) -> Writer {
        let mut writer = Writer::open(root, "c", node, options.clone(), 0).unwrap();
        for row in rows {
            match row {
                Row::Flow(record) => writer.append(record).unwrap(),
                Row::Gap(gap) => writer.gap(gap).unwrap(),
            }
        }
        writer
    }

    #[test]
    fn rows_that_name_another_node_than_their_file_add_up() {
        let root = tempfile::tempdir().unwrap();
        for (number, node) in [(1, "n1"), (2, "n2")] {
            let mut flow = record(number, T0);
            flow.server.pod_uid = None;
            write(root.path(), node, &[Row::Flow(flow)], &Options::default()).close().unwrap();
        }
        let Counted { ledger, .. } = count(root.path()).unwrap();
        assert_eq!(ledger.edges.values().map(|seen| seen.sightings.flows()).collect::<Vec<_>>(), [2]);
        assert_eq!(ledger, row_by_row(root.path()).0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_log_is_counted_as_row_by_row(finished in any_rows(40), waiting in any_rows(10)) {
            let root = tempfile::tempdir().unwrap();
            let options = Options { rows_per_segment: 8, rows_per_batch: 4, ..Options::default() };
            write(root.path(), "n1", &finished, &options).close().unwrap();
            let mut open = write(root.path(), "n2", &waiting, &options);
            open.flush().unwrap();
            let Counted { ledger, routes, summary } = count(root.path()).unwrap();
            let (expected, ways, rows, gaps) = row_by_row(root.path());
            prop_assert_eq!(ledger, expected);
            prop_assert_eq!(routes, ways);
            prop_assert_eq!((summary.rows, summary.gaps, summary.damaged), (rows, gaps, Vec::new()));
        }
    }
}
