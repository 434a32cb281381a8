//! The certificate for a person: the window, what was lost, a line for each namespace and workload, and what to wait
//! for.

use super::{Certificate, Completeness, NodeHours, Ran, Uncounted};
use crate::naming;
use std::fmt::Write as _;

/// So many nodes that were not watched in every hour are listed; all are in the JSON.
const LISTED: usize = 20;

pub(super) fn text(all: &Certificate) -> String {
    let mut out = String::new();
    let (from, until) = (all.from.as_deref().unwrap_or("-"), all.until.as_deref().unwrap_or("-"));
    let slices = naming::count(all.slices, "hourly slice");
    let _ = writeln!(out, "observed {from} to {until}, {slices}, {}", naming::count(all.flows, "flow"));
    let _ = writeln!(out, "unattributed {:.2} %", all.unattributed_share * 100.0);
    let partly: Vec<&NodeHours> = all.nodes.iter().filter(|node| node.slices < all.slices).collect();
    for node in partly.iter().take(LISTED) {
        let _ = writeln!(out, "watched on {}: {} of {slices}", node.node, node.slices);
    }
    if partly.len() > LISTED {
        let _ = writeln!(out, "and on {} more nodes not in every hour", partly.len() - LISTED);
    }
    for gap in &all.gaps {
        let (more, seconds) = (if gap.some_uncounted == Uncounted::Some { " or more" } else { "" }, gap.seconds);
        let _ = writeln!(out, "lost on {}: {}, {}{more} in {seconds} s", gap.node, gap.reason, gap.lost);
    }
    let jobs: Vec<&str> = all.jobs_never_ran().collect();
    if !jobs.is_empty() {
        let _ = writeln!(out, "never ran, so nothing is known of what they will do: {}", jobs.join(", "));
    }
    for (what, scopes) in [("namespace", &all.namespaces), ("workload", &all.workloads)] {
        let _ = writeln!(out, "expected new edges in the next hour, by {what} (95 % upper bound):");
        scopes.iter().for_each(|one| line(&mut out, one));
    }
    let waiting = all.namespaces.iter().filter(|one| !one.is_complete(all.required));
    let waiting: Vec<String> = waiting.map(|one| wait_for(one, all.required)).collect();
    if !waiting.is_empty() {
        let _ = writeln!(out, "until no more than {} new edges an hour are to be expected:", all.required);
        for line in waiting {
            let _ = writeln!(out, "  {line}");
        }
    }
    out
}

fn line(out: &mut String, one: &Completeness) {
    let rate = one.new_edges_per_hour.map_or("-".to_owned(), |rate| format!("{rate:.3}"));
    let bound = one.upper_bound.map_or("-".to_owned(), |bound| format!("{bound:.3}"));
    let (edges, single) = (naming::count(one.edges, "edge"), one.seen_in_one_slice);
    let _ = write!(out, "  {}: {rate} ({bound}); {edges}, {single} in one slice only", one.name);
    if one.slices_watched < one.slices {
        let _ = write!(out, ", {} of {} watched", one.slices_watched, naming::count(one.slices, "hour"));
    }
    if one.lost_on_its_nodes > 0 {
        let _ = write!(out, ", {} lost", naming::count(one.lost_on_its_nodes, "event"));
    }
    if one.unattributed_share > 0.0 {
        let _ = write!(out, ", {:.2} % unattributed", one.unattributed_share * 100.0);
    }
    if one.direction_unknown > 0 {
        let _ = write!(out, ", {} of unknown direction", naming::count(one.direction_unknown, "flow"));
    }
    out.push_str(match one.ran {
        Ran::Observed => "\n",
        Ran::Silent => ", never observed\n",
        Ran::NeverRan => ", never ran\n",
        Ran::NoPod => ", never observed, no pod known\n",
    });
}

/// What one waits for, with its name.
pub(super) fn wait_for(one: &Completeness, required: f64) -> String {
    format!("{}: {}", one.name, wait(one, required))
}

pub(super) fn wait(one: &Completeness, required: f64) -> String {
    let Some((bound, more, least)) = one
        .upper_bound
        .zip(one.wait.hours_at_present_rate.zip(one.wait.hours_at_least))
        .map(|(bound, (more, least))| (bound, more, least))
    else {
        let nodes = one.nodes.join(", ");
        return format!("no hour in which its nodes were watched ({nodes}); is there an observer on each?");
    };
    let rare = one.seen_in_one_slice + one.seen_in_two_slices;
    let again = match rare {
        0 => String::new(),
        n if least < more => {
            let edges = naming::count(n, "edge");
            let come = if n == 1 { "comes" } else { "come" };
            format!(", {least} if its {edges} seen in one or two hours only {come} again and none is new")
        }
        _ => String::new(),
    };
    let more = naming::count(more, "hour");
    let never = match &one.jobs_never_ran[..] {
        [] => String::new(),
        jobs => format!("; never ran: {}", jobs.join(", ")),
    };
    format!(
        "upper bound {bound:.3} new edges an hour, {required} required: {more} more at the present rate{again}{never}"
    )
}
