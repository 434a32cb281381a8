//! Why nothing, or nothing more, could be observed.

/// What went wrong, with the file or interface and what to try.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// libpcap does not read the file.
    #[error(
        "cannot read the capture {file}: {why}; it should be a pcap or pcapng file as `tcpdump -w` writes it, \
         unpacked if it was compressed"
    )]
    Open {
        /// The file as the user named it.
        file: String,
        /// What libpcap said.
        why: String,
    },
    /// The file has no packet that could be read, and more bytes.
    #[error("cannot read the capture {file}: packet 1 is corrupt: {why}; nothing was read")]
    Corrupt {
        /// The file.
        file: String,
        /// What libpcap said.
        why: String,
    },
    /// A capture of something that is no IP network we know.
    #[error("{from} has link type {name} ({number}), which is not supported; supported are {SUPPORTED}")]
    LinkType {
        /// File or interface.
        from: String,
        /// As libpcap calls it.
        name: String,
        /// Its DLT number.
        number: i32,
    },
    /// A live capture could not be begun or went wrong.
    #[error(
        "cannot capture on interface {interface}: {why}; `ip link` lists interfaces, and capturing needs root or \
         CAP_NET_RAW"
    )]
    Live {
        /// The interface.
        interface: String,
        /// What libpcap said.
        why: String,
    },
    /// A file of flows cannot be read.
    #[error("{file}: cannot be read; give a file with one flow a line, as JSON")]
    Import {
        /// The file.
        file: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A line of such a file is no flow; those before it were observed.
    #[error("{file}:{line}: {why}")]
    ImportLine {
        /// The file.
        file: String,
        /// One-based.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The log.
    #[error(transparent)]
    Log(#[from] flowlog::Error),
}

/// The link types that captures may have.
const SUPPORTED: &str = "EN10MB (Ethernet, with VLAN tags), LINUX_SLL, LINUX_SLL2, RAW, IPV4 and IPV6";
