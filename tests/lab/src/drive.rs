//! Traffic: calls by their schedule, jobs, deaths, rounds and attacks.
//!
//! Each client has one thread, and makes one call at a time; whatever else happens is done by the thread that runs.

use crate::{
    control::{Answer, CallOrder, Control, Outcome, Stage},
    destination::{Destination, Family, Host},
    error::Error,
    lab::{Client, Lab},
    resolve::service_named,
    scenario::{Attack, Party, PlannedCall},
    traffic::Connection,
    world::{Ending, LabPod},
};
use jiff::Timestamp;
use model::cluster::{Cluster, WorkloadKey};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How often a sleeping thread looks whether it is to stop.
const TICK: Duration = Duration::from_millis(20);
/// Failed calls that a report keeps whole.
const MOST_FAILURES: usize = 200;

/// One call, and how it went.
#[derive(Clone, Debug)]
pub struct CallOutcome {
    /// Which of the scenario's calls, by its place in the file; `None` for an attack.
    pub call: Option<usize>,
    /// Who called.
    pub from: Party,
    /// `namespace/pod`, or the outside host's name.
    pub client: String,
    /// Where it was to go.
    pub to: Destination,
    /// Over which family.
    pub family: Family,
    /// Where it went, once known.
    pub address: Option<IpAddr>,
    /// How it went.
    pub outcome: Outcome,
    /// When it began.
    pub at: Timestamp,
    /// How long it took.
    pub elapsed: Duration,
}

impl CallOutcome {
    /// Whether it was answered.
    pub fn answered(&self) -> bool {
        matches!(self.outcome, Outcome::Answered { .. })
    }
}

impl std::fmt::Display for CallOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {} over {}", self.client, self.to, self.family)?;
        if let Some(ip) = self.address {
            write!(f, " ({ip})")?;
        }
        match &self.outcome {
            Outcome::Answered { .. } => write!(f, ": answered in {:?}", self.elapsed),
            Outcome::Failed { stage, error } => write!(f, ": failed to {stage}: {error}"),
        }
    }
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct RunReport {
    /// Of each of the scenario's calls, by its place in the file: answered and failed.
    pub by_call: BTreeMap<usize, Tally>,
    /// Failed calls, the first 200.
    pub failures: Vec<CallOutcome>,
}

/// How many calls went how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Tally {
    pub answered: u64,
    pub failed: u64,
}

impl RunReport {
    /// All calls together.
    pub fn total(&self) -> Tally {
        self.by_call.values().fold(Tally::default(), |sum, one| Tally {
            answered: sum.answered + one.answered,
            failed: sum.failed + one.failed,
        })
    }

    fn add(&mut self, outcome: CallOutcome) {
        let tally = outcome.call.map(|call| self.by_call.entry(call).or_default());
        if outcome.answered() {
            tally.into_iter().for_each(|tally| tally.answered += 1);
            return;
        }
        tally.into_iter().for_each(|tally| tally.failed += 1);
        if self.failures.len() < MOST_FAILURES {
            self.failures.push(outcome);
        }
    }
}

/// What happens at some time of a run.
enum Happening {
    JobStarts { workload: WorkloadKey, lives: Duration },
    JobEnds(Box<LabPod>),
    Dies { workload: WorkloadKey, address_to: Option<(WorkloadKey, Duration)> },
    AddressGoesTo { workload: WorkloadKey, addresses: Vec<IpAddr> },
}

/// What a run's threads share.
struct Run<'a> {
    lab: &'a Lab,
    over: AtomicBool,
    report: Mutex<RunReport>,
}

/// Ends the clients' threads when the run ends, also by a panic of whoever is told of a change.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Lab {
    /// Plays the scenario's calls, jobs and events for a time. `on_change` gets the cluster after each change of pods,
    /// before anybody calls a new one.
    pub fn run(&self, duration: Duration, on_change: &mut dyn FnMut(&Cluster)) -> Result<RunReport, Error> {
        let run = Run { lab: self, over: AtomicBool::new(false), report: Mutex::default() };
        thread::scope(|scope| {
            let _over = Over(&run.over);
            let play = |client: Client| {
                let run = &run;
                scope.spawn(move || run.play(&client));
            };
            self.clients().into_iter().for_each(play);
            run.happen(duration, &mut |pod| play(self.client_of(pod)), on_change)
        })?;
        Ok(run.report.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes each of the scenario's calls once for every client pod, family and server pod; Jobs and CronJobs that make
    /// calls run once for it.
    pub fn round(&self, on_change: &mut dyn FnMut(&Cluster)) -> Result<Vec<CallOutcome>, Error> {
        let mut jobs = Vec::new();
        for job in &self.scenario.jobs {
            jobs.push(self.add_pod(&job.workload, None, on_change)?);
        }
        let outcomes = thread::scope(|scope| {
            let turns: Vec<_> =
                (self.clients().into_iter()).map(|client| scope.spawn(move || self.round_of(&client))).collect();
            turns.into_iter().flat_map(|turn| turn.join().unwrap_or_default()).collect()
        });
        for pod in jobs {
            self.end_pod(&pod, Ending::Succeeded, on_change)?;
        }
        self.stopped()?;
        Ok(outcomes)
    }

    /// Makes an attack from one pod, once for each family that its destination has.
    pub fn attack(&self, attack: &Attack) -> Result<Vec<CallOutcome>, Error> {
        self.stopped()?;
        let clients = self.clients();
        let attacker = clients.iter().find(|client| client.party == attack.from).ok_or_else(|| Error::Lacking {
            what: format!("a pod of {}", attack.from),
            remedy: "give it replicas".to_owned(),
        })?;
        let mut line = Line::new(self, attacker);
        let families = match attack.to.host {
            Host::Address(ip) => vec![Family::of(ip)],
            _ => Family::BOTH.to_vec(),
        };
        Ok(families.into_iter().map(|family| line.call(Wanted::attack(attack), family, 0)).collect())
    }

    fn calls_of<'a>(&'a self, party: &'a Party) -> impl Iterator<Item = &'a PlannedCall> {
        self.scenario.calls.iter().filter(move |call| call.from == *party)
    }

    fn round_of(&self, client: &Client) -> Vec<CallOutcome> {
        let mut line = Line::new(self, client);
        let mut outcomes = Vec::new();
        for call in self.calls_of(&client.party) {
            for family in &call.families {
                for turn in 0..self.destinations(client, &call.to).len().max(1) {
                    if self.stopped().is_err() {
                        return outcomes;
                    }
                    outcomes.push(line.call(Wanted::call(call), *family, turn));
                }
            }
        }
        outcomes
    }

    /// The living ends that a destination means, each with its addresses.
    fn destinations(&self, client: &Client, to: &Destination) -> Vec<Vec<IpAddr>> {
        let world = self.world();
        match &to.host {
            Host::Address(ip) => vec![vec![*ip]],
            Host::EveryPod { namespace } => world
                .living()
                .filter(|pod| pod.uid != client.uid && namespace.as_ref().is_none_or(|n| *n == pod.namespace))
                .filter(|pod| self.serves(&pod.workload, to))
                .map(|pod| pod.addresses.clone())
                .collect(),
            Host::Name(name) => match service_named(&self.scenario.cluster, &client.party, name) {
                Some((_, service)) if !service.cluster_ips.is_empty() => vec![service.cluster_ips.clone()],
                Some(((namespace, _), service)) => (world.living())
                    .filter(|pod| pod.is_behind(namespace, service))
                    .map(|pod| pod.addresses.clone())
                    .collect(),
                None => self.scenario.outside.get(name).cloned().into_iter().collect(),
            },
        }
    }

    fn serves(&self, workload: &WorkloadKey, to: &Destination) -> bool {
        let served = self.scenario.serves.get(&Party::Workload(workload.clone()));
        served.is_some_and(|all| {
            all.iter().any(|served| Some(served.port) == to.port && served.server.answers(to.scheme))
        })
    }
}

/// What a client is to do.
struct Wanted<'a> {
    call: Option<usize>,
    to: &'a Destination,
    connection: Connection,
}

impl<'a> Wanted<'a> {
    fn call(call: &'a PlannedCall) -> Self {
        Self { call: Some(call.id), to: &call.to, connection: call.connection }
    }

    fn attack(attack: &'a Attack) -> Self {
        Self { call: None, to: &attack.to, connection: Connection::New }
    }
}

/// A client's end of its control socket.
struct Line<'a> {
    lab: &'a Lab,
    client: &'a Client,
    control: Option<Control>,
}

impl<'a> Line<'a> {
    fn new(lab: &'a Lab, client: &'a Client) -> Self {
        Self { lab, client, control: None }
    }

    fn call(&mut self, wanted: Wanted<'_>, family: Family, turn: usize) -> CallOutcome {
        let _under_way = self.lab.traffic.read().unwrap_or_else(PoisonError::into_inner);
        let at = Timestamp::now();
        let begun = Instant::now();
        let (address, outcome, elapsed) = match self.order(&wanted, family, turn) {
            Ok(answer) => (answer.address, answer.outcome, answer.elapsed),
            Err(error) => (None, Outcome::Failed { stage: Stage::Resolve, error }, begun.elapsed()),
        };
        CallOutcome {
            call: wanted.call,
            from: self.client.party.clone(),
            client: self.client.name.clone(),
            to: wanted.to.clone(),
            family,
            address,
            outcome,
            at,
            elapsed,
        }
    }

    fn order(&mut self, wanted: &Wanted<'_>, family: Family, turn: usize) -> Result<Answer, String> {
        let Wanted { to, connection, .. } = *wanted;
        let address = self.known_address(to, family, turn)?;
        let within = self.lab.options.call_within;
        let order = CallOrder { to: to.clone(), address, family, turn, connection, within };
        let control = match &mut self.control {
            Some(control) => control,
            none => none.insert(Control::connect(&self.client.socket).map_err(|error| error.to_string())?),
        };
        let answer = control.call(order);
        if answer.is_err() {
            self.control = None;
        }
        answer.map_err(|error| format!("the client's process does not answer: {error}"))
    }

    /// The address that the client does not have to resolve: a scraper finds its targets in the API, a host outside the
    /// pods behind a load balancer.
    fn known_address(&self, to: &Destination, family: Family, turn: usize) -> Result<Option<IpAddr>, String> {
        if matches!((&to.host, &self.client.party), (Host::Name(_), Party::Workload(_))) {
            return Ok(None);
        }
        let all = self.lab.destinations(self.client, to);
        let chosen = all.get(turn % all.len().max(1)).and_then(|addresses| family.pick(addresses));
        chosen.map(Some).ok_or_else(|| format!("nobody is there over {family}"))
    }
}

impl Run<'_> {
    /// A client's calls, each at its time, until the run is over or the client leaves.
    fn play(&self, client: &Client) {
        struct Due<'a> {
            call: &'a PlannedCall,
            family: Family,
            at: Instant,
            turn: usize,
        }
        let begun = Instant::now();
        let streams = self.lab.calls_of(&client.party);
        let streams = streams.flat_map(|call| call.families.iter().map(move |family| (call, *family)));
        // Not all at once.
        let mut due: Vec<Due<'_>> = streams
            .enumerate()
            .map(|(i, (call, family))| Due { call, family, at: begun + TICK * u32::try_from(i).unwrap_or(0), turn: i })
            .collect();
        let mut line = Line::new(self.lab, client);
        while let Some(next) = due.iter_mut().min_by_key(|due| due.at) {
            if !self.sleep_until(next.at, client) {
                return;
            }
            // A scraper touches all its targets each time.
            let turns = match next.call.to.host {
                Host::EveryPod { .. } => self.lab.destinations(client, &next.call.to).len().max(1),
                _ => 1,
            };
            for _ in 0..turns {
                let outcome = line.call(Wanted::call(next.call), next.family, next.turn);
                next.turn += 1;
                self.report.lock().unwrap_or_else(PoisonError::into_inner).add(outcome);
            }
            // Who falls behind does not catch up.
            next.at = (next.at + next.call.every).max(Instant::now());
        }
    }

    /// Whether the client still calls then.
    fn sleep_until(&self, at: Instant, client: &Client) -> bool {
        loop {
            let leaves = !client.uid.is_empty() && !self.lab.world().living().any(|pod| pod.uid == client.uid);
            if leaves || self.over.load(Ordering::Relaxed) || self.lab.stopped().is_err() {
                return false;
            }
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(TICK));
        }
    }

    /// Everything but the calls.
    fn happen(
        &self,
        duration: Duration,
        play: &mut dyn FnMut(&LabPod),
        on_change: &mut dyn FnMut(&Cluster),
    ) -> Result<(), Error> {
        let begun = Instant::now();
        let mut agenda = self.agenda(duration);
        loop {
            self.lab.stopped()?;
            let over = begun.elapsed() >= duration;
            agenda.sort_by_key(|(at, _)| *at);
            // What was begun is finished, also when the time is over.
            if agenda.first().is_some_and(|(at, _)| over || *at <= begun.elapsed()) {
                let (_, happening) = agenda.remove(0);
                let follows = self.do_it(happening, play, on_change)?;
                agenda.extend(follows.map(|(after, happening)| (begun.elapsed() + after, happening)));
            } else if over {
                return Ok(());
            } else {
                thread::sleep(TICK);
            }
        }
    }

    fn agenda(&self, duration: Duration) -> Vec<(Duration, Happening)> {
        let scenario = &self.lab.scenario;
        let jobs = scenario.jobs.iter().flat_map(|job| {
            let start = || Happening::JobStarts { workload: job.workload.clone(), lives: job.lives };
            job.at.iter().map(move |at| (*at, start()))
        });
        let deaths = scenario.events.iter().map(|event| {
            (event.at, Happening::Dies { workload: event.delete.clone(), address_to: event.address_to.clone() })
        });
        jobs.chain(deaths).filter(|(at, _)| *at < duration).collect()
    }

    /// Does one thing, and returns what follows from it after a time.
    fn do_it(
        &self,
        happening: Happening,
        play: &mut dyn FnMut(&LabPod),
        on_change: &mut dyn FnMut(&Cluster),
    ) -> Result<Option<(Duration, Happening)>, Error> {
        let lab = self.lab;
        match happening {
            Happening::JobStarts { workload, lives } => {
                let pod = lab.add_pod(&workload, None, on_change)?;
                play(&pod);
                Ok(Some((lives, Happening::JobEnds(Box::new(pod)))))
            }
            Happening::JobEnds(pod) => {
                lab.end_pod(&pod, Ending::Succeeded, on_change)?;
                Ok(None)
            }
            Happening::Dies { workload, address_to } => {
                let Some(pod) = lab.world().living_of(&workload).next().cloned() else { return Ok(None) };
                // The replacement first, as in a rolling update: whoever calls always finds somebody.
                play(&lab.add_pod(&workload, None, on_change)?);
                lab.end_pod(&pod, Ending::Deleted, on_change)?;
                Ok(address_to.map(|(to, after)| {
                    (after, Happening::AddressGoesTo { workload: to, addresses: pod.addresses.clone() })
                }))
            }
            Happening::AddressGoesTo { workload, addresses } => {
                // The workload had a pod more from an earlier run: this one replaces it.
                let surplus = {
                    let world = lab.world();
                    let wanted = lab.scenario.workloads.get(&workload).map_or(1, |plan| plan.replicas as usize);
                    let mut living = world.living_of(&workload).cloned();
                    let first = living.next();
                    first.filter(|_| living.count() + 1 > wanted)
                };
                if let Some(pod) = surplus {
                    lab.end_pod(&pod, Ending::Deleted, on_change)?;
                }
                play(&lab.add_pod(&workload, Some(addresses), on_change)?);
                Ok(None)
            }
        }
    }
}
