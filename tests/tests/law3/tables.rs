//! The node of a random cluster, as its agent would have it: every pod with addresses is covered.

use compile::{RuleTable, compile};
use flow::{Address, Direction};
use model::policy::{PolicySet, Protocol};
use std::net::IpAddr;
use tests::{
    frame::{self, Frame},
    objects::{NODE, NODE_NAME},
    questions::read,
    second::Who,
};
use verdict::{Hook, Mode, Reason, Sheet, decide, memory::Memory};

/// A node in enforce, every endpoint published.
pub(crate) struct Node {
    table: RuleTable,
    memory: Memory,
}

/// The link of the first endpoint; 0 would be the node itself.
const FIRST_LINK: u32 = 10;
const UPLINK: u32 = 2;
const CLIENT_PORT: u16 = 40_000;
/// SCTP's first chunk of an association.
const INIT: u8 = 1;
const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;

impl Node {
    pub(crate) fn of(objects: &str) -> Self {
        let cluster = read(objects);
        let staged = PolicySet::default();
        let table = compile(&cluster, &cluster.policies, &staged, NODE_NAME, Mode::Enforce).expect("numbers are left");
        let memory = table.in_memory(1);
        Self { table, memory }
    }

    /// What is said of the packet that opens a connection where it leaves the client and where it enters the server; `None`
    /// where that end has no hook.
    pub(crate) fn opening(
        &self,
        from: Who<'_>,
        to: Who<'_>,
        protocol: Option<Protocol>,
        port: u16,
    ) -> [Option<Reason>; 2] {
        let destination = to.address().expect("an address to go to");
        let source = from.address().unwrap_or_else(|| node_address(destination));
        let bytes = packet(source, destination, protocol, port);
        let packet = flow::parse(bytes.as_slice()).expect("a sound packet");
        self.memory.connections.borrow_mut().clear();
        self.memory.shares.borrow_mut().clear();
        let came_by = match from {
            Who::Pod(..) => self.endpoint(from).map_or(UPLINK, |client| FIRST_LINK + client),
            Who::Address(_) => UPLINK,
            Who::OwnNode => 0,
        };
        let at = |end, direction| {
            let endpoint = self.endpoint(end)?;
            let ifindex = FIRST_LINK + endpoint;
            let ingress_ifindex = if direction == Direction::Outbound { ifindex } else { came_by };
            let hook = Hook { endpoint, direction, ifindex, ingress_ifindex, now: 1_000_000_000, segments: 1 };
            Some(decide(&self.memory, &hook, &mut Sheet::of(packet)).reason())
        };
        [at(from, Direction::Outbound), at(to, Direction::Inbound)]
    }

    /// The endpoint of a pod: every pod that has an address is covered.
    fn endpoint(&self, who: Who<'_>) -> Option<u32> {
        let Who::Pod(_, Some(address)) = who else { return None };
        Some(self.table.endpoint_at(Address::from(address)).expect("every pod is covered").ordinal)
    }
}

/// The node's address of the same family.
fn node_address(other: IpAddr) -> IpAddr {
    NODE.map(|text| text.parse().expect("an address"))
        .into_iter()
        .find(|ip: &IpAddr| ip.is_ipv4() == other.is_ipv4())
        .expect("both")
}

fn packet(from: IpAddr, to: IpAddr, protocol: Option<Protocol>, port: u16) -> Vec<u8> {
    let (number, payload) = match protocol {
        Some(Protocol::Tcp) => (flow::TCP, frame::tcp(CLIENT_PORT, port, flow::tcp::SYN, 0)),
        Some(Protocol::Udp) => (flow::UDP, frame::udp(CLIENT_PORT, port, 8)),
        Some(Protocol::Sctp) => (flow::SCTP, frame::sctp(CLIENT_PORT, port, INIT)),
        None if from.is_ipv4() => (flow::ICMP, frame::icmp(ECHO_REQUEST_V4, 0, [0, 7, 0, 1], &[])),
        None => (flow::ICMPV6, frame::icmp(ECHO_REQUEST_V6, 0, [0, 7, 0, 1], &[])),
    };
    Frame::new(from.into(), to.into(), number, payload).bytes()
}
