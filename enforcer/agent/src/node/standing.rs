//! What stands in the connection table when tables change: idle entries, and denials that were answers.

use super::{Node, TICK, unix_now};
use crate::Error;
use datapath::{Counted, Ended, SweptEntry, monotonic_coarse};
use flow::Direction;
use std::time::Duration;
use verdict::{
    Admission, Asked, Phase, Reason, Staged, Standing, State,
    abi::{ConnectionRecord, Nanos, connection_parts, epoch_of, word},
    judge, judge_both,
};

impl Node {
    /// An exchange of datagrams that went on while this agent's programs came into the hooks, of which no table knew: its
    /// answer looked like an opening the other way, and was denied. Where policy allows the way of the question, the
    /// tombstone goes, so that the next question opens; what was denied is denied again by policy.
    pub(super) fn unbury(&mut self) -> Result<(), Error> {
        let (sweep, tables) = self.datapath.sweep();
        let young = |record: &ConnectionRecord| self.answers.contains(&record[word::STARTED]);
        let standing: Vec<_> = sweep.standing().iter().filter(|(_, record)| young(record)).copied().collect();
        let mut taken = Vec::new();
        for (key, record) in standing {
            let (parts, state) = (connection_parts(&key), State(record[word::STATE]));
            if state.phase() != Phase::Tombstone || parts.protocol == flow::TCP {
                continue;
            }
            let (opened, port) = match state.opened() {
                Direction::Inbound => (Direction::Outbound, parts.peer_port),
                Direction::Outbound => (Direction::Inbound, parts.local_port),
            };
            let asked = Asked { endpoint: parts.endpoint, opened, protocol: parts.protocol, port, peer: parts.peer };
            if judge(&self.tables, &asked, &mut 0).verdict().reason().allows() {
                taken.extend(sweep.take_out(tables, &key)?);
            }
        }
        self.tell_all(&taken);
        Ok(())
    }

    /// Entries that stood idle through a change are judged here, in their original direction, by what
    /// admitted them. What would be denied is told once; the entry itself is left to the kernel, which
    /// judges it at its next packet: writing it from here could lose what the kernel counts meanwhile.
    pub(super) fn judge_idle(&mut self) {
        let now = monotonic_coarse();
        let (sweep, tables) = self.datapath.sweep();
        let (places, entries) = (tables.places().clone(), sweep.standing().to_vec());
        for (key, record) in entries {
            let parts = connection_parts(&key);
            let state = State(record[word::STATE]);
            let Some(place) = places.get(&parts.endpoint) else { continue };
            let epoch = epoch_of(place.word);
            let idle = Duration::from_nanos(now.saturating_sub(record[word::LAST_SEEN])) > TICK;
            let standing = matches!(state.phase(), Phase::HalfOpen | Phase::Established);
            if !idle || !standing || state.epoch() == epoch || state.admission() != Admission::Policy {
                continue;
            }
            if !self.idle_told.insert((key, epoch)) {
                continue;
            }
            self.idle_judged += 1;
            // A peer that is gone, its address perhaps another pod's by now, lost nothing by the change.
            if self.peer_is_gone(parts.peer, record[word::LAST_SEEN]) {
                continue;
            }
            let port = if state.opened() == Direction::Inbound { parts.local_port } else { parts.peer_port };
            let asked = Asked {
                endpoint: parts.endpoint,
                opened: state.opened(),
                protocol: parts.protocol,
                port,
                peer: parts.peer,
            };
            let own = parts.local(&place.addresses);
            let judged = judge_both(&self.tables, &asked, own);
            let goes_on = judged.reason().allows() || self.options.datapath.standing == Standing::Kept;
            if goes_on && judged.staged() != Staged::Deny {
                continue;
            }
            let phase = if goes_on { state.phase() } else { Phase::Tombstone };
            let reason = match (judged.reason().allows(), goes_on) {
                (true, _) => Reason::Rejudged,
                (false, true) => Reason::Kept,
                (false, false) => Reason::Revoked,
            };
            let judged_state =
                state.with_phase(phase).with_reason(reason as u8).with_staged(judged.staged()).with_epoch(epoch);
            let mut judged_record = record;
            judged_record[word::STATE] = judged_state.0;
            let entry = SweptEntry {
                key,
                record: judged_record,
                counted: Counted::default(),
                seen_before: record[word::LAST_SEEN],
                state_before: state.0,
                ended: Ended::No,
            };
            if let Some(event) = self.teller.judged_idle(&entry) {
                self.observe(event);
            }
        }
    }

    /// Whether an address belongs to another pod now, or to none, than at a moment of the coarse clock.
    fn peer_is_gone(&self, peer: flow::Address, at: Nanos) -> bool {
        let owner = |at| self.observer.view().end(peer.ip(), 0, at).pod_uid;
        owner(self.teller.unix(at)) != owner(unix_now())
    }
}
