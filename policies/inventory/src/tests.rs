use super::*;
use std::fs;

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\n";
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
                      metadata: {name: p, namespace: shop}\nspec: {podSelector: {}}\n";

/// A folder that is gone when the test is.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn message(error: &Error, folder: &Path) -> String {
    error.to_string().replace(&folder.display().to_string(), "DIR")
}

#[test]
fn a_folder_is_read_with_all_below_it_and_nothing_else() {
    let dir = folder();
    fs::create_dir(dir.path().join("more")).unwrap();
    fs::write(dir.path().join("pod.yaml"), POD).unwrap();
    fs::write(dir.path().join("more/policy.YML"), POLICY).unwrap();
    fs::write(dir.path().join("notes.txt"), "not: [yaml").unwrap();
    let cluster = read(&[dir.path()]).unwrap();
    assert_eq!((cluster.pods.len(), cluster.policies.policies.len()), (1, 1));
    assert_eq!(cluster.pods[0].source.as_ref().map(|s| s.line), Some(1));
    let policies = read_policies(&[dir.path()]).unwrap();
    assert_eq!(policies.policies.len(), 1);
}

#[test]
fn no_path_is_an_empty_cluster() {
    assert!(read::<&Path>(&[]).unwrap().pods.is_empty());
}

#[test]
fn an_object_given_twice_names_both_places() {
    let dir = folder();
    for name in ["a.yaml", "b.yaml"] {
        fs::write(dir.path().join(name), POLICY).unwrap();
    }
    let both = "DIR/b.yaml:1: NetworkPolicy shop/p: was already read from DIR/a.yaml:1; give each object once";
    let error = read(&[dir.path()]).unwrap_err();
    assert_eq!(message(&error, dir.path()).replace(&dir.path().display().to_string(), "DIR"), both);
    let error = read_policies(&[dir.path()]).unwrap_err();
    assert_eq!(message(&error, dir.path()), both);
}

#[test]
fn bad_input_says_where_and_what_to_try() {
    let dir = folder();
    let bytes = dir.path().join("bytes.yaml");
    fs::write(&bytes, b"kind: \xff").unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    let table = [
        (
            dir.path().join("absent.yaml"),
            "DIR/absent.yaml: cannot be read; give a file, a folder of .yaml, .yml or .json files, or - for standard input",
        ),
        (bytes, "DIR/bytes.yaml: not UTF-8 at byte 6; give YAML or JSON text"),
        (
            dir.path().join("empty"),
            "DIR/empty: no .yaml, .yml or .json file in this folder or below; give the files by name",
        ),
    ];
    for (path, expected) in table {
        assert_eq!(message(&read(&[path]).unwrap_err(), dir.path()), expected);
    }
}

#[test]
fn a_file_without_end_is_refused() {
    let mut left = 10;
    let error = text(Path::new("/dev/zero"), "endless", &mut left).unwrap_err();
    assert!(error.to_string().starts_with("endless: more than 512 MiB in all"), "{error}");
}

#[test]
fn folders_in_a_circle_end() {
    let dir = folder();
    std::os::unix::fs::symlink(dir.path(), dir.path().join("again")).unwrap();
    assert!(message(&read(&[dir.path()]).unwrap_err(), dir.path()).contains("more than 32 folders deep"));
}

#[test]
fn reading_on_tells_all_that_is_wrong_in_every_file() {
    let dir = folder();
    fs::write(dir.path().join("a.yaml"), POLICY.replace("podSelector: {}", "policyTypes: [in]")).unwrap();
    fs::write(dir.path().join("b.yaml"), b"kind: \xff").unwrap();
    fs::write(dir.path().join("c.yaml"), format!("{POLICY}---\n{POLICY}")).unwrap();
    let paths = [dir.path().join("absent.yaml"), dir.path().to_owned()];
    let errors = read_as(&paths, Options { keep_going: true, ..Options::default() }).unwrap_err();
    let all: Vec<_> = errors.iter().map(|error| message(error, dir.path())).collect();
    let expected = [
        "DIR/absent.yaml: cannot be read; give",
        "DIR/a.yaml:4: NetworkPolicy shop/p: spec.policyTypes[0]: `in` is neither",
        "DIR/b.yaml: not UTF-8 at byte 6",
        "DIR/c.yaml:6: NetworkPolicy shop/p: was already read from DIR/c.yaml:1",
    ];
    assert_eq!(all.len(), expected.len(), "{all:#?}");
    assert!(all.iter().zip(expected).all(|(found, expected)| found.starts_with(expected)), "{all:#?}");
    assert_eq!((errors.to_string().lines().count(), errors.more()), (4, 0));
    let first = read(&paths).unwrap_err();
    assert_eq!(message(&first, dir.path()), all[0]);
}

#[test]
fn what_is_wrong_beyond_a_thousand_things_is_counted() {
    let dir = folder();
    fs::write(dir.path().join("a.yaml"), "- 1\n".repeat(1500)).unwrap();
    let errors = read_as(&[dir.path()], Options { keep_going: true, ..Options::default() }).unwrap_err();
    assert_eq!((errors.iter().count(), errors.more()), (1000, 500));
    assert!(errors.to_string().ends_with("\nand 500 more"));
}
