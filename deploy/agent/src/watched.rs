//! The API server as a source of objects.

use daemon::Source;
use model::cluster::Cluster;
use reflector::{Error, Options, Reflector};
use std::time::Duration;

pub(crate) struct Watched {
    reflector: Reflector,
    node: String,
    /// What is wrong with what was given last.
    troubles: Vec<String>,
}

impl Watched {
    pub(crate) fn start(options: Options, node: &str) -> Result<Self, Error> {
        Ok(Self { reflector: Reflector::start(options)?, node: node.to_owned(), troubles: Vec::new() })
    }
}

impl Source for Watched {
    fn name(&self) -> String {
        self.reflector.server().to_owned()
    }

    fn changed(&mut self, wait: Duration) -> Option<Result<Cluster, String>> {
        let seen = self.reflector.changed(wait)?;
        self.troubles = seen.left_out.iter().map(|why| format!("left out: {why}")).collect();
        if !seen.cluster.nodes.contains_key(&self.node) {
            let known = seen.cluster.nodes.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let node = &self.node;
            self.troubles
                .push(format!("node {node} is not in the cluster (its nodes are {known}); name it with --node"));
        }
        Some(Ok(seen.cluster))
    }

    fn troubles(&self) -> Vec<String> {
        let mut troubles = self.reflector.troubles();
        troubles.extend(self.troubles.iter().cloned());
        troubles
    }
}
