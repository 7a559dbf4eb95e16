//! Bytes that no node sends, and nodes that go on meanwhile.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Stands between two nodes and does something to one frame of one direction, counted from the first one of the
/// connection; with a secret the first two are the handshake.
struct Between {
    socket: SocketAddr,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Alter,
    Repeat,
    LeaveOut,
    SwapWithNext,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum To {
    Answerer,
    Caller,
}

impl Between {
    async fn start(node: SocketAddr, to: To, nth: usize, deed: Deed) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let socket = listener.local_addr().expect("it is bound");
        let task = tokio::spawn(async move {
            loop {
                let (caller, _) = listener.accept().await.expect("a caller");
                let answerer = TcpStream::connect(node).await.expect("it listens");
                let (caller_in, caller_out) = caller.into_split();
                let (answerer_in, answerer_out) = answerer.into_split();
                let none = usize::MAX;
                let (up, down) = if to == To::Answerer { (nth, none) } else { (none, nth) };
                tokio::spawn(pass(caller_in, answerer_out, up, deed));
                tokio::spawn(pass(answerer_in, caller_out, down, deed));
            }
        });
        Self { socket, task }
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    nth: usize,
    deed: Deed,
) {
    let mut held = Vec::new();
    for count in 0.. {
        let mut head = [0; 4];
        if from.read_exact(&mut head).await.is_err() {
            return;
        }
        let mut frame = vec![0; u32::from_be_bytes(head) as usize];
        from.read_exact(&mut frame).await.expect("a whole frame");
        frame.splice(0..0, head);
        if count == nth {
            match deed {
                Deed::Alter => *frame.last_mut().expect("it is not empty") ^= 1,
                Deed::Repeat => frame = [&frame[..], &frame].concat(),
                Deed::LeaveOut => continue,
                Deed::SwapWithNext => {
                    held = frame;
                    continue;
                }
            }
        }
        frame.append(&mut held);
        if to.write_all(&frame).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn with_a_secret_no_frame_can_be_altered_repeated_left_out_or_moved() {
    const SECRET: &str = "s3cret";
    for deed in [Deed::Alter, Deed::Repeat, Deed::LeaveOut, Deed::SwapWithNext] {
        for to in [To::Answerer, To::Caller] {
            let node = Node::start(Some(SECRET)).await;
            // Hello and proof, or welcome and proof, then the first call or answer, then the one it is done to.
            let between = Between::start(node.socket(), to, 3, deed).await;
            let name = format!("node-b:{}", node.addr.port()).parse().expect("an address");
            let peers = peers_by_way_of(&name, between.socket, Some(SECRET));
            assert_eq!(say(&peers, &name, "first").await, echo("first"));
            let limit = Duration::from_millis(500);
            let (second, third) =
                tokio::join!(peers.call(&name, Lane::Talk, b"second".to_vec(), limit), async {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    peers.call(&name, Lane::Talk, b"third".to_vec(), limit).await
                });
            for (result, right) in [(&second, "Talk:second"), (&third, "Talk:third")] {
                match result {
                    Ok(answer) => assert_eq!(answer, right.as_bytes(), "{deed:?} {to:?}"),
                    Err(CallError::Unknown(_)) => {}
                    Err(CallError::NotSent(why)) => panic!("{deed:?} {to:?}: {why}"),
                }
            }
            if !matches!(deed, Deed::Repeat) {
                unknown(second);
            }
            // Each arrived once at most, as it was sent; the third perhaps over another connection.
            let mut heard = node.heard.lock().expect("no panic").clone();
            heard.sort();
            let before = heard.len();
            heard.dedup();
            assert_eq!(heard.len(), before, "{deed:?} {to:?}: {heard:?}");
            let sent = [&b"first"[..], b"second", b"third"];
            assert!(heard.iter().all(|body| sent.contains(&&body[..])), "{deed:?} {to:?}");
        }
    }
}

#[tokio::test]
async fn a_recorded_connection_cannot_be_played_again() {
    const SECRET: &str = "s3cret";
    let node = Node::start(Some(SECRET)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let way = listener.local_addr().expect("it is bound");
    let name = format!("node-b:{}", node.addr.port()).parse().expect("an address");
    let peers = peers_by_way_of(&name, way, Some(SECRET));
    let caller = tokio::spawn(async move { say(&peers, &name, "once").await });
    let (caller_stream, _) = listener.accept().await.expect("it connects");
    let answerer_stream = TcpStream::connect(node.socket()).await.expect("it listens");
    let (mut caller_in, mut caller_out) = caller_stream.into_split();
    let (mut answerer_in, mut answerer_out) = answerer_stream.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut answerer_in, &mut caller_out).await });
    let mut recorded = Vec::new();
    let mut buffer = [0; 4096];
    while node.heard() == 0 {
        let read = timeout(Duration::from_millis(50), caller_in.read(&mut buffer));
        if let Ok(Ok(length)) = read.await {
            recorded.extend_from_slice(&buffer[..length]);
            answerer_out.write_all(&buffer[..length]).await.expect("it reads");
        }
    }
    assert_eq!(caller.await.expect("it ends"), echo("once"));

    let mut again = TcpStream::connect(node.socket()).await.expect("it listens");
    again.write_all(&recorded).await.expect("it reads");
    closed(&mut again).await;
    assert_eq!(node.heard(), 1);
}

#[tokio::test]
async fn garbage_is_closed_and_disturbs_nobody() {
    let node = Node::start(None).await;
    let peers = peers(None);
    assert_eq!(say(&peers, &node.addr, "x").await, echo("x"));
    let zeros = [0; 4096];
    let long_frame = [&[0, 0, 3, 0][..], &[b'x'; 768]].concat();
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"*1\r\n$4\r\nPING\r\n",
        &[0xff; 64],
        &zeros,
        &long_frame,
        // A frame that is longer than a stranger's may be.
        &[0, 0, 4, 1],
        &[0, 0, 0, 0],
    ] {
        let mut stream = TcpStream::connect(node.socket()).await.expect("it listens");
        stream.write_all(garbage).await.expect("it reads");
        closed(&mut stream).await;
        assert_eq!(say(&peers, &node.addr, "y").await, echo("y"));
    }
}

#[tokio::test]
async fn an_oversized_frame_after_the_handshake_closes_that_connection_only() {
    for secret in [None, Some(secret("s3cret"))] {
        let node = Node::start(secret.as_ref().map(|_| "s3cret")).await;
        let peers = peers(secret.as_ref().map(|_| "s3cret"));
        assert_eq!(say(&peers, &node.addr, "x").await, echo("x"));
        let (mut wire, _) = by_hand(&node, secret.as_ref()).await.expect("it is open");
        let head = u32::try_from(FRAME_BYTES_MAX + 1).expect("it fits").to_be_bytes();
        wire.writer.get_mut().write_all(&head).await.expect("it reads");
        let end = timeout(PATIENCE, wire.reader.next()).await.expect("it is closed");
        assert!(end.is_none_or(|end| end.is_err()));
        assert_eq!(say(&peers, &node.addr, "y").await, echo("y"));
    }
}

#[tokio::test]
async fn frames_of_an_open_connection_that_are_no_calls_close_it() {
    let node = Node::start(None).await;
    let (mut wire, _) = by_hand(&node, None).await.expect("it is open");
    wire.writer.send(bytes::Bytes::from_static(b"short")).await.expect("it reads");
    let end = timeout(PATIENCE, wire.reader.next()).await.expect("it is closed");
    assert!(end.is_none_or(|end| end.is_err()));
    // With a secret, a frame that is too short to be sealed.
    let secret = secret("s3cret");
    let node = Node::start(Some("s3cret")).await;
    let (mut wire, _) = by_hand(&node, Some(&secret)).await.expect("it is open");
    wire.writer.send(wire::call(1, b"").freeze()).await.expect("it reads");
    let end = timeout(PATIENCE, wire.reader.next()).await.expect("it is closed");
    assert!(end.is_none_or(|end| end.is_err()));
    assert_eq!(node.heard(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_strangers_takes_nothing_from_nodes() {
    const STRANGERS: usize = 500;
    for secret in [None, Some("s3cret")] {
        let node = Node::start(secret).await;
        let socket = node.socket();
        let kept = peers(secret);
        assert_eq!(say(&kept, &node.addr, "x").await, echo("x"));
        let flood = tokio::spawn(async move {
            let mut silent = Vec::new();
            let mut count = 0_usize;
            loop {
                let Ok(mut stream) = TcpStream::connect(socket).await else {
                    continue;
                };
                if count.is_multiple_of(3) {
                    let _ = stream.write_all(b"\0\0\0\x40garbage").await;
                }
                if count.is_multiple_of(7) {
                    let _ = stream.write_all(&[0xff; 100]).await;
                }
                silent.push(stream);
                if silent.len() > STRANGERS {
                    silent.remove(0);
                }
                count += 1;
            }
        });
        let clock = Clock::start();
        let (mut slowest, mut slowest_new) = (Duration::ZERO, Duration::ZERO);
        for round in 0..100 {
            let started = clock.now();
            assert_eq!(say(&kept, &node.addr, "kept").await, echo("kept"), "{round}");
            slowest = slowest.max(clock.now().since(started));
            let started = clock.now();
            let new = peers(secret);
            // Where all processors are busy with the flood, one may be thrown out with the strangers: it says that
            // nothing was sent, and comes again.
            while let Err(error) = say(&new, &node.addr, "new").await {
                assert!(matches!(error, CallError::NotSent(_)), "{round}: {error:?}");
            }
            slowest_new = slowest_new.max(clock.now().since(started));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        flood.abort();
        println!("slowest call {slowest:?}, on a new connection {slowest_new:?}");
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
        assert!(slowest_new < Duration::from_secs(2), "{slowest_new:?}");
    }
}

#[tokio::test]
async fn silent_strangers_have_a_small_room_and_are_thrown_out_of_it() {
    let node = Node::start(None).await;
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(TcpStream::connect(node.socket()).await.expect("it listens"));
    }
    // The oldest went at once, the last ones go after a while.
    for stream in silent.iter_mut().take(500 - STRANGERS_MAX) {
        timeout(Duration::from_secs(1), closed(stream)).await.expect("at once");
    }
    let last = silent.last_mut().expect("there are some");
    let still = timeout(Duration::from_millis(200), last.read_u8()).await;
    assert!(still.is_err(), "it has time to say who it is: {still:?}");
    for stream in &mut silent {
        closed(stream).await;
    }
    assert_eq!(say(&peers(None), &node.addr, "x").await, echo("x"));
}

#[tokio::test]
async fn one_byte_at_a_time_is_too_slow() {
    let node = Node::start(None).await;
    let hello = wire::Hello {
        lane: Lane::Talk,
        has_secret: false,
        nonce: [0; wire::NONCE_BYTES],
        to: node.addr.to_string(),
        from: "127.0.0.1:1".to_owned(),
    }
    .encode();
    let length = u32::try_from(hello.len()).expect("it is short").to_be_bytes();
    let bytes = [&length[..], &hello].concat();
    let clock = Clock::start();
    let started = clock.now();
    let mut stream = TcpStream::connect(node.socket()).await.expect("it listens");
    let slow = async {
        for byte in &bytes {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let calling = async {
        let peers = peers(None);
        loop {
            assert_eq!(say(&peers, &node.addr, "x").await, echo("x"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = slow => {}
        () = calling => {}
    }
    let took = clock.now().since(started);
    assert!((HANDSHAKE_TIMEOUT..Duration::from_secs(8)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn more_nodes_than_there_is_room_for_are_told_so() {
    let node = Node::start(None).await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        open.push(by_hand(&node, None).await.expect("there is room"));
    }
    let why = not_sent(say(&peers(None), &node.addr, "x").await);
    assert!(why.contains("takes no more connections"), "{why}");
    drop(open.pop());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(say(&peers(None), &node.addr, "x").await, echo("x"));
}
