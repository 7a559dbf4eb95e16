//! The calling side: one task for each node and lane, which opens a connection when there is a call, and keeps it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use failover_core::addr::Addr;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::handshake::{self, Seals};
use super::seal::Seal;
use super::stream::{self, Wire};
use super::warnings::Warnings;
use super::wire::{self, Status};
use super::{CALLS_IN_FLIGHT_MAX, CONNECT_TIMEOUT, CallError, IDLE_CLOSE, Lane, Secret};
use crate::clock::Clock;
use crate::resolve::Resolver;

/// A call that waits to be written.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) body: Vec<u8>,
    pub(super) reply: Reply,
    /// Set by the link when it is about to write it, and by the caller when it gives up: the second one knows from it
    /// whether it was written.
    pub(super) taken: Arc<AtomicBool>,
}

type Reply = oneshot::Sender<Result<Vec<u8>, CallError>>;
type Calls = mpsc::Receiver<Call>;

impl Call {
    /// Whether it is to be written; its caller may have given up.
    fn take(&self) -> bool {
        !self.reply.is_closed() && !self.taken.swap(true, Ordering::AcqRel)
    }
}

/// What is needed to open a connection.
pub(super) struct Dialer {
    me: Addr,
    secret: Secret,
    resolver: Resolver,
    warnings: Warnings<Addr>,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Dialer {
    pub(super) fn new(me: Addr, secret: Secret, resolver: Resolver, clock: Clock) -> Self {
        Self { me, secret, resolver, warnings: Warnings::new(clock) }
    }

    /// Opens a connection, or says why there is none.
    async fn dial(&self, to: &Addr, lane: Lane) -> Result<(Wire, Seals), String> {
        let Some(secret) = self.secret.get() else {
            return Err("what the nodes share is not known here yet".to_owned());
        };
        let sockets = self.resolver.resolve(to).await?;
        let mut why = format!("the name {} has no address", to.host());
        let mut wire = None;
        for socket in sockets {
            match timeout(CONNECT_TIMEOUT, stream::connect(socket)).await {
                Ok(Ok(connected)) => {
                    self.resolver.prefer(to, socket);
                    wire = Some(connected);
                    break;
                }
                Ok(Err(error)) => {
                    why = format!("the node {to} cannot be connected to: {error}");
                }
                Err(_) => why = Self::timed_out(to, "accepted no connection"),
            }
        }
        let Some(mut wire) = wire else {
            self.resolver.forget(to);
            return Err(why);
        };
        let shaken = handshake::open(&mut wire, lane, &self.me, to, secret.as_ref());
        let why = match timeout(CONNECT_TIMEOUT, shaken).await {
            Ok(Ok(seals)) => return Ok((wire, seals)),
            Ok(Err(failed)) => {
                let why = format!("the node {to} {}", failed.why);
                if failed.is_mistake {
                    self.warnings.warn(to.clone(), &why);
                }
                why
            }
            Err(_) => Self::timed_out(to, "did not say who it is"),
        };
        // Its name may lead elsewhere by now.
        self.resolver.forget(to);
        Err(why)
    }

    fn timed_out(to: &Addr, what: &str) -> String {
        format!("the node {to} {what} within {} ms", CONNECT_TIMEOUT.as_millis())
    }
}

/// Runs until nobody can call any more, or nobody did for a while.
pub(super) async fn run(dialer: Arc<Dialer>, to: Addr, lane: Lane, mut calls: Calls) {
    loop {
        let first = match timeout(IDLE_CLOSE, calls.recv()).await {
            Ok(Some(call)) => call,
            Ok(None) => return,
            Err(_) => {
                // From here on a new call starts a new task; one that came at this very moment is still carried out.
                calls.close();
                continue;
            }
        };
        match dialer.dial(&to, lane).await {
            Ok((wire, seals)) => converse(&to, wire, seals, first, &mut calls).await,
            Err(why) => {
                refuse(first, &why);
                while let Ok(call) = calls.try_recv() {
                    refuse(call, &why);
                }
            }
        }
    }
}

fn refuse(call: Call, why: &str) {
    if call.take() {
        // Nobody may wait any more.
        let _ = call.reply.send(Err(CallError::NotSent(why.to_owned())));
    }
}

/// The calls that were written and not answered.
#[derive(Debug, Default)]
struct Pending {
    replies: BTreeMap<u64, Reply>,
    last: u64,
}

impl Pending {
    /// A number for a call, unless there are too many.
    fn add(&mut self, reply: Reply) -> Result<u64, Reply> {
        if self.replies.len() >= CALLS_IN_FLIGHT_MAX {
            self.replies.retain(|_, reply| !reply.is_closed());
        }
        if self.replies.len() >= CALLS_IN_FLIGHT_MAX {
            return Err(reply);
        }
        self.last += 1;
        self.replies.insert(self.last, reply);
        Ok(self.last)
    }
}

type Shared = Mutex<Pending>;

fn lock(pending: &Shared) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes calls and hands out answers until the connection ends. What was written and not answered is unknown then.
async fn converse(to: &Addr, wire: Wire, seals: Seals, first: Call, calls: &mut Calls) {
    let pending = Shared::default();
    let Wire { mut reader, mut writer } = wire;
    let Seals { mut outgoing, mut incoming } = seals;
    let why = tokio::select! {
        // First, so that a connection that ended meanwhile is not written to.
        biased;
        why = read(to, &mut reader, &mut incoming, &pending) => why,
        why = write(to, &mut writer, &mut outgoing, first, calls, &pending) => why,
    };
    let mut pending = lock(&pending);
    for (_, reply) in std::mem::take(&mut pending.replies) {
        let _ = reply.send(Err(CallError::Unknown(why.clone())));
    }
}

async fn read(to: &Addr, reader: &mut stream::Reader, seal: &mut Seal, pending: &Shared) -> String {
    loop {
        let mut frame = match reader.next().await {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return format!("the connection to the node {to} broke: {error}"),
            None => return format!("the node {to} closed the connection"),
        };
        if !seal.check(&mut frame) {
            return format!("what came from the node {to} was altered on its way");
        }
        let Some((number, status, body)) = wire::take_answer(frame) else {
            return format!("the node {to} answered something that is no answer");
        };
        // Its caller may have given up, and the number with it.
        let Some(reply) = lock(pending).replies.remove(&number) else {
            continue;
        };
        let _ = reply.send(match status {
            Status::Answered => Ok(body),
            Status::Busy => Err(CallError::NotSent(format!(
                "the node {to} threw it away: it has {CALLS_IN_FLIGHT_MAX} calls to answer"
            ))),
            Status::TooLong => Err(CallError::Unknown(format!(
                "the answer of the node {to} is longer than {} bytes",
                super::BODY_BYTES_MAX
            ))),
        });
    }
}

async fn write(
    to: &Addr,
    writer: &mut stream::Writer,
    seal: &mut Seal,
    first: Call,
    calls: &mut Calls,
    pending: &Shared,
) -> String {
    let mut next = Some(first);
    loop {
        let call = match next.take().map_or_else(|| calls.try_recv(), Ok) {
            Ok(call) => call,
            Err(_) => {
                // Nothing more waits, so what was put together may go.
                if let Err(error) = stream::flush(writer).await {
                    return format!("the connection to the node {to} broke: {error}");
                }
                match timeout(IDLE_CLOSE, calls.recv()).await {
                    Ok(Some(call)) => call,
                    Ok(None) => return "the program is stopping".to_owned(),
                    Err(_) if lock(pending).replies.is_empty() => {
                        return "nothing was said for a while".to_owned();
                    }
                    Err(_) => continue,
                }
            }
        };
        if !call.take() {
            continue;
        }
        let number = match lock(pending).add(call.reply) {
            Ok(number) => number,
            Err(reply) => {
                let _ = reply.send(Err(CallError::NotSent(format!(
                    "the node {to} was not sent this: it owes {CALLS_IN_FLIGHT_MAX} answers"
                ))));
                continue;
            }
        };
        let mut frame = wire::call(number, &call.body);
        seal.close(&mut frame);
        if let Err(error) = writer.feed(frame.freeze()).await {
            return format!("the connection to the node {to} broke: {error}");
        }
    }
}
