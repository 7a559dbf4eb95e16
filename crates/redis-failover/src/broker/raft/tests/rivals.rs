//! Who wants to lead while another does.

use super::super::network;
use super::super::types::{Vote, VoteRequest};
use super::*;

/// What a node answers to another one that stands for the next term, and has everything that is agreed.
async fn ask_for_vote(of: &Node, candidate: MemberId) -> bool {
    let running = of.broker.running().expect("runs");
    let term = of.broker.term().expect("has a term") + 1;
    let last_log_id = *running.applied.last().borrow();
    let request = VoteRequest { vote: Vote::new(term, candidate), last_log_id };
    let ask = network::Ask::candidate(candidate, of.id(), running.network.cluster, request);
    let network::Reply::Vote(reply) = running.network.answer(&running.raft, ask).await else {
        panic!("another answer")
    };
    reply.vote_granted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_votes_for_nobody_while_its_lease_holds() {
    let dir = TempDir::new().expect("directory");
    let addrs = addrs(3);
    let mut nodes = three(&addrs, &dir).await;
    let at = leader(&nodes).expect("leader");
    let token = nodes[at].leadership.token().expect("leads");
    // Long after its own election, which openraft counts from.
    sleep(Duration::from_millis(400)).await;
    let candidate = nodes[(at + 1) % 3].id();
    assert!(!ask_for_vote(&nodes[at], candidate).await, "it may act under its own token still");
    assert!(nodes[at].broker.allows(token));

    let mut alone = vec![nodes.remove(at)];
    for node in nodes {
        node.end().await;
    }
    until("it steps back", &mut alone, |nodes| nodes[0].leadership == Leadership::None).await;
    assert!(ask_for_vote(&alone[0], candidate).await, "nothing binds it");
    assert!(!alone[0].broker.allows(token));
}
