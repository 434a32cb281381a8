//! Arrow columns back to rows. What was written is what comes back; a batch of someone else's is an error that
//! names the column.

use crate::{Row, schema};
use arrow::{
    array::{
        Array, ArrayRef, BooleanArray, DictionaryArray, Int32Array, Int64Array, StringArray, UInt8Array, UInt16Array,
        UInt32Array,
    },
    datatypes::Int32Type,
    record_batch::RecordBatch,
};
use model::{
    cluster::WorkloadKey,
    record::{End, Entity, FlowEvent, FlowRecord, Gap, RuleName, UnixNanos, unknown},
};
use std::{cell::RefCell, collections::HashSet, net::IpAddr, str::FromStr, sync::Arc};

/// A batch's columns by name, each as the type that holds its values.
macro_rules! columns {
    ($($name:ident: $array:ty),+ $(,)?) => {
        struct Columns<'a> { $($name: $array),+ }

        impl<'a> Columns<'a> {
            #[allow(dead_code, reason = "only who reads a part of the columns asks for their names")]
            const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];

            fn of(batch: &'a RecordBatch) -> Result<Self, String> {
                Ok(Self { $($name: $crate::decode::FromColumn::of(batch, stringify!($name))?),+ })
            }
        }
    };
}

pub(crate) use columns;

columns! {
    start_ns: &'a Int64Array, end_ns: &'a Int64Array, flow_id: Texts<'a>, community_id: Texts<'a>,
    client_ip: Texts<'a>, client_port: &'a UInt16Array, client_namespace: Texts<'a>, client_pod: Texts<'a>,
    client_pod_uid: Texts<'a>, client_workload: Texts<'a>, client_workload_kind: Texts<'a>,
    client_entity: Texts<'a>,
    server_ip: Texts<'a>, server_port: &'a UInt16Array, server_namespace: Texts<'a>, server_pod: Texts<'a>,
    server_pod_uid: Texts<'a>, server_workload: Texts<'a>, server_workload_kind: Texts<'a>,
    server_entity: Texts<'a>,
    protocol: Texts<'a>, direction_rule: Texts<'a>, observed_at: Texts<'a>,
    verdict: Texts<'a>, reason: Texts<'a>, policy_namespace: Texts<'a>, policy_name: Texts<'a>,
    policy_rule: Texts<'a>, policy_generation: &'a Int64Array, service: Texts<'a>,
    packets_to_server: &'a Int64Array, packets_to_client: &'a Int64Array,
    bytes_to_server: &'a Int64Array, bytes_to_client: &'a Int64Array,
    tcp_flags_to_server: &'a UInt8Array, tcp_flags_to_client: &'a UInt8Array,
    end_reason: Texts<'a>, rtt_us: &'a UInt32Array, dns_name: Texts<'a>,
    node: Texts<'a>, interface: Texts<'a>, source: Texts<'a>, sampling: &'a UInt32Array,
    staged_verdict: Texts<'a>, staged_reason: Texts<'a>, adopted: &'a BooleanArray,
    client_unknown_reason: Texts<'a>, server_unknown_reason: Texts<'a>,
    client_name: Texts<'a>, server_name: Texts<'a>,
    flow_start_ns: &'a Int64Array, row_kind: Texts<'a>, lost: &'a Int64Array,
}

/// A column of a batch, as the type that holds its values.
pub(crate) trait FromColumn<'a>: Sized {
    fn of(batch: &'a RecordBatch, name: &str) -> Result<Self, String>;
}

impl<'a, A: 'static> FromColumn<'a> for &'a A {
    fn of(batch: &'a RecordBatch, name: &str) -> Result<Self, String> {
        let column = column(batch, name)?;
        column.as_any().downcast_ref().ok_or_else(|| wrong_type(column, name))
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, String> {
    batch.column_by_name(name).ok_or_else(|| format!("column `{name}` is missing"))
}

fn wrong_type(column: &ArrayRef, name: &str) -> String {
    format!("column `{name}` is of type {}, which is not the log's", column.data_type())
}

/// A column of texts: each row's own, or each row's index into those that occur.
pub(crate) struct Texts<'a> {
    rows: Option<&'a Int32Array>,
    pub(crate) texts: &'a StringArray,
    /// What [`Decoder::shared`] made of `texts`, so that a text that occurs often is looked up once.
    shared: RefCell<Vec<Option<Arc<str>>>>,
}

impl<'a> FromColumn<'a> for Texts<'a> {
    fn of(batch: &'a RecordBatch, name: &str) -> Result<Self, String> {
        let column = column(batch, name)?;
        let any = column.as_any();
        let (rows, texts) = match any.downcast_ref::<DictionaryArray<Int32Type>>() {
            Some(dictionary) => (Some(dictionary.keys()), dictionary.values().as_any().downcast_ref()),
            None => (None, any.downcast_ref()),
        };
        Ok(Self { rows, texts: texts.ok_or_else(|| wrong_type(column, name))?, shared: RefCell::default() })
    }
}

impl<'a> Texts<'a> {
    /// Where a row's text is, if it has one.
    pub(crate) fn index(&self, row: usize) -> Option<usize> {
        let index = match self.rows {
            Some(rows) if rows.is_null(row) => return None,
            Some(rows) => usize::try_from(rows.value(row)).ok()?,
            None => row,
        };
        (index < self.texts.len() && !self.texts.is_null(index)).then_some(index)
    }

    pub(crate) fn get(&self, row: usize) -> Option<&'a str> {
        self.index(row).map(|index| self.texts.value(index))
    }
}

/// Turns batches into rows and shares equal texts between them.
#[derive(Default)]
pub struct Decoder {
    texts: HashSet<Arc<str>>,
    workloads: HashSet<Arc<WorkloadKey>>,
}

/// Beyond so many different texts the shared ones are forgotten: memory stays bounded on a hostile log.
const SHARED: usize = 1 << 16;

impl Decoder {
    /// The rows of a batch, in order, to `each`. The error says which column of which row is wrong.
    pub fn rows(&mut self, batch: &RecordBatch, each: &mut dyn FnMut(Row)) -> Result<(), String> {
        let columns = Columns::of(batch)?;
        for row in 0..batch.num_rows() {
            each(self.row(&columns, row).map_err(|why| format!("row {row}: {why}"))?);
        }
        Ok(())
    }

    fn row(&mut self, c: &Columns<'_>, i: usize) -> Result<Row, String> {
        match text(&c.row_kind, i, "row_kind")? {
            schema::FLOW => self.flow(c, i).map(Row::Flow),
            schema::GAP => self.gap(c, i).map(Row::Gap),
            other => Err(format!("row_kind is `{other}`")),
        }
    }

    fn gap(&mut self, c: &Columns<'_>, i: usize) -> Result<Gap, String> {
        Ok(Gap {
            start: int(c.start_ns, i, "start_ns")?,
            end: int(c.end_ns, i, "end_ns")?,
            node: self.shared(&c.node, i, "node")?,
            reason: self.shared(&c.reason, i, "reason")?,
            lost: counter(c.lost, i, "lost")?,
        })
    }

    fn flow(&mut self, c: &Columns<'_>, i: usize) -> Result<FlowRecord, String> {
        let client = self.end(
            EndColumns {
                side: "client",
                ip: &c.client_ip,
                port: c.client_port,
                entity: &c.client_entity,
                namespace: &c.client_namespace,
                pod: &c.client_pod,
                name: &c.client_name,
                pod_uid: &c.client_pod_uid,
                workload: &c.client_workload,
                workload_kind: &c.client_workload_kind,
                unknown_reason: &c.client_unknown_reason,
            },
            i,
        )?;
        let server = self.end(
            EndColumns {
                side: "server",
                ip: &c.server_ip,
                port: c.server_port,
                entity: &c.server_entity,
                namespace: &c.server_namespace,
                pod: &c.server_pod,
                name: &c.server_name,
                pod_uid: &c.server_pod_uid,
                workload: &c.server_workload,
                workload_kind: &c.server_workload_kind,
                unknown_reason: &c.server_unknown_reason,
            },
            i,
        )?;
        Ok(FlowRecord {
            flow_id: text(&c.flow_id, i, "flow_id")?.to_owned(),
            community_id: text(&c.community_id, i, "community_id")?.to_owned(),
            event: self.event(c, i, &client, &server)?,
            client,
            server,
            service: self.optional(&c.service, i),
            dns_name: self.optional(&c.dns_name, i),
            node: self.shared(&c.node, i, "node")?,
            sampling: optional(c.sampling, i, UInt32Array::value).ok_or("sampling is null")?,
        })
    }

    fn event(&mut self, c: &Columns<'_>, i: usize, client: &End, server: &End) -> Result<FlowEvent, String> {
        let start: UnixNanos = int(c.start_ns, i, "start_ns")?;
        let protocol = text(&c.protocol, i, "protocol")?;
        Ok(FlowEvent {
            key: flow::FlowKey {
                source: client.ip.into(),
                destination: server.ip.into(),
                source_port: client.port,
                destination_port: server.port,
                protocol: schema::protocol_number(protocol).ok_or_else(|| format!("protocol is `{protocol}`"))?,
            },
            direction_rule: named(&c.direction_rule, i, "direction_rule")?,
            observed_at: named(&c.observed_at, i, "observed_at")?,
            flow_start: optional(c.flow_start_ns, i, Int64Array::value).unwrap_or(start),
            start,
            end: int(c.end_ns, i, "end_ns")?,
            packets_to_server: counter(c.packets_to_server, i, "packets_to_server")?,
            packets_to_client: counter(c.packets_to_client, i, "packets_to_client")?,
            bytes_to_server: counter(c.bytes_to_server, i, "bytes_to_server")?,
            bytes_to_client: counter(c.bytes_to_client, i, "bytes_to_client")?,
            tcp_flags_to_server: flags(c.tcp_flags_to_server, i, "tcp_flags_to_server")?,
            tcp_flags_to_client: flags(c.tcp_flags_to_client, i, "tcp_flags_to_client")?,
            adopted: optional(c.adopted, i, BooleanArray::value).ok_or("adopted is null")?,
            verdict: named(&c.verdict, i, "verdict")?,
            reason: self.shared(&c.reason, i, "reason")?,
            rule: self.rule(c, i),
            policy_generation: counter(c.policy_generation, i, "policy_generation")?,
            staged_verdict: named(&c.staged_verdict, i, "staged_verdict")?,
            staged_reason: self.shared(&c.staged_reason, i, "staged_reason")?,
            end_reason: named(&c.end_reason, i, "end_reason")?,
            rtt_us: optional(c.rtt_us, i, UInt32Array::value),
            interface: self.shared(&c.interface, i, "interface")?,
            source: named(&c.source, i, "source")?,
        })
    }

    fn rule(&mut self, c: &Columns<'_>, i: usize) -> Option<RuleName> {
        Some(RuleName {
            namespace: self.optional(&c.policy_namespace, i)?,
            name: self.optional(&c.policy_name, i)?,
            rule: self.optional(&c.policy_rule, i)?,
        })
    }

    fn end(&mut self, c: EndColumns<'_>, i: usize) -> Result<End, String> {
        let side = c.side;
        let ip = c.ip.get(i).ok_or_else(|| format!("{side}_ip is null"))?;
        let entity = c.entity.get(i).unwrap_or_default();
        let entity = Entity::from_str(entity).map_err(|why| format!("{side}_entity: {why}"))?;
        let namespace = self.optional(c.namespace, i);
        Ok(End {
            ip: ip.parse::<IpAddr>().map_err(|why| format!("{side}_ip is `{ip}`: {why}"))?,
            port: optional(c.port, i, UInt16Array::value).ok_or_else(|| format!("{side}_port is null"))?,
            entity,
            name: self.optional(if entity == Entity::Pod { c.pod } else { c.name }, i),
            pod_uid: self.optional(c.pod_uid, i),
            workload: c.workload.get(i).zip(c.workload_kind.get(i)).map(|(name, kind)| {
                self.workload(WorkloadKey {
                    namespace: namespace.as_deref().unwrap_or_default().to_owned(),
                    kind: kind.to_owned(),
                    name: name.to_owned(),
                })
            }),
            namespace,
            unknown_reason: c.unknown_reason.get(i).map(unknown_reason),
        })
    }

    fn shared(&mut self, column: &Texts<'_>, i: usize, name: &str) -> Result<Arc<str>, String> {
        self.optional(column, i).ok_or_else(|| format!("{name} is null"))
    }

    fn optional(&mut self, column: &Texts<'_>, i: usize) -> Option<Arc<str>> {
        let index = column.index(i)?;
        if column.rows.is_none() {
            return Some(self.interned(column.texts.value(index)));
        }
        let mut shared = column.shared.borrow_mut();
        shared.resize(column.texts.len(), None);
        let slot = &mut shared[index];
        Some(slot.get_or_insert_with(|| self.interned(column.texts.value(index))).clone())
    }

    fn interned(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        if self.texts.len() >= SHARED {
            self.texts.clear();
        }
        let text: Arc<str> = text.into();
        self.texts.insert(text.clone());
        text
    }

    fn workload(&mut self, key: WorkloadKey) -> Arc<WorkloadKey> {
        if let Some(known) = self.workloads.get(&key) {
            return known.clone();
        }
        if self.workloads.len() >= SHARED {
            self.workloads.clear();
        }
        let key = Arc::new(key);
        self.workloads.insert(key.clone());
        key
    }
}

struct EndColumns<'a> {
    side: &'static str,
    ip: &'a Texts<'a>,
    port: &'a UInt16Array,
    entity: &'a Texts<'a>,
    namespace: &'a Texts<'a>,
    pod: &'a Texts<'a>,
    name: &'a Texts<'a>,
    pod_uid: &'a Texts<'a>,
    workload: &'a Texts<'a>,
    workload_kind: &'a Texts<'a>,
    unknown_reason: &'a Texts<'a>,
}

/// The reasons are constants of the program; one that this version does not know keeps that it is unknown.
fn unknown_reason(name: &str) -> &'static str {
    unknown::ALL.into_iter().find(|known| *known == name).unwrap_or("other")
}

pub(crate) fn optional<A: Array, T>(column: &A, i: usize, value: fn(&A, usize) -> T) -> Option<T> {
    (!column.is_null(i)).then(|| value(column, i))
}

pub(crate) fn text<'a>(column: &Texts<'a>, i: usize, name: &str) -> Result<&'a str, String> {
    column.get(i).ok_or_else(|| format!("{name} is null"))
}

pub(crate) fn int(column: &Int64Array, i: usize, name: &str) -> Result<i64, String> {
    optional(column, i, Int64Array::value).ok_or_else(|| format!("{name} is null"))
}

pub(crate) fn counter(column: &Int64Array, i: usize, name: &str) -> Result<u64, String> {
    let value = int(column, i, name)?;
    u64::try_from(value).map_err(|_| format!("{name} is {value}"))
}

pub(crate) fn flags(column: &UInt8Array, i: usize, name: &str) -> Result<u8, String> {
    optional(column, i, UInt8Array::value).ok_or_else(|| format!("{name} is null"))
}

fn named<T: FromStr<Err = String>>(column: &Texts<'_>, i: usize, name: &str) -> Result<T, String> {
    text(column, i, name)?.parse().map_err(|why| format!("{name}: {why}"))
}
