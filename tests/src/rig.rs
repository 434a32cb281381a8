//! The loaded program and `decide` in memory, side by side: the same tables, clock and packets into
//! both (law 4).

use crate::wire::Wire;
use aya::programs::{TestRun, TestRunOptions};
use datapath::{Datapath, Link, Options, TestInput, UnknownPod};
use flow::{Address, Direction, Gso, PacketBytes};
use std::collections::{BTreeMap, BTreeSet};
use verdict::{
    Effect, Hook, Limits, Mode, Room, Sheet, Sockets, Standing, Tables, Verdict,
    abi::{self, ConnectionKey, ConnectionRecord, EndpointRecord, RuleKey},
    decide, effect, make_room,
    memory::Memory,
    refuse,
};

/// TC_ACT_UNSPEC and TC_ACT_SHOT.
const PASS: i32 = -1;
const DROP: i32 = 2;

/// What both said of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The verdict in user space.
    pub verdict: Verdict,
    /// Whether it was dropped.
    pub dropped: bool,
}

/// Where and when a frame is put in.
#[derive(Clone, Copy, Debug)]
pub struct Entrance {
    /// An interface of this network namespace.
    pub ifindex: u32,
    /// Which hook.
    pub direction: Direction,
    /// The interface it came in by; 0: the node made it.
    pub ingress_ifindex: u32,
    /// How many packets of the wire it stands for (GSO); over a wire it is always one.
    pub segments: u16,
    /// Whether the kernel has yet to cut it; over a wire it never has.
    pub gso: Gso,
}

/// A frame as the kernel has it: with what no header of it says.
struct Frame<'a>(&'a [u8], Gso);

impl PacketBytes for Frame<'_> {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.read(offset)
    }

    fn length(&self) -> u32 {
        self.0.length()
    }

    fn gso(&self) -> Gso {
        self.1
    }
}

/// Both deciders.
pub struct Rig {
    /// The loaded program.
    pub kernel: Datapath,
    /// The same tables in memory.
    pub memory: Memory,
    links: BTreeMap<u32, u32>,
    input: TestInput,
    counted: BTreeMap<u32, u64>,
    /// Packets put in.
    pub packets: u64,
    /// Entries that were taken out for want of room, as no agent swept.
    pub expired: usize,
    /// Packets that test runs refuse: too short for their EtherType.
    pub refused: u64,
}

impl Rig {
    /// Loads the program with the test clock and these bounds.
    pub fn new(limits: Limits, connections: u32) -> Result<Self, datapath::Error> {
        let input = TestInput { now: 1_000_000_000_000, sockets: Sockets::None, standing: Standing::Revoked };
        let options = Options {
            test: Some(input),
            limits,
            connections: Some(connections),
            unknown_pod: UnknownPod::Deny,
            ..Options::default()
        };
        let memory = Memory::default();
        memory.limits.set(limits);
        memory.capacity.set(connections as usize);
        let kernel = Datapath::load(&options)?;
        Ok(Self {
            kernel,
            memory,
            links: BTreeMap::new(),
            input,
            counted: BTreeMap::new(),
            packets: 0,
            expired: 0,
            refused: 0,
        })
    }

    /// Leads a link to an endpoint with these own addresses (index 4: link-local).
    pub fn endpoint(&mut self, ifindex: u32, ordinal: u32, own: [Address; 5]) -> Result<(), datapath::Error> {
        let mut record: EndpointRecord = [0; 12];
        record[1] = u64::from(u32::MAX);
        for (index, address) in own.iter().enumerate() {
            [record[2 + index * 2], record[3 + index * 2]] = address.0;
        }
        self.memory.endpoints.borrow_mut().insert(ordinal, record);
        self.kernel.tables().set_endpoint(ordinal, &record)?;
        self.kernel.tables().set_link(ifindex, ordinal)?;
        self.links.insert(ifindex, ordinal);
        Ok(())
    }

    /// Attaches both directions to a wire's near end.
    pub fn attach(&mut self, wire: &Wire) -> Result<(), datapath::Error> {
        self.kernel.attach(&Link {
            ifindex: wire.ifindex,
            name: wire.name.as_str().into(),
            netns_id: -1,
            peer_ifindex: 0,
            addresses: BTreeSet::new(),
            link_local: Address::default(),
        })
    }

    /// Publishes a word.
    pub fn publish(&mut self, ordinal: u32, word: u64) -> Result<(), datapath::Error> {
        self.memory.publish(ordinal, word);
        self.kernel.tables().set_word(ordinal, word)
    }

    /// Writes a generation.
    pub fn generation(&mut self, index: u32, in_force: u32, staged: u32, mode: Mode) -> Result<(), datapath::Error> {
        let record = [u64::from(in_force) | u64::from(staged) << 32, mode as u64];
        self.memory.generations.borrow_mut().insert(index, record);
        self.kernel.tables().set_generation(index, &record)
    }

    /// Writes an identity.
    pub fn identity(&mut self, address: Address, length: u8, identity: u32) -> Result<(), datapath::Error> {
        let address = octets(verdict::memory::masked(address.octets(), length.into()));
        self.memory.put_identity(address, length, identity);
        self.kernel.tables().set_identity(&compile::Prefix { address, length }, identity)
    }

    /// Writes who opens from an address.
    pub fn peer(&mut self, address: Address, peer: u32) -> Result<(), datapath::Error> {
        self.memory.peers.borrow_mut().insert(address, peer);
        self.kernel.tables().set_peer(address, peer)
    }

    /// Writes a rule.
    pub fn rule(&mut self, key: RuleKey, rule: u32) -> Result<(), datapath::Error> {
        self.memory.rules.borrow_mut().insert(key, rule);
        self.kernel.tables().set_rule(&key, rule)
    }

    /// Gives an endpoint a prefix (length of 128) beside its own addresses.
    pub fn give(&mut self, ordinal: u32, address: Address, length: u8) -> Result<(), datapath::Error> {
        self.memory.give(ordinal, address, length);
        self.kernel.tables().give(ordinal, &compile::Prefix { address, length })
    }

    /// Writes a class of ports: `1 << bits` ports from `port` on.
    pub fn port_class(
        &mut self,
        slot: u32,
        protocol: u8,
        port: u16,
        bits: u32,
        class: u32,
    ) -> Result<(), datapath::Error> {
        let key = verdict::memory::masked(abi::port_key(slot, protocol, port), abi::PORT_PREFIX - bits);
        self.memory.put_port_class(key, abi::PORT_PREFIX - bits, class);
        self.kernel.tables().set_port_class(abi::PORT_PREFIX - bits, key, class)
    }

    /// Moves the clock.
    pub fn advance(&mut self, by: u64) -> Result<(), datapath::Error> {
        self.input.now += by;
        self.kernel.set_test(self.input)
    }

    /// What the pods' sockets answer from now on.
    pub fn sockets(&mut self, answer: Sockets) -> Result<(), datapath::Error> {
        self.input.sockets = answer;
        self.memory.sockets.set(answer);
        self.kernel.set_test(self.input)
    }

    /// What becomes of connections that policy no longer allows, from now on.
    pub fn standing(&mut self, standing: Standing) -> Result<(), datapath::Error> {
        self.input.standing = standing;
        self.memory.standing.set(standing);
        self.kernel.set_test(self.input)
    }

    /// An agent sweeps, and finds nothing to take out: the kernel leaves expiry to it for a while.
    pub fn sweeps(&mut self) -> Result<(), datapath::Error> {
        self.memory.swept.set(self.input.now);
        self.kernel.sweep().0.note(self.input.now)
    }

    /// Takes every connection out of both.
    pub fn clear(&mut self) -> Result<(), datapath::Error> {
        let (sweep, tables) = self.kernel.sweep();
        sweep.drain(tables)?;
        self.memory.connections.borrow_mut().clear();
        self.memory.shares.borrow_mut().clear();
        Ok(())
    }

    /// Puts a frame into both. `Ok(None)`: a test run cannot carry it. An error says how they differ.
    pub fn put(&mut self, at: Entrance, frame: &[u8]) -> Result<Option<Outcome>, String> {
        let mut context = [0u8; 192];
        context[36..40].copy_from_slice(&at.ingress_ifindex.to_ne_bytes());
        context[40..44].copy_from_slice(&at.ifindex.to_ne_bytes());
        context[164..168].copy_from_slice(&u32::from(at.segments).to_ne_bytes());
        if at.gso == Gso::Yes {
            context[176..180].copy_from_slice(&1448u32.to_ne_bytes());
        }
        let options =
            TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), repeat: 1, ..TestRunOptions::new() };
        let program = self.kernel.program(at.direction).map_err(|e| e.to_string())?;
        let Ok(result) = program.test_run(options) else {
            self.refused += 1;
            return Ok(None);
        };
        let outcome = self.expected(at, frame);
        self.count(at, outcome)?;
        let wanted = if outcome.dropped { DROP } else { PASS };
        if result.return_value as i32 != wanted {
            let (verdict, returned) = (outcome.verdict, result.return_value as i32);
            return Err(format!("user space says {verdict:?} ({wanted}); the kernel returned {returned}"));
        }
        Ok(Some(outcome))
    }

    /// Carries a frame over a wire, past the hook attached to its near end, with so many bytes of it in
    /// the linear part, and judges it in user space. An error says how they differ.
    pub fn carry(
        &mut self,
        wire: &Wire,
        direction: Direction,
        frame: &[u8],
        linear: usize,
    ) -> Result<Option<Outcome>, String> {
        let ingress_ifindex = if direction == Direction::Inbound { wire.far_ifindex } else { wire.ifindex };
        let at = Entrance { ifindex: wire.ifindex, direction, ingress_ifindex, segments: 1, gso: Gso::No };
        let judged = Wire::as_judged(frame);
        // Judged first here, as only then it is known whether something will arrive.
        let outcome = self.expected(at, &judged);
        let arrived = wire.carry(direction, frame, linear, !outcome.dropped).map_err(|e| e.to_string())?;
        self.count(at, outcome)?;
        match arrived == outcome.dropped {
            true => Err(format!("user space says {:?}; it arrived at the far end: {arrived}", outcome.verdict)),
            false => Ok(Some(outcome)),
        }
    }

    /// The kernel's counter of this verdict and effect must have moved by one.
    fn count(&mut self, at: Entrance, outcome: Outcome) -> Result<(), String> {
        self.packets += 1;
        let index = abi::counter_index(outcome.verdict.reason(), at.direction, outcome.dropped);
        let counted = self.kernel.counter(index).map_err(|e| e.to_string())?.packets;
        let expected = self.counted.entry(index).or_default();
        *expected += 1;
        if counted != *expected {
            let verdict = outcome.verdict;
            return Err(format!("user space says {verdict:?}; the kernel counted {counted} of {expected} packets so"));
        }
        Ok(())
    }

    fn expected(&mut self, at: Entrance, frame: &[u8]) -> Outcome {
        let Some(endpoint) = self.links.get(&at.ifindex).copied() else {
            return Outcome { verdict: verdict::unknown_pod(), dropped: true };
        };
        let hook = Hook {
            endpoint,
            direction: at.direction,
            ifindex: at.ifindex,
            ingress_ifindex: at.ingress_ifindex,
            segments: at.segments,
            now: self.input.now,
        };
        let mut sheet = Sheet::EMPTY;
        sheet.word = self.memory.word(endpoint);
        let verdict = match flow::parse(&Frame(frame, at.gso)) {
            Ok(packet) => {
                sheet.packet = packet;
                let verdict = decide(&self.memory, &hook, &mut sheet);
                if verdict.room() == Room::Lacking {
                    let before = self.memory.ended.borrow().len();
                    make_room(&self.memory, hook.now);
                    self.expired += self.memory.ended.borrow().len() - before;
                }
                verdict
            }
            Err(error) => refuse(error),
        };
        let mode = verdict::mode(&self.memory, &sheet, verdict);
        Outcome { verdict, dropped: matches!(effect(mode, verdict.reason()), Effect::DropAndLog) }
    }

    /// Every word of every connection, every share, every counter, on both sides.
    pub fn compare(&mut self) -> Result<(), String> {
        let memory: BTreeMap<ConnectionKey, ConnectionRecord> = self
            .memory
            .connections
            .borrow()
            .iter()
            .map(|(key, entry)| (*key, entry.each_ref().map(std::cell::Cell::get)))
            .collect();
        let (sweep, tables) = self.kernel.sweep();
        let kernel = sweep.all().map_err(|e| e.to_string())?;
        for key in memory.keys().chain(kernel.keys()) {
            let (user, there) = (memory.get(key), kernel.get(key));
            if user != there {
                let parts = abi::connection_parts(key);
                return Err(format!("connection {parts:?}: user space has {user:x?}, the kernel {there:x?}"));
            }
        }
        for ordinal in self.links.values() {
            for share in [verdict::Share::HalfOpen, verdict::Share::Established, verdict::Share::Tombstone] {
                let there = tables.in_use(*ordinal, share).map_err(|e| e.to_string())?;
                let user = self.memory.in_use(*ordinal, share);
                if user != there {
                    return Err(format!("share {share:?} of endpoint {ordinal}: user space {user}, kernel {there}"));
                }
            }
        }
        let counters = self.kernel.counters().map_err(|e| e.to_string())?;
        let (ended, there) = (self.memory.ended.borrow().len() as u64, counters.ended);
        if ended != there.packets || ended != there.events + there.lost {
            return Err(format!("law 7: {ended} entries ended in user space; the kernel counted {there:?}"));
        }
        let total: u64 = counters.verdicts.values().map(|counter| counter.packets).sum();
        if total != self.packets {
            return Err(format!("{} packets went in, {total} were counted", self.packets));
        }
        for ((reason, direction, dropped), counter) in &counters.verdicts {
            let told = counter.events + counter.suppressed + counter.lost;
            if reason.reports() && told != counter.packets {
                return Err(format!("law 7: {reason:?} {direction:?} dropped {dropped}: {counter:?}"));
            }
        }
        Ok(())
    }
}

fn octets(octets: [u8; 16]) -> Address {
    Address::v6(octets)
}
