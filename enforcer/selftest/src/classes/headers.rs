//! What stands before the ports, or instead of them.

use crate::{
    class::{Class, Ends, V6},
    cluster::{OPEN, SHUT},
    error::Stop,
    frame::{self, Extension, Frame},
    range::Who::{Attacker, Node, Server},
    trial::{BY_POLICY, Echo, Trial, Volley},
};
use flow::{UDP, tcp};
use lab::Family;
use verdict::Reason;

pub(crate) const CLASSES: &[Class] = &[
    Class::new(
        ("header-options", 7, "aws-network-policy-agent's parser"),
        "IPv4 options or IPv6 extension headers move the ports to where a parser does not look.",
        "header-walk",
        header_options,
    )
    .ends(Ends::ALL),
    Class::new(
        ("endless-headers", 7, "aws-network-policy-agent's parser"),
        "More extension headers than anybody reads, or longer ones, hide the ports.",
        "refused-headers",
        endless_headers,
    )
    .ends(Ends::ALL)
    .only(V6),
    Class::new(
        ("vlan-tags", 7, "aws-network-policy-agent's parser"),
        "VLAN tags, one or several, hide that a frame is IP.",
        "refused-headers",
        vlan_tags,
    )
    .ends(Ends::ALL)
    .bridged(),
    Class::new(
        ("headers-out-of-reach", 7, "aws-network-policy-agent's parser"),
        "Headers lie outside the linear part of the packet's buffer, where a program cannot read them directly.",
        "pulled-headers",
        headers_out_of_reach,
    )
    .ends(Ends::ALL),
    Class::new(
        ("icmp-errors", 7, "aws-network-policy-agent's parser"),
        "ICMP errors about connections that nobody has carry data to a closed pod.",
        "related-errors",
        icmp_errors,
    )
    .ends(Ends::ALL),
    Class::new(
        ("echo-on-the-other-direction", 10, "GHSA-c66w-hq56-4q97"),
        "An echo request rides on the state that the server's own echo left.",
        "echo-direction",
        echo_on_the_other_direction,
    )
    .ends(Ends::SERVER),
    Class::new(
        ("protocol-numbers", 30, "OVS CVE-2023-1668"),
        "Protocols without ports, 0, 255, GRE, IPIP, ESP among them, slip through where ports are judged.",
        "portless",
        protocol_numbers,
    )
    .ends(Ends::ALL),
    Class::new(
        ("odd-tcp-flags", 37, "CERT VU#464113"),
        "TCP flags that open nothing, or that no stack sends together, pass where a plain SYN alone is judged.",
        "adoption",
        odd_tcp_flags,
    )
    .ends(Ends::ALL),
];

fn volley(frames: impl IntoIterator<Item = Frame>) -> Volley {
    Volley::new(Attacker, Server, frames)
}

fn header_options(t: &mut Trial<'_>) -> Result<(), Stop> {
    use Extension::{Authentication, DestinationOptions, HopByHop, Routing};
    let frames = |t: &Trial<'_>, port: u16| -> Vec<Frame> {
        let plain = t.udp(Attacker, Server, 5000, port);
        match t.family {
            Family::V4 => [1, 4, 10].map(|options| Frame { options, ..plain.clone() }).to_vec(),
            Family::V6 => [
                vec![HopByHop],
                vec![DestinationOptions],
                vec![Routing],
                vec![Authentication],
                vec![HopByHop, DestinationOptions, Routing, Authentication],
            ]
            .map(|extensions| Frame { extensions, ..plain.clone() })
            .to_vec(),
        }
    };
    t.enforce(t.open())?;
    t.control("where policy allows it", volley(frames(t, SHUT)))?;
    t.enforce(t.open_at(OPEN))?;
    t.attack("to a closed port", BY_POLICY, volley(frames(t, SHUT)))?;
    t.control("to the open port", volley(frames(t, OPEN)))?;
    let decoy = |port| {
        let plain = t.udp(Attacker, Server, 5001, port);
        volley([match t.family {
            Family::V4 => Frame { options: 1, decoy: true, ..plain },
            Family::V6 => Frame { extensions: vec![Extension::Decoy], ..plain },
        }])
    };
    let (open, shut) = (decoy(frame::DECOY), decoy(SHUT));
    t.enforce(t.open_at(frame::DECOY))?;
    t.control("to the open port, behind options that read as it", open)?;
    t.attack("to a closed port, behind options that read as the open one", BY_POLICY, shut)
}

fn endless_headers(t: &mut Trial<'_>) -> Result<(), Stop> {
    let frame = |extension, count| {
        let plain = t.udp(Attacker, Server, 5000, OPEN);
        Frame { extensions: vec![extension; count], ..plain }
    };
    let (many, long) = (frame(Extension::Routing, 9), frame(Extension::DestinationOptions, 6));
    t.learn(t.open())?;
    t.control("in learn", volley([many.clone(), long.clone()]))?;
    t.enforce(t.open())?;
    t.control("fewer, to an open pod", volley([Frame { extensions: vec![Extension::Routing; 5], ..many.clone() }]))?;
    t.attack("nine, even to an open pod", &[Reason::TooManyExtensionHeaders], volley([many]))?;
    t.attack("longer than is read", &[Reason::HeadersTooLong], volley([long]))
}

fn vlan_tags(t: &mut Trial<'_>) -> Result<(), Stop> {
    let frames = |t: &Trial<'_>, tags: &[usize]| -> Vec<Frame> {
        tags.iter().map(|vlans| Frame { vlans: *vlans, ..t.udp(Attacker, Server, 5000, OPEN) }).collect()
    };
    t.enforce(t.open())?;
    t.control("one to three, where policy allows it", volley(frames(t, &[1, 2, 3])))?;
    t.enforce(t.closed())?;
    t.attack("one to three", BY_POLICY, volley(frames(t, &[1, 2, 3])))?;
    t.learn(t.open())?;
    t.control("in learn, four", volley(frames(t, &[4])))?;
    t.enforce(t.open())?;
    // The kernel takes the outermost off before any hook: three are left.
    t.attack("four, even to an open pod", &[Reason::TooManyVlanTags], volley(frames(t, &[4])))
}

fn headers_out_of_reach(t: &mut Trial<'_>) -> Result<(), Stop> {
    t.touched = true;
    for pod in [Attacker, Server] {
        t.range.ip(pod, "link set eth0 mtu 9000\n")?;
        t.range.ip(Node, &format!("link set veth-{} mtu 9000\n", pod.name()))?;
    }
    // Of a frame longer than a page, a packet socket puts the link's header alone into the linear part.
    let frame = |t: &Trial<'_>, port: u16| t.frame(Attacker, Server, UDP, frame::udp(5000, port, 6000));
    t.enforce(t.open())?;
    t.control("where policy allows it", volley([frame(t, SHUT)]))?;
    t.enforce(t.open_at(OPEN))?;
    t.attack("to a closed port", BY_POLICY, volley([frame(t, SHUT)]))?;
    t.control("to the open port", volley([frame(t, OPEN)]))
}

fn icmp_errors(t: &mut Trial<'_>) -> Result<(), Stop> {
    let error = |t: &Trial<'_>, port: u16| {
        let inner = t.udp(Server, Attacker, port, 4000);
        let mut error = frame::error_about(&inner, t.address(Attacker));
        error.payload.extend([0; 16]);
        error
    };
    t.learn(t.closed())?;
    t.control("in learn", volley([error(t, SHUT)]))?;
    t.enforce(t.closed())?;
    t.attack("about what was never sent", &[Reason::UnrelatedIcmpError], volley([error(t, SHUT)]))?;
    t.enforce(t.open())?;
    t.prepare(Volley::new(Server, Attacker, [t.udp(Server, Attacker, OPEN, 4000)]))?;
    t.control("about what the server sent", volley([error(t, OPEN)]))
}

fn echo_on_the_other_direction(t: &mut Trial<'_>) -> Result<(), Stop> {
    let request = |t: &Trial<'_>, id| volley([t.echo(Attacker, Server, id, Echo::Request)]);
    t.enforce(t.open())?;
    t.control("where policy allows it", request(t, 71))?;
    t.enforce(t.closed())?;
    t.attack("a request out of the blue", BY_POLICY, request(t, 72))?;
    t.attack("a reply out of the blue", BY_POLICY, volley([t.echo(Attacker, Server, 73, Echo::Reply)]))?;
    let asks = [t.echo(Server, Attacker, 74, Echo::Request)];
    t.prepare(Volley::new(Server, Attacker, asks))?;
    t.control("the reply to what the server asked", volley([t.echo(Attacker, Server, 74, Echo::Reply)]))?;
    t.attack("a request with the server's number", BY_POLICY, request(t, 74))
}

fn protocol_numbers(t: &mut Trial<'_>) -> Result<(), Stop> {
    let numbers: &[u8] = match t.family {
        Family::V4 => &[0, 255, 47, 4, 50, 41, 46],
        Family::V6 => &[255, 47, 4, 50, 41, 46, 59],
    };
    let frames = |t: &Trial<'_>| -> Vec<Frame> {
        numbers.iter().map(|protocol| t.frame(Attacker, Server, *protocol, vec![0; 48])).collect()
    };
    t.enforce(t.open())?;
    t.control("where policy allows every protocol", volley(frames(t)))?;
    t.enforce(t.open_at(OPEN))?;
    t.attack("where it allows one port", BY_POLICY, volley(frames(t)))?;
    t.enforce(t.closed())?;
    t.attack("where it allows nothing", BY_POLICY, volley(frames(t)))
}

fn odd_tcp_flags(t: &mut Trial<'_>) -> Result<(), Stop> {
    use tcp::{ACK, FIN, RST, SYN};
    const PSH_URG: u8 = 0x28;
    let frames = |t: &Trial<'_>, first: u16| {
        let odd = [0, FIN, RST, ACK, SYN | ACK, SYN | FIN, SYN | RST, FIN | PSH_URG, u8::MAX];
        volley((first..).zip(odd).map(|(port, flags)| t.tcp(Attacker, Server, port, SHUT, flags)))
    };
    t.enforce(t.open())?;
    t.control("where policy allows it", frames(t, 5020))?;
    t.enforce(t.open_at(OPEN))?;
    t.attack("to a closed port", BY_POLICY, frames(t, 5040))?;
    t.attack("to a closed port, on flows that were allowed once", BY_POLICY, frames(t, 5020))
}
