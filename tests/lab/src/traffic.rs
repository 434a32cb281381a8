//! traffic.yaml as it is written: who serves what, who calls whom and how often, what happens meanwhile, and which
//! attacks must not succeed. What a demo may expect of a scenario comes from this file alone.
//!
//! A workload is written `namespace/name`, where two kinds share the name `namespace/Kind/name`; a host outside the
//! cluster `outside/name`. Times are written `500ms`, `2s`, `1m`.
//!
//! ```yaml
//! serve:
//!   - {workload: shop/cart, http: 8080}
//!   - {workload: data/orders-db, redis: 6379}
//!   - {workload: kube-system/coredns, dns: 53}
//! calls:
//!   - {from: shop/cart, to: "redis://orders-db.data:6379", every: 500ms, families: [4, 6]}
//! attacks:
//!   - {name: the frontend reads orders, from: shop/frontend, to: "redis://orders-db.data:6379", expect: denied}
//! ```

use crate::destination::Family;
use serde::{Deserialize, Deserializer, Serialize};
use serde_saphyr::Spanned;
use std::{net::IpAddr, time::Duration};

/// The whole file. Unknown fields are errors.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Which workload listens where. Every pod of the workload gets a real server of the kind, on both families.
    #[serde(default)]
    pub serve: Vec<Serve>,
    /// Who calls whom. Every pod of the calling workload makes the call.
    #[serde(default)]
    pub calls: Vec<Call>,
    /// Hosts outside the cluster: they may serve and call like a workload, written `outside/name`.
    #[serde(default)]
    pub outside: Vec<Outside>,
    /// When a CronJob's or Job's pods live. One that is not listed never runs.
    #[serde(default)]
    pub jobs: Vec<Job>,
    /// What happens to pods meanwhile.
    #[serde(default)]
    pub events: Vec<Event>,
    /// Calls that somebody makes who should not; they are made only when asked for.
    #[serde(default)]
    pub attacks: Vec<Attack>,
}

/// One port that a workload serves: exactly one of `http`, `redis`, `dns`, `tcp` and `udp` is given. A workload that
/// serves several ports is listed several times.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serve {
    /// `namespace/name`, or `outside/name`.
    pub workload: Spanned<String>,
    /// An HTTP server that answers every path with its pod's name.
    pub http: Option<Port>,
    /// A real `redis-server`, empty at first.
    pub redis: Option<Port>,
    /// A real DNS server (UDP and TCP) for the names of the scenario's Services and outside hosts. Every pod's
    /// resolver asks the pods of this workload. Only port 53.
    pub dns: Option<Port>,
    /// A TCP server that sends every line back.
    pub tcp: Option<Port>,
    /// A UDP server that sends every datagram back.
    pub udp: Option<Port>,
}

/// A call made again and again.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Whose pods make it: `namespace/name`, or `outside/name`.
    pub from: Spanned<String>,
    /// `http://name.namespace:port/path`, `redis://…`, `tcp://…`, `udp://…`, `icmp://…` (no port), `dns:name`,
    /// `dns+tcp:name`; instead of the name an address, or `*` or `*.namespace` for every pod that serves the port. A
    /// name is a Service's (`cart`, `cart.shop`, `cart.shop.svc.cluster.local`) or an outside host's. Services are
    /// not translated: the port is the one that the pods serve.
    pub to: Spanned<String>,
    /// How long from one call to the next, for each calling pod and family. 1 s unless given.
    #[serde(default = "one_second")]
    pub every: Time,
    /// `kept` for `http`, `redis` and `tcp`: all calls over one connection, as programs with a connection pool make
    /// them. `new` unless given.
    #[serde(default)]
    pub connection: Connection,
    /// Over which address families: `[4]`, `[6]` or both. Both unless given; an address as host has but one.
    #[serde(default = "both_families")]
    pub families: Vec<Family>,
}

/// A host outside the cluster, behind the node's uplink.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outside {
    /// Its DNS name, which the scenario's DNS server knows.
    pub name: Spanned<String>,
    /// Its addresses, at most one a family, outside the node's pod ranges.
    pub addresses: Vec<IpAddr>,
}

/// When pods of a CronJob or Job run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// `namespace/name` of the CronJob or Job.
    pub workload: Spanned<String>,
    /// When a pod of it starts, from the beginning of the run.
    pub at: Vec<Time>,
    /// How long the pod lives: it makes its calls, ends and gives its address back. 1 s unless given.
    #[serde(default = "one_second")]
    pub lives: Time,
}

/// A pod is replaced by a new one and dies, and its address goes to another workload's new pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When, from the beginning of the run.
    pub at: Time,
    /// One pod of this workload dies.
    pub delete: Spanned<String>,
    /// This workload gets a new pod with the address of the one that died. Without it, the address stays unused.
    pub address_to: Option<Spanned<String>>,
    /// How long after the death. 1 s unless given.
    #[serde(default = "one_second")]
    pub after: Time,
}

/// A call that the scenario's policies are meant to stop.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attack {
    /// One sentence for the reader.
    pub name: String,
    /// Which workload is taken over: one pod of it makes the call.
    pub from: Spanned<String>,
    /// As in `calls`.
    pub to: Spanned<String>,
    /// What enforcement must make of it. `denied` unless given.
    #[serde(default)]
    pub expect: Expect,
}

/// What enforcement makes of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// It fails, and is logged.
    #[default]
    Denied,
    /// It goes through: a contrast.
    Allowed,
}

/// A port in the file: 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Port(pub u16);

impl TryFrom<i64> for Port {
    type Error = String;
    fn try_from(number: i64) -> Result<Self, String> {
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        port.map(Self).ok_or_else(|| format!("{number} is no port; write 1 to 65535"))
    }
}

/// Whether a call keeps its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Connection {
    /// A connection for each call.
    #[default]
    New,
    /// One connection for all calls of a pod to an address, opened again when it ends.
    Kept,
}

/// A time in the file: `500ms`, `2s`, `1m30s`; not negative, at most an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom(format!("`{text}` is no time; write for example 500ms, 2s or 1m30s"));
        let signed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
        let time = Duration::try_from(signed).map_err(|_| wrong())?;
        if time > Duration::from_secs(3600) {
            return Err(serde::de::Error::custom(format!("`{text}` is more than an hour")));
        }
        Ok(Self(time))
    }
}

fn one_second() -> Time {
    Time(Duration::from_secs(1))
}

fn both_families() -> Vec<Family> {
    Family::BOTH.to_vec()
}
