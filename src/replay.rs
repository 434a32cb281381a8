//! `replay`: recorded flows against policies.

use crate::{
    ending::{Ending, Failure, warn},
    escape, manifests, output,
    typed::{self, FailOnFlow, ReplayOutput},
};
use flowlog::Row;
use review::{
    Input,
    replay::{Change, Replay, Replayed},
};
use std::io::Write as _;

pub(crate) fn run(typed: &typed::Replay) -> miette::Result<Ending> {
    let cluster = manifests::read(&typed.manifests)?;
    let mut replay = Replay::new(Input { cluster: &cluster, policies: &cluster.policies });
    let mut gaps = 0u64;
    let busy = output::busy("reading the flow log");
    let summary = flowlog::read(&typed.log, &flowlog::Filter::default(), &mut |row| match row {
        Row::Flow(record) => replay.add(&record),
        Row::Gap(_) => gaps += 1,
    })
    .map_err(|why| Failure::whole(&why))?;
    drop(busy);
    for damaged in &summary.damaged {
        warn(&format!("{damaged}; what could not be read of it is not replayed"));
    }
    if summary.rows == 0 {
        let what = format!("{} holds no flows, so there is nothing to replay", typed.log.display());
        return Err(Failure::new(what, "observe for a while first").into());
    }
    if gaps > 0 {
        warn(&format!(
            "the log has {gaps} gaps, in which flows were lost or not watched (`podfence flows` tells them)"
        ));
    }
    let replayed = replay.finish();
    show(&replayed, typed)?;
    Ok(match typed.fail_on.iter().any(|what| is_there(&replayed, *what)) {
        true => Ending::Reported,
        false => Ending::Done,
    })
}

fn show(replayed: &Replayed, typed: &typed::Replay) -> Result<(), Failure> {
    let mut out = output::stdout();
    let shown = match typed.output {
        ReplayOutput::Json => out.write_all(escape::json(&replayed.to_json()).as_bytes()),
        ReplayOutput::Markdown => out.write_all(replayed.to_markdown(typed.top).as_bytes()),
        ReplayOutput::Text => {
            replayed.lines(typed.top).iter().try_for_each(|line| writeln!(out, "{}", escape::printable(line)))
        }
    };
    shown.and_then(|()| out.flush()).map_err(output::failed)
}

fn is_there(replayed: &Replayed, what: FailOnFlow) -> bool {
    match what {
        FailOnFlow::NewlyDenied => replayed.of(Change::NewlyDenied, true).next().is_some(),
        FailOnFlow::NewlyAllowed => replayed.of(Change::NewlyAllowed, true).next().is_some(),
        FailOnFlow::NeverSeen => !replayed.unseen.edges.is_empty(),
    }
}
