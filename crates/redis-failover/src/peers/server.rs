//! The answering side: takes connections, finds out who they are, and answers their calls.
//!
//! Strangers have a small room of their own and little time in it, so that any number of them takes nothing from nodes.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use failover_core::addr::Addr;
use futures_util::{SinkExt as _, StreamExt as _};
use secrecy::SecretString;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::handshake::{self, Accepted, Here, Seals};
use super::seal::Seal;
use super::stream::{self, Wire};
use super::warnings::Warnings;
use super::wire::{self, Status};
use super::{
    BODY_BYTES_MAX, CALLS_IN_FLIGHT_MAX, CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, Lane, SILENT_CLOSE,
    STRANGERS_MAX,
};
use crate::clock::Clock;

/// The pause after the system has no room for one more connection: the condition ends only when others close theirs.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// What all connections share.
struct House {
    me: Addr,
    secret: Option<SecretString>,
    room: Arc<Semaphore>,
    strangers: Mutex<VecDeque<(u64, AbortHandle)>>,
    warnings: Warnings<IpAddr>,
}

pub(super) async fn serve<F, Fut>(
    listener: TcpListener,
    me: Addr,
    secret: Option<SecretString>,
    answer: F,
    shutdown: impl Future<Output = ()>,
) where
    F: Fn(Lane, Vec<u8>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Vec<u8>> + Send + 'static,
{
    let house = Arc::new(House {
        me,
        secret,
        room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        strangers: Mutex::default(),
        warnings: Warnings::new(Clock::start()),
    });
    // Dropped at the end, which cuts every connection.
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    for id in 0_u64.. {
        let (stream, from) = loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => break accepted,
                    // It went before it was taken.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        // Where the system has no room, the strangers' is given back to it.
                        house.throw_out(0);
                        tracing::debug!("no node can connect for a moment: {error}");
                        sleep(ACCEPT_RETRY).await;
                    }
                },
            }
        };
        // Kept until its handle is in the list, so that the task finds it there.
        let mut strangers = house.strangers();
        let task = attend(Arc::clone(&house), id, stream, from, answer.clone());
        strangers.push_back((id, connections.spawn(task)));
        drop(strangers);
        house.throw_out(STRANGERS_MAX);
    }
}

impl House {
    fn strangers(&self) -> MutexGuard<'_, VecDeque<(u64, AbortHandle)>> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest strangers go until so many are left.
    fn throw_out(&self, left_max: usize) {
        let mut strangers = self.strangers();
        while strangers.len() > left_max
            && let Some((_, oldest)) = strangers.pop_front()
        {
            oldest.abort();
        }
    }

    /// It is known who this is, or that it is nobody.
    fn is_no_stranger(&self, id: u64) {
        self.strangers().retain(|(stranger, _)| *stranger != id);
    }
}

/// One connection, from its first byte to its end. How it ends is the caller's affair, who knows it too.
async fn attend<F, Fut>(house: Arc<House>, id: u64, stream: TcpStream, from: SocketAddr, answer: F)
where
    F: Fn(Lane, Vec<u8>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Vec<u8>> + Send + 'static,
{
    let Ok(local) = stream.local_addr() else {
        return house.is_no_stranger(id);
    };
    let mut wire = Wire::new(stream);
    let here = Here { me: &house.me, local };
    let shaken = handshake::accept(&mut wire, here, house.secret.as_ref(), &house.room);
    let shaken = timeout(HANDSHAKE_TIMEOUT, shaken).await;
    house.is_no_stranger(id);
    match shaken {
        Ok(Ok(Accepted { lane, seals, place })) => {
            converse(lane, wire, seals, answer).await;
            drop(place);
        }
        Ok(Err(failed)) if failed.is_mistake => {
            let host = from.ip().to_canonical();
            let why = format!("a connection from {host} is refused: it {}", failed.why);
            house.warnings.warn(host, &why);
        }
        // It said nothing and went, as whatever looks whether a port is open does, or it was too slow.
        Ok(Err(_)) | Err(_) => {}
    }
}

type Answered = (u64, Status, Vec<u8>);

async fn converse<F, Fut>(lane: Lane, wire: Wire, seals: Seals, answer: F)
where
    F: Fn(Lane, Vec<u8>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Vec<u8>> + Send + 'static,
{
    let Wire { mut reader, mut writer } = wire;
    let Seals { mut outgoing, mut incoming } = seals;
    let (replies, mut answered) = mpsc::channel(CALLS_IN_FLIGHT_MAX);
    tokio::select! {
        () = read(lane, &mut reader, &mut incoming, &replies, answer) => {}
        () = write(&mut writer, &mut outgoing, &mut answered) => {}
    }
}

async fn read<F, Fut>(
    lane: Lane,
    reader: &mut stream::Reader,
    seal: &mut Seal,
    replies: &mpsc::Sender<Answered>,
    answer: F,
) where
    F: Fn(Lane, Vec<u8>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Vec<u8>> + Send + 'static,
{
    // Dropped with the connection: nobody would hear the answers.
    let mut working = JoinSet::new();
    loop {
        let mut frame = match timeout(SILENT_CLOSE, reader.next()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_)) | None) => return,
            Err(_) => {
                while working.try_join_next().is_some() {}
                if working.is_empty() {
                    return;
                }
                continue;
            }
        };
        if !seal.check(&mut frame) {
            return;
        }
        let Some((number, body)) = wire::take_call(frame) else {
            return;
        };
        while working.try_join_next().is_some() {}
        if working.len() >= CALLS_IN_FLIGHT_MAX {
            // Waits while a caller does not read; meanwhile nothing more is read from it.
            if replies.send((number, Status::Busy, Vec::new())).await.is_err() {
                return;
            }
            continue;
        }
        let (answer, replies) = (answer.clone(), replies.clone());
        working.spawn(async move {
            let body = answer(lane, body).await;
            let answered = if body.len() > BODY_BYTES_MAX {
                (number, Status::TooLong, Vec::new())
            } else {
                (number, Status::Answered, body)
            };
            // The connection may have ended meanwhile.
            let _ = replies.send(answered).await;
        });
    }
}

async fn write(
    writer: &mut stream::Writer,
    seal: &mut Seal,
    answered: &mut mpsc::Receiver<Answered>,
) {
    loop {
        let (number, status, body) = match answered.try_recv() {
            Ok(next) => next,
            Err(_) => {
                // Nothing more waits, so what was put together may go.
                if stream::flush(writer).await.is_err() {
                    return;
                }
                match answered.recv().await {
                    Some(next) => next,
                    None => return,
                }
            }
        };
        let mut frame = wire::answer(number, status, &body);
        seal.close(&mut frame);
        if writer.feed(frame.freeze()).await.is_err() {
            return;
        }
    }
}
