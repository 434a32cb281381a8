//! Whom a question names: `ns/kind/name`, `ns/name`, a name alone, an address; and at which port.
//!
//! Always holds: a name that could mean two is an error that names both, and one that means nobody
//! names who is near; nothing is guessed.

use crate::universe::{EndId, Family, Universe};
use model::{
    cluster::{Pod, WorkloadKey},
    policy::Protocol,
};
use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr};

/// So many near names are named.
const NEAR: usize = 4;
/// Names less alike than this are not near (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.75;
/// What kubectl calls kinds in short.
const SHORT: [(&str, &str); 8] = [
    ("po", "Pod"),
    ("deploy", "Deployment"),
    ("sts", "StatefulSet"),
    ("ds", "DaemonSet"),
    ("rs", "ReplicaSet"),
    ("rc", "ReplicationController"),
    ("cj", "CronJob"),
    ("job", "Job"),
];

/// An end as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// An address.
    Address(IpAddr),
    /// A pod or workload.
    Name {
        /// Its namespace; `None`: any.
        namespace: Option<String>,
        /// Its kind, as typed; `None`: any.
        kind: Option<String>,
        /// Its name.
        name: String,
    },
}

/// The server, and the port at which it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Who.
    pub end: Named,
    /// Where; `None`: which ports are allowed is asked.
    pub port: Option<AskedPort>,
}

/// A port with its protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskedPort {
    /// TCP when none was typed.
    pub protocol: Protocol,
    /// Its number or name.
    pub port: PortName,
}

/// A port as a person names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortName {
    /// 1 to 65535.
    Number(u16),
    /// Looked up at the server's pods, where each may have another number.
    Name(String),
}

impl fmt::Display for AskedPort {
    /// `TCP 80`, `UDP dns`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.port {
            PortName::Number(number) => write!(f, "{} {number}", self.protocol.name()),
            PortName::Name(name) => write!(f, "{} {name}", self.protocol.name()),
        }
    }
}

/// Why a question cannot be answered: what; what to try.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The words are none that name an end or a port.
    #[error("`{asked}` is {what}; {try_this}")]
    Words {
        /// What was typed.
        asked: String,
        /// What is wrong with it.
        what: &'static str,
        /// What to type instead.
        try_this: &'static str,
    },
    /// Nobody has this name.
    #[error("`{asked}` names no pod and no workload of the input; {}", near_text(near))]
    Nobody {
        /// What was typed.
        asked: String,
        /// Names that are like it, the nearest first.
        near: Vec<String>,
    },
    /// Several have this name.
    #[error("`{asked}` could be {}; give one of them in full", candidates.join(" or "))]
    Ambiguous {
        /// What was typed.
        asked: String,
        /// Whom it could mean.
        candidates: Vec<String>,
    },
    /// A Service, which rules do not speak of.
    #[error("`{asked}` is {service}, and rules speak of pods and their ports, never of Services; {}", behind(pods))]
    Service {
        /// What was typed.
        asked: String,
        /// The Service.
        service: String,
        /// The workloads whose pods it selects.
        pods: Vec<String>,
    },
    /// A pod that is over.
    #[error("pod {pod} has completed, so it holds no address and takes part in nothing; ask for a pod that runs")]
    Completed {
        /// Its namespace and name.
        pod: String,
    },
    /// No pod has a port of this name.
    #[error("no pod of {server} has a port named {port}; {}", has_text(has))]
    NoSuchPort {
        /// Whose.
        server: String,
        /// The name with its protocol.
        port: String,
        /// What it has instead.
        has: Vec<String>,
    },
    /// They can have no connection.
    #[error(
        "{from} and {to} have no address family in common, so that no connection can be asked about; \
             give two ends that both have IPv4 or both IPv6"
    )]
    NoFamily {
        /// The client.
        from: String,
        /// The server.
        to: String,
    },
}

fn near_text(near: &[String]) -> String {
    match near {
        [] => "`podfence reach` lists all".to_owned(),
        near => format!("near it are {}", near.join(", ")),
    }
}

fn behind(pods: &[String]) -> String {
    match pods {
        [] => "ask for the pods behind it".to_owned(),
        pods => format!("ask for {}, at the port of its pods", pods.join(" or ")),
    }
}

fn has_text(has: &[String]) -> String {
    match has {
        [] => "it names none; give a number".to_owned(),
        has => format!("it has {}", has.join(", ")),
    }
}

impl FromStr for Named {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let wrong = |what| Problem::Words {
            asked: text.to_owned(),
            what,
            try_this: "write NAMESPACE/NAME, NAMESPACE/KIND/NAME, a pod's name, or an address",
        };
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self::Address(ip.to_canonical()));
        }
        if model::cidr::parse_cidr(text).is_some() {
            return Err(wrong("a block of addresses, not one"));
        }
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(wrong("no name"));
        }
        let (namespace, kind, name) = match parts[..] {
            [name] => (None, None, name),
            [namespace, name] => (Some(namespace), None, name),
            [namespace, kind, name] => (Some(namespace), Some(kind), name),
            _ => return Err(wrong("no name")),
        };
        Ok(Self::Name { namespace: namespace.map(str::to_owned), kind: kind.map(str::to_owned), name: name.to_owned() })
    }
}

impl FromStr for Target {
    type Err = Problem;

    /// `END[:PORT[/PROTO]]`; an IPv6 address with a port stands in brackets.
    fn from_str(text: &str) -> Result<Self, Problem> {
        if text.parse::<IpAddr>().is_ok() {
            return Ok(Self { end: text.parse()?, port: None });
        }
        let bracketed = text.starts_with('[').then(|| text.find(']')).flatten();
        let colon = bracketed.map_or_else(|| text.find(':'), |end| text[end..].find(':').map(|at| end + at));
        let Some(colon) = colon else { return Ok(Self { end: text.parse()?, port: None }) };
        Ok(Self { end: text[..colon].parse()?, port: Some(asked_port(text, &text[colon + 1..])?) })
    }
}

fn asked_port(asked: &str, text: &str) -> Result<AskedPort, Problem> {
    let wrong = |what, try_this| Problem::Words { asked: asked.to_owned(), what, try_this };
    let (port, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
    let named = |known: &&Protocol| known.name().eq_ignore_ascii_case(protocol);
    let protocol = Protocol::ALL.iter().find(named).copied();
    let protocol = protocol
        .ok_or_else(|| wrong("no question about a protocol that rules name", "end it with /TCP, /UDP or /SCTP"))?;
    let port = match port.parse::<u32>() {
        Ok(number) => match u16::try_from(number) {
            Ok(number) if number > 0 => PortName::Number(number),
            _ => return Err(wrong("no question about a port", "ports are 1 to 65535")),
        },
        Err(_) if port.is_empty() || port.contains(':') => {
            return Err(wrong(
                "no end with a port",
                "write NAMESPACE/NAME:PORT or ADDRESS:PORT, an IPv6 address in brackets",
            ));
        }
        Err(_) => PortName::Name(port.to_owned()),
    };
    Ok(AskedPort { protocol, port })
}

/// An end found in the input.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    /// As it is named in answers.
    pub(crate) name: String,
    /// Whose pods, if it is pods.
    pub(crate) workload: Option<WorkloadKey>,
    /// What of them.
    pub(crate) members: Vec<Member>,
    /// One pod or address was asked for, not all pods of a workload.
    pub(crate) is_one: bool,
}

/// A pod or an address, and the end that it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    pub(crate) end: EndId,
    /// Index into the universe's pods; `None`: an address of nobody.
    pub(crate) pod: Option<usize>,
    /// The pod's name, with its family where it stands for two ends.
    pub(crate) name: String,
    /// The address, where one was asked for.
    pub(crate) address: Option<IpAddr>,
}

/// Who is meant, in the universe's first input.
pub(crate) fn find(universe: &Universe<'_>, named: &Named) -> Result<Who, Problem> {
    match named {
        Named::Address(address) => at_address(universe, *address),
        Named::Name { namespace, kind, name } => by_name(universe, namespace.as_deref(), kind.as_deref(), name),
    }
}

fn at_address(universe: &Universe<'_>, address: IpAddr) -> Result<Who, Problem> {
    let cluster = universe.inputs()[0].cluster;
    let holds = |pod: &Pod| !pod.host_network && pod.addresses.iter().any(|ip| ip.to_canonical() == address);
    let holders: Vec<usize> = (0..universe.pods(0).len()).filter(|at| holds(&universe.pods(0)[*at].0)).collect();
    match holders[..] {
        [] => {
            let service = cluster.services.iter().find(|(_, service)| {
                service.cluster_ips.iter().chain(&service.external_ips).any(|ip| ip.to_canonical() == address)
            });
            if let Some(((namespace, name), _)) = service {
                return Err(of_service(universe, address.to_string(), namespace, name));
            }
            let end = universe.block_at(address);
            let member = Member { end, pod: None, name: address.to_string(), address: Some(address) };
            Ok(Who { name: address.to_string(), workload: None, members: vec![member], is_one: true })
        }
        [at] => {
            let pod = &universe.pods(0)[at].0;
            let mut who = of_pod(universe, at);
            let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
            who.members.retain(|member| universe.family(member.end).meets(family));
            who.members.iter_mut().for_each(|member| {
                member.address = Some(address);
                member.name.clone_from(&pod.name);
            });
            who.name = format!("{address} ({})", who.name);
            Ok(who)
        }
        _ => Err(Problem::Ambiguous {
            asked: address.to_string(),
            candidates: holders.iter().map(|at| of_pod(universe, *at).name).collect(),
        }),
    }
}

fn by_name(universe: &Universe<'_>, namespace: Option<&str>, kind: Option<&str>, name: &str) -> Result<Who, Problem> {
    let asked = [namespace, kind, Some(name)].into_iter().flatten().collect::<Vec<_>>().join("/");
    let cluster = universe.inputs()[0].cluster;
    let within = |other: &str| namespace.is_none_or(|namespace| namespace == other);
    let of_kind = |other: &str| kind.is_none_or(|kind| long(kind).eq_ignore_ascii_case(other));
    let is_pod = |pod: &Pod| pod.name == name && within(&pod.namespace) && of_kind("Pod") && !pod.is_stand_in();
    let pods = (0..universe.pods(0).len()).filter(|at| is_pod(&universe.pods(0)[*at].0));
    let mut found: Vec<Who> = pods.map(|at| of_pod(universe, at)).collect();
    let is_workload = |key: &&WorkloadKey| {
        // A pod of its own is found as a pod.
        key.name == name && within(&key.namespace) && of_kind(&key.kind) && key.kind != "Pod"
    };
    found.extend(universe.workloads(0).keys().filter(is_workload).map(|key| of_workload(universe, key)));
    if found.len() > 1 {
        return Err(Problem::Ambiguous { asked, candidates: found.into_iter().map(|who| who.name).collect() });
    }
    if let Some(who) = found.pop() {
        return Ok(who);
    }
    let over = cluster.pods.iter().find(|pod| pod.name == name && within(&pod.namespace) && of_kind("Pod"));
    if let Some(pod) = over {
        return Err(Problem::Completed { pod: format!("{}/{}", pod.namespace, pod.name) });
    }
    let service = cluster.services.keys().find(|(at, service)| service == name && within(at));
    if let Some((namespace, name)) = service.filter(|_| of_kind("Service") || of_kind("svc")) {
        return Err(of_service(universe, asked, namespace, name));
    }
    let near = near(universe, &asked, name);
    Err(Problem::Nobody { asked, near })
}

fn long(kind: &str) -> &str {
    SHORT.iter().find(|(short, _)| short.eq_ignore_ascii_case(kind)).map_or(kind, |(_, long)| long)
}

fn of_pod(universe: &Universe<'_>, at: usize) -> Who {
    let pod = &universe.pods(0)[at].0;
    Who {
        name: format!("{}/Pod/{}", pod.namespace, pod.name),
        workload: Some(universe.inputs()[0].cluster.root_owner(pod)),
        members: members(universe, at),
        is_one: true,
    }
}

fn of_workload(universe: &Universe<'_>, key: &WorkloadKey) -> Who {
    let cluster = universe.inputs()[0].cluster;
    let of_it = |at: &usize| {
        let pod = &universe.pods(0)[*at].0;
        pod.namespace == key.namespace && cluster.root_owner(pod) == *key
    };
    let members = (0..universe.pods(0).len()).filter(of_it).flat_map(|at| members(universe, at)).collect();
    Who { name: key.to_string(), workload: Some(key.clone()), members, is_one: false }
}

/// A pod as the ends it stands for.
fn members(universe: &Universe<'_>, at: usize) -> Vec<Member> {
    let (pod, ends) = &universe.pods(0)[at];
    let families: BTreeSet<Family> = ends.iter().map(|end| universe.family(*end)).collect();
    let name = |end: EndId| match universe.family(end) {
        Family::V4 if families.len() > 1 => format!("{} over IPv4", pod.name),
        Family::V6 if families.len() > 1 => format!("{} over IPv6", pod.name),
        _ => pod.name.clone(),
    };
    ends.iter().map(|end| Member { end: *end, pod: Some(at), name: name(*end), address: None }).collect()
}

fn of_service(universe: &Universe<'_>, asked: String, namespace: &str, name: &str) -> Problem {
    let cluster = universe.inputs()[0].cluster;
    let service = cluster.services.get(&(namespace.to_owned(), name.to_owned()));
    let behind = universe
        .pods(0)
        .iter()
        .filter(|(pod, _)| pod.namespace == namespace && service.is_some_and(|service| service.selects(&pod.labels)));
    let pods: BTreeSet<String> = behind.map(|(pod, _)| cluster.root_owner(pod).to_string()).collect();
    Problem::Service { asked, service: format!("Service {namespace}/{name}"), pods: pods.into_iter().collect() }
}

/// Names that are like the one typed: the whole, or its last part.
fn near(universe: &Universe<'_>, asked: &str, name: &str) -> Vec<String> {
    let workloads = universe.workloads(0).keys().map(|key| (key.to_string(), key.namespace.clone(), key.name.clone()));
    let pods = universe.pods(0).iter().map(|(pod, _)| pod).filter(|pod| !pod.is_stand_in());
    let pods = pods.map(|pod| (format!("{}/Pod/{}", pod.namespace, pod.name), pod.namespace.clone(), pod.name.clone()));
    let likeness = |full: &str, namespace: &str, own: &str| {
        let short = format!("{namespace}/{own}");
        let whole = strsim::jaro_winkler(asked, full).max(strsim::jaro_winkler(asked, &short));
        whole.max(strsim::jaro_winkler(name, own))
    };
    let mut ranked: Vec<(f64, String)> =
        workloads.chain(pods).map(|(full, namespace, own)| (likeness(&full, &namespace, &own), full)).collect();
    ranked.retain(|(alike, _)| *alike >= ALIKE);
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    ranked.dedup_by(|a, b| a.1 == b.1);
    ranked.into_iter().take(NEAR).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Result<String, String> {
        let shown = |target: Target| {
            let end = match target.end {
                Named::Address(ip) => format!("address {ip}"),
                Named::Name { namespace, kind, name } => {
                    [namespace, kind, Some(name)].into_iter().flatten().collect::<Vec<_>>().join("/")
                }
            };
            format!("{end} {}", target.port.map_or("any".to_owned(), |port| port.to_string()))
        };
        text.parse().map(shown).map_err(|problem: Problem| problem.to_string())
    }

    #[test]
    fn an_end_and_its_port_are_told_apart_in_every_form() {
        let table = [
            ("shop/web", "shop/web any"),
            ("web-1:80", "web-1 TCP 80"),
            ("shop/Deployment/web:http/tcp", "shop/Deployment/web TCP http"),
            ("10.0.0.1", "address 10.0.0.1 any"),
            ("10.0.0.1:53/UDP", "address 10.0.0.1 UDP 53"),
            ("fd00::1", "address fd00::1 any"),
            ("[fd00::1]", "address fd00::1 any"),
            ("[fd00::1]:53/udp", "address fd00::1 UDP 53"),
            ("::ffff:10.0.0.1", "address 10.0.0.1 any"),
        ];
        for (text, meant) in table {
            assert_eq!(target(text).as_deref(), Ok(meant), "{text}");
        }
    }

    #[test]
    fn what_names_nothing_says_what_to_type() {
        for (text, hint) in [
            ("", "write NAMESPACE/NAME"),
            ("a/b/c/d", "write NAMESPACE/NAME"),
            ("shop//web", "write NAMESPACE/NAME"),
            ("10.0.0.0/8", "a block of addresses"),
            ("shop/web:", "write NAMESPACE/NAME:PORT"),
            ("shop/web:0", "1 to 65535"),
            ("shop/web:65536", "1 to 65535"),
            ("shop/web:80/ICMP", "/TCP, /UDP or /SCTP"),
            ("fd00::1:x", "in brackets"),
        ] {
            let said = target(text).expect_err(text);
            assert!(said.contains(hint), "{text}: {said}");
        }
    }
}
