//! What the filters of `flows` mean: one SQL query over the table `flows`.
//!
//! Always holds: what was typed reaches the query as a number or as a quoted literal, never as SQL.

use crate::{ending::Failure, typed, when};
use flowlog::protocol_number;
use ipnet::IpNet;
use jiff::Timestamp;
use model::record::{FlowVerdict, UnixNanos};
use std::{fmt::Write as _, net::IpAddr};

/// Filters, understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Question {
    /// Rows that end at or after this.
    pub(crate) from: Option<UnixNanos>,
    /// Rows that start before this.
    pub(crate) to: Option<UnixNanos>,
    /// Only the newest so many rows.
    pub(crate) limit: Option<u64>,
    /// Conditions on a row of a flow, all of which must hold.
    conditions: Vec<String>,
}

impl Question {
    /// Understands what was typed; `now` is the time that relative times count from.
    pub(crate) fn of(typed: &typed::Flows, now: Timestamp) -> Result<Self, Failure> {
        let time = |flag: &str, text: &Option<String>| {
            let moment = text.as_deref().map(|text| when::moment(text, now)).transpose();
            moment.map(|moment| moment.map(when::nanos)).map_err(|why| refused(flag, why))
        };
        let from = match &typed.since {
            Some(_) => time("since", &typed.since)?,
            None => time("from", &typed.from)?,
        };
        let to = time("to", &typed.to)?;
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            return Err(Failure::new(
                format!("nothing lies between {} and {}", when::shown(from), when::shown(to)),
                "give a --from that is before --to",
            ));
        }
        Ok(Self { from, to, limit: typed.limit, conditions: conditions(typed)? })
    }

    /// The query: these columns of the wanted rows, oldest first.
    pub(crate) fn sql(&self, columns: &str) -> String {
        let order = "start_ns, end_ns, flow_id, observed_at, node, verdict";
        let rows = format!("FROM flows WHERE row_kind = 'flow'{}", self.filters());
        match self.limit {
            None => format!("SELECT {columns} {rows} ORDER BY {order}"),
            Some(limit) => {
                let newest = "start_ns DESC, end_ns DESC, flow_id DESC, observed_at DESC, node DESC, verdict DESC";
                format!("SELECT {columns} FROM (SELECT * {rows} ORDER BY {newest} LIMIT {limit}) ORDER BY {order}")
            }
        }
    }

    /// What was not seen in the time asked about: node, reason, start, end, how many.
    pub(crate) fn gaps_sql(&self) -> String {
        format!(
            "SELECT node, reason, min(start_ns) AS start_ns, max(end_ns) AS end_ns, sum(lost) AS lost, count(*) AS gaps \
             FROM flows WHERE row_kind = 'gap'{} GROUP BY node, reason ORDER BY node, reason",
            self.time()
        )
    }

    /// Everything that --follow shows of what is new: the wanted rows, and the gaps of their time.
    pub(crate) fn follow_sql(&self) -> String {
        format!(
            "SELECT * FROM flows WHERE (row_kind = 'flow'{}) OR (row_kind = 'gap'{}) ORDER BY start_ns, end_ns, flow_id",
            self.filters(),
            self.time()
        )
    }

    fn filters(&self) -> String {
        self.conditions.iter().fold(self.time(), |mut all, condition| {
            let _ = write!(all, " AND {condition}");
            all
        })
    }

    fn time(&self) -> String {
        let mut time = String::new();
        if let Some(from) = self.from {
            let _ = write!(time, " AND end_ns >= {from}");
        }
        if let Some(to) = self.to {
            let _ = write!(time, " AND start_ns < {to}");
        }
        time
    }
}

fn refused(flag: &str, why: String) -> Failure {
    Failure::new(format!("--{flag}: {why}"), format!("`podfence flows --help` says what --{flag} takes"))
}

fn conditions(typed: &typed::Flows) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    let mut add = |flag: &str, text: &Option<String>, meaning: fn(&str) -> Result<String, String>| {
        if let Some(text) = text {
            all.push(meaning(text).map_err(|why| refused(flag, why))?);
        }
        Ok::<_, Failure>(())
    };
    add("namespace", &typed.namespace, |name| {
        let name = literal(name);
        Ok(format!("(client_namespace = {name} OR server_namespace = {name})"))
    })?;
    add("workload", &typed.workload, |text| {
        let who = Who::named(text)?;
        Ok(format!("({} OR {})", who.is("client"), who.is("server")))
    })?;
    add("client", &typed.client, |text| Ok(Who::any(text)?.is("client")))?;
    add("server", &typed.server, |text| Ok(Who::any(text)?.is("server")))?;
    add("address", &typed.address, |text| {
        let who = Who::at(text).ok_or_else(|| format!("`{text}` is neither an address nor a CIDR"))?;
        Ok(format!("({} OR {})", who.is("client"), who.is("server")))
    })?;
    add("port", &typed.port, ports)?;
    add("protocol", &typed.protocol, protocol)?;
    add("node", &typed.node, |name| Ok(format!("node = {}", literal(name))))?;
    if !typed.verdict.is_empty() {
        all.push(verdicts(&typed.verdict).map_err(|why| refused("verdict", why))?);
    }
    Ok(all)
}

/// One end of a flow, as a person names it.
#[derive(Clone, Debug, PartialEq)]
enum Who {
    Address(IpAddr),
    Block(IpNet),
    Namespace(String),
    /// A workload, a pod, a Service: namespace, kind if it was said, name.
    Named(String, Option<String>, String),
}

impl Who {
    fn any(text: &str) -> Result<Self, String> {
        Self::at(text).map_or_else(|| Self::named(text), Ok)
    }

    fn at(text: &str) -> Option<Self> {
        let address = text.parse().map(|ip: IpAddr| Self::Address(ip.to_canonical())).ok();
        address.or_else(|| text.parse().map(Self::Block).ok())
    }

    fn named(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [namespace, ""] if !namespace.is_empty() => Ok(Self::Namespace(namespace.to_owned())),
            [namespace, name] if !namespace.is_empty() => Ok(Self::Named(namespace.to_owned(), None, name.to_owned())),
            [namespace, kind, name] if !namespace.is_empty() && !kind.is_empty() && !name.is_empty() => {
                Ok(Self::Named(namespace.to_owned(), Some(kind.to_owned()), name.to_owned()))
            }
            _ => Err(format!("`{text}` names nobody; write NAMESPACE/NAME, NAMESPACE/KIND/NAME or NAMESPACE/")),
        }
    }

    /// The condition that this end (`client` or `server`) is the one named.
    fn is(&self, end: &str) -> String {
        match self {
            Self::Address(ip) => format!("{end}_ip = {}", literal(&ip.to_string())),
            Self::Block(block) => format!("in_cidr({end}_ip, {})", literal(&block.to_string())),
            Self::Namespace(name) => format!("{end}_namespace = {}", literal(name)),
            Self::Named(namespace, Some(kind), name) => format!(
                "({end}_namespace = {} AND {end}_workload_kind = {} AND {end}_workload = {})",
                literal(namespace),
                literal(kind),
                literal(name)
            ),
            Self::Named(namespace, None, name) => {
                let (namespace, name) = (literal(namespace), literal(name));
                format!(
                    "({end}_namespace = {namespace} AND ({end}_workload = {name} OR {end}_pod = {name} OR {end}_name = {name}))"
                )
            }
        }
    }
}

fn ports(text: &str) -> Result<String, String> {
    let number = |part: &str| {
        part.trim().parse::<u16>().map_err(|_| format!("`{text}` is no port; write a number up to 65535, or 8000-8999"))
    };
    match text.split_once('-') {
        None => Ok(format!("server_port = {}", number(text)?)),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("`{text}` holds no port; write the lower one first"));
            }
            Ok(format!("server_port BETWEEN {first} AND {last}"))
        }
    }
}

/// As the log writes it, whatever the case it was typed in.
fn protocol(text: &str) -> Result<String, String> {
    let named = ["TCP", "UDP", "SCTP", "ICMP", "ICMPv6"].into_iter().find(|name| name.eq_ignore_ascii_case(text));
    let number = protocol_number(named.unwrap_or(text))
        .ok_or_else(|| format!("`{text}` is no protocol; write TCP, UDP, SCTP, ICMP, ICMPv6 or a number up to 255"))?;
    let by_name =
        ["TCP", "UDP", "SCTP", "ICMP", "ICMPv6"].into_iter().find(|name| protocol_number(name) == Some(number));
    Ok(format!("protocol = {}", literal(&by_name.map_or_else(|| number.to_string(), str::to_owned))))
}

fn verdicts(texts: &[String]) -> Result<String, String> {
    let names = texts.iter().map(|text| {
        let verdict: FlowVerdict = text.trim().to_ascii_lowercase().replace('-', "_").parse()?;
        Ok(literal(verdict.name()))
    });
    Ok(format!("verdict IN ({})", names.collect::<Result<Vec<_>, String>>()?.join(", ")))
}

/// A string literal of SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn asked(arguments: &str) -> Result<String, String> {
        let words = ["podfence", "flows", "--log", "L"].into_iter().chain(arguments.split_whitespace());
        let typed::Verb::Flows(typed) = typed::Command::try_parse_from(words).expect("words").verb else {
            unreachable!("the verb is flows")
        };
        let now = "2026-01-31T12:00:00Z".parse().expect("a time");
        Question::of(&typed, now).map(|question| question.sql("*")).map_err(|failure| failure.to_string())
    }

    fn condition(arguments: &str) -> String {
        let sql = asked(arguments).expect("a question");
        let (_, filters) = sql.split_once("row_kind = 'flow'").expect("filters");
        filters.split(" ORDER BY").next().expect("a part").trim_start_matches(" AND ").to_owned()
    }

    #[test]
    fn every_filter_becomes_a_condition() {
        let cases = [
            ("-A", ""),
            ("--since 15m", "end_ns >= 1769859900000000000"),
            ("--to 2026-01-31T12:00:00Z", "start_ns < 1769860800000000000"),
            ("-n shop", "(client_namespace = 'shop' OR server_namespace = 'shop')"),
            ("--client shop/", "client_namespace = 'shop'"),
            ("--client 10.0.0.1", "client_ip = '10.0.0.1'"),
            ("--server ::ffff:10.0.0.1", "server_ip = '10.0.0.1'"),
            ("--server fd00::/8", "in_cidr(server_ip, 'fd00::/8')"),
            (
                "--server shop/StatefulSet/db",
                "(server_namespace = 'shop' AND server_workload_kind = 'StatefulSet' AND server_workload = 'db')",
            ),
            ("--address 10.0.0.0/8", "(in_cidr(client_ip, '10.0.0.0/8') OR in_cidr(server_ip, '10.0.0.0/8'))"),
            ("--port 53", "server_port = 53"),
            ("--port 8000-8999", "server_port BETWEEN 8000 AND 8999"),
            ("--protocol tcp", "protocol = 'TCP'"),
            ("--protocol 17", "protocol = 'UDP'"),
            ("--protocol 47", "protocol = '47'"),
            ("--verdict deny,audit-deny", "verdict IN ('deny', 'audit_deny')"),
            ("--port 1 --node n", "server_port = 1 AND node = 'n'"),
        ];
        for (typed, meant) in cases {
            assert_eq!(condition(typed), meant, "{typed}");
        }
        assert!(condition("--workload shop/db").contains("server_workload = 'db' OR server_pod = 'db'"));
    }

    #[test]
    fn a_limit_takes_the_newest_and_shows_the_oldest_of_them_first() {
        let sql = asked("--limit 5").expect("a question");
        assert!(sql.contains("start_ns DESC") && sql.contains("LIMIT 5) ORDER BY start_ns, end_ns"), "{sql}");
    }

    #[test]
    fn what_was_typed_never_becomes_sql() {
        assert_eq!(
            condition("-n x'OR'1'='1"),
            "(client_namespace = 'x''OR''1''=''1' OR server_namespace = 'x''OR''1''=''1')"
        );
    }

    #[test]
    fn what_is_not_understood_is_refused_with_what_would_be() {
        let cases = [
            ("--since soon", "--since: `soon` is no time; give one like"),
            ("--from 1h --to 2h", "nothing lies between"),
            ("--workload db", "names nobody; write NAMESPACE/NAME"),
            ("--workload /db", "names nobody"),
            ("--address shop/db", "neither an address nor a CIDR"),
            ("--port http", "is no port"),
            ("--port 9-8", "holds no port"),
            ("--port 65536", "is no port"),
            ("--protocol xyz", "is no protocol"),
            ("--protocol 256", "is no protocol"),
            ("--verdict denied", "is none of observed, allow"),
        ];
        for (typed, says) in cases {
            let error = asked(typed).expect_err(typed);
            assert!(error.contains(says), "{typed}: {error}");
        }
    }
}
