//! Node to node: one TCP port for Raft's messages, views and forwarded requests.
//!
//! Bytes in, bytes out: a call carries a body to another node and brings an answer back, and nothing here knows what is
//! in them. `link` is the calling side, one task for each node and [`Lane`]; `server` is the answering side;
//! `handshake` says who may talk; `wire` knows the bytes of it; `seal` is the cryptography; `stream` is the only place
//! that knows what a connection is made of, which is where TLS will go.
//!
//! A call that failed says whether it can have arrived, because only then may it be made again.

mod handshake;
mod link;
mod seal;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod warnings;
mod wire;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use failover_core::addr::Addr;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::resolve::Resolver;
use link::{Call, Dialer};

/// Largest frame after the handshake.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a frame has besides its body: a number, a status, a seal.
const FRAME_EXTRA_BYTES_MAX: usize = 8 + 1 + seal::SEAL_BYTES;
/// Largest body of a call or an answer.
pub(crate) const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - FRAME_EXTRA_BYTES_MAX;
/// Largest frame of the handshake, so that a stranger cannot make us keep much.
const HANDSHAKE_FRAME_BYTES_MAX: usize = 1024;
/// How long one address may take to accept a connection, and then to finish the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a connection may take to say who it is, on the answering side.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that takes no byte of what it is sent for so long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// Unacknowledged bytes older than this mean that the host is gone or cut off. Shorter than the pauses between the
/// system's later retransmissions, so that a healed network is used again at once, by a new connection.
const USER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection may be silent until the system asks whether the other side is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
/// The pause between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// A connection without a call for so long is closed by the calling side; the next call opens another.
const IDLE_CLOSE: Duration = Duration::from_secs(60);
/// The answering side waits longer for a caller that went silent, and then gives its place to another.
const SILENT_CLOSE: Duration = Duration::from_secs(120);
/// Most calls that wait to be written to one node in one lane.
const CALLS_WAITING_MAX: usize = 256;
/// Most calls on one connection that were written and not answered, counted on both sides.
const CALLS_IN_FLIGHT_MAX: usize = 256;
/// Most connections to this node that finished the handshake.
const CONNECTIONS_MAX: usize = 256;
/// Most connections to this node that did not finish it yet. One more throws the oldest out: a flood of strangers
/// empties the room for itself, and a node is through in a moment.
const STRANGERS_MAX: usize = 256;

/// Each lane has connections of its own, so that a long message in one never delays the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Raft's messages, where milliseconds decide over leadership.
    Raft,
    /// Views, hints and forwarded requests.
    Talk,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The other node surely did not get it: it may be sent again, also elsewhere.
    #[error("{0}")]
    NotSent(String),
    /// The other node may have got it, or may still get it.
    #[error("{0}")]
    Unknown(String),
}

/// What all nodes know and nobody else, if they share anything; it is set before anybody is called.
pub(crate) type Secret = Arc<OnceLock<Option<SecretString>>>;

/// The ways to the tasks that write.
type Links = BTreeMap<(Addr, Lane), mpsc::Sender<Call>>;

/// Calls other nodes. A clone shares the connections.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    dialer: Arc<Dialer>,
    links: Arc<Mutex<Links>>,
}

impl Peers {
    /// For a node that the others know as `me`. Nothing is connected before it is called.
    #[cfg(test)]
    pub(crate) fn new(
        me: Addr,
        secret: Option<SecretString>,
        resolver: Resolver,
        clock: Clock,
    ) -> Self {
        Self::sharing(me, Arc::new(secret.into()), resolver, clock)
    }

    /// The same when it is found out later what the nodes share.
    pub(crate) fn sharing(me: Addr, secret: Secret, resolver: Resolver, clock: Clock) -> Self {
        let dialer = Arc::new(Dialer::new(me, secret, resolver, clock));
        Self { dialer, links: Arc::default() }
    }

    /// Sends a body and waits at most `limit` for the answer. Never waits for room: when too many calls wait already,
    /// because the other node does not read, this one fails at once.
    pub(crate) async fn call(
        &self,
        to: &Addr,
        lane: Lane,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Vec<u8>, CallError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(CallError::NotSent(format!(
                "a message of {} bytes to the node {to} is longer than {BODY_BYTES_MAX} bytes",
                body.len()
            )));
        }
        let (reply, answer) = oneshot::channel();
        let taken = Arc::new(AtomicBool::new(false));
        self.queue(to, lane, Call { body, reply, taken: Arc::clone(&taken) })?;
        let why = match timeout(limit, answer).await {
            Ok(Ok(result)) => return result,
            Ok(Err(_)) => "the program is stopping".to_owned(),
            Err(_) => format!("it was not answered within {} ms", limit.as_millis()),
        };
        // Whoever is first decides: the link, which writes it then, or this, and it is never written.
        if taken.swap(true, Ordering::AcqRel) {
            Err(CallError::Unknown(format!("the node {to} may have got it, but {why}")))
        } else {
            Err(CallError::NotSent(format!("the node {to} was not reached: {why}")))
        }
    }

    /// Answers the calls of other nodes, who know this one as `me`, until shutdown, and then cuts their connections. The calls of one connection are
    /// answered at the same time, at most [`CALLS_IN_FLIGHT_MAX`] of them, and in any order.
    pub(crate) async fn serve<F, Fut>(
        listener: TcpListener,
        me: Addr,
        secret: Option<SecretString>,
        answer: F,
        shutdown: impl Future<Output = ()>,
    ) where
        F: Fn(Lane, Vec<u8>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Vec<u8>> + Send + 'static,
    {
        server::serve(listener, me, secret, answer, shutdown).await;
    }

    fn queue(&self, to: &Addr, lane: Lane, mut call: Call) -> Result<(), CallError> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (to.clone(), lane);
        if let Some(link) = links.get(&key) {
            call = match link.try_send(call) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(_)) => {
                    return Err(CallError::NotSent(format!(
                        "the node {to} was not sent this: {CALLS_WAITING_MAX} calls wait for it"
                    )));
                }
                Err(mpsc::error::TrySendError::Closed(call)) => call,
            };
        }
        links.retain(|_, link| !link.is_closed());
        let (link, calls) = mpsc::channel(CALLS_WAITING_MAX);
        // There is room: nothing is in it.
        let _ = link.try_send(call);
        tokio::spawn(link::run(Arc::clone(&self.dialer), to.clone(), lane, calls));
        links.insert(key, link);
        Ok(())
    }
}
