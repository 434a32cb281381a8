//! A lab: namespaces, links and processes of a scenario, brought up, attached to, taken down.
//!
//! Always holds: what is made goes with the [`Lab`], unless it was detached; after an error while it comes up, nothing is
//! left.

use crate::{
    error::Error,
    names,
    network::{self, Link, Purpose},
    process::Process,
    scenario::{Party, Scenario, Server},
    state::{Folder, Keeper, State, valid_name, write_whole},
    world::{LabPod, World},
};
use model::cluster::Cluster;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Child,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How a lab is brought up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name: lower-case letters, digits, `-`. The scenario's unless given.
    pub name: Option<String>,
    /// The program that is a pod, to which the lab adds one argument; it must hand its arguments to [`crate::pod::main`].
    pub pod_command: Vec<OsString>,
    /// Set by whoever wants the lab to stop; [`stop_on_signals`] makes one that Ctrl-C sets.
    pub stop: Arc<AtomicBool>,
    /// How long a call may take.
    pub call_within: Duration,
}

impl Default for Options {
    /// This very program with the hidden verb `lab-pod`, calls of one second.
    fn default() -> Self {
        let own = std::env::current_exe().unwrap_or_else(|_| "podfence".into());
        Self {
            name: None,
            pod_command: vec![own.into(), "lab-pod".into()],
            stop: Arc::default(),
            call_within: Duration::from_secs(1),
        }
    }
}

/// The program `lab-pod` beside this one or a folder above, where cargo puts it: a [`Options::pod_command`] for tests
/// and others that are no pod themselves.
pub fn pod_program() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(Error::file("/proc/self/exe", "cannot be read"))?;
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join("lab-pod")).find(|path| path.is_file());
    found.ok_or_else(|| Error::Lacking {
        what: format!("the program `lab-pod` beside {}", own.display()),
        remedy: "run `cargo build -p lab` with the same profile".to_owned(),
    })
}

/// A flag that SIGINT, SIGTERM and SIGHUP set instead of ending the process.
pub fn stop_on_signals() -> Result<Arc<AtomicBool>, Error> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(Error::file("signal", "cannot be caught"))?;
    }
    Ok(stop)
}

/// A lab. Unless it was detached or attached to, it goes down when this value goes.
#[derive(Debug)]
pub struct Lab {
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) options: Options,
    pub(crate) folder: Folder,
    keeper: Keeper,
    owned: Owned,
    world: RwLock<World>,
    /// Calls hold it to read, the end of a pod to write: no call is under way when a pod ends.
    pub(crate) traffic: RwLock<()>,
    children: Mutex<BTreeMap<String, Child>>,
}

/// Whether the lab goes down with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owned {
    Yes,
    No,
}

/// Who makes calls: a pod or an outside host.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) party: Party,
    /// `namespace/pod`, or the outside host's name.
    pub(crate) name: String,
    /// The pod's UID; empty for an outside host.
    pub(crate) uid: String,
    pub(crate) socket: PathBuf,
}

impl Lab {
    /// Brings a scenario up: every standing pod serves when this returns. After an error nothing is left.
    pub fn up(scenario: &Scenario, options: &Options) -> Result<Self, Error> {
        network::permitted()?;
        needs_redis(scenario)?;
        let name = options.name.clone().unwrap_or_else(|| scenario.name.clone());
        if !valid_name(&name) {
            return Err(Error::Name { name });
        }
        let keeper = Process::own().map_or(Keeper::Nobody, Keeper::Process);
        let mut lab = Self {
            scenario: Arc::new(scenario.clone()),
            options: options.clone(),
            folder: Folder::of(&name),
            keeper,
            owned: Owned::No,
            world: RwLock::default(),
            traffic: RwLock::default(),
            children: Mutex::default(),
        };
        lab.folder.claim(&lab.state())?;
        lab.owned = Owned::Yes;
        lab.keep_scenario()?;
        lab.bring_up_network()?;
        lab.bring_up_standing()?;
        Ok(lab)
    }

    /// A lab that another process brought up and detached from.
    pub fn attach(name: &str, options: &Options) -> Result<Self, Error> {
        network::permitted()?;
        let folder = Folder::of(name);
        let State { keeper, scenario: scenario_name, pod_command, world } = folder.read()?;
        if keeper != Keeper::Nobody {
            return Err(Error::Busy { name: name.to_owned() });
        }
        let mut scenario = Scenario::load(&folder.file("scenario"))?;
        scenario.name = scenario_name;
        Ok(Self {
            scenario: Arc::new(scenario),
            options: Options { name: Some(name.to_owned()), pod_command, ..options.clone() },
            folder,
            keeper,
            owned: Owned::No,
            world: RwLock::new(world),
            traffic: RwLock::default(),
            children: Mutex::default(),
        })
    }

    /// Leaves the lab up for [`Lab::attach`] and [`crate::down`].
    pub fn detach(mut self) -> Result<(), Error> {
        self.keeper = Keeper::Nobody;
        self.folder.write(&self.state())?;
        self.owned = Owned::No;
        Ok(())
    }

    /// Takes everything down. Dropping does the same.
    pub fn down(mut self) {
        self.owned = Owned::Yes;
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.folder.name
    }

    /// What it plays.
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// Its folder, gone with it.
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// Every object of the cluster by now, pods that ended among them: for `--cluster`.
    pub fn cluster_file(&self) -> PathBuf {
        self.folder.file("cluster.yaml")
    }

    /// The same, read.
    pub fn cluster(&self) -> Result<Cluster, Error> {
        let path = self.cluster_file();
        let text = std::fs::read_to_string(&path).map_err(Error::file(&path, "cannot be read"))?;
        let mut cluster = Cluster::default();
        model::yaml::read_into(&mut cluster, &path.display().to_string(), &text)?;
        Ok(cluster)
    }

    /// The node's network namespace: where every pod's link has its host side, and an agent belongs. See
    /// [`crate::enter`].
    pub fn node_netns(&self) -> PathBuf {
        network::path_of(&self.node())
    }

    /// A pod's network namespace.
    pub fn pod_netns(&self, pod: &LabPod) -> PathBuf {
        network::path_of(&pod.netns)
    }

    /// The network namespace of a host outside the cluster.
    pub fn host_netns(&self, name: &str) -> PathBuf {
        network::path_of(&self.outside_netns(name))
    }

    /// Every pod so far, those that ended among them.
    pub fn pods(&self) -> Vec<LabPod> {
        self.world().pods.clone()
    }

    /// Whether somebody asked it to stop.
    pub(crate) fn stopped(&self) -> Result<(), Error> {
        if self.options.stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    pub(crate) fn world(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn world_mut(&self) -> RwLockWriteGuard<'_, World> {
        self.world.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn children(&self) -> MutexGuard<'_, BTreeMap<String, Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn node(&self) -> String {
        self.folder.prefix() + "node"
    }

    fn beyond(&self) -> String {
        self.folder.prefix() + "outside"
    }

    fn state(&self) -> State {
        State {
            keeper: self.keeper,
            scenario: self.scenario.name.clone(),
            pod_command: self.options.pod_command.clone(),
            world: self.world().clone(),
        }
    }

    fn keep_scenario(&self) -> Result<(), Error> {
        let folder = self.folder.file("scenario");
        std::fs::create_dir(&folder).map_err(Error::file(&folder, "cannot be made"))?;
        let [cluster, traffic] = &self.scenario.texts;
        write_whole(&folder.join("cluster.yaml"), cluster.as_bytes())?;
        write_whole(&folder.join("traffic.yaml"), traffic.as_bytes())
    }

    /// Writes down what is, for agents (cluster.yaml) and for whoever goes on or cleans up (state.json).
    pub(crate) fn save(&self) -> Result<(), Error> {
        self.folder.write(&self.state())?;
        let mut text = String::new();
        for object in self.world().objects(&self.scenario) {
            let yaml = serde_saphyr::to_string(&object)
                .map_err(|error| Error::State { path: self.cluster_file(), message: error.to_string() })?;
            text += "---\n";
            text += &yaml;
        }
        write_whole(&self.cluster_file(), text.as_bytes())
    }

    /// The node, its uplink, and the hosts behind that.
    fn bring_up_network(&self) -> Result<(), Error> {
        let (node, beyond) = (self.node(), self.beyond());
        let plan = &self.scenario.node;
        let hosts: Vec<(String, String, &[IpAddr])> = (self.scenario.outside.iter())
            .map(|(name, addresses)| (self.outside_netns(name), outside_link(name), addresses.as_slice()))
            .collect();
        let mut namespaces = vec![(node.clone(), Purpose::Router), (beyond.clone(), Purpose::Router)];
        namespaces.extend(hosts.iter().map(|(namespace, ..)| (namespace.clone(), Purpose::Leaf)));
        network::create(&namespaces)?;
        let behind = [plan.pods_v4.into(), plan.pods_v6.into()];
        let uplink = Link {
            router: &beyond,
            name: "node",
            leaf: &node,
            addresses: &plan.addresses,
            sources: &[],
            behind: &behind,
        };
        let far = hosts.iter().map(|(namespace, link, addresses)| Link {
            router: &beyond,
            name: link,
            leaf: namespace,
            addresses,
            sources: &[],
            behind: &[],
        });
        network::connect(&std::iter::once(uplink).chain(far).collect::<Vec<_>>())
    }

    fn bring_up_standing(&self) -> Result<(), Error> {
        let mut pods = Vec::new();
        for (workload, plan) in &self.scenario.workloads {
            for _ in 0..plan.replicas {
                pods.push(self.plan_pod(workload, None)?);
            }
        }
        // Pods know their resolvers' addresses, and the DNS server its names, from the start.
        self.write_records()?;
        self.bring_up_pods(&pods)?;
        for name in self.scenario.outside.keys() {
            self.start_outside(name)?;
        }
        let outside: Vec<Client> = self.clients().into_iter().filter(|client| client.uid.is_empty()).collect();
        outside.iter().try_for_each(|client| self.wait_ready(client))?;
        self.save()?;
        self.translate()
    }

    pub(crate) fn client_of(&self, pod: &LabPod) -> Client {
        Client {
            party: Party::Workload(pod.workload.clone()),
            name: pod.full_name(),
            uid: pod.uid.clone(),
            socket: self.folder.pod_file(&pod.uid, "sock"),
        }
    }

    /// Everybody who may call now.
    pub(crate) fn clients(&self) -> Vec<Client> {
        let pods: Vec<Client> = self.world().living().map(|pod| self.client_of(pod)).collect();
        let outside = self.scenario.outside.keys().map(|name| Client {
            party: Party::Outside(name.clone()),
            name: name.clone(),
            uid: String::new(),
            socket: self.folder.pod_file(&outside_key(name), "sock"),
        });
        pods.into_iter().chain(outside).collect()
    }

    /// An underscore is in no name of Kubernetes', so no pod's namespace is called the same.
    pub(crate) fn outside_netns(&self, name: &str) -> String {
        format!("{}outside_{name}", self.folder.prefix())
    }
}

impl Client {
    /// What its files are called.
    pub(crate) fn key(&self) -> String {
        if self.uid.is_empty() { outside_key(&self.name) } else { self.uid.clone() }
    }
}

/// What an outside host's files are called: short, as a socket's path must be.
pub(crate) fn outside_key(name: &str) -> String {
    format!("outside-{}", names::hex(&["outside", name], 8))
}

fn outside_link(name: &str) -> String {
    format!("veth{}", names::hex(&["outside", name], 8))
}

/// A real database needs the real program.
fn needs_redis(scenario: &Scenario) -> Result<(), Error> {
    let wanted = scenario.serves.values().flatten().any(|served| served.server == Server::Redis);
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&folders).any(|folder| folder.join("redis-server").is_file());
    if !wanted || there {
        return Ok(());
    }
    Err(Error::Lacking {
        what: "the program `redis-server`, which the scenario serves,".to_owned(),
        remedy: "install it (Debian: apt-get install --no-install-recommends redis-server)".to_owned(),
    })
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.owned == Owned::No {
            return;
        }
        let children = std::mem::take(&mut *self.children());
        let mut children: Vec<Child> = children.into_values().collect();
        for child in &mut children {
            let _ = child.kill();
        }
        for child in &mut children {
            let _ = child.wait();
        }
        self.folder.tear_down();
    }
}
