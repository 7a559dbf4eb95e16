//! Clusters in one process, over real sockets.

use std::net::SocketAddr;

use failover_core::node::{GroupName, Leadership, NodeId};
use failover_core::record::{GroupEntry, Record, Revision};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::*;
use crate::resolve::Resolver;

/// How long something may take that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node, and what its driver would know.
struct Node {
    broker: RaftBroker,
    events: mpsc::Receiver<Event>,
    record: Record,
    leadership: Leadership,
    voters: Vec<NodeId>,
    /// How proposals of this node ended.
    ends: Vec<Event>,
    /// Cuts its port, when it is dropped.
    _port: oneshot::Sender<()>,
}

/// Addresses nobody listens on now.
fn addrs(count: usize) -> Vec<Addr> {
    let bind = || std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let listeners: Vec<_> = (0..count).map(|_| bind()).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("address").into()).collect()
}

fn settings(addr: &Addr, cluster: &[Addr], dir: &TempDir) -> Settings {
    Settings {
        addr: addr.clone(),
        data_dir: dir.path().join(addr.port().to_string()),
        cluster: cluster.to_vec(),
        heartbeat_ms: 50,
        election_min_ms: 150,
        election_max_ms: 300,
    }
}

async fn start(settings: Settings) -> Node {
    let clock = Clock::start();
    let socket: SocketAddr = settings.addr.socket().expect("an IP address");
    // Whoever listened there a moment ago may not be gone yet.
    let listener = loop {
        match TcpListener::bind(socket).await {
            Ok(listener) => break listener,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    };
    let peers = Peers::new(settings.addr.clone(), None, Resolver::new(), clock);
    let (broker, events) = RaftBroker::start(settings, peers, clock).await.expect("start");
    let (port, cut) = oneshot::channel::<()>();
    let answering = broker.clone();
    let answer = move |_, body: Vec<u8>| {
        let broker = answering.clone();
        async move { broker.answer(&body).await }
    };
    tokio::spawn(Peers::serve(listener, None, answer, async {
        let _ = cut.await;
    }));
    Node {
        broker,
        events,
        record: Record::default(),
        leadership: Leadership::None,
        voters: Vec::new(),
        ends: Vec::new(),
        _port: port,
    }
}

impl Node {
    /// Takes what was told.
    fn gather(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Restored(record) => self.record = record,
                Event::Leadership(leadership) => self.leadership = leadership,
                Event::Voters(voters) => self.voters = voters,
                Event::Committed { ref changes, ref id } => {
                    self.record.apply(changes).expect("what is agreed fits");
                    if id.is_some() {
                        self.ends.push(event);
                    }
                }
                Event::NotCommitted { .. } | Event::Unsettled { .. } => self.ends.push(event),
                Event::Probed { .. }
                | Event::Accepted { .. }
                | Event::Ended { .. }
                | Event::Commanded { .. }
                | Event::Testified { .. }
                | Event::Hinted { .. }
                | Event::Vetted { .. }
                | Event::Request { .. } => panic!("{event:?}"),
            }
        }
    }

    fn propose(&mut self, number: u64, change: Change) {
        let Some(token) = self.leadership.token() else { panic!("{:?}", self.leadership) };
        let end = self.broker.propose(ProposalId::Fleet(number), token, vec![change]);
        self.ends.extend(end);
    }
}

async fn until(what: &str, nodes: &mut [Node], mut holds: impl FnMut(&[Node]) -> bool) {
    let wait = async {
        loop {
            nodes.iter_mut().for_each(Node::gather);
            if holds(nodes) {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    if timeout(PATIENCE, wait).await.is_err() {
        let seen: Vec<_> = nodes.iter().map(|node| (&node.leadership, &node.voters)).collect();
        panic!("not within {PATIENCE:?}: {what}; {seen:?}");
    }
}

fn leader(nodes: &[Node]) -> Option<usize> {
    nodes.iter().position(|node| node.leadership.token().is_some())
}

/// One leads, and the others follow it.
fn settled(nodes: &[Node]) -> bool {
    let Some(leader) = leader(nodes) else { return false };
    let name = NodeId::new(&nodes[leader].addr().to_string());
    let follows = Leadership::Follower { leader: name };
    nodes.iter().enumerate().all(|(at, node)| at == leader || node.leadership == follows)
}

impl Node {
    fn addr(&self) -> Addr {
        let metrics = self.broker.0.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        membership.get_node(&metrics.id).expect("a member").addr.clone()
    }
}

fn change(name: &str, expect: Revision) -> Change {
    let master = "127.0.0.1:6379".parse().expect("address");
    Change {
        group: GroupName::new(name).expect("name"),
        expect,
        what: String::new(),
        entry: Some(GroupEntry::new(master)),
        history: None,
    }
}

async fn cluster(addrs: &[Addr], dir: &TempDir) -> Vec<Node> {
    let mut nodes = Vec::new();
    for addr in addrs {
        nodes.push(start(settings(addr, addrs, dir)).await);
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_alone_leads_and_remembers() {
    let dir = TempDir::new().expect("directory");
    let addrs = addrs(1);
    let mut nodes = cluster(&addrs, &dir).await;
    until("it leads", &mut nodes, |nodes| leader(nodes).is_some()).await;
    assert_eq!(nodes[0].voters, [NodeId::new(&addrs[0].to_string())]);
    nodes[0].propose(1, change("a", 0));
    until("it is agreed", &mut nodes, |nodes| nodes[0].ends.len() == 1).await;
    assert!(matches!(nodes[0].ends[0], Event::Committed { id: Some(ProposalId::Fleet(1)), .. }));
    let token = nodes[0].leadership.token().expect("leads");
    let lease = nodes[0].broker.lease();
    let now = nodes[0].broker.0.network.clock.now();
    assert!(lease.allows(token, now));
    nodes[0].broker.stop().await;
    until("it says so", &mut nodes, |nodes| nodes[0].leadership == Leadership::None).await;
    assert_eq!(*nodes[0].broker.ended().borrow(), Some(Ended::Stopped));
    assert!(!lease.allows(token, now));
    drop(nodes);

    let mut nodes = cluster(&addrs, &dir).await;
    until("it remembers", &mut nodes, |nodes| nodes[0].record.len() == 1).await;
    until("it leads", &mut nodes, |nodes| leader(nodes).is_some()).await;
    assert!(nodes[0].leadership.token() > Some(token), "in a later term");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_agree_and_two_go_on_without_the_leader() {
    let dir = TempDir::new().expect("directory");
    let addrs = addrs(3);
    let mut nodes = cluster(&addrs, &dir).await;
    until("one leads", &mut nodes, settled).await;
    let first = leader(&nodes).expect("leader");
    assert_eq!(nodes[0].voters.len(), 3);
    for number in 0..100 {
        nodes[first].propose(number, change(&format!("g{number}"), 0));
    }
    until("all have it", &mut nodes, |nodes| nodes.iter().all(|node| node.record.len() == 100))
        .await;
    assert_eq!(nodes[first].ends.len(), 100);

    let follower = (first + 1) % 3;
    let refused = nodes[follower].broker.propose(ProposalId::Fleet(1), Token(1), vec![]);
    assert!(matches!(refused, Some(Event::NotCommitted { .. })), "{refused:?}");

    let gone = nodes.remove(first);
    gone.broker.stop().await;
    drop(gone);
    until("another leads", &mut nodes, settled).await;
    let second = leader(&nodes).expect("leader");
    nodes[second].propose(1, change("later", 0));
    until("both have it", &mut nodes, |nodes| nodes.iter().all(|node| node.record.len() == 101))
        .await;

    nodes.push(start(settings(&addrs[first], &addrs, &dir)).await);
    until("the third catches up", &mut nodes, |nodes| {
        settled(nodes) && nodes.iter().all(|node| node.record.len() == 101)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_majority_acts_on_nothing() {
    let dir = TempDir::new().expect("directory");
    let addrs = addrs(3);
    let mut nodes = cluster(&addrs, &dir).await;
    until("one leads", &mut nodes, settled).await;
    let at = leader(&nodes).expect("leader");
    let token = nodes[at].leadership.token().expect("leads");
    let mut alone = vec![nodes.remove(at)];
    for node in nodes {
        node.broker.stop().await;
    }
    alone[0].propose(1, change("a", 0));
    until("it steps back", &mut alone, |nodes| nodes[0].leadership == Leadership::None).await;
    let broker = &alone[0].broker;
    assert!(!broker.lease().allows(token, broker.0.network.clock.now()));
    until("nothing is known of it", &mut alone, |nodes| !nodes[0].ends.is_empty()).await;
    assert!(matches!(alone[0].ends[..], [Event::Unsettled { .. }]), "{:?}", alone[0].ends);
}
