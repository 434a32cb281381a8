//! A cluster's objects as its API server has them: listed once, then watched.
//!
//! ```text
//! list, watch ─► Raw (JSON) ─► Object (what podfence looks at) ─► Store ─► Cluster     (Reflector::changed)
//! ```
//!
//! Always holds: a cluster is given once every kind was listed, and never from half a list; an object that cannot be
//! read is left out and named, and stops nothing; a watch that fails goes on from where it was, or lists again, and
//! never gives up; of an object nothing is kept that podfence does not look at.
#![forbid(unsafe_code)]

mod kinds;
mod raw;
mod store;

use futures::{StreamExt as _, stream};
use kinds::KINDS;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt as _, watcher},
};
use model::cluster::Cluster;
use raw::Raw;
use std::{
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use store::Store;
use tokio::sync::oneshot;

/// One change seldom comes alone: the next ones are waited for this long.
const SETTLES: Duration = Duration::from_millis(30);
/// The API server ends a watch after so many seconds. Where it is gone without a word, a watch is taken for broken five
/// seconds later.
const WATCH_SECONDS: u32 = 120;

/// Which API server.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A kubeconfig file; `None`: `$KUBECONFIG`, `~/.kube/config`, or in a pod its service account.
    pub kubeconfig: Option<PathBuf>,
    /// Which context of the file; `None`: its current one.
    pub context: Option<String>,
}

/// Why the API server cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No configuration, or one that cannot be read.
    #[error("{what}; name a kubeconfig with --kubeconfig FILE, or run in a pod with a service account")]
    Configuration {
        /// What is wrong with it.
        what: String,
    },
    /// The reflector's thread cannot be started.
    #[error("the watch of the API server cannot be started: {what}")]
    Thread {
        /// Why.
        what: String,
    },
}

/// What the API server has, at one moment.
#[derive(Debug)]
pub struct Seen {
    /// The objects.
    pub cluster: Cluster,
    /// Objects that could not be read and are not in it, a sentence each.
    pub left_out: Vec<String>,
}

/// Objects that are kept up to date until this is dropped.
pub struct Reflector {
    shared: Arc<Shared>,
    server: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    store: Mutex<Store>,
    changed: Condvar,
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        // The store is whole after each of its functions.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reflector {
    /// Begins to list and to watch. That the API server does not answer yet is no error.
    pub fn start(options: Options) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = std::sync::mpsc::channel();
        let to_fill = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("reflector".to_owned())
            .spawn(move || run(options, &to_fill, stopped, &ready))
            .map_err(|why| Error::Thread { what: why.to_string() })?;
        let server = started.recv().map_err(|why| Error::Thread { what: why.to_string() })??;
        Ok(Self { shared, server, stop: Some(stop), thread: Some(thread) })
    }

    /// The API server's address.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// What there is, if it changed since it was last given; waits so long for a change. Nothing before every kind was
    /// listed once.
    pub fn changed(&self, wait: Duration) -> Option<Seen> {
        let until = Instant::now() + wait;
        let mut store = self.shared.store();
        while !store.has_news() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            store = self.shared.changed.wait_timeout(store, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(store);
        std::thread::sleep(SETTLES);
        Some(self.shared.store().take())
    }

    /// What keeps this from being up to date now, a sentence each.
    pub fn troubles(&self) -> Vec<String> {
        self.shared.store().troubles(Instant::now())
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Ready = std::sync::mpsc::Sender<Result<String, Error>>;

fn run(options: Options, shared: &Shared, stopped: oneshot::Receiver<()>, ready: &Ready) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => return drop(ready.send(Err(Error::Thread { what: why.to_string() }))),
    };
    runtime.block_on(async {
        let client = match client(options).await {
            Ok((client, server)) => {
                let _ = ready.send(Ok(server));
                client
            }
            Err(why) => return drop(ready.send(Err(why))),
        };
        tokio::select! {
            () = watch(client, shared) => {}
            _ = stopped => {}
        }
    });
}

async fn client(options: Options) -> Result<(Client, String), Error> {
    let wrong = |why: &dyn std::error::Error| Error::Configuration { what: chain(why) };
    let config = match options.kubeconfig {
        None if options.context.is_none() => Config::infer().await.map_err(|why| wrong(&why))?,
        file => {
            let read = file.map_or_else(Kubeconfig::read, Kubeconfig::read_from).map_err(|why| wrong(&why))?;
            let chosen = KubeConfigOptions { context: options.context, ..KubeConfigOptions::default() };
            Config::from_custom_kubeconfig(read, &chosen).await.map_err(|why| wrong(&why))?
        }
    };
    let server = config.cluster_url.to_string();
    Ok((Client::try_from(config).map_err(|why| wrong(&why))?, server))
}

/// Every kind, all the while.
async fn watch(client: Client, shared: &Shared) {
    let streams = KINDS.iter().enumerate().map(|(index, kind)| {
        let api: Api<Raw> = Api::all_with(client.clone(), kind);
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        watcher(api, config).default_backoff().map(move |event| (index, event)).boxed()
    });
    let mut events = stream::select_all(streams);
    while let Some((index, event)) = events.next().await {
        let mut store = shared.store();
        match event {
            Ok(event) => store.event(index, event),
            Err(why) => store.failed(index, Instant::now(), chain(&why)),
        }
        if store.has_news() {
            shared.changed.notify_all();
        }
    }
}

/// An error with its causes, in one line; a cause that the error says itself is not said twice.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str("; ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
