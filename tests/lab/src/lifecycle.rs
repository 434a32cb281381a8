//! How pods come and go while a lab is up.
//!
//! Always holds: a pod is in the API (`cluster.yaml`, `on_change`) before anybody finds its name; its name is gone, and
//! no call is under way, before it ends; and what is made is on disk first, so that whoever comes can remove it.

use crate::{
    control::{Control, PodSpec},
    error::Error,
    lab::{Client, Lab, outside_key},
    network::{self, Link, Purpose},
    process::{self, Process},
    scenario::Party,
    state::write_json,
    translate::translate,
    world::{Ending, LabPod},
};
use model::cluster::{Cluster, WorkloadKey};
use std::{
    collections::BTreeSet,
    fs::File,
    net::IpAddr,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::PoisonError,
    thread,
    time::{Duration, Instant},
};

/// How long pods' processes have to come up.
const READY_WITHIN: Duration = Duration::from_secs(20);

impl Lab {
    /// A pod in the books, not yet in the kernel.
    pub(crate) fn plan_pod(&self, workload: &WorkloadKey, addresses: Option<Vec<IpAddr>>) -> Result<LabPod, Error> {
        let planned = self.world_mut().add(&self.scenario, &self.folder.prefix(), workload, addresses);
        let full = || Error::Lacking {
            what: "a free pod address".to_owned(),
            remedy: "widen the node's podCIDRs, or run for a shorter time".to_owned(),
        };
        planned.ok_or_else(full)
    }

    pub(crate) fn bring_up_pods(&self, pods: &[LabPod]) -> Result<(), Error> {
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

    pub(crate) fn start_outside(&self, name: &str) -> Result<(), Error> {
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
    pub(crate) fn wait_ready(&self, client: &Client) -> Result<(), Error> {
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

    pub(crate) fn write_records(&self) -> Result<(), Error> {
        write_json(&self.folder.file("records.json"), &self.world().records(&self.scenario))
    }

    /// Makes the node translate addresses of Services to the pods that serve now.
    pub(crate) fn translate(&self) -> Result<(), Error> {
        let cluster = self.cluster()?;
        let mut frontends = cluster.frontends();
        if frontends.is_empty() {
            return Ok(());
        }
        let serving: BTreeSet<IpAddr> = self.world().living().flat_map(|pod| pod.addresses.clone()).collect();
        frontends.iter_mut().for_each(|of| of.backends.retain(|backend| serving.contains(&backend.address)));
        translate(&self.node(), &frontends, &self.scenario.node.addresses)
    }

    /// Makes the DNS server answer, and the node translate, what is true now.
    fn publish_names(&self) -> Result<(), Error> {
        self.translate()?;
        self.write_records()?;
        let Some(workload) = &self.scenario.dns else { return Ok(()) };
        let servers: Vec<Client> = self.world().living_of(workload).map(|pod| self.client_of(pod)).collect();
        for server in servers {
            let told = Control::connect(&server.socket).and_then(|mut control| control.reload());
            told.map_err(|source| Error::Control { pod: server.name, order: "read its records again", source })?;
        }
        Ok(())
    }
}
