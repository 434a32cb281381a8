//! The columns of the flow log, each with how it is filled: schema and encoding are one table and cannot disagree.
//!
//! The order is the contract: first the documented columns, then those added since. All are nullable,
//! because gaps are rows too and fill only a few.

use crate::Row;
use arrow::{
    array::{ArrayRef, BooleanArray, Int64Array, StringBuilder, UInt8Array, UInt16Array, UInt32Array},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
    record_batch::RecordBatch,
};
use model::record::{End, Entity, FlowEvent, FlowRecord};
use std::{
    fmt::Write as _,
    sync::{Arc, LazyLock},
};

/// Key of the schema version in a segment's metadata.
pub const VERSION_KEY: &str = "podfence.flowlog.version";
/// Version of the columns' meaning.
pub const VERSION: &str = "1";

/// `row_kind` of a slice of a flow.
pub(crate) const FLOW: &str = "flow";
/// `row_kind` of a gap.
pub(crate) const GAP: &str = "gap";

/// Columns whose texts hardly occur twice: a dictionary of them would only take room.
pub(crate) const UNIQUE: [&str; 2] = ["flow_id", "community_id"];

/// One column: its name, and what a row puts there.
struct Column {
    name: &'static str,
    values: Values,
}

enum Values {
    Int64(fn(&Row) -> Option<i64>),
    UInt32(fn(&Row) -> Option<u32>),
    UInt16(fn(&Row) -> Option<u16>),
    UInt8(fn(&Row) -> Option<u8>),
    Boolean(fn(&Row) -> Option<bool>),
    /// Text the row already holds.
    Text(fn(&Row) -> Option<&str>),
    /// Text written for the occasion; `None`: null.
    Written(fn(&Row, &mut StringBuilder) -> Option<()>),
}

const fn column(name: &'static str, values: Values) -> Column {
    Column { name, values }
}

use Values::{Boolean, Int64, Text, UInt8, UInt16, UInt32, Written};

const COLUMNS: &[Column] = &[
    column("start_ns", Int64(|row| Some(row.start()))),
    column("end_ns", Int64(|row| Some(row.end()))),
    column("flow_id", Text(|row| Some(&flow(row)?.flow_id))),
    column("community_id", Text(|row| Some(&flow(row)?.community_id))),
    column("client_ip", Written(|row, to| ip(client(row)?, to))),
    column("client_port", UInt16(|row| Some(client(row)?.port))),
    column("client_namespace", Text(|row| client(row)?.namespace.as_deref())),
    column("client_pod", Text(|row| pod(client(row)?))),
    column("client_pod_uid", Text(|row| client(row)?.pod_uid.as_deref())),
    column("client_workload", Text(|row| Some(&client(row)?.workload.as_deref()?.name))),
    column("client_workload_kind", Text(|row| Some(&client(row)?.workload.as_deref()?.kind))),
    column("client_entity", Text(|row| Some(client(row)?.entity.name()))),
    column("server_ip", Written(|row, to| ip(server(row)?, to))),
    column("server_port", UInt16(|row| Some(server(row)?.port))),
    column("server_namespace", Text(|row| server(row)?.namespace.as_deref())),
    column("server_pod", Text(|row| pod(server(row)?))),
    column("server_pod_uid", Text(|row| server(row)?.pod_uid.as_deref())),
    column("server_workload", Text(|row| Some(&server(row)?.workload.as_deref()?.name))),
    column("server_workload_kind", Text(|row| Some(&server(row)?.workload.as_deref()?.kind))),
    column("server_entity", Text(|row| Some(server(row)?.entity.name()))),
    column("protocol", Written(|row, to| protocol(event(row)?.key.protocol, to))),
    column("direction_rule", Text(|row| Some(event(row)?.direction_rule.name()))),
    column("observed_at", Text(|row| Some(event(row)?.observed_at.name()))),
    column("verdict", Text(|row| Some(event(row)?.verdict.name()))),
    column("reason", Text(reason)),
    column("policy_namespace", Text(|row| Some(&event(row)?.rule.as_ref()?.namespace))),
    column("policy_name", Text(|row| Some(&event(row)?.rule.as_ref()?.name))),
    column("policy_rule", Text(|row| Some(&event(row)?.rule.as_ref()?.rule))),
    column("policy_generation", Int64(|row| Some(counter(event(row)?.policy_generation)))),
    column("service", Text(|row| flow(row)?.service.as_deref())),
    column("packets_to_server", Int64(|row| Some(counter(event(row)?.packets_to_server)))),
    column("packets_to_client", Int64(|row| Some(counter(event(row)?.packets_to_client)))),
    column("bytes_to_server", Int64(|row| Some(counter(event(row)?.bytes_to_server)))),
    column("bytes_to_client", Int64(|row| Some(counter(event(row)?.bytes_to_client)))),
    column("tcp_flags_to_server", UInt8(|row| Some(event(row)?.tcp_flags_to_server))),
    column("tcp_flags_to_client", UInt8(|row| Some(event(row)?.tcp_flags_to_client))),
    column("end_reason", Text(|row| Some(event(row)?.end_reason.name()))),
    column("rtt_us", UInt32(|row| event(row)?.rtt_us)),
    column("dns_name", Text(|row| flow(row)?.dns_name.as_deref())),
    column("node", Text(|row| Some(row.node()))),
    column("interface", Text(|row| Some(&event(row)?.interface))),
    column("source", Text(|row| Some(event(row)?.source.name()))),
    column("sampling", UInt32(|row| Some(flow(row)?.sampling))),
    // Added to the documented ones.
    column("staged_verdict", Text(|row| Some(event(row)?.staged_verdict.name()))),
    column("staged_reason", Text(|row| Some(&event(row)?.staged_reason))),
    column("adopted", Boolean(|row| Some(event(row)?.adopted))),
    column("client_unknown_reason", Text(|row| client(row)?.unknown_reason)),
    column("server_unknown_reason", Text(|row| server(row)?.unknown_reason)),
    column("client_name", Text(|row| other_name(client(row)?))),
    column("server_name", Text(|row| other_name(server(row)?))),
    // Null on a flow's first slice, where it is `start_ns`: times are the dearest columns.
    column("flow_start_ns", Int64(|row| event(row).filter(|e| e.flow_start != e.start).map(|e| e.flow_start))),
    column("row_kind", Text(|row| Some(kind(row)))),
    column("lost", Int64(|row| gap(row).map(|gap| counter(gap.lost)))),
];

fn flow(row: &Row) -> Option<&FlowRecord> {
    match row {
        Row::Flow(record) => Some(record),
        Row::Gap(_) => None,
    }
}

fn gap(row: &Row) -> Option<&model::record::Gap> {
    match row {
        Row::Flow(_) => None,
        Row::Gap(gap) => Some(gap),
    }
}

fn event(row: &Row) -> Option<&FlowEvent> {
    flow(row).map(|record| &record.event)
}

fn client(row: &Row) -> Option<&End> {
    flow(row).map(|record| &record.client)
}

fn server(row: &Row) -> Option<&End> {
    flow(row).map(|record| &record.server)
}

fn kind(row: &Row) -> &'static str {
    match row {
        Row::Flow(_) => FLOW,
        Row::Gap(_) => GAP,
    }
}

fn reason(row: &Row) -> Option<&str> {
    match row {
        Row::Flow(record) => Some(&record.event.reason),
        Row::Gap(gap) => Some(&gap.reason),
    }
}

fn ip(end: &End, to: &mut StringBuilder) -> Option<()> {
    write!(to, "{}", end.ip).ok()
}

/// The name, if it is a pod's.
fn pod(end: &End) -> Option<&str> {
    end.name.as_deref().filter(|_| end.entity == Entity::Pod)
}

/// The name of what is no pod: a Service, a node.
fn other_name(end: &End) -> Option<&str> {
    end.name.as_deref().filter(|_| end.entity != Entity::Pod)
}

/// Signed, because not every engine that reads Parquet knows unsigned 64-bit integers.
fn counter(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Names for the protocols that people call by name, numbers for the rest.
const PROTOCOLS: &[(u8, &str)] = &[(1, "ICMP"), (6, "TCP"), (17, "UDP"), (58, "ICMPv6"), (132, "SCTP")];

fn protocol(number: u8, to: &mut StringBuilder) -> Option<()> {
    match PROTOCOLS.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => to.write_str(name).ok(),
        None => write!(to, "{number}").ok(),
    }
}

/// The number of a protocol as the `protocol` column writes it.
pub fn protocol_number(name: &str) -> Option<u8> {
    match PROTOCOLS.iter().find(|(_, known)| *known == name) {
        Some((number, _)) => Some(*number),
        None => name.parse().ok(),
    }
}

impl Values {
    fn data_type(&self) -> DataType {
        match self {
            Int64(_) => DataType::Int64,
            UInt32(_) => DataType::UInt32,
            UInt16(_) => DataType::UInt16,
            UInt8(_) => DataType::UInt8,
            Boolean(_) => DataType::Boolean,
            Text(_) | Written(_) => DataType::Utf8,
        }
    }

    fn of(&self, rows: &[Row]) -> ArrayRef {
        match self {
            Int64(value) => Arc::new(Int64Array::from_iter(rows.iter().map(value))),
            UInt32(value) => Arc::new(UInt32Array::from_iter(rows.iter().map(value))),
            UInt16(value) => Arc::new(UInt16Array::from_iter(rows.iter().map(value))),
            UInt8(value) => Arc::new(UInt8Array::from_iter(rows.iter().map(value))),
            Boolean(value) => Arc::new(BooleanArray::from_iter(rows.iter().map(value))),
            Text(value) => {
                let mut texts = StringBuilder::new();
                rows.iter().for_each(|row| texts.append_option(value(row)));
                Arc::new(texts.finish())
            }
            Written(write) => {
                let mut texts = StringBuilder::new();
                for row in rows {
                    match write(row, &mut texts) {
                        Some(()) => texts.append_value(""),
                        None => texts.append_null(),
                    }
                }
                Arc::new(texts.finish())
            }
        }
    }
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let fields: Vec<Field> =
        COLUMNS.iter().map(|column| Field::new(column.name, column.values.data_type(), true)).collect();
    let metadata = [(VERSION_KEY.to_owned(), VERSION.to_owned())].into();
    Arc::new(Schema::new_with_metadata(fields, metadata))
});

/// The schema of the table `flows`.
pub fn schema() -> SchemaRef {
    SCHEMA.clone()
}

/// The rows as Arrow columns.
pub fn encode(rows: &[Row]) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_new(schema(), COLUMNS.iter().map(|column| column.values.of(rows)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decoder, arbitrary::any_rows};
    use proptest::prelude::*;

    #[test]
    fn the_documented_columns_come_first_and_in_order() {
        let ends = |side| {
            ["ip", "port", "namespace", "pod", "pod_uid", "workload", "workload_kind", "entity"]
                .map(|column| format!("{side}_{column}"))
        };
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let documented = [
            words("start_ns end_ns flow_id community_id"),
            ends("client").to_vec(),
            ends("server").to_vec(),
            words("protocol direction_rule observed_at verdict reason policy_namespace policy_name policy_rule"),
            words("policy_generation service packets_to_server packets_to_client bytes_to_server bytes_to_client"),
            words("tcp_flags_to_server tcp_flags_to_client end_reason rtt_us dns_name node interface source sampling"),
        ]
        .concat();
        let names: Vec<String> = schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names[..documented.len()], documented);
    }

    #[test]
    fn protocols_have_the_names_people_use() {
        for number in 0..=255 {
            let mut text = StringBuilder::new();
            protocol(number, &mut text);
            text.append_value("");
            assert_eq!(protocol_number(text.finish().value(0)), Some(number));
        }
        assert_eq!(protocol_number("TCP"), Some(6));
        assert_eq!(protocol_number("256"), None);
    }

    proptest! {
        #[test]
        fn rows_survive_the_trip_to_columns_and_back(rows in any_rows(20)) {
            let batch = encode(&rows).unwrap();
            let mut back = Vec::new();
            Decoder::default().rows(&batch, &mut |row| back.push(row)).unwrap();
            prop_assert_eq!(back, rows);
        }
    }
}
