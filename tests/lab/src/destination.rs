//! What a call is made to: `http://cart.shop:8080/items`, `redis://orders-db.data:6379`, `dns:cart.shop`,
//! `icmp://catalog.shop`, `http://*.shop:9100/metrics`.

use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, str::FromStr};

/// An address family; in files the number 4 or 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The first address of this family.
    pub fn pick(self, addresses: &[IpAddr]) -> Option<IpAddr> {
        addresses.iter().copied().find(|ip| Self::of(*ip) == self)
    }
}

impl TryFrom<u8> for Family {
    type Error = String;
    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            4 => Ok(Self::V4),
            6 => Ok(Self::V6),
            _ => Err(format!("{number} is no address family; write 4 or 6")),
        }
    }
}

impl From<Family> for u8 {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => 4,
            Family::V6 => 6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// HTTP/1.1, a GET.
    Http,
    /// Redis: PING, SET, GET.
    Redis,
    /// A line sent over TCP and echoed.
    Tcp,
    /// A datagram sent over UDP and echoed.
    Udp,
    /// A ping: no NetworkPolicy can express it.
    Icmp,
    /// A name looked up over UDP.
    Dns,
    /// A name looked up over TCP.
    #[serde(rename = "dns+tcp")]
    DnsTcp,
}

impl Scheme {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Http, "http"),
        (Self::Redis, "redis"),
        (Self::Tcp, "tcp"),
        (Self::Udp, "udp"),
        (Self::Icmp, "icmp"),
        (Self::Dns, "dns"),
        (Self::DnsTcp, "dns+tcp"),
    ];

    /// The port that is meant when none is written.
    fn usual_port(self) -> Option<u16> {
        match self {
            Self::Http => Some(80),
            Self::Redis => Some(6379),
            Self::Dns | Self::DnsTcp => Some(53),
            Self::Tcp | Self::Udp | Self::Icmp => None,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Self::ALL.iter().find(|(scheme, _)| scheme == self).map_or("", |(_, name)| name))
    }
}

/// Who is meant by a destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name to be resolved by the scenario's DNS server; for `dns:` the name that is looked up.
    Name(String),
    /// An address.
    Address(IpAddr),
    /// Every living pod that serves the port, by address, as a metrics scraper finds its targets: `*`, or `*.namespace`.
    EveryPod {
        /// Only in this namespace.
        namespace: Option<String>,
    },
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Destination {
    /// What is spoken.
    pub scheme: Scheme,
    /// Who is meant.
    pub host: Host,
    /// The port, `None` for ICMP alone.
    pub port: Option<u16>,
    /// Path of an HTTP request, from its slash on.
    pub path: String,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once(':').ok_or_else(|| format!("`{text}` has no scheme; {}", schemes()))?;
        let scheme = Scheme::ALL
            .iter()
            .find(|(_, name)| *name == scheme)
            .map(|(scheme, _)| *scheme)
            .ok_or_else(|| format!("`{scheme}` is no scheme; {}", schemes()))?;
        if matches!(scheme, Scheme::Dns | Scheme::DnsTcp) {
            let host = Host::Name(valid_name(rest)?);
            return Ok(Self { scheme, host, port: scheme.usual_port(), path: String::new() });
        }
        let rest = rest.strip_prefix("//").ok_or_else(|| format!("write `{scheme}://host…`, not `{text}`"))?;
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        if !path.is_empty() && scheme != Scheme::Http {
            return Err(format!("only http has a path; leave out `{path}`"));
        }
        let (host, port) = host_and_port(authority)?;
        let port = port.or(scheme.usual_port());
        match (scheme, port) {
            (Scheme::Icmp, Some(port)) => Err(format!("ICMP has no ports; leave out `:{port}`")),
            (Scheme::Tcp | Scheme::Udp, None) => Err(format!("`{text}` needs a port, `{scheme}://host:port`")),
            _ => Ok(Self { scheme, host, port, path: path.to_owned() }),
        }
    }
}

fn schemes() -> String {
    let names: Vec<&str> = Scheme::ALL.iter().map(|(_, name)| *name).collect();
    format!("write one of {}, for example `http://cart.shop:8080/`", names.join(", "))
}

fn host_and_port(authority: &str) -> Result<(Host, Option<u16>), String> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (ip, after) = rest.split_once(']').ok_or_else(|| format!("`{authority}` lacks the closing `]`"))?;
        let ip: std::net::Ipv6Addr = ip.parse().map_err(|_| format!("`{ip}` is no IPv6 address"))?;
        (Host::Address(ip.into()), after.strip_prefix(':').or(if after.is_empty() { None } else { Some(after) }))
    } else {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        (host_of(host)?, port)
    };
    match port {
        None => Ok((host, None)),
        Some(text) => match text.parse() {
            Ok(port) if port != 0 => Ok((host, Some(port))),
            _ => Err(format!("`{text}` is no port; write 1 to 65535 (an IPv6 address stands in brackets)")),
        },
    }
}

fn host_of(host: &str) -> Result<Host, String> {
    if let Ok(ip) = host.parse() {
        return Ok(Host::Address(ip));
    }
    match host.strip_prefix('*') {
        Some("") => Ok(Host::EveryPod { namespace: None }),
        Some(rest) => match rest.strip_prefix('.') {
            Some(namespace) => Ok(Host::EveryPod { namespace: Some(valid_name(namespace)?) }),
            None => Err(format!("`{host}`: write `*` for every pod, or `*.namespace`")),
        },
        None => Ok(Host::Name(valid_name(host)?)),
    }
}

fn valid_name(name: &str) -> Result<String, String> {
    if is_name(name) {
        Ok(name.to_owned())
    } else {
        Err(format!("`{name}` is no DNS name; write lower-case letters, digits, `-` and `.`"))
    }
}

/// Whether it is a name as DNS and Kubernetes allow (RFC 1123, in lower case).
pub(crate) fn is_name(name: &str) -> bool {
    let legal = |part: &str| {
        (1..=63).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(legal)
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme)?;
        if let (Scheme::Dns | Scheme::DnsTcp, Host::Name(name)) = (self.scheme, &self.host) {
            return f.write_str(name);
        }
        match &self.host {
            Host::Name(name) => write!(f, "//{name}")?,
            Host::Address(IpAddr::V4(ip)) => write!(f, "//{ip}")?,
            Host::Address(IpAddr::V6(ip)) => write!(f, "//[{ip}]")?,
            Host::EveryPod { namespace: None } => f.write_str("//*")?,
            Host::EveryPod { namespace: Some(namespace) } => write!(f, "//*.{namespace}")?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)
    }
}

impl TryFrom<String> for Destination {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> Self {
        destination.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_prints_as_it_was_written() {
        for text in [
            "http://cart.shop:8080/items",
            "redis://orders-db.data:6379",
            "tcp://[fd00::1]:9",
            "udp://10.0.0.1:9",
            "icmp://catalog.shop",
            "dns:cart.shop",
            "dns+tcp:cart.shop.svc.cluster.local",
            "http://*.shop:9100/metrics",
            "http://*:9100/metrics",
        ] {
            assert_eq!(text.parse::<Destination>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_destination_is_refused_with_what_to_write() {
        for (text, says) in [
            ("cart.shop", "no scheme"),
            ("gopher://x", "no scheme; write one of http"),
            ("http:x", "write `http://host"),
            ("tcp://x", "needs a port"),
            ("icmp://x:7", "no ports"),
            ("http://x:0/", "no port"),
            ("http://x:99999/", "no port"),
            ("http://fd00::1:80/", "in brackets"),
            ("http://[fd00::1/", "closing"),
            ("redis://x/path", "only http"),
            ("http://Cart/", "no DNS name"),
            ("http://*shop/", "*.namespace"),
            ("dns:", "no DNS name"),
        ] {
            let error = text.parse::<Destination>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
