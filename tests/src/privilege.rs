//! A test that lacks what it needs says *skipped* and why; where `PODFENCE_REQUIRE` names it, it fails.

/// Whether this process may load programs and make namespaces; prints why not.
///
/// # Panics
/// Where `PODFENCE_REQUIRE` names `kernel` and the answer is no.
pub fn kernel(test: &str) -> bool {
    let why = if !nix::unistd::geteuid().is_root() {
        "needs root to load eBPF programs"
    } else if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        "needs a kernel with BTF"
    } else {
        return true;
    };
    assert!(!required(), "{test}: {why}, and PODFENCE_REQUIRE=kernel forbids to skip");
    println!("skipped: {test}: {why}");
    false
}

/// Whether `PODFENCE_REQUIRE` names `kernel`.
pub fn required() -> bool {
    std::env::var("PODFENCE_REQUIRE").unwrap_or_default().split(',').any(|part| part == "kernel")
}
