//! `lab`: scenarios as network namespaces, up, run, down.

use crate::{
    ending::{Ending, Failure, warn},
    files, generate, output,
    output::Table,
    scenarios, tap,
    typed::{Lab as Typed, LabDown, LabRun, LabUp, LabVerb},
    watch::{Applied, Watch},
};
use lab::{Lab, Options, RunReport, Scenario};
use miette::Result;
use model::policy::PolicySet;
use std::{io::Write as _, path::Path, sync::atomic::Ordering, time::Duration};

pub(crate) fn run(typed: &Typed) -> Result<Ending> {
    match &typed.what {
        LabVerb::Up(typed) => up(typed),
        LabVerb::Run(typed) => play(typed),
        LabVerb::Down(typed) => down(typed),
    }
}

/// Why a lab could not do something.
pub(crate) fn failed(why: lab::Error) -> Failure {
    Failure::of("the lab cannot go on", why)
}

fn up(typed: &LabUp) -> Result<Ending> {
    let scenario = scenarios::find(Some(&typed.scenario))?;
    let lab = Lab::up(&scenario, &options()?).map_err(failed)?;
    let (cluster, netns) = (lab.cluster_file(), lab.node_netns());
    let mut table = Table::new(["LAB", "PODS", "CLUSTER", "NODE-NETNS"]);
    let paths = [cluster.display().to_string(), netns.display().to_string()];
    table.row([lab.name(), &lab.pods().len().to_string(), &paths[0], &paths[1]]);
    lab.detach().map_err(failed)?;
    let mut out = output::stdout();
    table.write(&mut out).and_then(|()| out.flush()).map_err(output::failed)?;
    Ok(Ending::Done)
}

/// Ctrl-C asks the lab to stop; it then takes everything down in order.
fn options() -> Result<Options, Failure> {
    Ok(Options { stop: lab::stop_on_signals().map_err(failed)?, ..Options::default() })
}

fn play(typed: &LabRun) -> Result<Ending> {
    let scenario = scenarios::find(Some(&typed.scenario))?;
    let policies = match &typed.policies {
        Some(path) => generate::read_policies(path)?,
        None => PolicySet::default(),
    };
    let options = options()?;
    let lab = attach_or_up(&scenario, &options)?;
    let tap = typed.pcap.as_deref().map(|file| tap::Tap::start(&lab.node_netns(), file)).transpose()?;
    let watch = match &typed.log {
        Some(log) => Some(Watch::start(&lab, log).map_err(|why| Failure::of("the node is not watched", why))?),
        None => None,
    };
    if let Some(watch) = &watch {
        let update = watch.apply(Applied { mode: typed.mode, policies })?;
        update.warnings.iter().for_each(|warning| warn(&warning.to_string()));
        update.not_covered.iter().for_each(|pod| warn(&format!("{} is not covered: {}", pod.pod, pod.why)));
    }
    let report = lab
        .run(Duration::from_secs(typed.seconds), &mut |cluster| {
            let followed = watch.as_ref().map(|watch| watch.follow(cluster));
            followed.and_then(Result::err).iter().for_each(|why| warn(&why.to_string()));
        })
        .map_err(failed);
    let stopped = watch.map(Watch::stop).transpose()?;
    let captured = tap.map(tap::Tap::stop).transpose()?;
    if let Some(file) = &typed.cluster {
        let objects =
            std::fs::read(lab.cluster_file()).map_err(|why| Failure::of("the cluster cannot be read", why))?;
        files::replace(file, &objects)?;
    }
    let report = match report {
        Err(_) if options.stop.load(Ordering::Relaxed) => return Ok(Ending::Done),
        report => report?,
    };
    show(&scenario, &report).map_err(output::failed)?;
    stopped.iter().for_each(|stopped| eprintln!("{} rows in the log", stopped.log.rows));
    captured.iter().for_each(|packets| eprintln!("{packets} packets captured"));
    Ok(Ending::Done)
}

/// The lab of that name if it is up, else a new one that ends with this command.
fn attach_or_up(scenario: &Scenario, options: &Options) -> Result<Lab, Failure> {
    match Lab::attach(&scenario.name.to_lowercase(), options) {
        Err(lab::Error::NotUp { .. }) => Lab::up(scenario, options),
        lab => lab,
    }
    .map_err(failed)
}

/// One row a call.
fn show(scenario: &Scenario, report: &RunReport) -> std::io::Result<()> {
    let mut out = output::stdout();
    let mut table = Table::new(["FROM", "TO", "ANSWERED", "FAILED"]);
    for call in &scenario.calls {
        let tally = report.by_call.get(&call.id).copied().unwrap_or_default();
        let (answered, failed) = (tally.answered.to_string(), tally.failed.to_string());
        table.row([call.from.to_string(), call.to.to_string(), answered, failed]);
    }
    table.write(&mut out)?;
    for failure in report.failures.iter().take(10) {
        writeln!(out, "{}", crate::escape::printable(&failure.to_string()))?;
    }
    out.flush()
}

fn down(typed: &LabDown) -> Result<Ending> {
    let names = match &typed.scenario {
        Some(scenario) => vec![name_of(scenario)],
        None => lab::names(),
    };
    for name in &names {
        lab::down(name).map_err(failed)?;
        println!("{} is down", crate::escape::printable(name));
    }
    Ok(Ending::Done)
}

/// A lab is called after its scenario's folder.
fn name_of(scenario: &Path) -> String {
    let whole = scenario.canonicalize().unwrap_or_else(|_| scenario.to_owned());
    whole.file_name().unwrap_or(whole.as_os_str()).to_string_lossy().to_lowercase()
}
