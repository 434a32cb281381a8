//! A lab that is up: namespaces, links and processes of a scenario, and the one place where they come and go.
//!
//! Always holds: whatever is made is on disk before it is made, so that it can be removed by whoever comes; a pod is in
//! the API (`cluster.yaml`, `on_change`) before anybody finds its name, and its name is gone before it ends.

use crate::{
    control::{Control, PodSpec},
    error::Error,
    names,
    network::{self, Link, Purpose},
    process::{self, Process},
    scenario::{Party, Scenario, Server},
    state::{Folder, Keeper, State, valid_name, write_json, write_whole},
    world::{Ending, LabPod, World},
};
use model::cluster::{Cluster, WorkloadKey};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    net::IpAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long pods' processes have to come up.
const READY_WITHIN: Duration = Duration::from_secs(20);

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
        let name = options.name.clone().unwrap_or_else(|| scenario.name.to_lowercase());
        if !valid_name(&name) {
            let remedy = "give it another with letters, digits and `-`, at most 40".to_owned();
            return Err(Error::Lacking { what: format!("a usable name (not `{name}`)"), remedy });
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

    fn children(&self) -> MutexGuard<'_, BTreeMap<String, Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self) -> String {
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
    fn save(&self) -> Result<(), Error> {
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
        self.save()
    }

    /// A pod in the books, not yet in the kernel.
    fn plan_pod(&self, workload: &WorkloadKey, addresses: Option<Vec<IpAddr>>) -> Result<LabPod, Error> {
        let planned = self.world_mut().add(&self.scenario, &self.folder.prefix(), workload, addresses);
        let full = || Error::Lacking {
            what: "a free pod address".to_owned(),
            remedy: "widen the node's podCIDRs, or run for a shorter time".to_owned(),
        };
        planned.ok_or_else(full)
    }

    fn bring_up_pods(&self, pods: &[LabPod]) -> Result<(), Error> {
        self.stopped()?;
        let node = self.node();
        network::create(&pods.iter().map(|pod| (pod.netns.clone(), Purpose::Leaf)).collect::<Vec<_>>())?;
        let links = pods.iter().map(|LabPod { link, netns, addresses, .. }| {
            let sources = &self.scenario.node.addresses;
            Link { router: &node, name: link, leaf: netns, addresses, sources, behind: &[] }
        });
        network::connect(&links.collect::<Vec<_>>())?;
        self.stopped()?;
        pods.iter().try_for_each(|pod| self.start(pod))?;
        pods.iter().try_for_each(|pod| self.wait_ready(&self.client_of(pod)))
    }

    fn start(&self, pod: &LabPod) -> Result<(), Error> {
        let namespace = &pod.namespace;
        let dns = match &self.scenario.dns {
            Some(workload) => self.world().living_of(workload).next().map_or(Vec::new(), |pod| pod.addresses.clone()),
            None => Vec::new(),
        };
        let domains = [format!("{namespace}.svc.cluster.local."), "svc.cluster.local.".into(), "cluster.local.".into()];
        let party = Party::Workload(pod.workload.clone());
        self.spawn(&pod.uid, pod.full_name(), &pod.netns, &party, pod.addresses.clone(), dns, domains.to_vec())
    }

    fn start_outside(&self, name: &str) -> Result<(), Error> {
        let addresses = self.scenario.outside.get(name).cloned().unwrap_or_default();
        let party = Party::Outside(name.to_owned());
        self.spawn(&outside_key(name), name.to_owned(), &self.outside_netns(name), &party, addresses, vec![], vec![])
    }

    #[allow(clippy::too_many_arguments)]
    fn spawn(
        &self,
        key: &str,
        name: String,
        netns: &str,
        party: &Party,
        addresses: Vec<IpAddr>,
        dns: Vec<IpAddr>,
        search: Vec<String>,
    ) -> Result<(), Error> {
        let spec = PodSpec {
            name,
            netns: network::path_of(netns),
            addresses,
            serve: self.scenario.serves.get(party).cloned().unwrap_or_default(),
            dns,
            search,
            records: self.folder.file("records.json"),
            socket: self.folder.pod_file(key, "sock"),
            pids: self.folder.pod_file(key, "pids"),
            scratch: self.folder.pod_file(key, "d"),
        };
        std::fs::create_dir(&spec.scratch).map_err(Error::file(&spec.scratch, "cannot be made"))?;
        let file = self.folder.pod_file(key, "json");
        write_json(&file, &spec)?;
        let log_path = self.folder.pod_file(key, "log");
        let log = File::create(&log_path).map_err(Error::file(&log_path, "cannot be made"))?;
        let also = log.try_clone().map_err(Error::file(&log_path, "cannot be shared"))?;
        let (program, arguments) = self.options.pod_command.split_first().ok_or_else(|| Error::Lacking {
            what: "a program that is a pod".to_owned(),
            remedy: "name one in Options::pod_command".to_owned(),
        })?;
        let child = Command::new(program)
            .args(arguments)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(also)
            // Ctrl-C is for the lab alone, which ends its pods in order.
            .process_group(0)
            .spawn()
            .map_err(Error::file(program, "cannot be started"))?;
        self.children().insert(key.to_owned(), child);
        Ok(())
    }

    /// Waits until the pod's process obeys, which it does once it serves.
    fn wait_ready(&self, client: &Client) -> Result<(), Error> {
        let deadline = Instant::now() + READY_WITHIN;
        let key = client.key();
        while Control::connect(&client.socket).is_err() {
            self.stopped()?;
            let ended = match self.children().get_mut(&key).map(Child::try_wait) {
                Some(Ok(Some(status))) => Some(status.to_string()),
                _ => None,
            };
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.folder.pod_file(&key, "log")).unwrap_or_default();
                let why = format!("{} {}", ended.unwrap_or_else(|| "it does not answer".to_owned()), log.trim());
                return Err(Error::Pod { pod: client.name.clone(), within: READY_WITHIN, why });
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Adds a pod: made, in the API, known to the agent, and only then found by its name.
    pub(crate) fn add_pod(
        &self,
        workload: &WorkloadKey,
        addresses: Option<Vec<IpAddr>>,
        on_change: &mut dyn FnMut(&Cluster),
    ) -> Result<LabPod, Error> {
        let pod = self.plan_pod(workload, addresses)?;
        self.bring_up_pods(std::slice::from_ref(&pod))?;
        self.save()?;
        on_change(&self.cluster()?);
        self.publish_names()?;
        Ok(pod)
    }

    /// Ends a pod: no longer found by its name, no call under way, gone, and no longer in the API.
    pub(crate) fn end_pod(&self, pod: &LabPod, how: Ending, on_change: &mut dyn FnMut(&Cluster)) -> Result<(), Error> {
        self.world_mut().leaving.insert(pod.uid.clone());
        self.publish_names()?;
        {
            let _no_calls = self.traffic.write().unwrap_or_else(PoisonError::into_inner);
            self.end_process(&pod.uid);
            network::disconnect(&self.node(), &pod.link)?;
            network::remove(&pod.netns);
            self.world_mut().end(&pod.uid, how);
        }
        self.save()?;
        on_change(&self.cluster()?);
        Ok(())
    }

    fn end_process(&self, key: &str) {
        let listed = process::listed_in(&self.folder.pod_file(key, "pids"));
        if let Some(mut child) = self.children().remove(key) {
            let _ = child.kill();
            let _ = child.wait();
        }
        listed.into_iter().for_each(Process::end);
        for kind in ["json", "sock", "pids", "log"] {
            let _ = std::fs::remove_file(self.folder.pod_file(key, kind));
        }
        let _ = std::fs::remove_dir_all(self.folder.pod_file(key, "d"));
    }

    fn write_records(&self) -> Result<(), Error> {
        write_json(&self.folder.file("records.json"), &self.world().records(&self.scenario))
    }

    /// Makes the DNS server answer what is true now.
    fn publish_names(&self) -> Result<(), Error> {
        self.write_records()?;
        let Some(workload) = &self.scenario.dns else { return Ok(()) };
        let servers: Vec<Client> = self.world().living_of(workload).map(|pod| self.client_of(pod)).collect();
        for server in servers {
            let told = Control::connect(&server.socket).and_then(|mut control| control.reload());
            told.map_err(|source| Error::Control { pod: server.name, order: "read its records again", source })?;
        }
        Ok(())
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

    fn outside_netns(&self, name: &str) -> String {
        format!("{}{}", self.folder.prefix(), outside_key(name))
    }
}

impl Client {
    /// What its files are called.
    fn key(&self) -> String {
        if self.uid.is_empty() { outside_key(&self.name) } else { self.uid.clone() }
    }
}

fn outside_key(name: &str) -> String {
    format!("outside-{name}")
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
