//! A node's agent as a process, wherever the cluster's objects come from: `podfence enforce` gives them from files,
//! `podfence-agent` from the API server.
//!
//! Always holds: what cannot be read or does not fit changes nothing and is said; what is said is escaped before a
//! terminal sees it.
#![forbid(unsafe_code)]

mod told;
mod words;

pub use words::{DEFAULT_SOCKET, Standing, UnknownPod, Words};

use agent::{Agent, Doors, chain};
use flowlog::Writer;
use jiff::Timestamp;
use model::{cluster::Cluster, escape};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use told::Told;

/// The cluster's name in the log's folders.
pub const CLUSTER: &str = "default";
/// How long a source is waited for before anything else is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What is kept of the flow log.
const KEEP_BYTES: u64 = 4 << 30;
const KEEP_AGE: Duration = Duration::from_hours(30 * 24);

/// Where the cluster's objects come from.
pub trait Source {
    /// As status and log name it.
    fn name(&self) -> String;

    /// The objects, if they are others than those given last; else waits for about so long. The error is a sentence:
    /// what was given before then stays.
    fn changed(&mut self, wait: Duration) -> Option<Result<Cluster, String>>;

    /// What is wrong with it now, a sentence each.
    fn troubles(&self) -> Vec<String>;
}

/// Why the process ended otherwise than it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The flow log cannot be opened.
    #[error(transparent)]
    Log(flowlog::Error),
    /// The agent does not start.
    #[error("the agent does not start")]
    Start(#[source] agent::Error),
    /// Its status cannot be served.
    #[error(transparent)]
    Serve(agent::Error),
    /// The first objects could not be brought into force.
    #[error("nothing is enforced")]
    First(#[source] agent::Error),
    /// It is gone, or could not end.
    #[error("the agent did not end in order")]
    End(#[source] agent::Error),
}

/// Set by SIGINT and SIGTERM.
pub fn stop_flag() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

/// This machine's name.
pub fn this_machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

/// From here on, what is told goes to standard error, with its time.
pub fn say_on_standard_error() {
    let writer = || escape::Lines(io::stderr());
    let subscriber = tracing_subscriber::fmt().with_writer(writer).with_ansi(false).with_target(false).finish();
    // Refused only where somebody listens already.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Says why the process ends.
pub fn say_error(why: &dyn std::error::Error) {
    tracing::error!("{}", chain(why));
}

/// Enforces on this node what the source gives, until `stop`.
pub fn run(words: &Words, node: &str, source: &mut dyn Source, stop: &AtomicBool) -> Result<(), Error> {
    let log = flowlog::Options {
        keep_bytes: Some(KEEP_BYTES),
        keep_age: i64::try_from(KEEP_AGE.as_nanos()).ok(),
        ..flowlog::Options::default()
    };
    let now = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    let writer = Writer::open(&words.log, CLUSTER, node, log, now).map_err(Error::Log)?;
    let agent = Agent::start(words.options(node), writer).map_err(Error::Start)?;
    let doors = Doors { socket: Some(words.socket.clone()), metrics: words.metrics };
    let served = agent.serve(&doors).map_err(Error::Serve)?;
    agent.comes_from(&source.name()).map_err(Error::Serve)?;
    tracing::info!("tables: {}", told::tables(&agent.report().map_err(Error::Serve)?));
    if let Some(at) = served.metrics() {
        tracing::info!("metrics are served at http://{at}/metrics");
    }
    follow(&agent, source, stop)?;
    drop(served);
    let left = agent.leave().map_err(Error::End)?;
    let rows = left.log.rows;
    match &words.bpffs {
        Some(pins) => tracing::info!(
            "ended; what is enforced stays in force, pinned at {}: another agent goes on with it, `podfence detach` \
             takes it away; {rows} rows in the log",
            pins.display()
        ),
        None => tracing::info!("ended and detached from every link; {rows} rows in the log"),
    }
    Ok(())
}

/// Brings into force what comes. The first must; what comes later and cannot leaves what was.
fn follow(agent: &Agent, source: &mut dyn Source, stop: &AtomicBool) -> Result<(), Error> {
    let (mut told, mut troubles, mut in_force) = (Told::default(), Vec::new(), false);
    while !stop.load(Ordering::Relaxed) {
        let changed = source.changed(LOOK_EVERY);
        told.due(Instant::now());
        let now = source.troubles();
        if now != troubles {
            agent.troubles(&now).map_err(Error::Serve)?;
            troubles = now;
        }
        let updated = match changed {
            None => continue,
            Some(Err(why)) => Err(why),
            Some(Ok(cluster)) => match agent.update(&cluster) {
                Err(why) if !in_force => return Err(Error::First(why)),
                updated => updated.map_err(|why| chain(&why)),
            },
        };
        match updated {
            Ok(update) => {
                in_force = true;
                told.update(&source.name(), &update, Instant::now());
            }
            Err(why) => {
                // Its status cannot be told where it is gone, which the next update says.
                let _ = agent.refused(&why);
                tracing::error!("{why}; what was enforced before stays in force");
            }
        }
    }
    Ok(())
}
