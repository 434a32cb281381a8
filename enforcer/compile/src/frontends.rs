//! Services: what stands behind an address and port, told apart as far as policies tell it apart, and
//! what the grants of a subject say of it.
//!
//! At a client's hook the address of a Service is not yet translated, and rules speak of pods and their
//! ports. So the address's class holds what the backends behind each of its ports match, and a slot
//! holds, for each such port, what its grants come to over all of them.
//!
//! Where that is refusing some, the opening is allowed all the same if every refused backend has a hook of this node
//! before it and sees who opens: that hook asks the client's policy again (`verdict::client`). Else it is denied.

use crate::{
    classes::{Class, Prefix, longest},
    subjects::{Grants, Ports},
    terms::PortName,
};
use flow::{Address, Direction};
use model::{
    cluster::{self, Place},
    policy::Protocol,
};
use std::collections::{BTreeMap, BTreeSet};
use verdict::abi::{MIXED_BACKENDS, OWN_BACKEND};

/// One port of an address, and what stands behind it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Frontend {
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    /// Whether a backend sees the address of a client that it is not itself.
    keeps_source: bool,
    backends: BTreeSet<Backend>,
}

/// What a backend matches. Those that may be the client itself keep their address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Backend {
    address: Option<Address>,
    class: Class,
    port: u16,
    /// Whether it is a covered pod of this node; told apart only where it counts.
    covered: bool,
}

/// What the grants of a client come to over all backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// This rule allows the first of them, and others or the same allow the rest.
    Allowed(u32),
    /// This rule allows the first that is allowed; those that are refused are so at their own hooks.
    AllowedInPart(u32),
    /// Some are refused, and not all of these at a hook of this node.
    Mixed,
    /// The only one is the client.
    Itself,
}

impl Says {
    /// As a slot holds it.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Allowed(rule) | Self::AllowedInPart(rule) => rule,
            Self::Mixed => MIXED_BACKENDS,
            Self::Itself => OWN_BACKEND,
        }
    }
}

/// The frontends of each address. `classes` are those of addresses without them; `openers` are the
/// addresses of this node's pods whose egress some policy judges, `covered` those of its pods whose hooks stand.
pub(crate) fn frontends(
    all: &[cluster::Frontend],
    classes: &BTreeMap<Prefix, Class>,
    openers: &BTreeSet<Address>,
    covered: &BTreeSet<Address>,
) -> BTreeMap<Address, Vec<Frontend>> {
    let mut of_address: BTreeMap<Address, Vec<Frontend>> = BTreeMap::new();
    for frontend in all {
        let keeps_source = frontend.place == Place::ClusterIp;
        let backends = frontend.backends.iter().map(|backend| {
            let address = Address::from(backend.address);
            let class = longest(classes, &Prefix::host(address)).cloned().unwrap_or_default();
            let covered = keeps_source && !openers.is_empty() && covered.contains(&address);
            Backend { address: openers.contains(&address).then_some(address), class, port: backend.port, covered }
        });
        let backends = backends.collect();
        let frontend_of_class = Frontend { protocol: frontend.protocol, port: frontend.port, keeps_source, backends };
        of_address.entry(Address::from(frontend.address)).or_default().push(frontend_of_class);
    }
    of_address
}

impl Frontend {
    /// Whether something stands behind it.
    pub(crate) fn has_backends(&self) -> bool {
        !self.backends.is_empty()
    }

    /// Own addresses of pods that stand behind it.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Address> {
        self.backends.iter().filter_map(|backend| backend.address)
    }

    /// What these grants come to for a client with these addresses: `None` where every backend is refused. The client
    /// itself, behind its own Service, is allowed; what comes back to it has another source, so that nothing is left
    /// to the backends' hooks then.
    pub(crate) fn allowed(
        &self,
        grants: &Grants,
        own: &[Address],
        port_number: &impl Fn(&PortName) -> u32,
    ) -> Option<Says> {
        let (mut rule, mut itself, mut refused, mut unguarded) = (None, false, false, !self.keeps_source);
        for backend in &self.backends {
            if backend.address.is_some_and(|address| own.contains(&address)) {
                itself = true;
                continue;
            }
            match granted(grants, &backend.class, self.protocol, backend.port, port_number) {
                Some(by) => rule = rule.or(Some(by)),
                None => {
                    refused = true;
                    unguarded |= !backend.covered;
                }
            }
        }
        match (rule, itself, refused) {
            (None, false, _) => None,
            (Some(rule), false, true) if !unguarded => Some(Says::AllowedInPart(rule)),
            (_, _, true) => Some(Says::Mixed),
            (None, true, false) => Some(Says::Itself),
            (Some(rule), _, false) => Some(Says::Allowed(rule)),
        }
    }
}

/// The first rule that lets the subject open to an address of this class at this port.
fn granted(
    grants: &Grants,
    class: &Class,
    protocol: Protocol,
    port: u16,
    port_number: &impl Fn(&PortName) -> u32,
) -> Option<u32> {
    let mut egress = grants.grants.iter().filter(|grant| grant.direction == Direction::Outbound);
    let found = egress.find(|grant| {
        let peer =
            grant.peers.as_ref().is_none_or(|terms| terms.iter().any(|term| class.terms.binary_search(term).is_ok()));
        peer && match &grant.ports {
            Ports::Everything => true,
            Ports::All(of) => *of == protocol,
            Ports::Range(of, first, last) => *of == protocol && (*first..=*last).contains(&port),
            Ports::Named(name) => {
                let number = port_number(name);
                name.protocol == protocol
                    && class.ports.iter().any(|(name, ports)| *name == number && ports.contains(&port))
            }
        }
    });
    found.map(|grant| grant.rule)
}
