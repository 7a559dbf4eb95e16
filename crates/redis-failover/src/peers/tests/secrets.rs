//! Who may talk, and what is said when somebody may not.

use std::io;

use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// What is logged on this thread while it lives; a test of one thread has all of it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(log.clone())
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_ansi(false)
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("it is text")
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn two_nodes_talk_only_when_both_have_the_same_secret_or_none() {
    const OURS: &str = "correct-horse-battery";
    const OTHER: &str = "wrong-horse-battery";
    for (caller, answerer, told, logged) in [
        (
            None,
            Some(OURS),
            "has a cluster_secret, but this node has none",
            "has no cluster_secret, but this node has one",
        ),
        (
            Some(OURS),
            None,
            "has no cluster_secret, but this node has one",
            "has a cluster_secret, but this node has none",
        ),
        (
            Some(OTHER),
            Some(OURS),
            "has another cluster_secret than this node",
            "has another cluster_secret than this node",
        ),
    ] {
        let (log, _logging) = Log::start();
        let node = Node::start(answerer).await;
        let peers = peers(caller);
        for _ in 0..5 {
            let why = not_sent(say(&peers, &node.addr, "x").await);
            assert_eq!(why, format!("the node {} {told}", node.addr));
        }
        assert_eq!(node.heard(), 0);
        let warnings: Vec<_> =
            log.text().lines().filter(|line| line.contains("WARN")).map(str::to_owned).collect();
        assert_eq!(warnings.len(), 2, "each side once, however often it is tried: {warnings:?}");
        let by_caller = format!("the node {} {told}", node.addr);
        assert!(warnings.iter().any(|line| line.contains(&by_caller)), "{warnings:?}");
        let by_answerer = format!(
            "a connection from 127.0.0.1 is refused: it {logged} (it says that it is the node \
             127.0.0.1:1)"
        );
        assert!(warnings.iter().any(|line| line.contains(&by_answerer)), "{warnings:?}");
        let everything = format!("{}{peers:?}", log.text());
        assert!(!everything.contains("horse"), "{everything}");
    }
}

#[tokio::test]
async fn a_caller_trusts_no_node_that_only_says_it_has_the_secret() {
    let (listener, to) = listener().await;
    let caller = tokio::spawn(async move { say(&peers(Some("s3cret")), &to, "x").await });
    let (stream, _) = listener.accept().await.expect("it connects");
    let mut wire = Wire::new(stream);
    wire.reader.next().await.expect("a hello").expect("a frame");
    let welcome = wire::Reply::Welcome { has_secret: true, nonce: [0; wire::NONCE_BYTES] };
    wire.writer.send(welcome.encode().freeze()).await.expect("it reads");
    // What the caller proves with is of no use to prove anything to it.
    let proof = wire.reader.next().await.expect("a proof").expect("a frame");
    wire.writer.send(proof.freeze()).await.expect("it reads");
    let why = not_sent(caller.await.expect("it ends"));
    assert!(why.contains("another cluster_secret"), "{why}");
}

#[tokio::test]
async fn a_node_that_is_not_the_one_asked_for_does_not_answer() {
    let node = Node::start(None).await;
    let to: Addr = "127.0.0.2:12000".parse().expect("an address");
    let peers = peers_by_way_of(&to, node.socket(), None);
    let why = not_sent(say(&peers, &to, "x").await);
    assert!(why.contains("another node answers at that address"), "{why}");
    assert_eq!(node.heard(), 0);
}

#[tokio::test]
async fn another_version_is_named() {
    let (listener, to) = listener().await;
    let caller = tokio::spawn(async move { say(&peers(None), &to, "x").await });
    let (stream, _) = listener.accept().await.expect("it connects");
    let mut wire = Wire::new(stream);
    let mut hello = wire.reader.next().await.expect("a hello").expect("a frame");
    let mut refusal = wire::Reply::Refused(wire::Refusal::Version).encode();
    refusal[9] = 7;
    wire.writer.send(refusal.freeze()).await.expect("it reads");
    let why = not_sent(caller.await.expect("it ends"));
    assert!(why.contains("version 7 of the protocol between nodes, this node version 1"), "{why}");

    let node = Node::start(None).await;
    let mut wire = stream::connect(node.socket()).await.expect("it listens");
    hello[9] = 7;
    wire.writer.send(hello.freeze()).await.expect("it reads");
    let reply = wire.reader.next().await.expect("a reply").expect("a frame");
    let expected = wire::Reply::Refused(wire::Refusal::Version);
    assert_eq!(wire::Reply::decode(&reply), Ok(expected));
}

#[tokio::test]
async fn something_else_at_the_address_is_named() {
    use tokio::io::AsyncWriteExt as _;
    let (listener, to) = listener().await;
    let caller = tokio::spawn(async move { say(&peers(None), &to, "x").await });
    let (mut stream, _) = listener.accept().await.expect("it connects");
    stream.write_all(b"-ERR unknown command\r\n").await.expect("it reads");
    let why = not_sent(caller.await.expect("it ends"));
    assert!(why.contains("no node of redis-failover says"), "{why}");
}
