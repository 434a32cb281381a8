//! Attributes what it is given, writes it and keeps the ledger.

use crate::{
    Error, attribute,
    names::Names,
    waiting::{Wait, Waited, Waiting},
};
use flowlog::{Counts, Writer};
use model::{
    ledger::Ledger,
    record::{FlowEvent, Gap, UnixNanos},
    view::AddressView,
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// One node's observer: events in, log and ledger out.
pub struct Observer {
    view: AddressView,
    writer: Writer,
    ledger: Ledger,
    node: Arc<str>,
    instance: Arc<str>,
    unknown_ends: BTreeMap<&'static str, u64>,
    names: Names,
    waiting: Waiting,
}

impl Observer {
    /// An observer that writes to `writer`. `instance` names it in the ledger: node and start, so that a restarted
    /// observer's counts add to those of the one before.
    pub fn new(writer: Writer, view: AddressView, node: &str, instance: &str) -> Self {
        Self {
            view,
            writer,
            ledger: Ledger::default(),
            node: node.into(),
            instance: instance.into(),
            unknown_ends: BTreeMap::new(),
            names: Names::default(),
            waiting: Waiting::new(Wait::NONE),
        }
    }

    /// Lets events wait for news of their pods: for one that is told of a cluster while it observes. Time passes with
    /// [`Observer::tick`].
    #[must_use]
    pub fn that_waits(self, wait: Wait) -> Self {
        Self { waiting: Waiting::new(wait), ..self }
    }

    /// What became of events that waited.
    pub fn waited(&self) -> Waited {
        self.waiting.waited()
    }

    /// Attributes an event, counts it in the ledger and appends it to the log; now, or when its pods are known. After an
    /// error the event is counted in the ledger, and in the log's next gap where it could not be written; observing may
    /// go on.
    pub fn observe(&mut self, event: FlowEvent) -> Result<(), Error> {
        let due = self.waiting.take(event, &self.view);
        self.write(due)
    }

    fn write(&mut self, events: Vec<FlowEvent>) -> Result<(), Error> {
        // What cannot be written is in the log's next gap; the others are tried all the same.
        events.into_iter().map(|event| self.write_one(event)).fold(Ok(()), Result::and)
    }

    fn write_one(&mut self, event: FlowEvent) -> Result<(), Error> {
        let mut record = attribute(&self.view, &self.node, event);
        record.dns_name =
            self.names.of(record.client.ip.to_canonical(), record.server.ip.to_canonical(), record.event.flow_start);
        for reason in [&record.client, &record.server].into_iter().filter_map(|end| end.unknown_reason) {
            *self.unknown_ends.entry(reason).or_default() += 1;
        }
        self.ledger.add(&self.instance, &record);
        Ok(self.writer.append(&record)?)
    }

    /// Hears what a DNS server told a client, the payload of one UDP packet: flows that the client begins to an
    /// address in it, soon enough, carry the name.
    pub fn hear_dns(&mut self, at: UnixNanos, client: IpAddr, message: &[u8]) {
        self.names.hear(at, client.to_canonical(), message);
    }

    /// Notes that something was not seen, as a row and in the ledger.
    pub fn gap(&mut self, start: UnixNanos, end: UnixNanos, reason: &str, lost: u64) -> Result<(), Error> {
        let gap = Gap { start, end, node: self.node.clone(), reason: reason.into(), lost };
        self.ledger.gaps.insert(gap.clone());
        Ok(self.writer.gap(&gap)?)
    }

    /// Notes that it has watched until now, however quiet it was.
    pub fn watched(&mut self, now: UnixNanos) {
        self.ledger.watch(&self.instance, &self.node, now, now);
    }

    /// The cluster as it is from now on, ended pods included: they own the flows that are still to be told.
    pub fn set_view(&mut self, view: AddressView) {
        self.view = view;
    }

    /// The cluster as this observer knows it.
    pub fn view(&self) -> &AddressView {
        &self.view
    }

    /// What was learned so far.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Ends of rows that could not be attributed, by reason.
    pub fn unknown_ends(&self) -> &BTreeMap<&'static str, u64> {
        &self.unknown_ends
    }

    /// What the log's writer did so far.
    pub fn counts(&self) -> Counts {
        self.writer.counts()
    }

    /// Lets time pass, for the log and for what waits; about once a second.
    pub fn tick(&mut self, now: UnixNanos) -> Result<(), Error> {
        let due = self.waiting.due(now, &self.view);
        let written = self.write(due);
        self.writer.tick(now)?;
        written
    }

    /// Hands everything to the system, what waits too: after this it survives the process.
    pub fn flush(&mut self) -> Result<(), Error> {
        let waiting = self.waiting.drain();
        let written = self.write(waiting);
        self.writer.flush()?;
        written
    }

    /// Finishes the log; gives back what was learned.
    pub fn close(mut self) -> Result<(Ledger, Counts), Error> {
        let waiting = self.waiting.drain();
        self.write(waiting)?;
        let counts = self.writer.close()?;
        Ok((self.ledger, counts))
    }
}
