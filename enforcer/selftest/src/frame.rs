//! Frames byte by byte, right ones and wrong ones, without the parser under test.

use flow::{Address, ICMP, ICMPV6, SCTP, TCP, UDP};

/// Where the transport header has its checksum (RFC 1071, over pseudo header and payload).
const SUMMED: [(u8, usize); 4] = [(TCP, 16), (UDP, 6), (ICMP, 2), (ICMPV6, 2)];

/// An IPv6 extension header to put before the transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Extension {
    HopByHop,
    Routing,
    DestinationOptions,
    Authentication,
    /// Destination options that read as UDP's ports: the second is [`DECOY`].
    Decoy,
}

/// The port that a reader finds who takes what follows the fixed IP header for the transport's: an IPv4 option with its
/// length before it, or an unknown IPv6 option and its length.
pub const DECOY: u16 = 0x1e04;

/// A frame to be made.
#[derive(Clone, Debug)]
pub struct Frame {
    /// VLAN tags before the EtherType.
    pub vlans: usize,
    /// Sender.
    pub source: Address,
    /// Receiver, of the same family.
    pub destination: Address,
    /// IP protocol number.
    pub protocol: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// 32-bit words of IPv4 options.
    pub options: usize,
    /// Whether the first of them reads as ports, the second [`DECOY`], instead of as no operation.
    pub decoy: bool,
    /// IPv6 extension headers.
    pub extensions: Vec<Extension>,
    /// Identification, byte offset (a multiple of eight), more fragments.
    pub fragment: Option<(u32, u16, bool)>,
    /// What follows the IP headers.
    pub payload: Vec<u8>,
}

/// TCP header with these flags, and `data` bytes.
pub fn tcp(source_port: u16, destination_port: u16, flags: u8, data: usize) -> Vec<u8> {
    let mut out = ports(source_port, destination_port);
    out.extend([0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, flags, 1, 0, 0, 0, 0, 0]);
    out.resize(20 + data, 0xaa);
    out
}

/// UDP header and `data` bytes.
pub fn udp(source_port: u16, destination_port: u16, data: usize) -> Vec<u8> {
    let mut out = ports(source_port, destination_port);
    out.extend(((8 + data) as u16).to_be_bytes());
    out.extend([0, 0]);
    out.resize(8 + data, 0xbb);
    out
}

/// SCTP common header and a first chunk of this type.
pub fn sctp(source_port: u16, destination_port: u16, chunk: u8) -> Vec<u8> {
    let mut out = ports(source_port, destination_port);
    out.extend([0, 0, 0, 9, 0, 0, 0, 0, chunk, 0, 0, 20]);
    out.resize(32, 0);
    out
}

/// ICMP or ICMPv6 message: type, code, four bytes, body.
pub fn icmp(kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, code, 0, 0];
    out.extend(rest);
    out.extend(body);
    out
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    let mut out = source.to_be_bytes().to_vec();
    out.extend(destination.to_be_bytes());
    out
}

impl Frame {
    /// A plain frame.
    pub fn new(source: Address, destination: Address, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            vlans: 0,
            source,
            destination,
            protocol,
            hop_limit: 64,
            options: 0,
            decoy: false,
            extensions: Vec::new(),
            fragment: None,
            payload,
        }
    }

    /// The bytes, Ethernet header first.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in 0..self.vlans {
            out.extend(if tag == 0 && self.vlans > 1 { [0x88, 0xa8] } else { [0x81, 0] });
            out.extend([0, 7]);
        }
        out.extend(if self.source.is_v4() { [8, 0] } else { [0x86, 0xdd] });
        out.extend(self.internet());
        out
    }

    /// The bytes as a network stack takes them: between these stations, with right checksums.
    pub fn sealed(&self, from: [u8; 6], to: [u8; 6]) -> Vec<u8> {
        let mut frame = self.clone();
        frame.sum_transport();
        let mut out = frame.bytes();
        out[..6].copy_from_slice(&to);
        out[6..12].copy_from_slice(&from);
        if self.source.is_v4() {
            let at = 14 + 4 * self.vlans;
            let sum = checksum(&[&out[at..at + 20 + self.options * 4]]);
            out[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
        }
        out
    }

    /// The transport's checksum, where the payload is all of it.
    fn sum_transport(&mut self) {
        let Some((_, at)) = SUMMED.iter().find(|(protocol, _)| *protocol == self.protocol) else { return };
        if self.fragment.is_some() || self.payload.len() < at + 2 {
            return;
        }
        self.payload[*at..at + 2].fill(0);
        let length = (self.payload.len() as u32).to_be_bytes();
        let first = if self.source.is_v4() { 12 } else { 0 };
        let (source, destination) = (self.source.octets(), self.destination.octets());
        let pseudo = [&source[first..], &destination[first..], &length, &[0, 0, 0, self.protocol]];
        let sum = match self.protocol {
            ICMP => checksum(&[&self.payload]),
            _ => checksum(&[&pseudo.concat(), &self.payload]),
        };
        self.payload[*at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// The bytes from the IP header on: what an ICMP error quotes.
    pub fn internet(&self) -> Vec<u8> {
        if self.source.is_v4() { self.ipv4() } else { self.ipv6() }
    }

    fn ipv4(&self) -> Vec<u8> {
        let header = 20 + self.options * 4;
        let mut out = vec![0x40 | (header / 4) as u8, 0];
        out.extend(((header + self.payload.len()) as u16).to_be_bytes());
        let (id, offset, more) = self.fragment.unwrap_or((0, 0, false));
        out.extend((id as u16).to_be_bytes());
        out.extend((offset >> 3 | u16::from(more) << 13).to_be_bytes());
        out.extend([self.hop_limit, self.protocol, 0, 0]);
        out.extend(&self.source.octets()[12..]);
        out.extend(&self.destination.octets()[12..]);
        if self.decoy {
            // Router alert (RFC 2113) with a value that nobody knows.
            out.extend([0x94, 4]);
            out.extend(DECOY.to_be_bytes());
        }
        out.resize(header, 1); // no-operation options
        out.extend(&self.payload);
        out
    }

    fn ipv6(&self) -> Vec<u8> {
        let mut chain: Vec<(u8, Vec<u8>)> = Vec::new();
        for extension in &self.extensions {
            chain.push(match extension {
                Extension::HopByHop => (0, vec![0, 0, 1, 4, 0, 0, 0, 0]),
                Extension::Routing => (43, vec![0, 0, 0, 0, 0, 0, 0, 0]),
                Extension::DestinationOptions => (60, vec![0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
                Extension::Decoy => {
                    let [kind, length] = DECOY.to_be_bytes();
                    (60, vec![0, 0, kind, length, 0, 0, 0, 0])
                }
                Extension::Authentication => (51, vec![0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]),
            });
        }
        if let Some((id, offset, more)) = self.fragment {
            let mut header = vec![0, 0];
            header.extend((offset & 0xfff8 | u16::from(more)).to_be_bytes());
            header.extend(id.to_be_bytes());
            chain.push((44, header));
        }
        let mut body = Vec::new();
        for (index, (_, header)) in chain.iter().enumerate() {
            let next = chain.get(index + 1).map_or(self.protocol, |(number, _)| *number);
            let at = body.len();
            body.extend(header);
            body[at] = next;
        }
        body.extend(&self.payload);
        let mut out = vec![0x60, 0, 0, 0];
        out.extend((body.len() as u16).to_be_bytes());
        out.extend([chain.first().map_or(self.protocol, |(number, _)| *number), self.hop_limit]);
        out.extend(self.source.octets());
        out.extend(self.destination.octets());
        out.extend(body);
        out
    }
}

/// RFC 1071; each part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let pairs = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = pairs.map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// An ARP request or reply.
pub fn arp(operation: u8, sender: Address, target: Address) -> Vec<u8> {
    let mut out = vec![0xff; 6];
    out.extend([2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    out.extend([2, 0, 0, 0, 0, 2]);
    out.extend(&sender.octets()[12..]);
    out.extend([0; 6]);
    out.extend(&target.octets()[12..]);
    out
}

/// An ICMP or ICMPv6 error about a packet, sent to the source of that packet.
pub fn error_about(inner: &Frame, from: Address) -> Frame {
    let mut quoted = inner.internet();
    // The headers and the eight bytes behind them that all routers quote.
    quoted.truncate(quoted.len() - inner.payload.len().saturating_sub(8));
    let (protocol, kind) = if inner.source.is_v4() { (ICMP, 3) } else { (ICMPV6, 1) };
    Frame::new(from, inner.source, protocol, icmp(kind, 3, [0; 4], &quoted))
}

/// The transport payload of a protocol with ports (TCP with these flags).
pub fn transport(protocol: u8, source_port: u16, destination_port: u16, flags: u8, data: usize) -> Vec<u8> {
    match protocol {
        TCP => tcp(source_port, destination_port, flags, data),
        UDP => udp(source_port, destination_port, data),
        SCTP => sctp(source_port, destination_port, if flags == flow::tcp::SYN { 1 } else { flags }),
        _ => vec![0; data.max(8)],
    }
}
