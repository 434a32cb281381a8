//! The workspace is what ARCHITECTURE.md says: its table of floors is read here and held against cargo's own
//! metadata, its table of laws against the tests it names. Everything wrong is told at once, a line each.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Below this floor the three verbs do not know each other.
const FLOOR_WHERE_VERBS_MEET: usize = 4;
const VERBS: [&str; 3] = ["observer", "generator", "enforcer"];
/// The word that only two crates may write; in two pieces, as this file is read too.
const KEYWORD: &str = concat!("un", "safe");
const MAY_WRITE_IT: [&str; 2] = ["enforcer/kernel", "enforcer/datapath"];
/// What is compiled into the kernel program: aya-obj links its functions without their section.
const IN_THE_KERNEL: [&str; 3] = ["enforcer/kernel", "enforcer/verdict", "policies/flow"];
const COLD: &str = concat!("#[", "cold]");
const SAYS_NOTHING: [&str; 5] = ["utils", "common", "helpers", "types", "manager"];

#[test]
fn every_crate_stands_on_its_floor_and_depends_on_lower_ones_only() {
    let (floors, crates) = (floors(), crates());
    let mut wrong = Vec::new();
    for name in floors.keys().filter(|name| !crates.contains_key(*name)) {
        wrong.push(format!("ARCHITECTURE.md has a floor for {name}, which is no crate here"));
    }
    for (name, this) in &crates {
        let Some(floor) = floors.get(name) else {
            wrong.push(format!("{name} ({}) has no floor in ARCHITECTURE.md's table", this.folder));
            continue;
        };
        for dependency in &this.dependencies {
            // A crate's tests may ask for a feature of its own.
            if dependency == name {
                continue;
            }
            let below = floors.get(dependency);
            if below.is_none_or(|below| below >= floor) {
                wrong.push(format!("{name} is on floor {floor} and depends on {dependency}, on floor {below:?}"));
            }
            let (from, to) = (verb(this), crates.get(dependency).and_then(verb));
            if *floor < FLOOR_WHERE_VERBS_MEET && from.is_some() && to.is_some() && from != to {
                wrong.push(format!(
                    "{name} is below floor {FLOOR_WHERE_VERBS_MEET} and depends on {dependency} of another verb"
                ));
            }
        }
    }
    nothing(&wrong);
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let mut wrong = Vec::new();
    for (name, this) in &crates() {
        let manifest = read(&root().join(&this.folder).join("Cargo.toml"));
        let section: Vec<_> = lines_of(&manifest, "[lints]");
        let own = name == "kernel" && manifest.contains("[lints.rust]") && manifest.contains("[lints.clippy]");
        if !section.contains(&"workspace = true") && !own {
            wrong.push(format!("{}/Cargo.toml: [lints] lacks `workspace = true`", this.folder));
        }
    }
    nothing(&wrong);
}

#[test]
fn memory_is_handled_by_hand_only_at_the_kernels_border() {
    let mut wrong = Vec::new();
    each_code_line(|file, number, line| {
        let there = words(line).any(|word| word == KEYWORD);
        if there && !MAY_WRITE_IT.iter().any(|folder| file.starts_with(folder)) {
            wrong.push(format!("{}:{number}: `{KEYWORD}` belongs into {MAY_WRITE_IT:?}", file.display()));
        }
    });
    nothing(&wrong);
}

#[test]
fn no_function_of_the_kernel_program_is_cold() {
    let mut wrong = Vec::new();
    each_code_line(|file, number, line| {
        if line.contains(COLD) && IN_THE_KERNEL.iter().any(|folder| file.starts_with(folder)) {
            wrong.push(format!("{}:{number}: {COLD} may make a call land in another function", file.display()));
        }
    });
    nothing(&wrong);
}

#[test]
fn names_say_something() {
    let mut wrong = Vec::new();
    for name in crates().keys().filter(|name| SAYS_NOTHING.contains(&name.as_str())) {
        wrong.push(format!("a crate is called {name}"));
    }
    for path in files() {
        let file = path.strip_prefix(root()).expect("a file of the project");
        for part in file.components() {
            let part = part.as_os_str().to_string_lossy();
            if SAYS_NOTHING.contains(&part.split('.').next().unwrap_or_default()) {
                wrong.push(format!("{}: {part} says nothing", file.display()));
            }
        }
    }
    each_code_line(|file, number, line| {
        let all: Vec<_> = words(line).collect();
        if all.windows(2).any(|pair| pair[0] == "mod" && SAYS_NOTHING.contains(&pair[1])) {
            wrong.push(format!("{}:{number}: a module that says nothing", file.display()));
        }
    });
    nothing(&wrong);
}

#[test]
fn every_source_file_is_compiled() {
    let mut reached = BTreeSet::new();
    for this in crates().values() {
        for target in &this.targets {
            reach(target, true, &mut reached);
        }
    }
    // cargo-fuzz compiles these, outside every workspace.
    for target in files().iter().filter(|file| file.parent().is_some_and(|folder| folder.ends_with("fuzz_targets"))) {
        reach(target, true, &mut reached);
    }
    let wrong: Vec<_> = sources()
        .filter(|file| !reached.contains(file))
        .map(|file| format!("{}: no target and no module declares it, so it never runs", file.display()))
        .collect();
    nothing(&wrong);
}

#[test]
fn every_law_names_tests_that_are_there() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let mut wrong = Vec::new();
    let mut laws = BTreeSet::new();
    for row in rows(&text, "## Laws") {
        let Some(law) = row.first().and_then(|cell| cell.parse::<u32>().ok()) else { continue };
        laws.insert(law);
        let tests: Vec<_> = quoted(row[2]).filter_map(|name| name.split_once("::")).collect();
        if tests.is_empty() && !row[2].contains("not yet") {
            wrong.push(format!("law {law} names no test and does not say `not yet`"));
        }
        for (file, function) in tests {
            let source = fs::read_to_string(root().join(file)).unwrap_or_default();
            if !source.contains(&format!("fn {function}(")) {
                wrong.push(format!("law {law} names {file}::{function}, which is not there"));
            }
        }
    }
    if laws != (1..=14).collect() {
        wrong.push(format!("ARCHITECTURE.md should list laws 1 to 14, and lists {laws:?}"));
    }
    nothing(&wrong);
}

fn nothing(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

// --- crates ---------------------------------------------------------------------------------------------------

struct Crate {
    /// From the root of the project.
    folder: String,
    /// Crates of ours, for whatever purpose.
    dependencies: BTreeSet<String>,
    /// Where compiling its targets begins.
    targets: Vec<PathBuf>,
}

/// By name: the workspace's crates, and the kernel program, which has a workspace of its own.
fn crates() -> BTreeMap<String, Crate> {
    let mut all = BTreeMap::new();
    for folder in ["", "enforcer/kernel"] {
        let out = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
            .current_dir(root().join(folder))
            .output()
            .expect("cargo metadata");
        assert!(out.status.success(), "cargo metadata in {folder}: {}", String::from_utf8_lossy(&out.stderr));
        let metadata: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        for package in metadata["packages"].as_array().expect("packages") {
            all.insert(text(&package["name"]), of_package(package));
        }
    }
    all
}

fn of_package(package: &Value) -> Crate {
    let manifest = PathBuf::from(text(&package["manifest_path"]));
    let folder = manifest.parent().and_then(|folder| folder.strip_prefix(root()).ok()).expect("a crate in the project");
    let list = |field: &str| package[field].as_array().expect("a list").clone();
    Crate {
        folder: folder.to_string_lossy().into_owned(),
        dependencies: list("dependencies").iter().filter(|d| !d["path"].is_null()).map(|d| text(&d["name"])).collect(),
        targets: list("targets").iter().map(|target| text(&target["src_path"]).into()).collect(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn verb(this: &Crate) -> Option<&'static str> {
    VERBS.into_iter().find(|verb| this.folder.split('/').next() == Some(verb))
}

// --- ARCHITECTURE.md ------------------------------------------------------------------------------------------

/// Crate -> floor, from the table under "## Floors".
fn floors() -> BTreeMap<String, usize> {
    let text = read(&root().join("ARCHITECTURE.md"));
    let mut floors = BTreeMap::new();
    for row in rows(&text, "## Floors") {
        let Some(floor) = row.first().and_then(|cell| cell.parse().ok()) else { continue };
        for name in quoted(row[1]) {
            assert!(floors.insert(name.to_owned(), floor).is_none(), "{name} stands on two floors in ARCHITECTURE.md");
        }
    }
    assert!(!floors.is_empty(), "ARCHITECTURE.md has a table under `## Floors`");
    floors
}

/// The cells of the tables under a heading, up to the next one.
fn rows<'a>(text: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    text.lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'))
        .map(|row| row.split('|').map(str::trim).collect())
        .collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

// --- files ----------------------------------------------------------------------------------------------------

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder above tests/").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file of the project: not what was built, not what tools keep.
fn files() -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') || path.join("CACHEDIR.TAG").exists() {
                continue;
            }
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

fn sources() -> impl Iterator<Item = PathBuf> {
    files().into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
}

/// Each line of Rust without its comment, with the file from the root on.
fn each_code_line(mut look: impl FnMut(&Path, usize, &str)) {
    for path in sources() {
        let file = path.strip_prefix(root()).expect("a file of the project");
        for (index, line) in read(&path).lines().enumerate() {
            look(file, index + 1, line.split("//").next().unwrap_or_default());
        }
    }
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty())
}

/// The lines of a section of a manifest.
fn lines_of<'a>(manifest: &'a str, section: &str) -> Vec<&'a str> {
    manifest.lines().skip_while(|line| *line != section).skip(1).take_while(|line| !line.starts_with('[')).collect()
}

/// Follows `mod name;` from a file on.
fn reach(file: &Path, is_root: bool, reached: &mut BTreeSet<PathBuf>) {
    if !file.exists() || !reached.insert(file.to_owned()) {
        return;
    }
    let beside = file.parent().expect("a folder");
    let owns_its_folder = is_root || file.file_name().is_some_and(|name| name == "mod.rs");
    let below = if owns_its_folder { beside.to_owned() } else { file.with_extension("") };
    let mut elsewhere = None;
    for line in read(file).lines().map(str::trim) {
        if let Some(path) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
            elsewhere = Some(beside.join(path));
            continue;
        }
        let mut declaration = line.split("//").next().unwrap_or_default().trim().trim_end_matches(';').rsplit("mod ");
        let (name, rest) = (declaration.next().unwrap_or_default(), declaration.next());
        if line.contains(';') && rest.is_some_and(|before| before.is_empty() || before.starts_with("pub")) {
            match elsewhere.take() {
                Some(path) => reach(&path, true, reached),
                None => {
                    reach(&below.join(format!("{name}.rs")), false, reached);
                    reach(&below.join(name).join("mod.rs"), false, reached);
                }
            }
        }
    }
}
