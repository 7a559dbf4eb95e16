//! Clusters in one process, over real sockets.

mod founders;
mod rivals;
mod survivors;

use std::net::SocketAddr;

use failover_core::event::RefusalCode;
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
        cut_off: false,
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
    let me = settings.addr.clone();
    let peers = Peers::new(settings.addr.clone(), None, Resolver::new(), clock);
    let (broker, events) = RaftBroker::start(settings, peers, clock).await.expect("start");
    let (port, cut) = oneshot::channel::<()>();
    let answering = broker.clone();
    let answer = move |_, body: Vec<u8>| {
        let broker = answering.clone();
        async move { broker.answer(&body).await }
    };
    tokio::spawn(Peers::serve(listener, me, None, answer, async {
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
                | Event::Told { .. }
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
    fn addr(&self) -> &Addr {
        &self.broker.0.settings.addr
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
    assert!(nodes[0].broker.allows(token));
    nodes[0].broker.stop().await;
    until("it says so", &mut nodes, |nodes| nodes[0].leadership == Leadership::None).await;
    assert_eq!(*nodes[0].broker.ended().borrow(), Some(Ended::Stopped));
    assert!(!nodes[0].broker.allows(token));
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
    assert!(!broker.allows(token));
    until("nothing is known of it", &mut alone, |nodes| !nodes[0].ends.is_empty()).await;
    assert!(matches!(alone[0].ends[..], [Event::Unsettled { .. }]), "{:?}", alone[0].ends);
}

impl Node {
    /// What the end of a process is to the others: its port is closed, and its store free.
    async fn end(self) {
        self.broker.stop().await;
    }

    fn id(&self) -> MemberId {
        self.broker.meta().id
    }
}

fn wipe(addr: &Addr, dir: &TempDir) {
    std::fs::remove_dir_all(dir.path().join(addr.port().to_string())).expect("remove");
}

fn voters(nodes: &[&Node]) -> Vec<NodeId> {
    let mut names: Vec<NodeId> =
        nodes.iter().map(|node| NodeId::new(&node.addr().to_string())).collect();
    names.sort();
    names
}

/// Everyone follows one leader, knows the same voters, and has so many groups.
fn whole(nodes: &[Node], groups: usize) -> bool {
    let names = voters(&nodes.iter().collect::<Vec<_>>());
    let knows = |node: &Node| {
        node.voters == names
            && node.record.len() == groups
            && node.broker.members().len() == nodes.len()
    };
    settled(nodes) && nodes.iter().all(knows)
}

/// Three nodes with one group, settled.
async fn three(addrs: &[Addr], dir: &TempDir) -> Vec<Node> {
    let mut nodes = cluster(&addrs[..3], dir).await;
    until("one leads", &mut nodes, settled).await;
    let at = leader(&nodes).expect("leader");
    nodes[at].propose(1, change("first", 0));
    until("all have it", &mut nodes, |nodes| whole(nodes, 1)).await;
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_find_each_other_in_any_order_and_again_after_all_ended() {
    let dir = TempDir::new().expect("directory");
    let addrs = addrs(3);
    // The one with the lowest address comes last, and seconds later.
    let mut sorted = addrs.clone();
    sorted.sort();
    let mut nodes = vec![start(settings(&sorted[2], &addrs, &dir)).await];
    sleep(Duration::from_millis(300)).await;
    assert_eq!(nodes[0].leadership, Leadership::None, "one of three founds nothing");
    nodes.push(start(settings(&sorted[1], &addrs, &dir)).await);
    until("two of three lead", &mut nodes, settled).await;
    nodes.push(start(settings(&sorted[0], &addrs, &dir)).await);
    until("the third is taken in", &mut nodes, |nodes| whole(nodes, 0)).await;
    let at = leader(&nodes).expect("leader");
    nodes[at].propose(1, change("a", 0));
    until("all have it", &mut nodes, |nodes| whole(nodes, 1)).await;

    for node in nodes {
        node.end().await;
    }
    let mut nodes = cluster(&addrs, &dir).await;
    until("all are back", &mut nodes, |nodes| whole(nodes, 1)).await;
    assert_eq!(nodes[0].broker.members().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_store_is_another_one() {
    let dir = TempDir::new().expect("directory");
    let addrs = addrs(3);
    let mut nodes = three(&addrs, &dir).await;
    let lost = nodes.remove(0);
    let (addr, id) = (lost.addr().clone(), lost.id());
    lost.end().await;
    wipe(&addr, &dir);
    nodes.push(start(settings(&addr, &addrs, &dir)).await);
    until("it is taken in again", &mut nodes, |nodes| whole(nodes, 1)).await;
    assert_ne!(nodes[2].id(), id);
    let members = nodes[2].broker.members();
    assert_eq!(members.len(), 3, "{members:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go() {
    let dir = TempDir::new().expect("directory");
    let addrs = addrs(5);
    let mut nodes = three(&addrs, &dir).await;
    let at = leader(&nodes).expect("leader");
    let (leading, following) = (nodes[at].broker.clone(), nodes[(at + 1) % 3].broker.clone());

    let refused = following.add(&addrs[3], None).await.expect_err("it does not lead");
    assert_eq!(refused.code, RefusalCode::NoLeader);
    let error = leading.add(&addrs[3], None).await.expect_err("nobody is there");
    assert!(error.to_string().contains("start it first"), "{error}");
    let error = leading.add(&addrs[1], None).await.expect_err("a member");
    assert!(error.to_string().contains("is a member already"), "{error}");
    let error = leading.remove(&addrs[4]).await.expect_err("no member");
    assert!(error.to_string().contains("is not a member"), "{error}");

    // Its list has members in it, so that it waits to be taken in.
    nodes.push(start(settings(&addrs[3], &addrs[..3], &dir)).await);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(leading.add(&addrs[3], None).await, Ok(()));
    until("four are whole", &mut nodes, |nodes| whole(nodes, 1)).await;

    let out = nodes.remove((leader(&nodes).expect("leader") + 1) % 4);
    let leading = nodes[leader(&nodes).expect("leader")].broker.clone();
    assert_eq!(leading.remove(out.addr()).await, Ok(()));
    until("three are whole", &mut nodes, |nodes| whole(nodes, 1)).await;
    let mut removed = [out];
    until("it sees that it is none", &mut removed, |nodes| {
        nodes[0].leadership == Leadership::None && nodes[0].broker.problem().is_some()
    })
    .await;
    let term = leading.term();
    sleep(Duration::from_secs(1)).await;
    // A lease can run out for a moment on a busy host; a vote for the removed one would be another term.
    until("three are whole still", &mut nodes, |nodes| whole(nodes, 1)).await;
    assert_eq!(leading.term(), term, "it disturbs nobody");

    nodes.push(start(settings(&addrs[4], &addrs[..3], &dir)).await);
    let at = leader(&nodes).expect("leader");
    let replaced = nodes.remove((at + 1) % 3);
    let leading = nodes[leader(&nodes).expect("leader")].broker.clone();
    assert_eq!(leading.add(&addrs[4], Some(replaced.addr())).await, Ok(()));
    until("the new one is in its place", &mut nodes, |nodes| whole(nodes, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_can_take_itself_out() {
    let dir = TempDir::new().expect("directory");
    let addrs = addrs(3);
    let mut nodes = three(&addrs, &dir).await;
    let leading = nodes.remove(leader(&nodes).expect("leader"));
    assert_eq!(leading.broker.remove(leading.addr()).await, Ok(()));
    until("the others go on", &mut nodes, |nodes| whole(nodes, 1)).await;
    let mut removed = [leading];
    until("it does not lead", &mut removed, |nodes| nodes[0].leadership == Leadership::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configured_node_is_taken_in_by_itself() {
    let dir = TempDir::new().expect("directory");
    let addrs = addrs(2);
    let mut nodes = vec![start(settings(&addrs[0], &addrs[..1], &dir)).await];
    until("it leads", &mut nodes, settled).await;
    nodes[0].propose(1, change("a", 0));
    until("it is agreed", &mut nodes, |nodes| whole(nodes, 1)).await;
    nodes.remove(0).end().await;
    let mut nodes = cluster(&addrs, &dir).await;
    until("both are members", &mut nodes, |nodes| whole(nodes, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_goes_on_with_the_record_and_without_the_others() {
    let dir = TempDir::new().expect("directory");
    let addrs = addrs(5);
    let nodes = three(&addrs, &dir).await;
    for node in nodes {
        node.end().await;
    }
    let alone = [addrs[0].clone(), addrs[3].clone()];
    let recovered = |addr: &Addr| Settings { cut_off: true, ..settings(addr, &alone, &dir) };
    let mut nodes = vec![start(recovered(&addrs[0])).await];
    until("it leads alone", &mut nodes, |nodes| whole(nodes, 1)).await;
    let cluster_id = nodes[0].broker.meta().cluster.expect("cluster").id;
    nodes.push(start(recovered(&addrs[3])).await);
    until("another is taken in", &mut nodes, |nodes| whole(nodes, 1)).await;

    // One that was cut off comes back as it was: nobody hears it, and it hears nobody.
    let mut back = vec![start(settings(&addrs[1], &addrs[..3], &dir)).await];
    until("it is told", &mut back, |nodes| nodes[0].broker.problem().is_some()).await;
    assert!(back[0].broker.problem().is_some_and(|why| why.contains("belongs to the cluster")));
    nodes.iter_mut().for_each(Node::gather);
    assert!(whole(&nodes, 1));

    nodes.remove(0).end().await;
    let again = start(recovered(&addrs[0])).await;
    let same = again.broker.meta().cluster.expect("cluster").id;
    assert_eq!(same, cluster_id, "an equal list changes nothing");
    nodes.push(again);
    until("both are there", &mut nodes, |nodes| whole(nodes, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_outlasts_compaction_and_reaches_a_new_member_by_snapshot() {
    let dir = TempDir::new().expect("directory");
    let addrs = addrs(2);
    let mut nodes = vec![start(settings(&addrs[0], &addrs[..1], &dir)).await];
    until("it leads", &mut nodes, settled).await;
    for number in 0..SNAPSHOT_ENTRIES + 100 {
        nodes[0].propose(number, change(&format!("g{}", number % 50), number / 50));
        let count = usize::try_from(number).expect("few") + 1;
        until("it is agreed", &mut nodes, |nodes| nodes[0].ends.len() == count).await;
    }
    let raft = nodes[0].broker.running().expect("runs").raft;
    let purged = raft.wait(Some(PATIENCE)).metrics(|seen| seen.purged.is_some(), "purged").await;
    purged.expect("the log is cut");
    nodes.push(start(settings(&addrs[1], &addrs[..1], &dir)).await);
    sleep(Duration::from_millis(300)).await;
    let leading = nodes[0].broker.clone();
    assert_eq!(leading.add(&addrs[1], None).await, Ok(()));
    until("both have it", &mut nodes, |nodes| whole(nodes, 50)).await;
    assert_eq!(nodes[0].record, nodes[1].record);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_majority_leads_its_followers_neither() {
    let dir = TempDir::new().expect("directory");
    let addrs = addrs(5);
    let mut nodes = cluster(&addrs, &dir).await;
    until("one leads", &mut nodes, settled).await;
    let mut smaller = vec![nodes.remove(leader(&nodes).expect("leader")), nodes.remove(0)];
    let token = smaller[0].leadership.token().expect("it led a moment ago");
    for node in nodes {
        node.end().await;
    }
    until("both know", &mut smaller, |nodes| {
        nodes.iter().all(|node| node.leadership == Leadership::None)
    })
    .await;
    assert!(!smaller[0].broker.allows(token));
    assert!(!smaller[1].broker.follows(token));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_survivors_the_one_with_the_longer_log_is_followed() {
    let dir = TempDir::new().expect("directory");
    let addrs = addrs(3);
    let mut nodes = three(&addrs, &dir).await;
    let behind = nodes.remove((leader(&nodes).expect("leader") + 1) % 3);
    let late = behind.addr().clone();
    behind.end().await;
    until("one leads", &mut nodes, |nodes| leader(nodes).is_some()).await;
    for number in 0..20 {
        let at = leader(&nodes).expect("leader");
        nodes[at].propose(number, change(&format!("g{number}"), 0));
    }
    until("both have it", &mut nodes, |nodes| nodes.iter().all(|node| node.record.len() == 21))
        .await;
    let first = nodes[0].addr().clone();
    for node in nodes {
        node.end().await;
    }

    let left = [first, late];
    let mut nodes = Vec::new();
    for addr in &left {
        let settings = Settings { cut_off: true, ..settings(addr, &left, &dir) };
        nodes.push(start(settings).await);
    }
    assert_eq!(nodes[0].broker.meta().cluster, nodes[1].broker.meta().cluster);
    until("both have everything", &mut nodes, |nodes| whole(nodes, 21)).await;
    let at = leader(&nodes).expect("leader");
    nodes[at].propose(99, change("later", 0));
    until("and go on", &mut nodes, |nodes| whole(nodes, 22)).await;
}
