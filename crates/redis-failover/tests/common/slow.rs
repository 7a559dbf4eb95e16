//! What a monitor must not wait for: servers that accept and never answer, and a name server that takes its time.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::ports::{Port, lock_one};

/// How long the name server thinks about each question.
const NAME_DELAY: Duration = Duration::from_secs(5);
/// How often its thread looks whether it is still wanted, and whether an answer is due.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// More than a resolver of the C library can have open.
const QUESTIONS_MAX: usize = 10_000;
/// Name servers at the same time, each on an address of its own.
const NAME_SERVERS: u16 = 200;
const DNS_PORT: u16 = 53;

/// Servers that accept connections and never say a word.
#[derive(Debug)]
pub struct Mute {
    addrs: Vec<String>,
    _port: Port,
    ended: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Mute {
    /// Each has a loopback address of its own, all share one port.
    pub fn start(count: u16) -> Self {
        let port = Port::take();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let mut addrs = Vec::new();
        let mut listeners = Vec::new();
        for number in 0..count {
            let [high, low] = number.to_be_bytes();
            let addr = (Ipv4Addr::new(127, 9, high, low), port.number());
            let listener = TcpListener::bind(addr).expect("a loopback address of our own is free");
            listener.set_nonblocking(true).expect("a socket can be made non-blocking");
            addrs.push(format!("{}:{}", addr.0, addr.1));
            listeners.push(listener);
        }
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let acceptor = std::thread::spawn(move || {
            runtime.block_on(async move {
                for listener in listeners {
                    tokio::spawn(accept(listener));
                }
                while !end.load(Ordering::Relaxed) {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                }
            });
        });
        Self { addrs, _port: port, ended, acceptor: Some(acceptor) }
    }

    pub fn addrs(&self) -> &[String] {
        &self.addrs
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(acceptor) = self.acceptor.take() {
            // A second panic would hide the first.
            let _ = acceptor.join();
        }
    }
}

/// Accepts, reads, and says nothing, until the other side gives up.
async fn accept(listener: TcpListener) {
    use tokio::io::AsyncReadExt as _;
    let listener = tokio::net::TcpListener::from_std(listener).expect("the runtime takes it");
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut ignored = [0; 1024];
            while stream.read(&mut ignored).await.is_ok_and(|bytes| bytes > 0) {}
        });
    }
}

/// A name server that answers every question, after 5 s, and a file for `/etc/resolv.conf` that names it.
#[derive(Debug)]
pub struct SlowNames {
    file: tempfile::NamedTempFile,
    _lock: std::fs::File,
    ended: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl SlowNames {
    /// `None`, said loudly, where this user may not listen on the port of name servers, nor mount a file over another.
    ///
    /// # Panics
    /// In that case where `CI` is set, where nothing is left out.
    pub fn start() -> Option<Self> {
        super::node::can_mount()?;
        let (number, lock) = lock_one("names", NAME_SERVERS).expect("a name server is free here");
        let number = u8::try_from(number).expect("there are fewer");
        let ip = Ipv4Addr::new(127, 53, 0, number + 1);
        let socket = UdpSocket::bind((ip, DNS_PORT)).expect("root may listen on this port");
        socket.set_read_timeout(Some(LOOK_INTERVAL)).expect("a socket can wait");
        let mut file = tempfile::NamedTempFile::new().expect("the directory is writable");
        // Longer than the server takes, so that it is the server that is waited for.
        let text = format!("nameserver {ip}\noptions timeout:30 attempts:1\n");
        file.write_all(text.as_bytes()).expect("the file is ours");
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let server = std::thread::spawn(move || answer_slowly(&socket, &end));
        Some(Self { file, _lock: lock, ended, server: Some(server) })
    }

    pub fn file(&self) -> &Path {
        self.file.path()
    }
}

impl Drop for SlowNames {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

/// Says of every name that it does not exist.
fn answer_slowly(socket: &UdpSocket, ended: &AtomicBool) {
    const IS_ANSWER_AND_RECURSES: [u8; 2] = [0x81, 0x83];
    let mut open = std::collections::VecDeque::<(Instant, std::net::SocketAddr, Vec<u8>)>::new();
    let mut question = [0; 512];
    while !ended.load(Ordering::Relaxed) {
        if let Ok((bytes, from)) = socket.recv_from(&mut question)
            && bytes > 4
            && open.len() < QUESTIONS_MAX
        {
            let mut answer = question[..bytes].to_vec();
            answer[2..4].copy_from_slice(&IS_ANSWER_AND_RECURSES);
            open.push_back((super::now() + NAME_DELAY, from, answer));
        }
        while open.front().is_some_and(|(due, ..)| *due <= super::now()) {
            let Some((_, from, answer)) = open.pop_front() else { break };
            // Whoever asked may be gone.
            let _ = socket.send_to(&answer, from);
        }
    }
}
