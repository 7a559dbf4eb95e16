//! A wire between a node and one server that can be cut: bytes stop on their way, and nobody is told.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::ports::Port;

/// How often a wire that is cut looks whether it is whole again.
const LOOK: Duration = Duration::from_millis(5);
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Clone, Debug, Default)]
struct State {
    is_cut: Arc<AtomicBool>,
    is_broken: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
}

impl State {
    /// Waits while the wire is cut. `false`: it is over.
    fn is_whole(&self) -> bool {
        while self.is_cut.load(Ordering::SeqCst) && !self.is_over.load(Ordering::SeqCst) {
            std::thread::sleep(LOOK);
        }
        !self.is_broken.load(Ordering::SeqCst) && !self.is_over.load(Ordering::SeqCst)
    }
}

/// A place to connect to that leads to a server.
#[derive(Debug)]
pub struct Wire {
    ip: String,
    port: Port,
    state: State,
}

impl Wire {
    pub fn to(server: &str) -> Self {
        Self::from("127.0.0.1", server)
    }

    /// From another address of this host: of a network, whose hosts reach the server by it.
    pub fn from(ip: &str, server: &str) -> Self {
        let port = Port::take();
        let listener =
            TcpListener::bind((ip, port.number())).expect("the port is ours to listen on");
        let state = State::default();
        let (server, of_threads) = (server.to_owned(), state.clone());
        std::thread::spawn(move || {
            for inner in listener.incoming() {
                if of_threads.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(inner) = inner else { continue };
                let (server, state) = (server.clone(), of_threads.clone());
                std::thread::spawn(move || carry(inner, &server, &state));
            }
        });
        Self { ip: ip.to_owned(), port, state }
    }

    pub fn addr(&self) -> String {
        format!("{}:{}", self.ip, self.port.number())
    }

    /// From now on nothing gets through, in either direction; connections stay open.
    pub fn cut(&self) {
        self.state.is_cut.store(true, Ordering::SeqCst);
    }

    /// Ends every connection, and any other one as soon as it is made.
    pub fn break_off(&self) {
        self.state.is_broken.store(true, Ordering::SeqCst);
    }

    pub fn mend(&self) {
        self.state.is_broken.store(false, Ordering::SeqCst);
        self.state.is_cut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that listens.
        let _ = TcpStream::connect(self.addr());
    }
}

fn carry(inner: TcpStream, server: &str, state: &State) {
    if !state.is_whole() {
        return;
    }
    let Ok(outer) = TcpStream::connect(server) else { return };
    let ways = [(&inner, &outer), (&outer, &inner)];
    std::thread::scope(|scope| {
        for (from, to) in ways {
            scope.spawn(move || one_way(from, to, state));
        }
    });
}

fn one_way(mut from: &TcpStream, mut to: &TcpStream, state: &State) {
    let _ = from.set_read_timeout(Some(Duration::from_millis(200)));
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                if !state.is_whole() || to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if !state.is_whole() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
}
