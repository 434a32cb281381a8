//! What one packet says: headers to [`FlowKey`], and the words in which the kernel program
//! and user space speak to each other.
//!
//! No allocation, no `unsafe`, no dependency: the same code is compiled into the kernel program
//! and into user space, so both read a packet alike.
#![no_std]
#![forbid(unsafe_code)]

mod address;
mod brief;
mod key;
mod parse;

pub use address::Address;
pub use brief::{Brief, brief};
pub use key::{Direction, FlowKey, ICMP, ICMPV6, SCTP, TCP, UDP};
pub use parse::{
    FIRST_LATER_FRAGMENT, Fragment, FragmentKey, Gso, HEADER_LIMIT, Kind, LinkLayer, MAX_EXTENSION_HEADERS,
    MAX_VLAN_TAGS, Packet, PacketBytes, ParseError, Quoted, parse, parse_into, parse_link, tcp,
};
