//! Flows that somebody else saw, as JSON lines: one object a line, one flow an object.
//!
//! ```text
//! {"client": "10.1.0.2:40000", "server": "10.1.0.3:6379", "protocol": "TCP", "direction": "syn",
//!  "start": "2026-01-31T12:00:00.5Z", "packets_to_server": 4, "packets_to_client": 3}
//! ```
//!
//! Always holds: a line is a flow or an error that names file, line and field; nothing is guessed but what is said
//! here. Who has no packets to tell of says 0, and then nothing was answered.

use crate::{Error, Observer};
use flow::{FlowKey, tcp};
use jiff::Timestamp;
use model::{
    policy::Protocol,
    record::{DirectionRule, EndReason, FlowEvent, FlowSource, FlowVerdict, UnixNanos},
};
use serde::Deserialize;
use std::{
    fs::File,
    io::{BufRead, BufReader, Read as _},
    net::SocketAddr,
    path::Path,
    str::FromStr,
};

/// A line may have this many bytes.
const MAX_LINE: u64 = 1 << 16;

/// One line. Unknown fields are errors.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// Who opened it, as far as `direction` says so: address and port.
    client: String,
    /// The other end.
    server: String,
    /// `TCP`, `UDP`, `SCTP`, or an IP protocol's number.
    protocol: Number,
    /// How it is known who opened it: `socket`, `syn`, `port`; `unknown` when absent.
    #[serde(default)]
    direction: Option<String>,
    /// `server`, `client`, or `wire` when absent.
    #[serde(default)]
    observed_at: Option<String>,
    /// When the flow began, RFC 3339.
    start: String,
    /// When it was seen last; `start` when absent.
    #[serde(default)]
    end: Option<String>,
    packets_to_server: u64,
    packets_to_client: u64,
    #[serde(default)]
    bytes_to_server: u64,
    #[serde(default)]
    bytes_to_client: u64,
    /// Union of the TCP flags; when absent, those of an opening (if `direction` is `syn`) and of its answer (if there
    /// are packets to the client).
    #[serde(default)]
    tcp_flags_to_server: Option<u8>,
    #[serde(default)]
    tcp_flags_to_client: Option<u8>,
    /// `observed` when absent.
    #[serde(default)]
    verdict: Option<String>,
    /// Why, as a stable name.
    #[serde(default)]
    reason: String,
    #[serde(default)]
    interface: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Number {
    Name(String),
    Number(u8),
}

/// What an import was made into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Lines with a flow.
    pub flows: u64,
}

/// Imports the flows of a file. Up to the first line that is none, everything is observed.
pub fn observe_import(path: &Path, observer: &mut Observer) -> Result<Imported, Error> {
    let mut imported = Imported::default();
    each_event(path, &mut |event| {
        imported.flows += 1;
        observer.observe(event)
    })?;
    Ok(imported)
}

/// The flows of a file, one after the other.
pub fn each_event(path: &Path, take: &mut dyn FnMut(FlowEvent) -> Result<(), Error>) -> Result<(), Error> {
    let name = path.display().to_string();
    let failed = |source| Error::Import { file: name.clone(), source };
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = (&mut file).take(MAX_LINE + 1).read_until(b'\n', &mut line).map_err(failed)? as u64;
        if read == 0 {
            break;
        }
        let wrong = |why: String| Error::ImportLine { file: name.clone(), line: number, why };
        if read > MAX_LINE {
            return Err(wrong(format!("longer than {MAX_LINE} bytes; give one flow a line")));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let flow: Line = serde_json::from_slice(&line).map_err(|why| wrong(said(&why)))?;
        take(event(flow).map_err(wrong)?)?;
    }
    Ok(())
}

/// What serde says, without its own count of lines.
fn said(why: &serde_json::Error) -> String {
    let text = why.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    format!("{text} (column {})", why.column())
}

fn event(line: Line) -> Result<FlowEvent, String> {
    let (client, server) = (end("client", &line.client)?, end("server", &line.server)?);
    if client.is_ipv4() != server.is_ipv4() {
        return Err("`client` and `server` are of two address families; a packet has one".to_owned());
    }
    let start = nanos("start", &line.start)?;
    let last = line.end.as_deref().map(|end| nanos("end", end)).transpose()?;
    if last.is_some_and(|last| last < start) {
        return Err("`end` is before `start`".to_owned());
    }
    let protocol = protocol(&line.protocol)?;
    let direction_rule: DirectionRule = named("direction", line.direction.as_deref(), "unknown")?;
    let is_tcp = protocol == flow::TCP;
    let opening = if is_tcp && direction_rule == DirectionRule::Syn { tcp::SYN } else { 0 };
    let answer = if opening != 0 && line.packets_to_client > 0 { tcp::SYN | tcp::ACK } else { 0 };
    Ok(FlowEvent {
        key: FlowKey {
            source: client.ip().into(),
            destination: server.ip().into(),
            source_port: client.port(),
            destination_port: server.port(),
            protocol,
        },
        direction_rule,
        observed_at: named("observed_at", line.observed_at.as_deref(), "wire")?,
        flow_start: start,
        start,
        end: last.unwrap_or(start),
        packets_to_server: line.packets_to_server,
        packets_to_client: line.packets_to_client,
        bytes_to_server: line.bytes_to_server,
        bytes_to_client: line.bytes_to_client,
        tcp_flags_to_server: line.tcp_flags_to_server.unwrap_or(opening),
        tcp_flags_to_client: line.tcp_flags_to_client.unwrap_or(answer),
        adopted: false,
        verdict: named::<FlowVerdict>("verdict", line.verdict.as_deref(), "observed")?,
        reason: line.reason.as_str().into(),
        rule: None,
        policy_generation: 0,
        staged_verdict: FlowVerdict::Observed,
        staged_reason: "".into(),
        end_reason: EndReason::Stopped,
        rtt_us: None,
        interface: line.interface.as_str().into(),
        source: FlowSource::Import,
    })
}

fn end(field: &str, text: &str) -> Result<SocketAddr, String> {
    let advice = "write one such as 10.0.0.2:40000 or [fd00::2]:40000";
    text.parse().map_err(|_| format!("`{field}`: `{text}` is no address and port; {advice}"))
}

fn protocol(given: &Number) -> Result<u8, String> {
    match given {
        Number::Number(number) => Ok(*number),
        Number::Name(name) => match Protocol::ALL.into_iter().find(|protocol| protocol.name() == name) {
            Some(protocol) => Ok(protocol.number()),
            None => {
                Err(format!("`protocol`: `{name}` is none of TCP, UDP, SCTP; give another by its number, 1 for ICMP"))
            }
        },
    }
}

fn named<T: FromStr<Err = String>>(field: &str, text: Option<&str>, otherwise: &str) -> Result<T, String> {
    text.unwrap_or(otherwise).parse().map_err(|why| format!("`{field}`: {why}"))
}

fn nanos(field: &str, text: &str) -> Result<UnixNanos, String> {
    let time: Timestamp = text
        .parse()
        .map_err(|_| format!("`{field}`: `{text}` is no time; write one such as 2026-01-02T15:04:05.25Z"))?;
    UnixNanos::try_from(time.as_nanosecond()).map_err(|_| format!("`{field}`: {time} is beyond the times of a log"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const GOOD: &str = r#"{"client": "10.0.0.2:40000", "server": "10.0.0.3:80", "protocol": "TCP", "direction": "syn", "start": "2026-01-01T00:00:00.5Z", "packets_to_server": 4, "packets_to_client": 3}"#;

    fn import(text: &str) -> Result<Vec<FlowEvent>, String> {
        let mut file = tempfile::Builder::new().prefix("flows").suffix(".jsonl").tempfile().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        let mut all = Vec::new();
        let outcome = each_event(file.path(), &mut |event| {
            all.push(event);
            Ok(())
        });
        outcome.map(|()| all).map_err(|why| why.to_string().replace(&file.path().display().to_string(), "FILE"))
    }

    #[test]
    fn a_line_is_a_flow() {
        let all = import(&format!("{GOOD}\n\n{GOOD}\n")).expect("flows");
        assert_eq!(all.len(), 2);
        let one = &all[0];
        assert_eq!((one.key.destination_port, one.key.protocol, one.source), (80, flow::TCP, FlowSource::Import));
        assert_eq!((one.start, one.end), (1_767_225_600_500_000_000, 1_767_225_600_500_000_000));
        assert_eq!((one.tcp_flags_to_server, one.tcp_flags_to_client), (tcp::SYN, tcp::SYN | tcp::ACK));
        let silent = import(&GOOD.replace("\"packets_to_client\": 3", "\"packets_to_client\": 0")).expect("a flow");
        assert_eq!(silent[0].tcp_flags_to_client, 0, "nobody answered");
    }

    #[test]
    fn what_is_no_flow_is_told_with_its_line_and_field() {
        let table = [
            (
                "\"TCP\"",
                "\"tcp\"",
                "FILE:2: `protocol`: `tcp` is none of TCP, UDP, SCTP; give another by its number, 1 for ICMP",
            ),
            ("\"syn\"", "\"out\"", "FILE:2: `direction`: `out` is none of socket, syn, port, unknown"),
            (
                "10.0.0.3:80",
                "[fd00::1]:80",
                "FILE:2: `client` and `server` are of two address families; a packet has one",
            ),
            (
                "10.0.0.3:80",
                "10.0.0.3",
                "FILE:2: `server`: `10.0.0.3` is no address and port; write one such as 10.0.0.2:40000 or [fd00::2]:40000",
            ),
            ("\"direction\"", "\"dir\"", "FILE:2: unknown field `dir`, expected one of"),
            ("\"packets_to_server\": 4, ", "", "FILE:2: missing field `packets_to_server`"),
            (
                "2026-01-01T00:00:00.5Z",
                "yesterday",
                "FILE:2: `start`: `yesterday` is no time; write one such as 2026-01-02T15:04:05.25Z",
            ),
        ];
        for (from, to, expected) in table {
            assert!(GOOD.contains(from));
            let why = import(&format!("{GOOD}\n{}\n", GOOD.replace(from, to))).expect_err(to);
            assert!(why.starts_with(expected), "{why}");
        }
    }
}
