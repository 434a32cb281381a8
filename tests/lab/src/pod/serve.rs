//! What a pod serves: HTTP, echoes, DNS, and a real `redis-server`, on each of its addresses.

use super::{child, record, zone::Zone};
use crate::{
    control::PodSpec,
    scenario::{Served, Server},
};
use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, UdpSocket},
    task::spawn_local,
};

/// How long a client of the DNS server may say nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest line or datagram that is echoed.
const LONGEST: usize = 2048;

/// Starts every server of the pod; returns once all of them answer. The zone is the DNS server's, if it has one.
pub(super) async fn start(spec: &PodSpec) -> io::Result<Option<Zone>> {
    let mut zone = None;
    let mut children = Vec::new();
    for served in &spec.serve {
        let places: Vec<SocketAddr> = spec.addresses.iter().map(|ip| SocketAddr::new(*ip, served.port)).collect();
        match served.server {
            Server::Http => listen(&places, spec.name.clone(), http).await?,
            Server::Tcp => listen(&places, spec.name.clone(), echo_lines).await?,
            Server::Udp => echo_datagrams(&places).await?,
            Server::Dns => zone = Some(dns(spec, &places).await?),
            Server::Redis => children.push(redis(spec, *served).await?),
        }
    }
    let pids: Vec<u32> = children.iter().filter_map(tokio::process::Child::id).collect();
    record(&spec.pids, &pids)?;
    for mut child in children {
        spawn_local(async move {
            let status = child.wait().await;
            eprintln!("redis-server ended: {status:?}");
        });
    }
    Ok(zone)
}

/// Accepts at each place, and hands every connection to `serve`.
async fn listen<F>(places: &[SocketAddr], name: String, serve: fn(TcpStream, String) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    for place in places {
        let listener = TcpListener::bind(place).await?;
        let name = name.clone();
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that goes away in the middle is no matter.
                spawn_local(serve(stream, name.clone()));
            }
        });
    }
    Ok(())
}

async fn http(stream: TcpStream, name: String) -> io::Result<()> {
    let answer = move |_: Request<Incoming>| {
        let body = Full::new(Bytes::from(name.clone()));
        async move { Ok::<_, Infallible>(Response::new(body)) }
    };
    let connection = hyper::server::conn::http1::Builder::new();
    connection.serve_connection(TokioIo::new(stream), service_fn(answer)).await.map_err(io::Error::other)
}

/// Sends every line back, the pod's name before it.
async fn echo_lines(stream: TcpStream, name: String) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = String::new();
    while (&mut read).take(LONGEST as u64).read_line(&mut line).await? > 0 {
        write.write_all(format!("{name} {line}").as_bytes()).await?;
        line.clear();
    }
    Ok(())
}

async fn echo_datagrams(places: &[SocketAddr]) -> io::Result<()> {
    for place in places {
        let socket = UdpSocket::bind(place).await?;
        spawn_local(async move {
            let mut datagram = [0; LONGEST];
            loop {
                // An ICMP error about an earlier answer comes back here; the next datagram is another client's.
                if let Ok((length, from)) = socket.recv_from(&mut datagram).await {
                    let _ = socket.send_to(&datagram[..length], from).await;
                }
            }
        });
    }
    Ok(())
}

async fn dns(spec: &PodSpec, places: &[SocketAddr]) -> io::Result<Zone> {
    let zone = Zone::read(spec.records.clone())?;
    let mut server = hickory_server::Server::new(zone.catalog());
    for place in places {
        server.register_socket(UdpSocket::bind(place).await?);
        server.register_listener(TcpListener::bind(place).await?, PATIENCE, 64);
    }
    spawn_local(async move {
        if let Err(error) = server.block_until_done().await {
            eprintln!("the DNS server ended: {error}");
        }
    });
    Ok(zone)
}

/// A real Redis; it dies with this process.
async fn redis(spec: &PodSpec, served: Served) -> io::Result<tokio::process::Child> {
    let mut command = child("redis-server")?;
    command.args(["--port", &served.port.to_string(), "--protected-mode", "no", "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(&spec.scratch).arg("--bind");
    command.args(spec.addresses.iter().map(ToString::to_string));
    command.stdin(Stdio::null());
    let mut process = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    for ip in &spec.addresses {
        while let Err(error) = TcpStream::connect((*ip, served.port)).await {
            if let Some(status) = process.try_wait()? {
                return Err(io::Error::other(format!("redis-server ended: {status}")));
            }
            if Instant::now() > deadline {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(process)
}
