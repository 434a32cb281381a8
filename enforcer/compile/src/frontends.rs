//! Services: what stands behind an address and port, told apart as far as policies tell it apart, and
//! what the grants of a subject say of it.
//!
//! At a client's hook the address of a Service is not yet translated, and rules speak of pods and their
//! ports. So the address's class holds what the backends behind each of its ports match, and a slot
//! holds, for each such port, what its grants come to over all of them.

use crate::{
    classes::{Class, Prefix, longest},
    subjects::{Grants, Ports},
    terms::PortName,
};
use flow::{Address, Direction};
use model::{cluster, policy::Protocol};
use std::collections::{BTreeMap, BTreeSet};
use verdict::abi::{MIXED_BACKENDS, OWN_BACKEND};

/// One port of an address, and what stands behind it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Frontend {
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    backends: BTreeSet<Backend>,
}

/// What a backend matches. Those that may be the client itself keep their address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Backend {
    address: Option<Address>,
    class: Class,
    port: u16,
}

/// The frontends of each address. `classes` are those of addresses without them; `openers` are the
/// addresses of this node's pods whose egress some policy judges.
pub(crate) fn frontends(
    all: &[cluster::Frontend],
    classes: &BTreeMap<Prefix, Class>,
    openers: &BTreeSet<Address>,
) -> BTreeMap<Address, Vec<Frontend>> {
    let mut of_address: BTreeMap<Address, Vec<Frontend>> = BTreeMap::new();
    for frontend in all {
        let backends = frontend.backends.iter().map(|backend| {
            let address = Address::from(backend.address);
            let class = longest(classes, &Prefix::host(address)).cloned().unwrap_or_default();
            Backend { address: openers.contains(&address).then_some(address), class, port: backend.port }
        });
        let frontend_of_class =
            Frontend { protocol: frontend.protocol, port: frontend.port, backends: backends.collect() };
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

    /// What these grants come to for a client with these addresses: `None` where every backend is refused,
    /// else the rule that allows the first of them or one of the words of [`verdict::abi`]. The client
    /// itself, behind its own Service, is allowed.
    pub(crate) fn allowed(
        &self,
        grants: &Grants,
        own: &[Address],
        port_number: &impl Fn(&PortName) -> u32,
    ) -> Option<u32> {
        let (mut rule, mut itself, mut refused) = (None, false, false);
        for backend in &self.backends {
            if backend.address.is_some_and(|address| own.contains(&address)) {
                itself = true;
                continue;
            }
            match granted(grants, &backend.class, self.protocol, backend.port, port_number) {
                Some(by) => rule = rule.or(Some(by)),
                None => refused = true,
            }
        }
        match (rule, itself, refused) {
            (None, false, _) => None,
            (_, _, true) => Some(MIXED_BACKENDS),
            (None, true, false) => Some(OWN_BACKEND),
            (rule, _, false) => rule,
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
