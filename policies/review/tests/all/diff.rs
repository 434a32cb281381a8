//! The diff of small folders that can be checked by reading: `tests/cases/diff/NAME/{old,new}/*.yaml`, and what
//! is said of them in `expected.txt`. `PODFENCE_WRITE_EXPECTED=1` writes what is missing or different.

use model::cluster::Cluster;
use review::{
    Input,
    diff::{self, Diff, Named},
};
use std::{fs, path::Path};

fn read(folder: &Path) -> Cluster {
    let mut cluster = Cluster::default();
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    for file in files {
        let side = folder.file_name().expect("a name").to_string_lossy();
        let name = format!("{side}/{}", file.file_name().expect("a name").to_string_lossy());
        let text = fs::read_to_string(&file).expect("text");
        model::yaml::read_into(&mut cluster, &name, &text).expect("YAML of the case");
    }
    cluster
}

fn compared(mut old: Cluster, mut new: Cluster) -> Diff {
    diff::align(&mut old, &mut new);
    let name = |input: &str| Named { input: input.to_owned(), revision: None };
    Diff::of(Input { cluster: &old, policies: &old.policies }, Input { cluster: &new, policies: &new.policies })
        .named(name("old"), name("new"))
}

#[test]
fn each_case_says_what_a_reader_would() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/diff");
    let mut folders: Vec<_> =
        fs::read_dir(&cases).expect("cases").map(|entry| entry.expect("an entry").path()).collect();
    folders.sort();
    assert!(!folders.is_empty());
    let write = std::env::var_os("PODFENCE_WRITE_EXPECTED").is_some();
    let mut different = Vec::new();
    for case in folders {
        let diff = compared(read(&case.join("old")), read(&case.join("new")));
        let said = diff::lines(&diff).join("\n") + "\n";
        let expected = case.join("expected.txt");
        if write {
            fs::write(&expected, &said).expect("written");
        }
        let before = fs::read_to_string(&expected).unwrap_or_default();
        if before != said {
            different.push(format!("{}:\n{said}", case.display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
