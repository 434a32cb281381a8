//! Builds the kernel program with the BPF toolchain and hands its path to the crate.
//!
//! `BPF_OBJECT=/path/kernel.o` uses one built elsewhere; `BPF_RUSTC`, `BPF_CARGO` and `BPF_LINKER` name
//! the toolchain. Without `BPF_LINKER` the one that `./run setup` keeps in the cache folder is used, else `PATH`'s.

use object::{Object, ObjectSection};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    for name in ["BPF_OBJECT", "BPF_RUSTC", "BPF_CARGO", "BPF_LINKER"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let object = match env::var_os("BPF_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => build(),
    };
    check(&object);
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rustc-env=KERNEL_OBJECT={}", object.display());
}

fn build() -> PathBuf {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let enforcer = manifest.parent().expect("the crate lies in enforcer/");
    let kernel = enforcer.join("kernel");
    let sources = ["src", "Cargo.toml", "Cargo.lock", ".cargo/config.toml"].map(|path| kernel.join(path));
    let shared = [enforcer.join("verdict/src"), enforcer.join("../policies/flow/src")];
    for path in sources.iter().chain(&shared) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    // <target>/<profile>/build/<package-hash>/out: one kernel build serves every profile.
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let next_layout = env::var_os("CARGO_FEATURE_NEXT_LAYOUT").is_some();
    let folder = if next_layout { "bpf-next-layout" } else { "bpf" };
    let target = out.ancestors().nth(4).expect("OUT_DIR lies in the target folder").join(folder);
    let tool = |name: &str, or: &str| env::var(name).unwrap_or_else(|_| or.into());
    let mut cargo = Command::new(tool("BPF_CARGO", "/usr/bin/cargo"));
    // What the outer cargo, rustup and clippy export would choose the wrong compiler and flags.
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        let kept = ["CARGO_HOME", "CARGO_MAKEFLAGS", "CARGO_NET_OFFLINE"].contains(&&*name_text);
        let foreign = ["CARGO", "RUSTC", "RUSTDOC"].iter().any(|prefix| name_text.starts_with(prefix))
            || ["RUSTFLAGS", "RUSTUP_TOOLCHAIN"].contains(&&*name_text);
        if foreign && !kept {
            cargo.env_remove(&name);
        }
    }
    if let Some(linker) = linker() {
        cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    }
    let status = cargo
        .current_dir(&kernel)
        .env("RUSTC", tool("BPF_RUSTC", "/usr/bin/rustc"))
        .args(["build", "--release", "--locked", "--target-dir"])
        .arg(&target)
        .args(if next_layout { &["--features", "next-layout"][..] } else { &[] })
        .status()
        .unwrap_or_else(|e| {
            panic!("the BPF toolchain's cargo does not start: {e}; run `./run setup`, or set BPF_OBJECT")
        });
    assert!(status.success(), "the kernel program did not build; run `./run setup` if a tool is missing");
    target.join("bpfel-unknown-none/release/kernel")
}

/// `BPF_LINKER`, else the newest that the set-up made; `None` leaves it to `PATH`.
fn linker() -> Option<PathBuf> {
    if let Some(linker) = env::var_os("BPF_LINKER") {
        return Some(linker.into());
    }
    let cache = match env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(env::var_os("HOME")?).join(".cache"),
    };
    let made = fs::read_dir(cache.join("podfence")).ok()?.filter_map(Result::ok);
    let mut made: Vec<PathBuf> = made
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("bpf-linker-"))
        .map(|entry| entry.path().join("bin/bpf-linker"))
        .filter(|path| path.is_file())
        .collect();
    made.sort();
    made.pop()
}

/// The loader finds functions by their offset in `.text` alone, so a function in another text section
/// would be taken for whatever stands at its offset. Cold functions and reachable panics land there.
fn check(path: &Path) {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    let object = object::File::parse(&*bytes)
        .unwrap_or_else(|e| panic!("{} is no object file: {e}; name another with BPF_OBJECT", path.display()));
    for section in object.sections() {
        let name = section.name().unwrap_or_default();
        assert!(
            !name.starts_with(".text."),
            "{} has a section {name}: a function is cold, or a panic is reachable; the loader would call wrong code",
            path.display()
        );
    }
}
