//! Who owned an address when: (address, from, until) -> pod -> root owner.

use crate::{cluster::Cluster, record::{End, UnixNanos}};
use std::net::IpAddr;

/// The inventory's answer to "whose address was this then?". Built from a [`Cluster`] that may hold
/// ended pods; asked with the flow's own time.
#[derive(Clone, Debug, Default)]
pub struct AddressView {
    _private: (),
}

impl AddressView {
    /// The view of a cluster.
    pub fn new(cluster: &Cluster) -> Self {
        let _ = cluster;
        unimplemented!()
    }

    /// Who had this address at this time (with `port` copied into the answer).
    pub fn end(&self, ip: IpAddr, port: u16, at: UnixNanos) -> End {
        let _ = (ip, port, at);
        unimplemented!()
    }

    /// Whether `port` of `protocol` (IP number) at this address was a Service's or a container's declared port then.
    pub fn serves(&self, ip: IpAddr, protocol: u8, port: u16, at: UnixNanos) -> bool {
        let _ = (ip, protocol, port, at);
        unimplemented!()
    }
}
