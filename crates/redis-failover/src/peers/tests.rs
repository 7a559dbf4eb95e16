use super::*;

#[tokio::test]
async fn a_body_goes_there_and_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let to = Addr::from(listener.local_addr().expect("it is bound"));
    let answer = |lane, body: Vec<u8>| async move { format!("{lane:?}{}", body.len()).into() };
    tokio::spawn(Peers::serve(listener, None, answer, std::future::pending()));
    let peers = Peers::new(to.clone(), None, Resolver::new(), Clock::start());
    let answer = peers.call(&to, Lane::Raft, vec![1; 3], Duration::from_secs(5)).await;
    assert_eq!(answer, Ok(b"Raft3".to_vec()));
}
