//! What the program remembers of connections, and what happens when it cannot.

use crate::{
    class::{Class, Ends},
    cluster::{self, OPEN, SHUT, egress, set},
    error::{Error, Stop},
    post::inside,
    range::Who::{Attacker, Client, Outside, Server},
    trial::{BY_POLICY, Purpose, Trial, Volley},
};
use flow::tcp;
use model::cluster::{Cluster, Mode};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    thread,
    time::Duration,
};
use verdict::{Limits, Mode as Effective, Reason};

pub(crate) const CLASSES: &[Class] = &[
    Class::new(
        ("reused-port", 4, "aws-network-policy-agent dd11826"),
        "A connection ends and another takes its ports; what clears up the first one deletes the second.",
        "sweep",
        reused_port,
    ),
    Class::new(
        ("restart-under-fire", 8, "CVE-2023-27595"),
        "The agent ends and another begins while packets come: some pass unjudged in between.",
        "pins",
        restart_under_fire,
    )
    .ends(Ends::ALL),
    Class::new(
        ("before-the-first-sync", 9, "CVE-2024-42488"),
        "The agent runs, and does not know the pods yet that its node has.",
        "unknown-pod",
        before_the_first_sync,
    ),
    Class::new(
        ("full-ring", 27, "KubeArmor#1573"),
        "The ring of events is full, and a packet that cannot be told of is not judged either.",
        "verdict-before-event",
        full_ring,
    )
    .ends(Ends::ALL),
    Class::new(
        ("raised-denials", 35, "thought of here"),
        "A scan, and a pod that fills its shares, raise denials until something returns to audit.",
        "mode-stays",
        raised_denials,
    )
    .ends(Ends::ALL),
];

/// Patience for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(4);

fn reused_port(t: &mut Trial<'_>) -> Result<(), Stop> {
    // The server may open nothing: what it says to the client passes by the connection's entry alone.
    t.enforce(set(vec![egress(Server, Vec::new())]))?;
    let (at_server, at_client) =
        (SocketAddr::new(Server.address(t.family), OPEN), SocketAddr::new(Client.address(t.family), 5300));
    let listener = inside(&t.range.path(Server), || {
        TcpListener::bind(at_server).map_err(Error::system(format!("nothing can listen at {at_server}")))
    })?;
    let accept = || listener.accept().map(|(stream, _)| stream).map_err(Error::system("nobody came"));
    let open = || -> Result<Socket, Error> {
        inside(&t.range.path(Client), || {
            let domain = if at_client.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
            let made = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).and_then(|socket| {
                socket.set_reuse_address(true)?;
                // Ends by a reset, so that the port is free at once.
                socket.set_linger(Some(Duration::ZERO))?;
                socket.bind(&at_client.into())?;
                socket.connect_timeout(&at_server.into(), HANDSHAKE)?;
                Ok(socket)
            });
            made.map_err(Error::system(format!("no connection to {at_server}")))
        })
    };
    let first = open()?;
    let gone = accept()?;
    drop((first, gone));
    let _second = open()?;
    let mut stream = accept()?;
    let ends = (Server, Client);
    t.say(Purpose::Control, "on the second connection", &[], ends, |bytes| stream.write_all(bytes))?;
    // Several sweeps later it must still be there.
    thread::sleep(Duration::from_millis(400));
    t.say(Purpose::Kept, "on it, after several sweeps", &[], ends, |bytes| stream.write_all(bytes))?;
    let syn = t.tcp(Server, Client, OPEN, 5301, tcp::SYN);
    t.attack("an opening by the server itself", BY_POLICY, Volley::new(Server, Client, [syn]))
}

/// Runs with a bpffs of its own, in a mount namespace of its own.
fn with_bpffs<T: Send>(work: impl FnOnce(&Path) -> Result<T, Stop> + Send) -> Result<T, Stop> {
    let folder = tempfile::tempdir().map_err(Error::system("no temporary folder can be made"))?;
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            unshare(CloneFlags::CLONE_NEWNS)
                .and_then(|()| mount(None::<&str>, "/", None::<&str>, private, None::<&str>))
                .and_then(|()| mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), None::<&str>))
                .map_err(Error::system("no bpffs can be mounted in a mount namespace of its own"))?;
            let done = work(folder.path());
            let _ = umount2(folder.path(), MntFlags::MNT_DETACH);
            done
        });
        worker.join().unwrap_or_else(|_| Err(Error::range("a thread of the range ended early; run it again").into()))
    })
}

fn restart_under_fire(t: &mut Trial<'_>) -> Result<(), Stop> {
    with_bpffs(|bpffs| {
        t.datapath.bpffs = Some(bpffs.to_owned());
        let done = restarts(t);
        t.agent_stops()?;
        t.datapath.bpffs = None;
        done
    })
}

fn restarts(t: &mut Trial<'_>) -> Result<(), Stop> {
    t.serve(Server, OPEN)?;
    let closed = Cluster { policies: t.closed(), ..cluster::cluster(Mode::Enforce) };
    let open = Cluster { policies: t.open(), ..cluster::cluster(Mode::Enforce) };
    let volley = |t: &Trial<'_>, port| Volley::new(Attacker, Server, [t.tcp(Attacker, Server, port, OPEN, tcp::SYN)]);
    t.apply(&open)?;
    t.control("where policy allows it", volley(t, 5310))?;
    t.apply(&closed)?;
    let to = SocketAddr::new(Server.address(t.family), OPEN);
    let refused = |why| Error::range(format!("no connection to {to} where policy allows it: {why}"));
    let mut stream: TcpStream = t.connect(Client, to, HANDSHAKE)?.map_err(refused)?;
    let rounds = 20;
    let sent = 3 * 3 * rounds;
    t.shoot(
        Purpose::Attack,
        "before, between and after two agents",
        BY_POLICY,
        (Attacker, Server),
        [sent, sent],
        |t, tag| {
            let fire = |t: &mut Trial<'_>, first: u16| {
                (first..).take(rounds as usize).try_for_each(|port| t.send(&volley(t, port), tag))
            };
            fire(t, 5320)?;
            t.agent_leaves()?;
            fire(t, 5340)?;
            t.apply(&closed)?;
            fire(t, 5360)
        },
    )?;
    let say = |bytes: &[u8]| stream.write_all(bytes);
    t.say(Purpose::Kept, "an allowed connection, afterwards", &[], (Client, Server), say)
}

fn before_the_first_sync(t: &mut Trial<'_>) -> Result<(), Stop> {
    t.datapath.unknown_pod = datapath::UnknownPod::Deny;
    let hits = |t: &Trial<'_>| Volley::new(Attacker, Server, [t.udp(Attacker, Server, 5380, OPEN)]);
    let mut empty = cluster::cluster(Mode::Enforce);
    empty.pods.clear();
    t.agent()?.update(&empty)?;
    t.attack("of pods that are not known yet", &[Reason::UnknownPod], hits(t))?;
    t.enforce(set(Vec::new()))?;
    t.control("once they are, and nothing isolates them", hits(t))
}

/// Denied packets that fill the ring of events: each new flow makes one.
const MORE_THAN_THE_RING: u32 = 70_000;

fn full_ring(t: &mut Trial<'_>) -> Result<(), Stop> {
    t.datapath.events = 1 << 32;
    t.read_every = Duration::from_secs(3600);
    t.enforce(t.open())?;
    let hits = |t: &Trial<'_>, port| Volley::new(Attacker, Server, [t.udp(Attacker, Server, port, OPEN)]);
    t.control("where policy allows it", hits(t, 5390))?;
    t.enforce(t.closed())?;
    let sent = 3;
    t.shoot(Purpose::Attack, "once the ring is full", BY_POLICY, (Attacker, Server), [sent, sent], |t, tag| {
        let frames: Vec<_> = (0..MORE_THAN_THE_RING)
            .map(|n| t.udp(Attacker, Server, 10_000 + (n / 60_000) as u16, 1 + (n % 60_000) as u16))
            .collect();
        t.flood(Attacker, Server, frames.into_iter())?;
        // The taps must be through with it, or they miss what counts.
        thread::sleep(Duration::from_millis(100));
        t.send(&hits(t, 5391), tag)
    })?;
    let verdicts = t.agent()?.status()?.counters.verdicts;
    match verdicts.values().map(|counter| counter.lost).sum::<u64>() {
        0 => Err(Error::range("the ring of events was never full; the class needs more packets").into()),
        _ => Ok(()),
    }
}

fn raised_denials(t: &mut Trial<'_>) -> Result<(), Stop> {
    t.datapath.limits = Limits { half_open: 64, established: 64, tombstones: 64 };
    let open = t.open_at(OPEN);
    t.enforce(open.clone())?;
    let hits = |t: &Trial<'_>, source, port| Volley::new(Attacker, Server, [t.udp(Attacker, Server, source, port)]);
    t.control("to the open port", hits(t, 5400, OPEN))?;
    let scan: Vec<_> = (1..4000).map(|port| t.tcp(Attacker, Server, 5401, port, tcp::SYN)).collect();
    t.flood(Attacker, Server, scan.into_iter())?;
    // What the scan left half-open counts against the one who scans, too.
    let by = [BY_POLICY, &[Reason::HalfOpenFull]].concat();
    t.attack("to a closed port, after a scan", &by, hits(t, 5402, SHUT))?;
    let fill: Vec<_> = (6000..8000).map(|source| t.udp(Attacker, Server, source, OPEN)).collect();
    t.flood(Attacker, Server, fill.into_iter())?;
    t.attack("to a closed port, with full shares", &by, hits(t, 5403, SHUT))?;
    let full = [Reason::HalfOpenFull];
    t.attack("a flow more than the share holds", &full, hits(t, 5404, OPEN))?;
    // Nobody else pays for it.
    let aside = Volley::new(Client, Outside, [t.udp(Client, Outside, 5405, OPEN)]);
    t.kept("another pod's flow to somebody else", aside)?;
    let update = t.apply(&Cluster { policies: open, ..cluster::cluster(Mode::Enforce) })?;
    match update.covered.values().all(|mode| *mode == Effective::Enforce) {
        true => Ok(()),
        false => Err(Error::range(format!("a mode changed by itself: {:?}", update.covered)).into()),
    }
}
