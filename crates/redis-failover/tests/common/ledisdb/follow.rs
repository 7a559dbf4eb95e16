//! How a server follows another: one loop that asks for the log, and does not look whether it has the same beginning.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::{App, lock};

/// How long a slave waits after its master could not be reached.
const RETRY: Duration = Duration::from_secs(3);
/// A refused `SYNC` is repeated without a pause. This one spares the machine that runs the tests.
const MERCY: Duration = Duration::from_millis(1);
const STATES: [&str; 3] = ["connect", "sync", "connected"];
const CONNECT: u8 = 0;
const SYNC: u8 = 1;
const CONNECTED: u8 = 2;

/// Whom a server follows, and the loop that does it.
#[derive(Debug)]
pub(super) struct Following {
    pub(super) master: String,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: AtomicU8,
    is_over: AtomicBool,
    stream: Mutex<Option<TcpStream>>,
}

impl Following {
    pub(super) fn state(&self) -> &'static str {
        STATES[usize::from(self.shared.state.load(Ordering::SeqCst))]
    }
}

impl App {
    /// Follows a master from now on, with what it has, or with a full copy now and at every time it finds its master again.
    pub(super) fn follow(&'static self, master: &str, restart: bool) {
        let mut following = lock(&self.following);
        self.leave(following.take());
        let shared = Arc::new(Shared::default());
        {
            let _no_write = lock(&self.store);
            self.readonly.store(true, Ordering::SeqCst);
        }
        *following = Some(Following { master: master.to_owned(), shared: Arc::clone(&shared) });
        let master = master.to_owned();
        std::thread::spawn(move || self.run(&master, restart, &shared));
    }

    /// Follows nobody from now on. It waits for the lock, whoever ordered it, and however long ago.
    pub(super) fn follow_nobody(&self, readonly: bool) {
        let mut following = lock(&self.following);
        self.leave(following.take());
        let _no_write = lock(&self.store);
        self.readonly.store(readonly, Ordering::SeqCst);
    }

    fn leave(&self, following: Option<Following>) {
        let Some(following) = following else { return };
        {
            // Nothing that is being taken over is taken over later.
            let _no_write = lock(&self.store);
            following.shared.is_over.store(true, Ordering::SeqCst);
        }
        if let Some(stream) = &*lock(&following.shared.stream) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn run(&'static self, master: &str, restart: bool, shared: &Shared) {
        let is_over = || shared.is_over.load(Ordering::SeqCst);
        while !is_over() {
            shared.state.store(CONNECT, Ordering::SeqCst);
            let connected = {
                let _held_until_it_answers = lock(&self.following);
                if is_over() {
                    return;
                }
                connect(master, shared)
            };
            let Ok(mut connection) = connected else {
                let until = now() + RETRY;
                while !is_over() && now() < until {
                    std::thread::sleep(Duration::from_millis(5));
                }
                continue;
            };
            if self.replicate(&mut connection, restart, shared).is_err() {
                shared.state.store(CONNECT, Ordering::SeqCst);
                std::thread::sleep(MERCY);
            }
        }
    }

    /// Returns when the connection is of no use any more.
    fn replicate(
        &self,
        connection: &mut Connection,
        restart: bool,
        shared: &Shared,
    ) -> io::Result<()> {
        shared.state.store(CONNECTED, Ordering::SeqCst);
        connection.ask(&["REPLCONF", "listening-port", self.settings.port()])?;
        if restart {
            self.copy(connection, shared)?;
        }
        loop {
            let next = lock(&self.store).position() + 1;
            let reply = match connection.ask(&["SYNC", &next.to_string()]) {
                Err(error) if error.to_string() == super::answer::LOG_IS_GONE => {
                    self.copy(connection, shared)?;
                    continue;
                }
                reply => reply?,
            };
            let mut store = lock(&self.store);
            if shared.is_over.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let (last, logs) = reply.split_at_checked(8).ok_or(io::ErrorKind::InvalidData)?;
            let last = u64::from_be_bytes(last.try_into().expect("eight bytes"));
            *lock(&self.master_last_log_id) = last;
            store.take_logs(logs);
            self.logged.notify_all();
        }
    }

    fn copy(&self, connection: &mut Connection, shared: &Shared) -> io::Result<()> {
        let over = || io::Error::from(io::ErrorKind::Interrupted);
        {
            let mut store = lock(&self.store);
            if shared.is_over.load(Ordering::SeqCst) {
                return Err(over());
            }
            shared.state.store(SYNC, Ordering::SeqCst);
            store.clear();
            *lock(&self.master_last_log_id) = 0;
        }
        let snapshot = connection.ask(&["FULLSYNC"])?;
        let mut store = lock(&self.store);
        if shared.is_over.load(Ordering::SeqCst) {
            return Err(over());
        }
        store.take_snapshot(&snapshot);
        shared.state.store(CONNECTED, Ordering::SeqCst);
        Ok(())
    }
}

/// Connects and waits for a first `PONG`, for as long as that takes.
fn connect(master: &str, shared: &Shared) -> io::Result<Connection> {
    let stream = TcpStream::connect(master)?;
    *lock(&shared.stream) = Some(stream.try_clone()?);
    let mut connection = Connection::new(stream);
    connection.ask(&["PING"])?;
    Ok(connection)
}

fn now() -> Instant {
    super::super::now()
}
