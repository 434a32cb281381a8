//! `enforce`, `status` and `why --kernel`: without an agent, and with one on a lab's node as a process of its own.

use crate::world::{Done, World};
use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/examples/tiny");

#[test]
fn without_an_agent_there_is_no_answer() {
    let world = World::new();
    let mut all = String::new();
    fs::write(world.path("file"), "").expect("written");
    for words in [
        "status --socket nowhere.sock",
        "status --socket file",
        "why --kernel shop/web data/db:6379 --socket nowhere.sock",
        "why shop/web data/db:6379",
    ] {
        let done = world.run(words);
        assert_eq!((done.status, done.out.as_str()), (2, ""), "{words}: {}", done.err);
        all += &format!("$ podfence {words}\n{}", done.err);
    }
    insta::assert_snapshot!(all, @r#"
$ podfence status --socket nowhere.sock
podfence: no agent answers at nowhere.sock; No such file or directory (os error 2); start one with `podfence enforce --cluster DIR`, or name its socket with --socket FILE
$ podfence status --socket file
podfence: no agent answers at file; Connection refused (os error 111); start one with `podfence enforce --cluster DIR`, or name its socket with --socket FILE
$ podfence why --kernel shop/web data/db:6379 --socket nowhere.sock
podfence: no agent answers at nowhere.sock; No such file or directory (os error 2); start one with `podfence enforce --cluster DIR`, or name its socket with --socket FILE
$ podfence why shop/web data/db:6379
podfence: there is nothing to read: no PATH was given and no --cluster; give files or folders of manifests, or the cluster's objects with --cluster FILE
"#);
}

/// A lab of the scenario `tiny` under a name of this process; down when it goes.
struct Lab<'w> {
    world: &'w World,
    name: String,
}

impl<'w> Lab<'w> {
    /// `None`, said aloud, where there may be none.
    fn up(world: &'w World, name: &str) -> Option<Self> {
        let required = std::env::var("PODFENCE_REQUIRE").is_ok_and(|all| all.split(',').any(|what| what == "kernel"));
        if let Err(why) = lab::permitted()
            && !required
        {
            println!("skipped: {why}");
            return None;
        }
        let name = format!("{name}-{}", std::process::id());
        let lab = Self { world, name: name.clone() };
        fs::create_dir(world.path(&name)).expect("made");
        for file in ["cluster.yaml", "traffic.yaml"] {
            fs::copy(Path::new(TINY).join(file), world.path(&name).join(file)).expect("copied");
        }
        let done = world.run(&format!("lab up {name}"));
        assert_eq!(done.status, 0, "{}", done.err);
        fs::create_dir(world.path("cluster")).expect("made");
        fs::copy(format!("/run/podfence-lab/{name}/cluster.yaml"), world.path("cluster/objects.yaml")).expect("copied");
        Some(lab)
    }

    fn netns(&self) -> PathBuf {
        PathBuf::from(format!("/run/netns/pf-{}.node", self.name))
    }

    /// Calls of the web server that were answered, and that failed, in a second.
    fn calls(&self) -> (u64, u64) {
        let done = self.world.run(&format!("lab run {} --seconds 1", self.name));
        let row = done.out.lines().find(|line| line.starts_with("shop/web ")).expect("a row of the call");
        let numbers: Vec<u64> = row.split_whitespace().rev().take(2).map(|n| n.parse().expect("a number")).collect();
        (numbers[1], numbers[0])
    }
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        self.world.run(&format!("lab down {}", self.name));
    }
}

/// `podfence enforce` as a process; ended when it goes.
struct Enforce(Child);

impl Enforce {
    fn start(world: &World, lab: &Lab<'_>, more: &[&str]) -> Self {
        let netns = lab.netns();
        let words =
            "enforce --cluster cluster --node node-1 --log log --default-mode enforce --socket agent.sock --netns";
        let mut words: Vec<&str> = words.split(' ').collect();
        words.push(netns.to_str().expect("UTF-8"));
        words.extend(more);
        let told = fs::File::create(world.path("told")).expect("made");
        Self(world.command(&words).stderr(told).stdout(Stdio::null()).spawn().expect("the command runs"))
    }

    /// Ends it as an init system would; its exit status.
    fn end(mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).expect("a process"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
        self.0.wait().expect("it ends").code()
    }
}

impl Enforce {
    /// Takes every rule out of the kernel behind the agent's back.
    fn lose_rules(&self) {
        use aya::maps::{HashMap, Map, MapData};
        let mut lost = 0;
        for file in fs::read_dir(format!("/proc/{}/fdinfo", self.0.id())).expect("it runs").flatten() {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            let id = text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok());
            let Some(data) = id.and_then(|id| MapData::from_id(id).ok()) else { continue };
            if data.info().expect("a map").name_as_str() != Some("RULES") {
                continue;
            }
            let mut rules = HashMap::<_, [u32; 3], u32>::try_from(Map::HashMap(data)).expect("a hash");
            let keys: Vec<[u32; 3]> = rules.keys().map(|key| key.expect("a key")).collect();
            lost += keys.iter().filter(|key| rules.remove(*key).is_ok()).count();
        }
        assert!(lost > 0, "there were rules");
    }
}

impl Drop for Enforce {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something holds.
fn until(what: &str, world: &World, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        let told = fs::read_to_string(world.path("told")).unwrap_or_default();
        assert!(Instant::now() < deadline, "{what}; it said:\n{told}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn status(world: &World) -> serde_json::Value {
    let Done { out, err, .. } = world.run("status --socket agent.sock -o json");
    serde_json::from_str(&out).unwrap_or_else(|why| panic!("{why}: {out} {err}"))
}

fn updates(world: &World) -> u64 {
    status(world)["source"]["updates"].as_u64().expect("a number")
}

fn get(world: &World, path: &str) -> String {
    let mut stream = UnixStream::connect(world.path("agent.sock")).expect("the socket is there");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: podfence\r\nConnection: close\r\n\r\n").expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

fn policy(ingress: &str) -> String {
    format!(
        "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {{name: api, namespace: shop}}\n\
         spec: {{podSelector: {{matchLabels: {{app: api}}}}, policyTypes: [Ingress], ingress: {ingress}}}\n"
    )
}

const OPEN: &str = "[{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}]";

#[test]
fn a_folder_is_enforced_followed_and_asked_about() {
    let world = World::new();
    let Some(lab) = Lab::up(&world, "followed") else { return };
    let file = world.path("cluster/policy.yaml");
    fs::write(&file, policy(OPEN)).expect("written");
    let running = Enforce::start(&world, &lab, &["--rules", "1000"]);
    until("it enforces", &world, || world.path("agent.sock").exists() && updates(&world) > 0);

    let first = status(&world);
    let pods = first["endpoints"].as_array().expect("pods");
    assert_eq!(pods.len(), 3, "{first}");
    assert!(pods.iter().all(|pod| pod["mode"] == "enforce" && pod["not_covered"].is_null()), "{first}");
    assert!(pods.iter().all(|pod| pod["epoch"].as_u64() > Some(0) && pod["link"]["name"] != ""), "{first}");
    let (answered, failed) = lab.calls();
    assert!(answered > 0 && failed == 0, "what policy allows passes: {answered}, {failed}");
    let allowed = world.run("why --kernel shop/web shop/api:8080 --socket agent.sock");
    assert_eq!((allowed.status, allowed.err.as_str()), (0, ""), "{}", allowed.out);
    assert!(allowed.out.contains("ingress kernel: allowed, allowed-by-rule by shop/api ingress[0]"), "{}", allowed.out);
    let denied = world.run("why --kernel shop/web shop/api:9000 --socket agent.sock");
    assert_eq!(denied.status, 0);
    assert!(denied.out.contains("ingress kernel: denied, no-rule"), "{}", denied.out);
    assert_eq!(denied.out.matches("policy: denied: isolated by shop/api").count(), 2, "over both families");

    let before = updates(&world);
    fs::write(&file, policy("[]")).expect("written");
    until("the change is in force", &world, || updates(&world) > before);
    let (answered, failed) = lab.calls();
    assert!(answered == 0 && failed > 0, "what policy denies is dropped: {answered}, {failed}");

    fs::write(&file, "kind: [\n").expect("written");
    until("the refusal is told", &world, || !status(&world)["source"]["refused"].is_null());
    let shown = world.run("status --socket agent.sock");
    assert_eq!(shown.status, 1, "something is to be reported");
    assert!(shown.err.contains("policy.yaml:1"), "{}", shown.err);
    let not_ready = get(&world, "/readyz");
    assert!(not_ready.starts_with("HTTP/1.1 503") && not_ready.contains("policy.yaml:1"), "{not_ready}");
    let (answered, failed) = lab.calls();
    assert!(answered == 0 && failed > 0, "what was enforced stays in force: {answered}, {failed}");
    assert!(shown.out.contains("MiB of the kernel's memory; the fullest: "), "{}", shown.out);
    let wide = world.run("status --socket agent.sock -o wide");
    assert!(wide.out.contains("RULES") && wide.out.contains("no-rule"), "{}", wide.out);

    fs::write(&file, policy(OPEN)).expect("written");
    until("the next change is in force", &world, || status(&world)["source"]["refused"].is_null());
    let (answered, failed) = lab.calls();
    assert!(answered > 0 && failed == 0, "{answered}, {failed}");

    let metrics = get(&world, "/metrics");
    assert!(metrics.contains("podfence_endpoints{mode=\"enforce\"} 3\n"), "{metrics}");
    assert!(metrics.contains("effect=\"drop\""), "{metrics}");
    assert!(get(&world, "/healthz").ends_with("ok\n") && get(&world, "/readyz").ends_with("ok\n"));
    assert!(get(&world, "/nothing").starts_with("HTTP/1.1 404"));
    let last = status(&world);
    assert!(last["self_check"]["checked"].as_u64() > Some(0), "{last}");
    assert_eq!(last["self_check"]["drifted"], 0, "{last}");

    let before = updates(&world);
    fs::write(&file, policy("[{}]")).expect("written");
    until("everybody may", &world, || updates(&world) > before);
    assert_eq!(world.run("why --kernel shop/web shop/api:9000 --socket agent.sock").status, 0);
    running.lose_rules();
    let differs = world.run("why --kernel shop/web shop/api:9000 --socket agent.sock");
    assert_eq!(differs.status, 1, "{}", differs.out);
    assert!(differs.out.contains("DIFFERS") && differs.out.contains("policy: allowed by shop/api"), "{}", differs.out);
    until("the self-check finds it", &world, || status(&world)["self_check"]["drifted"].as_u64() > Some(0));
    assert_eq!(world.run("status --socket agent.sock").status, 1);
    assert!(get(&world, "/metrics").contains("\npodfence_self_check_drift_total "));

    assert_eq!(running.end(), Some(0));
    assert!(!world.path("agent.sock").exists(), "the socket went with the process");
    let (answered, failed) = lab.calls();
    assert!(answered > 0 && failed == 0, "detached, nothing is in the way: {answered}, {failed}");
    let told = fs::read_to_string(world.path("told")).expect("read");
    assert!(
        told.contains("tables: room for 262144 connections, 1000 rules, 262144 identities; all tables take"),
        "{told}"
    );
    assert!(told.contains("policy.yaml:1") && told.contains("what was enforced before stays in force"), "{told}");
    assert_eq!(world.run("status --socket agent.sock").status, 2);
    let name = lab.name.clone();
    drop(lab);
    assert_eq!(lab::leftovers(Some(&name)), [""; 0]);
}

#[test]
fn three_capabilities_and_a_root_that_is_read_only_suffice() {
    let world = World::new();
    let Some(lab) = Lab::up(&world, "least") else { return };
    fs::write(world.path("cluster/policy.yaml"), policy("[]")).expect("written");
    let (answered, failed) = lab.calls();
    assert!(answered > 0 && failed == 0, "nothing is in the way: {answered}, {failed}");
    // Entering the node's namespace takes more, and is done before.
    let enter = format!("nsenter --net={}", lab.netns().display());
    let words = format!(
        "{enter} setpriv --bounding-set=-all,+bpf,+net_admin,+perfmon --inh-caps=-all --no-new-privs {} enforce \
         --cluster cluster --node node-1 --log log --default-mode enforce --socket agent.sock",
        env!("CARGO_BIN_EXE_podfence")
    );
    let words: Vec<&str> = words.split_whitespace().collect();
    let told = fs::File::create(world.path("told")).expect("made");
    // Only this folder can be written to: the log, the state and the socket lie in it.
    let read_only = "mount --bind . . && cd \"$PWD\" && mount -o remount,bind,ro / && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", read_only, "sh"]).args(&words);
    command.current_dir(world.path("")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(told);
    let running = Enforce(command.spawn().expect("unshare, nsenter and setpriv, from util-linux"));
    until("it enforces", &world, || world.path("agent.sock").exists() && updates(&world) > 0);
    let process = fs::read_to_string(format!("/proc/{}/status", running.0.id())).expect("it runs");
    // PERFMON, BPF and NET_ADMIN: bits 38, 39 and 12 of capabilities(7).
    assert!(process.contains("CapEff:\t000000c000001000\n"), "{process}");
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", running.0.id())).expect("it runs");
    let root = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some("/")).expect("a root");
    assert!(root.split(' ').nth(3).is_some_and(|options| options.starts_with("ro")), "{root}");
    let (answered, failed) = lab.calls();
    assert!(answered == 0 && failed > 0, "what policy denies is dropped: {answered}, {failed}");
    assert_eq!(running.end(), Some(0));
}

/// A bpffs in a mount namespace of this thread's own.
struct Bpffs(PathBuf);

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = nix::mount::umount(&self.0);
    }
}

fn bpffs(world: &World) -> Bpffs {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("root may");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("root may");
    fs::create_dir(world.path("bpffs")).expect("made");
    mount(Some("bpf"), &world.path("bpffs"), Some("bpf"), MsFlags::empty(), None::<&str>).expect("there is a bpffs");
    Bpffs(world.path("bpffs"))
}

#[test]
fn what_is_pinned_stays_in_force_until_it_is_detached() {
    let world = World::new();
    let _mounted = lab::permitted().is_ok().then(|| bpffs(&world));
    let Some(lab) = Lab::up(&world, "pinned") else { return };
    fs::write(world.path("cluster/policy.yaml"), policy("[]")).expect("written");
    let running = Enforce::start(&world, &lab, &["--bpffs", "bpffs"]);
    until("it enforces", &world, || world.path("agent.sock").exists() && updates(&world) > 0);
    assert_eq!(lab.calls().0, 0, "what policy denies is dropped");
    assert_eq!(running.end(), Some(0));
    let told = fs::read_to_string(world.path("told")).expect("read");
    assert!(told.contains("stays in force") && told.contains("podfence detach"), "{told}");
    assert_eq!(lab.calls().0, 0, "it is dropped without the process, too");

    let listed = world.run("detach --bpffs bpffs --dry-run");
    assert_eq!((listed.status, listed.err.as_str()), (0, ""));
    assert!(listed.out.contains("bpffs/v") && listed.out.contains("TCX"), "{}", listed.out);
    assert_eq!(lab.calls().0, 0, "a dry run takes nothing away");
    let netns = lab.netns();
    let done = world.run(&format!("detach --bpffs bpffs --netns {}", netns.display()));
    assert_eq!((done.status, done.err.as_str()), (0, ""), "{}", done.out);
    assert!(done.out.contains("LINK") && done.out.contains("bpffs/v"), "{}", done.out);
    let (answered, failed) = lab.calls();
    assert!(answered > 0 && failed == 0, "nothing is in the way: {answered}, {failed}");
    assert_eq!(world.run("detach --bpffs bpffs --dry-run").out, "there is nothing to take away\n");
}

#[test]
fn detach_says_where_there_is_nothing() {
    let world = World::new();
    let done = world.run("detach --bpffs nowhere --dry-run");
    assert_eq!(done.status, 2);
    assert_eq!(done.err, "podfence: nowhere is no folder; give the folder that `podfence enforce --bpffs` was given\n");
}
