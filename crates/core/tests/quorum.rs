//! Several voters, at the level of the fleet: whose word counts, and how a new leader goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use failover_core::action::{Action, Command};
use failover_core::addr::Addr;
use failover_core::event::{
    Answer, CommandResult, Event, GroupSpec, Health, Probed, ProposalId, RefusalCode, Request,
    Sight, Testimony,
};
use failover_core::fleet::{Fleet, Policies};
use failover_core::instance::{Facts, Flavor, Link, ReplicationId, Role};
use failover_core::node::{GroupName, Leadership, NodeId, Token};
use failover_core::notice::{Notice, What};
use failover_core::policy::Policy;
use failover_core::record::{Outcome, Phase, Record};
use failover_core::time::Time;
use failover_core::view::{How, State};
use failover_core::watch::Death;

const MASTER: u16 = 1;
const REPLICA: u16 = 2;
const OTHER: u16 = 3;

/// How one server behaves for this node.
#[derive(Clone, Debug, PartialEq)]
enum Server {
    Is(Role),
    Refuses,
    Silent,
}

/// One node of three, whose servers, broker and colleagues are played by the test.
struct Desk {
    fleet: Fleet,
    now: Time,
    servers: BTreeMap<u16, Server>,
    /// Proposals are committed at once unless this is set; then they wait in `proposed`.
    slow: bool,
    proposed: Vec<(ProposalId, Vec<failover_core::record::Change>)>,
    asked: Vec<NodeId>,
    hinted: Vec<NodeId>,
    commands: Vec<(u16, Command, Option<NodeId>, u64)>,
    answers: Vec<Answer>,
    notices: Vec<Notice>,
}

fn addr(port: u16) -> Addr {
    Addr::new("127.0.0.1", port).expect("an address")
}

fn node(name: &str) -> NodeId {
    NodeId::new(name)
}

fn group() -> GroupName {
    GroupName::from(&addr(MASTER))
}

fn master(replicas: &[u16]) -> Server {
    Server::Is(Role::Master { replicas: replicas.iter().copied().map(addr).collect() })
}

fn replica(link: Link) -> Server {
    Server::Is(Role::Replica { master: addr(MASTER), link })
}

fn up() -> Link {
    Link::Up { last_io_secs: 0 }
}

fn down() -> Link {
    Link::Down { since_secs: Some(0) }
}

fn facts(asked_at: Time, port: u16, role: Role) -> Facts {
    Facts {
        asked_at,
        flavor: Flavor::Redis,
        version: "7.0.15".into(),
        run_id: Some(port.to_string().into()),
        role,
        replication_id: Some(ReplicationId("h".into())),
        second_replication_id: None,
        offset: 100,
        priority: 100,
        ping_period_secs: Some(10),
        can_pause_writes: true,
    }
}

impl Desk {
    /// A node that leads and has a healthy group of three.
    fn new() -> Self {
        let policy = Policy { max_down_time: Duration::from_secs(1), ..Policy::default() };
        let mut desk = Self {
            fleet: Fleet::new(node("a"), Policies { default: policy, ..Policies::default() }),
            now: Time::from_millis(1_000_000),
            servers: BTreeMap::from([
                (MASTER, master(&[REPLICA, OTHER])),
                (REPLICA, replica(up())),
                (OTHER, replica(up())),
            ]),
            slow: false,
            proposed: Vec::new(),
            asked: Vec::new(),
            hinted: Vec::new(),
            commands: Vec::new(),
            answers: Vec::new(),
            notices: Vec::new(),
        };
        desk.handle(Event::Voters(vec![node("a"), node("b"), node("c")]));
        desk.lead(1);
        let spec = GroupSpec { name: None, master: addr(MASTER), replicas: Vec::new() };
        desk.handle(Event::Request { id: 1, request: Request::Add(vec![spec]) });
        desk.pass(3_000);
        assert_eq!(desk.diagnosis(), "Healthy");
        desk.notices.clear();
        desk
    }

    fn lead(&mut self, token: u64) {
        self.handle(Event::Leadership(Leadership::Leader(Token(token))));
    }

    fn handle(&mut self, event: Event) {
        self.fleet.handle(self.now, event);
        self.drain();
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(at) = self.fleet.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.fleet.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
        self.fleet.handle_timeout(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.fleet.poll() {
            match action {
                Action::Propose { id, changes, .. } if self.slow => {
                    self.proposed.push((id, changes));
                }
                Action::Propose { id, changes, .. } => {
                    self.fleet.handle(self.now, Event::Committed { id: Some(id), changes });
                }
                Action::Probe { addr, seq, .. } => self.probed(addr.port(), seq),
                Action::AskPeer { node, .. } => self.asked.push(node),
                Action::Hint { leader, .. } => self.hinted.push(leader),
                Action::Command { id, addr, command, via, .. } => {
                    self.commands.push((addr.port(), command, via, id));
                }
                Action::Vet { group, id, .. } => {
                    self.fleet.handle(self.now, Event::Vetted { group, id, veto: None });
                }
                Action::Answer { answer, .. } => self.answers.push(answer),
                Action::Publish(notice) => self.notices.push(notice),
                Action::Forget { .. } => {}
            }
        }
    }

    fn probed(&mut self, port: u16, seq: u64) {
        let addr = addr(port);
        let outcome = match self.servers[&port].clone() {
            Server::Silent => return,
            Server::Refuses => Probed::Refused,
            Server::Is(role) => Probed::Replied {
                health: Health::Fine,
                facts: Some(Box::new(facts(self.now, port, role))),
                socket: None,
            },
        };
        self.fleet.handle(self.now, Event::Probed { addr, seq, outcome });
    }

    /// The master's process ends, and its replicas notice.
    fn kill_master(&mut self) {
        self.servers.insert(MASTER, Server::Refuses);
        for port in [REPLICA, OTHER] {
            self.servers.insert(port, replica(down()));
        }
        self.handle(Event::Ended { addr: addr(MASTER) });
        self.pass(2);
    }

    fn testify(&mut self, by: &str, token: u64, asked_at: Time, dead: Option<Death>) {
        self.testify_with(by, token, asked_at, dead, Vec::new());
    }

    fn testify_with(
        &mut self,
        by: &str,
        token: u64,
        asked_at: Time,
        dead: Option<Death>,
        sights: Vec<Sight>,
    ) {
        let testimony = Testimony { dead, sights };
        let (node, token, group) = (node(by), Token(token), group());
        self.handle(Event::Testified { node, token, group, asked_at, testimony });
    }

    fn view(&self) -> failover_core::view::GroupView {
        self.fleet.view(self.now, &group()).expect("the group is guarded")
    }

    fn diagnosis(&self) -> &'static str {
        self.view().diagnosis.name
    }

    fn epoch(&self) -> u64 {
        self.view().epoch
    }

    fn promotions(&self) -> Vec<u16> {
        let promote = |(port, command, _, _): &(u16, Command, Option<NodeId>, u64)| {
            matches!(command, Command::Promote { .. }).then_some(*port)
        };
        self.commands.iter().filter_map(promote).collect()
    }

    /// The record of a leader that died right after it had decided.
    fn decided_elsewhere(&mut self) -> Record {
        self.kill_master();
        self.testify("b", 1, self.now, Some(Death::Refusing));
        let record = self.fleet.record().clone();
        let saga = record.entry(&group()).and_then(|entry| entry.saga.clone());
        assert_eq!(saga.expect("it is decided").phase, Phase::Decided);
        record
    }

    /// This node as another one finds it: it watched all the time, and now leads with that record.
    fn succeed(&mut self, record: Record) {
        self.commands.clear();
        self.asked.clear();
        self.handle(Event::Leadership(Leadership::None));
        self.handle(Event::Restored(record));
        self.lead(2);
    }
}

#[test]
fn a_leader_alone_does_not_replace_a_master() {
    let mut desk = Desk::new();
    desk.kill_master();
    assert_eq!(desk.asked.iter().cloned().collect::<BTreeSet<_>>().len(), 2, "both are asked");
    desk.pass(900);
    assert_eq!((desk.epoch(), desk.promotions()), (0, vec![]));
    assert_eq!(desk.diagnosis(), "QuorumLost", "nobody else answers");
    let why = desk.view().diagnosis.not_acting_because.expect("it says why");
    assert!(why.contains("only 1 of 3 voters see it down and 2 are needed"), "{why}");
    desk.testify("c", 1, desk.now, None);
    desk.pass(100);
    assert_eq!(desk.diagnosis(), "MasterUnreachableFromHere");
    desk.testify("b", 1, desk.now, Some(Death::Refusing));
    assert_eq!((desk.epoch(), desk.promotions()), (1, vec![REPLICA]));
}

#[test]
fn only_a_fresh_answer_of_a_voter_to_this_leadership_counts() {
    let mut desk = Desk::new();
    let before = desk.now;
    desk.kill_master();
    desk.testify("b", 1, before - Duration::from_millis(1), Some(Death::Refusing));
    desk.testify("b", 7, desk.now, Some(Death::Refusing));
    desk.testify("stranger", 1, desk.now, Some(Death::Refusing));
    desk.testify("b", 1, desk.now, None);
    assert_eq!(desk.epoch(), 0);
    desk.pass(3_000);
    // It was asked long ago: whoever stood still since must not testify with what it saw then.
    desk.testify("c", 1, desk.now - Duration::from_millis(1_001), Some(Death::Refusing));
    assert_eq!(desk.epoch(), 0);
    desk.testify("c", 1, desk.now, Some(Death::Refusing));
    assert_eq!(desk.epoch(), 1);
}

#[test]
fn whoever_does_not_see_it_down_is_asked_again() {
    let mut desk = Desk::new();
    desk.kill_master();
    desk.testify("b", 1, desk.now, None);
    desk.testify("c", 1, desk.now, None);
    desk.asked.clear();
    desk.pass(20);
    assert!(desk.asked.contains(&node("b")) && desk.asked.contains(&node("c")));
    let asked = desk.asked.len();
    desk.pass(60_000);
    assert!(desk.asked.len() - asked < 1_000, "not a busy loop: {}", desk.asked.len());
}

#[test]
fn a_follower_hints_once_per_trouble_and_never_acts() {
    let mut desk = Desk::new();
    desk.handle(Event::Leadership(Leadership::Follower { leader: node("b") }));
    desk.kill_master();
    desk.pass(5_000);
    assert_eq!(desk.hinted, [node("b")]);
    assert_eq!((desk.epoch(), desk.commands.len()), (0, 0));
    let testimony = desk.fleet.testify(desk.now, &group()).expect("it guards the group");
    assert_eq!(testimony.dead, Some(Death::Refusing));
    desk.drain();
}

#[test]
fn a_follower_that_stood_still_does_not_testify_with_what_it_saw_before() {
    let mut desk = Desk::new();
    desk.handle(Event::Leadership(Leadership::Follower { leader: node("b") }));
    desk.kill_master();
    // The process is stopped for 5 s, and the master came back meanwhile.
    desk.now = desk.now + Duration::from_secs(5);
    let testimony = desk.fleet.testify(desk.now, &group()).expect("it guards the group");
    assert_eq!(testimony.dead, None);
    desk.servers.insert(MASTER, master(&[]));
    desk.drain();
}

#[test]
fn a_promotion_that_happened_already_is_recorded_and_not_sent_again() {
    let mut desk = Desk::new();
    let record = desk.decided_elsewhere();
    desk.servers.insert(REPLICA, master(&[]));
    // The old master is back: what counts is that its successor is one already.
    desk.servers.insert(MASTER, master(&[]));
    desk.succeed(record);
    desk.pass(5);
    assert_eq!(desk.promotions(), Vec::<u16>::new());
    assert_eq!((desk.view().master, desk.epoch()), (addr(REPLICA), 1));
    let steps: Vec<String> =
        desk.view().history[0].steps.iter().map(|step| step.name.clone()).collect();
    assert!(steps.contains(&"resumed_by".to_owned()), "{steps:?}");
}

#[test]
fn a_promotion_that_did_not_happen_is_sent_when_the_voters_still_agree() {
    let mut desk = Desk::new();
    let record = desk.decided_elsewhere();
    desk.succeed(record);
    desk.pass(50);
    assert_eq!(desk.promotions(), Vec::<u16>::new(), "nobody else was heard by this leader");
    desk.testify("c", 2, desk.now, Some(Death::Refusing));
    assert_eq!((desk.promotions(), desk.epoch()), (vec![REPLICA], 1));
}

#[test]
fn a_failover_whose_reason_is_gone_is_undone() {
    let mut desk = Desk::new();
    let record = desk.decided_elsewhere();
    desk.servers.insert(MASTER, master(&[REPLICA, OTHER]));
    for port in [REPLICA, OTHER] {
        desk.servers.insert(port, replica(up()));
    }
    desk.pass(1_000);
    desk.succeed(record);
    desk.pass(1_000);
    let last = desk.view().history[0].clone();
    assert_eq!((last.outcome, desk.promotions()), (Outcome::Undone, vec![]));
    assert_eq!((desk.view().master, desk.epoch()), (addr(MASTER), 1), "its epoch is used up");
}

#[test]
fn a_candidate_that_another_leader_may_have_promoted_and_that_is_silent_is_abandoned() {
    let mut desk = Desk::new();
    let record = desk.decided_elsewhere();
    desk.servers.insert(REPLICA, Server::Silent);
    desk.succeed(record);
    for _ in 0..30 {
        desk.testify("b", 2, desk.now, Some(Death::Refusing));
        desk.pass(100);
    }
    assert_eq!((desk.promotions(), desk.epoch()), (vec![OTHER], 2));
    let record = desk.fleet.record();
    let known = &record.entry(&group()).expect("it is recorded").instances[&addr(REPLICA)];
    assert_eq!(known.abandoned, Some(1));
}

#[test]
fn a_candidate_that_only_another_node_reaches_is_commanded_through_it() {
    let mut desk = Desk::new();
    desk.servers.insert(REPLICA, Server::Silent);
    desk.servers.insert(OTHER, Server::Silent);
    desk.servers.insert(MASTER, Server::Refuses);
    desk.handle(Event::Ended { addr: addr(MASTER) });
    desk.pass(1_500);
    let role = Role::Replica { master: addr(MASTER), link: down() };
    let sight = Sight {
        addr: addr(OTHER),
        state: State::Up,
        how: How::Replied,
        age_ms: 0,
        facts: Some((Box::new(facts(Time::ZERO, OTHER, role)), 0)),
    };
    desk.testify_with("b", 1, desk.now, Some(Death::Refusing), vec![sight]);
    let (port, command, via, id) = desk.commands.last().expect("a command").clone();
    assert_eq!((port, via), (OTHER, Some(node("b"))));
    assert!(matches!(command, Command::Promote { .. }));
    let promoted = facts(desk.now, OTHER, Role::Master { replicas: Vec::new() });
    let result = CommandResult::Done { facts: Box::new(promoted), warnings: Vec::new() };
    desk.handle(Event::Commanded { group: group(), id, result });
    assert_eq!(desk.view().master, addr(OTHER));
}

#[test]
fn a_decision_of_unknown_fate_does_no_harm_when_it_is_committed_after_all() {
    let mut desk = Desk::new();
    desk.slow = true;
    desk.kill_master();
    desk.testify("b", 1, desk.now, Some(Death::Refusing));
    let (id, changes) = desk.proposed.pop().expect("it is proposed");
    desk.handle(Event::Unsettled { id: id.clone(), why: "the leader changed".to_owned() });
    assert_eq!(desk.promotions(), Vec::<u16>::new());
    desk.pass(1_500);
    desk.testify("b", 1, desk.now, Some(Death::Refusing));
    let (second, again) = desk.proposed.pop().expect("it is proposed again");
    desk.handle(Event::Committed { id: Some(id), changes });
    desk.handle(Event::Committed { id: Some(second), changes: again });
    assert_eq!((desk.epoch(), desk.promotions()), (1, vec![REPLICA]));
}

#[test]
fn a_request_of_unknown_fate_is_answered_as_such() {
    let mut desk = Desk::new();
    desk.slow = true;
    desk.answers.clear();
    let request = Request::Remove(vec![group().to_string()]);
    desk.handle(Event::Request { id: 2, request });
    let (id, _) = desk.proposed.pop().expect("it is proposed");
    desk.handle(Event::Unsettled { id, why: "the leader changed".to_owned() });
    let [Answer::Refused { code: RefusalCode::UnknownOutcome, message }] = &desk.answers[..] else {
        panic!("another answer: {:?}", desk.answers);
    };
    assert!(message.contains("may still be"), "{message}");
}

#[test]
fn a_restored_record_tells_nothing_that_is_old() {
    let mut desk = Desk::new();
    let record = desk.fleet.record().clone();
    let mut fleet = Fleet::new(node("b"), Policies::default());
    fleet.handle(desk.now, Event::Restored(record));
    let mut told = Vec::new();
    let mut probed = BTreeSet::new();
    while let Some(action) = fleet.poll() {
        if let Action::Publish(notice) = action {
            told.push(notice);
        } else if let Action::Probe { addr, .. } = action {
            probed.insert(addr);
        } else {
            panic!("nothing else is to be done: {action:?}");
        }
    }
    let old = |notice: &&Notice| !matches!(notice.what, What::Diagnosed { .. });
    assert_eq!(told.iter().find(old), None);
    assert_eq!(probed.len(), 3, "every instance is watched");
    desk.drain();
}

#[test]
fn an_election_alarms_nobody_and_a_lost_quorum_does() {
    let mut desk = Desk::new();
    desk.handle(Event::Leadership(Leadership::None));
    desk.pass(1_000);
    assert_eq!(desk.diagnosis(), "Healthy");
    desk.pass(1_500);
    assert_eq!(desk.diagnosis(), "QuorumLost");
    desk.handle(Event::Leadership(Leadership::Follower { leader: node("b") }));
    assert_eq!(desk.diagnosis(), "Healthy");
}
