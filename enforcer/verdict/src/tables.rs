//! Where the decision looks things up: maps in the kernel, memory elsewhere.

use crate::{
    Share,
    abi::{ConnectionKey, ConnectionRecord, FragmentRecord, GenerationRecord, Nanos, RuleKey},
};
use core::{cell::Cell, ops::Deref};
use flow::{Address, FlowKey};

/// What the pod's sockets say of a TCP packet that belongs to no known connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Sockets {
    /// No socket of the pod knows it, or nobody could ask.
    None = 0,
    /// The pod has this connection and no listener on its port: it is the client.
    Client = 1,
    /// The pod listens on this port: it is the server.
    Server = 2,
}

/// Entries that an endpoint may hold in each share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Limits {
    pub half_open: u64,
    pub established: u64,
    pub tombstones: u64,
}

/// What becomes of a standing connection that policy no longer allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Standing {
    /// It is revoked at its next packet.
    #[default]
    Revoked = 0,
    /// It goes on until it ends; only openings are denied.
    Kept = 1,
}

/// What became of a new entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// It is there.
    New,
    /// Another packet of the connection, on another CPU, was first: its entry stays.
    Already,
    /// The table has no room.
    Full,
}

/// What became of an entry that was to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Removed {
    /// It is gone, by this call.
    Now,
    /// Another CPU or the agent was first.
    Before,
}

/// Whose turn it is to expire entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// The caller's.
    Ours,
    /// Another CPU was first.
    Others,
}

/// Whether an address that is not the endpoint's own was given to it beside these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Further {
    /// It was.
    Given,
    /// It was not.
    No,
}

/// What `decide` asks and tells. Implementations hold no logic: they look up and store.
pub trait Tables {
    /// An entry of the connection table, shared with whoever else handles packets.
    type Entry: Deref<Target = [Cell<u64>; 9]>;

    /// The endpoint's word, read once, whole; 0 for none.
    fn word(&self, endpoint: u32) -> u64;
    /// An own address of the endpoint; zero when unused. Index 4 is the peer interface's link-local address.
    fn own_address(&self, endpoint: u32, index: usize) -> Address;
    /// Whether an IPv4 address was given to the endpoint beside its own.
    fn further(&self, endpoint: u32, address: Address) -> Further;
    /// A generation.
    fn generation(&self, index: u32) -> Option<GenerationRecord>;
    /// The identity of an address: longest prefix; 0 when none matches.
    fn identity(&self, address: Address) -> u32;
    /// Who opens from an address, where that counts beside its identity: what [`crate::abi::maps::PEERS`] holds, or 0.
    fn peer(&self, address: Address) -> u32;
    /// The class of a port in a slot with ranges: longest prefix.
    fn port_class(&self, slot: u32, protocol: u8, port: u16) -> Option<u32>;
    /// The rule under a key.
    fn rule(&self, key: &RuleKey) -> Option<u32>;

    /// The entry under a key.
    fn connection(&self, key: &ConnectionKey) -> Option<Self::Entry>;
    /// Stores a new entry, where none is.
    fn insert(&self, key: &ConnectionKey, record: &ConnectionRecord) -> Stored;
    /// Removes an entry.
    fn remove(&self, key: &ConnectionKey) -> Removed;
    /// An entry went: its counters are reported or counted as lost.
    fn ended(&self, key: &ConnectionKey, entry: &[Cell<u64>; 9]);
    /// Adds to a counter of an entry.
    fn add(&self, counter: &Cell<u64>, n: u64);

    /// The limits of the shares.
    fn limits(&self) -> Limits;
    /// What becomes of connections that policy no longer allows: the operator's choice.
    fn standing(&self) -> Standing;
    /// Entries of the endpoint in a share now.
    fn in_use(&self, endpoint: u32, share: Share) -> u64;
    /// One more in a share.
    fn take(&self, endpoint: u32, share: Share);
    /// One less in a share.
    fn release(&self, endpoint: u32, share: Share);

    /// The first fragment in a slot; zeros where there is none.
    fn fragment(&self, slot: u32) -> FragmentRecord;
    /// Puts a first fragment into a slot, over the one that is there.
    fn remember(&self, slot: u32, record: &FragmentRecord);
    /// The endpoint's bucket for neighbour discovery: time, tokens.
    fn rate(&self, endpoint: u32) -> [u64; 2];
    /// Stores the bucket.
    fn set_rate(&self, endpoint: u32, bucket: [u64; 2]);
    /// Asks the pod's sockets about a TCP packet from a peer to the pod, given as the peer would
    /// send it. Not free: asked only where the direction is open.
    fn sockets(&self, endpoint: u32, from_peer: &FlowKey) -> Sockets;
}

/// What [`crate::make_room`] asks and tells besides.
pub trait Expiring: Tables {
    /// When an agent last swept the connection table.
    fn swept(&self) -> Nanos;
    /// When entries were last expired for want of room.
    fn expired(&self) -> Nanos;
    /// Notes that they are expired now, at once for all CPUs: by the caller, if they last were when it looked.
    fn claim(&self, expired: Nanos, now: Nanos) -> Claim;
    /// Calls [`crate::expire`] with every entry of the connection table.
    fn expire_all(&self, now: Nanos);
}
