//! The 5-tuple, and from which side of a pod it was seen.

use crate::Address;

/// IP protocol number of ICMP (RFC 792).
pub const ICMP: u8 = 1;
/// IP protocol number of TCP (RFC 9293).
pub const TCP: u8 = 6;
/// IP protocol number of UDP (RFC 768).
pub const UDP: u8 = 17;
/// IP protocol number of ICMPv6 (RFC 4443).
pub const ICMPV6: u8 = 58;
/// IP protocol number of SCTP (RFC 9260).
pub const SCTP: u8 = 132;

/// The 5-tuple of one packet as the wire shows it, both families in one form. ICMP echo has its
/// identifier as both ports; protocols without ports have 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct FlowKey {
    /// Who sent the packet.
    pub source: Address,
    /// Whom it is for.
    pub destination: Address,
    /// The sender's port, host order.
    pub source_port: u16,
    /// The receiver's port, host order.
    pub destination_port: u16,
    /// IP protocol number, behind any extension headers.
    pub protocol: u8,
}

impl FlowKey {
    /// The key of a packet that answers this one.
    #[inline(always)]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

/// Which way a packet crosses a pod's hook. From the host side of a veth, a packet for the pod
/// leaves at egress and one from the pod arrives at ingress; NetworkPolicy names them from the
/// pod's side, and so do we: ingress rules judge `Inbound`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum Direction {
    /// Towards the pod.
    Inbound = 0,
    /// From the pod.
    Outbound = 1,
}

impl Direction {
    /// The way a reply takes.
    #[inline(always)]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Inbound => Self::Outbound,
            Self::Outbound => Self::Inbound,
        }
    }

    /// The direction a bit stands for.
    #[inline(always)]
    pub const fn from_bit(bit: u64) -> Self {
        if bit & 1 == 0 { Self::Inbound } else { Self::Outbound }
    }
}
