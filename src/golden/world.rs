//! What the tests act on: a small cluster, a capture of it made here, and the command to run.

use etherparse::PacketBuilder;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

pub(crate) const CLUSTER: &str = r#"
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: "on"}}}
- {apiVersion: v1, kind: Namespace, metadata: {name: data}}
- apiVersion: v1
  kind: Node
  metadata: {name: node-1}
  spec: {podCIDRs: [10.1.0.0/24, "fd00:1::/64"]}
  status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: web, namespace: shop}
  spec:
    selector: {matchLabels: {app: web}}
    template:
      metadata: {labels: {app: web}}
      spec: {containers: [{name: c, ports: [{containerPort: 8080}]}]}
- apiVersion: apps/v1
  kind: StatefulSet
  metadata: {name: db, namespace: data}
  spec:
    selector: {matchLabels: {app: db}}
    template:
      metadata: {labels: {app: db}}
      spec: {containers: [{name: c, ports: [{containerPort: 6379}]}]}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: idle, namespace: shop}
  spec:
    selector: {matchLabels: {app: idle}}
    template:
      metadata: {labels: {app: idle}}
      spec: {containers: [{name: c}]}
- apiVersion: v1
  kind: Pod
  metadata:
    name: web-1
    namespace: shop
    uid: uid-web
    labels: {app: web}
    ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: d1, controller: true}]
  spec: {nodeName: node-1, containers: [{name: c, ports: [{containerPort: 8080}]}]}
  status: {phase: Running, podIP: 10.1.0.2, podIPs: [{ip: 10.1.0.2}, {ip: "fd00:1::2"}]}
- apiVersion: v1
  kind: Pod
  metadata:
    name: db-0
    namespace: data
    uid: uid-db
    labels: {app: db}
    ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: db, uid: s1, controller: true}]
  spec: {nodeName: node-1, containers: [{name: c, ports: [{containerPort: 6379}]}]}
  status: {phase: Running, podIP: 10.1.0.3, podIPs: [{ip: 10.1.0.3}, {ip: "fd00:1::3"}]}
"#;

pub(crate) const WEB: [u8; 4] = [10, 1, 0, 2];
pub(crate) const DB: [u8; 4] = [10, 1, 0, 3];
const OUTSIDE: [u8; 4] = [203, 0, 113, 9];

/// Seconds since the epoch of the capture's first packet: 2026-01-31T12:00:00Z.
const START: u32 = 1_769_860_800;

/// A folder with cluster.yaml and shop.pcap; gone with the value.
pub(crate) struct World {
    folder: TempDir,
}

/// What a command did.
pub(crate) struct Done {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("podfence-test-").tempdir().expect("a temporary folder");
        let world = Self { folder };
        fs::write(world.path("cluster.yaml"), CLUSTER).expect("written");
        fs::write(world.path("shop.pcap"), shop_capture()).expect("written");
        world
    }

    /// The same with the capture observed into `log`.
    pub(crate) fn observed() -> Self {
        let world = Self::new();
        let done = world.run("observe --pcap shop.pcap --cluster cluster.yaml --log log --node node-1");
        assert_eq!(done.status, 0, "{}", done.err);
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the command in the folder with these words, blanks between them.
    pub(crate) fn run(&self, words: &str) -> Done {
        self.run_words(&words.split_whitespace().collect::<Vec<_>>())
    }

    pub(crate) fn run_words(&self, words: &[&str]) -> Done {
        let Output { status, stdout, stderr } = self.command(words).output().expect("the command runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Done { status: status.code().unwrap_or(-1), out: text(stdout), err: self.cleaned(&text(stderr)) }
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podfence"));
        command.args(words).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("NO_COLOR", "1").env_remove("COLUMNS");
        command
    }

    /// Every file below a folder, with its contents, in order.
    pub(crate) fn files(&self, folder: &str) -> Vec<(String, Vec<u8>)> {
        fn walk(root: &Path, folder: &Path, all: &mut Vec<(String, Vec<u8>)>) {
            for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
                match entry.is_dir() {
                    true => walk(root, &entry, all),
                    false => {
                        let name = entry.strip_prefix(root).expect("below").display().to_string();
                        all.push((name, fs::read(&entry).expect("read")));
                    }
                }
            }
        }
        let mut all = Vec::new();
        walk(&self.path(folder), &self.path(folder), &mut all);
        all.sort();
        all
    }

    /// The only segment of the log.
    pub(crate) fn segment(&self) -> PathBuf {
        let files = self.files("log");
        let segments: Vec<_> = files.iter().filter(|(name, _)| name.ends_with(".parquet")).collect();
        assert_eq!(segments.len(), 1, "segments");
        self.path("log").join(&segments[0].0)
    }

    /// Without the folder's own name, which is another each time.
    fn cleaned(&self, text: &str) -> String {
        text.replace(&self.folder.path().display().to_string(), "DIR")
    }
}

/// A classic pcap file of raw IP packets, each with its time after [`START`] in microseconds.
pub(crate) fn pcap(packets: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101] {
        file.extend(word.to_le_bytes());
    }
    for (micros, packet) in packets {
        let length = u32::try_from(packet.len()).expect("a small packet");
        for word in [START + micros / 1_000_000, micros % 1_000_000, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(packet);
    }
    file
}

/// One TCP segment.
pub(crate) fn tcp(from: ([u8; 4], u16), to: ([u8; 4], u16), flags: &str, payload: &[u8]) -> Vec<u8> {
    let mut builder = PacketBuilder::ipv4(from.0, to.0, 64).tcp(from.1, to.1, 1, 65_535);
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'A' => builder.ack(1),
            'F' => builder.fin(),
            other => panic!("no flag {other}"),
        };
    }
    let mut packet = Vec::new();
    builder.write(&mut packet, payload).expect("memory");
    packet
}

/// A whole connection, a millisecond a packet.
pub(crate) fn connection(at: u32, client: ([u8; 4], u16), server: ([u8; 4], u16)) -> Vec<(u32, Vec<u8>)> {
    let steps = [
        tcp(client, server, "S", b""),
        tcp(server, client, "SA", b""),
        tcp(client, server, "A", b"ask"),
        tcp(server, client, "A", b"answer"),
        tcp(client, server, "FA", b""),
        tcp(server, client, "FA", b""),
        tcp(client, server, "A", b""),
    ];
    (0..).map(|i| at + i * 1000).zip(steps).collect()
}

/// The web server asks the database twice; somebody outside asks the web server; one opening is never answered; a
/// look at an address that no pod has; one packet that is no IP.
fn shop_capture() -> Vec<u8> {
    let mut packets = connection(0, (WEB, 40_000), (DB, 6379));
    packets.extend(connection(100_000, (OUTSIDE, 50_000), (WEB, 8080)));
    packets.extend(connection(200_000, (WEB, 40_001), (DB, 6379)));
    packets.push((300_000, tcp((WEB, 40_002), (DB, 22), "S", b"")));
    packets.extend(connection(400_000, (WEB, 40_003), ([10, 1, 0, 99], 80)));
    packets.push((500_000, vec![0; 20]));
    pcap(&packets)
}
