//! A scenario folder, understood: every name in it leads somewhere, every call has somebody who answers.

use crate::{
    destination::{Destination, Family, Host, Scheme},
    error::Error,
    objects::{self, Template},
    resolve,
    state::name_of,
    traffic::{Connection, Expect},
};
use model::{
    cluster::{Cluster, WorkloadKey},
    policy::Protocol,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// A scenario that can be played.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The folder's name, as far as a lab can be called so.
    pub name: String,
    /// Where it is.
    pub folder: PathBuf,
    /// cluster.yaml as it is written; it holds no pods but bare ones, and these without addresses.
    pub cluster: Cluster,
    /// The node that everything runs on.
    pub node: NodePlan,
    /// Who serves what.
    pub serves: BTreeMap<Party, Vec<Served>>,
    /// The workload that resolves names.
    pub dns: Option<WorkloadKey>,
    /// Calls, in the file's order.
    pub calls: Vec<PlannedCall>,
    /// Hosts outside the cluster, by name.
    pub outside: BTreeMap<String, Vec<IpAddr>>,
    /// When pods of Jobs and CronJobs live.
    pub jobs: Vec<PlannedJob>,
    /// Pods that die.
    pub events: Vec<PlannedEvent>,
    /// What must not succeed.
    pub attacks: Vec<Attack>,
    /// The two files as they were read: cluster.yaml and traffic.yaml.
    pub(crate) texts: [String; 2],
    pub(crate) objects: Vec<Value>,
    pub(crate) workloads: BTreeMap<WorkloadKey, WorkloadPlan>,
}

/// The one node.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// Its name.
    pub name: String,
    /// Its own addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Where pods' IPv4 addresses come from.
    pub pods_v4: ipnet::Ipv4Net,
    /// Where pods' IPv6 addresses come from.
    pub pods_v6: ipnet::Ipv6Net,
}

#[derive(Clone, Debug)]
pub(crate) struct WorkloadPlan {
    pub(crate) replicas: u32,
    pub(crate) template: Template,
}

/// Who calls or serves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Party {
    /// A workload of the cluster.
    Workload(WorkloadKey),
    /// A host outside it.
    Outside(String),
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(key) => f.pad(&format!("{}/{}", key.namespace, key.name)),
            Self::Outside(name) => f.pad(&format!("outside/{name}")),
        }
    }
}

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Server {
    Http,
    Redis,
    Dns,
    Tcp,
    Udp,
}

impl Server {
    /// Whether a call of this scheme is answered.
    pub(crate) fn answers(self, scheme: Scheme) -> bool {
        matches!(
            (self, scheme),
            (Self::Http, Scheme::Http)
                | (Self::Redis, Scheme::Redis)
                | (Self::Dns, Scheme::Dns | Scheme::DnsTcp)
                | (Self::Tcp, Scheme::Tcp)
                | (Self::Udp, Scheme::Udp)
        )
    }
}

/// A port that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Served {
    /// By what.
    pub server: Server,
    /// Where.
    pub port: u16,
}

/// A call made again and again.
#[derive(Clone, Debug)]
pub struct PlannedCall {
    /// Its place in the file, from 0.
    pub id: usize,
    /// Whose pods make it.
    pub from: Party,
    /// Where it goes.
    pub to: Destination,
    /// How long from one to the next, for each pod and family.
    pub every: Duration,
    /// Whether all calls of a pod to an address share one.
    pub connection: Connection,
    /// Over which families.
    pub families: Vec<Family>,
    /// Who answers; empty for `dns:`, where the DNS workload does.
    pub servers: BTreeSet<Party>,
}

/// When pods of a Job or CronJob live.
#[derive(Clone, Debug)]
pub struct PlannedJob {
    /// Whose.
    pub workload: WorkloadKey,
    /// Their starts, from the beginning of a run.
    pub at: Vec<Duration>,
    /// How long each lives.
    pub lives: Duration,
}

/// A pod that dies.
#[derive(Clone, Debug)]
pub struct PlannedEvent {
    /// When, from the beginning of a run.
    pub at: Duration,
    /// Whose pod.
    pub delete: WorkloadKey,
    /// Whose new pod gets its address, and how long after.
    pub address_to: Option<(WorkloadKey, Duration)>,
}

/// A call that policy is meant to stop (or, as a contrast, not to).
#[derive(Clone, Debug)]
pub struct Attack {
    /// One sentence.
    pub name: String,
    /// Who is taken over.
    pub from: Party,
    /// What it reaches for.
    pub to: Destination,
    /// What enforcement must make of it.
    pub expect: Expect,
    /// Who would answer.
    pub servers: BTreeSet<Party>,
}

/// One edge of the graph that a run must show.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExpectedEdge {
    /// Who opens the flow.
    pub client: Party,
    /// Who answers.
    pub server: Party,
    /// TCP or UDP; `None` for a ping, which no NetworkPolicy can express.
    pub protocol: Option<Protocol>,
    /// The server's port, 0 for a ping.
    pub port: u16,
}

impl Scenario {
    /// Reads `cluster.yaml` and `traffic.yaml` of a folder.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let read = |name: &str| {
            let path = folder.join(name);
            let text = std::fs::read_to_string(&path).map_err(Error::file(&path, "cannot be read"))?;
            Ok::<_, Error>((path.display().to_string(), text))
        };
        let (cluster_file, cluster_text) = read("cluster.yaml")?;
        let (traffic_file, traffic_text) = read("traffic.yaml")?;
        let name = name_of(folder);
        Self::parse(&name, folder, (&cluster_file, &cluster_text), (&traffic_file, &traffic_text))
    }

    /// The same from text: each of the two files with its name.
    pub fn parse(
        name: &str,
        folder: &Path,
        (cluster_file, cluster_text): (&str, &str),
        (traffic_file, traffic_text): (&str, &str),
    ) -> Result<Self, Error> {
        let mut cluster = Cluster::default();
        model::yaml::read_into(&mut cluster, cluster_file, cluster_text)?;
        let objects = objects::read(cluster_file, cluster_text)?;
        let traffic =
            serde_saphyr::from_str(traffic_text).map_err(|error| objects::yaml_error(traffic_file, &error))?;
        let mut scenario = resolve::scenario(name, folder, cluster_file, cluster, objects, traffic_file, &traffic)?;
        scenario.texts = [cluster_text.to_owned(), traffic_text.to_owned()];
        Ok(scenario)
    }

    /// The edges that a run of the scenario's calls shows, attacks left out.
    pub fn expected_edges(&self) -> BTreeSet<ExpectedEdge> {
        self.calls.iter().flat_map(|call| self.edges_of(&call.from, &call.to, &call.servers)).collect()
    }

    /// The edges that an attack would add.
    pub fn edges_of_attack(&self, attack: &Attack) -> BTreeSet<ExpectedEdge> {
        let known = self.expected_edges();
        self.edges_of(&attack.from, &attack.to, &attack.servers).filter(|edge| !known.contains(edge)).collect()
    }

    fn edges_of<'a>(
        &'a self,
        from: &'a Party,
        to: &'a Destination,
        servers: &'a BTreeSet<Party>,
    ) -> impl Iterator<Item = ExpectedEdge> + 'a {
        let edge = |server: Party, protocol, port| ExpectedEdge { client: from.clone(), server, protocol, port };
        let lookup = self.lookup_of(from, to).map(move |(server, protocol)| edge(server, Some(protocol), 53));
        let protocol = match to.scheme {
            Scheme::Http | Scheme::Redis | Scheme::Tcp => Some(Protocol::Tcp),
            Scheme::Udp => Some(Protocol::Udp),
            Scheme::Icmp | Scheme::Dns | Scheme::DnsTcp => None,
        };
        // A pod that scrapes every pod does not scrape itself.
        let servers = servers.iter().filter(move |server| *server != from || !matches!(to.host, Host::EveryPod { .. }));
        lookup
            .into_iter()
            .chain(servers.map(move |server| edge(server.clone(), protocol, self.port_at(from, to, server))))
    }

    /// The port at which a server answers a call: the target's, where the call goes to a Service's address; 0
    /// for a ping.
    pub(crate) fn port_at(&self, from: &Party, to: &Destination, server: &Party) -> u16 {
        let Some(asked) = to.port else { return 0 };
        let (Host::Name(name), Party::Workload(key)) = (&to.host, server) else { return asked };
        let Some((_, service)) = resolve::service_named(&self.cluster, from, name) else { return asked };
        let protocol = if to.scheme == Scheme::Udp { Protocol::Udp } else { Protocol::Tcp };
        let of_service = service.ports.iter().find(|port| port.port == asked && port.protocol == protocol);
        let declared = self.cluster.workloads.get(key).map(|workload| &workload.template_ports[..]).unwrap_or_default();
        let translated = of_service.filter(|_| !service.cluster_ips.is_empty());
        translated.and_then(|port| port.number_on(declared)).unwrap_or(asked)
    }

    /// The DNS workload and protocol by which this call's name is resolved.
    fn lookup_of(&self, from: &Party, to: &Destination) -> Option<(Party, Protocol)> {
        let Party::Workload(_) = from else { return None };
        let Host::Name(_) = to.host else { return None };
        let protocol = if to.scheme == Scheme::DnsTcp { Protocol::Tcp } else { Protocol::Udp };
        Some((Party::Workload(self.dns.clone()?), protocol))
    }
}
