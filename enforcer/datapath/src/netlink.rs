//! The few questions asked of rtnetlink, over a blocking socket in the caller's network namespace.

use crate::Error;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;

/// rtnetlink's groups of changes (`enum rtnetlink_groups`): of links, and of addresses of either family.
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;

const LISTEN: &str = "listen to netlink's notices";

/// A socket that asks for dumps.
pub(crate) struct Route {
    socket: Socket,
    sequence: u32,
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Netlink { doing, source }
}

impl Route {
    pub(crate) fn open() -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("open a netlink socket"))?;
        socket.bind_auto().map_err(failed("bind a netlink socket"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect a netlink socket"))?;
        // Without it the kernel ignores the namespace that an address dump asks for.
        socket.set_netlink_get_strict_chk(true).map_err(failed("ask netlink for strict checking"))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Every answer to a dump request. A dump that a change interrupted is asked again.
    pub(crate) fn dump(
        &mut self,
        doing: &'static str,
        request: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        for _ in 0..10 {
            if let Some(answers) = self.dump_once(doing, request)? {
                return Ok(answers);
            }
        }
        Err(Error::Netlink { doing, source: io::Error::other("the dump was interrupted by changes ten times") })
    }

    /// Asks for a change, and waits until it is made.
    pub(crate) fn change(&mut self, request: &RouteNetlinkMessage) -> io::Result<()> {
        self.send(request, NLM_F_ACK)?;
        loop {
            let (received, _) = self.socket.recv_from_full()?;
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&received)
                .map_err(|e| io::Error::other(e.to_string()))?;
            if message.header.sequence_number != self.sequence {
                continue;
            }
            if let NetlinkPayload::Error(answer) = message.payload {
                return if answer.code.is_none() { Ok(()) } else { Err(answer.to_io()) };
            }
        }
    }

    fn send(&mut self, request: &RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags | NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request.clone()));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    fn dump_once(
        &mut self,
        doing: &'static str,
        request: &RouteNetlinkMessage,
    ) -> Result<Option<Vec<RouteNetlinkMessage>>, Error> {
        const INTERRUPTED: u16 = 0x10;
        self.send(request, NLM_F_DUMP).map_err(failed(doing))?;
        let mut answers = Vec::new();
        let mut whole = true;
        loop {
            let (received, _) = self.socket.recv_from_full().map_err(failed(doing))?;
            let mut rest = &received[..];
            while rest.len() >= 16 {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|e| Error::Netlink { doing, source: io::Error::other(e.to_string()) })?;
                let length = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                whole &= message.header.flags & INTERRUPTED == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Done(_) => return Ok(whole.then_some(answers)),
                    NetlinkPayload::Error(error) => return Err(failed(doing)(error.to_io())),
                    _ => {}
                }
            }
        }
    }
}

/// Tells when something came, went or changed, so that nobody has to look in vain.
pub struct Notices {
    socket: Socket,
}

impl Notices {
    /// Listens from now on to changes of links, in the caller's network namespace.
    pub fn of_links() -> Result<Self, Error> {
        Self::listen(&[RTNLGRP_LINK])
    }

    /// Listens from now on to changes of addresses of the caller's network namespace.
    pub fn of_addresses() -> Result<Self, Error> {
        Self::listen(&[RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR])
    }

    fn listen(groups: &[u32]) -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("open a netlink socket"))?;
        socket.bind_auto().map_err(failed("bind a netlink socket"))?;
        for group in groups {
            socket.add_membership(*group).map_err(failed(LISTEN))?;
        }
        socket.set_non_blocking(true).map_err(failed(LISTEN))?;
        Ok(Self { socket })
    }

    /// Whether anything changed since the last time. A queue that overflowed means yes.
    pub fn any(&self) -> Result<Changed, Error> {
        let mut changed = Changed::No;
        let mut buffer = Vec::with_capacity(16_384);
        loop {
            buffer.clear();
            match self.socket.recv_from(&mut buffer, 0) {
                Ok(_) => changed = Changed::Yes,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(changed),
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => changed = Changed::Yes,
                Err(e) => return Err(failed(LISTEN)(e)),
            }
        }
    }
}

/// Whether something changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Nothing since the last time.
    No,
    /// Something came, went or changed.
    Yes,
}
