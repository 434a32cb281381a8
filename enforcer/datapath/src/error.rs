//! What can go wrong between user space and the kernel, each with what to try.

use std::{io, path::PathBuf};

/// Why the datapath could not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused the program or a map.
    #[error("cannot load the kernel program; it needs BPF, NET_ADMIN and PERFMON, Linux 6.1 or newer, and BTF")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The object has no such program or map: it belongs to another version.
    #[error("the kernel object has no {what} `{name}`; it belongs to another version, build it again")]
    Object {
        /// Program or map.
        what: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// A hook could not be attached.
    #[error(
        "cannot attach to {interface} (interface {ifindex}); the link may have gone, or another program forbids it"
    )]
    Attach {
        /// The interface's name.
        interface: String,
        /// Its index.
        ifindex: u32,
        /// What the kernel said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A table could not be read or written.
    #[error("cannot {doing} the kernel's table {table}")]
    Table {
        /// What was tried.
        doing: &'static str,
        /// Which.
        table: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The plan needs larger tables.
    #[error(transparent)]
    TooLarge(#[from] compile::TooLarge),
    /// A netlink question failed.
    #[error("cannot {doing} over netlink; it needs NET_ADMIN")]
    Netlink {
        /// What was asked.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A pin could not be made or removed.
    #[error("cannot {doing} {}; it must lie on a bpffs that may be written to", path.display())]
    Pin {
        /// What was tried.
        doing: &'static str,
        /// With which path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is pinned belongs to another version.
    #[error(
        "the pinned table {} is another version's: {found}; this one needs: {needed}. `podfence detach` removes it, and with it all enforcement until the agent starts again",
        path.display()
    )]
    PinnedOtherwise {
        /// The pin.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it would have to be.
        needed: String,
    },
    /// Another agent has taken over what is pinned.
    #[error("another agent has taken over this node; only one may run for each place of pins, end this one")]
    TurnPassed,
    /// A system call that has no library.
    #[error("cannot {doing}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn table<E: std::error::Error + Send + Sync + 'static>(
        doing: &'static str,
        table: &'static str,
    ) -> impl Fn(E) -> Self {
        move |source| Self::Table { doing, table, source: Box::new(source) }
    }
}
