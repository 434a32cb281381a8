//! Names, UIDs and hashes as Kubernetes makes them, from the scenario alone: the same scenario, the same names.

/// What Kubernetes' own suffixes are made of: no vowels, so that no words appear.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

fn digest(seed: &[&str]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in seed {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    *hasher.finalize().as_bytes()
}

/// A random-looking suffix of up to 32 letters.
pub(crate) fn suffix(seed: &[&str], length: usize) -> String {
    let letter = |byte: &u8| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]);
    digest(seed).iter().take(length).map(letter).collect()
}

/// A UID in the form of a version 4 UUID.
pub(crate) fn uid(seed: &[&str]) -> String {
    let hex = hex(seed, 30);
    format!("{}-{}-4{}-a{}-{}", &hex[0..8], &hex[8..12], &hex[12..15], &hex[15..18], &hex[18..30])
}

/// Up to 64 hexadecimal digits.
pub(crate) fn hex(seed: &[&str], length: usize) -> String {
    let digits: String = digest(seed).iter().map(|byte| format!("{byte:02x}")).collect();
    digits.chars().take(length).collect()
}
