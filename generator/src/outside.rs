//! How far a rule reaches for addresses outside: exactly those that were seen, or blocks around them.
//!
//! Always holds: a block holds every address it stands for and none of the cluster's own (pods, nodes,
//! Services: they are taken out as `except`); one more address seen never makes a block smaller.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::{cidr::parse_cidr, cluster::Cluster};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Within which neighbourhood [`Outside::MinimalCover`] joins addresses: bits of IPv4 and of IPv6.
pub const NEIGHBOURHOOD: (u8, u8) = (24, 64);

/// What a rule names for addresses outside.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Outside {
    /// The addresses that were seen.
    #[default]
    Exact,
    /// In each /24 (IPv6: /64) the smallest block that holds all addresses seen there at that port.
    MinimalCover,
    /// For each address the narrowest range of a provider that holds it; in none: the address.
    ProviderRanges(Providers),
}

/// Ranges that providers publish.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Providers {
    /// Canonical range to the names it is published under.
    ranges: BTreeMap<IpNet, BTreeSet<String>>,
}

/// A block with the cluster's own addresses taken out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    /// Canonical.
    pub cidr: IpNet,
    /// The cluster's own within it.
    pub except: Vec<IpNet>,
    /// Under which names it is published; empty for a cover.
    pub names: Vec<String>,
}

impl Block {
    /// Whether a rule with this block means the address.
    pub fn holds(&self, ip: IpAddr) -> bool {
        self.cidr.contains(&ip) && !self.except.iter().any(|hole| hole.contains(&ip))
    }

    /// How many addresses it means.
    pub fn size(&self) -> u128 {
        let holes = self.except.iter().map(addresses_in).fold(0, u128::saturating_add);
        addresses_in(&self.cidr).saturating_sub(holes)
    }
}

/// How many addresses a block has; of `::/0` one fewer than there are.
fn addresses_in(net: &IpNet) -> u128 {
    1u128.checked_shl(u32::from(net.max_prefix_len() - net.prefix_len())).unwrap_or(u128::MAX)
}

impl Outside {
    /// As the command line has it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::MinimalCover => "minimal-cover",
            Self::ProviderRanges(_) => "provider-ranges",
        }
    }

    /// The blocks that a rule names for these addresses, wider than the address where the choice widens. An
    /// address that none of them holds is named itself.
    pub fn blocks(&self, seen: &BTreeSet<IpAddr>, own: &Own) -> Vec<Block> {
        let blocks: BTreeMap<IpNet, Vec<String>> = match self {
            Self::Exact => BTreeMap::new(),
            Self::MinimalCover => covers(seen).into_iter().map(|cidr| (cidr, Vec::new())).collect(),
            Self::ProviderRanges(providers) => seen.iter().filter_map(|ip| providers.narrowest(*ip)).collect(),
        };
        blocks.into_iter().filter_map(|(cidr, names)| own.taken_out_of(cidr, names)).collect()
    }
}

/// The smallest block over the addresses of each neighbourhood that has more than one.
fn covers(seen: &BTreeSet<IpAddr>) -> Vec<IpNet> {
    let mut by_neighbourhood: BTreeMap<IpNet, (IpAddr, IpAddr)> = BTreeMap::new();
    for ip in seen.iter().copied() {
        let bits = if ip.is_ipv4() { NEIGHBOURHOOD.0 } else { NEIGHBOURHOOD.1 };
        let Ok(around) = IpNet::new(ip, bits) else { continue };
        let (least, most) = by_neighbourhood.entry(around.trunc()).or_insert((ip, ip));
        (*least, *most) = ((*least).min(ip), (*most).max(ip));
    }
    by_neighbourhood.into_values().filter(|(least, most)| least != most).filter_map(|(a, b)| smallest(a, b)).collect()
}

/// The smallest block that holds two addresses of one family.
fn smallest(a: IpAddr, b: IpAddr) -> Option<IpNet> {
    let net: IpNet = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            Ipv4Net::new(a, (u32::from(a) ^ u32::from(b)).leading_zeros() as u8).ok()?.into()
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            Ipv6Net::new(a, (u128::from(a) ^ u128::from(b)).leading_zeros() as u8).ok()?.into()
        }
        _ => return None,
    };
    Some(net.trunc())
}

impl Providers {
    /// Ranges from JSON: `{"providers": {"NAME": ["CIDR", …]}}`, or what AWS (`ip-ranges.json`) and Google
    /// (`cloud.json`, `goog.json`) publish.
    ///
    /// # Errors
    /// What is no such file, a text that is no CIDR, and a range that is everything.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let file: Value = serde_json::from_str(text).map_err(|why| format!("no JSON: {why}"))?;
        let mut all = Self::default();
        match (file.get("providers"), file.get("prefixes")) {
            (Some(Value::Object(providers)), _) => {
                for (name, ranges) in providers {
                    let list = ranges.as_array().ok_or_else(|| format!("providers.{name} is no list of CIDRs"))?;
                    for (index, range) in list.iter().enumerate() {
                        all.add(range, name, &format!("providers.{name}[{index}]"))?;
                    }
                }
            }
            (None, Some(_)) => all.add_published(&file)?,
            _ => return Err("neither `providers` (an object of names to lists of CIDRs) nor `prefixes`".to_owned()),
        }
        if all.ranges.is_empty() { Err("it has no range".to_owned()) } else { Ok(all) }
    }

    fn add_published(&mut self, file: &Value) -> Result<(), String> {
        const RANGES: [&str; 4] = ["ip_prefix", "ipv6_prefix", "ipv4Prefix", "ipv6Prefix"];
        for list in ["prefixes", "ipv6_prefixes"] {
            for (index, item) in file.get(list).and_then(Value::as_array).into_iter().flatten().enumerate() {
                let place = format!("{list}[{index}]");
                let range = RANGES.iter().find_map(|key| item.get(key));
                let range = range.ok_or_else(|| format!("{place} has none of {}", RANGES.join(", ")))?;
                let words = ["service", "region", "scope"].iter().filter_map(|key| item.get(key)?.as_str());
                self.add(range, &words.collect::<Vec<_>>().join(" "), &place)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, range: &Value, name: &str, place: &str) -> Result<(), String> {
        let net = range.as_str().and_then(parse_cidr).ok_or_else(|| format!("{place}: {range} is no CIDR"))?;
        if net.prefix_len() == 0 {
            return Err(format!("{place}: {range} is every address; name the ranges of a provider"));
        }
        self.ranges.entry(net).or_default().insert(name.to_owned());
        Ok(())
    }

    fn narrowest(&self, ip: IpAddr) -> Option<(IpNet, Vec<String>)> {
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let nets = (1..=most).rev().filter_map(|bits| IpNet::new(ip, bits).ok());
        let mut held = nets.map(|net| net.trunc());
        held.find_map(|net| Some((net, self.ranges.get(&net)?.iter().cloned().collect())))
    }
}

/// The addresses of the cluster itself: no block for addresses outside may hold one.
#[derive(Clone, Debug, Default)]
pub struct Own(Vec<IpNet>);

impl Own {
    /// Pods (ended ones too), nodes and the blocks they give to pods, Services.
    pub fn of(cluster: &Cluster) -> Self {
        let pods = cluster.pods.iter().flat_map(|pod| &pod.addresses);
        let nodes = cluster.nodes.values().flat_map(|node| &node.addresses);
        let services = cluster.services.values().flat_map(|s| s.cluster_ips.iter().chain(&s.external_ips));
        let mut all: Vec<IpNet> = pods.chain(nodes).chain(services).map(|ip| IpNet::from(ip.to_canonical())).collect();
        all.extend(cluster.nodes.values().flat_map(|node| &node.pod_cidrs).map(IpNet::trunc));
        Self(IpNet::aggregate(&all))
    }

    /// The block without the cluster's own addresses; `None` where nothing else is in it.
    fn taken_out_of(&self, cidr: IpNet, names: Vec<String>) -> Option<Block> {
        if self.0.iter().any(|own| own.contains(&cidr)) {
            return None;
        }
        let mut except: Vec<IpNet> = self.0.iter().filter(|own| cidr.contains(*own)).copied().collect();
        except.sort_unstable();
        Some(Block { cidr, except, names })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(outside: &Outside, seen: &[&str], own: &[&str]) -> Vec<String> {
        let seen = seen.iter().map(|ip| ip.parse().unwrap()).collect();
        let own = Own(own.iter().map(|net| net.parse().unwrap()).collect());
        let show =
            |block: Block| format!("{} {:?} {} {}", block.cidr, block.except, block.size(), block.names.join("|"));
        outside.blocks(&seen, &own).into_iter().map(show).collect()
    }

    #[test]
    fn a_cover_is_the_smallest_block_of_a_neighbourhood() {
        let cover = |seen: &[&str], own: &[&str]| blocks(&Outside::MinimalCover, seen, own);
        assert_eq!(cover(&["198.51.100.6", "198.51.100.9", "203.0.113.1"], &[]), ["198.51.100.0/28 [] 16 "]);
        assert_eq!(cover(&["2001:db8::2", "2001:db8::3", "2001:db8:0:1::3"], &[]), ["2001:db8::2/127 [] 2 "]);
        assert_eq!(cover(&["198.51.100.6", "198.51.101.6"], &[]), [""; 0], "two neighbourhoods");
        let own = ["198.51.100.8/32"];
        assert_eq!(cover(&["198.51.100.6", "198.51.100.9"], &own), ["198.51.100.0/28 [198.51.100.8/32] 15 "]);
        assert_eq!(cover(&["10.0.0.1", "10.0.0.3"], &["10.0.0.0/16"]), [""; 0], "the cluster's own");
    }

    #[test]
    fn of_a_providers_ranges_the_narrowest_that_holds_the_address_is_taken() {
        let ours = r#"{"providers": {"pay": ["198.51.100.77/24", "198.51.100.0/25"], "cdn": ["198.51.100.0/25"]}}"#;
        let aws = r#"{"prefixes": [{"ip_prefix": "198.51.100.0/25", "service": "S3", "region": "eu-west-1"}],
                      "ipv6_prefixes": [{"ipv6_prefix": "2001:db8::/40", "service": "EC2", "region": "x"}]}"#;
        let google = r#"{"prefixes": [{"ipv4Prefix": "198.51.100.0/25", "service": "Google Cloud", "scope": "x"}]}"#;
        let asked = ["198.51.100.7", "198.51.100.200", "203.0.113.1", "2001:db8::1"];
        let named = |text| blocks(&Outside::ProviderRanges(Providers::from_json(text).unwrap()), &asked, &[]);
        assert_eq!(named(ours), ["198.51.100.0/24 [] 256 pay", "198.51.100.0/25 [] 128 cdn|pay"]);
        let v6 = format!("2001:db8::/40 [] {} EC2 x", 1u128 << 88);
        assert_eq!(named(aws), ["198.51.100.0/25 [] 128 S3 eu-west-1".to_owned(), v6]);
        assert_eq!(named(google), ["198.51.100.0/25 [] 128 Google Cloud x"]);
    }

    #[test]
    fn a_file_that_is_none_says_where() {
        let said = |text| Providers::from_json(text).unwrap_err();
        assert!(said("x").starts_with("no JSON"));
        assert!(said("{}").contains("neither `providers`"));
        assert_eq!(said(r#"{"providers": {"a": ["x"]}}"#), "providers.a[0]: \"x\" is no CIDR");
        assert!(said(r#"{"providers": {"a": ["0.0.0.0/0"]}}"#).contains("every address"));
        assert!(said(r#"{"providers": {"a": 1}}"#).contains("no list"));
        assert!(said(r#"{"prefixes": [{"region": "x"}]}"#).contains("prefixes[0] has none of"));
        assert_eq!(said(r#"{"providers": {}}"#), "it has no range");
    }
}
