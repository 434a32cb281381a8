//! The program on the host side of a veth, both directions.
//!
//! TCX where the kernel has it (6.6), first in line, the link pinned when there is a place for pins. Else clsact,
//! priority 1. With a place for pins the program outlives the agent, and the next agent's takes its place in
//! the hook by one exchange: no packet goes unjudged.

use crate::{
    Error,
    discover::Link,
    filters::{Filter, filters, remove_empty_clsact, remove_ours},
    netlink::Route,
    pins::{self, Pins},
    system::{self, Tcx},
};
use aya::{
    Ebpf,
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
    },
};
use flow::Direction;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
};
use verdict::abi;

/// Priority of our clsact filters: before any other.
pub(crate) const PRIORITY: u16 = 1;
/// A handle of our own, so that detaching finds nobody else's filter.
pub(crate) const HANDLE: TcHandle = TcHandle::new(0, 0x706f);

/// The two hooks of a link. From the host side, what the pod sends arrives at ingress.
const HOOKS: [(&str, TcAttachType); 2] = [(abi::FROM_POD, TcAttachType::Ingress), (abi::TO_POD, TcAttachType::Egress)];

/// How hooks are attached on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// TCX links, first in line.
    Tcx,
    /// clsact filters of priority 1.
    Clsact,
}

/// What is attached, by interface index.
pub struct Hooks {
    attachment: Attachment,
    pins: Option<Pins>,
    held: BTreeMap<u32, [Held; 2]>,
}

/// A hook with our program. Dropping one that is not pinned detaches.
enum Held {
    Tcx { _link: FdLink, pin: Option<PathBuf> },
    Filter { link: SchedClassifierLink },
}

impl Held {
    /// Takes the program out of the hook: a link detaches when its last reference goes; the pin is one.
    fn detach(self) {
        if let Self::Tcx { pin: Some(pin), .. } = &self {
            let _ = fs::remove_file(pin);
        }
    }

    /// Leaves the program in the hook.
    fn leave(self) {
        if let Self::Filter { link } = self {
            std::mem::forget(link);
        }
    }
}

/// What an earlier agent has left in a link's hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Program,
    Nothing,
}

impl Hooks {
    pub(crate) fn new(ebpf: &Ebpf, pins: Option<&Pins>, chosen: Option<Attachment>) -> Result<Self, Error> {
        let attachment = match chosen {
            Some(chosen) => chosen,
            None => best(ebpf)?,
        };
        Ok(Self { attachment, pins: pins.cloned(), held: BTreeMap::new() })
    }

    /// How hooks are attached on this kernel.
    pub fn attachment(&self) -> Attachment {
        self.attachment
    }

    /// Interface indices with hooks.
    pub fn attached(&self) -> BTreeSet<u32> {
        self.held.keys().copied().collect()
    }

    /// Attaches both directions; nothing happens where they are attached already.
    pub(crate) fn attach(&mut self, ebpf: &mut Ebpf, link: &Link) -> Result<(), Error> {
        if self.held.contains_key(&link.ifindex) {
            return Ok(());
        }
        let [from_pod, to_pod] = HOOKS;
        let from_pod = self.attach_one(ebpf, link, from_pod)?;
        let to_pod = match self.attach_one(ebpf, link, to_pod) {
            Ok(to_pod) => to_pod,
            Err(error) => {
                self.let_go(from_pod);
                return Err(error);
            }
        };
        self.held.insert(link.ifindex, [from_pod, to_pod]);
        self.remove_other_kind(link.ifindex)
    }

    /// Removes hooks of the other kind, which an agent that attached otherwise has left: two of ours would judge
    /// each packet twice.
    fn remove_other_kind(&self, ifindex: u32) -> Result<(), Error> {
        let Some(pins) = &self.pins else { return Ok(()) };
        match self.attachment {
            Attachment::Tcx => {
                let mut route = Route::open()?;
                for direction in [Direction::Inbound, Direction::Outbound] {
                    remove_ours(&mut route, ifindex, direction)?;
                }
            }
            Attachment::Clsact => {
                for pin in HOOKS.iter().filter_map(|(name, _)| earlier(pins, ifindex, name)) {
                    pins::remove(&pin)?;
                }
            }
        }
        Ok(())
    }

    fn attach_one(
        &self,
        ebpf: &mut Ebpf,
        link: &Link,
        (name, direction): (&'static str, TcAttachType),
    ) -> Result<Held, Error> {
        let program = program_mut(ebpf, name)?;
        let attached = match self.attachment {
            Attachment::Tcx => tcx(program, link, direction, self.pins.as_ref().map(|pins| (pins, name))),
            Attachment::Clsact => clsact(program, link, direction, self.pins.as_ref()),
        };
        attached.map_err(|source| Error::Attach { interface: link.name.to_string(), ifindex: link.ifindex, source })
    }

    /// Detaches from a link, if something is attached.
    pub(crate) fn detach(&mut self, ifindex: u32) {
        for held in self.held.remove(&ifindex).into_iter().flatten() {
            held.detach();
        }
    }

    /// Detaches from every link, and removes the qdiscs that are ours and empty.
    pub(crate) fn detach_all(&mut self) -> Result<(), Error> {
        for ifindex in self.attached() {
            self.detach(ifindex);
        }
        let Some(pins) = &self.pins else { return Ok(()) };
        let marks = pins::listed(&pins.folder("qdiscs"))?;
        if marks.is_empty() {
            return Ok(());
        }
        let mut route = Route::open()?;
        for ifindex in marks.iter().filter_map(|mark| pins::ifindex_of(mark)) {
            remove_empty_clsact(&mut route, ifindex)?;
        }
        Ok(())
    }

    /// Lets go of every link. With a place for pins the programs stay.
    pub(crate) fn leave(&mut self) {
        for held in std::mem::take(&mut self.held).into_values().flatten() {
            self.let_go(held);
        }
    }

    fn let_go(&self, held: Held) {
        match &self.pins {
            Some(_) => held.leave(),
            None => held.detach(),
        }
    }

    /// Whether an earlier agent's program is in a link's hooks, pinned or as a filter.
    pub(crate) fn is_left_by_another(&self, link: &Link) -> Result<Left, Error> {
        let Some(pins) = self.pins.as_ref().filter(|_| !self.held.contains_key(&link.ifindex)) else {
            return Ok(Left::Nothing);
        };
        if HOOKS.iter().any(|(name, _)| earlier(pins, link.ifindex, name).is_some()) {
            return Ok(Left::Program);
        }
        let mut route = Route::open()?;
        for direction in [Direction::Inbound, Direction::Outbound] {
            if filters(&mut route, link.ifindex, direction)?.iter().any(Filter::is_ours) {
                return Ok(Left::Program);
            }
        }
        Ok(Left::Nothing)
    }

    /// Removes what an earlier agent left of links that this one does not hold, but for those in `waiting`.
    /// Once nothing waits, what other layouts left goes too.
    pub(crate) fn prune(&self, waiting: &BTreeSet<u32>) -> Result<usize, Error> {
        let Some(pins) = &self.pins else { return Ok(0) };
        let mut removed = 0;
        for pin in pins::listed(&pins.folder("links"))?.into_iter().chain(pins::listed(&pins.folder("qdiscs"))?) {
            let needed = pins::ifindex_of(&pin)
                .is_some_and(|ifindex| self.held.contains_key(&ifindex) || waiting.contains(&ifindex));
            if !needed {
                pins::remove(&pin)?;
                removed += 1;
            }
        }
        if waiting.is_empty() {
            for folder in pins.others() {
                removed += pins::remove_all(&folder)?;
            }
        }
        Ok(removed)
    }
}

/// How this kernel attaches best: asked once, by a probe.
fn best(ebpf: &Ebpf) -> Result<Attachment, Error> {
    let program = program(ebpf, abi::TO_POD)?;
    let fd = program.fd().map_err(|e| Error::Load(Box::new(e)))?;
    match system::has_tcx(fd.as_fd()).map_err(|source| Error::System { doing: "ask the kernel for TCX", source })? {
        Tcx::Available => Ok(Attachment::Tcx),
        Tcx::Missing => Ok(Attachment::Clsact),
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn tcx(
    program: &mut SchedClassifier,
    link: &Link,
    direction: TcAttachType,
    pins: Option<(&Pins, &str)>,
) -> Result<Held, Failure> {
    let pin = pins.map(|(pins, name)| pins.link(link.ifindex, name));
    if let Some((pins, name)) = pins
        && let Some(path) = earlier(pins, link.ifindex, name)
    {
        // An earlier agent's hook: the program is replaced in it, and no packet sees it empty.
        match replace(program, &path) {
            Ok(held) => {
                let own = pins.link(link.ifindex, name);
                if own != path {
                    fs::rename(&path, &own)?;
                }
                return Ok(Held::Tcx { _link: held, pin: Some(own) });
            }
            // Its interface went, and the index has come to another.
            Err(_) => fs::remove_file(path)?,
        }
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(&link.name, direction, options)?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    match pin {
        Some(path) => Ok(Held::Tcx { _link: FdLink::from(link.pin(&path)?), pin: Some(path) }),
        None => Ok(Held::Tcx { _link: link, pin: None }),
    }
}

/// The pin of a hook that an earlier agent left, of whatever layout.
fn earlier(pins: &Pins, ifindex: u32, name: &str) -> Option<PathBuf> {
    let own = pins.link(ifindex, name);
    let others = pins.others().into_iter().map(|layout| layout.join("links").join(format!("{ifindex}-{name}")));
    std::iter::once(own).chain(others).find(|path| path.exists())
}

fn replace(program: &mut SchedClassifier, path: &Path) -> Result<FdLink, Failure> {
    let link: SchedClassifierLink = FdLink::from(PinnedLink::from_pin(path)?).try_into()?;
    let id = program.attach_to_link(link)?;
    Ok(program.take_link(id)?.try_into()?)
}

fn clsact(
    program: &mut SchedClassifier,
    link: &Link,
    direction: TcAttachType,
    pins: Option<&Pins>,
) -> Result<Held, Failure> {
    // It may be there already, ours or another's: attaching tells.
    if tc::qdisc_add_clsact(&link.name).is_ok()
        && let Some(pins) = pins
    {
        fs::create_dir_all(pins.qdisc(link.ifindex))?;
    }
    let options = NlOptions { priority: PRIORITY, handle: HANDLE, ..NlOptions::default() };
    let made = program.attach_with_options(&link.name, direction, TcAttachOptions::Netlink(options));
    let id = match made {
        Ok(id) => id,
        // An earlier agent's filter: the program is replaced in it.
        Err(_) => {
            let filter = SchedClassifierLink::attached(&link.name, direction, PRIORITY, HANDLE, None)?;
            program.attach_to_link(filter)?
        }
    };
    Ok(Held::Filter { link: program.take_link(id)? })
}

pub(crate) fn program<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a SchedClassifier, Error> {
    let program = ebpf.program(name).ok_or(Error::Object { what: "program", name })?;
    program.try_into().map_err(|_| Error::Object { what: "classifier", name })
}

pub(crate) fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, Error> {
    let program = ebpf.program_mut(name).ok_or(Error::Object { what: "program", name })?;
    program.try_into().map_err(|_| Error::Object { what: "classifier", name })
}
