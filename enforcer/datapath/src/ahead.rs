//! What stands before our program in a hook. An earlier program's OK waves a packet through that ours would have
//! dropped, so it is looked for and told; nothing is done about it. It takes NET_ADMIN, not SYS_ADMIN.

use crate::{
    Attachment, Error,
    filters::{Filter, filters},
    netlink::Route,
    system::{self, TcxHook},
};
use flow::Direction;
use std::fmt;

/// Something before our program, or in its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ahead {
    /// Which packets it sees first, from the pod's side.
    pub direction: Direction,
    /// What it is.
    pub what: Overtaker,
}

/// What stands before our program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Overtaker {
    /// An XDP program of the interface.
    Xdp {
        /// Its id.
        program: u32,
    },
    /// A program on the same TCX hook, or on one while ours is a clsact filter.
    Tcx {
        /// Its id.
        program: u32,
    },
    /// A clsact filter.
    Filter {
        /// Its kind, such as `bpf` or `flower`.
        kind: String,
        /// Its priority: the lowest number runs first.
        priority: u16,
        /// Its handle.
        handle: u32,
        /// The id of its program, if it is one.
        program: Option<u32>,
    },
    /// Nothing: our program is not in the hook any more. Somebody took it out.
    OursIsGone,
}

impl fmt::Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packets = match self.direction {
            Direction::Inbound => "packets to the pod",
            Direction::Outbound => "packets from the pod",
        };
        match &self.what {
            Overtaker::Xdp { program } => write!(f, "XDP program {program} sees {packets} first"),
            Overtaker::Tcx { program } => write!(f, "TCX program {program} sees {packets} first"),
            Overtaker::Filter { kind, priority, handle, .. } => {
                write!(f, "{kind} filter {handle:#x} of priority {priority} sees {packets} first")
            }
            Overtaker::OursIsGone => write!(f, "our program was taken out of the hook for {packets}"),
        }
    }
}

/// What stands before our programs (`ours`: from the pod, to the pod) on a link. `xdp`: its XDP program.
pub(crate) fn ahead(
    route: &mut Route,
    ifindex: u32,
    xdp: Option<u32>,
    attachment: Attachment,
    ours: [u32; 2],
) -> Result<Vec<Ahead>, Error> {
    let mut found = Vec::new();
    // XDP runs where the host side receives: what the pod sends.
    found.extend(xdp.map(|program| Ahead { direction: Direction::Outbound, what: Overtaker::Xdp { program } }));
    let hooks = [(Direction::Outbound, TcxHook::Ingress), (Direction::Inbound, TcxHook::Egress)];
    for ((direction, hook), ours) in hooks.into_iter().zip(ours) {
        let programs = system::tcx_programs(ifindex, hook)
            .map_err(|source| Error::System { doing: "ask for the programs of a TCX hook", source })?;
        let before = programs.iter().take_while(|program| **program != ours).copied();
        let tcx = before.map(|program| Overtaker::Tcx { program });
        let what: Vec<Overtaker> = match attachment {
            Attachment::Tcx if !programs.contains(&ours) => vec![Overtaker::OursIsGone],
            Attachment::Tcx => tcx.collect(),
            Attachment::Clsact => tcx.chain(before_ours(filters(route, ifindex, direction)?)).collect(),
        };
        found.extend(what.into_iter().map(|what| Ahead { direction, what }));
    }
    Ok(found)
}

fn before_ours(filters: Vec<Filter>) -> Vec<Overtaker> {
    let Some(at) = filters.iter().position(Filter::is_ours) else { return vec![Overtaker::OursIsGone] };
    let overtaker = |filter: Filter| {
        let Filter { kind, priority, handle, program } = filter;
        Overtaker::Filter { kind, priority, handle, program }
    };
    filters.into_iter().take(at).map(overtaker).collect()
}
