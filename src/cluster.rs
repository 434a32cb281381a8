//! The cluster's objects, as `--cluster` names them.

use crate::ending::{Failure, warn};
use model::cluster::Cluster;
use std::path::Path;

/// Reads them.
pub(crate) fn read(path: &Path) -> Result<Cluster, Failure> {
    let cluster = inventory::read(&[path]).map_err(|why| Failure::whole(&why))?;
    if cluster.pods.is_empty() {
        warn(&format!("{} holds no pods, so that every end of a flow is an address", path.display()));
    }
    Ok(cluster)
}
