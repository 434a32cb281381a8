//! What was last in force where this node has pods, on its disk: an agent that starts after one that was killed holds
//! what went meanwhile with namespaces that are being deleted ([`compile::Ending`]).
//!
//! The file is a stream of Kubernetes objects under three lines of comment. Always holds: it is there whole or not at
//! all, and nothing of one that is damaged, too large, or another node's is believed.

use compile::Remembered;
use model::{cluster::Namespace, yaml};
use serde_json::json;
use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

/// A larger file is not ours: the policies of the namespaces of a node's pods, 2 KiB each, 8,000 of them.
const MAX_BYTES: u64 = 16 << 20;
const TITLE: &str = "# podfence: what was last in force where this node has pods, for the agent's next start\n";
/// Of a namespace that is being deleted: when is forgotten.
const SOME_TIME: &str = "1970-01-01T00:00:00Z";

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot {doing} {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{} {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error(
        "{} would have {bytes} bytes, more than {MAX_BYTES}: what is in force is not kept for the agent's next start",
        path.display()
    )]
    TooLarge { path: PathBuf, bytes: usize },
}

/// The file of one node.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    node: String,
    written: Option<blake3::Hash>,
}

impl File {
    pub(crate) fn new(path: PathBuf, node: &str) -> Self {
        Self { path, node: node.to_owned(), written: None }
    }

    /// What an earlier agent wrote; `None` where there was none.
    pub(crate) fn read(&self) -> Result<Option<Remembered>, Error> {
        let failed = |source| Error::Io { doing: "read", path: self.path.clone(), source };
        let file = match fs::File::open(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        self.parse(&bytes).map(Some).map_err(|why| Error::Damaged { path: self.path.clone(), why })
    }

    fn parse(&self, bytes: &[u8]) -> Result<Remembered, String> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format!("has more than {MAX_BYTES} bytes"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "is no text".to_owned())?;
        let rest = text.strip_prefix(TITLE).ok_or("does not begin as the agent's file does")?;
        let (node, rest) = rest.split_once('\n').ok_or("ends in its second line")?;
        if node != node_line(&self.node) {
            return Err(format!("is not this node's: its second line is `{node}`"));
        }
        let (sum, objects) = rest.split_once('\n').ok_or("ends in its third line")?;
        if sum != sum_line(objects) {
            return Err("is damaged: its sum does not match".to_owned());
        }
        let mut cluster = model::cluster::Cluster::default();
        yaml::read_into(&mut cluster, &self.path.display().to_string(), objects)
            .map_err(|e| format!("is damaged: {e}"))?;
        // A policy's namespace is read too, though there is no object of it.
        let given = cluster.namespaces.into_iter().filter(|(_, namespace)| namespace.source.is_some());
        Ok(Remembered { namespaces: given.collect(), policies: cluster.policies, staged: cluster.staged })
    }

    /// Keeps it for the next agent; nothing happens where it is as it was.
    pub(crate) fn write(&mut self, remembered: &Remembered) -> Result<(), Error> {
        let objects = objects(remembered);
        let sum = blake3::hash(objects.as_bytes());
        if self.written == Some(sum) {
            return Ok(());
        }
        let text = format!("{TITLE}{}\n{}\n{objects}", node_line(&self.node), sum_line(&objects));
        if text.len() as u64 > MAX_BYTES {
            return Err(Error::TooLarge { path: self.path.clone(), bytes: text.len() });
        }
        replace(&self.path, &text).map_err(|source| Error::Io { doing: "write", path: self.path.clone(), source })?;
        self.written = Some(sum);
        Ok(())
    }

    /// Moves a file that cannot be read out of the way, so that a person can look at it.
    pub(crate) fn set_aside(&self) {
        let aside = beside(&self.path, "damaged");
        if let Err(error) = fs::rename(&self.path, &aside) {
            tracing::warn!(%error, "cannot set {} aside", self.path.display());
        }
    }
}

fn node_line(node: &str) -> String {
    format!("# node {node}")
}

fn sum_line(objects: &str) -> String {
    format!("# blake3 {}", blake3::hash(objects.as_bytes()))
}

fn objects(remembered: &Remembered) -> String {
    let namespaces = remembered.namespaces.iter().map(|(name, namespace)| written(name, namespace));
    let policies = remembered.policies.policies.iter().map(yaml::write_policy);
    let staged = remembered.staged.policies.iter().map(yaml::write_staged_policy);
    namespaces.chain(policies).chain(staged).collect()
}

fn written(name: &str, namespace: &Namespace) -> String {
    let mut metadata = json!({"name": name, "labels": namespace.labels});
    if namespace.terminating {
        metadata["deletionTimestamp"] = SOME_TIME.into();
    }
    format!("---\n{}\n", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// Writes beside, syncs, renames, and syncs the folder.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let new = beside(path, "new");
    let mut file = fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{
        labels::{Labels, METADATA_NAME, Selector},
        policy::{NetworkPolicy, PolicySet, Rule},
    };

    fn remembered() -> Remembered {
        let namespace = |name: &str, terminating| {
            let labels = [(METADATA_NAME, name), ("podfence.dev/mode", "enforce")];
            let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            (name.to_owned(), Namespace { labels, terminating, ..Namespace::default() })
        };
        let policy = |namespace: &str| NetworkPolicy {
            namespace: namespace.into(),
            name: "deny-all".into(),
            labels: Labels::new(),
            annotations: Labels::new(),
            pod_selector: Selector::of([("app".to_owned(), "on".to_owned())].into()),
            ingress: Some(vec![Rule::default()]),
            egress: Some(Vec::new()),
            source: None,
        };
        Remembered {
            namespaces: [namespace("shop", true), namespace("data", false)].into(),
            policies: PolicySet::new(vec![policy("shop"), policy("without-object")]),
            staged: PolicySet::new(vec![policy("shop")]),
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_nothing_damaged_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/last.yaml");
        let mut file = File::new(path.clone(), "n1");
        assert!(file.read().unwrap().is_none());
        file.write(&remembered()).unwrap();
        let read = file.read().unwrap().unwrap();
        assert_eq!(objects(&read), objects(&remembered()));
        assert_eq!(read.namespaces.len(), 2, "a namespace of which there is only a policy is not one that was given");
        assert!(read.namespaces["shop"].terminating && !read.namespaces["data"].terminating);
        let whole = fs::read(&path).unwrap();
        // Cut anywhere, or changed anywhere.
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let why = file.read().unwrap_err().to_string();
            assert!(why.contains("last.yaml"), "{why}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            file.read().unwrap_err();
        }
        fs::write(&path, &whole).unwrap();
        assert!(File::new(path.clone(), "n2").read().unwrap_err().to_string().contains("# node n1"));
        file.set_aside();
        assert!(file.read().unwrap().is_none());
    }

    #[test]
    fn it_is_written_only_where_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.yaml");
        let mut file = File::new(path.clone(), "n1");
        file.write(&remembered()).unwrap();
        fs::remove_file(&path).unwrap();
        file.write(&remembered()).unwrap();
        assert!(!path.exists());
        file.write(&Remembered::default()).unwrap();
        assert!(path.exists());
    }
}
