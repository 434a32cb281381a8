//! The reference evaluator: what the policies of a cluster mean, written for clarity and checked
//! against everything faster (laws 1 to 3, 11, 12).

use crate::{cluster::{Cluster, Pod}, policy::{PolicySet, Protocol}, record::RuleName};
use std::net::IpAddr;

/// One end of a connection to be judged.
#[derive(Clone, Copy, Debug)]
pub enum Endpoint<'a> {
    /// A pod with addresses of its own, at one of its addresses.
    Pod(&'a Pod, IpAddr),
    /// Anything else: a node, a hostNetwork pod, an address outside.
    Address(IpAddr),
}

/// What one direction says, and why.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// The pod is not isolated in this direction (or is no pod that policies select).
    NotIsolated,
    /// These rules allow it, in order of policy and rule.
    AllowedBy(Vec<RuleName>),
    /// Isolated by these policies (namespace/name), none of which allows it.
    Denied(Vec<String>),
}

impl Judgement {
    /// Whether this direction lets the connection pass.
    pub fn allows(&self) -> bool {
        !matches!(self, Self::Denied(_))
    }
}

/// Both directions.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The client's side.
    pub egress: Judgement,
    /// The server's side.
    pub ingress: Judgement,
}

impl Decision {
    /// Both ends must allow.
    pub fn allows(&self) -> bool {
        self.egress.allows() && self.ingress.allows()
    }
}

/// Policies over a cluster.
pub struct Reference<'a> {
    /// Where selectors look.
    pub cluster: &'a Cluster,
    /// What is evaluated.
    pub policies: &'a PolicySet,
}

impl<'a> Reference<'a> {
    /// May `from` open a connection to `to`? `port` is `None` for protocols without ports
    /// (`protocol` `None` then too): allowed only by a rule for all protocols and ports, or without isolation.
    pub fn decide(&self, from: Endpoint<'_>, to: Endpoint<'_>, protocol: Option<Protocol>, port: u16) -> Decision {
        let _ = (from, to, protocol, port);
        unimplemented!()
    }

    /// The ports of `protocol` that `from` may open at `to`, as sorted, disjoint, non-adjacent closed intervals within 1..=65535.
    pub fn ports(&self, from: Endpoint<'_>, to: Endpoint<'_>, protocol: Protocol) -> Vec<(u16, u16)> {
        let _ = (from, to, protocol);
        unimplemented!()
    }
}
