//! Everything taken away on purpose, without a running agent: hooks, filters, qdiscs, pins, of every layout.

use crate::{
    Error, Found, Ignored,
    discover::veths,
    filters::{Filter, Removal, filters, remove_empty_clsact, remove_ours},
    netlink::Route,
    pins::{self, ifindex_of},
    system::{self, Detached},
};
use flow::Direction;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

/// What was taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenAway {
    /// Links by interface index, with what they lost. A name is empty where the interface is gone.
    pub links: BTreeMap<u32, LinkTaken>,
    /// Folders of layouts that are gone now, with the number of pins in each.
    pub layouts: Vec<(PathBuf, usize)>,
    /// What could not be taken away; the rest was.
    pub failed: Vec<String>,
}

/// What a link lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkTaken {
    /// Its name.
    pub name: Arc<str>,
    /// Programs taken out of pinned TCX hooks.
    pub tcx: usize,
    /// Filters of ours taken out of clsact hooks.
    pub filters: usize,
    /// Whether the clsact qdisc went: it was ours, and nothing was left in it.
    pub qdisc: usize,
}

/// Takes all of it away in the caller's network namespace. Filters are known by their handle, qdiscs by the mark
/// that the agent made beside its pins. What fails is told, and the rest goes on.
pub fn take_away(bpffs: &Path) -> Result<TakenAway, Error> {
    walk(bpffs, Doing::TakeAway)
}

/// What [`take_away`] would take away now; nothing changes. Hooks of interfaces that are gone are among it.
pub fn would_take_away(bpffs: &Path) -> Result<TakenAway, Error> {
    walk(bpffs, Doing::Look)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    TakeAway,
    Look,
}

fn walk(bpffs: &Path, doing: Doing) -> Result<TakenAway, Error> {
    let mut route = Route::open()?;
    let Found { links, others, .. } = veths(&mut route, &Ignored::default())?;
    let others = others.into_iter().map(|link| (link.ifindex, link.name));
    let names: BTreeMap<u32, Arc<str>> =
        links.into_values().map(|link| (link.ifindex, link.name)).chain(others).collect();
    let mut taken = TakenAway::default();
    let mut marked = BTreeSet::new();
    let layouts = pins::layouts(bpffs).map_err(pins::failed("list", bpffs))?;
    for layout in &layouts {
        for pin in pins::listed(&layout.join("links"))? {
            let Some(ifindex) = ifindex_of(&pin) else { continue };
            let detached = match doing {
                Doing::TakeAway => system::detach_pinned_link(&pin),
                Doing::Look => Ok(Detached::Now),
            };
            match detached {
                Ok(Detached::Now) => taken.of(ifindex, &names).tcx += 1,
                Ok(Detached::Before) => {}
                Err(e) => taken.failed.push(format!("detach {}: {e}", pin.display())),
            }
        }
        marked.extend(pins::listed(&layout.join("qdiscs"))?.iter().filter_map(|mark| ifindex_of(mark)));
    }
    for ifindex in names.keys().chain(&marked).copied().collect::<BTreeSet<u32>>() {
        taken.filters(&mut route, ifindex, &names, doing);
        if marked.contains(&ifindex) {
            taken.qdisc(&mut route, ifindex, &names, doing);
        }
    }
    for layout in layouts {
        let removed = match doing {
            Doing::TakeAway => pins::remove_all(&layout),
            Doing::Look => pins::count(&layout),
        };
        match removed {
            Ok(pins) => taken.layouts.push((layout, pins)),
            Err(e) => taken.failed.push(e.to_string()),
        }
    }
    Ok(taken)
}

impl TakenAway {
    /// Whether there was nothing to take away.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty() && self.layouts.is_empty() && self.failed.is_empty()
    }

    fn of(&mut self, ifindex: u32, names: &BTreeMap<u32, Arc<str>>) -> &mut LinkTaken {
        let new = || LinkTaken { name: names.get(&ifindex).cloned().unwrap_or_default(), ..LinkTaken::default() };
        self.links.entry(ifindex).or_insert_with(new)
    }

    fn filters(&mut self, route: &mut Route, ifindex: u32, names: &BTreeMap<u32, Arc<str>>, doing: Doing) {
        for direction in [Direction::Inbound, Direction::Outbound] {
            let removed = match doing {
                Doing::TakeAway => remove_ours(route, ifindex, direction),
                Doing::Look => {
                    filters(route, ifindex, direction).map(|filters| found(filters.iter().any(Filter::is_ours)))
                }
            };
            match removed {
                Ok(Removal::Done) => self.of(ifindex, names).filters += 1,
                Ok(Removal::Nothing) => {}
                Err(e) => self.failed.push(format!("interface {ifindex}: {e}")),
            }
        }
    }

    fn qdisc(&mut self, route: &mut Route, ifindex: u32, names: &BTreeMap<u32, Arc<str>>, doing: Doing) {
        let removed = match doing {
            Doing::TakeAway => remove_empty_clsact(route, ifindex),
            Doing::Look => would_be_empty(route, ifindex).map(|empty| found(empty && names.contains_key(&ifindex))),
        };
        match removed {
            Ok(Removal::Done) => self.of(ifindex, names).qdisc += 1,
            Ok(Removal::Nothing) => {}
            Err(e) => self.failed.push(format!("interface {ifindex}: {e}")),
        }
    }
}

/// Whether a clsact qdisc has nobody's filters but ours.
fn would_be_empty(route: &mut Route, ifindex: u32) -> Result<bool, Error> {
    for direction in [Direction::Inbound, Direction::Outbound] {
        if !filters(route, ifindex, direction)?.iter().all(Filter::is_ours) {
            return Ok(false);
        }
    }
    Ok(true)
}

const fn found(there: bool) -> Removal {
    if there { Removal::Done } else { Removal::Nothing }
}
