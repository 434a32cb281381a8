//! Events that wait for their pods: a flow is often seen before the API server tells whose the address is.
//!
//! Always holds: an event waits until what happened at its time is known, and no longer than its patience; what waits
//! is bounded. Slices of one flow come out in their order.

use flow::FlowKey;
use model::{
    record::{End, FlowEvent, UnixNanos},
    view::AddressView,
};
use std::collections::{HashMap, VecDeque};

/// How events wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// How long an event waits for news of its pod, from its flow's begin on; 0: not at all.
    pub patience: UnixNanos,
    /// How many wait at once; of more the oldest is attributed by what is known.
    pub room: usize,
}

impl Wait {
    /// Nothing waits: everything that will be known is known.
    pub const NONE: Self = Self { patience: 0, room: 0 };
}

/// What became of events that waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// They wait now.
    pub waiting: u64,
    /// Their pods became known while they waited.
    pub found: u64,
    /// Their patience ended.
    pub gave_up: u64,
    /// They made room for others.
    pub crowded_out: u64,
}

/// Events that wait.
#[derive(Debug)]
pub(crate) struct Waiting {
    wait: Wait,
    now: UnixNanos,
    queue: VecDeque<FlowEvent>,
    /// How many slices of each flow wait.
    flows: HashMap<Flow, usize>,
    waited: Waited,
}

/// Both ends in one order, and the begin.
type Flow = (FlowKey, UnixNanos);

impl Waiting {
    pub(crate) fn new(wait: Wait) -> Self {
        Self { wait, now: UnixNanos::MIN, queue: VecDeque::new(), flows: HashMap::new(), waited: Waited::default() }
    }

    /// What became of those that waited.
    pub(crate) fn waited(&self) -> Waited {
        Waited { waiting: self.queue.len() as u64, ..self.waited }
    }

    /// Takes an event; gives back those whose time has come, it among them or not.
    pub(crate) fn take(&mut self, event: FlowEvent, view: &AddressView) -> Vec<FlowEvent> {
        let waits_already = self.flows.contains_key(&flow(&event));
        if !waits_already && (self.is_over(&event) || is_known(&event, view)) {
            return vec![event];
        }
        self.push(event);
        let mut out = Vec::new();
        while self.queue.len() > self.wait.room {
            self.waited.crowded_out += 1;
            out.extend(self.queue.pop_front());
        }
        out.iter().for_each(|event| self.left(event));
        out
    }

    fn push(&mut self, event: FlowEvent) {
        *self.flows.entry(flow(&event)).or_default() += 1;
        self.queue.push_back(event);
    }

    fn left(&mut self, event: &FlowEvent) {
        let flow = flow(event);
        if let Some(slices) = self.flows.get_mut(&flow) {
            *slices -= 1;
            if *slices == 0 {
                self.flows.remove(&flow);
            }
        }
    }

    /// Those whose time has come, at a time.
    pub(crate) fn due(&mut self, now: UnixNanos, view: &AddressView) -> Vec<FlowEvent> {
        self.now = self.now.max(now);
        let mut out = Vec::new();
        self.flows.clear();
        for event in std::mem::take(&mut self.queue) {
            if is_known(&event, view) {
                self.waited.found += 1;
                out.push(event);
            } else if self.is_over(&event) {
                self.waited.gave_up += 1;
                out.push(event);
            } else {
                self.push(event);
            }
        }
        out
    }

    /// All of them: nobody will come any more.
    pub(crate) fn drain(&mut self) -> Vec<FlowEvent> {
        self.waited.gave_up += self.queue.len() as u64;
        self.flows.clear();
        std::mem::take(&mut self.queue).into()
    }

    fn is_over(&self, event: &FlowEvent) -> bool {
        self.wait.patience == 0 || event.flow_start.saturating_add(self.wait.patience) <= self.now
    }
}

fn flow(event: &FlowEvent) -> Flow {
    let (one, other) = (event.key, event.key.reversed());
    let ends = |key: &FlowKey| (key.source, key.source_port);
    (if ends(&one) <= ends(&other) { one } else { other }, event.flow_start)
}

fn is_known(event: &FlowEvent, view: &AddressView) -> bool {
    let key = event.key;
    let end = |ip, port| -> End { view.end(ip, port, event.flow_start) };
    view.knows(event.flow_start)
        && end(key.source.ip(), key.source_port).unknown_reason.is_none()
        && end(key.destination.ip(), key.destination_port).unknown_reason.is_none()
}

#[cfg(test)]
mod tests;
