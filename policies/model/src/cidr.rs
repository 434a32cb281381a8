//! CIDRs as Kubernetes reads them: host bits and leading zeros are allowed, and an IPv4-mapped
//! IPv6 block is the IPv4 block (Go's historical `ParseCIDRSloppy`).

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The block a text means, host bits zero; `None` if it means none.
pub fn parse_cidr(text: &str) -> Option<IpNet> {
    parse(text).map(|written| written.net)
}

/// A block and the length it was written with: 104 of an IPv4-mapped one that means 10.0.0.0/8.
#[derive(Clone, Copy)]
pub(crate) struct Written {
    pub(crate) net: IpNet,
    pub(crate) bits: u8,
}

pub(crate) fn parse(text: &str) -> Option<Written> {
    let (address, length) = text.split_once('/')?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = length.trim_start_matches('0');
    let bits: u8 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let net = match sloppy_v4(address) {
        Some(address) => Ipv4Net::new(address, bits).ok()?.trunc().into(),
        None => {
            let address = sloppy_v6(address)?;
            match (address.to_ipv4_mapped(), bits.checked_sub(96)) {
                (Some(v4), Some(bits)) => Ipv4Net::new(v4, bits).ok()?.trunc().into(),
                _ => IpNet::from(Ipv6Net::new(address, bits).ok()?.trunc()),
            }
        }
    };
    Some(Written { net, bits })
}

/// Groups may have leading zeros, and so may the dotted end.
fn sloppy_v6(text: &str) -> Option<Ipv6Addr> {
    let group = |group: &str| match group.trim_start_matches('0') {
        _ if group.contains('.') => sloppy_v4(group).map(|v4| v4.to_string()),
        "" if !group.is_empty() => Some("0".to_owned()),
        digits => Some(digits.to_owned()),
    };
    let groups: Option<Vec<String>> = text.split(':').map(group).collect();
    groups?.join(":").parse().ok()
}

/// Four decimal numbers, leading zeros ignored.
fn sloppy_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    }
    parts.next().is_none().then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_accepts_becomes_canonical() {
        let table = [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("010.1.2.0/24", "10.1.2.0/24"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:010.0.0.1/128", "10.0.0.1/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00::1/8", "fd00::/8"),
            ("::/0", "::/0"),
            ("10.0.0.0/08", "10.0.0.0/8"),
            ("10.0.0.0/0000000000008", "10.0.0.0/8"),
            ("0000000fd00::0001/8", "fd00::/8"),
            ("::ffff:0:0/90", "::ffc0:0:0/90"),
            ("FD00::/8", "fd00::/8"),
        ];
        for (text, canonical) in table {
            assert_eq!(parse_cidr(text).map(|c| c.to_string()).as_deref(), Some(canonical), "{text}");
        }
    }

    #[test]
    fn what_it_refuses() {
        for text in [
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0/8",
            "1.2.3.4.5/8",
            "fd00::/129",
            "/8",
            "x/8",
            "10.0.0.0/+8",
            "256.0.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/8/8",
            " 10.0.0.0/8",
            "10.0.0.0/8 ",
            "10.0.0.0/-1",
            "10.0.0.0/999999999999",
            "fe80::1%eth0/64",
            "fd000::/8",
            ":::/8",
            "1:2:3:4:5:6:7:8:9/8",
            "::1.2.3/8",
            "10.0.0.0/255.0.0.0",
            "",
            "/",
        ] {
            assert_eq!(parse_cidr(text), None, "{text}");
        }
    }
}
