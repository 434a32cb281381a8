//! The agent's status to whoever may open its socket: HTTP/1.1 over a unix socket (root alone), and its metrics over
//! loopback where that was asked for.
//!
//! | path | answers |
//! |---|---|
//! | `/status` | a [`Report`](crate::Report) as JSON |
//! | `/metrics` | the same as Prometheus reads it |
//! | `/healthz` | 200 `ok` while the node's loop answers; else 503 |
//! | `/readyz` | 200 `ok` while what must be enforced is; else 503 with a line for each thing that is not |
//! | `/why?from=END&to=END:PORT/PROTOCOL` | an [`Answer`](crate::Answer) as JSON; 400 with a sentence where there is none |
//!
//! Always holds: it reads and changes nothing; one request a connection, in bounded memory and time; over TCP there is
//! neither `/status` nor `/why`, as anybody on the node can open that.

use crate::{Error, Question, asked::Asked, metrics};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    cell::Cell,
    convert::Infallible,
    fs, io,
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    rc::Rc,
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::oneshot,
    task::LocalSet,
};

/// A connection that takes longer is closed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at a time; more wait in the socket's queue.
const CONNECTIONS: usize = 16;
/// Bytes of a request's head.
const HEAD: usize = 16 << 10;

/// Where the status is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    /// A unix socket, made with mode 0600, its folder where it is missing.
    pub socket: Option<PathBuf>,
    /// A loopback address and port for `/metrics` and `/healthz`.
    pub metrics: Option<SocketAddr>,
}

/// The status is served until this goes.
pub struct Served {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    socket: Option<(PathBuf, u64)>,
    metrics: Option<SocketAddr>,
}

impl Served {
    /// The loopback address that metrics are served at, where one was asked for.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Not a socket that another agent has put there since.
        if let Some((path, inode)) = &self.socket
            && fs::metadata(path).is_ok_and(|about| about.ino() == *inode)
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// Serves until the answer goes.
pub(crate) fn serve(doors: &Doors, asked: Asked) -> Result<Served, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|why| Error::Thread { what: format!("for its status cannot be started: {why}") })?;
    let inside = runtime.enter();
    // What leaves something behind comes last.
    let tcp = doors.metrics.map(bind_loopback).transpose()?;
    let unix = doors.socket.as_deref().map(bind).transpose()?;
    let metrics = tcp.as_ref().and_then(|listener| listener.local_addr().ok());
    let (unix, inode) = unix.map_or((None, 0), |(listener, inode)| (Some(listener), inode));
    let (stop, stopped) = oneshot::channel::<()>();
    drop(inside);
    let thread = std::thread::Builder::new()
        .name("agent-status".to_owned())
        .spawn(move || {
            let all = LocalSet::new();
            all.spawn_local(accept_all(unix, tcp, asked));
            let _ = all.block_on(&runtime, stopped);
            runtime.shutdown_timeout(Duration::from_millis(100));
        })
        .map_err(|why| Error::Thread { what: format!("for its status cannot be started: {why}") })?;
    let socket = doors.socket.clone().map(|path| (path, inode));
    Ok(Served { stop: Some(stop), thread: Some(thread), socket, metrics })
}

/// A socket that nobody but this user may open from its first moment: it gets its name when its mode is set.
fn bind(path: &Path) -> Result<(UnixListener, u64), Error> {
    let failed = |source| Error::Socket { path: path.to_owned(), source };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(failed(io::Error::new(io::ErrorKind::AddrInUse, "another agent answers there")));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed)?;
    let beside = folder.join(format!(".podfence-{}.sock", std::process::id()));
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside).map_err(failed)?;
    let named = fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::metadata(&beside))
        .and_then(|about| fs::rename(&beside, path).map(|()| about.ino()));
    match named {
        Ok(inode) => Ok((listener, inode)),
        Err(why) => {
            let _ = fs::remove_file(&beside);
            Err(failed(why))
        }
    }
}

fn bind_loopback(at: SocketAddr) -> Result<TcpListener, Error> {
    if !at.ip().is_loopback() {
        return Err(Error::NotLoopback { at });
    }
    let listen = || {
        let listener = std::net::TcpListener::bind(at)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    listen().map_err(|source| Error::Listen { at, source })
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Unix,
    Loopback,
}

async fn accept_all(unix: Option<UnixListener>, tcp: Option<TcpListener>, asked: Asked) {
    let open = Rc::new(Cell::new(0));
    loop {
        if open.get() >= CONNECTIONS {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        tokio::select! {
            Some(accepted) = from_unix(unix.as_ref()) => match accepted {
                Ok(stream) => spawn(stream, Door::Unix, &open, &asked),
                Err(why) => refused(&why).await,
            },
            Some(accepted) = from_tcp(tcp.as_ref()) => match accepted {
                Ok(stream) => spawn(stream, Door::Loopback, &open, &asked),
                Err(why) => refused(&why).await,
            },
            else => return,
        }
    }
}

async fn from_unix(listener: Option<&UnixListener>) -> Option<io::Result<tokio::net::UnixStream>> {
    Some(listener?.accept().await.map(|(stream, _)| stream))
}

async fn from_tcp(listener: Option<&TcpListener>) -> Option<io::Result<tokio::net::TcpStream>> {
    Some(listener?.accept().await.map(|(stream, _)| stream))
}

/// No descriptors, perhaps: that passes.
async fn refused(why: &io::Error) {
    tracing::warn!(error = %why, "the status socket cannot accept");
    tokio::time::sleep(Duration::from_millis(500)).await;
}

fn spawn(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, door: Door, open: &Rc<Cell<usize>>, asked: &Asked) {
    let (open, asked) = (open.clone(), asked.clone());
    open.set(open.get() + 1);
    tokio::task::spawn_local(async move {
        let service = service_fn(|request| {
            let asked = asked.clone();
            async move { Ok::<_, Infallible>(answer(&request, door, asked).await) }
        });
        let mut http = http1::Builder::new();
        let connection = http.keep_alive(false).max_buf_size(HEAD).serve_connection(TokioIo::new(stream), service);
        // Who hangs up or says nothing has no answer coming.
        let _ = tokio::time::timeout(PATIENCE, connection).await;
        open.set(open.get() - 1);
    });
}

type Answered = Response<Full<Bytes>>;

async fn answer(request: &Request<Incoming>, door: Door, asked: Asked) -> Answered {
    if request.method() != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n");
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let path = request.uri().path().to_owned();
    let work = move || match (path.as_str(), door) {
        ("/healthz", _) => health(&asked),
        ("/readyz", _) => ready(&asked),
        ("/metrics", _) => scrape(&asked),
        ("/status", Door::Unix) => status(&asked),
        ("/why", Door::Unix) => why(&asked, &query),
        _ => plain(
            StatusCode::NOT_FOUND,
            "there are /status, /metrics, /healthz, /readyz and /why; over TCP the middle three\n",
        ),
    };
    // The node's loop answers when it gets to it.
    match tokio::task::spawn_blocking(work).await {
        Ok(answered) => answered,
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made\n"),
    }
}

fn health(asked: &Asked) -> Answered {
    match asked.report() {
        Ok(_) => plain(StatusCode::OK, "ok\n"),
        Err(why) => unavailable(&why),
    }
}

fn ready(asked: &Asked) -> Answered {
    match asked.report().map(|report| report.not_ready()) {
        Ok(open) if open.is_empty() => plain(StatusCode::OK, "ok\n"),
        Ok(open) => plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{}\n", open.join("\n"))),
        Err(why) => unavailable(&why),
    }
}

fn scrape(asked: &Asked) -> Answered {
    match asked.report().map(|report| metrics::text(&report)) {
        Ok(Ok(text)) => made(StatusCode::OK, metrics::CONTENT_TYPE, text),
        Ok(Err(_)) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n"),
        Err(why) => unavailable(&why),
    }
}

fn status(asked: &Asked) -> Answered {
    match asked.report() {
        Ok(report) => json(&report),
        Err(why) => unavailable(&why),
    }
}

fn why(asked: &Asked, query: &str) -> Answered {
    let value = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| decoded(value)).next().flatten()
    };
    let Some((from, to)) = value("from").zip(value("to")) else {
        return plain(StatusCode::BAD_REQUEST, "/why takes from=END and to=END:PORT/PROTOCOL\n");
    };
    match asked.why(Question { from, to }) {
        Ok(Ok(answer)) => json(&answer),
        Ok(Err(sentence)) => plain(StatusCode::BAD_REQUEST, &format!("{sentence}\n")),
        Err(why) => unavailable(&why),
    }
}

/// `%41` is `A`; `None` where that is no UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let hex = rest.get(..2).and_then(|hex| std::str::from_utf8(hex).ok())?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

fn json(value: &impl serde::Serialize) -> Answered {
    match serde_json::to_string(value) {
        Ok(text) => made(StatusCode::OK, "application/json", text + "\n"),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be written\n"),
    }
}

fn unavailable(why: &Error) -> Answered {
    plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{why}\n"))
}

fn plain(status: StatusCode, text: &str) -> Answered {
    made(status, "text/plain; charset=utf-8", text.to_owned())
}

fn made(status: StatusCode, kind: &'static str, text: String) -> Answered {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_names_and_nothing_else() {
        assert_eq!(decoded("shop%2Fweb:80"), Some("shop/web:80".to_owned()));
        assert_eq!(decoded("%5Bfd00::1%5D:53%2FUDP"), Some("[fd00::1]:53/UDP".to_owned()));
        assert_eq!([decoded("%4"), decoded("%zz"), decoded("%ff")], [None, None, None]);
    }

    #[test]
    fn the_socket_is_its_users_alone_and_a_living_agent_keeps_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("podfence/agent.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _inside = runtime.enter();
        let (listener, inode) = bind(&path).expect("bound");
        let about = fs::metadata(&path).expect("it is there");
        assert_eq!((about.mode() & 0o777, about.ino()), (0o600, inode));
        assert!(matches!(bind(&path), Err(Error::Socket { .. })), "somebody answers there");
        drop(listener);
        bind(&path).expect("what a killed agent left is replaced");
        assert_eq!(fs::read_dir(folder.path().join("podfence")).expect("a folder").count(), 1);
    }

    #[test]
    fn metrics_are_never_served_beyond_loopback() {
        let refused = bind_loopback("0.0.0.0:0".parse().expect("an address"));
        assert!(matches!(refused, Err(Error::NotLoopback { .. })));
    }
}
