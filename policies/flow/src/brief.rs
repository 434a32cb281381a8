//! The packet that nearly all packets are, read without keeping anything of it: what [`parse()`](crate::parse())
//! says of it, in registers.
//!
//! Always holds: where [`brief()`] answers, `parse` says the same of the packet; where it does not,
//! `parse` is asked.

use crate::{
    Address, FlowKey, PacketBytes, TCP, UDP,
    parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};

/// A whole TCP or UDP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Brief {
    /// The 5-tuple.
    pub key: FlowKey,
    /// TCP's flags byte; 0 for UDP.
    pub tcp_flags: u8,
    /// IP header and all behind it, in bytes, as the IP header says.
    pub ip_length: u32,
    /// How much of that is headers, TCP's or UDP's included.
    pub headers: u32,
}

/// Where the IP header stands in an Ethernet frame without tags.
const IP: usize = 14;

/// Reads an untagged Ethernet frame with TCP or UDP in IPv4 without options, or right behind IPv6's
/// header. `None`: it is something else, cut, or wrong.
#[inline(always)]
pub fn brief<P: PacketBytes + ?Sized>(packet: &P) -> Option<Brief> {
    match u16::from_be_bytes(packet.read(12)?) {
        ETHERTYPE_IPV4 => {
            let h: [u8; 20] = packet.read(IP)?;
            // Version 4, five words; neither more fragments nor an offset.
            if h[0] != 0x45 || h[6] & 0x3f != 0 || h[7] != 0 {
                return None;
            }
            let ip_length = u32::from(u16::from_be_bytes([h[2], h[3]]));
            let source = Address::v4([h[12], h[13], h[14], h[15]]);
            let destination = Address::v4([h[16], h[17], h[18], h[19]]);
            transport::<{ IP + 20 }, P>(packet, h[9], ip_length.checked_sub(20)?, ip_length, source, destination)
        }
        ETHERTYPE_IPV6 => {
            let h: [u8; 8] = packet.read(IP)?;
            let length = u32::from(u16::from_be_bytes([h[4], h[5]]));
            if h[0] >> 4 != 6 || length == 0 {
                return None;
            }
            let (source, destination) = (Address::v6(packet.read(IP + 8)?), Address::v6(packet.read(IP + 24)?));
            transport::<{ IP + 40 }, P>(packet, h[6], length, length + 40, source, destination)
        }
        _ => None,
    }
}

#[inline(always)]
fn transport<const AT: usize, P: PacketBytes + ?Sized>(
    packet: &P,
    protocol: u8,
    payload: u32,
    ip_length: u32,
    source: Address,
    destination: Address,
) -> Option<Brief> {
    let (h, tcp_flags, own) = match protocol {
        TCP => {
            let h: [u8; 20] = packet.read(AT)?;
            if payload < 20 || h[12] >> 4 < 5 {
                return None;
            }
            ([h[0], h[1], h[2], h[3]], h[13], u32::from(h[12] >> 4) * 4)
        }
        UDP => {
            let h: [u8; 8] = packet.read(AT)?;
            if payload < 8 {
                return None;
            }
            ([h[0], h[1], h[2], h[3]], 0, 8)
        }
        _ => return None,
    };
    let (source_port, destination_port) = (u16::from_be_bytes([h[0], h[1]]), u16::from_be_bytes([h[2], h[3]]));
    let key = FlowKey { source, destination, source_port, destination_port, protocol };
    let headers = ip_length - payload.saturating_sub(own);
    Some(Brief { key, tcp_flags, ip_length, headers })
}
