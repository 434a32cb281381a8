//! The node itself, and what people read on it.

use crate::{
    class::{Class, Ends},
    cluster::{OPEN, anything, ingress, set},
    error::{Error, Stop},
    post::inside,
    range::Who::{Node, Outside, Server},
    trial::{BY_POLICY, Purpose, Seen, Trial, Volley},
};
use std::{
    fs,
    net::{SocketAddr, TcpListener},
};
use verdict::Reason;

pub(crate) const CLASSES: &[Class] = &[
    Class::new(
        ("open-port-on-the-node", 24, "GHSA-v5mh-h5hx-7v92"),
        "Whoever enforces listens on a port of the node, and asks nobody who they are.",
        "no-listener",
        open_port,
    ),
    Class::new(
        ("escape-codes", 26, "CVE-2025-48056"),
        "Names with escape codes command the terminal of whoever reads them.",
        "escaped-output",
        escape_codes,
    ),
    Class::new(
        ("root-on-the-node", 31, "thought of here"),
        "The node reaches its pods, as documented and counted; nobody else does in its name.",
        "own-node",
        root_on_the_node,
    )
    .ends(Ends::SERVER),
];

fn open_port(t: &mut Trial<'_>) -> Result<(), Stop> {
    t.enforce(set(Vec::new()))?;
    let listening = |t: &Trial<'_>| {
        inside(&t.range.path(Node), || {
            let mut found = Vec::new();
            for table in ["tcp", "tcp6", "udp", "udp6"] {
                let file = format!("/proc/thread-self/net/{table}");
                let text = fs::read_to_string(&file).map_err(Error::system(format!("{file} cannot be read")))?;
                // State 0A is LISTEN; a UDP socket listens as soon as it is there.
                let listens = |line: &&str| table.starts_with("udp") || line.split_whitespace().nth(3) == Some("0A");
                found.extend(text.lines().skip(1).filter(listens).map(str::to_owned));
            }
            Ok(if found.is_empty() { Seen::NotThere } else { Seen::There })
        })
    };
    let seen = listening(t)?;
    t.look(Purpose::Attack, "a socket that listens beside the agent", seen);
    let at = SocketAddr::new(Node.address(t.family), OPEN);
    let _listener = inside(&t.range.path(Node), || {
        TcpListener::bind(at).map_err(Error::system(format!("nothing can listen at {at}")))
    })?;
    let seen = listening(t)?;
    t.look(Purpose::Control, "a socket that the class opened", seen);
    Ok(())
}

fn escape_codes(t: &mut Trial<'_>) -> Result<(), Stop> {
    let Some(shown) = t.shown else {
        return Err(Stop::NotRun("this run has no terminal's output to look at".into()));
    };
    let seen = |there: bool| if there { Seen::There } else { Seen::NotThere };
    t.look(Purpose::Control, "a plain name as it is", seen(shown("web-7f9c") == "web-7f9c"));
    let codes = ["\x1b[2J", "\u{9b}31m", "\r", "\x07", "\u{202e}", "\u{200b}", "\u{e0041}", "\x1b]8;;http://x\x1b\\"];
    for code in codes {
        let printed = shown(&format!("web{code}"));
        let there = printed.contains(code) || printed.chars().any(char::is_control);
        t.look(Purpose::Attack, &format!("a name with {}", code.escape_default()), seen(there));
    }
    Ok(())
}

fn root_on_the_node(t: &mut Trial<'_>) -> Result<(), Stop> {
    let mut forged = t.udp(Outside, Server, 5500, OPEN);
    forged.source = t.address(Node);
    let volley = || Volley::new(Outside, Server, [forged.clone()]);
    t.enforce(set(vec![ingress(Server, vec![anything(Vec::new())])]))?;
    t.control("in its name, where everyone may", volley())?;
    t.enforce(t.closed())?;
    let before = t.counted(Reason::OwnNode)?;
    let socket = t.socket(Node, 5501)?;
    let to = SocketAddr::new(Server.address(t.family), OPEN);
    t.say(Purpose::Control, "from a socket of the node", &[], (Node, Server), |bytes| {
        socket.send_to(bytes, to).map(drop)
    })?;
    if t.counted(Reason::OwnNode)? <= before {
        return Err(Error::range("a packet of the node was not counted as the node's").into());
    }
    t.attack("in its name, from outside", BY_POLICY, volley())
}
