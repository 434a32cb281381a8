//! Policy alone: may this endpoint open, or be opened, with this peer at this port?

use crate::{
    Reason, Staged, Tables, Verdict,
    abi::{
        self, ALL_PROTOCOLS, ANYONE, EGRESS_ISOLATED, FRONTENDS, INGRESS_ISOLATED, RANGES, RULES_FOR_ANY_PORT,
        RULES_FOR_ANYONE, RulePort, frontend_key, rule_key,
    },
    word::RULE,
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

impl Asked {
    pub(crate) const NOTHING: Self =
        Self { endpoint: 0, opened: Direction::Inbound, protocol: 0, port: 0, peer: Address([0; 2]) };
}

/// The answer, under both slots, in one word: out-of-line functions of the kernel program return
/// words, never memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
#[repr(transparent)]
pub struct Judged(u64);

impl Judged {
    #[inline(always)]
    const fn new(reason: Reason, rule: u32) -> Self {
        Self(reason as u64 | (rule as u64 & RULE) << 8)
    }

    #[inline(always)]
    const fn with_staged(self, staged: Staged, rule: u32) -> Self {
        Self(self.0 | (rule as u64 & RULE) << 32 | (staged as u64) << 56)
    }

    /// As a verdict.
    #[inline(always)]
    pub fn verdict(self) -> Verdict {
        Verdict(self.0)
    }
}

/// How often a reader meets a publish before it gives up; each publish would have to fall between
/// two reads that lie nanoseconds apart.
const TRIES: u32 = 4;

/// Judges an opening under the endpoint's generation: in force and staged. The endpoint's word is
/// read before and after the identity, and no mixture is trusted. `word` is left as the word that the
/// answer belongs to. The reason is `AllowedByRule`, `NotIsolated`, `NoRule`,
/// `NoRulePortless`, `ServiceMixed`, `ServiceNoBackends`, `Itself` (the pod through its own Service) or `NotReady`.
#[inline(never)]
pub fn judge<T: Tables>(tables: &T, asked: &Asked, word: &mut u64) -> Judged {
    *word = tables.word(asked.endpoint);
    for _ in 0..TRIES {
        let identity = tables.identity(asked.peer);
        let again = tables.word(asked.endpoint);
        if again != *word {
            *word = again;
            continue;
        }
        let Some(generation) = tables.generation(abi::generation_of(again)) else { break };
        let (in_force, staged) = (generation[0] as u32, (generation[0] >> 32) as u32);
        if in_force == 0 {
            break;
        }
        let (reason, rule) = answer(ask(tables, in_force, identity, asked));
        let judged = Judged::new(reason, rule);
        if staged == 0 {
            return judged;
        }
        let (reason, rule) = answer(ask(tables, staged, identity, asked));
        return judged.with_staged(if reason.allows() { Staged::Allow } else { Staged::Deny }, rule);
    }
    Judged::new(Reason::NotReady, 0)
}

/// What [`ask`] returns when no policy isolates, when no rule allows, and when a Service has no backends.
const NOT_ISOLATED: u32 = u32::MAX;
const NO_RULE: u32 = 0;
const NO_RULE_PORTLESS: u32 = u32::MAX - 1;
const NO_BACKENDS: u32 = u32::MAX - 2;
/// What [`ask_frontend`] returns where the port leads to no Service.
const NO_FRONTEND: u32 = u32::MAX - 3;

#[inline(always)]
const fn answer(slot_says: u32) -> (Reason, u32) {
    match slot_says {
        NOT_ISOLATED => (Reason::NotIsolated, 0),
        NO_RULE => (Reason::NoRule, 0),
        NO_RULE_PORTLESS => (Reason::NoRulePortless, 0),
        NO_BACKENDS => (Reason::ServiceNoBackends, 0),
        abi::MIXED_BACKENDS => (Reason::ServiceMixed, 0),
        abi::OWN_BACKEND => (Reason::Itself, 0),
        rule => (Reason::AllowedByRule, rule),
    }
}

/// One slot's answer: the rule, or one of the constants above.
#[inline(always)]
fn ask<T: Tables>(tables: &T, slot: u32, identity: u32, asked: &Asked) -> u32 {
    if identity & FRONTENDS != 0 && matches!(asked.opened, Direction::Outbound) {
        // Beside the other and not inside it: the stacks of a call chain have 512 bytes together.
        let backends = ask_frontend(tables, slot, identity, asked);
        if backends != NO_FRONTEND {
            return backends;
        }
    }
    ask_slot(tables, slot, identity, asked)
}

#[inline(never)]
fn ask_slot<T: Tables>(tables: &T, slot: u32, identity: u32, asked: &Asked) -> u32 {
    let isolated = match asked.opened {
        Direction::Inbound => slot & INGRESS_ISOLATED,
        Direction::Outbound => slot & EGRESS_ISOLATED,
    };
    if isolated == 0 {
        return NOT_ISOLATED;
    }
    let (mut protocol, mut none) = (asked.protocol, NO_RULE);
    if matches!(protocol, TCP | UDP | SCTP) {
        let class = if slot & RANGES == 0 {
            Some(u32::from(asked.port))
        } else {
            tables.port_class(slot, protocol, asked.port)
        };
        if let Some(class) = class
            && let Some(rule) = find(tables, slot, identity, asked.opened, protocol, RulePort::Class(class as u16))
        {
            return rule;
        }
    } else {
        (protocol, none) = (ALL_PROTOCOLS, NO_RULE_PORTLESS);
    }
    if slot & RULES_FOR_ANY_PORT == 0 {
        return none;
    }
    find(tables, slot, identity, asked.opened, protocol, RulePort::Any).unwrap_or(none)
}

/// What a slot says of the backends behind a port. Rules for everyone and for any port are about these
/// backends, too: the slot's own rules say already what they come to.
#[inline(never)]
fn ask_frontend<T: Tables>(tables: &T, slot: u32, identity: u32, asked: &Asked) -> u32 {
    if slot & EGRESS_ISOLATED == 0 {
        return NOT_ISOLATED;
    }
    match tables.rule(&frontend_key(identity, asked.protocol, asked.port)) {
        None => NO_FRONTEND,
        Some(abi::NO_BACKENDS) => NO_BACKENDS,
        Some(_) => {
            let key = rule_key(slot, identity, asked.opened, asked.protocol, RulePort::Frontend(asked.port));
            tables.rule(&key).unwrap_or(NO_RULE)
        }
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
    if slot & RULES_FOR_ANYONE == 0 {
        return None;
    }
    tables.rule(&rule_key(slot, ANYONE, opened, protocol, port))
}
