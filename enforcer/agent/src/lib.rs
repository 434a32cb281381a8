//! The node's loop: what the cluster says becomes kernel tables, what the kernel says becomes the log.
//!
//! ```text
//! Cluster ─► compile ─► plan ─► datapath            (Agent::update)
//! datapath ─► events, sweeps ─► FlowEvent ─► observer ─► log, ledger   (all the while)
//! ```
//!
//! The loop has a thread of its own, since a network namespace belongs to a thread. Everything is
//! asked of it by message; every method waits for its answer.
#![forbid(unsafe_code)]

mod asked;
mod check;
mod expected;
mod foreign;
mod halves;
mod keeper;
mod metrics;
mod node;
mod question;
mod remembered;
pub mod report;
mod serve;
mod slices;
mod status;

pub use compile::SourcePrefixes;
pub use halves::{Certainty, HalfSeen};
pub use metrics::text as metrics_text;
pub use node::reporting::kept_policies;
pub use question::{Answer, End, Pair, Question, Said, Side};
pub use report::Report;
pub use serve::{Doors, Served};
pub use status::{NotCovered, Status, Stopped, Update, Window, mode_name};

use model::{cluster::Cluster, ledger::Ledger};
use node::{Ask, Node};
use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};
use verdict::Mode;

/// How an agent runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's network namespace; `None`: the caller's.
    pub netns: Option<PathBuf>,
    /// The node's name in the cluster.
    pub node: String,
    /// The mode where no label says another.
    pub default_mode: Mode,
    /// Whom the backends of a Service see.
    pub clients: Clients,
    /// What pods' annotations of source prefixes count for.
    pub source_prefixes: SourcePrefixes,
    /// How the program is loaded; `bpffs: None` pins nothing.
    pub datapath: datapath::Options,
    /// How long what a policy's end opens is put off, as its namespace may be ending too.
    pub settles_after: Duration,
    /// The file in which what is in force is kept for the next agent; `None`: nowhere.
    pub remembers: Option<PathBuf>,
    /// How often events are read.
    pub read_every: Duration,
    /// How often the connection table is swept: what opened or ended is told then.
    pub sweep_every: Duration,
    /// How often a flow that goes on is told.
    pub slice_every: Duration,
}

/// Whom a backend sees where a pod of this node opens to the ClusterIP of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// The pod, as kube-proxy does it by itself.
    Seen,
    /// The node (kube-proxy's `masqueradeAll`): a Service is never allowed in part, since no hook could ask the pod's
    /// policy again.
    Masqueraded,
}

impl Options {
    /// The defaults for a node.
    pub fn of_node(node: &str) -> Self {
        Self {
            netns: None,
            node: node.to_owned(),
            default_mode: Mode::Learn,
            clients: Clients::Seen,
            source_prefixes: SourcePrefixes::Ignored,
            datapath: datapath::Options::default(),
            settles_after: Duration::from_nanos(compile::SETTLES_AFTER),
            remembers: None,
            read_every: Duration::from_millis(10),
            sweep_every: Duration::from_millis(500),
            slice_every: Duration::from_secs(10),
        }
    }
}

/// Why the agent could not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node's network namespace cannot be entered.
    #[error("cannot enter the network namespace {}; it must be a file under /run/netns or /proc/PID/ns/net, and entering needs SYS_ADMIN", path.display())]
    Netns {
        /// The namespace's file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel's side.
    #[error(transparent)]
    Datapath(#[from] datapath::Error),
    /// Compiling.
    #[error(transparent)]
    Compile(#[from] compile::Error),
    /// The log.
    #[error(transparent)]
    Observer(#[from] observer::Error),
    /// The status socket.
    #[error("cannot serve the status at {}; choose another place with --socket", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Metrics are for this node alone.
    #[error(
        "{at} is no loopback address, and metrics are served to this node alone; give 127.0.0.1:PORT or [::1]:PORT"
    )]
    NotLoopback {
        /// What was asked for.
        at: SocketAddr,
    },
    /// The metrics' port.
    #[error("cannot serve metrics at {at}; choose another port")]
    Listen {
        /// Where.
        at: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The agent's thread cannot be started, or is gone.
    #[error("the agent's thread {what}")]
    Thread {
        /// What happened to it.
        what: String,
    },
}

/// A running agent. Dropping it ends it as [`Agent::leave`] does, without the answers.
pub struct Agent {
    ask: Sender<Ask>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// Loads the program and begins to read; nothing is attached before the first update. `writer` is
    /// where flows are logged.
    pub fn start(options: Options, writer: flowlog::Writer) -> Result<Self, Error> {
        let (ask, asked) = channel();
        let (ready, started) = channel();
        let thread = std::thread::Builder::new()
            .name(format!("agent-{}", options.node))
            .spawn(move || run(options, writer, &asked, &ready))
            .map_err(|e| Error::Thread { what: format!("cannot be started: {e}") })?;
        let agent = Self { ask, thread: Some(thread) };
        match started.recv() {
            Ok(result) => result.map(|()| agent),
            Err(_) => Err(gone()),
        }
    }

    /// Brings the node to what the cluster says: its NetworkPolicies in force, its staged ones staged,
    /// modes by its labels. Returns once all of it is published.
    pub fn update(&self, cluster: &Cluster) -> Result<Update, Error> {
        let cluster = Box::new(cluster.clone());
        self.answer(|reply| Ask::Update { cluster, reply })?
    }

    /// Reads every event and entry now, and hands the log to the system.
    pub fn flush(&self) -> Result<(), Error> {
        self.answer(Ask::Flush)?
    }

    /// Counters, coverage, and what went wrong lately.
    pub fn status(&self) -> Result<Status, Error> {
        self.answer(Ask::Status)?
    }

    /// Says where the objects of the next updates come from, for its status.
    pub fn comes_from(&self, from: &str) -> Result<(), Error> {
        self.ask.send(Ask::ComesFrom(from.to_owned())).map_err(|_| gone())
    }

    /// Says that what came is not in force, and why, until the next update.
    pub fn refused(&self, why: &str) -> Result<(), Error> {
        self.ask.send(Ask::Refused(why.to_owned())).map_err(|_| gone())
    }

    /// Everything a person or a program wants to know of it.
    pub fn report(&self) -> Result<Report, Error> {
        self.answer(Ask::Report)?
    }

    /// What the loaded tables say of a connection, beside the reference evaluator. Where there is no answer, the
    /// sentence says why.
    pub fn why(&self, question: Question) -> Result<Result<Answer, String>, Error> {
        self.answer(|reply| Ask::Why { question, reply })
    }

    /// Serves its status until the answer goes.
    pub fn serve(&self, doors: &Doors) -> Result<Served, Error> {
        serve::serve(doors, asked::Asked(self.ask.clone()))
    }

    /// What was learned so far.
    pub fn ledger(&self) -> Result<Ledger, Error> {
        self.answer(Ask::Ledger)
    }

    /// Takes enforcement away: detaches, removes the pins, tells every connection's last slice, closes the log.
    pub fn stop(mut self) -> Result<Stopped, Error> {
        let stopped = self.answer(Ask::Stop)?;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        stopped
    }

    /// Ends. With a place for pins enforcement stays as it is, and the next agent goes on with every connection;
    /// without one this is [`Agent::stop`].
    pub fn leave(mut self) -> Result<Stopped, Error> {
        let left = self.answer(Ask::Leave)?;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        left
    }

    fn answer<T>(&self, ask: impl FnOnce(Sender<T>) -> Ask) -> Result<T, Error> {
        let (reply, answer) = channel();
        self.ask.send(ask(reply)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let (reply, _answer) = channel();
        let _ = self.ask.send(Ask::Leave(reply));
        let _ = thread.join();
    }
}

fn gone() -> Error {
    Error::Thread { what: "is gone; its last words are in the log of this process".into() }
}

fn run(options: Options, writer: flowlog::Writer, asked: &Receiver<Ask>, ready: &Sender<Result<(), Error>>) {
    match enter(&options).and_then(|()| Node::new(options, writer)) {
        Ok(node) => {
            if ready.send(Ok(())).is_ok() {
                node.run(asked);
            }
        }
        Err(error) => {
            let _ = ready.send(Err(error));
        }
    }
}

fn enter(options: &Options) -> Result<(), Error> {
    let Some(path) = &options.netns else { return Ok(()) };
    let failed = |source| Error::Netns { path: path.clone(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).map_err(|e| failed(e.into()))
}
