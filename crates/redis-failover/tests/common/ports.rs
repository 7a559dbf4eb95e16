//! Free ports on loopback that stay ours.
//!
//! A port that was only *found* free is a race: another test may take it before the server does,
//! and a killed server's port may be gone when it is started again. So each process takes a block
//! of ports for itself (a file lock, which the kernel gives back even after `kill -9`) below the
//! range from which the kernel picks the ports of outgoing connections.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};

const FIRST_PORT: u16 = 20_000;
const PORTS_PER_BLOCK: u16 = 48;
const BLOCKS: u16 = 250;

#[derive(Debug, Default)]
struct Ours {
    /// Held open: the lock is on the open file.
    blocks: Vec<(u16, File)>,
    taken: BTreeSet<u16>,
    /// Where the search goes on, so that a port just given back is not handed out at once.
    next: u16,
}

static OURS: Mutex<Ours> = Mutex::new(Ours { blocks: Vec::new(), taken: BTreeSet::new(), next: 0 });

/// A port that nobody else of this or another test process gets while this value lives.
#[derive(Debug)]
pub struct Port(u16);

impl Port {
    /// # Panics
    /// When no block of ports is left.
    pub fn take() -> Self {
        let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let size = u16::try_from(ours.blocks.len()).expect("at most BLOCKS") * PORTS_PER_BLOCK;
            for _ in 0..size {
                let at = ours.next % size;
                ours.next = (at + 1) % size;
                let block = ours.blocks[usize::from(at / PORTS_PER_BLOCK)].0;
                let port = FIRST_PORT + block * PORTS_PER_BLOCK + at % PORTS_PER_BLOCK;
                if !ours.taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
                    ours.taken.insert(port);
                    return Self(port);
                }
            }
            ours.next = size;
            let block =
                lock_one("ports", BLOCKS).expect("a block of ports is free on this machine");
            ours.blocks.push(block);
        }
    }

    /// One above 32767. The kernel picks from those for others, so that it may be lost.
    pub fn take_high() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        Self(listener.local_addr().expect("it is bound").port())
    }

    pub fn number(&self) -> u16 {
        self.0
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        OURS.lock().unwrap_or_else(PoisonError::into_inner).taken.remove(&self.0);
    }
}

/// Locks the first number below `count` that no process has, this one included: a lock belongs to
/// the open file, and the kernel gives it back even after `kill -9`.
pub fn lock_one(what: &str, count: u16) -> Option<(u16, File)> {
    let user = rustix::process::getuid().as_raw();
    let dir = std::env::temp_dir().join(format!("redis-failover-test-{what}-{user}"));
    std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
    (0..count).find_map(|number| {
        let file = File::create(dir.join(number.to_string())).expect("the directory is ours");
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok().map(|()| (number, file))
    })
}
