//! The maps. Names, keys and values are defined in `verdict::abi`; sizes are defaults that the
//! loader may override.

use aya_ebpf::{
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf},
    helpers::generated::bpf_map_lookup_elem,
    macros::btf_map,
};
use core::cell::Cell;
use flow::Packet;
use verdict::{
    Sheet,
    abi::{
        self, ConnectionKey, ConnectionRecord, CounterRecord, EndpointRecord, FragmentRecord, GenerationRecord, Nanos,
        RuleKey,
    },
};

/// BPF_F_MMAPABLE (5.5).
const MMAPABLE: usize = 1024;
const ENDPOINT_COUNT: usize = abi::MAX_ENDPOINTS as usize;

#[btf_map]
pub static LINKS: HashMap<u32, u32, ENDPOINT_COUNT> = HashMap::new();
/// See `abi::LINK_SLOTS`.
#[btf_map]
pub static LINK_SLOTS: Array<u64, { abi::LINK_SLOTS as usize }> = Array::new();
/// Mapped by the agent, which publishes a word by one store.
#[btf_map]
pub static ENDPOINTS: Array<EndpointRecord, ENDPOINT_COUNT, MMAPABLE> = Array::new();
#[btf_map]
pub static GENERATIONS: Array<GenerationRecord, 65_536> = Array::new();
#[btf_map]
pub static IDENTITIES: LpmTrie<[u32; 4], u32, 262_144> = LpmTrie::new();
#[btf_map]
pub static FURTHER: LpmTrie<[u32; 2], u32, { ENDPOINT_COUNT * abi::FURTHER_PREFIXES }> = LpmTrie::new();
#[btf_map]
pub static PEERS: HashMap<[u64; 2], u32, 16_384> = HashMap::new();
#[btf_map]
pub static PORT_CLASSES: LpmTrie<[u32; 2], u32, 65_536> = LpmTrie::new();
#[btf_map]
pub static RULES: HashMap<RuleKey, u32, 262_144> = HashMap::new();
#[btf_map]
pub static CONNECTIONS: HashMap<ConnectionKey, ConnectionRecord, 262_144> = HashMap::new();
#[btf_map]
pub static SHARES: Array<[u64; 4], ENDPOINT_COUNT> = Array::new();
#[btf_map]
pub static RETURNED: Array<[u64; 4], ENDPOINT_COUNT> = Array::new();
#[btf_map]
pub static SWEPT: Array<Nanos, 2> = Array::new();
#[btf_map]
pub static RATES: Array<[u64; 2], ENDPOINT_COUNT> = Array::new();
#[btf_map]
pub static FRAGMENTS: Array<FragmentRecord, { ENDPOINT_COUNT * abi::FRAGMENT_SLOTS as usize }> = Array::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<CounterRecord, 256> = PerCpuArray::new();
#[btf_map]
pub static TOKENS: PerCpuArray<[u64; 2], 1> = PerCpuArray::new();
#[btf_map]
pub static EVENTS: RingBuf<(), 4_194_304> = RingBuf::new();
#[btf_map]
pub static TEST: Array<[u64; 2], 1> = Array::new();

/// The endpoint that a link leads to.
#[inline(always)]
pub fn endpoint_of(ifindex: u32) -> Option<u32> {
    match LINK_SLOTS.get(ifindex % abi::LINK_SLOTS) {
        Some(slot) if *slot as u32 == ifindex => Some((*slot >> 32) as u32),
        // SAFETY: the value is copied at once.
        _ => unsafe { LINKS.get(ifindex) }.copied(),
    }
}

/// What one packet is worked out on.
#[repr(C)]
pub struct Desk {
    /// The sheet that `verdict` writes on.
    pub sheet: Sheet,
    /// A word to forget by.
    scratch: Cell<u64>,
}

/// This CPU's desk. In a map, not on the stack: the verifier knows nothing of what lies in maps, so
/// that the many ways to a point meet there again.
#[btf_map]
static DESK: PerCpuArray<[u64; 32], 1> = PerCpuArray::new();

/// This CPU's desk, with an empty packet on it.
#[inline(always)]
pub fn desk() -> Option<&'static mut Desk> {
    const { assert!(size_of::<Desk>() <= 256 && align_of::<Desk>() <= 8) }
    const WORDS: usize = size_of::<Packet>() / 8;
    let words = DESK.get_ptr_mut(0)?.cast::<u64>();
    for index in 0..WORDS {
        // SAFETY: the packet is the first field of the sheet, the sheet of the desk (repr(C)). Volatile:
        // LLVM would call memset, a loop over bytes that the verifier of 6.1 walks a million instructions for.
        unsafe { words.add(index).write_volatile(0) };
    }
    // SAFETY: the value is large enough and aligned; zeros are a desk, and nothing but desks is ever
    // written there. A classifier is not interrupted by another one on its CPU.
    Some(unsafe { &mut *words.cast::<Desk>() })
}

/// The same number, of which the verifier then knows only that it has eight bits.
#[inline(always)]
pub fn forget(scratch: &Cell<u64>, number: u8) -> u8 {
    let byte = scratch.as_ptr().cast::<u8>();
    // SAFETY: the first byte of the cell. Volatile: LLVM would see through it.
    unsafe {
        byte.write_volatile(number);
        byte.read_volatile()
    }
}

/// The same word, of which the verifier then knows nothing.
#[inline(always)]
pub fn forget_word(scratch: &Cell<u64>, word: u64) -> u64 {
    // SAFETY: the cell itself. Volatile: LLVM would see through it.
    unsafe {
        scratch.as_ptr().write_volatile(word);
        scratch.as_ptr().read_volatile()
    }
}

impl Desk {
    /// The packet on it, and the word beside it.
    #[inline(always)]
    pub fn parts(&mut self) -> (&mut Sheet, &Cell<u64>) {
        (&mut self.sheet, &self.scratch)
    }
}

/// Prefix length and four words of an LPM key; aya's `Key` is packed, hence slow byte stores, and the
/// aligned words have the same layout.
#[inline(always)]
pub fn identity(key: &[u32; 5]) -> Option<u32> {
    // SAFETY: the map's key is 20 bytes long, as `key` is; a value is a u32 or null.
    unsafe {
        let found = bpf_map_lookup_elem((&raw const IDENTITIES).cast_mut().cast(), key.as_ptr().cast());
        found.cast::<u32>().as_ref().copied()
    }
}

/// The same for port classes.
#[inline(always)]
pub fn port_class(key: &[u32; 3]) -> Option<u32> {
    // SAFETY: the map's key is 12 bytes long, as `key` is; a value is a u32 or null.
    unsafe {
        let found = bpf_map_lookup_elem((&raw const PORT_CLASSES).cast_mut().cast(), key.as_ptr().cast());
        found.cast::<u32>().as_ref().copied()
    }
}

/// The same for addresses that endpoints were given.
#[inline(always)]
pub fn further(key: &[u32; 3]) -> Option<u32> {
    // SAFETY: the map's key is 12 bytes long, as `key` is; a value is a u32 or null.
    unsafe {
        let found = bpf_map_lookup_elem((&raw const FURTHER).cast_mut().cast(), key.as_ptr().cast());
        found.cast::<u32>().as_ref().copied()
    }
}
