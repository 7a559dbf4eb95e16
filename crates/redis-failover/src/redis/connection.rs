//! One connection to one server: what was asked on it, in order, and what came back.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use failover_core::addr::Addr;
use failover_core::event::{Health, ProbeSeq, Probed};
use failover_core::instance::{Facts, Fence, MinReplicas};
use failover_core::time::Time;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::flavor::{ErrorKind, MIN_REPLICAS_NAMES, ServerError, Words, min_replicas};
use super::info::{self, Dependence, ServerInfo};
use super::resp::{Decoder, Frame, Limits, encode_command};

/// How the name of this program appears in `CLIENT LIST`.
const CLIENT_NAME: &str = "redis-failover";
/// Unacknowledged bytes older than this mean that the host is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(5);
/// What a read may add to the buffer at a time.
const READ_BYTES: usize = 4 * 1024;
/// A write of a few hundred bytes that takes longer is not going to end.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a server is asked how many keys it holds; also on every new connection.
const KEYS_INTERVAL: Duration = Duration::from_secs(30);
/// How often the settings are read again that somebody else may change. Most changes show at once, in `INFO`.
const MIN_REPLICAS_PERIOD: Duration = Duration::from_secs(10);
/// What nearly every probe is: `PING` and `INFO replication`.
const QUESTION: &[u8] = b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n";
/// Most replies that may be outstanding on one connection.
const EXPECTED_MAX: usize = 64;

/// How to log in to a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Login {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<SecretString>,
}

/// Why a connection cannot be used any more.
#[derive(Debug)]
pub(super) enum Broken {
    /// The other side closed it, or the network did.
    Ended,
    /// What came is not the protocol.
    Garbage(String),
    /// It said why it turns every client away, unasked, and closes the connection.
    TurnedAway(Health),
}

/// What the next reply on the connection answers.
#[derive(Debug)]
enum Expect {
    Login,
    Name,
    Server,
    PingPeriod,
    Keys,
    MinReplicas,
    Ping,
    Replication { seq: ProbeSeq, asked_at: Time },
    Role,
    Command,
    Rewrite,
}

/// What a frame amounted to.
#[derive(Debug)]
pub(super) enum Taken {
    /// Part of something that is not complete yet.
    Nothing,
    /// A probe is answered.
    Probe(ProbeSeq, Probed),
    /// A reply to a command.
    Command(Frame),
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    socket: SocketAddr,
    input: BytesMut,
    decoder: Decoder,
    expected: VecDeque<Expect>,
    server: Option<ServerInfo>,
    /// What that server understands.
    words: Option<Words>,
    /// The socket as the core knows it, made once.
    addr: Addr,
    ping_period_secs: Option<u32>,
    keys_asked_at: Option<Time>,
    /// How many keys it holds, until the next facts carry it.
    keys: Option<u64>,
    min_replicas: Option<MinReplicas>,
    /// When that was asked for, and whether it is to be asked for again.
    min_replicas_at: Option<Time>,
    last_reply: Option<Time>,
    login_error: Option<String>,
    /// The answer to `PING` of the probe that is being answered.
    health: Option<Result<Health, String>>,
    /// The facts of a LedisDB probe that waits for its `ROLE`.
    waiting: Option<(ProbeSeq, Probed)>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, socket: SocketAddr) -> Self {
        let raw = socket2::SockRef::from(&stream);
        // Without these a probe still works, only a vanished host is noticed later.
        let _ = raw.set_tcp_nodelay(true);
        let _ = raw.set_tcp_user_timeout(Some(USER_TIMEOUT));
        // Whoever closes it does not wait for an answer any more: what has not arrived by then must not arrive at all, least of
        // all a command that another one has followed since.
        let _ = raw.set_linger(Some(Duration::ZERO));
        Self {
            stream,
            socket,
            input: BytesMut::new(),
            decoder: Decoder::new(),
            expected: VecDeque::new(),
            server: None,
            words: None,
            addr: socket.into(),
            ping_period_secs: None,
            keys_asked_at: None,
            keys: None,
            min_replicas: None,
            min_replicas_at: None,
            last_reply: None,
            login_error: None,
            health: None,
            waiting: None,
        }
    }

    /// Whom it leads to.
    pub(super) fn socket(&self) -> SocketAddr {
        self.socket
    }

    /// Who the server is, once it said so.
    pub(super) fn server(&self) -> Option<&ServerInfo> {
        self.server.as_ref()
    }

    /// When the last valid reply came.
    pub(super) fn last_reply(&self) -> Option<Time> {
        self.last_reply
    }

    /// Logs in and asks the first question, all in one write.
    pub(super) async fn greet(
        &mut self,
        login: &Login,
        seq: ProbeSeq,
        now: Time,
    ) -> Result<(), Broken> {
        let mut out = BytesMut::new();
        if let Some(password) = &login.password {
            let password = password.expose_secret();
            match &login.user {
                Some(user) => encode_command(&mut out, &["AUTH", user, password]),
                None => encode_command(&mut out, &["AUTH", password]),
            }
            self.expected.push_back(Expect::Login);
        }
        self.write_question(&mut out, seq, now);
        self.write(&out).await
    }

    /// Asks how it is.
    pub(super) async fn ask(&mut self, seq: ProbeSeq, now: Time) -> Result<(), Broken> {
        if self.expected.len() >= EXPECTED_MAX {
            // It owes so many answers that one more question tells nothing.
            return Ok(());
        }
        if self.asks_no_more_than_usual(now) {
            self.expected.push_back(Expect::Ping);
            self.expected.push_back(Expect::Replication { seq, asked_at: now });
            return self.write(QUESTION).await;
        }
        let mut out = BytesMut::with_capacity(128);
        self.write_question(&mut out, seq, now);
        self.write(&out).await
    }

    /// Whether nothing is due that is asked once, or now and then.
    fn asks_no_more_than_usual(&self, now: Time) -> bool {
        let fresh =
            |asked_at: Option<Time>, period| asked_at.is_some_and(|at| now.since(at) < period);
        self.words.is_some_and(|words| !words.scattered)
            && fresh(self.keys_asked_at, KEYS_INTERVAL)
            && fresh(self.min_replicas_at, MIN_REPLICAS_PERIOD)
    }

    fn write_question(&mut self, out: &mut BytesMut, seq: ProbeSeq, asked_at: Time) {
        let words = self.words;
        if words.is_none_or(|words| words.scattered) {
            encode_command(out, &["INFO", "server"]);
            self.expected.push_back(Expect::Server);
        }
        if words.is_none() {
            // Its name differs between versions. Where it may not be read, the policy has the servers' default.
            encode_command(out, &["CONFIG", "GET", "repl-ping-*-period"]);
            self.expected.push_back(Expect::PingPeriod);
        }
        if self.keys_asked_at.is_none_or(|at| asked_at.since(at) >= KEYS_INTERVAL) {
            self.keys_asked_at = Some(asked_at);
            encode_command(out, &["INFO", "keyspace"]);
            self.expected.push_back(Expect::Keys);
        }
        if self.min_replicas_at.is_none_or(|at| asked_at.since(at) >= MIN_REPLICAS_PERIOD) {
            self.min_replicas_at = Some(asked_at);
            encode_command(out, &["CONFIG", "GET", MIN_REPLICAS_NAMES]);
            self.expected.push_back(Expect::MinReplicas);
        }
        out.extend_from_slice(QUESTION);
        self.expected.push_back(Expect::Ping);
        self.expected.push_back(Expect::Replication { seq, asked_at });
        if words.is_some_and(|words| words.scattered) {
            encode_command(out, &["ROLE"]);
            self.expected.push_back(Expect::Role);
        }
    }

    /// Says whose connection it is, where the server has such a command: that is known when it has said what it is.
    pub(super) async fn introduce(&mut self) -> Result<(), Broken> {
        if !self.words.is_some_and(|words| words.client_name) {
            return Ok(());
        }
        let mut out = BytesMut::new();
        encode_command(&mut out, &["CLIENT", "SETNAME", CLIENT_NAME]);
        self.expected.push_back(Expect::Name);
        self.write(&out).await
    }

    /// Writes commands, each of which is answered as [`Taken::Command`].
    pub(super) async fn command(&mut self, commands: &[Vec<Bytes>]) -> Result<(), Broken> {
        let mut out = BytesMut::new();
        for command in commands {
            encode_command(&mut out, command);
            self.expected.push_back(Expect::Command);
        }
        self.write(&out).await
    }

    /// Has the server write its new role into its configuration file; a refusal is only logged.
    pub(super) async fn rewrite(&mut self) -> Result<(), Broken> {
        let mut out = BytesMut::new();
        encode_command(&mut out, &["CONFIG", "REWRITE"]);
        self.expected.push_back(Expect::Rewrite);
        self.write(&out).await
    }

    async fn write(&mut self, out: &[u8]) -> Result<(), Broken> {
        // Nearly always the socket takes everything at once, and nothing has to be waited for with a timer.
        let taken = match self.stream.try_write(out) {
            Ok(taken) => taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Err(Broken::Ended),
        };
        let Some(rest) = out.get(taken..).filter(|rest| !rest.is_empty()) else { return Ok(()) };
        match tokio::time::timeout(WRITE_TIMEOUT, self.stream.write_all(rest)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Broken::Ended),
        }
    }

    /// The next reply. Nothing is lost when the future is dropped.
    pub(super) async fn receive(&mut self) -> Result<Frame, Broken> {
        loop {
            if let Some(reply) = self.received() {
                return reply;
            }
            // The buffer is made when there is something to read.
            if self.stream.readable().await.is_err() {
                return Err(Broken::Ended);
            }
            self.input.reserve(READ_BYTES);
            // Unlike `try_read_buf` this knows that a short read emptied the socket, and saves asking once more.
            match self.stream.read_buf(&mut self.input).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(Broken::Ended),
            }
        }
    }

    /// The next reply, if it was read already. Those to one question nearly always come together.
    pub(super) fn received(&mut self) -> Option<Result<Frame, Broken>> {
        match self.decoder.decode(&mut self.input, &Limits::DEFAULT) {
            Ok(Some(frame)) => {
                if self.input.is_empty() {
                    // Thousands of idle connections should not keep their buffers.
                    self.input = BytesMut::new();
                }
                Some(Ok(frame))
            }
            Ok(None) => None,
            Err(error) => Some(Err(Broken::Garbage(error.to_string()))),
        }
    }

    /// Finds out what a reply answers.
    pub(super) fn take(&mut self, frame: Frame, now: Time) -> Result<Taken, Broken> {
        let Some(expect) = self.expected.pop_front() else {
            // A server that refuses a client says why before it is asked anything.
            return Err(Broken::Garbage(match frame.refusal() {
                Some(refusal) => refusal.to_string(),
                None => "it says something that was not asked".to_owned(),
            }));
        };
        if let (Expect::Login | Expect::Server, Frame::Error(text)) = (&expect, &frame) {
            let error = ServerError::new(text);
            // These come before the server reads anything, so they answer no question.
            if error.kind() == ErrorKind::TooManyClients || error.sentence().starts_with("DENIED") {
                let health = self.health_of_error(&error).map_err(Broken::Garbage)?;
                return Err(Broken::TurnedAway(health));
            }
        }
        match expect {
            Expect::Login => {
                if let Frame::Error(text) = &frame {
                    self.login_error = Some(ServerError::new(text).sentence().to_owned());
                }
                Ok(Taken::Nothing)
            }
            Expect::Name => Ok(Taken::Nothing),
            Expect::Server => {
                if let Some(text) = frame.text() {
                    self.note_server(text)?;
                }
                Ok(Taken::Nothing)
            }
            Expect::PingPeriod => {
                if let Frame::Array(pair) = &frame {
                    let secs = pair.get(1).and_then(Frame::text);
                    self.ping_period_secs =
                        secs.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
                }
                Ok(Taken::Nothing)
            }
            Expect::Keys => {
                self.keys = frame.text().and_then(info::keys);
                Ok(Taken::Nothing)
            }
            Expect::MinReplicas => {
                self.min_replicas = None;
                if let Frame::Array(pairs) = &frame {
                    self.min_replicas = min_replicas(pairs);
                }
                Ok(Taken::Nothing)
            }
            Expect::Ping => {
                self.health = Some(self.health_of(&frame));
                Ok(Taken::Nothing)
            }
            Expect::Replication { seq, asked_at } => {
                let probed = self.probed(&frame, asked_at)?;
                self.last_reply = Some(now);
                if matches!(self.expected.front(), Some(Expect::Role)) {
                    self.waiting = Some((seq, probed));
                    return Ok(Taken::Nothing);
                }
                Ok(Taken::Probe(seq, probed))
            }
            Expect::Role => {
                let Some((seq, mut probed)) = self.waiting.take() else {
                    return Ok(Taken::Nothing);
                };
                if let Probed::Replied { facts: Some(facts), .. } = &mut probed {
                    info::settle(facts, &frame);
                }
                Ok(Taken::Probe(seq, probed))
            }
            Expect::Command => {
                self.last_reply = Some(now);
                Ok(Taken::Command(frame))
            }
            Expect::Rewrite => {
                if let Frame::Error(text) = &frame {
                    let sentence = ServerError::new(text);
                    tracing::warn!(
                        addr = %self.socket,
                        "CONFIG REWRITE failed, {sentence}: after a restart the server will not remember its new role"
                    );
                }
                Ok(Taken::Nothing)
            }
        }
    }

    /// Takes what a server says of itself.
    pub(super) fn note_server(&mut self, text: &[u8]) -> Result<(), Broken> {
        let server = ServerInfo::parse(text).map_err(|error| Broken::Garbage(error.to_string()))?;
        self.words = Some(server.words());
        self.server = Some(server);
        Ok(())
    }

    /// What this program just set; it need not be asked for.
    pub(super) fn note_min_replicas(&mut self, set: Option<MinReplicas>) {
        self.min_replicas = set;
        if set.is_none() {
            self.min_replicas_at = None;
        }
    }

    /// Adds what is not in the answer to `INFO replication` that they were read from.
    pub(super) fn complete(&mut self, facts: &mut Facts, dependence: Dependence) {
        facts.ping_period_secs = self.ping_period_secs;
        if self.min_replicas.is_some_and(|set| set.is_on() != dependence.is_on) {
            // Somebody else changed it.
            self.min_replicas_at = None;
        }
        facts.fence = self.min_replicas.map(|set| Fence { set, online: dependence.online });
    }

    fn health_of(&self, frame: &Frame) -> Result<Health, String> {
        if let Some(refusal) = frame.refusal() {
            return self.health_of_error(&refusal);
        }
        if frame.text().is_some_and(|text| text.eq_ignore_ascii_case(b"PONG")) {
            return Ok(Health::Fine);
        }
        Err("it answers PING with something that no server answers".to_owned())
    }

    fn health_of_error(&self, error: &ServerError) -> Result<Health, String> {
        let sentence = || error.to_string();
        match error.kind() {
            ErrorKind::Loading => Ok(Health::Loading),
            ErrorKind::MasterDown => Ok(Health::Fine),
            ErrorKind::Misconf => Ok(Health::Misconfigured(sentence())),
            ErrorKind::Busy | ErrorKind::TooManyClients => Ok(Health::Busy(sentence())),
            ErrorKind::Auth => Ok(Health::Auth(match &self.login_error {
                Some(login) => format!("the login failed: {login}"),
                None => sentence(),
            })),
            ErrorKind::Other => Err(sentence()),
        }
    }

    fn probed(&mut self, frame: &Frame, asked_at: Time) -> Result<Probed, Broken> {
        let health = self
            .health
            .take()
            .unwrap_or_else(|| Err("it skipped an answer".to_owned()))
            .map_err(Broken::Garbage)?;
        let socket = Some(self.addr.clone());
        if let Frame::Error(text) = frame {
            // A server that is busy or does not let us in says so here as well; one that only hides its facts is as
            // good as one that does not let us in.
            let health = match (health, self.health_of_error(&ServerError::new(text))) {
                (Health::Fine, Ok(health)) => health,
                (Health::Fine, Err(sentence)) => Health::Auth(sentence),
                (health, _) => health,
            };
            return Ok(Probed::Replied { health, facts: None, socket });
        }
        let facts = match (&self.server, frame.text()) {
            (Some(server), Some(text)) => {
                let (mut facts, dependence) = info::replication(text, server, asked_at)
                    .map_err(|error| Broken::Garbage(error.to_string()))?;
                self.complete(&mut facts, dependence);
                facts.keys = self.keys.take();
                Some(Box::new(facts))
            }
            (None, Some(_)) => None,
            (_, None) => return Err(Broken::Garbage("it answers INFO without a text".to_owned())),
        };
        Ok(Probed::Replied { health, facts, socket })
    }
}
