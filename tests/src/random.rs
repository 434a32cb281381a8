//! A small generator of numbers, seeded: the same seed is the same run.

/// xorshift64* (Vigna 2016).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator; any seed but 0 will do.
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// The seed of this run: `PODFENCE_SEED`, else `default`.
    pub fn seed(default: u64) -> u64 {
        std::env::var("PODFENCE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(default)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// 0 to `n - 1`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 33) as usize % n
    }

    /// Once in `n`.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}
