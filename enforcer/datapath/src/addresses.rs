//! Addresses on interfaces, of this network namespace and of those that links lead to.

use crate::{Error, netlink::Route};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
};
use std::{collections::BTreeSet, net::IpAddr};

/// Whose addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// The caller's.
    Own,
    /// The one with this id in the caller's.
    Of(i32),
}

/// The addresses by which the caller's network namespace speaks to others: those of its interfaces, but for loopback
/// and for IPv6 link-local ones, which every interface has and which say nothing beyond its link.
pub fn own_addresses() -> Result<BTreeSet<IpAddr>, Error> {
    let all = of(&mut Route::open()?, Namespace::Own)?;
    Ok(all.into_iter().map(|(_, ip)| ip.to_canonical()).filter(speaks_to_others).collect())
}

fn speaks_to_others(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    }
}

/// (interface index, address) of a namespace.
pub(crate) fn of(route: &mut Route, namespace: Namespace) -> Result<Vec<(u32, IpAddr)>, Error> {
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Unspec;
    let asked = match namespace {
        Namespace::Own => None,
        Namespace::Of(id) => Some(AddressAttribute::TargetNetNsId(id)),
    };
    request.attributes.extend(asked.clone());
    let answers = route.dump("list addresses", &RouteNetlinkMessage::GetAddress(request))?;
    let mut addresses = Vec::new();
    for answer in answers {
        let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
        // Where the kernel did not honour the request, the answer is about another namespace.
        if asked.as_ref().is_some_and(|asked| !message.attributes.contains(asked)) {
            continue;
        }
        // Of a point-to-point address, the local one is the interface's own.
        let local =
            message.attributes.iter().find_map(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
        let plain = message
            .attributes
            .iter()
            .find_map(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None });
        addresses.extend(local.or(plain).map(|ip| (message.header.index, ip)));
    }
    Ok(addresses)
}
