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

/// What a server calls itself on the other end, in place of another name of the same length.
type Disguise = Option<[&'static str; 2]>;

/// What happens to the bytes on their way.
#[derive(Clone, Copy, Debug, Default)]
struct Passage {
    disguise: Disguise,
    /// How long they take in each direction.
    takes: Duration,
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

    /// One on whose way a word of what the server says becomes another of the same length.
    pub fn disguising(server: &str, words: [&'static str; 2]) -> Self {
        assert_eq!(words[0].len(), words[1].len());
        let passage = Passage { disguise: Some(words), ..Passage::default() };
        Self::between("127.0.0.1", server, passage)
    }

    /// A long one.
    pub fn taking(takes: Duration, server: &str) -> Self {
        Self::between("127.0.0.1", server, Passage { takes, ..Passage::default() })
    }

    /// From another address of this host: of a network, whose hosts reach the server by it.
    pub fn from(ip: &str, server: &str) -> Self {
        Self::between(ip, server, Passage::default())
    }

    fn between(ip: &str, server: &str, passage: Passage) -> Self {
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
                std::thread::spawn(move || carry(inner, &server, &state, passage));
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

fn carry(inner: TcpStream, server: &str, state: &State, passage: Passage) {
    if !state.is_whole() {
        return;
    }
    let Ok(outer) = TcpStream::connect(server) else { return };
    let there = Passage { disguise: None, ..passage };
    let ways = [(&inner, &outer, there), (&outer, &inner, passage)];
    std::thread::scope(|scope| {
        for (from, to, passage) in ways {
            scope.spawn(move || one_way(from, to, state, passage));
        }
    });
}

fn one_way(mut from: &TcpStream, mut to: &TcpStream, state: &State, passage: Passage) {
    let _ = from.set_read_timeout(Some(Duration::from_millis(200)));
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                // What comes meanwhile goes on its way together.
                std::thread::sleep(passage.takes);
                if let Some([word, other]) = passage.disguise {
                    replace(&mut buffer[..count], word.as_bytes(), other.as_bytes());
                }
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

/// A word that comes in two pieces stays as it is; servers write an answer at once.
fn replace(bytes: &mut [u8], word: &[u8], other: &[u8]) {
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(word.len()).position(|window| window == word) {
        bytes[at + found..][..word.len()].copy_from_slice(other);
        at += found + word.len();
    }
}
