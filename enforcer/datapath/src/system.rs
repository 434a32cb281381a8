//! The only `unsafe` of this crate: what no library offers.

use crate::Error;
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use verdict::abi::Nanos;

/// bpf(2) commands and attach types (include/uapi/linux/bpf.h).
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_long = 21;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 2;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;

/// The clock of the kernel program (`bpf_ktime_get_coarse_ns`).
#[expect(unsafe_code, reason = "nix offers clock_gettime with another feature only; one call needs none")]
pub fn monotonic_coarse() -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing, and the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Gives the memory that glibc's allocator keeps for later back to the system: what was in use for a moment stays
/// resident otherwise, as pieces between what is still in use. Takes a few milliseconds.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "no library offers it")]
pub fn return_free_memory() {
    // SAFETY: it takes no pointer, and may be called at any time from any thread (malloc_trim(3)).
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators have no such call.
#[cfg(not(target_env = "gnu"))]
pub fn return_free_memory() {}

/// `bpf(2)` with an attribute of this layout.
#[expect(unsafe_code, reason = "aya offers neither command")]
fn bpf<T>(command: libc::c_long, attribute: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of the attribute, and writes only where pointers
    // in it lead; callers make these from live exclusive references.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attribute, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Waits until every packet that a program had begun to judge is judged: classifiers run inside an RCU read-side section,
/// and `MEMBARRIER_CMD_GLOBAL` (4.16; membarrier(2)) waits for one grace period. A kernel with `nohz_full` CPUs refuses
/// it; there, a time that no packet takes has to do.
#[expect(unsafe_code, reason = "neither nix nor aya offers membarrier(2)")]
pub(crate) fn grace_period() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;
    const LONGER_THAN_ANY_PACKET: Duration = Duration::from_millis(200);
    // SAFETY: the call takes numbers alone and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 {
        std::thread::sleep(LONGER_THAN_ANY_PACKET);
    }
}

/// Takes an entry out of a hash map: what it held last, if it was there.
pub(crate) fn take<const K: usize, const V: usize>(
    map: BorrowedFd<'_>,
    key: &[u64; K],
) -> io::Result<Option<[u64; V]>> {
    #[repr(C)]
    struct Attribute {
        map: u32,
        _pad: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let mut value = [0u64; V];
    let mut attribute = Attribute {
        map: map.as_raw_fd() as u32,
        _pad: 0,
        key: key.as_ptr() as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    match bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attribute) {
        Ok(_) => Ok(Some(value)),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Where a program that is not ours hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignHook {
    /// What the interface receives, before anything else sees it (generic XDP).
    Xdp,
    /// What the interface receives, behind the programs that are there.
    TcxIngress,
}

/// Loads a program instruction by instruction (`struct bpf_insn` as little-endian words) and attaches it to an
/// interface of this thread's network namespace, until what is returned is dropped. For tests: a CNI's program,
/// without a compiler for one.
pub fn attach_foreign(hook: ForeignHook, ifindex: u32, instructions: &[u64]) -> io::Result<std::os::fd::OwnedFd> {
    #[repr(C)]
    struct Load {
        program_type: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log: [u64; 2],
        version_and_flags: u64,
        name: [u8; 16],
        ifindex: u32,
        attach_type: u32,
    }
    #[repr(C)]
    struct Attach {
        program: u32,
        ifindex: u32,
        attach_type: u32,
        flags: u32,
        rest: [u64; 4],
    }
    let (program_type, attach_type, flags) = match hook {
        ForeignHook::Xdp => (BPF_PROG_TYPE_XDP, BPF_XDP, XDP_FLAGS_SKB_MODE),
        ForeignHook::TcxIngress => (BPF_PROG_TYPE_SCHED_CLS, BPF_TCX_INGRESS, 0),
    };
    let program = own(bpf(
        BPF_PROG_LOAD,
        &mut Load {
            program_type,
            count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log: [0; 2],
            version_and_flags: 0,
            name: *b"foreign\0\0\0\0\0\0\0\0\0",
            ifindex: 0,
            attach_type: if hook == ForeignHook::Xdp { attach_type } else { 0 },
        },
    )?);
    let mut attach = Attach { program: program.as_raw_fd() as u32, ifindex, attach_type, flags, rest: [0; 4] };
    bpf(BPF_LINK_CREATE, &mut attach).map(own)
}

/// Whether the kernel has TCX (6.6): asked with an interface that cannot exist, a kernel that knows
/// the attach type misses the device, and an older one calls the argument invalid.
pub(crate) fn has_tcx(program: BorrowedFd<'_>) -> io::Result<Tcx> {
    #[repr(C)]
    struct Attribute {
        program: u32,
        ifindex: u32,
        attach_type: u32,
        flags: u32,
        rest: [u64; 4],
    }
    let mut attribute = Attribute {
        program: program.as_raw_fd() as u32,
        ifindex: i32::MAX as u32,
        attach_type: BPF_TCX_INGRESS,
        flags: 0,
        rest: [0; 4],
    };
    match bpf(BPF_LINK_CREATE, &mut attribute) {
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(Tcx::Available),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(Tcx::Missing),
        Err(e) => Err(e),
        Ok(fd) => {
            drop(own(fd));
            Ok(Tcx::Available)
        }
    }
}

/// The programs on a TCX hook of an interface, by id, in the order in which they run. NET_ADMIN suffices; an
/// interface that is gone has none, and neither has a kernel without TCX.
pub(crate) fn tcx_programs(ifindex: u32, hook: TcxHook) -> io::Result<Vec<u32>> {
    #[repr(C)]
    struct Attribute {
        ifindex: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        _pad: u32,
        program_flags: u64,
        links: u64,
        link_flags: u64,
        revision: u64,
    }
    let mut programs = [0u32; 64];
    let mut attribute = Attribute {
        ifindex,
        attach_type: match hook {
            TcxHook::Ingress => BPF_TCX_INGRESS,
            TcxHook::Egress => BPF_TCX_EGRESS,
        },
        query_flags: 0,
        attach_flags: 0,
        programs: programs.as_mut_ptr() as u64,
        count: programs.len() as u32,
        _pad: 0,
        program_flags: 0,
        links: 0,
        link_flags: 0,
        revision: 0,
    };
    match bpf(BPF_PROG_QUERY, &mut attribute) {
        Ok(_) => Ok(programs.into_iter().take(attribute.count as usize).collect()),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::EINVAL | libc::ENOENT)) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// A TCX hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TcxHook {
    Ingress,
    Egress,
}

/// Takes a pinned link's program out of its hook, whoever else holds the link.
pub(crate) fn detach_pinned_link(pin: &std::path::Path) -> io::Result<Detached> {
    #[repr(C)]
    struct Get {
        path: u64,
        fd: u32,
        flags: u32,
    }
    #[repr(C)]
    struct Detach {
        link: u32,
        _pad: u32,
    }
    let path = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(pin.as_os_str()))?;
    let link = own(bpf(BPF_OBJ_GET, &mut Get { path: path.as_ptr() as u64, fd: 0, flags: 0 })?);
    match bpf(BPF_LINK_DETACH, &mut Detach { link: link.as_raw_fd() as u32, _pad: 0 }) {
        Ok(_) => Ok(Detached::Now),
        // Its interface went before.
        Err(e) if e.raw_os_error() == Some(libc::ENOLINK) => Ok(Detached::Before),
        Err(e) => Err(e),
    }
}

/// Whether a link had a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detached {
    Now,
    Before,
}

/// Makes a TAP device in this thread's network namespace, whose frames begin with a `struct virtio_net_hdr`
/// (drivers/net/tun.c: IFF_TAP, IFF_NO_PI, IFF_VNET_HDR); it goes with the file. For tests: such a device
/// carries packets that test runs cannot. The libraries that offer it change the features that half of
/// the dependencies are built with.
#[expect(unsafe_code, reason = "an ioctl that nix does not know")]
pub fn open_tap(name: &str) -> io::Result<std::fs::File> {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    #[repr(C)]
    struct Request {
        name: [u8; libc::IFNAMSIZ],
        flags: libc::c_short,
        rest: [u8; 22],
    }
    let flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    let mut request = Request { name: [0; libc::IFNAMSIZ], flags, rest: [0; 22] };
    let room = request.name.get_mut(..name.len()).filter(|room| room.len() < libc::IFNAMSIZ);
    room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
    let mut options = std::fs::File::options();
    let file = std::os::unix::fs::OpenOptionsExt::custom_flags(options.read(true).write(true), libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    // SAFETY: the kernel reads and writes a `struct ifreq`, which `Request` is laid out as, for the length of the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(file) }
}

#[expect(unsafe_code, reason = "a descriptor that bpf(2) returned has no owner yet")]
fn own(fd: libc::c_long) -> std::os::fd::OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: the descriptor was just created for us and nobody else has it.
    unsafe { std::os::fd::OwnedFd::from_raw_fd(fd as i32) }
}

/// Whether the kernel has TCX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tcx {
    Available,
    Missing,
}

/// An array map of words mapped into memory: one store publishes.
pub(crate) struct MappedWords {
    base: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: shared memory of atomics; the mapping belongs to the process, not to a thread.
#[expect(unsafe_code, reason = "a pointer to atomics may cross threads")]
unsafe impl Send for MappedWords {}

impl MappedWords {
    /// Maps an array of `words` words; the kernel refuses where the map was not made for it.
    #[expect(unsafe_code, reason = "mmap")]
    pub(crate) fn new(map: BorrowedFd<'_>, words: usize) -> Result<Self, Error> {
        let failed = || Error::System { doing: "map an array into memory", source: io::Error::last_os_error() };
        // SAFETY: a new shared mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                words * 8,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(failed());
        }
        NonNull::new(base.cast()).map(|base| Self { base, words }).ok_or_else(failed)
    }

    /// Stores one word, after everything stored before.
    #[expect(unsafe_code, reason = "a word of the mapping")]
    pub(crate) fn store(&self, index: usize, word: u64) {
        if index < self.words {
            // SAFETY: the index lies in the mapping, which lives as long as `self`; every access to it,
            // here and in the kernel, is to whole aligned words.
            unsafe { self.base.add(index).as_ref() }.store(word, Ordering::Release);
        }
    }
}

impl Drop for MappedWords {
    #[expect(unsafe_code, reason = "munmap")]
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length and nobody holds a pointer into it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.words * 8) };
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    /// Anonymous memory of this process, in KiB.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    #[test]
    fn memory_between_what_is_in_use_goes_back() {
        const BLOCKS: usize = 64 << 10;
        // In a thread's own arena, as the agent's: one block in two hundred stays, so that nothing large is free.
        let worker = std::thread::spawn(|| {
            let mut blocks: Vec<Option<Vec<u8>>> = (0..BLOCKS).map(|_| Some(vec![1; 1024])).collect();
            blocks.iter_mut().enumerate().filter(|(at, _)| at % 200 != 0).for_each(|(_, block)| *block = None);
            let before = resident();
            return_free_memory();
            (before, resident(), blocks)
        });
        let (before, after, blocks) = worker.join().unwrap();
        assert_eq!(blocks.iter().flatten().count(), BLOCKS.div_ceil(200));
        assert!(after + (BLOCKS as u64) / 2 < before, "{before} KiB, then {after} KiB");
    }
}
