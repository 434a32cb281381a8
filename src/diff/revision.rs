//! The files of a git revision, read with the `git` program: `git:REV[:PATH]`.
//!
//! Always holds: nothing that was typed is an option to git, no shell is asked, nothing is written; a name may hold
//! anything that git lets it hold; a link or a submodule is not followed, and named.

use crate::{
    backing,
    ending::{Failure, warn},
    manifests, typed,
};
use generator::{Evidence, render};
use model::cluster::Cluster;
use std::{
    ffi::{OsStr, OsString},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const PREFIX: &[u8] = b"git:";

/// A revision, and a file or folder in it.
pub(super) struct Asked {
    revision: OsString,
    /// From the root of the repository; empty: all of it.
    path: PathBuf,
}

/// What `git:REV[:PATH]` names; `None` for any other path (`./git:x` is a file).
pub(super) fn named(path: &Path) -> Option<Result<Asked, Failure>> {
    let rest = path.as_os_str().as_bytes().strip_prefix(PREFIX)?;
    let colon = rest.iter().position(|byte| *byte == b':');
    let (revision, within) = colon.map_or((rest, &[][..]), |at| (&rest[..at], &rest[at + 1..]));
    let is_odd = revision.is_empty() || revision.starts_with(b"-") || revision.contains(&0);
    if is_odd {
        let what = format!("{}: no revision stands behind `git:`", path.display());
        return Some(Err(Failure::new(what, "give git:REV or git:REV:PATH, git:main:deploy say")));
    }
    let mut from_root = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(within)).components() {
        match part {
            std::path::Component::Normal(part) => from_root.push(part),
            std::path::Component::CurDir => {}
            _ => {
                let what = format!("{}: the path leaves the repository", path.display());
                return Some(Err(Failure::new(what, "give a path from the repository's root, without `..`")));
            }
        }
    }
    Some(Ok(Asked { revision: OsStr::from_bytes(revision).to_owned(), path: from_root }))
}

/// What is in it.
pub(super) struct Found {
    pub(super) cluster: Cluster,
    /// The whole hash of the revision.
    pub(super) hash: String,
    /// What stands behind its rules, where `generate` wrote them.
    pub(super) evidence: Vec<Evidence>,
}

/// Reads it. Files are named by their path from the repository's root.
pub(super) fn read(asked: &Asked, reading: &typed::Reading) -> Result<Found, Failure> {
    let hash = hash(asked)?;
    let (files, evidence) = chosen(asked, tree(asked, &hash)?)?;
    let texts = contents(asked, &files)?;
    let evidence = contents(asked, evidence.as_slice())?;
    let evidence = evidence
        .iter()
        .filter_map(|(name, bytes)| backing::or_said(backing::parse(&String::from_utf8_lossy(bytes), Path::new(name))));
    Ok(Found { evidence: evidence.collect(), cluster: manifests::from_texts(texts, reading)?, hash })
}

fn shown(asked: &Asked) -> String {
    let revision = asked.revision.to_string_lossy();
    match asked.path.as_os_str().is_empty() {
        true => format!("git:{revision}"),
        false => format!("git:{revision}:{}", asked.path.display()),
    }
}

fn git() -> Command {
    let mut git = Command::new("git");
    // Its words are read by nobody but us, and nothing is fetched or asked.
    git.env("LC_ALL", "C").env("GIT_OPTIONAL_LOCKS", "0").env("GIT_TERMINAL_PROMPT", "0").stdin(Stdio::null());
    git
}

/// What git prints; `what` failed where it does not end well, for its own reason.
fn output(mut git: Command, asked: &Asked, what: &str) -> Result<Vec<u8>, Failure> {
    let failed = || format!("{}: {what}", shown(asked));
    let done = git.output().map_err(|why| Failure::of(failed(), why).hint("install git, or give a folder instead"))?;
    if done.status.success() {
        return Ok(done.stdout);
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let why = said.lines().next().unwrap_or("git says nothing").trim_start_matches("fatal: ").to_owned();
    let hint = "run in the repository; `git branch -a` and `git tag` list what can stand behind `git:`";
    Err(Failure::of(failed(), why).hint(hint))
}

fn hash(asked: &Asked) -> Result<String, Failure> {
    let mut commit = asked.revision.clone();
    commit.push("^{commit}");
    let mut git = git();
    git.args(["rev-parse", "--verify", "--end-of-options"]).arg(commit);
    let hash = output(git, asked, "no such revision")?;
    Ok(String::from_utf8_lossy(&hash).trim().to_owned())
}

/// A file of a revision.
struct Listed {
    mode: Vec<u8>,
    object: String,
    path: PathBuf,
}

fn tree(asked: &Asked, hash: &str) -> Result<Vec<Listed>, Failure> {
    let mut git = git();
    git.args(["--literal-pathspecs", "ls-tree", "-r", "-z", "--full-tree", hash]);
    if !asked.path.as_os_str().is_empty() {
        git.arg("--").arg(&asked.path);
    }
    let listed = output(git, asked, "its files cannot be listed")?;
    let entries: Vec<Listed> = listed.split(|byte| *byte == 0).filter_map(entry).collect();
    if entries.is_empty() {
        let hint = "give the path from the repository's root; `git ls-tree -r --name-only REV` lists all";
        return Err(Failure::new(format!("{}: the revision has no such file or folder", shown(asked)), hint));
    }
    Ok(entries)
}

/// `MODE TYPE OBJECT<tab>PATH`.
fn entry(line: &[u8]) -> Option<Listed> {
    let tab = line.iter().position(|byte| *byte == b'\t')?;
    let mut words = line[..tab].split(|byte| *byte == b' ');
    let (mode, object) = (words.next()?.to_owned(), words.nth(1)?);
    let path = PathBuf::from(OsString::from_vec(line[tab + 1..].to_owned()));
    Some(Listed { mode, object: String::from_utf8_lossy(object).into_owned(), path })
}

/// The files that reading the same folder from a disk would read, as far as they are files, and the evidence beside
/// what `generate` wrote.
fn chosen(asked: &Asked, mut all: Vec<Listed>) -> Result<(Vec<Listed>, Option<Listed>), Failure> {
    let is_the_file = |listed: &Listed| listed.path == asked.path;
    // Of what `generate` wrote the policies alone, as from a disk.
    let policies = asked.path.join(crate::generate::POLICIES);
    let has_policies = all.iter().any(|listed| listed.path.starts_with(&policies));
    let evidence = all.iter().position(|listed| listed.path == asked.path.join(render::EVIDENCE));
    let evidence = evidence.filter(|_| has_policies).map(|place| all.swap_remove(place));
    let folder = if evidence.is_some() { policies } else { asked.path.clone() };
    let (mut files, mut others) = (Vec::new(), Vec::new());
    for listed in all {
        let within = listed.path.strip_prefix(&folder).ok();
        let is_wanted = is_the_file(&listed) || within.is_some_and(inventory::is_searched);
        match listed.mode.as_slice() {
            b"120000" if is_wanted => others.push(format!("link {}", listed.path.display())),
            b"160000" if within.is_some() => others.push(format!("submodule {}", listed.path.display())),
            b"100644" | b"100755" | b"100664" if is_wanted => files.push(listed),
            _ => {}
        }
    }
    if !others.is_empty() {
        warn(&format!("{}: not followed, and so not compared: {}", shown(asked), others.join(", ")));
    }
    if files.is_empty() {
        let what = format!("{}: no .yaml, .yml or .json file in this folder or below", shown(asked));
        return Err(Failure::new(what, "give the files by name"));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((files, evidence))
}

/// The files' names and contents, in order.
fn contents(asked: &Asked, files: &[Listed]) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let failed = |why: std::io::Error| {
        Failure::of(format!("{}: its files cannot be read", shown(asked)), why).hint("try `git fsck`")
    };
    let mut git = git();
    git.args(["cat-file", "--batch"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = git.spawn().map_err(failed)?;
    let (Some(mut questions), Some(answers)) = (running.stdin.take(), running.stdout.take()) else {
        return Err(failed(std::io::Error::other("git has no pipes")));
    };
    let mut answers = BufReader::new(answers);
    let mut left = inventory::MAX_BYTES;
    let mut all = Vec::with_capacity(files.len());
    for file in files {
        writeln!(questions, "{}", file.object).and_then(|()| questions.flush()).map_err(failed)?;
        // `OBJECT TYPE SIZE`, the contents, a line break.
        let mut head = String::new();
        answers.read_line(&mut head).map_err(failed)?;
        let size: Option<u64> = head.split_whitespace().nth(2).and_then(|size| size.parse().ok());
        let Some(size) = size else {
            return Err(failed(std::io::Error::other(format!("{}: {}", file.path.display(), head.trim()))));
        };
        left = left.checked_sub(size).ok_or_else(|| {
            let limit = inventory::MAX_BYTES >> 20;
            Failure::new(format!("{}: more than {limit} MiB in all", shown(asked)), "give a smaller folder")
        })?;
        let mut bytes = Vec::new();
        answers.by_ref().take(size).read_to_end(&mut bytes).map_err(failed)?;
        let mut end = [0_u8; 1];
        answers.read_exact(&mut end).map_err(failed)?;
        all.push((file.path.display().to_string(), bytes));
    }
    drop(questions);
    running.wait().map_err(failed)?;
    Ok(all)
}
