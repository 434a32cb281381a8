//! What the flow log says was denied, or would have been: asked in SQL, as anyone could.

use super::expected;
use crate::{ending::Failure, flows};
use datafusion::arrow::{
    array::{Array as _, AsArray as _},
    datatypes::{Int64Type, UInt16Type},
    record_batch::RecordBatch,
};
use lab::{ExpectedEdge, Family, Party, Scenario};
use model::{cluster::WorkloadKey, policy::Protocol, record::UnixNanos};
use std::{net::IpAddr, path::Path};

/// One edge over one family that was denied in one way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Denial {
    pub(crate) edge: ExpectedEdge,
    pub(crate) family: Family,
    /// `audit_deny`, `deny` or `revoked`.
    pub(crate) verdict: String,
}

/// What makes two rows one denial.
const KEYS: &str = "verdict, reason, client_namespace, client_workload_kind, client_workload, client_ip, \
                    server_namespace, server_workload_kind, server_workload, server_ip, protocol, server_port";

/// The question, of everything since a time. A row without packets tells of an idle connection that was judged again,
/// not of something that was kept from anyone.
pub(crate) fn query(since: UnixNanos) -> String {
    format!(
        "SELECT {KEYS}, count(*) AS rows FROM flows \
         WHERE verdict IN ('audit_deny', 'deny', 'revoked') AND end_ns >= {since} \
         AND packets_to_server + packets_to_client > 0 GROUP BY {KEYS} ORDER BY {KEYS}"
    )
}

/// Everything denied since a time.
pub(crate) fn since(log: &Path, scenario: &Scenario, time: UnixNanos) -> Result<Vec<Denial>, Failure> {
    let batches = flows::answer(log, &query(time))?;
    let mut all: Vec<Denial> =
        batches.iter().flat_map(|batch| (0..batch.num_rows()).filter_map(|row| denial(scenario, batch, row))).collect();
    all.sort();
    all.dedup();
    Ok(all)
}

fn denial(scenario: &Scenario, batch: &RecordBatch, row: usize) -> Option<Denial> {
    let text = |column: &str| {
        let values = batch.column_by_name(column)?.as_string_opt::<i32>()?;
        (!values.is_null(row)).then(|| values.value(row).to_owned())
    };
    let party = |end: &str| {
        let workload = || {
            Some(WorkloadKey {
                namespace: text(&format!("{end}_namespace"))?,
                kind: text(&format!("{end}_workload_kind"))?,
                name: text(&format!("{end}_workload"))?,
            })
        };
        let ip: IpAddr = text(&format!("{end}_ip"))?.parse().ok()?;
        Some(workload().map_or_else(|| expected::address(scenario, ip), Party::Workload))
    };
    let protocol = flowlog::protocol_number(&text("protocol")?).and_then(Protocol::from_number);
    let port = batch.column_by_name("server_port")?.as_primitive_opt::<UInt16Type>()?.value(row);
    let ip: IpAddr = text("client_ip")?.parse().ok()?;
    Some(Denial {
        edge: ExpectedEdge {
            client: party("client")?,
            server: party("server")?,
            protocol,
            port: if protocol.is_some() { port } else { 0 },
        },
        family: Family::of(ip),
        verdict: text("verdict")?,
    })
}

/// How many rows stand behind an answer to [`query`].
pub(crate) fn rows(batches: &[RecordBatch]) -> i64 {
    let count = |batch: &RecordBatch| {
        let rows = batch.column_by_name("rows").and_then(|rows| rows.as_primitive_opt::<Int64Type>());
        rows.map_or(0, |rows| rows.values().iter().sum())
    };
    batches.iter().map(count).sum()
}
