//! Any bytes as a packet of each link layer: reading them does not panic and reads nothing beyond the limit, and where
//! `brief` answers, it says what `parse` says.
#![no_main]

use flow::{Brief, Fragment, Gso, HEADER_LIMIT, Kind, LinkLayer, Packet, PacketBytes, brief, parse, parse_link};

/// Bytes that the kernel has yet to cut.
struct Uncut<'a>(&'a [u8]);

impl PacketBytes for Uncut<'_> {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.read(offset)
    }

    fn length(&self) -> u32 {
        self.0.length()
    }

    fn gso(&self) -> Gso {
        Gso::Yes
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for link in [LinkLayer::Ethernet, LinkLayer::LinuxSll, LinkLayer::LinuxSll2, LinkLayer::RawIp] {
        let Ok(packet) = parse_link(link, bytes) else { continue };
        let uncut = parse_link(link, &Uncut(bytes)).expect("what has a length has it there too");
        assert_eq!(Packet { ip_length: packet.ip_length, headers: packet.headers, ..uncut }, packet);
        // What lies beyond the limit was not looked at. Lengths alone may be the packet's own: where TCP's options end
        // too soon.
        let cut = parse_link(link, &bytes[..bytes.len().min(HEADER_LIMIT)]).expect("the same headers");
        assert_eq!(Packet { ip_length: packet.ip_length, headers: packet.headers, ..cut }, packet);
    }
    if let Some(Brief { key, tcp_flags, ip_length, headers }) = brief(bytes) {
        let whole = parse(bytes).expect("what brief reads is sound");
        assert_eq!((whole.key, whole.tcp_flags), (key, tcp_flags));
        assert_eq!((whole.ip_length, whole.headers), (ip_length, headers));
        assert_eq!((whole.kind, whole.fragment), (Kind::Transport, Fragment::Whole));
    }
});
