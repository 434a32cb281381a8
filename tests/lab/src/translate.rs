//! Addresses of Services, translated in the node's namespace as kube-proxy does with nftables: a
//! connection to one goes to one of its backends, chosen at random; what the node would send back to the
//! pod that it came from, and what comes by a node's port, gets the node's own source address.

use crate::{
    error::Error,
    network::{enter, obey, path_of},
};
use model::cluster::{Backend, Frontend};
use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr, thread};

const TABLE: &str = "services";
/// The mark of packets that get the node's source address (kube-proxy has the same).
const MASQUERADE: &str = "0x4000";

/// Makes the node translate to these backends, and to no others, in one step. `nodes` are the node's own
/// addresses.
pub(crate) fn translate(node: &str, frontends: &[Frontend], nodes: &[IpAddr]) -> Result<(), Error> {
    nft(node, &ruleset(frontends, nodes))
}

/// The whole table, in place of the one that is there.
fn ruleset(frontends: &[Frontend], nodes: &[IpAddr]) -> String {
    // Adding it first makes deleting it no error.
    let mut text = format!("add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    let mut refused = String::new();
    text += "  chain translate {\n";
    for frontend in frontends {
        let to = place(frontend.address, frontend.protocol.name(), frontend.port);
        if frontend.backends.is_empty() {
            let _ = writeln!(refused, "    {to} reject");
            continue;
        }
        let mark =
            if nodes.contains(&frontend.address) { format!("meta mark set {MASQUERADE} ") } else { String::new() };
        let family = family(frontend.address);
        let _ = writeln!(text, "    {to} {mark}{}", choice(family, &frontend.backends));
    }
    text += "  }\n  chain prerouting { type nat hook prerouting priority dstnat; jump translate; }\n";
    text += "  chain output { type nat hook output priority -100; jump translate; }\n";
    text += "  chain forward { type filter hook forward priority filter;\n";
    text += &refused;
    text += "  }\n  chain postrouting { type nat hook postrouting priority srcnat;\n";
    let _ = writeln!(text, "    meta mark {MASQUERADE} masquerade");
    let behind: BTreeSet<IpAddr> =
        frontends.iter().flat_map(|of| &of.backends).map(|backend| backend.address).collect();
    for address in behind {
        let family = family(address);
        let _ = writeln!(text, "    {family} saddr {address} {family} daddr {address} ct status dnat masquerade");
    }
    text + "  }\n}\n"
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

fn place(address: IpAddr, protocol: &str, port: u16) -> String {
    format!("{} daddr {address} {} dport {port}", family(address), protocol.to_lowercase())
}

/// A backend at random.
fn choice(family: &str, backends: &[Backend]) -> String {
    let places: Vec<String> = backends
        .iter()
        .enumerate()
        .map(|(number, backend)| format!("{number} : {} . {}", backend.address, backend.port))
        .collect();
    format!("dnat {family} to numgen random mod {} map {{ {} }}", backends.len(), places.join(", "))
}

/// Runs commands of `nft` in a namespace.
fn nft(namespace: &str, input: &str) -> Result<(), Error> {
    let run = || {
        enter(&path_of(namespace))?;
        obey("nft", &["-f", "-"], input, "nftables")
    };
    // A namespace belongs to a thread: one that ends with this.
    thread::scope(|scope| scope.spawn(run).join().unwrap_or(Err(Error::Interrupted)))
}
