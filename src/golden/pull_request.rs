//! The entry script of the GitHub action, on a repository made here: with `gh` as a program that writes down what it was
//! asked, and without any right to comment.

use crate::world::{CLUSTER, World};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/github-action/review");

const BEFORE: &str = r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: data}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
    - from: [{namespaceSelector: {matchLabels: {team: "on"}}, podSelector: {matchLabels: {app: web}}}]
      ports: [{port: 6379}]
"#;

/// Lists one comment, takes what is written, and keeps every request but the listing.
const GH: &str = r#"#!/bin/sh
case "$*" in
  *--paginate*) [ -e "$FAKE/comment" ] && echo 7; exit 0 ;;
esac
[ -e "$FAKE/forbidden" ] && { echo "Resource not accessible by integration" >&2; exit 1; }
for word in "$@"; do
  case "$word" in
    body=@*) cp "${word#body=@}" "$FAKE/comment" ;;
    sarif=@*) base64 -d "${word#sarif=@}" | gunzip >>"$FAKE/sarif" ;;
  esac
done
echo "$*" >>"$FAKE/asked"
"#;

/// A repository whose last commit opens the database to everyone and closes nothing.
struct Repository {
    world: World,
}

impl Repository {
    fn new(after: &str) -> Self {
        let world = World::observed();
        fs::create_dir_all(world.path("repo/policies")).expect("made");
        fs::create_dir_all(world.path("fake")).expect("made");
        let repository = Self { world };
        let gh = repository.path("fake/gh");
        fs::write(&gh, GH).expect("written");
        fs::set_permissions(&gh, fs::Permissions::from_mode(0o755)).expect("set");
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository.commit("cluster.yaml", CLUSTER);
        repository.commit("policies/db.yaml", BEFORE);
        repository.commit("policies/db.yaml", after);
        repository
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path(name)
    }

    fn commit(&self, file: &str, text: &str) {
        fs::write(self.path("repo").join(file), text).expect("written");
        self.git(&["add", "--all"]);
        self.git(&["-c", "user.name=n", "-c", "user.email=e@example", "commit", "--quiet", "--message=change"]);
    }

    fn git(&self, words: &[&str]) {
        let done = Command::new("git").args(words).current_dir(self.path("repo")).output().expect("git runs");
        assert!(done.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn review(&self, more: &[(&str, &str)]) -> (i32, String) {
        let path = format!("{}:{}", self.path("fake").display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(SCRIPT);
        command.current_dir(self.path("repo")).env_clear().env("PATH", path).env("HOME", self.path("fake"));
        command.env("PODFENCE", env!("CARGO_BIN_EXE_podfence")).env("FAKE", self.path("fake"));
        command.env("RUNNER_TEMP", self.path("fake")).env("GITHUB_STEP_SUMMARY", self.path("fake/summary"));
        command.env("GITHUB_REPOSITORY", "owner/name").env("REVIEW_NUMBER", "3").env("GH_TOKEN", "a-secret");
        command.env("GITHUB_ACTIONS", "true");
        command.env("REVIEW_PATH", "policies").env("REVIEW_BASE", "HEAD~1").env("REVIEW_CLUSTER", "cluster.yaml");
        command.env("REVIEW_LINT_FAIL_ON", "error").envs(more.iter().copied());
        let Output { status, stdout, stderr } = command.output().expect("the script runs");
        let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        assert!(!said.contains("a-secret"), "{said}");
        (status.code().unwrap_or(-1), said)
    }

    fn kept(&self, name: &str) -> String {
        fs::read_to_string(self.path("fake").join(name)).unwrap_or_default()
    }
}

fn open_to_all() -> String {
    BEFORE.replace("    - from: [{namespaceSelector: {matchLabels: {team: \"on\"}}, podSelector: {matchLabels: {app: web}}}]\n      ports", "    - ports")
}

#[test]
fn a_pull_request_gets_one_comment_alerts_and_a_status() {
    if !has_tools() {
        return;
    }
    let repository = Repository::new(&open_to_all());
    let log = repository.path("log").display().to_string();
    let more = [("REVIEW_FAIL_ON", "opened"), ("REVIEW_LOG", log.as_str()), ("REVIEW_REPLAY_FAIL_ON", "newly-denied")];
    let (status, said) = repository.review(&more);
    assert_eq!(status, 1, "{said}");
    let comment = repository.kept("comment");
    assert!(comment.starts_with("<!-- podfence review -->\n"), "{comment}");
    assert!(comment.contains("policies/db.yaml") && comment.contains("Replay of recorded flows"), "{comment}");
    let alerts = repository.kept("sarif");
    assert!(alerts.contains("\"version\": \"2.1.0\"") && alerts.contains("policies/db.yaml"), "{alerts}");
    let asked = repository.kept("asked");
    assert!(asked.contains("--method POST repos/owner/name/issues/3/comments"), "{asked}");
    assert!(!Path::new(&repository.path("fake/summary")).exists(), "{said}");

    let (status, said) = repository.review(&[]);
    assert_eq!(status, 0, "nothing was named that fails: {said}");
    let asked = repository.kept("asked");
    assert!(asked.contains("--method PATCH repos/owner/name/issues/comments/7"), "in its place: {asked}");
}

#[test]
fn without_the_right_to_comment_the_summary_has_it() {
    if !has_tools() {
        return;
    }
    let repository = Repository::new(&open_to_all());
    fs::write(repository.path("fake/forbidden"), "").expect("written");
    let (status, said) = repository.review(&[]);
    assert_eq!(status, 0, "{said}");
    assert!(repository.kept("summary").contains("policies/db.yaml"), "{said}");
    assert!(said.contains("was not uploaded"), "{said}");
}

#[test]
fn what_cannot_be_answered_is_said_and_is_status_2() {
    if !has_tools() {
        return;
    }
    let repository = Repository::new(
        "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: db}\nspec: {podSelecter: {}}\n",
    );
    let (status, said) = repository.review(&[]);
    assert_eq!(status, 2, "{said}");
    assert!(repository.kept("comment").contains("could not answer"), "{said}");
}

#[test]
fn before_a_commit_it_is_text_and_nobody_is_asked_to_write() {
    if !has_tools() {
        return;
    }
    let repository = Repository::new(&open_to_all());
    let (status, said) = repository.review(&[("GITHUB_ACTIONS", ""), ("REVIEW_FAIL_ON", "opened")]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("From git:HEAD~1:policies"), "{said}");
    assert!(!said.contains("<!--") && repository.kept("asked").is_empty(), "{said}");
}

/// Whether what the script needs is there: a runner of GitHub's has all of it.
fn has_tools() -> bool {
    let missing: Vec<&str> = ["bash", "git", "gzip", "base64"]
        .into_iter()
        .filter(|tool| Command::new(tool).arg("--version").output().is_err())
        .collect();
    if !missing.is_empty() {
        println!("skipped: no {}", missing.join(", "));
    }
    missing.is_empty()
}
