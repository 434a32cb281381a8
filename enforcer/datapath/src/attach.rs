//! The program on the host side of a veth, both directions.
//!
//! TCX where the kernel has it (6.6), first in line, the link pinned when there is a place for pins:
//! the program then outlives the agent. Else clsact, priority 1.

use crate::{
    Error,
    discover::Link,
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
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
};
use verdict::abi;

/// Priority of our clsact filters: before any other.
const PRIORITY: u16 = 1;
/// A handle of our own, so that detaching finds nobody else's filter.
const HANDLE: TcHandle = TcHandle::new(0, 0x706f);

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
    pins: Option<PathBuf>,
    held: BTreeMap<u32, [Held; 2]>,
}

enum Held {
    Tcx { _link: FdLink, pin: Option<PathBuf> },
    Filter { _link: SchedClassifierLink },
}

impl Drop for Held {
    /// The link detaches when its last reference goes; the pin is one.
    fn drop(&mut self) {
        if let Self::Tcx { pin: Some(pin), .. } = self {
            let _ = fs::remove_file(pin);
        }
    }
}

impl Hooks {
    pub(crate) fn new(ebpf: &Ebpf, pins: Option<&Path>, chosen: Option<Attachment>) -> Result<Self, Error> {
        let attachment = match chosen {
            Some(chosen) => chosen,
            None => best(ebpf)?,
        };
        let pins = match pins {
            Some(pins) => {
                let pins = pins.join("links");
                let failed = |e| Error::Pin { doing: "make the folder", path: pins.clone(), source: Box::new(e) };
                fs::create_dir_all(&pins).map_err(failed)?;
                Some(pins)
            }
            None => None,
        };
        Ok(Self { attachment, pins, held: BTreeMap::new() })
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
        // From the host side, what the pod sends arrives at ingress.
        let from_pod = self.attach_one(ebpf, link, abi::FROM_POD, TcAttachType::Ingress)?;
        let to_pod = self.attach_one(ebpf, link, abi::TO_POD, TcAttachType::Egress)?;
        self.held.insert(link.ifindex, [from_pod, to_pod]);
        Ok(())
    }

    fn attach_one(
        &self,
        ebpf: &mut Ebpf,
        link: &Link,
        name: &'static str,
        direction: TcAttachType,
    ) -> Result<Held, Error> {
        let program = program_mut(ebpf, name)?;
        let attached = match self.attachment {
            Attachment::Tcx => {
                let pin = self.pins.as_ref().map(|pins| pins.join(format!("{}-{name}", link.ifindex)));
                tcx(program, link, direction, pin)
            }
            Attachment::Clsact => clsact(program, link, direction),
        };
        attached.map_err(|source| Error::Attach { interface: link.name.to_string(), ifindex: link.ifindex, source })
    }

    /// Detaches from a link, if something is attached.
    pub(crate) fn detach(&mut self, ifindex: u32) {
        self.held.remove(&ifindex);
    }

    /// Detaches from every link.
    pub(crate) fn detach_all(&mut self) {
        self.held.clear();
    }

    /// Removes pins that an earlier agent left for links this one does not hold.
    pub(crate) fn prune(&self) -> Result<usize, Error> {
        let Some(pins) = &self.pins else { return Ok(0) };
        let failed = |e| Error::Pin { doing: "list", path: pins.clone(), source: Box::new(e) };
        let mut removed = 0;
        for entry in fs::read_dir(pins).map_err(failed)?.filter_map(Result::ok) {
            let ifindex = entry.file_name().to_str().and_then(|name| name.split('-').next()?.parse().ok());
            if ifindex.is_none_or(|ifindex: u32| !self.held.contains_key(&ifindex)) {
                fs::remove_file(entry.path()).map_err(failed)?;
                removed += 1;
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
    pin: Option<PathBuf>,
) -> Result<Held, Failure> {
    if let Some(path) = pin.as_ref().filter(|path| path.exists()) {
        // An earlier agent's hook: the program is replaced in it, and no packet sees it empty.
        match replace(program, path) {
            Ok(link) => return Ok(Held::Tcx { _link: link, pin }),
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

fn replace(program: &mut SchedClassifier, path: &Path) -> Result<FdLink, Failure> {
    let link: SchedClassifierLink = FdLink::from(PinnedLink::from_pin(path)?).try_into()?;
    let id = program.attach_to_link(link)?;
    Ok(program.take_link(id)?.try_into()?)
}

fn clsact(program: &mut SchedClassifier, link: &Link, direction: TcAttachType) -> Result<Held, Failure> {
    // It may be there already, ours or another's: attaching tells.
    let _ = tc::qdisc_add_clsact(&link.name);
    let options = NlOptions { priority: PRIORITY, handle: HANDLE, ..NlOptions::default() };
    let id = program.attach_with_options(&link.name, direction, TcAttachOptions::Netlink(options))?;
    Ok(Held::Filter { _link: program.take_link(id)? })
}

pub(crate) fn program<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a SchedClassifier, Error> {
    let program = ebpf.program(name).ok_or(Error::Object { what: "program", name })?;
    program.try_into().map_err(|_| Error::Object { what: "classifier", name })
}

pub(crate) fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, Error> {
    let program = ebpf.program_mut(name).ok_or(Error::Object { what: "program", name })?;
    program.try_into().map_err(|_| Error::Object { what: "classifier", name })
}
