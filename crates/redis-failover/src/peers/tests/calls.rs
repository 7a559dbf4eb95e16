//! Calls that are answered.

use super::*;

#[tokio::test]
async fn both_lanes_with_and_without_a_secret() {
    for secret in [None, Some("a secret that both have")] {
        let node = Node::start(secret).await;
        let peers = peers(secret);
        for (lane, body, expected) in [
            (Lane::Raft, "heartbeat", "Raft:heartbeat"),
            (Lane::Talk, "view", "Talk:view"),
            (Lane::Raft, "", "Raft:"),
        ] {
            let answer = peers.call(&node.addr, lane, body.into(), PATIENCE).await;
            assert_eq!(answer, Ok(expected.into()));
        }
    }
}

#[tokio::test]
async fn calls_of_one_connection_are_answered_at_the_same_time_and_in_any_order() {
    let node = Node::start(None).await;
    let peers = peers(None);
    let clock = Clock::start();
    let started = clock.now();
    let mut calls = JoinSet::new();
    for number in 0..100_u32 {
        let (peers, to) = (peers.clone(), node.addr.clone());
        // The later ones are done first.
        let text = format!("sleep {}", 300 - number);
        calls.spawn(async move {
            let answer = say(&peers, &to, &text).await;
            (number, answer == echo(&text))
        });
    }
    let done = calls.join_all().await;
    assert!(done.iter().all(|(_, right)| *right), "{done:?}");
    let took = clock.now().since(started);
    assert!(took < Duration::from_secs(10), "one after the other would take 25 s: {took:?}");
}

#[tokio::test]
async fn long_bodies_up_to_the_limit() {
    for secret in [None, Some("s3cret")] {
        let node = Node::start(secret).await;
        let peers = peers(secret);
        // The echo has five bytes more.
        for length in [8 * 1024, 1024 * 1024, BODY_BYTES_MAX - 5] {
            let body: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let answer = peers.call(&node.addr, Lane::Raft, body.clone(), PATIENCE).await;
            let answer = answer.expect("it fits");
            assert!(answer.starts_with(b"Raft:") && answer[5..] == body, "{length}");
        }
        let call = peers.call(&node.addr, Lane::Raft, vec![0; BODY_BYTES_MAX + 1], PATIENCE);
        assert!(not_sent(call.await).contains("is longer than"));
        let why = unknown(say(&peers, &node.addr, "long").await);
        assert!(why.contains("the answer of the node"), "{why}");
        assert_eq!(say(&peers, &node.addr, "more").await, echo("more"), "it goes on");
    }
}

#[tokio::test]
async fn a_long_message_in_one_lane_does_not_delay_the_other() {
    let (listener, to) = listener().await;
    let peers = peers(None);
    let (sender, to_send) = (peers.clone(), to.clone());
    let long = tokio::spawn(async move {
        sender.call(&to_send, Lane::Talk, vec![0; BODY_BYTES_MAX], PATIENCE).await
    });
    let (_talk, _) = accept_by_hand(&listener, None).await;
    // Nobody reads it. The other lane is another connection.
    let (sender, to_send) = (peers.clone(), to.clone());
    let short = tokio::spawn(async move {
        sender.call(&to_send, Lane::Raft, b"heartbeat".to_vec(), PATIENCE).await
    });
    let (mut raft, _) = accept_by_hand(&listener, None).await;
    let frame = raft.reader.next().await.expect("a call").expect("a frame");
    let (number, body) = wire::take_call(frame).expect("a call");
    assert_eq!(body, b"heartbeat");
    let answer = wire::answer(number, wire::Status::Answered, b"here");
    raft.writer.send(answer.freeze()).await.expect("it reads");
    assert_eq!(short.await.expect("it ends"), Ok(b"here".to_vec()));
    assert!(!long.is_finished());
}

#[tokio::test]
async fn one_connection_is_kept_for_many_calls() {
    let (listener, to) = listener().await;
    let peers = peers(None);
    let caller = tokio::spawn(async move {
        for number in 0..5 {
            say(&peers, &to, &number.to_string()).await.expect("an answer");
        }
    });
    let (mut wire, _) = accept_by_hand(&listener, None).await;
    for expected in 1..=5 {
        let frame = wire.reader.next().await.expect("a call").expect("a frame");
        let (number, body) = wire::take_call(frame).expect("a call");
        assert_eq!(number, expected);
        let answer = wire::answer(number, wire::Status::Answered, &body);
        wire.writer.send(answer.freeze()).await.expect("it reads");
    }
    caller.await.expect("all were answered");
}

#[tokio::test]
async fn it_connects_again_after_the_other_node_was_started_again() {
    let node = Node::start(None).await;
    let (to, socket) = (node.addr.clone(), node.socket().to_string());
    let peers = peers(None);
    assert_eq!(say(&peers, &to, "here").await, echo("here"));
    node.stop().await;
    // It is noticed that it went, so that the next call does not end unknown.
    tokio::time::sleep(Duration::from_millis(50)).await;
    not_sent(say(&peers, &to, "gone").await);
    for round in 0..3 {
        let again = Node::start_at(&socket, None).await;
        assert_eq!(say(&peers, &to, "back").await, echo("back"), "{round}");
        again.stop().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        not_sent(say(&peers, &to, "gone").await);
    }
}

#[tokio::test]
async fn serving_ends_at_shutdown_and_cuts_what_is_open() {
    let (listener, to) = listener().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async move {
        let _ = stopped.await;
    };
    let serving = tokio::spawn(Peers::serve(listener, to.clone(), None, answer, shutdown));
    let peers = peers(None);
    assert_eq!(say(&peers, &to, "x").await, echo("x"));
    let (caller, waiting_for) = (peers.clone(), to.clone());
    let waiting = tokio::spawn(async move { say(&caller, &waiting_for, "sleep 60000").await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.send(()).expect("it serves");
    timeout(PATIENCE, serving).await.expect("at once").expect("without a panic");
    let why = unknown(timeout(PATIENCE, waiting).await.expect("at once").expect("no panic"));
    assert!(why.contains(&to.to_string()), "{why}");
}
