//! Who owned an address when: (address, from, until) -> pod -> root owner.
//!
//! Always holds: an answer names a pod only if nobody else can have held the address at that time, as
//! far as the cluster's [`Tenure`]s tell; where that is not known, the answer is a reason.

use crate::{
    cluster::{self, Cluster, Pod, Service, TargetPort, WorkloadKey},
    record::{End, Entity, UnixNanos, unknown},
    tenure::{SECOND, Tenure},
};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

/// The inventory's answer to "whose address was this then?". Built from a [`Cluster`] that may hold
/// what ended; asked with the flow's own time.
#[derive(Clone, Debug)]
pub struct AddressView {
    claims: HashMap<IpAddr, Vec<Claim>>,
    pod_cidrs: Vec<IpNet>,
    /// Begin and end of the times in which nobody watched.
    gaps: Vec<(UnixNanos, UnixNanos)>,
    /// All that happened before is known.
    horizon: UnixNanos,
    /// Why what came later is not.
    beyond: &'static str,
    lag: UnixNanos,
    /// How long what went unseen may still hold its addresses.
    linger: UnixNanos,
}

#[derive(Clone, Debug)]
struct Claim {
    tenure: Tenure,
    holder: Holder,
}

#[derive(Clone, Debug)]
enum Holder {
    Pod(Arc<Owner>),
    Node(Arc<str>, Option<Arc<Host>>),
    Service(Arc<ServiceOwner>),
}

#[derive(Debug)]
struct Owner {
    namespace: Arc<str>,
    name: Arc<str>,
    uid: Arc<str>,
    workload: Arc<WorkloadKey>,
    /// (IP protocol number, port): declared by its containers, or the target of a Service.
    serves: Vec<(u8, u16)>,
}

/// A hostNetwork pod: it has its node's addresses while it serves and before and after.
#[derive(Debug)]
struct Host {
    tenure: Tenure,
    serves: Vec<(u8, u16)>,
}

#[derive(Debug)]
struct ServiceOwner {
    namespace: Arc<str>,
    name: Arc<str>,
    /// Where it leads: pods, unless all its backends are elsewhere.
    leads_to: Entity,
    serves: Vec<(u8, u16)>,
}

/// What the view says about one address at one time.
enum Answer<'v> {
    Holder(&'v Holder),
    /// Its link's: no router passes it on (RFC 3927, RFC 4291 2.5.6), so it is the node's own.
    OnLink,
    Outside,
    Unknown(&'static str),
}

/// Whether an end of a flow sent anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoke {
    /// It did, so somebody held its address.
    Yes,
    /// It did not: who called it may have meant somebody who is gone.
    No,
}

impl Default for AddressView {
    /// That of a cluster nothing is known about: every address is outside.
    fn default() -> Self {
        Self::new(&Cluster::default())
    }
}

impl AddressView {
    /// The view of a cluster.
    pub fn new(cluster: &Cluster) -> Self {
        let past = &cluster.past;
        let told = past.told_until.unwrap_or(UnixNanos::MAX);
        let (horizon, beyond) = match past.blind_since {
            Some(since) if since <= told => (since, unknown::WATCH_GAP),
            _ => (told, unknown::NOT_TOLD_YET),
        };
        let horizon = if horizon == UnixNanos::MAX { horizon } else { horizon.saturating_sub(past.lag) };
        let mut view = Self {
            claims: HashMap::new(),
            pod_cidrs: Vec::new(),
            gaps: past.gaps.clone(),
            horizon,
            beyond,
            lag: past.lag,
            linger: past.linger,
        };
        let nodes = cluster.nodes.iter().chain(past.nodes.iter().map(|(name, node)| (name, node)));
        for (name, node) in nodes {
            let holder = Holder::Node(name.as_str().into(), None);
            view.claim(&node.addresses, tenure_of_node(node), &holder);
            view.pod_cidrs.extend(node.pod_cidrs.iter().map(IpNet::trunc));
        }
        view.pod_cidrs.sort_unstable();
        view.pod_cidrs.dedup();
        let served = ServicePorts::new(cluster);
        for pod in past.pods.iter().chain(&cluster.pods) {
            view.claim_of_pod(cluster, pod, &served);
        }
        let backends = Backends::new(cluster);
        for ((namespace, name), service) in cluster.services.iter().chain(past.services.iter().map(|(n, s)| (n, s))) {
            let owner = ServiceOwner {
                namespace: namespace.as_str().into(),
                name: name.as_str().into(),
                leads_to: view.leads_to(&backends.of(namespace, name, service)),
                serves: service.ports.iter().map(|p| (p.protocol.number(), p.port)).collect(),
            };
            let tenure = service.tenure.unwrap_or_else(|| Tenure::since(service.created, service.created));
            let holder = Holder::Service(Arc::new(owner));
            view.claim(&service.cluster_ips, tenure, &holder);
            view.claim(&service.external_ips, tenure, &holder);
        }
        view.claims.values_mut().filter(|claims| claims.len() > 1).for_each(|claims| in_turn(claims));
        view
    }

    fn claim(&mut self, addresses: &[IpAddr], tenure: Tenure, holder: &Holder) {
        for ip in addresses {
            let claim = Claim { tenure, holder: holder.clone() };
            self.claims.entry(ip.to_canonical()).or_default().push(claim);
        }
    }

    fn claim_of_pod(&mut self, cluster: &Cluster, pod: &Pod, services: &ServicePorts<'_>) {
        let tenure = pod.tenure.unwrap_or_else(|| Tenure::by_stamps(pod));
        let mut serves: Vec<_> = pod.ports.iter().map(|p| (p.protocol.number(), p.port)).collect();
        services.targets(pod, &mut serves);
        if pod.host_network {
            // Its node need not be in the inventory for its address to be a node's.
            let past = cluster.past.nodes.iter().filter(|(name, _)| *name == pod.node).map(|(_, node)| node);
            let on = cluster.nodes.get(&pod.node).into_iter().chain(past);
            let holder = Holder::Node(pod.node.as_str().into(), Some(Arc::new(Host { tenure, serves })));
            let mut nodes = 0;
            for node in on {
                nodes += 1;
                self.claim(&pod.addresses, tenure_of_node(node), &holder);
            }
            if nodes == 0 {
                self.claim(&pod.addresses, Tenure::UNKNOWN, &holder);
            }
            return;
        }
        let holder = Holder::Pod(Arc::new(Owner {
            namespace: pod.namespace.as_str().into(),
            name: pod.name.as_str().into(),
            uid: pod.uid.as_str().into(),
            workload: Arc::new(cluster.root_owner(pod)),
            serves,
        }));
        self.claim(&pod.addresses, tenure, &holder);
    }

    /// What the backends of a Service are, when none of them is a pod of its own address: then no server's hook will
    /// ever see its flows.
    fn leads_to(&self, backends: &[IpAddr]) -> Entity {
        let mut led = None;
        for ip in backends.iter().map(IpAddr::to_canonical) {
            let claims = self.claims.get(&ip).map_or(&[][..], Vec::as_slice);
            let is_pod = claims.iter().any(|claim| matches!(claim.holder, Holder::Pod(_)))
                || self.pod_cidrs.iter().any(|cidr| cidr.contains(&ip));
            if is_pod {
                return Entity::Service;
            }
            let kind = if claims.is_empty() { Entity::Outside } else { Entity::Node };
            led = if led.is_none_or(|led| led == kind) { Some(kind) } else { Some(Entity::Outside) };
        }
        led.unwrap_or(Entity::Service)
    }

    /// Who had this address at this time (with `port` copied into the answer), when it was heard of.
    pub fn end(&self, ip: IpAddr, port: u16, at: UnixNanos) -> End {
        self.end_that(Spoke::Yes, ip, port, at)
    }

    /// Who had this address at this time, of an end that spoke or did not.
    pub fn end_that(&self, spoke: Spoke, ip: IpAddr, port: u16, at: UnixNanos) -> End {
        let none = End {
            ip,
            port,
            entity: Entity::Unknown,
            namespace: None,
            name: None,
            pod_uid: None,
            workload: None,
            unknown_reason: None,
        };
        match self.answer(spoke, ip, at) {
            Answer::Holder(Holder::Pod(owner)) => End {
                entity: Entity::Pod,
                namespace: Some(owner.namespace.clone()),
                name: Some(owner.name.clone()),
                pod_uid: Some(owner.uid.clone()),
                workload: Some(owner.workload.clone()),
                ..none
            },
            Answer::Holder(Holder::Node(name, _)) => End { entity: Entity::Node, name: Some(name.clone()), ..none },
            Answer::Holder(Holder::Service(service)) => End {
                entity: service.leads_to,
                namespace: Some(service.namespace.clone()),
                name: Some(service.name.clone()),
                ..none
            },
            Answer::OnLink => End { entity: Entity::Node, ..none },
            Answer::Outside => End { entity: Entity::Outside, ..none },
            Answer::Unknown(reason) => End { unknown_reason: Some(reason), ..none },
        }
    }

    /// Whether `port` of `protocol` (IP number) at this address was a Service's or a container's
    /// declared port then, or the port of a Service's backend.
    pub fn serves(&self, ip: IpAddr, protocol: u8, port: u16, at: UnixNanos) -> bool {
        let wanted = (protocol, port);
        match self.answer(Spoke::Yes, ip, at) {
            Answer::Holder(Holder::Pod(owner)) => owner.serves.contains(&wanted),
            Answer::Holder(Holder::Service(service)) => service.serves.contains(&wanted),
            Answer::Holder(Holder::Node(..)) => {
                let claims = self.claims.get(&ip.to_canonical()).into_iter().flatten();
                let mut hosts = claims.filter_map(|claim| match &claim.holder {
                    Holder::Node(_, host) => host.as_ref(),
                    _ => None,
                });
                hosts.any(|host| host.tenure.possibly(at) && host.serves.contains(&wanted))
            }
            Answer::OnLink | Answer::Outside | Answer::Unknown(_) => false,
        }
    }

    /// Whether everything that happened at that time has been told.
    pub const fn knows(&self, at: UnixNanos) -> bool {
        at < self.horizon
    }

    fn answer(&self, spoke: Spoke, ip: IpAddr, at: UnixNanos) -> Answer<'_> {
        let ip = ip.to_canonical();
        let claims = self.claims.get(&ip).map_or(&[][..], Vec::as_slice);
        let may_be_a_pods = || self.pod_cidrs.is_empty() || self.pod_cidrs.iter().any(|cidr| cidr.contains(&ip));
        if !self.knows(at) {
            let matters = !claims.is_empty() || may_be_a_pods();
            return if matters { Answer::Unknown(self.beyond) } else { self.nobodys(ip) };
        }
        match only(claims.iter().filter(|claim| claim.tenure.surely(at))) {
            Only::None => {}
            Only::One(claim) => return Answer::Holder(&claim.holder),
            Only::Several => return Answer::Unknown(unknown::AMBIGUOUS),
        }
        let in_gap = self.gaps.iter().any(|(from, until)| (*from..*until).contains(&at));
        if in_gap && (!claims.is_empty() || may_be_a_pods()) {
            return Answer::Unknown(unknown::WATCH_GAP);
        }
        match only(claims.iter().filter(|claim| claim.tenure.possibly(at))) {
            Only::One(claim) if self.unseen_since(claim, at) || self.unseen_before(claim, at) => {
                Answer::Unknown(unknown::WATCH_GAP)
            }
            // Who called and got no answer may have meant the holder before, or nobody.
            Only::One(claim)
                if spoke == Spoke::No && claims.iter().any(|other| !same(&other.holder, &claim.holder)) =>
            {
                Answer::Unknown(unknown::AMBIGUOUS)
            }
            Only::One(claim) if spoke == Spoke::No && at < self.begun_by(claim) => {
                Answer::Unknown(unknown::OUTSIDE_WINDOW)
            }
            Only::One(claim) => Answer::Holder(&claim.holder),
            Only::Several => Answer::Unknown(unknown::AMBIGUOUS),
            Only::None if !claims.is_empty() => Answer::Unknown(unknown::OUTSIDE_WINDOW),
            Only::None => self.nobodys(ip),
        }
    }

    /// Whether, since a claim was last sure, nobody watched for a while: somebody may have come and gone.
    fn unseen_since(&self, claim: &Claim, at: UnixNanos) -> bool {
        let last_sure = claim.tenure.surely_until.max(claim.tenure.from);
        last_sure <= at && self.gaps.iter().any(|(from, until)| *from <= at && last_sure < *until)
    }

    /// Whether, before a claim is sure, somebody may still be there who came and was deleted by force while nobody
    /// watched.
    fn unseen_before(&self, claim: &Claim, at: UnixNanos) -> bool {
        let lingers = |(from, until): &(UnixNanos, UnixNanos)| (*from..until.saturating_add(self.linger)).contains(&at);
        at < claim.tenure.surely_from && self.gaps.iter().any(lingers)
    }

    /// When a claim has begun: where that is not known, its stamp's fraction of a second and the news' delay later.
    fn begun_by(&self, claim: &Claim) -> UnixNanos {
        match claim.tenure.surely_from {
            UnixNanos::MAX => claim.tenure.from.saturating_add(SECOND).saturating_add(self.lag),
            surely => surely,
        }
    }

    /// An address that nobody known ever held.
    fn nobodys(&self, ip: IpAddr) -> Answer<'_> {
        let on_link = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        if on_link {
            Answer::OnLink
        } else if self.pod_cidrs.iter().any(|cidr| cidr.contains(&ip)) {
            Answer::Unknown(unknown::NEVER_SEEN)
        } else {
            Answer::Outside
        }
    }
}

/// Of pods that had one address after each other the earlier one was gone when the later one surely had it, and when
/// the later one was gone. `surely_from` is a time by which a pod had begun, whatever became of it then.
fn in_turn(claims: &mut [Claim]) {
    let pods: Vec<Claim> = claims.iter().filter(|claim| matches!(claim.holder, Holder::Pod(_))).cloned().collect();
    for claim in claims.iter_mut().filter(|claim| matches!(claim.holder, Holder::Pod(_))) {
        let own = claim.tenure;
        let others = pods.iter().filter(|other| !same(&other.holder, &claim.holder)).map(|other| other.tenure);
        let gone = others.filter_map(|other| {
            if other.surely_from < other.surely_until && own.surely_from <= other.surely_from {
                Some(other.surely_from)
            } else {
                (own.surely_from <= other.from).then_some(other.until)
            }
        });
        if let Some(gone) = gone.min() {
            claim.tenure.until = own.until.min(gone.max(own.surely_until));
        }
    }
}

enum Only<'v> {
    None,
    One(&'v Claim),
    Several,
}

/// The one holder of several claims. Everyone at a node's address is the node; what a node or pod holds is no
/// Service's, though a Service names it (a load balancer on the nodes, say).
fn only<'v>(claims: impl Iterator<Item = &'v Claim> + Clone) -> Only<'v> {
    let is_service = |claim: &&Claim| matches!(claim.holder, Holder::Service(_));
    let mut hosts = claims.clone().filter(|claim| !is_service(claim)).peekable();
    let mut services = claims.filter(is_service);
    let first = match hosts.peek() {
        Some(_) => hosts.next(),
        None => services.next(),
    };
    let Some(first) = first else { return Only::None };
    let rest: &mut dyn Iterator<Item = &Claim> =
        if matches!(first.holder, Holder::Service(_)) { &mut services } else { &mut hosts };
    for other in rest {
        if !same(&other.holder, &first.holder) {
            return Only::Several;
        }
    }
    Only::One(first)
}

fn same(a: &Holder, b: &Holder) -> bool {
    match (a, b) {
        (Holder::Pod(a), Holder::Pod(b)) => (&a.namespace, &a.uid) == (&b.namespace, &b.uid),
        (Holder::Service(a), Holder::Service(b)) => (&a.namespace, &a.name) == (&b.namespace, &b.name),
        (Holder::Node(..), Holder::Node(..)) => true,
        _ => false,
    }
}

fn tenure_of_node(node: &cluster::Node) -> Tenure {
    node.tenure.unwrap_or_else(|| Tenure::since(node.created, node.created))
}

/// Services by namespace, to find the ports at which they reach a pod.
struct ServicePorts<'c>(HashMap<&'c str, Vec<&'c Service>>);

impl<'c> ServicePorts<'c> {
    fn new(cluster: &'c Cluster) -> Self {
        let mut by_namespace: HashMap<&str, Vec<_>> = HashMap::new();
        for ((namespace, _), service) in &cluster.services {
            by_namespace.entry(namespace).or_default().push(service);
        }
        Self(by_namespace)
    }

    fn targets(&self, pod: &Pod, serves: &mut Vec<(u8, u16)>) {
        let here = self.0.get(pod.namespace.as_str()).into_iter().flatten();
        for service in here.filter(|service| service.selects(&pod.labels)) {
            // Named targets are container ports, which are counted already.
            serves.extend(service.ports.iter().filter_map(|p| match p.target {
                TargetPort::Number(port) => Some((p.protocol.number(), port)),
                TargetPort::Name(_) => None,
            }));
        }
        serves.sort_unstable();
        serves.dedup();
    }
}

/// The addresses behind each Service: of its EndpointSlices, or where it has none in the input, of the pods it selects.
struct Backends<'c> {
    slices: BTreeMap<(&'c str, &'c str), Vec<IpAddr>>,
    pods: HashMap<&'c str, Vec<&'c Pod>>,
}

impl<'c> Backends<'c> {
    fn new(cluster: &'c Cluster) -> Self {
        let mut slices: BTreeMap<_, Vec<IpAddr>> = BTreeMap::new();
        for ((namespace, _), slice) in &cluster.endpoint_slices {
            if let Some(service) = &slice.service {
                slices.entry((namespace.as_str(), service.as_str())).or_default().extend(&slice.addresses);
            }
        }
        let mut pods: HashMap<&str, Vec<&Pod>> = HashMap::new();
        for pod in &cluster.pods {
            pods.entry(&pod.namespace).or_default().push(pod);
        }
        Self { slices, pods }
    }

    fn of(&self, namespace: &str, name: &str, service: &Service) -> Vec<IpAddr> {
        if let Some(given) = self.slices.get(&(namespace, name)) {
            return given.clone();
        }
        let here = self.pods.get(namespace).into_iter().flatten();
        here.filter(|pod| service.selects(&pod.labels)).flat_map(|pod| pod.addresses.iter().copied()).collect()
    }
}
