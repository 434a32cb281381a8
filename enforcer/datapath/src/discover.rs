//! Which link leads to which pod, asked of the kernel alone: no container runtime, no setns.
//!
//! A veth names its peer's namespace (IFLA_LINK_NETNSID), and an address dump with IFA_TARGET_NETNSID
//! lists that namespace's addresses. Such a list only proposes, for a pod may give itself any address:
//! a binding needs an address of the pod's status, on the peer interface itself, and, where the node
//! routes that address to a link of its own, the route must lead to this link.

use crate::{
    Error,
    addresses::{self, Namespace},
    netlink::Route,
};
use flow::Address;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp},
    route::{RouteAddress, RouteAttribute, RouteMessage},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

/// The host side of a veth whose peer is in another namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub ifindex: u32,
    /// Interface name.
    pub name: Arc<str>,
    /// The peer's network namespace, as an id in this one.
    pub netns_id: i32,
    /// The peer interface's index there.
    pub peer_ifindex: u32,
    /// Addresses of the peer interface itself, link-local apart.
    pub addresses: BTreeSet<Address>,
    /// The peer interface's link-local address; zero when it has none.
    pub link_local: Address,
}

/// A link that leads to no pod, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncovered {
    /// Interface index.
    pub ifindex: u32,
    /// Interface name.
    pub name: Arc<str>,
    /// Why.
    pub why: WhyUncovered,
}

/// Why a link, or a pod, is not covered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WhyUncovered {
    /// A kind of link that is not watched, though its peer is in another namespace.
    NotAVeth {
        /// Its kind.
        kind: String,
    },
    /// It carries a default route of the node.
    Uplink,
    /// A setting says to leave it alone.
    Ignored,
    /// None of the addresses on the peer interface is a pod's of this node.
    UnknownPod,
    /// Its peer claims the address of a pod that another link leads to already.
    ClaimedTwice {
        /// That link.
        by: Arc<str>,
    },
    /// Its peer claims addresses of several pods that no other link leads to.
    ClaimsSeveral {
        /// How many pods.
        pods: usize,
    },
    /// The node routes the address to another link.
    RoutedElsewhere {
        /// The address.
        address: Address,
        /// The interface index that the route names.
        to: u32,
    },
}

impl fmt::Display for WhyUncovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAVeth { kind } => write!(f, "a {kind} link, and only veths are covered"),
            Self::Uplink => write!(f, "the node's own way out"),
            Self::Ignored => write!(f, "left alone, as ignoreInterfaces says"),
            Self::UnknownPod => write!(f, "no address on its peer is a known pod's"),
            Self::ClaimedTwice { by } => write!(f, "its peer claims an address of the pod behind {by}"),
            Self::ClaimsSeveral { pods } => write!(f, "its peer claims addresses of {pods} pods"),
            Self::RoutedElsewhere { address, to } => {
                write!(f, "its peer claims {address}, which the node routes to interface {to}")
            }
        }
    }
}

/// What was found in a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Veths to other namespaces, by interface index.
    pub links: BTreeMap<u32, Link>,
    /// Links of other kinds to other namespaces.
    pub others: Vec<Uncovered>,
    /// Routes of the node to single addresses: address -> interface index.
    pub host_routes: BTreeMap<Address, u32>,
    /// Interfaces with an XDP program: its id.
    pub xdp: BTreeMap<u32, u32>,
}

/// Interface names that are left alone: each a whole name, or its beginning and `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignored(pub Vec<String>);

impl Ignored {
    /// Whether an interface is left alone.
    fn holds(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        })
    }
}

/// Looks at the caller's network namespace: veths to other namespaces, but for the node's own way out and for
/// what is to be left alone; the addresses at their other ends.
pub fn discover(ignored: &Ignored) -> Result<Found, Error> {
    let mut route = Route::open()?;
    let mut found = veths(&mut route, ignored)?;
    let namespaces: BTreeSet<i32> = found.links.values().map(|link| link.netns_id).collect();
    for netns_id in namespaces {
        // A namespace that goes at this moment answers with an error: its links go too.
        let Ok(addresses) = addresses::of(&mut route, Namespace::Of(netns_id)) else { continue };
        for (ifindex, address) in addresses {
            let address = Address::from(address);
            let led_to = |link: &&mut Link| link.netns_id == netns_id && link.peer_ifindex == ifindex;
            for link in found.links.values_mut().filter(led_to) {
                if address.is_v6_link_local() {
                    link.link_local = address;
                } else {
                    link.addresses.insert(address);
                }
            }
        }
    }
    Ok(found)
}

/// The links alone, without what takes a question for each namespace: their addresses.
pub(crate) fn veths(route: &mut Route, ignored: &Ignored) -> Result<Found, Error> {
    let mut found = Found::default();
    let mut request = LinkMessage::default();
    request.header.interface_family = AddressFamily::Unspec;
    for answer in route.dump("list links", &RouteNetlinkMessage::GetLink(request))? {
        if let RouteNetlinkMessage::NewLink(message) = answer {
            read_link(&mut found, &message);
        }
    }
    let mut uplinks = BTreeSet::new();
    found.host_routes = routes(route, &mut uplinks)?;
    let left: Vec<Uncovered> = found.links.values().filter_map(|link| left_alone(link, ignored, &uplinks)).collect();
    for link in left {
        found.links.remove(&link.ifindex);
        found.others.push(link);
    }
    Ok(found)
}

fn left_alone(link: &Link, ignored: &Ignored, uplinks: &BTreeSet<u32>) -> Option<Uncovered> {
    let why = if uplinks.contains(&link.ifindex) {
        WhyUncovered::Uplink
    } else if ignored.holds(&link.name) {
        WhyUncovered::Ignored
    } else {
        return None;
    };
    Some(Uncovered { ifindex: link.ifindex, name: link.name.clone(), why })
}

fn read_link(found: &mut Found, message: &LinkMessage) {
    let (mut name, mut kind, mut netns_id, mut peer) = (String::new(), None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name.clone_from(value),
            LinkAttribute::LinkNetNsId(value) => netns_id = Some(*value),
            LinkAttribute::Link(value) => peer = *value,
            LinkAttribute::Xdp(xdp) => found.xdp.extend(xdp_program(xdp).map(|id| (message.header.index, id))),
            LinkAttribute::LinkInfo(infos) => {
                kind = infos
                    .iter()
                    .find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind.clone()) } else { None });
            }
            _ => {}
        }
    }
    // No namespace id: the peer is in this namespace, or there is none.
    let (Some(netns_id), Some(kind)) = (netns_id.filter(|id| *id >= 0), kind) else { return };
    let (ifindex, name) = (message.header.index, Arc::from(name));
    if matches!(kind, InfoKind::Veth) {
        let link = Link {
            ifindex,
            name,
            netns_id,
            peer_ifindex: peer,
            addresses: BTreeSet::new(),
            link_local: Address::default(),
        };
        found.links.insert(ifindex, link);
    } else if message.header.flags.contains(LinkFlags::Up) {
        found.others.push(Uncovered { ifindex, name, why: WhyUncovered::NotAVeth { kind: kind.to_string() } });
    }
}

fn xdp_program(attributes: &[LinkXdp]) -> Option<u32> {
    let id = |attribute: &LinkXdp| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    };
    attributes.iter().find_map(id).filter(|id| *id != 0)
}

/// The node's routes to single addresses, in its main table; and the interfaces of its default routes.
fn routes(route: &mut Route, uplinks: &mut BTreeSet<u32>) -> Result<BTreeMap<Address, u32>, Error> {
    const MAIN: u8 = 254;
    let mut routes = BTreeMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        for answer in route.dump("list routes", &RouteNetlinkMessage::GetRoute(request))? {
            let RouteNetlinkMessage::NewRoute(message) = answer else { continue };
            let whole = if family == AddressFamily::Inet { 32 } else { 128 };
            let length = message.header.destination_prefix_length;
            if message.header.table != MAIN || (length != whole && length != 0) {
                continue;
            }
            let (mut to, mut through) = (None, None);
            for attribute in &message.attributes {
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(ip)) => to = Some(IpAddr::from(*ip)),
                    RouteAttribute::Destination(RouteAddress::Inet6(ip)) => to = Some(IpAddr::from(*ip)),
                    RouteAttribute::Oif(index) => through = Some(*index),
                    _ => {}
                }
            }
            match (to, through) {
                (Some(to), Some(through)) if length == whole => {
                    routes.insert(Address::from(to), through);
                }
                (None, Some(through)) => {
                    uplinks.insert(through);
                }
                _ => {}
            }
        }
    }
    Ok(routes)
}

/// Which links lead to which pods, and which to none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// Pod UID -> its link.
    pub bound: BTreeMap<Arc<str>, Link>,
    /// Links that lead to no pod of this node.
    pub uncovered: Vec<Uncovered>,
    /// Those of them that might lead to a pod that is not known yet: the node's setting is their rule.
    pub unknown: Vec<Link>,
    /// Pods that no link leads to.
    pub pods_without_link: Vec<Arc<str>>,
}

impl Bindings {
    /// The links that lead to pods, by interface index.
    pub fn bound_links(&self) -> BTreeSet<u32> {
        self.bound.values().map(|link| link.ifindex).collect()
    }
}

/// Binds links to pods, given by UID with the addresses in their status. `before` keeps a pod with
/// the link that leads to it already: of two claimants the later is bound to no pod.
pub fn bind<'a>(
    found: &Found,
    pods: impl Iterator<Item = (&'a Arc<str>, &'a [Address])>,
    before: &BTreeMap<Arc<str>, u32>,
) -> Bindings {
    let mut owners: BTreeMap<Address, &Arc<str>> = BTreeMap::new();
    let mut without: BTreeSet<&Arc<str>> = BTreeSet::new();
    for (uid, addresses) in pods {
        without.insert(uid);
        let used = addresses.iter().filter(|address| **address != Address::default());
        used.for_each(|address| {
            owners.insert(*address, uid);
        });
    }
    let had: BTreeMap<u32, &Arc<str>> = before.iter().map(|(uid, ifindex)| (*ifindex, uid)).collect();
    let mut claims: Vec<_> = found.links.values().map(|link| (link, claims(found, link, &owners))).collect();
    // Bound already comes first, then who claims one pod only; interface indices grow, so the smaller
    // one is the older link.
    claims.sort_by_key(|(link, pods)| {
        let several = pods.as_ref().map_or(0, |pods| pods.len()) > 1;
        (!had.contains_key(&link.ifindex), several, link.ifindex)
    });
    let mut bindings = Bindings { uncovered: found.others.clone(), ..Bindings::default() };
    for (link, pods) in claims {
        let had = had.get(&link.ifindex).copied();
        match pods.and_then(|pods| choose(&pods, had, &bindings.bound)) {
            Ok(uid) => {
                without.remove(uid);
                bindings.bound.insert(uid.clone(), link.clone());
            }
            Err(why) => {
                bindings.uncovered.push(Uncovered { ifindex: link.ifindex, name: link.name.clone(), why });
                bindings.unknown.push(link.clone());
            }
        }
    }
    bindings.uncovered.sort_by_key(|uncovered| uncovered.ifindex);
    bindings.pods_without_link = without.into_iter().cloned().collect();
    bindings
}

/// The pods whose addresses a link's peer has, where the node's routes do not say otherwise.
fn claims<'a>(
    found: &Found,
    link: &Link,
    owners: &BTreeMap<Address, &'a Arc<str>>,
) -> Result<BTreeSet<&'a Arc<str>>, WhyUncovered> {
    let mut pods = BTreeSet::new();
    let mut refused = WhyUncovered::UnknownPod;
    for address in &link.addresses {
        let Some(uid) = owners.get(address) else { continue };
        match found.host_routes.get(address) {
            Some(to) if *to != link.ifindex => {
                refused = WhyUncovered::RoutedElsewhere { address: *address, to: *to };
            }
            _ => {
                pods.insert(*uid);
            }
        }
    }
    if pods.is_empty() { Err(refused) } else { Ok(pods) }
}

/// The one pod that a link leads to, among those it claims.
fn choose<'a>(
    pods: &BTreeSet<&'a Arc<str>>,
    had: Option<&Arc<str>>,
    bound: &BTreeMap<Arc<str>, Link>,
) -> Result<&'a Arc<str>, WhyUncovered> {
    if let Some(uid) = pods.iter().find(|uid| Some(**uid) == had) {
        return Ok(uid);
    }
    let free: Vec<&Arc<str>> = pods.iter().copied().filter(|uid| !bound.contains_key(*uid)).collect();
    match (free.as_slice(), pods.iter().find_map(|uid| bound.get(*uid))) {
        ([uid], _) => Ok(uid),
        ([], Some(other)) => Err(WhyUncovered::ClaimedTwice { by: other.name.clone() }),
        _ => Err(WhyUncovered::ClaimsSeveral { pods: free.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ifindex: u32, addresses: &[[u8; 4]]) -> Link {
        Link {
            ifindex,
            name: format!("veth{ifindex}").into(),
            netns_id: ifindex as i32,
            peer_ifindex: 2,
            addresses: addresses.iter().map(|octets| Address::v4(*octets)).collect(),
            link_local: Address::default(),
        }
    }

    fn found(links: &[Link]) -> Found {
        Found { links: links.iter().map(|link| (link.ifindex, link.clone())).collect(), ..Found::default() }
    }

    const A: [u8; 4] = [10, 0, 0, 1];
    const B: [u8; 4] = [10, 0, 0, 2];

    fn pods() -> Vec<(Arc<str>, Vec<Address>)> {
        vec![("a".into(), vec![Address::v4(A)]), ("b".into(), vec![Address::v4(B), Address::default()])]
    }

    fn bound(found: &Found, before: &[(&str, u32)]) -> Bindings {
        let pods = pods();
        let before = before.iter().map(|(uid, ifindex)| (Arc::from(*uid), *ifindex)).collect();
        bind(found, pods.iter().map(|(uid, addresses)| (uid, &addresses[..])), &before)
    }

    #[test]
    fn a_pod_is_bound_by_the_address_in_its_status() {
        let made = bound(&found(&[link(7, &[A]), link(8, &[[10, 9, 9, 9]])]), &[]);
        assert_eq!(made.bound["a"].ifindex, 7);
        assert_eq!(made.uncovered[0].why, WhyUncovered::UnknownPod);
        assert_eq!(made.pods_without_link, ["b".into()]);
    }

    #[test]
    fn of_two_claimants_the_later_link_is_bound_to_no_pod() {
        let both = found(&[link(7, &[A]), link(8, &[A])]);
        let made = bound(&both, &[]);
        assert_eq!(made.bound["a"].ifindex, 7);
        assert_eq!(made.uncovered[0].why, WhyUncovered::ClaimedTwice { by: "veth7".into() });
        // The one that is bound already stays, whatever its index.
        assert_eq!(bound(&both, &[("a", 8)]).bound["a"].ifindex, 8);
    }

    #[test]
    fn a_pod_that_gives_itself_another_pods_address_keeps_its_own_link_only() {
        for (mine, other) in [(A, B), (B, A)] {
            let made = bound(&found(&[link(7, &[mine, other]), link(8, &[other])]), &[]);
            let (me, them) = if mine == A { ("a", "b") } else { ("b", "a") };
            assert_eq!((made.bound[me].ifindex, made.bound[them].ifindex), (7, 8));
            assert!(made.uncovered.is_empty());
        }
        let alone = bound(&found(&[link(7, &[A, B])]), &[]);
        assert_eq!(alone.uncovered[0].why, WhyUncovered::ClaimsSeveral { pods: 2 });
    }

    #[test]
    fn ignored_interfaces_are_whole_names_or_beginnings() {
        let ignored = Ignored(vec!["lxc*".into(), "veth7".into()]);
        let held = ["lxc", "lxc12", "veth7", "veth70", "mylxc"].map(|name| ignored.holds(name));
        assert_eq!(held, [true, true, true, false, false]);
        assert!(!Ignored::default().holds("veth7"));
    }

    #[test]
    fn the_nodes_route_to_an_address_must_lead_to_the_link() {
        let mut routed = found(&[link(7, &[A])]);
        routed.host_routes.insert(Address::v4(A), 9);
        let made = bound(&routed, &[]);
        assert_eq!(made.uncovered[0].why, WhyUncovered::RoutedElsewhere { address: Address::v4(A), to: 9 });
    }
}
