//! Where scenarios are found: a folder, or the shop, which the command carries with it.

use crate::ending::Failure;
use lab::Scenario;
use std::path::Path;

/// The scenario that comes along.
pub(crate) const SHOP: &str = "shop";
/// Where the scenario that comes along lies.
const NO_FOLDER: &str = "";
const SHOP_CLUSTER: &str = include_str!("../policies/examples/shop/cluster.yaml");
const SHOP_TRAFFIC: &str = include_str!("../policies/examples/shop/traffic.yaml");

const SHOP_CAPTURE: &[u8] = include_bytes!("../policies/examples/shop/capture.pcap");
const SHOP_OBJECTS: &str = include_str!("../policies/examples/shop/capture.yaml");

/// The scenario of a folder; the one that comes along when none is given, or when `shop` is and no such folder is here.
pub(crate) fn find(folder: Option<&Path>) -> Result<Scenario, Failure> {
    let folder = folder.filter(|folder| *folder != Path::new(SHOP) || folder.is_dir());
    let scenario = match folder {
        Some(folder) => Scenario::load(folder),
        None => Scenario::parse(
            SHOP,
            Path::new(NO_FOLDER),
            ("shop/cluster.yaml", SHOP_CLUSTER),
            ("shop/traffic.yaml", SHOP_TRAFFIC),
        ),
    };
    scenario.map_err(|why| {
        Failure::of("the scenario cannot be played", why)
            .hint("a scenario is a folder with cluster.yaml and traffic.yaml; policies/examples has some")
    })
}

/// A capture of a scenario, with the cluster's objects as they were then.
pub(crate) struct Recording {
    pub(crate) capture: Vec<u8>,
    pub(crate) objects: String,
}

/// The recording that lies in a scenario's folder, or comes along with the shop.
pub(crate) fn recording(scenario: &Scenario) -> Result<Recording, Failure> {
    if scenario.folder == Path::new(NO_FOLDER) {
        return Ok(Recording { capture: SHOP_CAPTURE.to_vec(), objects: SHOP_OBJECTS.to_owned() });
    }
    let (capture, objects) = (scenario.folder.join("capture.pcap"), scenario.folder.join("capture.yaml"));
    match (std::fs::read(&capture), std::fs::read_to_string(&objects)) {
        (Ok(capture), Ok(objects)) => Ok(Recording { capture, objects }),
        (Err(why), _) => Err(no_recording(&capture, why)),
        (_, Err(why)) => Err(no_recording(&objects, why)),
    }
}

fn no_recording(file: &Path, why: std::io::Error) -> Failure {
    Failure::of(format!("this scenario has no recording: cannot read {}", file.display()), why).hint(
        "as root, `podfence lab run DIR --pcap DIR/capture.pcap --cluster DIR/capture.yaml` makes one; then tell the \
         story with less rights again",
    )
}
