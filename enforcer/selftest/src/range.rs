//! The range: a node, three pods and a host outside as network namespaces, and nothing shared with the machine.
//!
//! ```text
//!   client ─┐
//!   server ─┼─ node ── uplink ── outside        routed: a veth and a route a pod
//! attacker ─┘                                   bridged: the pods' veths are ports of cni0
//! ```
//!
//! Always holds: all of it goes when the [`Range`] goes; what a killed run left, the next one removes.

use crate::{
    error::Error,
    post::{Sender, Tap, inside, interfaces, mac},
};
use lab::{
    Family,
    network::{self, Link, Purpose},
};
use std::{
    fs,
    net::IpAddr,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Client,
    Server,
    Attacker,
    Outside,
    Node,
}

impl Who {
    pub(crate) const PODS: [Self; 3] = [Self::Client, Self::Server, Self::Attacker];
    const ALL: [Self; 5] = [Self::Client, Self::Server, Self::Attacker, Self::Outside, Self::Node];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Attacker => "attacker",
            Self::Outside => "outside",
            Self::Node => "node",
        }
    }

    /// Its addresses, IPv4 first: of ranges that nobody routes, though nobody outside the range sees them.
    pub(crate) fn addresses(self) -> [IpAddr; 2] {
        let texts = match self {
            Self::Client => ["10.203.0.10", "fd03:203::10"],
            Self::Server => ["10.203.0.20", "fd03:203::20"],
            Self::Attacker => ["10.203.0.30", "fd03:203::30"],
            Self::Outside => ["198.51.100.9", "2001:db8:51::9"],
            Self::Node => ["192.0.2.7", "2001:db8:7::7"],
        };
        texts.map(address)
    }

    pub(crate) fn address(self, family: Family) -> IpAddr {
        let [v4, v6] = self.addresses();
        if family == Family::V4 { v4 } else { v6 }
    }

    fn link(self) -> String {
        match self {
            Self::Node | Self::Outside => "uplink".to_owned(),
            pod => format!("veth-{}", pod.name()),
        }
    }
}

/// A text that is an address.
pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
}

/// The pods' own ranges.
const PODS: [&str; 2] = ["10.203.0.0/24", "fd03:203::/64"];
/// The bridge's addresses.
const GATEWAY: [&str; 2] = ["10.203.0.1/24", "fd03:203::1/64"];

/// How pods hang on their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layout {
    /// A route a pod, as the CNI plugin `ptp` makes them.
    Routed,
    /// Ports of a bridge, as the CNI plugin `bridge` makes them: frames reach other pods without the node's routing.
    Bridged,
}

/// Namespaces of one run of some classes.
pub(crate) struct Range {
    prefix: String,
    layout: Layout,
    posts: Vec<(Who, Post)>,
}

/// One party's namespace, with its sender and its tap.
pub(crate) struct Post {
    pub(crate) sender: Sender,
    pub(crate) tap: Tap,
    /// Whom frames to everybody else are handed to.
    next_hop: [u8; 6],
    /// The interface at which the node sees what it sends.
    at_node: Option<usize>,
}

static RANGES: AtomicU32 = AtomicU32::new(0);
const PREFIX: &str = "selftest-";

impl Range {
    pub(crate) fn new(layout: Layout, run: [u8; 8]) -> Result<Self, Error> {
        let number = RANGES.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{number}-", std::process::id());
        let mut range = Self { prefix, layout, posts: Vec::new() };
        let purpose = |who| if matches!(who, Who::Node | Who::Outside) { Purpose::Router } else { Purpose::Leaf };
        network::create(&Who::ALL.map(|who| (range.name(who), purpose(who))))?;
        range.tolerate()?;
        range.connect_outside()?;
        match layout {
            Layout::Routed => range.connect_routed()?,
            Layout::Bridged => range.connect_bridged()?,
        }
        range.take_posts(run)?;
        Ok(range)
    }

    /// What a node drops by itself would look like a denial: reverse paths and martians are left to the program.
    fn tolerate(&self) -> Result<(), Error> {
        inside(&self.path(Who::Node), || {
            for setting in ["rp_filter", "accept_local", "send_redirects"] {
                let value = if setting == "accept_local" { "1" } else { "0" };
                for scope in ["all", "default"] {
                    let file = format!("/proc/sys/net/ipv4/conf/{scope}/{setting}");
                    fs::write(&file, value).map_err(Error::system(format!("{file} cannot be set")))?;
                }
            }
            Ok(())
        })
    }

    fn connect_outside(&self) -> Result<(), Error> {
        let (outside, node) = (self.name(Who::Outside), self.name(Who::Node));
        let behind: Vec<_> = PODS.iter().chain(&SERVICES).filter_map(|range| range.parse().ok()).collect();
        let uplink = Link {
            router: &outside,
            name: "uplink",
            leaf: &node,
            addresses: &Who::Node.addresses(),
            sources: &[],
            behind: &behind,
        };
        network::connect(&[uplink])?;
        let [v4, v6] = Who::Outside.addresses();
        Ok(network::ip(&outside, &format!("address add {v4}/32 dev lo\naddress add {v6}/128 dev lo nodad\n"))?)
    }

    fn connect_routed(&self) -> Result<(), Error> {
        let node = self.name(Who::Node);
        let pods = Who::PODS.map(|pod| (self.name(pod), pod.link(), pod.addresses()));
        let links = pods.each_ref().map(|(leaf, name, addresses)| Link {
            router: &node,
            name,
            leaf,
            addresses,
            sources: &NODE,
            behind: &[],
        });
        Ok(network::connect(&links)?)
    }

    fn connect_bridged(&self) -> Result<(), Error> {
        let node = self.name(Who::Node);
        let mut lines = String::from("link add cni0 type bridge\nlink set cni0 up\n");
        for gateway in GATEWAY {
            lines += &format!("address add {gateway} dev cni0{}\n", if gateway.contains(':') { " nodad" } else { "" });
        }
        // What the uplink's side made unreachable is the bridge's.
        for range in PODS {
            lines += &format!("route delete unreachable {range}\n");
        }
        for pod in Who::PODS {
            let (leaf, link) = (self.name(pod), pod.link());
            lines +=
                &format!("link add {link} type veth peer name eth0 netns {leaf}\nlink set {link} master cni0 up\n");
        }
        network::ip(&node, &lines)?;
        for pod in Who::PODS {
            let [v4, v6] = pod.addresses();
            let via = GATEWAY.map(|gateway| gateway.split('/').next().unwrap_or_default());
            let lines = format!(
                "link set lo up\nlink set eth0 up\naddress add {v4}/24 dev eth0\naddress add {v6}/64 dev eth0 nodad\n\
                 route add default via {}\nroute add default via {}\n",
                via[0], via[1]
            );
            network::ip(&self.name(pod), &lines)?;
        }
        Ok(())
    }

    fn take_posts(&mut self, run: [u8; 8]) -> Result<(), Error> {
        let at_node = interfaces(&self.path(Who::Node))?;
        for who in Who::ALL {
            let own = interfaces(&self.path(who))?;
            let name = if who == Who::Outside { "uplink" } else { "eth0" };
            let lacking = || Error::range(format!("the range's {} lacks its link; run it again", who.name()));
            let link = own.get(name).copied().ok_or_else(lacking)?;
            let seen = match who {
                Who::Outside => at_node.get("eth0"),
                Who::Node => None,
                pod => at_node.get(&pod.link()),
            };
            let bridge = at_node.get("cni0").filter(|_| Who::PODS.contains(&who));
            let post = Post {
                sender: Sender::new(&self.path(who), link)?,
                tap: Tap::new(&self.path(who), run)?,
                next_hop: bridge.or(seen).map(mac).unwrap_or_default(),
                at_node: seen.map(|link| link.ifindex()),
            };
            self.posts.push((who, post));
        }
        Ok(())
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn name(&self, who: Who) -> String {
        format!("{}{}", self.prefix, who.name())
    }

    pub(crate) fn path(&self, who: Who) -> PathBuf {
        network::path_of(&self.name(who))
    }

    fn post(&self, who: Who) -> Result<&Post, Error> {
        let found = self.posts.iter().find(|(of, _)| *of == who).map(|(_, post)| post);
        found.ok_or_else(|| Error::range(format!("the range has no {}", who.name())))
    }

    /// The station that a frame from one to the other is addressed to.
    pub(crate) fn station(&self, from: Who, to: Who) -> Result<[u8; 6], Error> {
        let (near, far) = (self.post(from)?, self.post(to)?);
        let direct = self.layout == Layout::Bridged && Who::PODS.contains(&from) && Who::PODS.contains(&to);
        Ok(if direct { far.sender.mac() } else { near.next_hop })
    }

    pub(crate) fn sender(&self, who: Who) -> Result<&Sender, Error> {
        Ok(&self.post(who)?.sender)
    }

    /// Tagged frames that came from somebody to the node, before anything judged them.
    pub(crate) fn left(&self, from: Who, shot: u32) -> Result<u64, Error> {
        let at = self.post(from)?.at_node;
        Ok(self.post(Who::Node)?.tap.came_in(shot, at))
    }

    /// Tagged frames that arrived at somebody, after everything judged them.
    pub(crate) fn arrived(&self, to: Who, shot: u32) -> Result<u64, Error> {
        Ok(self.post(to)?.tap.came_in(shot, None))
    }

    /// Runs commands of `ip` in somebody's namespace.
    pub(crate) fn ip(&self, who: Who, lines: &str) -> Result<(), Error> {
        Ok(network::ip(&self.name(who), lines)?)
    }

    /// Loads rules of `nft` into the node's namespace. `false`: there is no such program.
    pub(crate) fn nft(&self, rules: &str) -> Result<Nft, Error> {
        use std::io::Write as _;
        inside(&self.path(Who::Node), || {
            let child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
            let mut child = match child {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Nft::Missing),
                other => other.map_err(Error::system("nft cannot be started"))?,
            };
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(rules.as_bytes()).map_err(Error::system("nft does not listen"))?;
            }
            let output = child.wait_with_output().map_err(Error::system("nft ended"))?;
            if output.status.success() {
                return Ok(Nft::Loaded);
            }
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(Error::range(format!("nft refused rules ({why}); the kernel must have nf_tables with NAT")))
        })
    }
}

/// What became of rules for `nft`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nft {
    Loaded,
    /// There is no such program.
    Missing,
}

impl Drop for Range {
    fn drop(&mut self) {
        self.posts.clear();
        for who in Who::ALL {
            network::remove(&self.name(who));
        }
    }
}

/// Ranges of Services.
pub(crate) const SERVICES: [&str; 2] = ["10.203.96.0/24", "fd03:203:0:96::/64"];
const NODE: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7)),
];

/// Removes what runs left that were killed.
pub(crate) fn remove_leftovers() {
    for name in network::named(PREFIX) {
        let pid = name[PREFIX.len()..].split('-').next().unwrap_or_default();
        if pid.parse::<u32>().is_ok_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            network::remove(&name);
        }
    }
}
