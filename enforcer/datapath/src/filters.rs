//! Filters on the clsact hooks of an interface, asked of and changed over netlink.

use crate::{
    Error,
    attach::{HANDLE, PRIORITY},
    netlink::Route,
};
use flow::Direction;
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption},
};
use std::io;

/// A filter of a clsact hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) kind: String,
    pub(crate) priority: u16,
    pub(crate) handle: u32,
    pub(crate) program: Option<u32>,
}

impl Filter {
    /// Whether it is ours, by its handle.
    pub(crate) fn is_ours(&self) -> bool {
        self.kind == "bpf" && self.handle == u32::from(HANDLE) && self.priority == PRIORITY
    }
}

/// The hook through which packets of a direction pass, seen from the pod's side.
fn hook(direction: Direction) -> TcHandle {
    let minor = match direction {
        Direction::Outbound => TcHandle::MIN_INGRESS,
        Direction::Inbound => TcHandle::MIN_EGRESS,
    };
    TcHandle { major: u16::MAX, minor }
}

fn message(ifindex: u32, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = parent;
    message
}

/// The filters of a hook, in the order in which they run. An interface that is gone has none.
pub(crate) fn filters(route: &mut Route, ifindex: u32, direction: Direction) -> Result<Vec<Filter>, Error> {
    let request = RouteNetlinkMessage::GetTrafficFilter(message(ifindex, hook(direction)));
    let answers = match route.dump("list filters", &request) {
        // No such interface, or no such qdisc.
        Err(Error::Netlink { source, .. })
            if matches!(source.raw_os_error(), Some(libc::ENODEV | libc::EINVAL | libc::ENOENT)) =>
        {
            Vec::new()
        }
        other => other?,
    };
    let filters = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewTrafficFilter(message) => Some(read(&message)),
        _ => None,
    });
    // A classifier without a handle is announced before its filters.
    Ok(filters.filter(|filter| filter.handle != 0).collect())
}

fn read(message: &TcMessage) -> Filter {
    let TcHeader { info, handle, .. } = message.header;
    let mut filter =
        Filter { kind: String::new(), priority: (info >> 16) as u16, handle: handle.into(), program: None };
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => filter.kind.clone_from(kind),
            TcAttribute::Options(options) => {
                filter.program = options.iter().find_map(|option| match option {
                    TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    filter
}

/// Removes our filter from a hook, if it is there.
pub(crate) fn remove_ours(route: &mut Route, ifindex: u32, direction: Direction) -> Result<Removal, Error> {
    if !filters(route, ifindex, direction)?.iter().any(Filter::is_ours) {
        return Ok(Removal::Nothing);
    }
    const ETH_P_ALL: u16 = 3;
    let mut request = message(ifindex, hook(direction));
    request.header.handle = TcHandle::from(u32::from(HANDLE));
    request.header.info = u32::from(PRIORITY) << 16 | u32::from(ETH_P_ALL.to_be());
    request.attributes.push(TcAttribute::Kind("bpf".to_owned()));
    let failed = |source: io::Error| Error::Netlink { doing: "remove a filter", source };
    route.change(&RouteNetlinkMessage::DelTrafficFilter(request)).map_err(failed)?;
    Ok(Removal::Done)
}

/// Removes the clsact qdisc of an interface, if nobody's filter is left in it.
pub(crate) fn remove_empty_clsact(route: &mut Route, ifindex: u32) -> Result<Removal, Error> {
    for direction in [Direction::Inbound, Direction::Outbound] {
        if !filters(route, ifindex, direction)?.is_empty() {
            return Ok(Removal::Nothing);
        }
    }
    let mut request = message(ifindex, TcHandle::CLSACT);
    request.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    match route.change(&RouteNetlinkMessage::DelQueueDiscipline(request)) {
        Ok(()) => Ok(Removal::Done),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ENOENT | libc::EINVAL)) => Ok(Removal::Nothing),
        Err(source) => Err(Error::Netlink { doing: "remove a qdisc", source }),
    }
}

/// Whether there was something to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    Done,
    Nothing,
}
