//! What the lab and a pod's process say to each other: one JSON line each way over a unix socket.

use crate::{
    destination::{Destination, Family},
    scenario::Served,
    traffic::Connection,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io::{self, BufRead, BufReader, Write},
    net::IpAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// What a pod's process is told at its start, as a file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PodSpec {
    /// What it calls itself in answers: namespace/name.
    pub(crate) name: String,
    /// The network namespace it enters first.
    pub(crate) netns: PathBuf,
    /// Its addresses: what it listens on.
    pub(crate) addresses: Vec<IpAddr>,
    /// What it serves.
    pub(crate) serve: Vec<Served>,
    /// Name servers, at most one a family.
    pub(crate) dns: Vec<IpAddr>,
    /// Domains that the resolver tries.
    pub(crate) search: Vec<String>,
    /// Name to addresses, for the DNS server.
    pub(crate) records: PathBuf,
    /// Where it listens for orders; there once it serves.
    pub(crate) socket: PathBuf,
    /// Where it writes its process ids.
    pub(crate) pids: PathBuf,
    /// A folder of its own.
    pub(crate) scratch: PathBuf,
}

/// Told by the lab.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Make a call.
    Call(CallOrder),
    /// Read the DNS records again.
    Reload,
}

/// One call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CallOrder {
    pub(crate) to: Destination,
    /// Instead of resolving the host.
    pub(crate) address: Option<IpAddr>,
    pub(crate) family: Family,
    /// Of several addresses of a name, the one at this place, counted round and round.
    pub(crate) turn: usize,
    pub(crate) connection: Connection,
    pub(crate) within: Duration,
}

/// The pod's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Where the call went, once known.
    pub(crate) address: Option<IpAddr>,
    pub(crate) outcome: Outcome,
    pub(crate) elapsed: Duration,
}

/// How a call went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was answered.
    Answered {
        /// Who the server says it is, where the protocol lets it say so.
        by: Option<String>,
    },
    /// It was not.
    Failed {
        /// How far it came.
        stage: Stage,
        /// What the client saw.
        error: String,
    },
}

/// How far a failed call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The name was not resolved.
    Resolve,
    /// Nobody answered, or the connection was refused.
    Reach,
    /// A connection stood, and the answer did not come or was wrong.
    Talk,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Resolve => "resolve",
            Self::Reach => "reach",
            Self::Talk => "talk",
        })
    }
}

/// The lab's end of a control socket.
pub(crate) struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    pub(crate) fn connect(socket: &Path) -> io::Result<Self> {
        Ok(Self { stream: BufReader::new(UnixStream::connect(socket)?) })
    }

    pub(crate) fn call(&mut self, order: CallOrder) -> io::Result<Answer> {
        // The pod keeps its own time; this bound is for a pod that hangs.
        let patience = order.within * 2 + Duration::from_secs(5);
        self.ask(&Order::Call(order), patience)
    }

    pub(crate) fn reload(&mut self) -> io::Result<()> {
        let answer: Result<(), String> = self.ask(&Order::Reload, Duration::from_secs(5))?;
        answer.map_err(io::Error::other)
    }

    fn ask<T: DeserializeOwned>(&mut self, order: &Order, patience: Duration) -> io::Result<T> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.stream.get_ref().set_read_timeout(Some(patience))?;
        self.stream.get_mut().write_all(&line)?;
        let mut answer = String::new();
        if self.stream.read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&answer)?)
    }
}
