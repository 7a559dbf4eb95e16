//! What operators ask of a group, at the level of the fleet: a pause, its end, and what was changed by hand meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use failover_core::action::{Action, Command};
use failover_core::addr::Addr;
use failover_core::event::{
    Answer, CommandResult, Event, GroupSpec, Health, Probed, RefusalCode, Request,
};
use failover_core::fleet::{Fleet, Policies};
use failover_core::instance::{Facts, Flavor, Link, ReplicationId, Role};
use failover_core::node::{GroupName, Leadership, NodeId, Token};
use failover_core::notice::What;
use failover_core::policy::Policy;
use failover_core::record::{Change, GroupEntry, HistoryEntry, Kind, Outcome, Status};
use failover_core::time::Time;
use failover_core::view::{GroupView, StatusView};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Serves,
    Refuses,
    Silent,
}

/// A server that does what it is told and replicates in no time.
#[derive(Clone, Debug)]
struct Server {
    mood: Mood,
    follows: Option<u16>,
    history: String,
    second: Option<String>,
    offset: u64,
    priority: u32,
    /// A link that does not come up although its master serves.
    broken: bool,
}

/// A node that leads alone, with a group of three.
struct Desk {
    fleet: Fleet,
    policy: Policy,
    now: Time,
    servers: BTreeMap<u16, Server>,
    commands: Vec<(u16, Command)>,
    answers: Vec<Answer>,
    told: Vec<What>,
    promotions: u32,
}

fn addr(port: u16) -> Addr {
    Addr::new("127.0.0.1", port).expect("an address")
}

fn group() -> GroupName {
    GroupName::from(&addr(1))
}

impl Desk {
    fn new() -> Self {
        Self::with(Policy { max_down_time: Duration::from_secs(1), ..Policy::default() })
    }

    fn with(policy: Policy) -> Self {
        let server = |follows| Server {
            mood: Mood::Serves,
            follows,
            history: "h0".to_owned(),
            second: None,
            offset: 100,
            priority: 100,
            broken: false,
        };
        let mut desk = Self {
            fleet: fleet(&policy),
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
            promotions: 0,
        };
        desk.lead();
        let spec = GroupSpec { name: None, master: addr(1), replicas: Vec::new() };
        assert_eq!(desk.ask(Request::Add(vec![spec])), Answer::Done);
        desk.pass(5000);
        assert_eq!(desk.view().diagnosis.name, "Healthy");
        desk
    }

    fn lead(&mut self) {
        self.handle(Event::Voters(vec![NodeId::new("me")]));
        self.handle(Event::Leadership(Leadership::Leader(Token(1))));
    }

    /// Another process of the program, with the record that there is.
    fn restart(&mut self) {
        let record = self.fleet.record().clone();
        self.fleet = fleet(&self.policy);
        self.handle(Event::Restored(record));
        self.lead();
    }

    fn handle(&mut self, event: Event) {
        self.fleet.handle(self.now, event);
        self.drain();
    }

    fn ask(&mut self, request: Request) -> Answer {
        self.handle(Event::Request { id: 1, request });
        self.answers.pop().expect("an answer")
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(at) = self.fleet.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.fleet.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn drain(&mut self) {
        while let Some(action) = self.fleet.poll() {
            let event = match action {
                Action::Propose { id, changes, .. } => Event::Committed { id: Some(id), changes },
                Action::Probe { addr, seq, .. } => {
                    let Some(outcome) = self.probe(addr.port()) else { continue };
                    Event::Probed { addr, seq, outcome }
                }
                Action::Command { group, id, addr, command, .. } => {
                    let result = self.obey(addr.port(), &command);
                    self.commands.push((addr.port(), command));
                    Event::Commanded { group, id, result }
                }
                Action::Vet { group, id, .. } => Event::Vetted { group, id, veto: None },
                Action::Answer { answer, .. } => {
                    self.answers.push(answer);
                    continue;
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

    fn server(&mut self, port: u16) -> &mut Server {
        self.servers.get_mut(&port).expect("there is one")
    }

    fn facts(&mut self, port: u16) -> Facts {
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
                let history = self.servers[&of].history.clone();
                self.server(port).history = history;
                Role::Replica { master: addr(of), link: Link::Up { last_io_secs: 0 } }
            }
            Some(of) => {
                Role::Replica { master: addr(of), link: Link::Down { since_secs: Some(0) } }
            }
        };
        let server = &self.servers[&port];
        Facts {
            asked_at: self.now,
            flavor: Flavor::Redis,
            version: "7.0.15".into(),
            run_id: Some(port.to_string().into()),
            role,
            replication_id: Some(ReplicationId(server.history.clone().into())),
            second_replication_id: server.second.clone().map(|id| ReplicationId(id.into())),
            offset: server.offset,
            priority: server.priority,
            ping_period_secs: Some(10),
            can_pause_writes: true,
        }
    }

    fn probe(&mut self, port: u16) -> Option<Probed> {
        match self.servers.get(&port).map(|server| server.mood) {
            Some(Mood::Serves) => Some(Probed::Replied {
                health: Health::Fine,
                facts: Some(Box::new(self.facts(port))),
                socket: None,
            }),
            Some(Mood::Silent) => None,
            Some(Mood::Refuses) | None => Some(Probed::Refused),
        }
    }

    fn obey(&mut self, port: u16, command: &Command) -> CommandResult {
        if self.servers[&port].mood != Mood::Serves {
            return CommandResult::Refused("it does not listen".to_owned());
        }
        match command {
            Command::Promote { .. } => self.promote_by_hand(port),
            Command::Follow { master, .. } | Command::Demote { master, .. } => {
                self.server(port).follows = Some(master.port());
            }
            Command::Pause { .. } | Command::Unpause => {}
        }
        CommandResult::Done { facts: Box::new(self.facts(port)), warnings: Vec::new() }
    }

    fn promote_by_hand(&mut self, port: u16) {
        self.promotions += 1;
        let history = format!("h{}", self.promotions);
        let server = self.server(port);
        server.follows = None;
        server.second = Some(std::mem::replace(&mut server.history, history));
    }

    fn kill(&mut self, port: u16) {
        self.server(port).mood = Mood::Refuses;
        self.handle(Event::Ended { addr: addr(port) });
        self.pass(20);
    }

    fn hang(&mut self, port: u16) {
        self.server(port).mood = Mood::Silent;
    }

    /// It starts again as what it was told to be at last.
    fn start(&mut self, port: u16) {
        self.server(port).mood = Mood::Serves;
        self.pass(3000);
    }

    fn view(&self) -> GroupView {
        self.fleet.view(self.now, &group()).expect("it is guarded")
    }

    fn entry(&self) -> &GroupEntry {
        self.fleet.record().entry(&group()).expect("it is guarded")
    }

    fn master(&self) -> u16 {
        self.entry().master.port()
    }

    fn of_kind(&self, kind: Kind) -> Vec<&HistoryEntry> {
        let history = self.fleet.record().history(&group());
        history.iter().filter(|entry| entry.kind == kind).collect()
    }

    /// Another node commits a change.
    fn commit(&mut self, change: impl FnOnce(&mut GroupEntry)) {
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

    fn pause(&mut self, until: Option<Time>) {
        let reason = Some("works on the switch".to_owned());
        let pause = Request::Pause { group: Some(group()), reason, until };
        assert_eq!(self.ask(pause), Answer::Done);
        assert_eq!(self.view().status, StatusView::Paused);
    }

    fn resume(&mut self) {
        assert_eq!(self.ask(Request::Resume(group())), Answer::Done);
        self.pass(1000);
        assert_eq!(self.entry().status, Status::Active);
    }
}

fn fleet(policy: &Policy) -> Fleet {
    let policies = Policies { default: policy.clone(), ..Policies::default() };
    Fleet::new(NodeId::new("me"), policies)
}

#[test]
fn to_a_paused_group_nothing_is_done_and_everything_is_seen_also_after_a_restart() {
    let mut desk = Desk::new();
    desk.pause(None);
    desk.kill(1);
    desk.pass(5000);
    desk.restart();
    desk.pass(5000);
    assert_eq!((desk.master(), desk.commands.len()), (1, 0));
    let view = desk.view();
    assert_eq!(view.diagnosis.name, "MasterCrashed");
    let why = view.diagnosis.not_acting_because.expect("a sentence");
    assert!(why.contains("paused") && why.contains("works on the switch"), "{why}");
    assert_eq!(view.status_reason, Some(why));

    desk.resume();
    assert_eq!(desk.entry().epoch, 1);
    assert_eq!(desk.of_kind(Kind::Failover).len(), 1);
    assert_ne!(desk.master(), 1);
}

#[test]
fn a_pause_ends_by_itself_also_under_another_process() {
    let mut desk = Desk::new();
    let until = desk.now + Duration::from_secs(10);
    desk.pause(Some(until));
    let view = desk.view();
    assert!(view.status_reason.expect("a sentence").contains(&until.to_string()));
    desk.kill(1);
    desk.pass(9000);
    assert_eq!((desk.master(), desk.view().status), (1, StatusView::Paused));
    desk.pass(1000);
    assert_eq!((desk.master() != 1, desk.view().status), (true, StatusView::Active));

    let mut desk = Desk::new();
    let until = desk.now + Duration::from_secs(10);
    desk.pause(Some(until));
    desk.now = until + Duration::from_secs(60);
    desk.restart();
    desk.pass(1000);
    assert_eq!(desk.view().status, StatusView::Active);
    assert_eq!((desk.master(), desk.entry().epoch), (1, 0));
}

#[test]
fn a_replica_that_is_attached_during_a_pause_is_known_at_its_end() {
    let mut desk = Desk::new();
    desk.pause(None);
    let another = desk.servers[&2].clone();
    desk.servers.insert(4, another);
    desk.pass(3000);
    assert!(desk.entry().instances.contains_key(&addr(4)));
    assert_eq!(desk.view().status, StatusView::Paused);
}

#[test]
fn a_master_that_was_changed_by_hand_during_a_pause_is_adopted() {
    let mut desk = Desk::new();
    desk.pause(None);
    desk.promote_by_hand(2);
    for port in [1, 3] {
        desk.server(port).follows = Some(2);
    }
    desk.pass(20);
    desk.told.clear();
    desk.resume();
    assert_eq!((desk.master(), desk.entry().epoch, desk.commands.len()), (2, 1, 0));
    let adoptions = desk.of_kind(Kind::Adoption);
    assert_eq!(adoptions.len(), 1);
    assert_eq!((&adoptions[0].old_master, &adoptions[0].new_master), (&addr(1), &Some(addr(2))));
    assert_eq!((adoptions[0].outcome, adoptions[0].epoch), (Outcome::Done, 1));
    let changed = What::MasterChanged { old_master: addr(1), new_master: addr(2), epoch: 1 };
    assert!(desk.told.contains(&changed), "{:?}", desk.told);
    desk.pass(5000);
    assert_eq!(desk.view().diagnosis.name, "Healthy");
    assert_eq!(desk.of_kind(Kind::Adoption).len(), 1);
}

#[test]
fn a_master_that_was_replaced_by_hand_and_is_down_is_adopted_too_and_the_others_follow() {
    let mut desk = Desk::new();
    desk.pause(None);
    desk.kill(1);
    desk.promote_by_hand(2);
    desk.resume();
    assert_eq!((desk.master(), desk.of_kind(Kind::Adoption).len()), (2, 1));
    assert_eq!(desk.of_kind(Kind::Failover).len(), 0);
    desk.pass(5000);
    assert_eq!(desk.server(3).follows, Some(2), "who was left behind is brought along");
    desk.start(1);
    assert_eq!(desk.server(1).follows, Some(2), "and so is the old master when it returns");
}

#[test]
fn what_leaves_a_doubt_is_not_adopted() {
    // Two masters.
    let mut desk = Desk::new();
    desk.pause(None);
    desk.promote_by_hand(2);
    desk.resume();
    assert_eq!((desk.master(), desk.of_kind(Kind::Adoption).len()), (1, 0));
    assert_eq!(desk.view().diagnosis.name, "TwoMasters");

    // The recorded one is down, and there are two others.
    let mut desk = Desk::new();
    desk.pause(None);
    desk.kill(1);
    desk.promote_by_hand(2);
    desk.promote_by_hand(3);
    assert_eq!(desk.ask(Request::Resume(group())), Answer::Done);
    desk.pass(50);
    assert_eq!(desk.of_kind(Kind::Adoption).len(), 0);

    // A master with a history of its own, while the recorded one is down.
    let mut desk = Desk::new();
    desk.pause(None);
    desk.kill(1);
    desk.promote_by_hand(2);
    desk.server(2).second = None;
    desk.server(3).follows = Some(2);
    desk.resume();
    assert_eq!((desk.master(), desk.of_kind(Kind::Adoption).len()), (1, 0));

    // The recorded master still was one when it was asked last, and is silent since.
    let mut desk = Desk::new();
    desk.pause(None);
    desk.promote_by_hand(2);
    desk.hang(1);
    assert_eq!(desk.ask(Request::Resume(group())), Answer::Done);
    desk.pass(300);
    assert_eq!((desk.entry().status == Status::Active, desk.master()), (true, 1));
}

#[test]
fn what_is_being_done_is_finished_before_a_pause_and_a_halted_group_is_not_paused() {
    let mut desk = Desk::new();
    desk.servers.insert(2, Server { broken: true, ..desk.servers[&2].clone() });
    desk.servers.insert(3, Server { broken: true, ..desk.servers[&3].clone() });
    desk.kill(1);
    assert!(desk.entry().saga.is_some(), "a replica's link is waited for");
    let pause = |group| Request::Pause { group, reason: None, until: None };
    for which in [Some(group()), None] {
        let answer = desk.ask(pause(which));
        let Answer::Refused { code, message } = answer else { panic!("{answer:?}") };
        assert_eq!(code, RefusalCode::Busy);
        assert!(message.contains("finished first"), "{message}");
    }
    let unknown = GroupName::new("nobody").expect("a name");
    let answer = desk.ask(pause(Some(unknown)));
    assert!(matches!(answer, Answer::Refused { code: RefusalCode::UnknownGroup, .. }));

    let mut desk = Desk::new();
    let status = Status::Halted { reason: "it failed".to_owned(), at: desk.now };
    desk.commit(|entry| entry.status = status);
    let answer = desk.ask(pause(Some(group())));
    assert!(matches!(answer, Answer::Refused { code: RefusalCode::Refused, .. }));
    assert_eq!(desk.ask(pause(None)), Answer::Done);
    assert_eq!(desk.view().status, StatusView::Halted, "no pause ends a halt");
}

#[test]
fn all_groups_are_paused_and_resumed_at_once() {
    let mut desk = Desk::new();
    let other = Server { follows: None, ..desk.servers[&1].clone() };
    desk.servers.insert(9, other);
    let spec = GroupSpec { name: None, master: addr(9), replicas: Vec::new() };
    desk.ask(Request::Add(vec![spec]));
    desk.pass(3000);
    let statuses = |desk: &Desk| -> Vec<bool> {
        let paused = |entry: &GroupEntry| matches!(entry.status, Status::Paused { .. });
        desk.fleet.record().entries().map(|(_, entry)| paused(entry)).collect()
    };
    let pause = Request::Pause { group: None, reason: None, until: None };
    assert_eq!(desk.ask(pause), Answer::Done);
    assert_eq!(statuses(&desk), [true, true]);
    assert_eq!(desk.ask(Request::ResumeAll), Answer::Done);
    desk.pass(1000);
    assert_eq!(statuses(&desk), [false, false]);
    assert_eq!(desk.ask(Request::ResumeAll), Answer::Done);
}
