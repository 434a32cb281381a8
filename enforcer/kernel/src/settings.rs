//! Settings that the loader writes before the program is verified: constants to the verifier.

use aya_ebpf::Global;
use verdict::{Limits, Mode, Standing};

#[unsafe(no_mangle)]
static TESTING: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static UNKNOWN_POD_PASSES: Global<u64> = Global::new(1);
#[unsafe(no_mangle)]
static HALF_OPEN_LIMIT: Global<u64> = Global::new(4_096);
#[unsafe(no_mangle)]
static ESTABLISHED_LIMIT: Global<u64> = Global::new(65_536);
#[unsafe(no_mangle)]
static TOMBSTONE_LIMIT: Global<u64> = Global::new(4_096);
#[unsafe(no_mangle)]
static STANDING: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static EVENT_LIMIT: Global<u64> = Global::new(2_000);

/// Whether time and sockets come from the map `TEST`.
#[inline(always)]
pub fn testing() -> bool {
    TESTING.load() == 1
}

/// The mode that stands for the setting `unknownPod`.
#[inline(always)]
pub fn unknown_pod() -> Mode {
    if UNKNOWN_POD_PASSES.load() == 1 { Mode::Learn } else { Mode::Enforce }
}

/// The limits of the shares.
#[inline(always)]
pub fn limits() -> Limits {
    Limits {
        half_open: HALF_OPEN_LIMIT.load(),
        established: ESTABLISHED_LIMIT.load(),
        tombstones: TOMBSTONE_LIMIT.load(),
    }
}

/// What becomes of connections that policy no longer allows.
#[inline(always)]
pub fn standing() -> Standing {
    if STANDING.load() == 1 { Standing::Kept } else { Standing::Revoked }
}

/// Events a CPU may make in `verdict::abi::EVENT_PERIOD`.
#[inline(always)]
pub fn events() -> u64 {
    EVENT_LIMIT.load()
}
