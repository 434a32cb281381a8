//! Network namespaces and the routed links between them, as the reference CNI plugin `ptp` lays them out.
//!
//! ```text
//!   pod namespace          node namespace                    outside namespace       host outside
//!   eth0 ── veth1a2b3c4d   routes PODIP dev veth…,   eth0 ── veth…          veth… ── eth0
//!   /32 /128, default via  forwards                  default
//!   the link's other end                             route
//! ```
//!
//! Every link has one *router* end, which answers at 169.254.1.1 and fe80::1, and one *leaf* end, `eth0`, with the
//! addresses. Nothing is made or changed in the machine's own namespace. No address waits for duplicates to be
//! detected: they are given out once.

use crate::error::Error;
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};
use std::{
    fs::{self, File},
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

/// Where `ip netns` looks for namespaces.
const FOLDER: &str = "/run/netns";
const GATEWAY_V4: &str = "169.254.1.1";
const GATEWAY_V6: &str = "fe80::1";
const MTU: u32 = 1500;

/// What a namespace is for: it decides its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Forwards.
    Router,
    /// Has one link.
    Leaf,
}

/// A link between two namespaces, and who is reached through it.
#[derive(Clone, Debug)]
pub struct Link<'a> {
    /// Where it begins.
    pub router: &'a str,
    /// The link's name at the router.
    pub name: &'a str,
    /// Where it ends, as `eth0`.
    pub leaf: &'a str,
    /// Addresses of the leaf.
    pub addresses: &'a [IpAddr],
    /// Addresses that the router itself speaks from towards the leaf.
    pub sources: &'a [IpAddr],
    /// Ranges behind the leaf.
    pub behind: &'a [ipnet::IpNet],
}

/// Where a namespace is mounted.
pub fn path_of(namespace: &str) -> PathBuf {
    Path::new(FOLDER).join(namespace)
}

/// The namespaces whose names begin so.
pub fn named(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    names
}

/// Makes namespaces, mounted by name.
pub fn create(namespaces: &[(String, Purpose)]) -> Result<(), Error> {
    shared_folder()?;
    // A namespace belongs to a thread: one that is not used for anything else.
    thread::scope(|scope| {
        let all = scope.spawn(|| namespaces.iter().try_for_each(|(name, purpose)| create_one(name, *purpose)));
        all.join().unwrap_or(Err(Error::Interrupted))
    })
}

/// As `ip netns add` does: mounts in the folder are seen by every mount namespace that sees the folder.
fn shared_folder() -> Result<(), Error> {
    fs::create_dir_all(FOLDER).map_err(Error::file(FOLDER, "cannot be made"))?;
    let share = || mount(None::<&str>, FOLDER, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    let shared = match share() {
        Err(Errno::EINVAL) => {
            mount(Some(FOLDER), FOLDER, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
                .and_then(|()| share())
        }
        other => other,
    };
    shared.map_err(Error::kernel(format!("{FOLDER} cannot be mounted")))
}

fn create_one(name: &str, purpose: Purpose) -> Result<(), Error> {
    let path = path_of(name);
    File::create_new(&path).map_err(Error::file(&path, "cannot be made"))?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(Error::kernel("no network namespace can be made"))?;
    let own = "/proc/thread-self/ns/net";
    mount(Some(own), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(Error::kernel(format!("{} cannot be mounted", path.display())))?;
    for (setting, value) in settings(purpose) {
        let path = Path::new("/proc/sys/net").join(setting);
        fs::write(&path, value).map_err(Error::file(&path, "cannot be set"))?;
    }
    Ok(())
}

fn settings(purpose: Purpose) -> &'static [(&'static str, &'static str)] {
    match purpose {
        Purpose::Router => &[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
        ],
        Purpose::Leaf => &[
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            // Any group may ping, as container runtimes set it.
            ("ipv4/ping_group_range", "0 2147483647"),
        ],
    }
}

/// Removes a namespace, with the links in it; one that is not there is no error.
pub fn remove(namespace: &str) {
    let path = path_of(namespace);
    match umount2(&path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(error) => tracing::warn!(namespace, %error, "cannot be unmounted"),
    }
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(namespace, %error, "cannot be removed"),
    }
}

/// Makes links, brings them up, and routes.
pub fn connect(links: &[Link<'_>]) -> Result<(), Error> {
    let mut routers: Vec<&str> = links.iter().map(|link| link.router).collect();
    routers.sort_unstable();
    routers.dedup();
    // All links first: the far end is made in the leaf's namespace.
    for router in &routers {
        let mine = links.iter().filter(|link| link.router == *router);
        ip(router, &mine.clone().map(create_link).collect::<String>())?;
        ip(router, &format!("link set lo up\n{}", mine.map(route_to_leaf).collect::<String>()))?;
    }
    links.iter().try_for_each(|link| ip(link.leaf, &leaf_side(link)))
}

fn create_link(Link { name, leaf, .. }: &Link<'_>) -> String {
    format!("link add {name} mtu {MTU} type veth peer name eth0 mtu {MTU} netns {leaf}\n")
}

fn route_to_leaf(link: &Link<'_>) -> String {
    let name = link.name;
    let mut lines = format!(
        "address add {GATEWAY_V4}/32 dev {name} scope link\n\
         address add {GATEWAY_V6}/64 dev {name} nodad\nlink set {name} up\n"
    );
    let same_family = |ip: &IpAddr, other: &IpAddr| ip.is_ipv4() == other.is_ipv4();
    for ip in link.addresses {
        let source = link.sources.iter().find(|source| same_family(ip, source));
        let source = source.map(|source| format!(" src {source}")).unwrap_or_default();
        lines += &format!("route add {ip}/{} dev {name}{source}\n", full(ip));
    }
    for range in link.behind {
        let via = link.addresses.iter().find(|ip| ip.is_ipv4() == range.addr().is_ipv4());
        lines += &via.map(|ip| format!("route add {range} via {ip} dev {name} onlink\n")).unwrap_or_default();
    }
    lines
}

fn leaf_side(link: &Link<'_>) -> String {
    let address = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => format!("address add {ip}/32 dev eth0\n"),
        IpAddr::V6(ip) => format!("address add {ip}/128 dev eth0 nodad\n"),
    };
    let mut lines: String = link.addresses.iter().map(address).collect();
    lines += &format!("link set lo up\nlink set eth0 up\nroute add {GATEWAY_V4}/32 dev eth0 scope link\n");
    let source = |v4: bool| link.addresses.iter().find(|ip| ip.is_ipv4() == v4);
    if let Some(ip) = source(true) {
        lines += &format!("route add 0.0.0.0/0 via {GATEWAY_V4} dev eth0 src {ip}\n");
    }
    if let Some(ip) = source(false) {
        lines += &format!("route add ::/0 via {GATEWAY_V6} dev eth0 src {ip}\n");
    }
    // What nobody has an address for must not go back to the router, and round and round.
    for range in link.behind {
        lines += &format!("route add unreachable {range}\n");
    }
    lines
}

fn full(ip: &IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// Removes a link, both its ends, at once.
pub fn disconnect(router: &str, name: &str) -> Result<(), Error> {
    ip(router, &format!("link delete {name}\n"))
}

/// Runs commands of `ip`, a line each, in a namespace.
pub fn ip(namespace: &str, input: &str) -> Result<(), Error> {
    let arguments = ["-netns", namespace, "-batch", "-"];
    obey("ip", &arguments, input, "iproute2")
}

/// Runs a program of a package in the calling thread's namespace, with commands as its input.
pub(crate) fn obey(program: &str, arguments: &[&str], input: &str, package: &str) -> Result<(), Error> {
    let failed = |output: String| {
        let program = format!("{program} {}", arguments.join(" "));
        Error::Command { program, input: input.to_owned(), output }
    };
    let run = || -> io::Result<std::process::Output> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Error::Lacking { what: format!("the program `{program}`"), remedy: format!("install {package}") }
        }
        _ => failed(error.to_string()),
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Whether this process may make namespaces and give away what is in them.
pub fn permitted() -> Result<(), Error> {
    let lacking = |what: &str| Error::Lacking {
        what: what.to_owned(),
        remedy: "run as root (the lab makes network namespaces, and nothing outside them)".to_owned(),
    };
    if !nix::unistd::geteuid().is_root() {
        return Err(lacking("the right to make network namespaces"));
    }
    let tried = thread::scope(|scope| scope.spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join());
    match tried {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(lacking(&format!("the right to make network namespaces ({error})"))),
        Err(_) => Err(lacking("a thread")),
    }
}

/// Moves the calling thread into a namespace, and nothing else of the process.
pub fn enter(namespace: &Path) -> Result<(), Error> {
    let file = File::open(namespace).map_err(Error::file(namespace, "cannot be opened"))?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(Error::kernel(format!("{} cannot be entered", namespace.display())))
}
