//! Real connections, with limits short enough to be waited for. Bounds are generous, the machine may be busy.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::http::{Limits, serve};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(30);

struct Server {
    addr: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// All limits are long, except those that a test shortens.
async fn start(rig: &Rig, limits: impl FnOnce(&mut Limits)) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let mut context = rig.context.clone();
    context.limits = Limits {
        connections_max: 64,
        head_timeout: LONG,
        body_timeout: LONG,
        write_timeout: LONG,
        answer_timeout: LONG,
        stop_timeout: LONG,
    };
    limits(&mut context.limits);
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(serve(listener, context, async {
        let _ = stopped.await;
    }));
    Server { addr, stop, task }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.expect("a connection")
    }

    async fn stop(self) {
        self.stop.send(()).expect("it runs");
        timeout(LONG, self.task).await.expect("it stops").expect("no panic");
    }
}

async fn write(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("written");
}

/// Everything until the server closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    timeout(LONG, stream.read_to_string(&mut text)).await.expect("it is closed").expect("read");
    text
}

/// Until what was read ends like this.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let byte = timeout(LONG, stream.read_u8()).await.expect("in time").expect("more");
        text.push(byte);
    }
    String::from_utf8(text).expect("UTF-8")
}

const GET_MASTER: &str = "GET /master HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn a_connection_carries_many_requests() {
    let rig = Rig::new(Loop::Commits, &[("cache", "127.0.0.1:1")]);
    let server = start(&rig, |_| {}).await;
    let mut stream = server.connect().await;
    let post = "POST /master HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 19\r\n\r\nmasters=127.0.0.1:2";
    write(&mut stream, &format!("{post}{GET_MASTER}")).await;
    let text = until(&mut stream, "127.0.0.1:1").await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\n127.0.0.1:2,127.0.0.1:1"), "{text}");
    write(&mut stream, GET_MASTER).await;
    until(&mut stream, "127.0.0.1:2,127.0.0.1:1").await;
    server.stop().await;
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn a_head_that_never_ends_is_not_waited_for() {
    let rig = Rig::new(Loop::Commits, &[("cache", "127.0.0.1:1")]);
    let server = start(&rig, |limits| limits.head_timeout = SHORT).await;
    let mut silent = server.connect().await;
    let mut slow = server.connect().await;
    write(&mut slow, "GET /master HTTP/1.1\r\nHost:").await;
    let mut idle = server.connect().await;
    write(&mut idle, GET_MASTER).await;
    until(&mut idle, "127.0.0.1:1").await;
    for stream in [&mut silent, &mut slow, &mut idle] {
        let text = rest(stream).await;
        assert!(!text.contains("200 OK"), "{text}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let rig = Rig::new(Loop::Commits, &[]);
    let server = start(&rig, |_| {}).await;
    let mut stream = server.connect().await;
    write(&mut stream, &format!("GET /?{}", "x".repeat(100_000))).await;
    let text = until(&mut stream, "\r\n").await;
    assert!(text.starts_with("HTTP/1.1 4"), "{text}");
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for() {
    let rig = Rig::new(Loop::Commits, &[]);
    let server = start(&rig, |limits| limits.body_timeout = SHORT).await;
    let mut stream = server.connect().await;
    write(&mut stream, "POST /master HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nmas").await;
    let text = rest(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");
    assert!(text.contains("did not arrive within 300 ms"), "{text}");
    assert!(rig.asked().is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_sends_too_much_reads_why() {
    let rig = Rig::new(Loop::Commits, &[]);
    let server = start(&rig, |_| {}).await;
    for length in [65_537, 1_000_000] {
        let mut stream = server.connect().await;
        let head = format!(
            "POST /master HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        write(&mut stream, &head).await;
        write(&mut stream, &"x".repeat(length)).await;
        let text = rest(&mut stream).await;
        assert!(text.starts_with("HTTP/1.1 413"), "{text}");
        assert!(text.contains("\"code\":\"too_large\""), "{text}");
    }
    // Such a body is refused before it is sent, when the client asks first.
    let mut stream = server.connect().await;
    let head = "POST /master HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9000000\r\n\r\n";
    write(&mut stream, head).await;
    assert!(until(&mut stream, "\r\n").await.starts_with("HTTP/1.1 413"));
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_loses_its_place() {
    let rig = Rig::new(Loop::Commits, &[]);
    // Larger than all buffers between the two.
    let mut large = group("cache", "127.0.0.1:1");
    large.diagnosis.reason = "x".repeat(32 * 1024 * 1024);
    rig.shown.publish([(large.name.clone(), Some(large))]);
    let server = start(&rig, |limits| {
        (limits.connections_max, limits.write_timeout) = (1, SHORT);
    })
    .await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut deaf = socket.connect(server.addr).await.expect("a connection");
    write(&mut deaf, "GET /v1/groups HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut next = server.connect().await;
    write(&mut next, GET_MASTER).await;
    until(&mut next, "127.0.0.1:1").await;
    server.stop().await;
}

#[tokio::test]
async fn more_connections_wait_for_a_place() {
    let rig = Rig::new(Loop::Commits, &[("cache", "127.0.0.1:1")]);
    let server = start(&rig, |limits| limits.connections_max = 2).await;
    let mut held = [server.connect().await, server.connect().await];
    for stream in &mut held {
        write(stream, GET_MASTER).await;
        until(stream, "127.0.0.1:1").await;
    }
    let mut waiting = server.connect().await;
    write(&mut waiting, GET_MASTER).await;
    assert!(timeout(SHORT, waiting.read_u8()).await.is_err(), "there is no place for it");
    let [gone, _kept] = held;
    drop(gone);
    until(&mut waiting, "127.0.0.1:1").await;
    server.stop().await;
}

#[tokio::test]
async fn stopping_lets_requests_end_and_cuts_what_hangs() {
    let rig = Rig::new(Loop::Hangs, &[("cache", "127.0.0.1:1")]);
    let server = start(&rig, |limits| {
        (limits.answer_timeout, limits.stop_timeout) = (SHORT, LONG);
    })
    .await;
    let addr = server.addr;
    let mut idle = server.connect().await;
    write(&mut idle, GET_MASTER).await;
    until(&mut idle, "127.0.0.1:1").await;
    let mut busy = server.connect().await;
    write(&mut busy, "POST /master?masters=127.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    while rig.asked().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    server.stop().await;
    assert!(rest(&mut busy).await.starts_with("HTTP/1.1 504"));
    assert_eq!(rest(&mut idle).await, "");
    assert!(TcpStream::connect(addr).await.is_err(), "nobody listens");

    let server = start(&rig, |limits| limits.stop_timeout = SHORT).await;
    let mut busy = server.connect().await;
    write(&mut busy, "POST /master?masters=127.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    while rig.asked().len() < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    timeout(LONG, server.stop()).await.expect("what hangs is cut");
    assert_eq!(rest(&mut busy).await, "");
}
