//! One form for the addresses of both families.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 address: 128 bits in network order, kept as two words in memory order so that
/// comparing and storing never needs `memcmp`. IPv4 is `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Address(pub [u64; 2]);

impl Address {
    /// An IPv4 address from its four octets.
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])])
    }

    /// An IPv6 address from its sixteen octets.
    #[inline(always)]
    pub const fn v6(o: [u8; 16]) -> Self {
        Self([
            u64::from_ne_bytes([o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7]]),
            u64::from_ne_bytes([o[8], o[9], o[10], o[11], o[12], o[13], o[14], o[15]]),
        ])
    }

    /// The sixteen octets in network order (IPv4 mapped).
    #[inline(always)]
    pub const fn octets(self) -> [u8; 16] {
        let a = self.0[0].to_ne_bytes();
        let b = self.0[1].to_ne_bytes();
        [a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.0[0] == 0 && self.0[1].to_be() >> 32 == 0xffff
    }

    /// IPv4 224.0.0.0/4, IPv6 ff00::/8.
    #[inline(always)]
    pub const fn is_multicast(self) -> bool {
        if self.is_v4() { (self.0[1].to_be() >> 28) & 0xf == 0xe } else { self.0[0].to_be() >> 56 == 0xff }
    }

    /// IPv4 255.255.255.255. A subnet's own broadcast address needs its prefix and is no broadcast here:
    /// routed pods have /32 addresses.
    #[inline(always)]
    pub const fn is_broadcast(self) -> bool {
        self.is_v4() && self.0[1].to_be() as u32 == u32::MAX
    }

    /// IPv6 fe80::/10.
    #[inline(always)]
    pub const fn is_v6_link_local(self) -> bool {
        self.0[0].to_be() >> 54 == 0xfe80 >> 6
    }

    /// `0.0.0.0` or `::`.
    #[inline(always)]
    pub const fn is_unspecified(self) -> bool {
        self.0[0] == 0 && (self.0[1] == 0 || (self.is_v4() && self.0[1].to_be() as u32 == 0))
    }

    /// As the standard library's address; mapped IPv4 becomes IPv4.
    pub const fn ip(self) -> IpAddr {
        let o = self.octets();
        if self.is_v4() {
            IpAddr::V4(Ipv4Addr::new(o[12], o[13], o[14], o[15]))
        } else {
            IpAddr::V6(Ipv6Addr::from_octets(o))
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::v4(ip.octets()),
            IpAddr::V6(ip) => Self::v6(ip.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        address.ip()
    }
}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Address {
    /// Numerical order of the 128 bits; all mapped IPv4 addresses lie together.
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.octets().cmp(&other.octets())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn classes_of_addresses() {
        assert!(Address::v4([224, 0, 0, 1]).is_multicast());
        assert!(Address::v4([239, 255, 255, 255]).is_multicast());
        assert!(!Address::v4([223, 0, 0, 1]).is_multicast());
        assert!(Address::from("ff02::1".parse::<IpAddr>().unwrap()).is_multicast());
        assert!(Address::from("fe80::1".parse::<IpAddr>().unwrap()).is_v6_link_local());
        assert!(Address::from("febf::1".parse::<IpAddr>().unwrap()).is_v6_link_local());
        assert!(!Address::from("fec0::1".parse::<IpAddr>().unwrap()).is_v6_link_local());
        assert!(!Address::v4([169, 254, 1, 1]).is_v6_link_local());
        assert!(Address::v4([0; 4]).is_unspecified());
        assert!(Address::v6([0; 16]).is_unspecified());
        assert!(!Address::v4([10, 0, 0, 1]).is_unspecified());
        assert!(Address::v4([255; 4]).is_broadcast());
        assert!(!Address::v6([255; 16]).is_broadcast());
    }

    proptest! {
        #[test]
        fn an_address_survives_the_trip(octets: [u8; 16], v4: [u8; 4]) {
            prop_assert_eq!(Address::v6(octets).octets(), octets);
            prop_assert_eq!(Address::v4(v4).ip(), IpAddr::from(v4));
            prop_assert!(Address::v4(v4).is_v4());
            let mapped = octets[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
            prop_assert_eq!(Address::v6(octets).is_v4(), mapped);
        }
    }
}
