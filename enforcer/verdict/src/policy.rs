//! Policy alone: may this endpoint open, or be opened, with this peer at this port?

use crate::{
    Mode, Reason, Staged, Tables,
    abi::{self, ALL_PROTOCOLS, ANYONE, EGRESS_ISOLATED, INGRESS_ISOLATED, RANGES, RulePort, rule_key},
};
use flow::{Address, Direction, SCTP, TCP, UDP};

/// A question to policy: the opening of a connection, whichever packet led to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The endpoint's ordinal.
    pub endpoint: u32,
    /// `Inbound`: the peer opens.
    pub opened: Direction,
    /// IP protocol number.
    pub protocol: u8,
    /// The server's port; ignored for protocols without ports.
    pub port: u16,
    /// The other end.
    pub peer: Address,
}

/// The answer, under both slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Judged {
    /// The endpoint's word it was judged under.
    pub word: u64,
    /// `AllowedByRule`, `NotIsolated`, `NoRule`, `NoRulePortless` or `NotReady`.
    pub reason: Reason,
    /// The rule that allows, 0 for none.
    pub rule: u32,
    /// What the staged slot says.
    pub staged: Staged,
    /// The rule there, 0 for none.
    pub staged_rule: u32,
    /// The mode of the generation.
    pub mode: Mode,
}

/// How often a reader meets a publish before it gives up; each publish would have to fall between
/// two reads that lie nanoseconds apart.
const TRIES: u32 = 4;

/// Judges an opening under the endpoint's generation: in force and staged. The endpoint's word is
/// read before and after the identity, and no mixture is trusted.
#[inline(never)]
pub fn judge<T: Tables>(tables: &T, asked: &Asked) -> Judged {
    let mut judged = Judged {
        word: tables.word(asked.endpoint),
        reason: Reason::NotReady,
        rule: 0,
        staged: Staged::None,
        staged_rule: 0,
        mode: Mode::Enforce,
    };
    for _ in 0..TRIES {
        let identity = tables.identity(asked.peer);
        let word = tables.word(asked.endpoint);
        if word != judged.word {
            judged.word = word;
            continue;
        }
        let Some(generation) = tables.generation(abi::generation_of(word)) else { return judged };
        judged.mode = Mode::from_number(generation[1]);
        let in_force = generation[0] as u32;
        if in_force == 0 {
            return judged;
        }
        (judged.reason, judged.rule) = ask_slot(tables, in_force, identity, asked);
        let staged = (generation[0] >> 32) as u32;
        if staged != 0 {
            let (reason, rule) = ask_slot(tables, staged, identity, asked);
            judged.staged = if reason.allows() { Staged::Allow } else { Staged::Deny };
            judged.staged_rule = rule;
        }
        return judged;
    }
    judged
}

/// One slot's answer.
#[inline(always)]
fn ask_slot<T: Tables>(tables: &T, slot: u32, identity: u32, asked: &Asked) -> (Reason, u32) {
    let isolated = match asked.opened {
        Direction::Inbound => slot & INGRESS_ISOLATED,
        Direction::Outbound => slot & EGRESS_ISOLATED,
    };
    if isolated == 0 {
        return (Reason::NotIsolated, 0);
    }
    if !matches!(asked.protocol, TCP | UDP | SCTP) {
        return match find(tables, slot, identity, asked.opened, ALL_PROTOCOLS, RulePort::Any) {
            Some(rule) => (Reason::AllowedByRule, rule),
            None => (Reason::NoRulePortless, 0),
        };
    }
    let class = if slot & RANGES == 0 {
        Some(u32::from(asked.port))
    } else {
        tables.port_class(slot, asked.protocol, asked.port)
    };
    if let Some(class) = class
        && let Some(rule) = find(tables, slot, identity, asked.opened, asked.protocol, RulePort::Class(class as u16))
    {
        return (Reason::AllowedByRule, rule);
    }
    match find(tables, slot, identity, asked.opened, asked.protocol, RulePort::Any) {
        Some(rule) => (Reason::AllowedByRule, rule),
        None => (Reason::NoRule, 0),
    }
}

/// A rule for this identity, or for everyone.
#[inline(always)]
fn find<T: Tables>(
    tables: &T,
    slot: u32,
    identity: u32,
    opened: Direction,
    protocol: u8,
    port: RulePort,
) -> Option<u32> {
    if identity != ANYONE
        && let Some(rule) = tables.rule(&rule_key(slot, identity, opened, protocol, port))
    {
        return Some(rule);
    }
    tables.rule(&rule_key(slot, ANYONE, opened, protocol, port))
}
