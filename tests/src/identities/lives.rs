//! The truth: who held which address when, and what the API server was told of it.

use super::{MS, Move, Plan, START, Said, What};
use jiff::Timestamp;
use model::{
    cluster::{ContainerPort, Owner, Pod, Workload, WorkloadKey},
    history::{Change, Entry},
    labels::{Labels, Selector},
    policy::Protocol,
    record::UnixNanos,
};
use std::{collections::HashSet, net::IpAddr};

/// Namespace, kind and name of each workload.
pub(super) const WORKLOADS: [(&str, &str); 6] = [
    ("Deployment", "web"),
    ("StatefulSet", "db"),
    ("CronJob", "tidy"),
    ("Rollout", "roll"),
    ("Pod", "bare"),
    ("DaemonSet", "proxy"),
];
/// The namespace of all.
pub(super) const NAMESPACE: &str = "shop";

/// A pod held addresses.
#[derive(Clone, Debug)]
pub struct Hold {
    /// Which of the addresses.
    pub address: usize,
    /// From when,
    pub from: UnixNanos,
    /// until when.
    pub until: UnixNanos,
    /// From when it spoke,
    pub speaks_from: UnixNanos,
    /// until when.
    pub speaks_until: UnixNanos,
    /// Whose.
    pub uid: String,
    /// Of which root owner.
    pub workload: WorkloadKey,
    /// Whether the API server was told when it ended.
    pub end_told: bool,
}

/// What the API server was told of a pod, or of what owns it.
#[derive(Clone, Debug)]
pub struct News {
    /// When the API server had it.
    pub at: UnixNanos,
    /// Added, modified or deleted.
    pub change: Change,
    /// The object then.
    pub entry: Entry,
}

/// How a pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By itself.
    Finished,
    /// Deleted.
    Deleted(Said),
    /// Deleted by force.
    Forced,
}

/// A pod.
#[derive(Clone, Debug)]
struct Life {
    object: Pod,
    workload: WorkloadKey,
    hold: usize,
    told: UnixNanos,
}

/// What happened.
#[derive(Debug, Default)]
pub struct World {
    /// Who held what when, in the order of their begin.
    pub holds: Vec<Hold>,
    /// What the API server knows, in its order.
    pub news: Vec<News>,
    /// How long it takes.
    pub until: UnixNanos,
}

/// The addresses of a number: one of each family.
pub fn addresses(number: usize) -> Vec<IpAddr> {
    let low = number as u8 + 2;
    vec![IpAddr::from([10, 244, 0, low]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(low)])]
}

impl World {
    /// Plays a plan.
    pub fn of(plan: &Plan) -> Self {
        let (mut world, mut living, mut now) = (Self::default(), Vec::new(), START);
        for (number, one) in plan.moves.iter().enumerate() {
            now += UnixNanos::from(one.after) * MS;
            world.play(plan, one, number, now, &mut living);
        }
        world.until = now + 5_000 * MS;
        world.news.sort_by_key(|news| news.at);
        world
    }

    fn play(&mut self, plan: &Plan, one: &Move, number: usize, now: UnixNanos, living: &mut Vec<Life>) {
        let pick = |index: &proptest::sample::Index, n: usize| if n == 0 { None } else { Some(index.index(n)) };
        match &one.what {
            What::Start(workload) => {
                if let Some(life) = self.start(plan, *workload, number, now, one.delays) {
                    living.push(life);
                }
            }
            What::Finish(index) => {
                if let Some(index) = pick(index, living.len()) {
                    let life = living.remove(index);
                    self.end(life, now, End::Finished, one.delays);
                }
            }
            What::Delete(index, said) => {
                if let Some(index) = pick(index, living.len()) {
                    let life = living.remove(index);
                    self.end(life, now, End::Deleted(*said), one.delays);
                }
            }
            What::Force(index) => {
                if let Some(index) = pick(index, living.len()) {
                    let life = living.remove(index);
                    self.end(life, now, End::Forced, one.delays);
                }
            }
            What::Sandbox(index) => {
                if let Some(life) = pick(index, living.len()).and_then(|index| living.get_mut(index)) {
                    self.new_sandbox(plan, life, now, one.delays);
                }
            }
        }
    }

    /// An address that is free from a time on: of several the one that was left last, as it is the hardest.
    fn free(&self, plan: &Plan, at: UnixNanos) -> Option<usize> {
        let last = |address: usize| {
            self.holds
                .iter()
                .filter(|hold| hold.address == address)
                .map(|hold| hold.until)
                .max()
                .unwrap_or(UnixNanos::MIN)
        };
        (0..plan.addresses).filter(|address| last(*address) <= at).max_by_key(|address| last(*address))
    }

    fn start(&mut self, plan: &Plan, workload: usize, number: usize, now: UnixNanos, delays: [u16; 4]) -> Option<Life> {
        let [ack, cni, status, _] = delays.map(|ms| UnixNanos::from(ms) * MS);
        let held = now + ack + cni;
        let (mut object, key, owners) = object(workload, number);
        // A name is given again when its pod is gone.
        let named = |news: &&News| matches!(&news.entry, Entry::Pod(pod) if pod.name == object.name);
        let count = |gone: bool| {
            let uids = self
                .news
                .iter()
                .filter(named)
                .filter(|news| !gone || (news.change == Change::Deleted && news.at < now));
            uids.filter_map(|news| if let Entry::Pod(pod) = &news.entry { Some(&pod.uid) } else { None })
                .collect::<HashSet<_>>()
                .len()
        };
        if count(false) > count(true) {
            return None;
        }
        if !object.host_network {
            let address = self.free(plan, held)?;
            object.uid = format!("{}-{number}", object.name);
            object.started = Some(whole(now));
            for owner in owners {
                self.news.push(News { at: now - 20 * MS, change: Change::Applied, entry: owner });
            }
            self.tell(now, Change::Applied, &object);
            object.started = Some(whole(now + ack));
            self.tell(now + ack, Change::Applied, &object);
            let runs = held + status / 2;
            let hold = Hold {
                address,
                from: held,
                until: UnixNanos::MAX,
                speaks_from: runs,
                speaks_until: UnixNanos::MAX,
                uid: object.uid.clone(),
                workload: key.clone(),
                end_told: true,
            };
            self.holds.push(hold);
            object.addresses = addresses(address);
            object.running_since = Some(whole(runs));
            self.tell(held + status, Change::Applied, &object);
        }
        Some(Life { object, workload: key, hold: self.holds.len().saturating_sub(1), told: held + status })
            .filter(|life| !life.object.host_network)
    }

    fn end(&mut self, life: Life, now: UnixNanos, how: End, delays: [u16; 4]) {
        let Life { mut object, hold, told, .. } = life;
        let [stop, release, status, gone] = delays.map(|ms| UnixNanos::from(ms) * MS);
        let speaks_from = self.holds[hold].speaks_from;
        // Nothing ends before its status is told: the kubelet tells both at once then, which is the harder half of it.
        let quick = now < told;
        // What the API server never knew the address of cannot be attributed by what it tells.
        let how = if quick && how != End::Finished { End::Deleted(Said::Yes) } else { how };
        let asked = if quick { speaks_from } else { now };
        // By force an object goes at once, its containers take their time.
        let slow = if how == End::Forced { 10 } else { 1 };
        let ended = asked + (stop * slow).max(MS);
        let released = ended + release;
        self.holds[hold].speaks_until = ended;
        self.holds[hold].until = released;
        self.holds[hold].end_told = matches!(how, End::Finished | End::Deleted(Said::Yes));
        if quick {
            // What would have told its address is part of what tells its end.
            let uid = object.uid.clone();
            self.news.retain(|news| match &news.entry {
                Entry::Pod(pod) => pod.uid != uid || pod.addresses.is_empty() || news.at < ended,
                _ => true,
            });
        }
        if let End::Deleted(_) = how {
            object.ended = Some(whole(asked + 30_000 * MS));
            self.tell(asked, Change::Applied, &object);
        }
        if self.holds[hold].end_told {
            object.ended = Some(whole(ended));
            object.completed = true;
            self.tell(ended + status, Change::Applied, &object);
        }
        let deleted = match how {
            End::Finished => released + status + gone * 20,
            // Not before the node has let go of it, and said so.
            End::Deleted(_) => released.max(ended + status) + gone,
            End::Forced => asked,
        };
        self.tell(deleted, Change::Deleted, &object);
        let job = object.owner.filter(|owner| owner.kind == "Job").map(|owner| owner.name);
        if let Some(name) = job {
            let key = WorkloadKey { namespace: NAMESPACE.into(), kind: "Job".into(), name };
            let entry = Entry::Workload(key, Workload::default());
            self.news.push(News { at: deleted + MS, change: Change::Deleted, entry });
        }
    }

    fn new_sandbox(&mut self, plan: &Plan, life: &mut Life, now: UnixNanos, delays: [u16; 4]) {
        if now < life.told {
            return;
        }
        let [stop, cni, status, _] = delays.map(|ms| UnixNanos::from(ms) * MS);
        let (left, held) = (now + stop, now + stop + cni);
        let Some(address) = self.free(plan, held) else { return };
        let before = &mut self.holds[life.hold];
        before.until = left;
        before.speaks_until = now;
        let runs = held + status / 2;
        self.holds.push(Hold {
            address,
            from: held,
            until: UnixNanos::MAX,
            speaks_from: runs,
            speaks_until: UnixNanos::MAX,
            uid: life.object.uid.clone(),
            workload: life.workload.clone(),
            end_told: true,
        });
        life.hold = self.holds.len() - 1;
        life.object.addresses = addresses(address);
        life.object.running_since = Some(whole(runs));
        life.told = held + status;
        let object = life.object.clone();
        self.tell(held + status, Change::Applied, &object);
    }

    fn tell(&mut self, at: UnixNanos, change: Change, object: &Pod) {
        self.news.push(News { at, change, entry: Entry::Pod(object.clone()) });
    }

    /// Who held an address.
    pub fn holder(&self, address: usize, at: UnixNanos) -> Option<&Hold> {
        self.holds.iter().find(|hold| hold.address == address && (hold.from..hold.until).contains(&at))
    }

    /// Who held it last before.
    pub fn last(&self, address: usize, at: UnixNanos) -> Option<&Hold> {
        self.holds.iter().filter(|hold| hold.address == address && hold.until <= at).max_by_key(|hold| hold.until)
    }
}

/// The stamp of a moment, in whole seconds, as Kubernetes writes it.
fn whole(at: UnixNanos) -> Timestamp {
    Timestamp::from_second(at.div_euclid(1_000_000_000)).expect("a time of this century")
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A pod of a workload as it is made, its root owner, and the owners that come with it.
fn object(workload: usize, number: usize) -> (Pod, WorkloadKey, Vec<Entry>) {
    let (kind, name) = WORKLOADS[workload];
    let key =
        |kind: &str, name: &str| WorkloadKey { namespace: NAMESPACE.into(), kind: kind.into(), name: name.into() };
    let owner = |kind: &str, name: &str| Owner { kind: kind.into(), name: name.into(), uid: format!("{name}-uid") };
    let mut of_pod = labels(&[("app", name)]);
    let revision = format!("r{}", number / 8);
    let (pod_name, root, above, owners) = match kind {
        "Deployment" | "Rollout" => {
            let hash = if kind == "Rollout" { "rollouts-pod-template-hash" } else { "pod-template-hash" };
            of_pod.insert(hash.into(), revision.clone());
            let set = format!("{name}-{revision}");
            let selector = Selector::of(of_pod.clone());
            let middle = Workload {
                owner: Some(owner(kind, name)),
                selector: Some(selector),
                template_labels: of_pod.clone(),
                ..Workload::default()
            };
            let entry = Entry::Workload(key("ReplicaSet", &set), middle);
            (format!("{set}-{number}"), key(kind, name), Some(owner("ReplicaSet", &set)), vec![entry])
        }
        "StatefulSet" => (format!("{name}-{}", number % 2), key(kind, name), Some(owner(kind, name)), vec![]),
        "CronJob" => {
            let job = format!("{name}-{}", 29_000_000 + number);
            of_pod.insert("batch.kubernetes.io/job-name".into(), job.clone());
            let middle = Workload { owner: Some(owner(kind, name)), ..Workload::default() };
            (
                format!("{job}-x"),
                key(kind, name),
                Some(owner("Job", &job)),
                vec![Entry::Workload(key("Job", &job), middle)],
            )
        }
        "DaemonSet" => (format!("{name}-{number}"), key(kind, name), Some(owner(kind, name)), vec![]),
        _ => {
            let own = format!("{name}-{number}");
            (own.clone(), key("Pod", &own), None, vec![])
        }
    };
    let pod = Pod {
        namespace: NAMESPACE.into(),
        name: pod_name,
        labels: of_pod,
        node: "node-1".into(),
        host_network: kind == "DaemonSet",
        ports: vec![ContainerPort { name: None, port: 80, protocol: Protocol::Tcp }],
        owner: above,
        ..Pod::default()
    };
    (pod, root, owners)
}
