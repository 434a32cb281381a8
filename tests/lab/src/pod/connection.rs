//! Connections that a client opens, talks over, and may keep.

use super::call::{At, GREETING, Result, right};
use crate::{control::Stage, destination::Scheme};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use redis::{AsyncConnectionConfig, ConnectionAddr, aio::MultiplexedConnection};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::spawn_local,
};

/// An open connection.
pub(super) enum Connected {
    Http { sender: SendRequest<Empty<Bytes>>, host: String },
    Redis(Box<MultiplexedConnection>),
    Tcp(BufReader<TcpStream>),
}

/// What is asked over it.
pub(super) struct Question<'a> {
    /// An HTTP request's path.
    pub(super) path: &'a str,
    /// Who asks.
    pub(super) client: &'a str,
}

impl Connected {
    pub(super) async fn open(scheme: Scheme, place: SocketAddr, within: Duration) -> Result<Self> {
        if scheme == Scheme::Redis {
            return redis(place, within).await;
        }
        let stream = TcpStream::connect(place).await.at(Stage::Reach)?;
        if scheme == Scheme::Tcp {
            return Ok(Self::Tcp(BufReader::new(stream)));
        }
        let stream = TokioIo::new(stream);
        let (sender, connection) = hyper::client::conn::http1::handshake(stream).await.at(Stage::Talk)?;
        spawn_local(connection);
        Ok(Self::Http { sender, host: place.to_string() })
    }

    /// Whether the other end has not closed it, as far as is known here.
    pub(super) fn stands(&self) -> bool {
        match self {
            Self::Http { sender, .. } => !sender.is_closed(),
            // Its driver notices by itself, and refuses.
            Self::Redis(_) => true,
            Self::Tcp(stream) => !matches!(stream.get_ref().try_read(&mut [0]), Ok(0)),
        }
    }

    /// Asks, and returns who answered.
    pub(super) async fn talk(&mut self, question: &Question<'_>) -> Result {
        match self {
            Self::Http { sender, host } => get(sender, host, question.path).await,
            Self::Redis(connection) => set_and_get(connection, question.client).await,
            Self::Tcp(stream) => echo(stream).await,
        }
    }
}

async fn redis(place: SocketAddr, within: Duration) -> Result<Connected> {
    let client = redis::Client::open(ConnectionAddr::Tcp(place.ip().to_string(), place.port())).at(Stage::Reach)?;
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(within)).set_response_timeout(Some(within));
    let connection = client.get_multiplexed_async_connection_with_config(&config).await.at(Stage::Reach)?;
    Ok(Connected::Redis(Box::new(connection)))
}

async fn set_and_get(connection: &mut MultiplexedConnection, client: &str) -> Result {
    let mut commands = redis::pipe();
    commands.cmd("PING").cmd("SET").arg(client).arg(GREETING).cmd("GET").arg(client);
    let answers: (String, String, String) = commands.query_async(connection).await.at(Stage::Talk)?;
    right(answers.2 == GREETING, &answers.2)?;
    Ok(None)
}

async fn get(sender: &mut SendRequest<Empty<Bytes>>, host: &str, path: &str) -> Result {
    let path = if path.is_empty() { "/" } else { path };
    let request = Request::get(path).header("host", host).header("user-agent", GREETING);
    let request = request.body(Empty::new()).at(Stage::Talk)?;
    let response = sender.send_request(request).await.at(Stage::Talk)?;
    let status = response.status();
    let body = response.into_body().collect().await.at(Stage::Talk)?.to_bytes();
    right(status == StatusCode::OK, status)?;
    Ok(Some(String::from_utf8_lossy(&body).into_owned()))
}

async fn echo(stream: &mut BufReader<TcpStream>) -> Result {
    stream.write_all(format!("{GREETING}\n").as_bytes()).await.at(Stage::Talk)?;
    let mut line = String::new();
    stream.read_line(&mut line).await.at(Stage::Talk)?;
    let name = line.trim_end().strip_suffix(GREETING).map(|name| name.trim_end().to_owned());
    right(name.is_some(), &line)?;
    Ok(name)
}
