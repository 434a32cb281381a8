//! The agent's status socket, from this side: one question, one answer.

use crate::ending::Failure;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::{io, path::Path, time::Duration};
use tokio::net::UnixStream;

pub(crate) use daemon::DEFAULT_SOCKET as DEFAULT;

/// An answer that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer; a node of 500 pods says about 300,000.
const MOST: usize = 64 << 20;

type Why = Box<dyn std::error::Error + Send + Sync>;

/// The answer at a path, as JSON text and read.
pub(crate) fn ask<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<(String, T), Failure> {
    let what = || format!("no agent answers at {}", socket.display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|why| Failure::of(what(), why).hint("try again"))?;
    let asked = runtime.block_on(async { tokio::time::timeout(PATIENCE, get(socket, path)).await });
    let (status, body) = match asked {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => return Err(Failure::of(what(), why).hint(hint(socket))),
        Err(_) => {
            return Err(Failure::new(
                format!("{} within {} s", what(), PATIENCE.as_secs()),
                "it may be in a long update; try again",
            ));
        }
    };
    let text = String::from_utf8_lossy(&body).into_owned();
    if status != StatusCode::OK {
        return Err(Failure::new("the agent has no answer", text.trim_end().to_owned()));
    }
    let read = serde_json::from_str(&text).map_err(|why| {
        Failure::of(what(), why).hint("another program may serve there, or an agent of another version")
    })?;
    Ok((text, read))
}

async fn get(socket: &Path, path: &str) -> Result<(StatusCode, Bytes), Why> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header(HOST, "podfence").body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST).collect().await?.to_bytes();
        Ok::<_, Why>((status, body))
    };
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}

/// What to try, by what the socket looks like.
fn hint(socket: &Path) -> &'static str {
    match std::os::unix::net::UnixStream::connect(socket) {
        Err(why) if why.kind() == io::ErrorKind::PermissionDenied => "only root may ask it; try with sudo",
        _ => "start one with `podfence enforce --cluster DIR`, or name its socket with --socket FILE",
    }
}

/// Text as it may stand behind a `=` in a path's query (RFC 3986).
pub(crate) fn encoded(text: &str) -> String {
    let mut all = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => all.push(char::from(byte)),
            other => all += &format!("%{other:02X}"),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_in_a_path_is_encoded() {
        assert_eq!(encoded("[fd00::1]:53/UDP&x=ü"), "%5Bfd00%3A%3A1%5D%3A53%2FUDP%26x%3D%C3%BC");
    }
}
