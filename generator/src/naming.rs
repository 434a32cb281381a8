//! How ends, edges and times are written, so that a person can name an edge and a terminal is safe.
//!
//! Always holds: names from the network or the API are data; what comes from here holds no control
//! character, and [`EdgeName`] reads what [`edge`] writes.

use flow::{ICMP, ICMPV6};
use jiff::Timestamp;
use model::{
    cluster::WorkloadKey,
    ledger::{Edge, Party},
    policy::Protocol,
    record::UnixNanos,
};
use std::{fmt::Write as _, net::IpAddr, str::FromStr};

/// Text in which everything a terminal or reader would obey rather than show is written out
/// (`\u{1b}`): control characters, separators of lines, direction marks, joiners, tags.
pub fn printable(text: &str) -> String {
    let is_obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// `namespace/name` of a workload, or an address.
pub fn party(party: &Party) -> String {
    match party {
        Party::Workload(key) => printable(&format!("{}/{}", key.namespace, key.name)),
        Party::Node(ip) | Party::Outside(ip) => ip.to_string(),
    }
}

/// `namespace/Kind/name` of a workload, `node ADDRESS` or `outside ADDRESS`.
pub fn party_in_full(party: &Party) -> String {
    match party {
        Party::Workload(key) => workload(key),
        Party::Node(ip) => format!("node {ip}"),
        Party::Outside(ip) => format!("outside {ip}"),
    }
}

/// `namespace/Kind/name`.
pub fn workload(key: &WorkloadKey) -> String {
    printable(&key.to_string())
}

/// `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`, else `ip-NUMBER`.
pub fn protocol(number: u8) -> String {
    match (Protocol::from_number(number), number) {
        (Some(protocol), _) => protocol.name().to_ascii_lowercase(),
        (None, ICMP) => "icmp".to_owned(),
        (None, ICMPV6) => "icmpv6".to_owned(),
        (None, other) => format!("ip-{other}"),
    }
}

/// `shop/frontend->shop/cart:8080/tcp`: the name by which a person accepts an edge.
pub fn edge(edge: &Edge) -> String {
    let server = match &edge.server {
        Party::Node(IpAddr::V6(ip)) | Party::Outside(IpAddr::V6(ip)) => format!("[{ip}]"),
        other => party(other),
    };
    format!("{}->{server}:{}/{}", party(&edge.client), edge.port, protocol(edge.protocol))
}

/// `shop/client->shop/ftp:32768-60999/tcp`: a range of a server's ports, as [`RangeName`] reads it.
pub fn range(client: &Party, server: &Party, (first, last): (u16, u16), protocol: u8) -> String {
    let edge = edge(&Edge { client: client.clone(), server: server.clone(), protocol, port: first });
    match edge.rsplit_once('/') {
        Some((start, protocol)) if first != last => format!("{start}-{last}/{protocol}"),
        _ => edge,
    }
}

/// RFC 3339, as exact as the time is; the number itself beyond what that can write.
pub fn instant(at: UnixNanos) -> String {
    Timestamp::from_nanosecond(i128::from(at)).map_or_else(|_| at.to_string(), |time| time.to_string())
}

/// RFC 3339 to the second, for people.
pub fn second(at: UnixNanos) -> String {
    instant(at.div_euclid(1_000_000_000).saturating_mul(1_000_000_000))
}

/// `1 flow`, `2 flows`.
pub fn count(n: u64, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// Closed intervals as `80, 8000-8010`.
pub fn ports(intervals: &[(u16, u16)]) -> String {
    let mut out = String::new();
    for (first, last) in intervals {
        let comma = if out.is_empty() { "" } else { ", " };
        let _ = if first == last { write!(out, "{comma}{first}") } else { write!(out, "{comma}{first}-{last}") };
    }
    out
}

/// An edge as a person names it: `NAMESPACE/NAME->NAMESPACE/NAME:PORT/PROTOCOL`. An end may be
/// `NAMESPACE/KIND/NAME` where two kinds share a name, or an address (IPv6 servers in brackets).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeName {
    client: PartyName,
    server: PartyName,
    port: u16,
    protocol: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PartyName {
    Workload { namespace: String, kind: Option<String>, name: String },
    Address(IpAddr),
}

/// A range of a server's ports as a person names it: an [`EdgeName`] with `FIRST-LAST` for its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeName {
    client: PartyName,
    server: PartyName,
    protocol: String,
    /// First port, 1 or more.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl FromStr for RangeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || {
            let text = printable(text);
            format!("`{text}` is no range of ports; write NAMESPACE/NAME->NAMESPACE/NAME:FIRST-LAST/PROTOCOL")
        };
        let (start, rest) = text.rsplit_once('-').ok_or_else(form)?;
        let (last, protocol) = rest.split_once('/').ok_or_else(form)?;
        let edge = format!("{start}/{protocol}").parse().map_err(|_| form())?;
        let EdgeName { client, server, port: first, protocol } = edge;
        let last = last.trim().parse().map_err(|_| form())?;
        if (1..=last).contains(&first) { Ok(Self { client, server, protocol, first, last }) } else { Err(form()) }
    }
}

impl RangeName {
    /// Whether this names a range between these ends.
    pub fn names(&self, client: &Party, server: &Party, number: u8) -> bool {
        self.client.names(client) && self.server.names(server) && self.protocol == protocol(number)
    }
}

impl FromStr for EdgeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("`{}` is no edge; write NAMESPACE/NAME->NAMESPACE/NAME:PORT/PROTOCOL", printable(text));
        let (client, rest) = text.split_once("->").ok_or_else(form)?;
        let (rest, protocol) = rest.rsplit_once('/').ok_or_else(form)?;
        let (server, port) = rest.rsplit_once(':').ok_or_else(form)?;
        Ok(Self {
            client: client.trim().parse().map_err(|()| form())?,
            server: server.trim().parse().map_err(|()| form())?,
            port: port.trim().parse().map_err(|_| form())?,
            protocol: protocol.trim().to_ascii_lowercase(),
        })
    }
}

impl FromStr for PartyName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse() {
            return Ok(Self::Address(ip));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let (namespace, kind, name) = match parts[..] {
            [namespace, name] => (namespace, None, name),
            [namespace, kind, name] => (namespace, Some(kind.to_owned()), name),
            _ => return Err(()),
        };
        if namespace.is_empty() || name.is_empty() {
            return Err(());
        }
        Ok(Self::Workload { namespace: namespace.to_owned(), kind, name: name.to_owned() })
    }
}

impl EdgeName {
    /// Whether this names that edge.
    pub fn names(&self, edge: &Edge) -> bool {
        self.client.names(&edge.client)
            && self.server.names(&edge.server)
            && self.port == edge.port
            && self.protocol == protocol(edge.protocol)
    }
}

impl PartyName {
    fn names(&self, party: &Party) -> bool {
        match (self, party) {
            (Self::Workload { namespace, kind, name }, Party::Workload(key)) => {
                *namespace == key.namespace && *name == key.name && kind.as_ref().is_none_or(|kind| *kind == key.kind)
            }
            (Self::Address(named), Party::Node(ip) | Party::Outside(ip)) => named == ip,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn named(namespace: &str, kind: &str, name: &str) -> Party {
        Party::Workload(Arc::new(WorkloadKey { namespace: namespace.into(), kind: kind.into(), name: name.into() }))
    }

    #[test]
    fn an_edge_is_found_by_the_name_it_is_listed_under() {
        let ends = [
            named("shop", "Deployment", "frontend"),
            named("shop", "StatefulSet", "frontend"),
            Party::Outside("2001:db8::1".parse().unwrap()),
            Party::Node("192.0.2.7".parse().unwrap()),
        ];
        for client in &ends {
            for server in &ends {
                let listed = Edge { client: client.clone(), server: server.clone(), protocol: 6, port: 443 };
                let name: EdgeName = edge(&listed).parse().unwrap();
                assert!(name.names(&listed), "{}", edge(&listed));
                assert!(!name.names(&Edge { port: 444, ..listed.clone() }));
                assert!(!name.names(&Edge { protocol: 17, ..listed }));
            }
        }
        let of_one_kind: EdgeName = "shop/Deployment/frontend->shop/cart:1/udp".parse().unwrap();
        let edge = |kind| Edge {
            client: named("shop", kind, "frontend"),
            server: named("shop", "Deployment", "cart"),
            protocol: 17,
            port: 1,
        };
        assert!(of_one_kind.names(&edge("Deployment")));
        assert!(!of_one_kind.names(&edge("StatefulSet")));
    }

    #[test]
    fn what_is_no_edge_says_how_to_write_one() {
        for text in ["", "a->b", "a/b->c/d", "a/b->c/d:http/tcp", "a->c/d:80/tcp", "a/b/c/d->e/f:1/tcp"] {
            assert!(text.parse::<EdgeName>().unwrap_err().contains("NAMESPACE/NAME->"), "{text}");
        }
    }

    #[test]
    fn a_range_is_read_as_it_is_written() {
        let (client, server) = (named("shop", "Deployment", "a-b"), named("shop", "Deployment", "ftp"));
        let name: RangeName = range(&client, &server, (32_768, 60_999), 6).parse().unwrap();
        assert!(
            name.names(&client, &server, 6) && !name.names(&client, &server, 17) && !name.names(&server, &client, 6)
        );
        assert_eq!((name.first, name.last), (32_768, 60_999));
        for text in ["shop/a->shop/b:80/tcp", "shop/a->shop/b:9-8/tcp", "shop/a->shop/b:0-8/tcp", "a->b:1-2/tcp", "-"] {
            assert!(text.parse::<RangeName>().unwrap_err().contains("FIRST-LAST"), "{text}");
        }
    }

    #[test]
    fn control_characters_never_reach_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c\n"), "a\\u{1b}[2Jb\\u{202e}c\\u{a}");
    }
}
