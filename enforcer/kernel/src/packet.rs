//! Bytes of an skb: read from the linear part; [`pull`] brings the headers there where they reach beyond it.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_pull_data};
use core::cell::Cell;
use flow::{Gso, HEADER_LIMIT, PacketBytes};

/// A packet as it lies now: its linear part is looked up at each read. Kept in fields, LLVM would
/// pass the two pointers to out-of-line functions as u32, and the verifier refuses arithmetic on those.
pub struct Linear {
    /// The packet.
    pub skb: *mut __sk_buff,
}

/// The same for the parser, which forgets.
pub struct Skb<'a> {
    /// The packet.
    pub linear: Linear,
    /// A word in a map, to forget by.
    pub scratch: &'a Cell<u64>,
}

/// Pulls as much as headers may take into the linear part.
#[inline(always)]
pub fn pull(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context is valid; no `Skb` made before is used afterwards.
    unsafe { bpf_skb_pull_data(skb, u32::min((*skb).len, HEADER_LIMIT as u32)) == 0 }
}

impl PacketBytes for Linear {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // SAFETY: the context is valid for the program's run.
        let (start, end) = unsafe {
            (
                (&raw const (*self.skb).data).read_volatile() as usize,
                (&raw const (*self.skb).data_end).read_volatile() as usize,
            )
        };
        let at = start + offset;
        if at + N > end {
            return None;
        }
        // SAFETY: `at..at + N` lies within the linear part, as just checked.
        Some(unsafe { words(at as *const u8) })
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the context is valid for the program's run.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn gso(&self) -> Gso {
        // SAFETY: the context is valid for the program's run.
        if unsafe { (*self.skb).gso_size } == 0 { Gso::No } else { Gso::Yes }
    }
}

impl PacketBytes for Skb<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.linear.read(offset)
    }

    #[inline(always)]
    fn forget(&self, offset: u8) -> u8 {
        crate::maps::forget(self.scratch, offset)
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.linear.length()
    }

    #[inline(always)]
    fn gso(&self) -> Gso {
        self.linear.gso()
    }
}

/// Wide loads: BPF has no unaligned loads for LLVM, so `read_unaligned` becomes one load a byte, while
/// the kernel accepts unaligned packet loads where the machine does.
///
/// # Safety
/// `from` must point to `N` readable bytes. Rust calls a misaligned `read` undefined; what is
/// compiled here is one BPF load instruction, which the kernel defines.
#[inline(always)]
unsafe fn words<const N: usize>(from: *const u8) -> [u8; N] {
    let mut out = [0u8; N];
    let to = out.as_mut_ptr();
    let mut at = 0;
    // SAFETY: every access lies within the first N bytes of both.
    unsafe {
        // An address is wanted whole; every other header is wanted in words of four, and loads that
        // nobody uses disappear.
        while N == 16 && at + 8 <= N {
            to.add(at).cast::<u64>().write_unaligned(from.add(at).cast::<u64>().read());
            at += 8;
        }
        while at + 4 <= N {
            to.add(at).cast::<u32>().write_unaligned(from.add(at).cast::<u32>().read());
            at += 4;
        }
        if at + 2 <= N {
            to.add(at).cast::<u16>().write_unaligned(from.add(at).cast::<u16>().read());
            at += 2;
        }
        if at < N {
            to.add(at).write(from.add(at).read());
        }
    }
    out
}
