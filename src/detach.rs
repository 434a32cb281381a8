//! `detach`: enforcement taken away from this node, on purpose.

use crate::{
    ending::{Ending, Failure},
    output::{self, Table},
    typed::Detach as Typed,
};
use datapath::TakenAway;
use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

pub(crate) fn run(typed: &Typed) -> miette::Result<Ending> {
    if !typed.bpffs.is_dir() {
        return Err(Failure::new(
            format!("{} is no folder", typed.bpffs.display()),
            "give the folder that `podfence enforce --bpffs` was given",
        )
        .into());
    }
    if typed.dry_run {
        return show_pins(&typed.bpffs);
    }
    if let Some(netns) = &typed.netns {
        enter(netns).map_err(|why| {
            Failure::of(format!("cannot enter the network namespace {}", netns.display()), why)
                .hint("give a file under /run/netns or /proc/PID/ns/net, as root")
        })?;
    }
    let taken = datapath::take_away(&typed.bpffs).map_err(|why| Failure::of("nothing was taken away", why))?;
    show(&taken)?;
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

fn show(taken: &TakenAway) -> Result<(), Failure> {
    let mut out = output::stdout();
    let mut links = Table::new(["LINK", "INDEX", "TCX", "FILTERS", "QDISCS"]);
    for (ifindex, link) in &taken.links {
        let numbers = [*ifindex as usize, link.tcx, link.filters, link.qdisc].map(|number| number.to_string());
        links.row(std::iter::once(link.name.to_string()).chain(numbers));
    }
    let layouts = taken.layouts.iter().map(|(folder, pins)| (folder.as_path(), *pins));
    let written = (|| {
        if taken.is_empty() {
            writeln!(out, "there was nothing to take away")?;
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

/// What lies there, by layout.
fn show_pins(bpffs: &Path) -> miette::Result<Ending> {
    let failed = |why| Failure::of(format!("cannot list {}", bpffs.display()), why).hint("ask as root");
    let mut layouts: Vec<(PathBuf, usize)> = Vec::new();
    for entry in fs::read_dir(bpffs).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_layout = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
            name.strip_prefix('v')
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
        });
        if is_layout && path.is_dir() {
            let pins = count(&path).map_err(failed)?;
            layouts.push((path, pins));
        }
    }
    layouts.sort();
    let mut out = output::stdout();
    let written = match layouts.is_empty() {
        true => writeln!(out, "nothing is pinned there"),
        false => folders(&mut out, layouts.iter().map(|(folder, pins)| (folder.as_path(), *pins))),
    };
    written.and_then(|()| out.flush()).map_err(output::failed)?;
    Ok(Ending::Done)
}

fn count(folder: &Path) -> io::Result<usize> {
    let mut pins = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        pins += if path.is_dir() { count(&path)? } else { 1 };
    }
    Ok(pins)
}
