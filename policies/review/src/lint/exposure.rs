//! Rules that let everyone in.

use super::{Found, Subject, kinds, peers_field};
use crate::reach::{Direction, RuleRef};
use model::policy::{Peer, Port, PortMatch};

pub(super) fn look(subject: &Subject<'_, '_>, found: &mut Found) {
    for rule in subject.rules().filter(|rule| rule.direction == Direction::Ingress) {
        let Some((_, content)) = subject.reach.rule(rule) else { continue };
        let ports = ports(&content.ports);
        if content.peers.is_empty() {
            let what = format!("everyone, in the cluster and outside, may connect to {ports}");
            found.rule(kinds::EVERYONE, subject.reach, rule, "", what);
        }
        for (index, peer) in content.peers.iter().enumerate() {
            match peer {
                Peer::Block { cidr, except } if cidr.prefix_len() == 0 => {
                    block(subject, rule, index, cidr, except, &ports, found);
                }
                Peer::Block { .. } | Peer::Pods { .. } => {}
            }
        }
    }
}

fn block(
    subject: &Subject<'_, '_>,
    rule: RuleRef,
    index: usize,
    cidr: &ipnet::IpNet,
    except: &[ipnet::IpNet],
    ports: &str,
    found: &mut Found,
) {
    let family = if cidr.addr().is_ipv4() { "IPv4" } else { "IPv6" };
    let holes: Vec<String> = except.iter().map(ToString::to_string).collect();
    let without = match holes.is_empty() {
        true => String::new(),
        false => format!(" outside {}", super::some_of(&holes, 4)),
    };
    let what = format!("every {family} address{without} may connect to {ports}");
    let field = format!(".{}[{index}]", peers_field(rule.direction));
    found.rule(kinds::EVERYONE, subject.reach, rule, &field, what);
}

fn ports(ports: &[Port]) -> String {
    if ports.is_empty() {
        return "every port".to_owned();
    }
    let one = |port: &Port| {
        let protocol = port.protocol.name();
        match &port.port {
            PortMatch::All => format!("{protocol} (every port)"),
            PortMatch::Range(first, last) if first == last => format!("{first}/{protocol}"),
            PortMatch::Range(first, last) => format!("{first}-{last}/{protocol}"),
            PortMatch::Named(name) => format!("{name}/{protocol}"),
        }
    };
    super::some_of(&ports.iter().map(one).collect::<Vec<_>>(), 5)
}
