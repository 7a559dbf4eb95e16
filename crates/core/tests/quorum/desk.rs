//! One node of three, whose servers, broker and colleagues are played by the test.

pub(crate) use std::collections::BTreeMap;
pub(crate) use std::time::Duration;

pub(crate) use failover_core::action::{Action, Command};
pub(crate) use failover_core::addr::Addr;
pub(crate) use failover_core::event::{
    Answer, CommandResult, Event, GroupSpec, Health, Probed, ProposalId, RefusalCode, Request,
    Sight, Testimony,
};
pub(crate) use failover_core::fleet::{Fleet, Policies};
pub(crate) use failover_core::instance::{Facts, Flavor, Link, ReplicationId, Role};
pub(crate) use failover_core::node::{GroupName, Leadership, NodeId, Token};
pub(crate) use failover_core::notice::{Notice, What};
pub(crate) use failover_core::policy::Policy;
pub(crate) use failover_core::record::{Change, Outcome, Phase, Record};
pub(crate) use failover_core::time::Time;
pub(crate) use failover_core::view::{How, State};
pub(crate) use failover_core::watch::Death;

pub(crate) const MASTER: u16 = 1;
pub(crate) const REPLICA: u16 = 2;
pub(crate) const OTHER: u16 = 3;

/// How one server behaves for this node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Server {
    Is(Role),
    Refuses,
    Silent,
    /// Its host does not answer a connection attempt.
    Unreachable,
}

/// One node of three, whose servers, broker and colleagues are played by the test.
pub(crate) struct Desk {
    pub(crate) fleet: Fleet,
    pub(crate) now: Time,
    pub(crate) servers: BTreeMap<u16, Server>,
    /// The master's process is another one than at the start, and has no data.
    pub(crate) emptied: bool,
    /// But so many keys that clients wrote since.
    pub(crate) keys_left: u64,
    /// A replica that has taken over what that process has.
    pub(crate) wiped: Option<u16>,
    /// Servers that are on another history than the others.
    pub(crate) of_history: BTreeMap<u16, String>,
    /// Proposals are committed at once unless this is set; then they wait in `proposed`.
    pub(crate) slow: bool,
    pub(crate) proposed: Vec<(ProposalId, Vec<Change>)>,
    pub(crate) asked: Vec<NodeId>,
    pub(crate) hinted: Vec<NodeId>,
    pub(crate) commands: Vec<(u16, Command, Option<NodeId>, u64)>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) notices: Vec<Notice>,
}

pub(crate) fn addr(port: u16) -> Addr {
    Addr::new("127.0.0.1", port).expect("an address")
}

pub(crate) fn node(name: &str) -> NodeId {
    NodeId::new(name)
}

pub(crate) fn group() -> GroupName {
    GroupName::from(&addr(MASTER))
}

pub(crate) fn master(replicas: &[u16]) -> Server {
    Server::Is(Role::Master { replicas: replicas.iter().copied().map(addr).collect() })
}

pub(crate) fn replica(link: Link) -> Server {
    Server::Is(Role::Replica { master: addr(MASTER), link })
}

pub(crate) fn up() -> Link {
    Link::Up { last_io_secs: 0 }
}

pub(crate) fn down() -> Link {
    Link::Down { since_secs: Some(0) }
}

pub(crate) fn facts(asked_at: Time, port: u16, role: Role) -> Facts {
    Facts {
        asked_at,
        flavor: Flavor::Redis,
        version: "7.0.15".into(),
        run_id: Some(port.to_string().into()),
        role,
        replication_id: Some(ReplicationId("h".into())),
        second_replication_id: None,
        second_offset: None,
        offset: 100,
        priority: 100,
        ping_period_secs: Some(10),
        can_pause_writes: true,
        keys: Some(10),
        fence: None,
        read_only: false,
        log_is_empty: false,
    }
}

impl Desk {
    /// A node that leads and has a healthy group of three.
    pub(crate) fn new() -> Self {
        let policy = Policy { max_down_time: Duration::from_secs(1), ..Policy::default() };
        let mut desk = Self {
            fleet: Fleet::new(node("a"), Policies { default: policy, ..Policies::default() }),
            now: Time::from_millis(1_000_000),
            servers: BTreeMap::from([
                (MASTER, master(&[REPLICA, OTHER])),
                (REPLICA, replica(up())),
                (OTHER, replica(up())),
            ]),
            emptied: false,
            of_history: BTreeMap::new(),
            keys_left: 0,
            wiped: None,
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

    pub(crate) fn lead(&mut self, token: u64) {
        self.handle(Event::Leadership(Leadership::Leader(Token(token))));
    }

    pub(crate) fn handle(&mut self, event: Event) {
        self.fleet.handle(self.now, event);
        self.drain();
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        let mut rounds = 0;
        while let Some(at) = self.fleet.poll_timeout().filter(|at| *at <= end) {
            rounds += 1;
            assert!(rounds < 1_000_000, "a busy loop at {at}");
            self.now = self.now.max(at);
            self.fleet.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
        self.fleet.handle_timeout(self.now);
        self.drain();
    }

    pub(crate) fn drain(&mut self) {
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
                Action::Tell { .. } => {}
                Action::Publish(notice) => self.notices.push(notice),
                Action::Forget { .. } => {}
            }
        }
    }

    pub(crate) fn probed(&mut self, port: u16, seq: u64) {
        let addr = addr(port);
        let outcome = match self.servers[&port].clone() {
            Server::Silent => return,
            Server::Unreachable => Probed::Unreachable("no answer".to_owned()),
            Server::Refuses => Probed::Refused,
            Server::Is(role) => {
                let mut facts = facts(self.now, port, role);
                if let Some(history) = self.of_history.get(&port) {
                    facts.replication_id = Some(ReplicationId(history.as_str().into()));
                }
                if self.emptied && port == MASTER {
                    facts.run_id = Some("again".into());
                    facts.replication_id = Some(ReplicationId("new".into()));
                    facts.keys = Some(self.keys_left);
                }
                if self.wiped == Some(port) {
                    facts.replication_id = Some(ReplicationId("new".into()));
                    facts.keys = Some(0);
                }
                Probed::Replied { health: Health::Fine, facts: Some(Box::new(facts)), socket: None }
            }
        };
        self.fleet.handle(self.now, Event::Probed { addr, seq, outcome });
    }

    /// The master's process ends, and its replicas notice.
    pub(crate) fn kill_master(&mut self) {
        for port in [REPLICA, OTHER] {
            self.servers.insert(port, replica(down()));
        }
        self.kill_master_alone();
    }

    /// The master's process ends.
    pub(crate) fn kill_master_alone(&mut self) {
        self.servers.insert(MASTER, Server::Refuses);
        self.handle(Event::Ended { addr: addr(MASTER) });
        self.pass(2);
    }

    pub(crate) fn testify(&mut self, by: &str, token: u64, asked_at: Time, dead: Option<Death>) {
        self.testify_with(by, token, asked_at, dead, Vec::new());
    }

    pub(crate) fn testify_with(
        &mut self,
        by: &str,
        token: u64,
        asked_at: Time,
        dead: Option<Death>,
        sights: Vec<Sight>,
    ) {
        let master = self.view().master;
        let testimony = Testimony { master, dead, sights };
        let (node, token, group) = (node(by), Token(token), group());
        self.handle(Event::Testified { node, token, group, asked_at, testimony });
    }

    pub(crate) fn view(&self) -> failover_core::view::GroupView {
        self.fleet.view(self.now, &group()).expect("the group is guarded")
    }

    /// How this node, which follows, sees the master dead.
    pub(crate) fn down_by_silence(&mut self) -> Option<Death> {
        let testimony = self.fleet.testify(self.now, &group()).expect("it guards the group");
        self.drain();
        testimony.dead
    }

    pub(crate) fn diagnosis(&self) -> &'static str {
        self.view().diagnosis.name
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.view().epoch
    }

    pub(crate) fn promotions(&self) -> Vec<u16> {
        let promote = |(port, command, _, _): &(u16, Command, Option<NodeId>, u64)| {
            matches!(command, Command::Promote { .. }).then_some(*port)
        };
        self.commands.iter().filter_map(promote).collect()
    }

    /// The record of a leader that died right after it had decided.
    pub(crate) fn decided_elsewhere(&mut self) -> Record {
        self.kill_master();
        self.testify("b", 1, self.now, Some(Death::Refusing));
        let record = self.fleet.record().clone();
        let saga = record.entry(&group()).and_then(|entry| entry.saga.clone());
        assert_eq!(saga.expect("it is decided").phase, Phase::Decided);
        record
    }

    /// This node as another one finds it: it watched all the time, and now leads with that record.
    pub(crate) fn succeed(&mut self, record: Record) {
        self.commands.clear();
        self.asked.clear();
        self.handle(Event::Leadership(Leadership::None));
        self.handle(Event::Restored(record));
        self.lead(2);
    }
}

pub(crate) fn sight(port: u16, role: Role) -> Sight {
    Sight {
        addr: addr(port),
        state: State::Up,
        how: How::Replied,
        age_ms: 0,
        facts: Some((Box::new(facts(Time::ZERO, port, role)), 0)),
    }
}
