//! The words of `flows`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Ask the flow log who talked to whom.
///
/// Filters narrow the answer and combine with *and*; each names either end of a flow unless it says which. One row is
/// one slice of a flow; a long flow has several, which add up. What the observers missed in the time asked about is
/// said on standard error, so that silence is not mistaken for peace.
///
/// With --sql the log is the table `flows` (columns: `podfence flows --columns`), and gaps in the watch are rows too,
/// with row_kind = 'gap'. in_cidr(client_ip, '10.0.0.0/8') tells whether an address is in a block.
#[derive(Debug, Args)]
#[command(after_help = "Times are RFC 3339 (2026-01-31T12:00:00Z) or how long ago: 90s, 15m, 2h, 1d.")]
pub(crate) struct Flows {
    /// The folder of the flow log
    #[arg(long, value_name = "DIR", required_unless_present = "columns")]
    pub(crate) log: Option<PathBuf>,
    /// Flows since then
    #[arg(long, value_name = "TIME", conflicts_with = "from")]
    pub(crate) since: Option<String>,
    /// Flows from then on
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Flows before then
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
    /// An end in this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// All namespaces (so it is without -n)
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
    /// An end that belongs to this workload: NAMESPACE/NAME
    #[arg(long, value_name = "NS/NAME")]
    pub(crate) workload: Option<String>,
    /// The client: NAMESPACE/NAME of a workload, NAMESPACE/, an address or a CIDR
    #[arg(long, value_name = "WHO")]
    pub(crate) client: Option<String>,
    /// The server: NAMESPACE/NAME of a workload, NAMESPACE/, an address or a CIDR
    #[arg(long, value_name = "WHO")]
    pub(crate) server: Option<String>,
    /// An end at this address, or in this CIDR
    #[arg(long, value_name = "IP|CIDR")]
    pub(crate) address: Option<String>,
    /// The server's port, or a range: 8000-8999
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<String>,
    /// TCP, UDP, SCTP, ICMP, ICMPv6, or a number
    #[arg(long, value_name = "PROTOCOL")]
    pub(crate) protocol: Option<String>,
    /// What was decided: observed, allow, audit_deny, deny, revoked; several with commas
    #[arg(long, value_name = "VERDICT", value_delimiter = ',')]
    pub(crate) verdict: Vec<String>,
    /// Seen by this node
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Only the newest N rows
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t = FlowsOutput::Table)]
    pub(crate) output: FlowsOutput,
    /// After the answer, go on with what is added to the log, until Ctrl-C
    #[arg(short, long, visible_short_alias = 'w', conflicts_with = "sql")]
    pub(crate) follow: bool,
    /// Ask in SQL instead; only queries, nothing that writes
    #[arg(long, value_name = "QUERY", conflicts_with_all = [
        "since", "from", "to", "namespace", "workload", "client", "server", "address", "port", "protocol", "verdict",
        "node", "limit",
    ])]
    pub(crate) sql: Option<String>,
    /// List the columns of the table `flows` and their types
    #[arg(long, conflicts_with_all = ["sql", "follow"])]
    pub(crate) columns: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FlowsOutput {
    /// The columns that fit a screen
    Table,
    /// More of them
    Wide,
    /// One array of objects
    Json,
    /// One object a line
    Jsonl,
    /// All columns, with a header
    Csv,
}
