//! JSON over HTTP/1.1 to the servers of an etcd cluster, one after the other until one answers.
//!
//! A call that failed says whether it can have arrived: what was written is never sent again unless it surely was not.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the first part of an answer may take that comes in parts.
const STREAM_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest answer: the whole record of ten thousand groups is about a third of it.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Connections that are kept for later calls.
const IDLE_MAX: usize = 4;
/// gRPC's code of a call without a valid login.
const UNAUTHENTICATED: u64 = 16;
/// gRPC's codes of what may have happened all the same: unknown, deadline exceeded, internal, unavailable.
const UNCERTAIN: [u64; 4] = [2, 4, 13, 14];

type Connection = SendRequest<Full<Bytes>>;

/// An answer that comes in parts, and who gives it.
pub(super) struct Streamed {
    pub(super) server: usize,
    /// It goes on while this is there.
    _connection: Connection,
    pub(super) body: Incoming,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// No server got it.
    NotSent(String),
    /// A server may have got it, or may still carry it out.
    Unknown(String),
    /// A server said no.
    Refused { code: u64, message: String },
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(why) | Self::Unknown(why) => f.write_str(why),
            Self::Refused { message, .. } => write!(f, "it says: {message}"),
        }
    }
}

/// The servers, and the connections to the one that answered last.
pub(super) struct Http {
    servers: Vec<String>,
    current: AtomicUsize,
    login: Option<(String, SecretString)>,
    token: Mutex<Option<SecretString>>,
    idle: Mutex<Vec<(usize, Connection)>>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("servers", &self.servers).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    message: String,
    #[serde(default)]
    error: Value,
    #[serde(default)]
    code: u64,
}

#[derive(Deserialize)]
struct Authenticated {
    token: String,
}

impl Http {
    pub(super) fn new(servers: &[String], login: Option<(String, SecretString)>) -> Self {
        Self {
            servers: servers.to_vec(),
            current: AtomicUsize::new(0),
            login,
            token: Mutex::default(),
            idle: Mutex::default(),
        }
    }

    /// Calls, and waits for the whole answer.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<T, Failed> {
        // Whoever waits may give up earlier: then, too, the next call goes to another server.
        let unanswered = Unanswered::by_current(self);
        let answer = timeout(ANSWER_TIMEOUT, self.answer(path, body)).await.map_err(|_| {
            let ms = ANSWER_TIMEOUT.as_millis();
            Failed::Unknown(format!("etcd did not answer within {ms} ms"))
        })?;
        unanswered.end();
        let answer = answer?;
        serde_json::from_slice(&answer)
            .map_err(|error| Failed::Unknown(format!("etcd's answer cannot be read: {error}")))
    }

    async fn answer(&self, path: &str, body: &Value) -> Result<Bytes, Failed> {
        match self.answer_once(path, body).await {
            Err(Failed::Refused { code: UNAUTHENTICATED, .. }) if self.login.is_some() => {
                // A token that was good has run out.
                *lock(&self.token) = None;
                self.answer_once(path, body).await
            }
            end => end,
        }
    }

    async fn answer_once(&self, path: &str, body: &Value) -> Result<Bytes, Failed> {
        self.log_in().await?;
        let (server, connection, response) = self.send(path, body, true).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| {
            self.turn_away_from(server);
            Failed::Unknown(format!("etcd's answer broke off: {error}"))
        })?;
        self.keep(server, connection);
        let body = body.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        Err(self.refusal(server, status.as_u16(), &body))
    }

    /// Calls, and gives the answer as it comes, on a connection of its own.
    pub(super) async fn stream(&self, path: &str, body: &Value) -> Result<Streamed, Failed> {
        // The head of the answer comes with its first message, and from a server that lost the others never.
        let unanswered = Unanswered::by_current(self);
        let sent = timeout(STREAM_TIMEOUT, async {
            self.log_in().await?;
            self.send(path, body, false).await
        });
        let sent =
            sent.await.map_err(|_| Failed::Unknown("etcd did not begin to answer".to_owned()))?;
        unanswered.end();
        let (server, connection, response) = sent?;
        let status = response.status();
        if status.is_success() {
            let body = response.into_body();
            return Ok(Streamed { server, _connection: connection, body });
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let refusal = self.refusal(server, status.as_u16(), &body);
        if matches!(refusal, Failed::Refused { code: UNAUTHENTICATED, .. }) {
            *lock(&self.token) = None;
        }
        Err(refusal)
    }

    fn refusal(&self, server: usize, status: u16, body: &[u8]) -> Failed {
        let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
            return Failed::Unknown(format!("it answers with HTTP status {status}"));
        };
        let message = match (&problem.error, problem.message.is_empty()) {
            (Value::String(error), true) => error.clone(),
            (_, _) => problem.message,
        };
        if UNCERTAIN.contains(&problem.code) {
            // It may have lost the others, and another one may not.
            self.turn_away_from(server);
            return Failed::Unknown(message);
        }
        Failed::Refused { code: problem.code, message }
    }

    async fn log_in(&self) -> Result<(), Failed> {
        let Some((user, password)) = &self.login else { return Ok(()) };
        if lock(&self.token).is_some() {
            return Ok(());
        }
        let body = json!({ "name": user, "password": password.expose_secret() });
        let (server, connection, response) =
            self.send("/v3/auth/authenticate", &body, true).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body
            .map_err(|_| Failed::NotSent("etcd's answer to the login broke off".to_owned()))?
            .to_bytes();
        self.keep(server, connection);
        if !status.is_success() {
            let message = match self.refusal(server, status.as_u16(), &body) {
                Failed::NotSent(why) | Failed::Unknown(why) => why,
                Failed::Refused { message, .. } => message,
            };
            return Err(Failed::NotSent(format!("etcd refuses the login of {user}: {message}")));
        }
        let Ok(Authenticated { token }) = serde_json::from_slice(&body) else {
            return Err(Failed::NotSent("etcd's answer to the login is not understood".to_owned()));
        };
        *lock(&self.token) = Some(SecretString::from(token));
        Ok(())
    }

    /// Sends a call to the first server that takes it.
    async fn send(
        &self,
        path: &str,
        body: &Value,
        may_reuse: bool,
    ) -> Result<(usize, Connection, Response<Incoming>), Failed> {
        let body = Bytes::from(body.to_string());
        let mut why = "no etcd server is given".to_owned();
        for _ in 0..self.servers.len() {
            let server = self.current();
            let mut kept = if may_reuse { self.reuse(server) } else { None };
            loop {
                let is_kept = kept.is_some();
                let mut connection = match kept.take() {
                    Some(connection) => connection,
                    None => match self.connect(server).await {
                        Ok(connection) => connection,
                        Err(error) => {
                            why = format!("etcd at {}: {error}", self.servers[server]);
                            break;
                        }
                    },
                };
                let request = self.request(server, path, body.clone());
                match connection.try_send_request(request).await {
                    Ok(response) => return Ok((server, connection, response)),
                    // With the message in it: a connection that was kept was closed before anything was said on it.
                    Err(mut error) => {
                        if error.take_message().is_some() {
                            why = format!("etcd at {} closed the connection", self.servers[server]);
                            if is_kept {
                                continue;
                            }
                            break;
                        }
                        self.turn_away_from(server);
                        let error = error.into_error();
                        let name = &self.servers[server];
                        return Err(Failed::Unknown(format!(
                            "etcd at {name} did not answer: {error}"
                        )));
                    }
                }
            }
            self.turn_away_from(server);
        }
        Err(Failed::NotSent(why))
    }

    fn request(&self, server: usize, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::post(path)
            .header(HOST, &self.servers[server])
            .header(CONTENT_TYPE, "application/json")
            // Of a server that lost the others nothing is taken for the whole.
            .header("Grpc-Metadata-hasleader", "true");
        if let Some(token) = &*lock(&self.token) {
            request = request.header(AUTHORIZATION, token.expose_secret());
        }
        request.body(Full::new(body)).unwrap_or_else(|_| Request::new(Full::new(Bytes::new())))
    }

    async fn connect(&self, server: usize) -> Result<Connection, String> {
        let connect = async {
            let stream = TcpStream::connect(&self.servers[server]).await?;
            stream.set_nodelay(true)?;
            let socket = socket2::SockRef::from(&stream);
            socket.set_tcp_keepalive(
                &socket2::TcpKeepalive::new()
                    .with_time(Duration::from_secs(2))
                    .with_interval(Duration::from_secs(1))
                    .with_retries(3),
            )?;
            Ok::<_, std::io::Error>(stream)
        };
        let stream = timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| format!("no connection within {} ms", CONNECT_TIMEOUT.as_millis()))?
            .map_err(|error| error.to_string())?;
        let (connection, drive) =
            handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            // Its end is heard of by whoever waits for an answer.
            let _ = drive.await;
        });
        Ok(connection)
    }

    fn reuse(&self, server: usize) -> Option<Connection> {
        let mut idle = lock(&self.idle);
        idle.retain(|(of, connection)| *of == server && !connection.is_closed());
        let ready = idle.iter().position(|(_, connection)| connection.is_ready())?;
        Some(idle.swap_remove(ready).1)
    }

    fn keep(&self, server: usize, connection: Connection) {
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE_MAX && !connection.is_closed() {
            idle.push((server, connection));
        }
    }

    /// Which server is asked next.
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed) % self.servers.len().max(1)
    }

    /// The next call goes to another server.
    fn turn_away_from(&self, server: usize) {
        let next = server.wrapping_add(1);
        let _ = self.current.compare_exchange(
            server,
            next % self.servers.len().max(1),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }
}

/// A call to a server. When it is dropped before it is over, the next one goes to another server.
struct Unanswered<'a> {
    http: &'a Http,
    server: Option<usize>,
}

impl<'a> Unanswered<'a> {
    fn by_current(http: &'a Http) -> Self {
        Self { http, server: Some(http.current()) }
    }

    fn end(mut self) {
        self.server = None;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(server) = self.server {
            self.http.turn_away_from(server);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
