//! Bad input as a person meets it: the built command on each, with the whole of what it says, its exit status, and what
//! is on the disk afterwards. Each reader's own cases, in full, are beside the reader.

use etherparse::PacketBuilder;
use model::labels::Selector;
use nix::mount::{MsFlags, mount, umount};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;
use tests::privilege;

/// The command beside the tests' own program; `None`, said aloud, where nobody built it.
fn command(test: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().expect("a running program");
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join("podfence")).find(|path| path.is_file());
    if found.is_none() {
        let why = "the command is not built; run `cargo build -p podfence` with the same profile";
        assert!(!privilege::required(), "{test}: {why}");
        println!("skipped: {test}: {why}");
    }
    found
}

/// A folder to work in, with what is good in it: cluster.yaml, good.pcap, and log as observed from them.
struct Desk {
    folder: TempDir,
    command: PathBuf,
}

/// What the command did.
#[derive(Debug, PartialEq)]
struct Done {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Desk {
    fn new(command: PathBuf) -> Self {
        let desk = Self { folder: tempfile::tempdir().expect("a folder"), command };
        desk.write("cluster.yaml", cluster("shop").as_bytes());
        desk.write("good.pcap", &capture(RAW_IP, 2));
        let done = desk.run("observe --pcap good.pcap --cluster cluster.yaml --log log --node n1");
        assert_eq!((done.status, done.err.as_str()), (Some(0), ""));
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("written");
    }

    fn run(&self, words: &str) -> Done {
        let mut command = Command::new(&self.command);
        command.args(words.split_whitespace()).current_dir(self.folder.path()).stdin(Stdio::null());
        let done = command.env("NO_COLOR", "1").env_remove("COLUMNS").output().expect("the command runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Done { status: done.status.code(), out: text(done.stdout), err: text(done.stderr) }
    }

    /// Refused: status 2, this one line, nothing printed, and no file made or changed.
    fn refuses(&self, words: &str, expected: &str) {
        let before = self.files();
        let done = self.run(words);
        let refused = Done { status: Some(2), out: String::new(), err: format!("podfence: {expected}\n") };
        assert_eq!(done, refused, "podfence {words}");
        assert_eq!(self.files(), before, "podfence {words}");
    }

    /// Every file below the folder with its bytes.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn below(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for path in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
                if path.is_dir() {
                    below(&path, found);
                } else {
                    found.insert(path.clone(), fs::read(&path).expect("read"));
                }
            }
        }
        let mut found = BTreeMap::new();
        below(self.folder.path(), &mut found);
        found
    }

    /// A segment of the log.
    fn segment(&self) -> PathBuf {
        let files = self.files();
        files.into_keys().find(|path| path.extension().is_some_and(|kind| kind == "parquet")).expect("a segment")
    }
}

/// A namespace, a client and a server, in it; the server's label has this value.
fn cluster(app: &str) -> String {
    let workload = |name: &str, app: &str, ip: &str, port: u16| {
        format!(
            "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
             selector: {{matchLabels: {{app: \"{app}\"}}}}\n  template:\n    metadata: {{labels: {{app: \"{app}\"}}}}\n    \
             spec: {{containers: [{{name: c, ports: [{{containerPort: {port}}}]}}]}}\n\
             ---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}-1\n  namespace: shop\n  labels: {{app: \"{app}\"}}\n  \
             ownerReferences: [{{apiVersion: apps/v1, kind: Deployment, name: {name}, uid: u, controller: true}}]\n\
             spec: {{nodeName: n1, containers: [{{name: c, ports: [{{containerPort: {port}}}]}}]}}\n\
             status: {{phase: Running, podIPs: [{{ip: {ip}}}]}}\n"
        )
    };
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    namespace.to_owned() + &workload("web", "web", "10.1.0.2", 8000) + &workload("api", app, "10.1.0.3", 8080)
}

const RAW_IP: u32 = 101;

/// A classic capture with this many connections of web to api, each from its own port.
fn capture(link: u32, connections: u16) -> Vec<u8> {
    let mut file = file_header(link);
    for port in 0..connections {
        for (step, packet) in connection(20_000 + port).into_iter().enumerate() {
            let length = u32::try_from(packet.len()).expect("a small packet");
            // 2026-01-31T12:00:00Z, a connection a millisecond.
            let micros = u32::from(port) * 1000 + u32::try_from(step).expect("few");
            for word in [1_769_860_800 + micros / 1_000_000, micros % 1_000_000, length, length] {
                file.extend(word.to_le_bytes());
            }
            file.extend(packet);
        }
    }
    file
}

fn file_header(link: u32) -> Vec<u8> {
    [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, link].into_iter().flat_map(u32::to_le_bytes).collect()
}

fn connection(port: u16) -> Vec<Vec<u8>> {
    let (web, api) = (([10, 1, 0, 2], port), ([10, 1, 0, 3], 8080));
    let segment = |from: ([u8; 4], u16), to: ([u8; 4], u16), flags: &str| {
        let mut builder = PacketBuilder::ipv4(from.0, to.0, 64).tcp(from.1, to.1, 1, 65_535);
        for flag in flags.chars() {
            builder = match flag {
                'S' => builder.syn(),
                'A' => builder.ack(1),
                _ => builder.fin(),
            };
        }
        let mut packet = Vec::new();
        builder.write(&mut packet, &[]).expect("memory");
        packet
    };
    vec![segment(web, api, "S"), segment(api, web, "SA"), segment(web, api, "FA"), segment(api, web, "FA")]
}

#[test]
fn a_capture_that_cannot_be_read_is_refused_and_no_log_is_made_of_it() {
    let Some(command) = command("a_capture_that_cannot_be_read_is_refused_and_no_log_is_made_of_it") else { return };
    let desk = Desk::new(command);
    let good = capture(RAW_IP, 2);
    let absurd = [&good[..32], &[0xff, 0xff, 0xff, 0x7f], &good[36..]].concat();
    let as_tcpdump = "; it should be a pcap or pcapng file as `tcpdump -w` writes it, unpacked if it was compressed";
    let supported = "which is not supported; supported are EN10MB (Ethernet, with VLAN tags), LINUX_SLL, LINUX_SLL2, RAW, IPV4 and \
         IPV6";
    let cases: [(Vec<u8>, String); 6] = [
        (Vec::new(), format!("cannot read the capture bad.pcap: it is empty{as_tcpdump}")),
        (
            good[..13].to_vec(),
            format!(
                "cannot read the capture bad.pcap: truncated dump file; tried to read 24 file header bytes, only got \
                 9{as_tcpdump}"
            ),
        ),
        (
            [&[0x1f, 0x8b, 8, 0][..], &[0; 60]].concat(),
            format!("cannot read the capture bad.pcap: unknown file format{as_tcpdump}"),
        ),
        (file_header(105), format!("bad.pcap has link type IEEE802_11 (105), {supported}")),
        (file_header(60_000), format!("bad.pcap has link type unknown (60000), {supported}")),
        (
            absurd,
            "cannot read the capture bad.pcap: packet 1 is corrupt: invalid packet capture length 2147483647, bigger than \
             snaplen of 65535; nothing was read"
                .to_owned(),
        ),
    ];
    for (bytes, expected) in cases {
        desk.write("bad.pcap", &bytes);
        desk.refuses("observe --pcap bad.pcap --cluster cluster.yaml --log other --node n1", &expected);
    }
}

#[test]
fn a_capture_that_ends_early_is_kept_as_far_as_it_goes() {
    let Some(command) = command("a_capture_that_ends_early_is_kept_as_far_as_it_goes") else { return };
    let desk = Desk::new(command);
    let good = capture(RAW_IP, 2);
    let sixth = 24 + 5 * (16 + 40);
    let mut corrupt = good.clone();
    corrupt[sixth + 8..][..4].copy_from_slice(&[0xff; 4]);
    let cases = [
        (
            good[..sixth + 20].to_vec(),
            "cut short after 5 packets (truncated dump file; tried to read 40 captured bytes, only got 4); what was read \
             before is kept",
        ),
        (
            corrupt,
            "packet 6 is corrupt (invalid packet capture length 4294967295, bigger than snaplen of 65535); the 5 before \
             it are kept",
        ),
    ];
    for (bytes, expected) in cases {
        desk.write("early.pcap", &bytes);
        let done = desk.run("observe --pcap early.pcap --cluster cluster.yaml --log early --node n1");
        assert_eq!((done.status, done.err), (Some(0), format!("podfence: warning: early.pcap: {expected}\n")));
        let rows = desk.run("flows --log early -o jsonl");
        assert_eq!((rows.status, rows.out.lines().count()), (Some(0), 2), "{}", rows.err);
        fs::remove_dir_all(desk.path("early")).expect("removed");
    }
}

#[test]
fn objects_that_cannot_be_understood_are_refused_and_no_policy_is_written() {
    let Some(command) = command("objects_that_cannot_be_understood_are_refused_and_no_policy_is_written") else {
        return;
    };
    let desk = Desk::new(command);
    let pod = |rest: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: shop}}\n{rest}\n");
    let cases: [(String, &str); 11] = [
        (
            "no: [yaml\n".to_owned(),
            "bad.yaml:1: not readable as YAML: unclosed bracket '['; give Kubernetes objects in YAML or JSON, as `kubectl get -o yaml` prints them",
        ),
        (
            "just text\n".to_owned(),
            "bad.yaml:1: expected a Kubernetes object, found a string; give what `kubectl get -o yaml` prints",
        ),
        (
            "metadata: {name: a}\n".to_owned(),
            "bad.yaml:1: an object without kind or apiVersion; give Kubernetes objects, as `kubectl get -o yaml` prints them",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {namespace: shop}\n".to_owned(),
            "bad.yaml:3: Pod: metadata.name: missing; every object needs a name",
        ),
        (
            pod("spec: {nodeName: 12}"),
            "bad.yaml:4: Pod shop/web: spec.nodeName: expected a string, found a number; quote it",
        ),
        (
            pod("spec: {containers: {name: c}}"),
            "bad.yaml:4: Pod shop/web: spec.containers: expected a list, found a map",
        ),
        (
            pod("status: {podIPs: [{ip: 10.0.0}]}"),
            "bad.yaml:4: Pod shop/web: status.podIPs[0].ip: `10.0.0` is no IP address; write one such as 10.0.0.1 or fd00::1",
        ),
        (
            pod("spec: {containers: [{ports: [{containerPort: 70000}]}]}"),
            "bad.yaml:4: Pod shop/web: spec.containers[0].ports[0].containerPort: 70000 is no port; use 1 to 65535",
        ),
        (
            "{\"apiVersion\": \"v1\",\n \"kind\": }\n".to_owned(),
            "bad.yaml:2: not readable as JSON: expected value; a document that begins with `{` or `[` is taken for JSON",
        ),
        (
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec: \
             {podSelector: {}, ingress: [{from: [{}]}]}\n"
                .to_owned(),
            "bad.yaml:4: NetworkPolicy shop/p: spec.ingress[0].from[0]: an empty peer; write podSelector, namespaceSelector or ipBlock, or leave out the whole list for everyone",
        ),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {podfence.dev/mode: strict}}\n".to_owned(),
            "bad.yaml:3: Namespace shop: metadata.labels[podfence.dev/mode]: `strict` is none of learn, audit, enforce",
        ),
    ];
    for (text, expected) in cases {
        desk.write("bad.yaml", text.as_bytes());
        desk.refuses("generate --log log --cluster bad.yaml --out out", expected);
        desk.refuses("observe --pcap good.pcap --cluster bad.yaml --log other --node n1", expected);
        assert!(!desk.path("out").exists() && !desk.path("other").exists());
    }
}

/// Values that a reader of YAML 1.1 or a careless writer takes for something else than strings.
const VALUES: [&str; 12] = ["on", "off", "y", "no", "true", "null", "~", "1_000", "0x1f", "12e3", "1.0", "2026-01-31"];

#[test]
fn a_label_value_survives_the_trip_through_generate_as_a_string_and_unquoted_it_is_refused() {
    let Some(command) =
        command("a_label_value_survives_the_trip_through_generate_as_a_string_and_unquoted_it_is_refused")
    else {
        return;
    };
    let desk = Desk::new(command);
    for value in VALUES.into_iter().filter(|value| *value != "~") {
        desk.write("labels.yaml", cluster(value).as_bytes());
        let done = desk.run("generate --log log --cluster labels.yaml --out out");
        assert_eq!(done.status, Some(0), "{value}: {}", done.err);
        let text = fs::read_to_string(desk.path("out/policies/shop/api.yaml")).expect("a policy");
        let policies = model::yaml::read_policies("api.yaml", &text).expect("what was written can be read").policies;
        let expected = Selector::of([("app".to_owned(), value.to_owned())].into());
        assert_eq!(policies[0].pod_selector, expected, "{value}:\n{text}");
        // Whoever reads YAML 1.1 reads a string too.
        assert!(text.contains(&format!("app: \"{value}\"")) || text.contains(&format!("app: '{value}'")), "{text}");
    }
    let unquoted = [
        ("on", "found a boolean; quote it"),
        ("1_000", "found a number; quote it"),
        ("0x1f", "found a number; quote it"),
        ("12e3", "found a number; quote it"),
    ];
    for (value, expected) in unquoted {
        let text = format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels:\n    team: {value}\n");
        desk.write("bad.yaml", text.as_bytes());
        let expected = format!("bad.yaml:6: Namespace shop: metadata.labels.team: expected a string, {expected}");
        desk.refuses("generate --log log --cluster bad.yaml --out refused", &expected);
    }
}

#[test]
fn a_damaged_segment_is_named_and_the_rest_is_learned() {
    let Some(command) = command("a_damaged_segment_is_named_and_the_rest_is_learned") else { return };
    let desk = Desk::new(command);
    let whole = desk.run("generate --log log --cluster cluster.yaml --out whole");
    assert_eq!(whole.status, Some(0), "{}", whole.err);
    let segment = desk.segment();
    let bytes = fs::read(&segment).expect("read");
    let damaged = segment.with_file_name("0-other-0.parquet");
    let shown = damaged.strip_prefix(desk.folder.path()).expect("below").display().to_string();
    let no_footer = "Parquet error: Invalid Parquet file. Corrupt footer";
    let cases = [
        (bytes[..bytes.len() - 4].to_vec(), no_footer),
        (bytes[..bytes.len() / 2].to_vec(), no_footer),
        (Vec::new(), "EOF: Parquet file too small. Size is 0 but need 8"),
        (b"no Parquet at all".to_vec(), no_footer),
    ];
    for (bytes, why) in cases {
        fs::write(&damaged, bytes).expect("written");
        for (words, end) in [
            ("generate --log log --cluster cluster.yaml --out out", "what could not be read of it is not learned"),
            ("graph --log log", "what could not be read of it is not learned"),
            ("flows --log log", "the answer is without it"),
        ] {
            let done = desk.run(words);
            assert_eq!(done.status, Some(0), "{}", done.err);
            let warnings = done.err.lines().filter(|line| line.contains("0-other-0")).collect::<Vec<_>>();
            assert_eq!(warnings, [format!("podfence: warning: {shown}: {why}; {end}")], "podfence {words}");
        }
        for file in ["policies/shop/api.yaml", "policies/shop/web.yaml"] {
            let of = |folder: &str| fs::read(desk.path(folder).join(file)).expect("a policy");
            assert_eq!(of("out"), of("whole"), "nothing of the rest is lost");
        }
    }
}

/// A disk of this size, mounted in a mount namespace of this thread's own.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: PathBuf, size: &str) -> Self {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("root may");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("root may");
        fs::create_dir(&folder).expect("made");
        let size = format!("size={size}");
        mount(Some("none"), &folder, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).expect("root may");
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount(&self.0);
    }
}

#[test]
fn a_full_disk_is_said_and_what_was_written_can_be_asked() {
    let test = "a_full_disk_is_said_and_what_was_written_can_be_asked";
    let Some(command) = command(test).filter(|_| privilege::kernel(test)) else { return };
    let desk = Desk::new(command);
    desk.write("big.pcap", &capture(RAW_IP, 20_000));
    let disk = SmallDisk::mount(desk.path("disk"), "1m");
    let done = desk.run("observe --pcap big.pcap --cluster cluster.yaml --log disk/log --node n1");
    assert_eq!((done.status, done.out.as_str()), (Some(2), ""));
    let (head, tail) = done.err.split_once(".wal; ").expect("the write-ahead file is named");
    assert!(head.starts_with("podfence: no room for the flow log at disk/log/cluster=default/n1."), "{head}");
    let lost = tail.split_once(" rows are lost").and_then(|(before, _)| before.rsplit_once("; ")).expect("a number").1;
    let expected = format!(
        "No space left on device (os error 28); {lost} rows are lost so far (they become a gap row once there is room) \
         and what was written before is kept; free some space, or keep less\n"
    );
    assert_eq!(tail, expected);
    let kept = desk.run("flows --log disk/log -o jsonl --limit 30000");
    assert_eq!(kept.status, Some(0), "{}", kept.err);
    let rows = kept.out.lines().count();
    assert!((1..20_000).contains(&rows), "{rows} rows");
    drop(disk);

    // The contrast: with room, all of it fits.
    let done = desk.run("observe --pcap big.pcap --cluster cluster.yaml --log room --node n1");
    assert_eq!((done.status, done.err.as_str()), (Some(0), ""));
    assert_eq!(desk.run("flows --log room -o jsonl --limit 30000").out.lines().count(), 20_000);
}
