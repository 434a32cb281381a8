//! `why`: whether a connection may be opened, and because of what.

use crate::{
    backing,
    ending::{Ending, Failure},
    escape, manifests, output,
    typed::{self, FailOnVerdict, WhyOutput},
    why_kernel,
};
use generator::Evidence;
use review::{
    Input,
    why::{Named, Question, Target, Why},
};
use std::io::Write as _;

pub(crate) fn run(typed: &typed::Why) -> miette::Result<Ending> {
    if typed.kernel {
        return why_kernel::run(typed);
    }
    let whole = |problem| Failure::whole(&problem);
    let from: Named = typed.from.parse().map_err(whole)?;
    let to: Target = typed.to.parse().map_err(whole)?;
    let cluster = manifests::read(&typed.manifests)?;
    let evidence = evidence(typed)?;
    let seen = |rule: &_| backing::of(&evidence, rule);
    let input = Input { cluster: &cluster, policies: &cluster.policies };
    let why = review::why::why(input, &Question { from, to }, &seen).map_err(whole)?;
    show(&why, typed.output)?;
    let is_so = |allowed: bool| why.cases.iter().any(|case| case.is_allowed == allowed);
    Ok(match typed.fail_on {
        Some(FailOnVerdict::Denied) if is_so(false) => Ending::Reported,
        Some(FailOnVerdict::Allowed) if is_so(true) => Ending::Reported,
        _ => Ending::Done,
    })
}

fn show(why: &Why, form: WhyOutput) -> Result<(), Failure> {
    let mut out = output::stdout();
    let shown = match form {
        WhyOutput::Json => out.write_all(escape::json(&why.to_json()).as_bytes()),
        WhyOutput::Text => why.lines().iter().try_for_each(|line| writeln!(out, "{}", escape::printable(line))),
    };
    shown.and_then(|()| out.flush()).map_err(output::failed)
}

/// The evidence that was named, or that which stands beside generated policies.
fn evidence(typed: &typed::Why) -> Result<Vec<Evidence>, Failure> {
    match &typed.evidence {
        Some(file) => Ok(vec![backing::read(file)?]),
        None => backing::beside(&typed.manifests.paths),
    }
}
