//! `detach`: enforcement taken away from this node, on purpose.

use crate::{
    ending::{Ending, Failure},
    output::{self, Table},
    typed::Detach as Typed,
};
use datapath::TakenAway;
use std::{fs, io, io::Write as _, path::Path};

pub(crate) fn run(typed: &Typed) -> miette::Result<Ending> {
    if !typed.bpffs.is_dir() {
        return Err(Failure::new(
            format!("{} is no folder", typed.bpffs.display()),
            "give the folder that `podfence enforce --bpffs` was given",
        )
        .into());
    }
    if let Some(netns) = &typed.netns {
        enter(netns).map_err(|why| {
            Failure::of(format!("cannot enter the network namespace {}", netns.display()), why)
                .hint("give a file under /run/netns or /proc/PID/ns/net, as root")
        })?;
    }
    let doing = if typed.dry_run { datapath::would_take_away } else { datapath::take_away };
    let taken = doing(&typed.bpffs).map_err(|why| Failure::of("nothing was taken away", why))?;
    show(&taken, typed.dry_run)?;
    if taken.failed.is_empty() {
        return Ok(Ending::Done);
    }
    Err(Failure::new(
        format!("not all of it could be taken away: {}", taken.failed.join("; ")),
        "mend what is said and run it again",
    )
    .into())
}

fn enter(netns: &Path) -> io::Result<()> {
    let file = fs::File::open(netns)?;
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).map_err(Into::into)
}

fn show(taken: &TakenAway, dry_run: bool) -> Result<(), Failure> {
    let mut out = output::stdout();
    let mut links = Table::new(["LINK", "INDEX", "TCX", "FILTERS", "QDISCS"]);
    for (ifindex, link) in &taken.links {
        let numbers = [*ifindex as usize, link.tcx, link.filters, link.qdisc].map(|number| number.to_string());
        links.row(std::iter::once(link.name.to_string()).chain(numbers));
    }
    let layouts = taken.layouts.iter().map(|(folder, pins)| (folder.as_path(), *pins));
    let written = (|| {
        if taken.is_empty() {
            writeln!(out, "there {} nothing to take away", if dry_run { "is" } else { "was" })?;
        }
        if !links.is_empty() {
            links.write(&mut out)?;
        }
        folders(&mut out, layouts)?;
        out.flush()
    })();
    written.map_err(output::failed)
}

fn folders<'p>(out: &mut impl io::Write, layouts: impl Iterator<Item = (&'p Path, usize)>) -> io::Result<()> {
    let mut table = Table::new(["FOLDER", "PINS"]);
    for (folder, pins) in layouts {
        table.row([folder.display().to_string(), pins.to_string()]);
    }
    if table.is_empty() { Ok(()) } else { table.write(out) }
}
