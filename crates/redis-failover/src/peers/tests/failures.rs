//! Calls that are not answered, and what is known of them.

use super::*;

#[tokio::test]
async fn refused_is_not_sent() {
    let (listener, to) = listener().await;
    drop(listener);
    let why = not_sent(say(&peers(None), &to, "x").await);
    assert!(why.contains(&to.to_string()) && why.contains("cannot be connected to"), "{why}");
}

#[tokio::test]
async fn a_name_that_leads_nowhere_is_not_sent() {
    let to = "node.invalid:12000".parse().expect("an address");
    let why = not_sent(say(&peers(None), &to, "x").await);
    assert!(why.contains("node.invalid"), "{why}");
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_unknown() {
    let node = Node::start(None).await;
    let peers = peers(None);
    assert_eq!(say(&peers, &node.addr, "x").await, echo("x"));
    let limit = Duration::from_millis(50);
    let call = peers.call(&node.addr, Lane::Talk, b"sleep 60000".to_vec(), limit);
    let why = unknown(call.await);
    assert!(why.contains("was not answered within 50 ms"), "{why}");
    assert_eq!(node.heard(), 2);
    assert_eq!(say(&peers, &node.addr, "y").await, echo("y"), "the connection is as good as ever");
}

#[tokio::test]
async fn what_was_given_up_before_it_was_written_is_never_written() {
    let (listener, to) = listener().await;
    let peers = peers(None);
    // It is connected, but does not say who it is yet.
    let limit = Duration::from_millis(30);
    let why = not_sent(peers.call(&to, Lane::Talk, b"early".to_vec(), limit).await);
    assert!(why.contains("was not reached"), "{why}");
    let caller = tokio::spawn(async move { say(&peers, &to, "late").await });
    tokio::time::sleep(Duration::from_millis(30)).await;
    let (mut wire, _) = accept_by_hand(&listener, None).await;
    let frame = wire.reader.next().await.expect("a call").expect("a frame");
    assert_eq!(wire::take_call(frame), Some((1, b"late".to_vec())));
    wire.writer.send(wire::answer(1, wire::Status::Answered, b"yes").freeze()).await.expect("sent");
    assert_eq!(caller.await.expect("it ends"), Ok("yes".to_owned()));
}

#[tokio::test]
async fn a_call_whose_caller_went_away_is_never_written() {
    let (listener, to) = listener().await;
    let peers = peers(None);
    let gone = tokio::spawn({
        let (peers, to) = (peers.clone(), to.clone());
        async move { say(&peers, &to, "gone").await }
    });
    tokio::time::sleep(Duration::from_millis(30)).await;
    gone.abort();
    let _ = gone.await;
    let _caller = tokio::spawn(async move { say(&peers, &to, "here").await });
    let (mut wire, _) = accept_by_hand(&listener, None).await;
    let frame = wire.reader.next().await.expect("a call").expect("a frame");
    assert_eq!(wire::take_call(frame), Some((1, b"here".to_vec())));
}

#[tokio::test]
async fn a_connection_that_ends_fails_its_calls_at_once() {
    let (listener, to) = listener().await;
    let peers = peers(None);
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let (peers, to) = (peers.clone(), to.clone());
        calls.spawn(async move { say(&peers, &to, "x").await });
    }
    let (mut wire, _) = accept_by_hand(&listener, None).await;
    for _ in 0..10 {
        wire.reader.next().await.expect("a call").expect("a frame");
    }
    drop(wire);
    for result in timeout(PATIENCE / 2, calls.join_all()).await.expect("at once") {
        let why = unknown(result);
        assert!(why.contains("closed the connection"), "{why}");
    }
}

#[tokio::test]
async fn a_node_that_stands_still_holds_nobody_up() {
    let (listener, to) = listener().await;
    let peers = peers(None);
    let clock = Clock::start();
    let limit = Duration::from_millis(300);
    let mut calls = JoinSet::new();
    let started = clock.now();
    // More than the system's buffers take, and more calls than may wait.
    for _ in 0..CALLS_WAITING_MAX + 100 {
        let (peers, to) = (peers.clone(), to.clone());
        calls.spawn(async move { peers.call(&to, Lane::Talk, vec![0; 64 * 1024], limit).await });
    }
    let (wire, _) = accept_by_hand(&listener, None).await;
    let results = calls.join_all().await;
    let took = clock.now().since(started);
    assert!(took < Duration::from_secs(10), "{took:?}");
    let (mut full, mut unanswered) = (0, 0);
    for result in results {
        match result.expect_err("it reads nothing") {
            CallError::NotSent(why) => full += usize::from(why.contains("calls wait for it")),
            CallError::Unknown(_) => unanswered += 1,
        }
    }
    assert!(full >= 99, "{full} were turned away");
    assert!(unanswered > 0, "some were written");

    // What does not take a byte for a while is given up, and then another connection is tried.
    let again = tokio::spawn(async move { say(&peers, &to, "again").await });
    let (mut other, _) = timeout(PATIENCE, accept_by_hand(&listener, None)).await.expect("it is");
    other.reader.next().await.expect("a call").expect("a frame");
    other.writer.send(wire::answer(1, wire::Status::Answered, b"").freeze()).await.expect("sent");
    assert_eq!(again.await.expect("it ends"), Ok(String::new()));
    drop(wire);
}

#[tokio::test]
async fn answers_that_are_owed_are_bounded_on_the_calling_side() {
    let (listener, to) = listener().await;
    let peers = peers(None);
    let mut calls = JoinSet::new();
    let mut all = async |count, limit| {
        for _ in 0..count {
            let (peers, to) = (peers.clone(), to.clone());
            calls.spawn(async move { peers.call(&to, Lane::Talk, vec![], limit).await });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    all(1, PATIENCE).await;
    let (mut wire, _) = accept_by_hand(&listener, None).await;
    all(CALLS_IN_FLIGHT_MAX - 1, Duration::from_secs(2)).await;
    all(1, PATIENCE).await;
    let why = not_sent(calls.join_next().await.expect("one ended").expect("no panic"));
    assert!(why.contains("owes 256 answers"), "{why}");
    // Once nobody waits for them, others may be sent.
    while calls.len() > 1 {
        unknown(calls.join_next().await.expect("one ended").expect("no panic"));
    }
    calls.spawn(async move { peers.call(&to, Lane::Talk, b"last".to_vec(), PATIENCE).await });
    loop {
        let frame = wire.reader.next().await.expect("a call").expect("a frame");
        let (number, body) = wire::take_call(frame).expect("a call");
        if body == b"last" {
            let answer = wire::answer(number, wire::Status::Answered, b"");
            wire.writer.send(answer.freeze()).await.expect("sent");
            break;
        }
    }
    assert_eq!(calls.join_next().await.expect("one ended").expect("no panic"), Ok(vec![]));
}

#[tokio::test]
async fn calls_being_answered_are_bounded_on_the_answering_side() {
    let node = Node::start(None).await;
    let (mut wire, _) = by_hand(&node, None).await.expect("it is open");
    for number in 1..=CALLS_IN_FLIGHT_MAX as u64 + 10 {
        wire.writer.send(wire::call(number, b"sleep 60000").freeze()).await.expect("it reads");
    }
    for _ in 0..10 {
        let frame = wire.reader.next().await.expect("an answer").expect("a frame");
        let (number, status, _) = wire::take_answer(frame).expect("an answer");
        assert_eq!(status, wire::Status::Busy);
        assert!(number > CALLS_IN_FLIGHT_MAX as u64, "{number}");
    }
    // Such an answer means that nothing was done.
    let (listener, to) = listener().await;
    let caller = tokio::spawn(async move { say(&peers(None), &to, "x").await });
    let (mut wire, _) = accept_by_hand(&listener, None).await;
    wire.reader.next().await.expect("a call").expect("a frame");
    wire.writer.send(wire::answer(1, wire::Status::Busy, b"").freeze()).await.expect("sent");
    assert!(not_sent(caller.await.expect("it ends")).contains("threw it away"));
}

#[tokio::test]
async fn a_name_that_leads_back_to_the_caller_is_not_another_node() {
    for secret in [None, Some("correct-horse-battery")] {
        let node = Node::start(secret).await;
        let name: Addr = format!("node-b:{}", node.addr.port()).parse().expect("an address");
        let resolver = Resolver::new();
        resolver.pretend(&name, node.socket());
        let secret = secret.map(SecretString::from);
        let peers = Peers::new(node.addr.clone(), secret, resolver, Clock::start());
        let why = not_sent(say(&peers, &name, "how many see it?").await);
        assert!(why.contains("its name leads to this node itself"), "{why}");
        assert_eq!(node.heard(), 0);
    }
}
