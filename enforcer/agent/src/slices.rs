//! Entries and events of the kernel as [`FlowEvent`]s.

use compile::{Prefix, RuleOrigin};
use datapath::{Ended, Place, SweptEntry, Why};
use flow::{Address, Direction, FlowKey, TCP, tcp};
use model::record::{DirectionRule, EndReason, FlowEvent, FlowSource, FlowVerdict, ObservedAt, RuleName, UnixNanos};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use verdict::{
    Evidence, Mode, Phase, Reason, Refuser, Staged, State,
    abi::{
        self, ConnectionKey, ConnectionParts, Event, FURTHER, Nanos, connection_key, connection_parts, further_key,
        with_local, word,
    },
};

/// What is needed to tell the kernel's numbers as names and times.
pub(crate) struct Teller {
    /// Unix time of the kernel clock's zero, fixed at the start, so that all slices of a flow agree on
    /// when it began.
    pub(crate) clock_zero: UnixNanos,
    /// What was judged under this epoch or an older one names rules by an earlier agent's numbers.
    pub(crate) unnamed: u64,
    /// Names of every rule ever published: events and entries outlive tables.
    rules: BTreeMap<u32, RuleName>,
    /// Endpoints by ordinal, gone ones too until the ordinal is given again.
    pub(crate) places: HashMap<u32, Place>,
    reasons: HashMap<Reason, Arc<str>>,
    nothing: Arc<str>,
}

impl Teller {
    pub(crate) fn new(clock_zero: UnixNanos) -> Self {
        let reasons = Reason::ALL.iter().map(|reason| (*reason, Arc::from(reason.name()))).collect();
        Self { clock_zero, unnamed: 0, rules: BTreeMap::new(), places: HashMap::new(), reasons, nothing: "".into() }
    }

    pub(crate) fn learn(&mut self, rules: &BTreeMap<u32, RuleOrigin>) {
        self.rules.extend(rules.iter().map(|(number, origin)| (*number, origin.name.clone())));
    }

    fn rule(&self, number: u32, epoch: u64) -> Option<RuleName> {
        self.rules.get(&number).filter(|_| epoch > self.unnamed).cloned()
    }

    pub(crate) fn unix(&self, at: Nanos) -> UnixNanos {
        self.clock_zero.saturating_add(i64::try_from(at).unwrap_or(i64::MAX))
    }

    fn reason(&self, reason: Reason) -> Arc<str> {
        self.reasons.get(&reason).unwrap_or(&self.nothing).clone()
    }

    fn staged(&self, staged: Staged) -> (FlowVerdict, Arc<str>) {
        match staged {
            Staged::None => (FlowVerdict::Observed, self.nothing.clone()),
            Staged::Allow => (FlowVerdict::Allow, self.reason(Reason::AllowedByRule)),
            Staged::Deny => (FlowVerdict::AuditDeny, self.reason(Reason::NoRule)),
        }
    }

    /// The slice that one look at an entry tells; `None` where there is nothing to tell, or nobody
    /// knows whose entry it was.
    pub(crate) fn slice(&self, entry: &SweptEntry) -> Option<FlowEvent> {
        let state = State(entry.record[word::STATE]);
        let end_reason = end_reason(entry, state);
        if entry.counted.packets() == 0 && !ends_late(entry, end_reason) {
            return None;
        }
        let parts = connection_parts(&entry.key);
        let place = self.places.get(&parts.endpoint)?;
        let mut event = self.of_entry(place, &parts, entry, state);
        event.end_reason = end_reason;
        Some(event)
    }

    fn of_entry(&self, place: &Place, parts: &ConnectionParts, entry: &SweptEntry, state: State) -> FlowEvent {
        let record = &entry.record;
        let inbound = state.opened() == Direction::Inbound;
        let counted = &entry.counted;
        let (to_server, to_client) = ((counted.packets_in, counted.bytes_in), (counted.packets_out, counted.bytes_out));
        let (to_server, to_client) = if inbound { (to_server, to_client) } else { (to_client, to_server) };
        let signs = record[word::SIGNS];
        let (flags_in, flags_out) = (signs as u8, (signs >> 8) as u8);
        let buried = state.phase() == Phase::Tombstone;
        let reason = state.reason().unwrap_or(Reason::NoRule);
        let (staged_verdict, staged_reason) = self.staged(state.staged());
        let started = self.unix(record[word::STARTED]);
        let end = self.unix(record[word::LAST_SEEN]).max(started);
        // The slice begins after what the one before told; only the first begins with the flow.
        let start = if entry.state_before == 0 { started } else { self.unix(entry.seen_before).max(started) + 1 };
        FlowEvent {
            key: key(place, parts, state.opened()),
            direction_rule: direction_rule(state.evidence()),
            observed_at: observed_at(state.opened()),
            flow_start: started,
            start,
            end: end.max(start),
            packets_to_server: to_server.0,
            packets_to_client: to_client.0,
            bytes_to_server: to_server.1,
            bytes_to_client: to_client.1,
            tcp_flags_to_server: if inbound { flags_in } else { flags_out },
            tcp_flags_to_client: if inbound { flags_out } else { flags_in },
            adopted: state.is_adopted(),
            verdict: entry_verdict(buried, reason, self.deciding_mode(place, state, signs)),
            reason: self.reason(reason),
            rule: self.rule(record[word::RULES] as u32, state.epoch()),
            policy_generation: state.epoch(),
            staged_verdict,
            staged_reason,
            end_reason: EndReason::Active,
            rtt_us: rtt(parts.protocol, buried, signs),
            interface: place.link.as_ref().map_or(&self.nothing, |(_, name)| name).clone(),
            source: FlowSource::Kernel,
        }
    }

    /// The mode of whose policy refuses: what is done about a tombstone's packets.
    fn deciding_mode(&self, place: &Place, state: State, signs: u64) -> Mode {
        // One that is gone has no mode, and what is left of it is dropped.
        let client = || self.places.get(&abi::client_in(signs)).map_or(Mode::Enforce, |place| place.mode);
        match state.refuser() {
            Refuser::Endpoint => place.mode,
            Refuser::Client => client(),
            Refuser::Both => place.mode.min(client()),
        }
    }

    /// A row without packets: what a change means for an entry that stood idle through it.
    pub(crate) fn judged_idle(&self, entry: &SweptEntry) -> Option<FlowEvent> {
        let parts = connection_parts(&entry.key);
        let place = self.places.get(&parts.endpoint)?;
        Some(self.of_entry(place, &parts, entry, State(entry.record[word::STATE])))
    }

    /// A row for a packet that left no entry: one attempt. `None` where the event has no addresses.
    pub(crate) fn attempt(&self, event: &Event) -> Option<FlowEvent> {
        if event.key == FlowKey::default() {
            return None;
        }
        let at = self.unix(event.time);
        let mode = Mode::from_number(u64::from(event.mode));
        let verdict = match (event.reason.allows(), mode) {
            (true, _) => FlowVerdict::Allow,
            (false, Mode::Enforce) => FlowVerdict::Deny,
            (false, _) => FlowVerdict::AuditDeny,
        };
        let opens = event.key.protocol == TCP && event.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
        let (staged_verdict, staged_reason) = self.staged(event.staged);
        let place = self.places.get(&event.endpoint);
        let interface = place.and_then(|place| place.link.as_ref()).map_or(&self.nothing, |(_, name)| name);
        Some(FlowEvent {
            key: event.key,
            direction_rule: if opens { DirectionRule::Syn } else { DirectionRule::Unknown },
            observed_at: observed_at(event.direction),
            flow_start: at,
            start: at,
            end: at,
            packets_to_server: 1,
            packets_to_client: 0,
            bytes_to_server: u64::from(event.ip_length),
            bytes_to_client: 0,
            tcp_flags_to_server: event.tcp_flags,
            tcp_flags_to_client: 0,
            adopted: false,
            verdict,
            reason: self.reason(event.reason),
            rule: self.rule(event.rule, abi::epoch_of(event.word)),
            policy_generation: abi::epoch_of(event.word),
            staged_verdict,
            staged_reason,
            end_reason: EndReason::Denied,
            rtt_us: None,
            interface: interface.clone(),
            source: FlowSource::Kernel,
        })
    }

    /// The key of the entry that a packet of this event has or would have.
    pub(crate) fn entry_key(&self, event: &Event) -> Option<ConnectionKey> {
        let place = self.places.get(&event.endpoint)?;
        let k = &event.key;
        let (local, local_port, peer, peer_port) = match event.direction {
            Direction::Inbound => (k.destination, k.destination_port, k.source, k.source_port),
            Direction::Outbound => (k.source, k.source_port, k.destination, k.destination_port),
        };
        let key = |own| connection_key(event.endpoint, own, peer, peer_port, local_port, k.protocol);
        match place.addresses.iter().position(|address| *address == local) {
            Some(own) => Some(key(own as u32)),
            None => place
                .further
                .iter()
                .any(|prefix| prefix.holds(&Prefix::host(local)))
                .then(|| further_key(key(FURTHER), local)),
        }
    }
}

/// The key of the entry that an [`abi::EventKind::Ended`] event speaks of: its peer stands as the
/// source, the index of its own address in place of the destination.
pub(crate) fn ended_key(event: &Event) -> ConnectionKey {
    let k = &event.key;
    let [own, further] = k.destination.0;
    let key = connection_key(event.endpoint, own as u32, k.source, k.source_port, k.destination_port, k.protocol);
    [with_local(key[0], own as u32, Address([0, further])), key[1], key[2]]
}

fn key(place: &Place, parts: &ConnectionParts, opened: Direction) -> FlowKey {
    let own = parts.local(&place.addresses);
    let towards_pod = FlowKey {
        source: parts.peer,
        destination: own,
        source_port: parts.peer_port,
        destination_port: parts.local_port,
        protocol: parts.protocol,
    };
    if opened == Direction::Inbound { towards_pod } else { towards_pod.reversed() }
}

const fn observed_at(opened: Direction) -> ObservedAt {
    match opened {
        Direction::Inbound => ObservedAt::Server,
        Direction::Outbound => ObservedAt::Client,
    }
}

const fn direction_rule(evidence: Evidence) -> DirectionRule {
    match evidence {
        Evidence::None => DirectionRule::Unknown,
        Evidence::Opening => DirectionRule::Syn,
        Evidence::Socket => DirectionRule::Socket,
    }
}

fn entry_verdict(buried: bool, reason: Reason, mode: Mode) -> FlowVerdict {
    match (buried, reason, mode) {
        (false, ..) => FlowVerdict::Allow,
        (true, Reason::Revoked, _) => FlowVerdict::Revoked,
        (true, _, Mode::Enforce) => FlowVerdict::Deny,
        (true, _, Mode::Audit | Mode::Learn) => FlowVerdict::AuditDeny,
    }
}

fn end_reason(entry: &SweptEntry, state: State) -> EndReason {
    let flags = (entry.record[word::SIGNS] | entry.record[word::SIGNS] >> 8) as u8;
    match (state.phase(), entry.ended) {
        (Phase::Tombstone, _) => EndReason::Denied,
        (Phase::Closed, _) if flags & tcp::RST != 0 => EndReason::Reset,
        (Phase::Closed, _) => EndReason::Fin,
        (_, Ended::No) => EndReason::Active,
        (_, Ended::Yes(Why::Expired | Why::InKernel)) => EndReason::Idle,
        (_, Ended::Yes(Why::EndpointGone | Why::Stopped)) => EndReason::Stopped,
    }
}

/// Whether a look without packets still tells something: that a flow which was told as going on is over.
fn ends_late(entry: &SweptEntry, end_reason: EndReason) -> bool {
    let before = State(entry.state_before).phase();
    entry.state_before != 0
        && entry.ended != Ended::No
        && !matches!(end_reason, EndReason::Active | EndReason::Denied)
        && !matches!(before, Phase::Closed | Phase::Tombstone)
}

fn rtt(protocol: u8, buried: bool, signs: u64) -> Option<u32> {
    let rtt = (signs >> 32) as u32;
    (protocol == TCP && !buried && rtt != 0).then_some(rtt)
}
