//! BIG TCP: packets above 64 KiB, whose IP header cannot say how long they are, judged and counted as what the wire
//! will carry.

use crate::world::{CLIENT, SERVER, World, cluster, ip, start};
use flowlog::read_records;
use model::record::ObservedAt;
use netlink_packet_core::{DefaultNla, NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::{
    io::{Read, Write},
    process::Command,
};
use verdict::Reason;

/// As large as packets may get before they are cut.
const LARGEST: u32 = 180_000;
const SENT: usize = 60 << 20;

/// Lets the interfaces of a namespace have packets of this length: IPv6 (5.19) and IPv4 (6.3).
fn allow_big(world: &World, of: &str, links: &[&str]) {
    // IFLA_GSO_IPV4_MAX_SIZE, which is younger than Debian 12's iproute2.
    const GSO_IPV4_MAX_SIZE: u16 = 63;
    for link in links {
        ip(&format!("-n {} link set dev {link} gso_max_size {LARGEST}", world.name(of)));
        world.inside(of, || {
            let mut message = LinkMessage::default();
            message.header.index = nix::net::if_::if_nametoindex(*link).unwrap();
            let size = DefaultNla::new(GSO_IPV4_MAX_SIZE, LARGEST.to_ne_bytes().to_vec());
            message.attributes.push(LinkAttribute::Other(size));
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_REQUEST | NLM_F_ACK;
            let payload = NetlinkPayload::InnerMessage(RouteNetlinkMessage::SetLink(message));
            let mut message = NetlinkMessage::new(header, payload);
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
            socket.bind_auto().unwrap();
            socket.connect(&SocketAddr::new(0, 0)).unwrap();
            socket.send(&bytes, 0).unwrap();
            let (answer, _) = socket.recv_from_full().unwrap();
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).unwrap();
            let NetlinkPayload::Error(answer) = answer.payload else { panic!("{answer:?}") };
            assert!(answer.code.is_none(), "{answer:?}");
        });
    }
}

/// Packets above 64 KiB that the node forwarded, as the node's own counter has them.
fn big_packets(world: &World) -> u64 {
    let list = format!("netns exec {} nft list table inet big", world.name("node"));
    let listed = Command::new("ip").args(list.split_whitespace()).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    listed.split_whitespace().skip_while(|word| *word != "packets").nth(1).unwrap().parse().unwrap()
}

/// What the client's socket sent: packets, in pieces of the wire, and bytes of data, sent again included.
fn sent(world: &World) -> (u64, u64) {
    let ask = format!("netns exec {} ss -tinH dport = :8080", world.name("client"));
    let told = Command::new("ip").args(ask.split_whitespace()).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let [packets, bytes] = ["segs_out:", "bytes_sent:"].map(|name| {
        let value = told.split_whitespace().find_map(|word| word.strip_prefix(name));
        value.unwrap_or_else(|| panic!("{told}")).parse().unwrap()
    });
    (packets, bytes)
}

#[test]
fn packets_above_64_kib_are_judged_and_counted_as_the_wire_will_carry_them() {
    kernel_or_skip!();
    for (family, headers) in [(0, 52), (1, 72)] {
        let (world, log) = (World::new(), tempfile::tempdir().unwrap());
        allow_big(&world, "node", &["vclient", "vserver"]);
        allow_big(&world, "client", &["eth0"]);
        // A router takes the jumbo option for a part of each segment (`skb_gso_network_seglen`, seen on 6.18), so that
        // full ones are too big for a link of the same MTU.
        ip(&format!("-n {} link set vserver mtu 1600", world.name("node")));
        ip(&format!("-n {} link set eth0 mtu 1600", world.name("server")));
        let rules = "add table inet big; add chain inet big forward { type filter hook forward priority 0; };
            add rule inet big forward meta length > 65575 counter";
        let nft = Command::new("ip").args(["netns", "exec", &world.name("node"), "nft", rules]).status().unwrap();
        assert!(nft.success());
        let agent = start(&world, log.path());
        agent.update(&cluster("enforce")).unwrap();

        let listener = world.inside("server", || std::net::TcpListener::bind((SERVER[family], 8080)).unwrap());
        // Neighbours are found first, on a port where nobody listens: a SYN that waits for them is sent twice.
        world.connect("client", SERVER[family], 9).expect_err("nobody listens there");
        let mut client = world.connect("client", SERVER[family], 8080).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let received = std::thread::spawn(move || {
            let (mut buffer, mut received) = (vec![0; 1 << 20], 0);
            while let Ok(got @ 1..) = server.read(&mut buffer) {
                received += got;
            }
            // Not closed yet: every packet is counted before.
            (received, server)
        });
        let data = vec![7; 1 << 20];
        for _ in 0..SENT / data.len() {
            client.write_all(&data).unwrap();
        }
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let (received, _open) = received.join().unwrap();
        assert_eq!(received, SENT, "everything arrived");
        let ((segments, sent), big) = (sent(&world), big_packets(&world));
        println!("{}: {big} packets above 64 KiB, {segments} of the wire", CLIENT[family]);
        assert!(big > 10, "the kernel sent no packets above 64 KiB: nothing is shown");
        let stopped = agent.stop().unwrap().status;
        assert_eq!(stopped.counters.dropped(), 0);
        assert_eq!(stopped.counters.packets(Reason::BadIpHeader) + stopped.counters.packets(Reason::TruncatedIp), 0);

        let rows = read_records(log.path()).unwrap().0;
        for at in [ObservedAt::Client, ObservedAt::Server] {
            let of = rows.iter().filter(|row| row.event.observed_at == at && row.server.port == 8080);
            let (packets, bytes) = of.fold((0, 0), |(packets, bytes), row| {
                (packets + row.event.packets_to_server, bytes + row.event.bytes_to_server)
            });
            // Each has the headers that every segment repeats; the SYN two more options.
            assert_eq!(bytes, sent + packets * headers + 8, "{at:?}: bytes of {packets} packets");
            assert_eq!(packets, segments, "{at:?}: packets, as the socket counts them");
        }
    }
}
