//! CIDRs as Kubernetes reads them: host bits and leading zeros are allowed, and an IPv4-mapped
//! IPv6 block is the IPv4 block (Go's historical `ParseCIDRSloppy`).

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The block a text means, host bits zero; `None` if it means none.
pub fn parse_cidr(text: &str) -> Option<IpNet> {
    let (address, bits) = text.split_once('/')?;
    if bits.is_empty() || bits.len() > 3 || !bits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let bits: u8 = bits.parse().ok()?;
    if let Some(address) = sloppy_v4(address) {
        return Ipv4Net::new(address, bits).ok().map(|net| net.trunc().into());
    }
    let address = match address.rsplit_once(':') {
        // The dotted end of an address may have leading zeros as well.
        Some((head, tail)) if tail.contains('.') => format!("{head}:{}", sloppy_v4(tail)?).parse().ok()?,
        _ => address.parse::<Ipv6Addr>().ok()?,
    };
    match (address.to_ipv4_mapped(), bits.checked_sub(96)) {
        (Some(v4), Some(bits)) => Ipv4Net::new(v4, bits).ok().map(|net| net.trunc().into()),
        _ => Ipv6Net::new(address, bits).ok().map(|net| net.trunc().into()),
    }
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
        ] {
            assert_eq!(parse_cidr(text), None, "{text}");
        }
    }
}
