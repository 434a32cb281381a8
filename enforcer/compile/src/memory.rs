//! The compiled tables in memory: for the simulator, for idle connections, and for law 3.

use crate::{Endpoint, RuleTable};
use flow::Address;
use verdict::{
    abi::{PORT_PREFIX, endpoint_word, port_key},
    memory::Memory,
};

impl RuleTable {
    /// These tables for [`verdict::decide`] and [`verdict::judge`], every endpoint published under `epoch`.
    pub fn in_memory(&self, epoch: u64) -> Memory {
        let memory = Memory::default();
        for (prefix, identity) in &self.identities {
            memory.put_identity(prefix.address, prefix.length, *identity);
        }
        memory.peers.borrow_mut().extend(self.peers.iter().map(|(address, peer)| (*address, *peer)));
        memory.rules.borrow_mut().extend(self.frontends.iter().map(|(key, backends)| (*key, *backends)));
        for (number, slot) in &self.slots {
            memory.rules.borrow_mut().extend(slot.rules(*number));
            for (prefix, class) in slot.port_classes() {
                let key = port_key(*number, prefix.protocol, prefix.port);
                memory.put_port_class(key, PORT_PREFIX - u32::from(prefix.bits), class);
            }
        }
        memory.generations.borrow_mut().extend(self.generations.iter().map(|(index, record)| (*index, *record)));
        for endpoint in self.endpoints.values() {
            let mut record = [0; 12];
            record[0] = endpoint_word(epoch, endpoint.generation);
            // No namespace: nobody asks for sockets here.
            record[1] = u64::from(u32::MAX);
            let words = endpoint.addresses.iter().flat_map(|address| address.0);
            record.iter_mut().skip(2).zip(words).for_each(|(place, word)| *place = word);
            memory.endpoints.borrow_mut().insert(endpoint.ordinal, record);
            endpoint.further.iter().for_each(|prefix| memory.give(endpoint.ordinal, prefix.address, prefix.length));
        }
        memory
    }

    /// The endpoint that has this address.
    pub fn endpoint_at(&self, address: Address) -> Option<&Endpoint> {
        self.endpoints.values().find(|endpoint| endpoint.addresses.contains(&address) && address != Address::default())
    }
}
