//! From what the two files say to a scenario that can be played, or to the first thing in them that cannot, with
//! what to try.

use crate::{
    destination::{Destination, Family, Host, Scheme, is_name},
    error::Error,
    plan,
    scenario::{Attack, Party, PlannedCall, PlannedEvent, PlannedJob, Scenario, Served, Server, WorkloadPlan},
    traffic::{Connection, Serve, Traffic},
};
use model::cluster::{Cluster, Service, WorkloadKey};
use serde_json::Value;
use serde_saphyr::Spanned;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    time::Duration,
};

/// No client calls more often.
const SHORTEST_PERIOD: Duration = Duration::from_millis(20);
/// Calls a second, all clients together.
const MOST_CALLS_PER_SECOND: f64 = 1000.0;
/// Pods at one time: each is a namespace and a process.
const MOST_PODS: u32 = 200;

pub(crate) fn scenario(
    name: &str,
    folder: &Path,
    cluster_file: &str,
    cluster: Cluster,
    objects: Vec<Value>,
    traffic_file: &str,
    traffic: &Traffic,
) -> Result<Scenario, Error> {
    let whole = |field: &str, message: String| Error::scenario(cluster_file, 0, field, message);
    let workloads = plan::workloads(cluster_file, &cluster, &objects)?;
    let pods: u32 = workloads.values().map(|plan| plan.replicas).fold(0, u32::saturating_add);
    if pods > MOST_PODS {
        return Err(whole("spec.replicas", format!("{pods} pods in all; the lab plays {MOST_PODS} at most")));
    }
    let mut scenario = Scenario {
        name: name.to_owned(),
        folder: folder.to_owned(),
        node: plan::node(cluster_file, &cluster)?,
        cluster,
        serves: BTreeMap::new(),
        dns: None,
        calls: Vec::new(),
        outside: BTreeMap::new(),
        jobs: Vec::new(),
        events: Vec::new(),
        attacks: Vec::new(),
        texts: Default::default(),
        objects,
        workloads,
    };
    let file = traffic_file;
    Reader { file, scenario: &mut scenario }.read(traffic)?;
    Ok(scenario)
}

/// Reads traffic.yaml into a scenario, in an order in which each part finds what it names.
struct Reader<'a> {
    file: &'a str,
    scenario: &'a mut Scenario,
}

impl Reader<'_> {
    fn read(mut self, traffic: &Traffic) -> Result<(), Error> {
        for (i, outside) in traffic.outside.iter().enumerate() {
            self.outside(&format!("outside[{i}]"), &outside.name, &outside.addresses)?;
        }
        for (i, serve) in traffic.serve.iter().enumerate() {
            self.serve(&format!("serve[{i}]"), serve)?;
        }
        for (i, call) in traffic.calls.iter().enumerate() {
            let from = self.party(&format!("calls[{i}].from"), &call.from)?;
            let field = format!("calls[{i}].to");
            let (to, servers) = self.destination(&field, &from, &call.to)?;
            let every = call.every.0;
            if every < SHORTEST_PERIOD {
                let message = format!("{every:?} is too often; the lab calls at most every {SHORTEST_PERIOD:?}");
                return Err(self.fail(&call.to, format!("calls[{i}].every"), message));
            }
            let mut families = call.families.clone();
            families.sort();
            families.dedup();
            if let Host::Address(ip) = to.host {
                families.retain(|family| *family == Family::of(ip));
            }
            if families.is_empty() {
                let message = "names no family that the destination has; write [4], [6] or [4, 6]";
                return Err(self.fail(&call.to, format!("calls[{i}].families"), message));
            }
            let connection = call.connection;
            if connection == Connection::Kept && !matches!(to.scheme, Scheme::Http | Scheme::Redis | Scheme::Tcp) {
                let message = format!("{} has no connection to keep; leave it out", to.scheme);
                return Err(self.fail(&call.to, format!("calls[{i}].connection"), message));
            }
            self.scenario.calls.push(PlannedCall { id: i, from, to, every, connection, families, servers });
        }
        self.jobs(traffic)?;
        self.events(traffic)?;
        for (i, attack) in traffic.attacks.iter().enumerate() {
            let from = self.party(&format!("attacks[{i}].from"), &attack.from)?;
            if !self.stands(&from) {
                let message = "pods of a Job come and go; let a standing workload be taken over";
                return Err(self.fail(&attack.from, format!("attacks[{i}].from"), message));
            }
            let (to, servers) = self.destination(&format!("attacks[{i}].to"), &from, &attack.to)?;
            self.scenario.attacks.push(Attack { name: attack.name.clone(), from, to, expect: attack.expect, servers });
        }
        self.bounded()
    }

    fn fail<T>(&self, at: &Spanned<T>, field: impl Into<String>, message: impl Into<String>) -> Error {
        Error::scenario(self.file, at.referenced.line(), field, message)
    }

    fn outside(&mut self, field: &str, name: &Spanned<String>, addresses: &[IpAddr]) -> Result<(), Error> {
        if !is_name(&name.value) || name.value.len() > 100 {
            let message = format!("`{}` is no DNS name of at most 100 letters, digits, `-` and `.`", name.value);
            return Err(self.fail(name, format!("{field}.name"), message));
        }
        let node = &self.scenario.node;
        for ip in addresses {
            let inside = match ip {
                IpAddr::V4(ip) => node.pods_v4.contains(ip),
                IpAddr::V6(ip) => node.pods_v6.contains(ip),
            };
            let taken =
                self.scenario.outside.values().flatten().any(|other| other == ip) || node.addresses.contains(ip);
            if inside || taken || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() {
                let message = format!("{ip} is not an address of its own outside the cluster; choose another");
                return Err(self.fail(name, format!("{field}.addresses"), message));
            }
        }
        let families: BTreeSet<Family> = addresses.iter().map(|ip| Family::of(*ip)).collect();
        if addresses.is_empty() || families.len() != addresses.len() {
            let message = "write one address, or one of each family";
            return Err(self.fail(name, format!("{field}.addresses"), message));
        }
        if self.scenario.outside.insert(name.value.clone(), addresses.to_vec()).is_some() {
            return Err(self.fail(name, format!("{field}.name"), format!("{} is there already", name.value)));
        }
        Ok(())
    }

    fn serve(&mut self, field: &str, serve: &Serve) -> Result<(), Error> {
        let party = self.party(&format!("{field}.workload"), &serve.workload)?;
        let given: Vec<Served> = [
            (Server::Http, serve.http),
            (Server::Redis, serve.redis),
            (Server::Dns, serve.dns),
            (Server::Tcp, serve.tcp),
            (Server::Udp, serve.udp),
        ]
        .into_iter()
        .filter_map(|(server, port)| port.map(|port| Served { server, port: port.0 }))
        .collect();
        let [served] = given[..] else {
            let message =
                "write exactly one of http, redis, dns, tcp and udp; list the workload again for another port";
            return Err(self.fail(&serve.workload, field, message));
        };
        if served.server == Server::Dns {
            self.serve_dns(field, serve, &party, served.port)?;
        }
        let all = self.scenario.serves.entry(party).or_default();
        let same =
            |a: Server, b: Server| (a == Server::Udp) == (b == Server::Udp) || a == Server::Dns || b == Server::Dns;
        if all.iter().any(|other| other.port == served.port && same(other.server, served.server)) {
            let message = format!("port {} of {} is served already", served.port, serve.workload.value);
            return Err(self.fail(&serve.workload, field, message));
        }
        all.push(served);
        Ok(())
    }

    fn serve_dns(&mut self, field: &str, serve: &Serve, party: &Party, port: u16) -> Result<(), Error> {
        let message = match (party, &self.scenario.dns) {
            _ if port != 53 => "resolvers ask port 53; write `dns: 53`",
            (Party::Outside(_), _) => "the DNS server is a workload of the cluster",
            (Party::Workload(_), Some(_)) => "a second DNS workload; one serves the whole scenario",
            (Party::Workload(key), None) => {
                self.scenario.dns = Some(key.clone());
                return Ok(());
            }
        };
        Err(self.fail(&serve.workload, field, message))
    }

    /// Who is meant by `namespace/name`, `namespace/Kind/name` or `outside/name`.
    fn party(&self, field: &str, text: &Spanned<String>) -> Result<Party, Error> {
        let parts: Vec<&str> = text.value.split('/').collect();
        let found: Vec<&WorkloadKey> = match parts[..] {
            ["outside", name] if self.scenario.outside.contains_key(name) => {
                return Ok(Party::Outside(name.to_owned()));
            }
            [namespace, name] => self.matching(|k| k.namespace == namespace && k.name == name),
            [namespace, kind, name] => self.matching(|k| k.namespace == namespace && k.kind == kind && k.name == name),
            _ => {
                let message = format!("`{}` names no workload; write namespace/name", text.value);
                return Err(self.fail(text, field, message));
            }
        };
        match found[..] {
            [key] => Ok(Party::Workload(key.clone())),
            [] => {
                let known: Vec<String> =
                    self.scenario.workloads.keys().map(|k| format!("{}/{}", k.namespace, k.name)).collect();
                let message = format!("`{}` is not in cluster.yaml; there are {}", text.value, known.join(", "));
                Err(self.fail(text, field, message))
            }
            [first, ..] => {
                let message =
                    format!("several kinds have this name; write {}/{}/{}", first.namespace, first.kind, first.name);
                Err(self.fail(text, field, message))
            }
        }
    }

    fn matching(&self, condition: impl Fn(&WorkloadKey) -> bool) -> Vec<&WorkloadKey> {
        self.scenario.workloads.keys().filter(|key| condition(key)).collect()
    }

    fn workload(&self, field: &str, text: &Spanned<String>) -> Result<WorkloadKey, Error> {
        match self.party(field, text)? {
            Party::Workload(key) => Ok(key),
            Party::Outside(_) => Err(self.fail(text, field, "hosts outside the cluster have no pods")),
        }
    }

    /// Whether its pods are there all the time.
    fn stands(&self, party: &Party) -> bool {
        match party {
            Party::Outside(_) => true,
            Party::Workload(key) => self.scenario.workloads.get(key).is_some_and(|plan| plan.replicas > 0),
        }
    }

    /// A call's destination, and who answers there.
    fn destination(
        &self,
        field: &str,
        from: &Party,
        text: &Spanned<String>,
    ) -> Result<(Destination, BTreeSet<Party>), Error> {
        let to: Destination = text.value.parse().map_err(|message: String| self.fail(text, field, message))?;
        if matches!((&to.host, from), (Host::Name(_), Party::Workload(_))) && self.scenario.dns.is_none() {
            let message = "no workload resolves names; add `dns: 53` under `serve`";
            return Err(self.fail(text, field, message));
        }
        if matches!(to.scheme, Scheme::Dns | Scheme::DnsTcp) {
            return match from {
                Party::Workload(_) => Ok((to, BTreeSet::new())),
                Party::Outside(_) => Err(self.fail(text, field, "hosts outside do not ask the cluster's DNS")),
            };
        }
        let candidates = self.candidates(field, from, text, &to)?;
        let answers = |party: &Party| match to.port {
            None => true,
            Some(_) => self.scenario.serves.get(party).is_some_and(|all| {
                let port = self.scenario.port_at(from, &to, party);
                all.iter().any(|served| served.port == port && served.server.answers(to.scheme))
            }),
        };
        let servers: BTreeSet<Party> = candidates.iter().filter(|party| answers(party)).cloned().collect();
        if servers.is_empty() {
            return Err(self.fail(text, field, self.nobody_answers(&to, &candidates)));
        }
        Ok((to, servers))
    }

    /// Everybody whom the destination's host may mean.
    fn candidates(
        &self,
        field: &str,
        from: &Party,
        text: &Spanned<String>,
        to: &Destination,
    ) -> Result<BTreeSet<Party>, Error> {
        let scenario = &*self.scenario;
        match &to.host {
            Host::Address(ip) => {
                let found = scenario.outside.iter().find(|(_, addresses)| addresses.contains(ip));
                found.map(|(name, _)| BTreeSet::from([Party::Outside(name.clone())])).ok_or_else(|| {
                    let message = format!("no host under `outside` has the address {ip}; name pods by their Service");
                    self.fail(text, field, message)
                })
            }
            Host::EveryPod { namespace } => Ok(scenario
                .workloads
                .keys()
                .filter(|key| namespace.as_ref().is_none_or(|wanted| *wanted == key.namespace))
                .map(|key| Party::Workload(key.clone()))
                .collect()),
            Host::Name(name) if scenario.outside.contains_key(name) => {
                Ok(BTreeSet::from([Party::Outside(name.clone())]))
            }
            Host::Name(name) => {
                let service = service_named(&scenario.cluster, from, name).ok_or_else(|| {
                    let message = format!(
                        "`{name}` is neither a Service of cluster.yaml (name.namespace) nor a host under `outside`"
                    );
                    self.fail(text, field, message)
                })?;
                Ok(self.behind(service).map(|key| Party::Workload(key.clone())).collect())
            }
        }
    }

    fn behind<'b>(&'b self, ((namespace, _), service): ServiceEntry<'b>) -> impl Iterator<Item = &'b WorkloadKey> {
        let selects = move |plan: &WorkloadPlan| {
            !service.selector.is_empty()
                && service.selector.iter().all(|(k, v)| plan.template.labels.get(k).and_then(Value::as_str) == Some(v))
        };
        let all = self.scenario.workloads.iter();
        all.filter(move |(key, plan)| key.namespace == *namespace && selects(plan)).map(|(key, _)| key)
    }

    fn nobody_answers(&self, to: &Destination, candidates: &BTreeSet<Party>) -> String {
        let mut offers = Vec::new();
        for party in candidates {
            let served = self.scenario.serves.get(party).map_or(&[][..], Vec::as_slice);
            offers.extend(served.iter().map(|s| format!("{party} serves {:?} {}", s.server, s.port).to_lowercase()));
        }
        let offers = if offers.is_empty() { "nothing is served there".to_owned() } else { offers.join(", ") };
        format!(
            "nobody answers {to}: {offers}. Write the pods' own port where a Service is headless, the Service's where it has a ClusterIP, and list the pods' under `serve`"
        )
    }

    fn jobs(&mut self, traffic: &Traffic) -> Result<(), Error> {
        for (i, job) in traffic.jobs.iter().enumerate() {
            let field = format!("jobs[{i}].workload");
            let workload = self.workload(&field, &job.workload)?;
            if !matches!(workload.kind.as_str(), "Job" | "CronJob") {
                let message = format!("a {} runs all the time; name a Job or CronJob", workload.kind);
                return Err(self.fail(&job.workload, field, message));
            }
            if self.scenario.jobs.iter().any(|other| other.workload == workload) {
                return Err(self.fail(&job.workload, field, "is listed already; put all its times under one `at`"));
            }
            let at = job.at.iter().map(|time| time.0).collect();
            self.scenario.jobs.push(PlannedJob { workload, at, lives: job.lives.0 });
        }
        Ok(())
    }

    fn events(&mut self, traffic: &Traffic) -> Result<(), Error> {
        for (i, event) in traffic.events.iter().enumerate() {
            let delete = self.controlled(&format!("events[{i}].delete"), &event.delete)?;
            let address_to = match &event.address_to {
                None => None,
                Some(text) => Some((self.controlled(&format!("events[{i}].address_to"), text)?, event.after.0)),
            };
            if address_to.as_ref().is_some_and(|(to, _)| *to == delete) {
                let message = "the address goes to another workload; name another";
                return Err(self.fail(&event.delete, format!("events[{i}].address_to"), message));
            }
            self.scenario.events.push(PlannedEvent { at: event.at.0, delete, address_to });
        }
        Ok(())
    }

    /// A workload whose controller replaces pods, and may have one more.
    fn controlled(&self, field: &str, text: &Spanned<String>) -> Result<WorkloadKey, Error> {
        let key = self.workload(field, text)?;
        let wrong = if self.scenario.dns.as_ref() == Some(&key) {
            "resolvers are configured with this workload's addresses; choose another"
        } else if !matches!(key.kind.as_str(), "Deployment" | "ReplicaSet") {
            "only pods of a Deployment or ReplicaSet die and are replaced; choose one"
        } else if !self.stands(&Party::Workload(key.clone())) {
            "has no replicas; choose another"
        } else {
            return Ok(key);
        };
        Err(self.fail(text, field, wrong))
    }

    fn bounded(&self) -> Result<(), Error> {
        let clients = |party: &Party| match party {
            Party::Workload(key) => self.scenario.workloads.get(key).map_or(1, |plan| plan.replicas.max(1)),
            Party::Outside(_) => 1,
        };
        let rate: f64 = (self.scenario.calls.iter())
            .map(|call| f64::from(clients(&call.from)) * call.families.len() as f64 / call.every.as_secs_f64())
            .sum();
        if rate > MOST_CALLS_PER_SECOND {
            let message = format!("{rate:.0} calls a second in all; the lab makes {MOST_CALLS_PER_SECOND} at most");
            return Err(Error::scenario(self.file, 0, "calls", message));
        }
        Ok(())
    }
}

type ServiceEntry<'a> = (&'a (String, String), &'a Service);

/// The Service that a name means to a caller, as its resolver's search list would find it.
pub(crate) fn service_named<'a>(cluster: &'a Cluster, from: &Party, name: &str) -> Option<ServiceEntry<'a>> {
    let name = name.strip_suffix(".svc.cluster.local").or_else(|| name.strip_suffix(".svc")).unwrap_or(name);
    let (service, namespace) = match (name.split_once('.'), from) {
        (Some((service, namespace)), _) => (service, namespace),
        (None, Party::Workload(key)) => (name, key.namespace.as_str()),
        (None, Party::Outside(_)) => return None,
    };
    cluster.services.get_key_value(&(namespace.to_owned(), service.to_owned()))
}
