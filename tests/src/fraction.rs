//! How much a test does that sends a number of packets: `PODFENCE_FRACTION=20` makes it a twentieth, for a machine that
//! is slow (older kernels are emulated).

/// That part of a count; at least one.
pub fn of(count: u64) -> u64 {
    (count / fraction()).max(1)
}

/// What a test demands of its own packets: so many in a whole run. In a part, where what is rare is rarer still, one.
pub fn demanded(count: u64) -> u64 {
    if fraction() == 1 { count } else { 1 }
}

/// # Panics
/// Where `PODFENCE_FRACTION` is no number above 0.
fn fraction() -> u64 {
    std::env::var("PODFENCE_FRACTION").map_or(1, |text| {
        text.parse().ok().filter(|fraction| *fraction > 0).unwrap_or_else(|| {
            panic!("PODFENCE_FRACTION={text} is no number above 0; 20 makes it a twentieth");
        })
    })
}
