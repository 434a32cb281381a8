//! How clients came to a server: through which Service, and by which DNS name.
//!
//! Always holds: what a route says does not depend on the order of rows, nor on whether a row comes as a record or as
//! columns; of the names that led one client to one address the first few in order are kept.

use crate::{
    cluster::WorkloadKey,
    ledger::Facts,
    record::{DirectionRule, End, Entity, FlowRecord},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// What became of all calls of one client at one port of a Service, the worst of them last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// None was answered, or nobody knows who opened.
    Attempted,
    /// One was answered.
    Answered,
    /// Policy in force or staged denied one (law 13).
    Denied,
}

/// So many names are kept of one client's one address.
const NAMES: usize = 8;

/// A call of a Service: its `namespace/name`, IP protocol number and its own port.
pub type Call = (Arc<str>, u8, u16);

/// What a flow log says of the ways that clients took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routes {
    /// By client.
    services: BTreeMap<Arc<WorkloadKey>, BTreeMap<Call, Fate>>,
    /// Client and address to names.
    names: BTreeMap<(Arc<WorkloadKey>, IpAddr), BTreeSet<Arc<str>>>,
}

impl Fate {
    /// What became of one row's call; `None`: the row is none of a Service.
    pub fn of(facts: &Facts<'_>) -> Option<Self> {
        if facts.server != Entity::Service {
            return None;
        }
        let is_known = facts.direction_rule != DirectionRule::Unknown && facts.is_answered();
        Some(match facts.denial() {
            Some(_) => Self::Denied,
            None if is_known => Self::Answered,
            None => Self::Attempted,
        })
    }
}

impl Routes {
    /// Takes what one row of the flow log says.
    pub fn add(&mut self, record: &FlowRecord) {
        let End { entity: Entity::Pod, workload: Some(client), .. } = &record.client else { return };
        let (facts, server) = (Facts::of(record), &record.server);
        if let (Some(service), Some(fate)) = (&record.service, Fate::of(&facts)) {
            self.call(client, (service.clone(), facts.protocol, server.port), fate);
        }
        if let (Some(name), Entity::Outside | Entity::Node) = (&record.dns_name, server.entity) {
            self.name(client, server.ip, name.clone());
        }
    }

    /// A client called a Service.
    pub fn call(&mut self, client: &Arc<WorkloadKey>, call: Call, fate: Fate) {
        let worst = self.services.entry(client.clone()).or_default().entry(call).or_insert(fate);
        *worst = fate.max(*worst);
    }

    /// A name led a client to an address.
    pub fn name(&mut self, client: &Arc<WorkloadKey>, ip: IpAddr, name: Arc<str>) {
        let names = self.names.entry((client.clone(), ip.to_canonical())).or_default();
        names.insert(name);
        if names.len() > NAMES {
            names.pop_last();
        }
    }

    /// Takes what other rows say.
    pub fn merge(&mut self, other: Self) {
        for (client, calls) in other.services {
            calls.into_iter().for_each(|(call, fate)| self.call(&client, call, fate));
        }
        for ((client, ip), names) in other.names {
            names.into_iter().for_each(|name| self.name(&client, ip, name));
        }
    }

    /// Every client's calls.
    pub fn calls(&self) -> impl Iterator<Item = (&Arc<WorkloadKey>, &BTreeMap<Call, Fate>)> {
        self.services.iter()
    }

    /// The calls of one client.
    pub fn calls_of(&self, client: &Arc<WorkloadKey>) -> impl Iterator<Item = (&Call, &Fate)> {
        self.services.get(client).into_iter().flatten()
    }

    /// The names that led a client to an address.
    pub fn names_of(&self, client: &Arc<WorkloadKey>, ip: IpAddr) -> impl Iterator<Item = &Arc<str>> {
        self.names.get(&(client.clone(), ip.to_canonical())).into_iter().flatten()
    }
}
