//! Source addresses that pods send from without having them: what a VPN, keepalived or a virtual machine in a pod does,
//! and what a forger does. In enforce such packets are dropped; before, this names whom that would hit.

use crate::report::ForeignSource;
use model::record::UnixNanos;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// Addresses kept of one pod; a forger makes up as many as it likes.
const KEPT: usize = 16;

/// What each pod, by UID, was seen to send from.
#[derive(Debug, Default)]
pub(crate) struct Foreign {
    of: BTreeMap<Arc<str>, Sources>,
}

#[derive(Debug, Default)]
struct Sources {
    kept: BTreeMap<IpAddr, ForeignSource>,
    /// Events of addresses beyond those kept.
    left_out: u64,
}

/// Whether an address was seen from this pod before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Met {
    New,
    Before,
}

impl Foreign {
    /// An event told of a packet from this address, which is not the pod's.
    pub(crate) fn saw(&mut self, uid: &Arc<str>, address: IpAddr, at: UnixNanos) -> Met {
        let sources = self.of.entry(uid.clone()).or_default();
        if let Some(source) = sources.kept.get_mut(&address) {
            source.events += 1;
            source.last_ns = at;
            return Met::Before;
        }
        if sources.kept.len() == KEPT {
            sources.left_out += 1;
            return Met::Before;
        }
        sources.kept.insert(address, ForeignSource { address: Some(address), events: 1, last_ns: at });
        Met::New
    }

    /// What was seen from a pod, and how many events told of further addresses.
    pub(crate) fn of(&self, uid: &str) -> (Vec<ForeignSource>, u64) {
        let sources = self.of.get(uid);
        sources.map(|of| (of.kept.values().cloned().collect(), of.left_out)).unwrap_or_default()
    }

    /// Forgets pods that are gone.
    pub(crate) fn keep(&mut self, uids: &BTreeSet<&Arc<str>>) {
        self.of.retain(|uid, _| uids.contains(uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forger_fills_its_own_list_alone_and_what_is_left_out_is_counted() {
        let (mut foreign, [forger, vpn]) = (Foreign::default(), ["forger", "vpn"].map(Arc::<str>::from));
        for number in 0..100u32 {
            let address = IpAddr::from(number.to_be_bytes());
            foreign.saw(&forger, address, i64::from(number));
        }
        let address = IpAddr::from([10, 8, 0, 1]);
        assert_eq!(foreign.saw(&vpn, address, 1), Met::New);
        assert_eq!(foreign.saw(&vpn, address, 2), Met::Before);
        assert_eq!(foreign.of("vpn"), (vec![ForeignSource { address: Some(address), events: 2, last_ns: 2 }], 0));
        let (kept, left_out) = foreign.of("forger");
        assert_eq!((kept.len(), left_out), (KEPT, 100 - KEPT as u64));
        foreign.keep(&[&vpn].into());
        assert_eq!(foreign.of("forger"), (Vec::new(), 0));
    }
}
