//! Datagrams in pieces.

use crate::{
    class::{Class, Ends},
    classes::services::NO_NFT,
    cluster::{OPEN, SHUT, anything, ingress, set},
    error::Stop,
    frame::{self, Frame},
    range::{
        Nft,
        Who::{Attacker, Node, Outside, Server},
    },
    trial::{BY_POLICY, Trial, Volley},
};
use flow::{TCP, UDP, tcp};
use verdict::Reason;

pub(crate) const CLASSES: &[Class] = &[
    Class::new(
        ("overlapping-fragments", 7, "cilium#25709"),
        "A first fragment to an open port, then another that puts a closed port into its place.",
        "fragment-bounds",
        overlapping_fragments,
    )
    .ends(Ends::ALL),
    Class::new(
        ("tiny-fragments", 7, "RFC 1858, RFC 3128"),
        "A first fragment too short for the TCP header, and a later one that begins inside it.",
        "refused-headers",
        tiny_fragments,
    )
    .ends(Ends::ALL),
    Class::new(
        ("out-of-order-fragments", 7, "cilium#8884"),
        "The pieces of a datagram to a closed port come last first.",
        "fragment-ports",
        out_of_order,
    )
    .ends(Ends::ALL),
    Class::new(
        ("later-fragment-first", 29, "cilium#8884"),
        "A fragment that is not the first, which has no ports, comes alone and opens a connection.",
        "fragment-ports",
        later_fragment_first,
    )
    .ends(Ends::ALL),
    Class::new(
        ("fragmented-again", 36, "thought of here"),
        "A datagram with the node's address as its source, which the node put together and took apart again, is \
         taken for the node's own.",
        "own-node",
        fragmented_again,
    )
    .ends(Ends::SERVER),
];

/// A piece of a datagram from the attacker to the server.
fn piece(t: &Trial<'_>, id: u32, offset: u16, more: More, payload: Vec<u8>) -> Frame {
    let mut frame = t.frame(Attacker, Server, UDP, payload);
    frame.fragment = Some((id, offset, more == More::Follow));
    frame
}

/// Whether this is the last piece.
#[derive(Clone, Copy, PartialEq, Eq)]
enum More {
    Follow,
    Last,
}

fn first(t: &Trial<'_>, id: u32, port: u16) -> Frame {
    piece(t, id, 0, More::Follow, frame::udp(5000, port, 40))
}

fn later(t: &Trial<'_>, id: u32) -> Frame {
    piece(t, id, 48, More::Last, vec![0; 32])
}

fn volley(frames: impl IntoIterator<Item = Frame>) -> Volley {
    Volley::new(Attacker, Server, frames)
}

fn later_fragment_first(t: &mut Trial<'_>) -> Result<(), Stop> {
    t.enforce(t.open_at(OPEN))?;
    t.control("first, then later", volley([first(t, 1, OPEN), later(t, 1)]))?;
    t.attack("later alone", &[Reason::FragmentWithoutFirst], volley([later(t, 2)]))?;
    t.enforce(t.closed())?;
    t.attack("first, then later, to a closed port", BY_POLICY, volley([first(t, 3, OPEN), later(t, 3)]))
}

fn overlapping_fragments(t: &mut Trial<'_>) -> Result<(), Stop> {
    t.enforce(t.open_at(OPEN))?;
    t.control("a first fragment to the open port", volley([first(t, 11, OPEN)]).once())?;
    t.attack("a second first one, to a closed port", BY_POLICY, volley([first(t, 11, SHUT)]))?;
    // After it, pieces of that number belong to the closed port.
    t.attack("a later one behind both", BY_POLICY, volley([later(t, 11)]))?;
    let inside = piece(t, 12, 8, More::Last, frame::udp(5000, SHUT, 24));
    t.prepare(volley([first(t, 12, OPEN)]))?;
    t.attack("one that begins inside the first", &[Reason::BadFragment], volley([inside.clone()]))?;
    t.learn(t.open_at(OPEN))?;
    t.control("in learn", volley([first(t, 13, SHUT), inside]))
}

fn tiny_fragments(t: &mut Trial<'_>) -> Result<(), Stop> {
    let syn = frame::tcp(5000, OPEN, tcp::SYN, 0);
    let mut short = t.frame(Attacker, Server, TCP, syn[..16].to_vec());
    short.fragment = Some((21, 0, true));
    let mut rest = t.frame(Attacker, Server, TCP, frame::tcp(5000, SHUT, tcp::SYN, 12)[..32].to_vec());
    rest.fragment = Some((21, 8, false));
    t.learn(t.open_at(OPEN))?;
    t.control("in learn", volley([short.clone(), rest.clone()]))?;
    t.enforce(t.open_at(OPEN))?;
    t.attack("eight bytes of a TCP header", &[Reason::TruncatedTransport], volley([short]))?;
    t.attack("a piece that overwrites it", &[Reason::BadFragment], volley([rest]))
}

fn out_of_order(t: &mut Trial<'_>) -> Result<(), Stop> {
    t.learn(t.open_at(OPEN))?;
    t.control("in learn, last first", volley([later(t, 31), first(t, 31, SHUT)]))?;
    t.enforce(t.open_at(OPEN))?;
    t.control("in order, to the open port", volley([first(t, 32, OPEN), later(t, 32)]).once())?;
    t.attack("last first", &[Reason::FragmentWithoutFirst], volley([later(t, 33)]))?;
    t.attack("then the first, to a closed port", BY_POLICY, volley([first(t, 33, SHUT)]))
}

/// What makes a node put datagrams together: it follows connections.
const FOLLOWS: &str = "table inet selftest {
    chain forward { type filter hook forward priority 0; ct state new,established accept; }
}
";

fn fragmented_again(t: &mut Trial<'_>) -> Result<(), Stop> {
    t.touched = true;
    if t.range.nft(FOLLOWS)? == Nft::Missing {
        return Err(Stop::NotRun(NO_NFT.into()));
    }
    // Together longer than IPv6's least MTU, so that the node must take it apart again.
    let pieces = |t: &Trial<'_>, port: u16, id: u32| {
        let head = frame::udp(port, OPEN, 1224);
        [(0, true, head), (1232, false, vec![0; 700])].map(|(offset, more, payload)| {
            let mut frame = t.frame(Outside, Server, UDP, payload);
            frame.source = t.address(Node);
            frame.fragment = Some((id, offset, more));
            frame
        })
    };
    t.enforce(set(vec![ingress(Server, vec![anything(Vec::new())])]))?;
    t.control("where everyone may", Volley::new(Outside, Server, pieces(t, 6000, 41)).once())?;
    t.enforce(t.closed())?;
    let by = [BY_POLICY, &[Reason::FragmentWithoutFirst]].concat();
    t.attack("as the node", &by, Volley::new(Outside, Server, pieces(t, 6001, 42)).once().put_together())?;
    let mut tcp = frame::tcp(6002, OPEN, tcp::SYN, 1212);
    tcp[4] = 7;
    let mut pieces = pieces(t, 6002, 43);
    for piece in &mut pieces {
        piece.protocol = TCP;
    }
    pieces[0].payload = tcp;
    t.attack("as the node, over TCP", &by, Volley::new(Outside, Server, pieces).once().put_together())
}
