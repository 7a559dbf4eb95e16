//! Host names to addresses, without ever holding up anything but the one connection that needs it.
//!
//! Each name is asked once at a time, off the loop, and its last answer is kept: a name server that is slow or gone
//! delays nobody who was reached before.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use failover_core::addr::Addr;
use tokio::sync::Semaphore;

/// A name server that takes longer is treated as gone; the last answer is used.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Most names that are being resolved at once.
const RESOLVING_MAX: usize = 64;
/// Most addresses of one name that are tried: `localhost` has two, and a name with many is a balancer, not a server.
const SOCKETS_MAX: usize = 4;

/// Resolves and remembers.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    known: Arc<Mutex<BTreeMap<Addr, Known>>>,
    permits: Arc<Semaphore>,
}

#[derive(Clone, Debug)]
struct Known {
    /// In the order in which they are to be tried.
    sockets: Vec<SocketAddr>,
    /// A connection to them failed: ask again before they are used, but fall back on them.
    doubted: bool,
}

impl Resolver {
    pub(crate) fn new() -> Self {
        Self { known: Arc::default(), permits: Arc::new(Semaphore::new(RESOLVING_MAX)) }
    }

    /// The socket addresses of an instance, at least one, in the order in which they are to be tried.
    pub(crate) async fn resolve(&self, addr: &Addr) -> Result<Vec<SocketAddr>, String> {
        let known = self.lock().get(addr).cloned();
        if let Some(Known { sockets, doubted: false }) = known {
            return Ok(sockets);
        }
        match (self.look_up(addr).await, known) {
            (Ok(sockets), _) => {
                let known = Known { sockets: sockets.clone(), doubted: false };
                self.lock().insert(addr.clone(), known);
                Ok(sockets)
            }
            (Err(_), Some(known)) => Ok(known.sockets),
            (Err(why), None) => Err(why),
        }
    }

    /// A connection to this one was accepted: it is the first to be tried.
    pub(crate) fn prefer(&self, addr: &Addr, socket: SocketAddr) {
        if let Some(known) = self.lock().get_mut(addr)
            && let Some(at) = known.sockets.iter().position(|known| *known == socket)
        {
            known.sockets[..=at].rotate_right(1);
        }
    }

    /// No connection to the last answer was accepted.
    pub(crate) fn forget(&self, addr: &Addr) {
        if let Some(known) = self.lock().get_mut(addr) {
            known.doubted = true;
        }
    }

    async fn look_up(&self, addr: &Addr) -> Result<Vec<SocketAddr>, String> {
        let name = addr.host().to_owned();
        let permits = Arc::clone(&self.permits);
        let target = (name.clone(), addr.port());
        // The question is asked in a task of its own, which keeps the permit until the name server has answered:
        // a time-out must not let more questions pile up behind those that hang.
        let asked = tokio::spawn(async move {
            let _permit = permits.acquire_owned().await;
            let sockets = tokio::net::lookup_host(target).await?;
            Ok::<Vec<_>, std::io::Error>(sockets.take(SOCKETS_MAX).collect())
        });
        match tokio::time::timeout(RESOLVE_TIMEOUT, asked).await {
            Ok(Ok(Ok(sockets))) if sockets.is_empty() => {
                Err(format!("the name {name} has no address"))
            }
            Ok(Ok(Ok(sockets))) => Ok(sockets),
            Ok(Ok(Err(error))) => Err(format!("the name {name} cannot be resolved: {error}")),
            Ok(Err(_)) => Err(format!("the name {name} was not resolved: the program is stopping")),
            Err(_) => Err(format!(
                "the name {name} was not resolved within {} ms",
                RESOLVE_TIMEOUT.as_millis()
            )),
        }
    }

    /// As if the name server had said so.
    #[cfg(test)]
    pub(crate) fn pretend(&self, addr: &Addr, socket: SocketAddr) {
        let known = Known { sockets: vec![socket], doubted: false };
        self.lock().insert(addr.clone(), known);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Addr, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
