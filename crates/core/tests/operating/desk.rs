//! One node that leads alone, whose servers and broker are played by the test.

pub(crate) use std::collections::BTreeMap;
pub(crate) use std::time::Duration;

pub(crate) use failover_core::action::{Action, Command};
pub(crate) use failover_core::addr::Addr;
pub(crate) use failover_core::event::{
    Answer, CommandResult, Event, GroupSpec, Health, Probed, RefusalCode, Request,
};
pub(crate) use failover_core::fleet::{Fleet, Policies};
pub(crate) use failover_core::instance::{Facts, Flavor, Link, ReplicationId, Role};
pub(crate) use failover_core::node::{GroupName, Leadership, NodeId, Token};
pub(crate) use failover_core::notice::What;
pub(crate) use failover_core::policy::Policy;
pub(crate) use failover_core::record::{
    Change, GroupEntry, HistoryEntry, HookEvent, Kind, Occurrence, Outcome, Phase, Saga, Status,
};
pub(crate) use failover_core::time::Time;
pub(crate) use failover_core::view::{GroupView, How, StatusView};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mood {
    Serves,
    /// It reads its data, answers, and obeys nothing.
    Loads,
    Refuses,
    Silent,
}

/// A server that does what it is told and replicates in no time.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) mood: Mood,
    pub(crate) follows: Option<u16>,
    pub(crate) history: String,
    pub(crate) second: Option<String>,
    pub(crate) offset: u64,
    pub(crate) priority: u32,
    /// A link that does not come up although its master serves.
    pub(crate) broken: bool,
    /// Since when it says that its link is down.
    pub(crate) broken_secs: u64,
    /// How many keys it holds.
    pub(crate) keys: u64,
    /// How often it was started.
    pub(crate) life: u32,
    /// It obeys no command.
    pub(crate) refuses_commands: bool,
    /// It takes over what its master has right before it is made one.
    pub(crate) copies_late: bool,
}

/// A node that leads alone, with a group of three.
pub(crate) struct Desk {
    pub(crate) me: &'static str,
    pub(crate) fleet: Fleet,
    pub(crate) policy: Policy,
    pub(crate) now: Time,
    pub(crate) servers: BTreeMap<u16, Server>,
    pub(crate) commands: Vec<(u16, Command)>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) told: Vec<What>,
    /// What hooks were told, and whether they say so.
    pub(crate) hooks_told: Vec<Occurrence>,
    pub(crate) hooks_answer: bool,
    pub(crate) promotions: u32,
    /// Whether the broker commits what it is asked to.
    pub(crate) committing: bool,
    /// Whether servers say with every answer how many keys they hold, and not only on a new connection.
    pub(crate) counting_always: bool,
    /// The first question that each server has left without an answer, and when that was asked.
    pub(crate) unanswered: BTreeMap<u16, (u64, Time)>,
}

pub(crate) fn addr(port: u16) -> Addr {
    Addr::new("127.0.0.1", port).expect("an address")
}

pub(crate) fn group() -> GroupName {
    GroupName::from(&addr(1))
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self::with(Policy { max_down_time: Duration::from_secs(1), ..Policy::default() })
    }

    pub(crate) fn with(policy: Policy) -> Self {
        let server = |follows| Server {
            mood: Mood::Serves,
            follows,
            history: "h0".to_owned(),
            second: None,
            offset: 100,
            priority: 100,
            broken: false,
            broken_secs: 0,
            keys: 10,
            life: 0,
            refuses_commands: false,
            copies_late: false,
        };
        let mut desk = Self {
            me: "me",
            fleet: fleet("me", &policy),
            policy,
            now: Time::from_millis(1_000_000),
            servers: BTreeMap::from([
                (1, server(None)),
                (2, server(Some(1))),
                (3, server(Some(1))),
            ]),
            commands: Vec::new(),
            answers: Vec::new(),
            told: Vec::new(),
            hooks_told: Vec::new(),
            hooks_answer: true,
            promotions: 0,
            committing: true,
            counting_always: true,
            unanswered: BTreeMap::new(),
        };
        desk.lead();
        let spec = GroupSpec { name: None, master: addr(1), replicas: Vec::new() };
        assert_eq!(desk.ask(Request::Add(vec![spec])), Answer::Done);
        desk.pass(5000);
        assert_eq!(desk.view().diagnosis.name, "Healthy");
        desk
    }

    pub(crate) fn lead(&mut self) {
        self.handle(Event::Voters(vec![NodeId::new(self.me)]));
        self.handle(Event::Leadership(Leadership::Leader(Token(1))));
    }

    /// Another process of the program, with the record that there is.
    pub(crate) fn restart(&mut self) {
        let record = self.fleet.record().clone();
        self.fleet = fleet(self.me, &self.policy);
        self.handle(Event::Restored(record));
        self.lead();
    }

    pub(crate) fn handle(&mut self, event: Event) {
        self.fleet.handle(self.now, event);
        self.drain();
    }

    pub(crate) fn ask(&mut self, request: Request) -> Answer {
        self.handle(Event::Request { id: 1, request });
        self.answers.pop().expect("an answer")
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(at) = self.fleet.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.fleet.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    pub(crate) fn drain(&mut self) {
        let mut rounds = 0;
        while let Some(action) = self.fleet.poll() {
            rounds += 1;
            assert!(rounds < 10_000, "it never comes to rest: {action:?}");
            let event = match action {
                Action::Propose { id, .. } if !self.committing => {
                    Event::NotCommitted { id, why: "the quorum is lost".to_owned() }
                }
                Action::Propose { id, changes, .. } => Event::Committed { id: Some(id), changes },
                Action::Probe { addr, fresh: true, .. }
                    if self.servers[&addr.port()].mood == Mood::Silent =>
                {
                    Event::Accepted { addr }
                }
                Action::Probe { addr, seq, fresh, .. } => {
                    let Some(mut outcome) = self.probe(addr.port()) else {
                        self.unanswered.entry(addr.port()).or_insert((seq, self.now));
                        continue;
                    };
                    if let Probed::Replied { facts: Some(facts), .. } = &mut outcome
                        && !(fresh || self.counting_always)
                    {
                        facts.keys = None;
                    }
                    Event::Probed { addr, seq, outcome }
                }
                Action::Command { group, id, addr, command, .. } => {
                    let mut result = self.obey(addr.port(), &command);
                    if let CommandResult::Done { facts, .. } = &mut result
                        && !self.counting_always
                    {
                        facts.keys = None;
                    }
                    self.commands.push((addr.port(), command));
                    Event::Commanded { group, id, result }
                }
                Action::Vet { group, id, .. } => Event::Vetted { group, id, veto: None },
                Action::Answer { answer, .. } => {
                    self.answers.push(answer);
                    continue;
                }
                Action::Tell { group, occurrence, .. } => {
                    let number = occurrence.number;
                    self.hooks_told.push(*occurrence);
                    if !self.hooks_answer {
                        continue;
                    }
                    Event::Told { group, number, hook: None }
                }
                Action::Publish(notice) => {
                    self.told.push(notice.what);
                    continue;
                }
                Action::AskPeer { .. } | Action::Hint { .. } => panic!("there is no other node"),
                Action::Forget { .. } => continue,
            };
            self.fleet.handle(self.now, event);
        }
    }

    pub(crate) fn server(&mut self, port: u16) -> &mut Server {
        self.servers.get_mut(&port).expect("there is one")
    }

    pub(crate) fn facts(&mut self, port: u16) -> Facts {
        let server = self.servers[&port].clone();
        let link_up = |of: u16, server: &Server| {
            self.servers.get(&of).is_some_and(|of| of.mood != Mood::Refuses) && !server.broken
        };
        let role = match server.follows {
            None => {
                let follows = |other: &Server| {
                    other.follows == Some(port)
                        && other.mood == Mood::Serves
                        && link_up(port, other)
                };
                let replicas = self.servers.iter().filter(|(_, other)| follows(other));
                Role::Master { replicas: replicas.map(|(port, _)| addr(*port)).collect() }
            }
            Some(of) if link_up(of, &server) => {
                let Server { history, keys, .. } = self.servers[&of].clone();
                self.server(port).history = history;
                self.server(port).keys = keys;
                Role::Replica { master: addr(of), link: Link::Up { last_io_secs: 0 } }
            }
            Some(of) => {
                let since_secs = Some(server.broken_secs);
                Role::Replica { master: addr(of), link: Link::Down { since_secs } }
            }
        };
        let server = &self.servers[&port];
        Facts {
            asked_at: self.now,
            flavor: Flavor::Redis,
            version: "7.0.15".into(),
            run_id: Some(format!("{port}-{}", server.life).into()),
            role,
            replication_id: Some(ReplicationId(server.history.clone().into())),
            second_replication_id: server.second.clone().map(|id| ReplicationId(id.into())),
            second_offset: None,
            offset: server.offset,
            priority: server.priority,
            ping_period_secs: Some(10),
            can_pause_writes: true,
            read_only: false,
            log_is_empty: false,
            fence: None,
            keys: Some(server.keys),
        }
    }

    pub(crate) fn probe(&mut self, port: u16) -> Option<Probed> {
        match self.servers.get(&port).map(|server| server.mood) {
            Some(mood @ (Mood::Serves | Mood::Loads)) => Some(Probed::Replied {
                health: if mood == Mood::Loads { Health::Loading } else { Health::Fine },
                facts: Some(Box::new(self.facts(port))),
                socket: None,
            }),
            Some(Mood::Silent) => None,
            Some(Mood::Refuses) | None => Some(Probed::Refused),
        }
    }

    pub(crate) fn obey(&mut self, port: u16, command: &Command) -> CommandResult {
        if self.servers[&port].mood != Mood::Serves {
            return CommandResult::Refused("it does not listen".to_owned());
        }
        if self.servers[&port].refuses_commands {
            return CommandResult::Refused("-NOPERM".to_owned());
        }
        let before = self.servers[&port].history.clone();
        let mut takes_over = false;
        match command {
            Command::Promote { .. } => {
                if self.servers[&port].copies_late {
                    self.server(port).broken = false;
                    self.facts(port);
                }
                self.promote_by_hand(port);
            }
            Command::Follow { master, .. } | Command::Demote { master, .. } => {
                self.server(port).follows = Some(master.port());
                takes_over = true;
            }
            Command::Part | Command::Pause { .. } | Command::Unpause | Command::Fence { .. } => {}
        }
        let mut facts = self.facts(port);
        if takes_over {
            // It answers before it has taken anything over.
            facts.replication_id = Some(ReplicationId(before.into()));
        }
        CommandResult::Done { facts: Box::new(facts), warnings: Vec::new() }
    }

    pub(crate) fn promote_by_hand(&mut self, port: u16) {
        self.promotions += 1;
        let history = format!("h{}", self.promotions);
        let server = self.server(port);
        server.follows = None;
        server.second = Some(std::mem::replace(&mut server.history, history));
    }

    pub(crate) fn kill(&mut self, port: u16) {
        self.server(port).mood = Mood::Refuses;
        self.handle(Event::Ended { addr: addr(port) });
        self.pass(20);
    }

    pub(crate) fn hang(&mut self, port: u16) {
        self.server(port).mood = Mood::Silent;
    }

    /// It starts again as what it was told to be at last.
    pub(crate) fn start(&mut self, port: u16) {
        self.server(port).mood = Mood::Serves;
        self.pass(3000);
    }

    pub(crate) fn view(&self) -> GroupView {
        self.fleet.view(self.now, &group()).expect("it is guarded")
    }

    pub(crate) fn entry(&self) -> &GroupEntry {
        self.fleet.record().entry(&group()).expect("it is guarded")
    }

    pub(crate) fn master(&self) -> u16 {
        self.entry().master.port()
    }

    pub(crate) fn of_kind(&self, kind: Kind) -> Vec<&HistoryEntry> {
        let history = self.fleet.record().history(&group());
        history.iter().filter(|entry| entry.kind == kind).collect()
    }

    /// Another node commits a change.
    pub(crate) fn commit(&mut self, change: impl FnOnce(&mut GroupEntry)) {
        let mut entry = self.entry().clone();
        change(&mut entry);
        let expect = self.fleet.record().revision(&group());
        let change = Change {
            group: group(),
            expect,
            what: String::new(),
            entry: Some(entry),
            history: None,
        };
        self.handle(Event::Committed { id: None, changes: vec![change] });
    }

    pub(crate) fn pause(&mut self, until: Option<Time>) {
        let reason = Some("works on the switch".to_owned());
        let pause = Request::Pause { group: Some(group()), reason, until };
        assert_eq!(self.ask(pause), Answer::Done);
        assert_eq!(self.view().status, StatusView::Paused);
    }

    pub(crate) fn resume(&mut self) {
        assert_eq!(self.ask(Request::Resume(group())), Answer::Done);
        self.pass(1000);
        assert_eq!(self.entry().status, Status::Active);
    }
}

pub(crate) fn fleet(me: &str, policy: &Policy) -> Fleet {
    let told = HookEvent::ALL.into_iter().collect();
    let policies = Policies { default: policy.clone(), told, ..Policies::default() };
    Fleet::new(NodeId::new(me), policies)
}
