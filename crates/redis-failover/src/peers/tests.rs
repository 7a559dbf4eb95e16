//! On real sockets of this machine.

mod attacks;
mod calls;
mod failures;
mod secrets;

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};

use super::handshake::Seals;
use super::stream::Wire;
use super::*;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

/// A node that answers, and stops when it is dropped.
struct Node {
    addr: Addr,
    /// The calls that it was asked to answer.
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    task: JoinHandle<()>,
}

impl Node {
    async fn start(secret: Option<&str>) -> Self {
        Self::start_at("127.0.0.1:0", secret).await
    }

    async fn start_at(addr: &str, secret: Option<&str>) -> Self {
        let listener = TcpListener::bind(addr).await.expect("the port is free");
        let addr = Addr::from(listener.local_addr().expect("it is bound"));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&heard);
        let answer = move |lane, body: Vec<u8>| {
            all.lock().expect("no panic").push(body.clone());
            answer(lane, body)
        };
        let secret = secret.map(SecretString::from);
        let task = tokio::spawn(Peers::serve(
            listener,
            addr.clone(),
            secret,
            answer,
            std::future::pending(),
        ));
        Self { addr, heard, task }
    }

    fn socket(&self) -> SocketAddr {
        self.addr.socket().expect("an IP address")
    }

    /// How many calls it was asked to answer.
    fn heard(&self) -> usize {
        self.heard.lock().expect("no panic").len()
    }

    async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Echoes with the lane before it; `sleep MS` takes so long, `long` is more than fits.
async fn answer(lane: Lane, body: Vec<u8>) -> Vec<u8> {
    if body == b"long" {
        return vec![0; BODY_BYTES_MAX + 1];
    }
    let text = std::str::from_utf8(&body).unwrap_or_default();
    if let Some(ms) = text.strip_prefix("sleep ") {
        tokio::time::sleep(Duration::from_millis(ms.parse().expect("a number"))).await;
    }
    [format!("{lane:?}:").into_bytes(), body].concat()
}

fn peers(secret: Option<&str>) -> Peers {
    let me = "127.0.0.1:1".parse().expect("an address");
    Peers::new(me, secret.map(SecretString::from), Resolver::new(), Clock::start())
}

/// Calls with the name of the node, which leads to this address.
fn peers_by_way_of(to: &Addr, way: SocketAddr, secret: Option<&str>) -> Peers {
    let resolver = Resolver::new();
    resolver.pretend(to, way);
    let me = "127.0.0.1:1".parse().expect("an address");
    Peers::new(me, secret.map(SecretString::from), resolver, Clock::start())
}

async fn say(peers: &Peers, to: &Addr, text: &str) -> Result<String, CallError> {
    let answer = peers.call(to, Lane::Talk, text.into(), PATIENCE).await?;
    Ok(String::from_utf8(answer).expect("it is an echo"))
}

fn echo(text: &str) -> Result<String, CallError> {
    Ok(format!("Talk:{text}"))
}

#[track_caller]
fn not_sent<T: std::fmt::Debug>(result: Result<T, CallError>) -> String {
    match result {
        Err(CallError::NotSent(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn unknown<T: std::fmt::Debug>(result: Result<T, CallError>) -> String {
    match result {
        Err(CallError::Unknown(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// A connection that went through the handshake and is then used by hand.
async fn by_hand(node: &Node, secret: Option<&SecretString>) -> Result<(Wire, Seals), String> {
    let mut wire = stream::connect(node.socket()).await.expect("it listens");
    let me = "127.0.0.1:1".parse().expect("an address");
    match handshake::open(&mut wire, Lane::Talk, &me, &node.addr, secret).await {
        Ok(seals) => Ok((wire, seals)),
        Err(failed) => Err(failed.why),
    }
}

/// A node that does what the test says once its caller went through the handshake.
async fn accept_by_hand(listener: &TcpListener, secret: Option<&SecretString>) -> (Wire, Seals) {
    let (stream, _) = listener.accept().await.expect("somebody connects");
    let local = stream.local_addr().expect("it is connected");
    let mut wire = Wire::new(stream);
    let room = Arc::new(tokio::sync::Semaphore::new(1));
    let me = Addr::from(local);
    let here = handshake::Here { me: &me, local };
    let accepted = handshake::accept(&mut wire, here, secret, &room).await;
    (wire, accepted.expect("the caller is a node").seals)
}

async fn listener() -> (TcpListener, Addr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let addr = Addr::from(listener.local_addr().expect("it is bound"));
    (listener, addr)
}

/// Waits until the other side has closed it; what comes before is thrown away.
async fn closed(stream: &mut TcpStream) {
    use tokio::io::AsyncReadExt as _;
    let mut buffer = [0; 1024];
    let read = async { while matches!(stream.read(&mut buffer).await, Ok(1..)) {} };
    timeout(PATIENCE, read).await.expect("it is closed");
}
