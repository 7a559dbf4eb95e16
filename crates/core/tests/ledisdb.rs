//! What is decided for servers that do not find out what they have in common, have no names for their processes, forget
//! their roles, and whose links say nothing: LedisDB. The test plays the servers and the broker.

use std::collections::BTreeMap;
use std::time::Duration;

use failover_core::action::{Action, Command, Keep};
use failover_core::addr::Addr;
use failover_core::event::{CommandResult, Event, GroupSpec, Health, Probed, Request};
use failover_core::fleet::{Fleet, Policies};
use failover_core::instance::{Facts, Flavor, Link, Role};
use failover_core::node::{GroupName, Leadership, NodeId, Token};
use failover_core::policy::Policy;
use failover_core::record::{FullCopy, GroupEntry, HistoryEntry, Kind, Outcome};
use failover_core::time::Time;
use failover_core::view::GroupView;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Serves,
    Refuses,
    /// No answer comes from its host.
    Unreachable,
    /// It accepts, and answers nothing.
    Hangs,
}

#[derive(Clone, Debug)]
struct Server {
    mood: Mood,
    follows: Option<u16>,
    offset: u64,
    read_only: bool,
    log_is_empty: bool,
    link: Link,
    /// What it was told while it did not answer, and will do when it wakes.
    late: Option<Command>,
    /// It takes orders and says nothing of it, and does them later.
    is_deaf: bool,
    /// Its answer to a promotion does not say how far it was.
    is_vague: bool,
    /// It is another process with nothing, when the next order comes.
    begins_anew: bool,
    /// It refuses to leave its master, and to follow another one.
    stays: bool,
}

struct Desk {
    fleet: Fleet,
    policy: Policy,
    now: Time,
    servers: BTreeMap<u16, Server>,
    commands: Vec<(u16, Command)>,
    token: u64,
}

const UP: Link = Link::Up { last_io_secs: 0 };
const LOST: Link = Link::Down { since_secs: Some(0) };

fn addr(port: u16) -> Addr {
    Addr::new("127.0.0.1", port).expect("an address")
}

fn group() -> GroupName {
    GroupName::from(&addr(1))
}

fn fleet(policy: &Policy) -> Fleet {
    let policies = Policies { default: policy.clone(), ..Policies::default() };
    Fleet::new(NodeId::new("me"), policies)
}

impl Desk {
    /// Three in step, of which 1 is the master.
    fn new() -> Self {
        let mut desk = Self::unguarded();
        desk.add(Vec::new());
        desk.pass(3000);
        assert_eq!(desk.view().diagnosis.name, "Healthy");
        desk
    }

    /// The same before anybody wants them guarded.
    fn unguarded() -> Self {
        let policy = Policy {
            check_interval: Duration::from_millis(100),
            max_down_time: Duration::from_secs(1),
            cooldown: Duration::ZERO,
            ..Policy::default()
        };
        let server = |follows| Server {
            mood: Mood::Serves,
            follows,
            offset: 100,
            read_only: false,
            log_is_empty: false,
            link: UP,
            late: None,
            is_deaf: false,
            is_vague: false,
            begins_anew: false,
            stays: false,
        };
        let servers = [(1, server(None)), (2, server(Some(1))), (3, server(Some(1)))];
        let mut desk = Self {
            fleet: fleet(&policy),
            policy,
            now: Time::from_millis(1_000_000),
            servers: servers.into(),
            commands: Vec::new(),
            token: 0,
        };
        desk.lead();
        desk
    }

    fn add(&mut self, replicas: Vec<Addr>) {
        let spec = GroupSpec { name: None, master: addr(1), replicas };
        self.handle(Event::Request { id: 1, request: Request::Add(vec![spec]) });
    }

    fn lead(&mut self) {
        self.token += 1;
        self.handle(Event::Voters(vec![NodeId::new("me")]));
        self.handle(Event::Leadership(Leadership::Leader(Token(self.token))));
    }

    /// Another process of the program leads, with the record that there is.
    fn another_leader(&mut self) {
        let record = self.fleet.record().clone();
        self.fleet = fleet(&self.policy);
        self.handle(Event::Restored(record));
        self.lead();
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
    }

    fn drain(&mut self) {
        let mut rounds = 0;
        while let Some(action) = self.fleet.poll() {
            rounds += 1;
            assert!(rounds < 10_000, "it never comes to rest: {action:?}");
            let event = match action {
                Action::Propose { id, changes, .. } => Event::Committed { id: Some(id), changes },
                Action::Probe { addr, fresh, seq, .. } => {
                    let outcome = match self.servers[&addr.port()].mood {
                        Mood::Serves => Probed::Replied {
                            health: Health::Fine,
                            facts: Some(Box::new(self.facts(addr.port()))),
                            socket: None,
                        },
                        Mood::Refuses => Probed::Refused,
                        Mood::Unreachable => Probed::Unreachable("no route".to_owned()),
                        Mood::Hangs if fresh => {
                            self.fleet.handle(self.now, Event::Accepted { addr });
                            continue;
                        }
                        Mood::Hangs => continue,
                    };
                    Event::Probed { addr, seq, outcome }
                }
                Action::Command { group, id, addr, command, .. } => {
                    let result = self.obey(addr.port(), &command);
                    self.commands.push((addr.port(), command));
                    Event::Commanded { group, id, result }
                }
                Action::Vet { group, id, .. } => Event::Vetted { group, id, veto: None },
                Action::Answer { .. }
                | Action::Tell { .. }
                | Action::Publish(_)
                | Action::AskPeer { .. }
                | Action::Hint { .. }
                | Action::Forget { .. } => continue,
            };
            self.fleet.handle(self.now, event);
        }
    }

    fn server(&mut self, port: u16) -> &mut Server {
        self.servers.get_mut(&port).expect("there is one")
    }

    fn facts(&self, port: u16) -> Facts {
        let server = &self.servers[&port];
        Facts {
            asked_at: self.now,
            flavor: Flavor::Ledisdb,
            version: "0.5".into(),
            run_id: None,
            role: match server.follows {
                // It has forgotten its slaves more often than not, but here two of them are to be found.
                None => Role::Master { replicas: vec![addr(2), addr(3)] },
                Some(of) => Role::Replica { master: addr(of), link: server.link.clone() },
            },
            replication_id: None,
            second_replication_id: None,
            second_offset: None,
            offset: server.offset,
            priority: 100,
            ping_period_secs: None,
            can_pause_writes: true,
            keys: None,
            fence: None,
            read_only: server.follows.is_none() && server.read_only,
            log_is_empty: server.log_is_empty,
        }
    }

    fn obey(&mut self, port: u16, command: &Command) -> CommandResult {
        let server = self.server(port);
        match server.mood {
            Mood::Serves => {}
            Mood::Refuses | Mood::Unreachable | Mood::Hangs => {
                return CommandResult::Refused("it did not answer; nothing was sent".to_owned());
            }
        }
        if server.is_deaf {
            server.late = Some(command.clone());
            server.mood = Mood::Hangs;
            self.now = self.now + Duration::from_millis(250);
            return CommandResult::Unknown("no reply came before the deadline".to_owned());
        }
        if std::mem::take(&mut server.begins_anew) {
            server.offset = 0;
        }
        let was = server.offset;
        if let Err(why) = self.act(port, command) {
            return CommandResult::Refused(why);
        }
        let mut facts = self.facts(port);
        let asks = matches!(command, Command::Promote { .. } | Command::Follow { .. });
        if asks && !self.servers[&port].is_vague {
            facts.second_offset = Some(was);
        }
        CommandResult::Done { facts: Box::new(facts), warnings: Vec::new() }
    }

    fn act(&mut self, port: u16, command: &Command) -> Result<(), String> {
        let server = self.server(port);
        match command {
            Command::Part | Command::Follow { .. } if server.stays => {
                return Err("it stays".to_owned());
            }
            Command::Promote { run_id, at_least, .. } => {
                assert_eq!(*run_id, None, "it has no name for its process");
                if at_least.is_some_and(|least| server.offset < least) {
                    return Err("it has less than when it was elected".to_owned());
                }
                (server.follows, server.read_only) = (None, false);
            }
            Command::Follow { master, keep, .. } => {
                match keep {
                    Keep::Common => panic!("it does not find out what it has in common"),
                    Keep::UpTo(at) if server.offset > *at => return Err("it is ahead".to_owned()),
                    Keep::UpTo(_) => server.link = UP,
                    // Until the test says that it has its copy.
                    Keep::Nothing => (server.link, server.offset) = (Link::Syncing, 0),
                }
                server.follows = Some(master.port());
            }
            Command::Pause { .. } | Command::Demote { .. } | Command::Part => {
                (server.follows, server.read_only) = (None, true);
            }
            Command::Unpause => server.read_only = false,
            Command::Fence { .. } => panic!("it has no such setting"),
        }
        Ok(())
    }

    /// A full copy is complete.
    fn copied(&mut self, port: u16) {
        let of = self.servers[&port].follows.expect("it follows somebody");
        let offset = self.servers[&of].offset;
        let server = self.server(port);
        assert_eq!(server.link, Link::Syncing, "{port} was not told to copy");
        (server.link, server.offset, server.log_is_empty) = (UP, offset, true);
    }

    /// Everybody else loses the link to one that dies.
    fn kill(&mut self, port: u16) {
        self.server(port).mood = Mood::Refuses;
        for server in self.servers.values_mut().filter(|server| server.follows == Some(port)) {
            server.link = LOST;
        }
        self.handle(Event::Ended { addr: addr(port) });
        self.pass(50);
    }

    fn starts(&mut self, port: u16, follows: Option<u16>) {
        let server = self.server(port);
        (server.mood, server.follows, server.read_only) = (Mood::Serves, follows, false);
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

    fn copy(&self, port: u16) -> Option<FullCopy> {
        self.entry().instances[&addr(port)].copy
    }

    fn of_kind(&self, kind: Kind) -> Vec<&HistoryEntry> {
        let history = self.fleet.record().history(&group());
        history.iter().filter(|entry| entry.kind == kind).collect()
    }

    /// What an instance was told since the last time, without the master that it was told of.
    fn told(&mut self, port: u16) -> Vec<&'static str> {
        let word = |command: &Command| match command {
            Command::Promote { .. } => "promote",
            Command::Follow { keep: Keep::Nothing, .. } => "copy",
            Command::Follow { .. } => "follow",
            Command::Part => "part",
            Command::Pause { .. } => "pause",
            Command::Unpause => "unpause",
            Command::Demote { .. } => "demote",
            Command::Fence { .. } => "fence",
        };
        let commands = self.commands.iter();
        let told =
            commands.filter(|(to, _)| *to == port).map(|(_, command)| word(command)).collect();
        self.commands.retain(|(to, _)| *to != port);
        told
    }
}

#[test]
fn who_surely_began_alike_keeps_what_it_has_and_everyone_else_copies() {
    let mut desk = Desk::new();
    desk.server(2).offset = 110;
    desk.pass(500);
    desk.kill(1);
    assert_eq!((desk.master(), desk.told(2), desk.told(3)), (2, vec!["promote"], vec!["follow"]));
    assert_eq!((desk.copy(1), desk.copy(3)), (Some(FullCopy::Owed), None));
    // The old one comes back, with as many log entries, and others.
    desk.server(1).offset = 110;
    desk.starts(1, None);
    desk.pass(500);
    assert_eq!((desk.told(1), desk.copy(1)), (vec!["copy"], Some(FullCopy::Told)));
    assert_eq!(desk.of_kind(Kind::Demotion)[0].outcome, Outcome::Done);
    let eligible = |desk: &Desk| {
        let view = desk.view();
        view.instances.iter().find(|seen| seen.addr == addr(1)).is_some_and(|seen| seen.eligible)
    };
    // However long it takes, nothing else is told to it.
    desk.pass(60_000);
    assert!(desk.told(1).is_empty() && !eligible(&desk));
    desk.copied(1);
    desk.pass(900);
    assert!(desk.told(1).is_empty(), "its link is up also for the moment before a copy");
    desk.pass(1000);
    assert_eq!((desk.told(1), desk.copy(1)), (vec!["part"], Some(FullCopy::Parted)));
    assert!(eligible(&desk), "it has all of its copy");
    assert_eq!(desk.view().diagnosis.name, "Healthy");
    desk.pass(3000);
    assert_eq!((desk.told(1), desk.copy(1)), (vec!["follow"], None));
    let repairs = desk.of_kind(Kind::Repair);
    assert_eq!(repairs.len(), 1, "{repairs:?}");
    desk.pass(3_600_000);
    assert!(desk.commands.is_empty(), "{:?}", desk.commands);
}

#[test]
fn a_master_that_was_dead_from_the_first_look_on_is_replaced_by_the_same_rules() {
    let mut desk = Desk::unguarded();
    desk.kill(1);
    desk.add(vec![addr(2), addr(3)]);
    desk.pass(3000);
    assert_eq!((desk.master(), desk.told(2), desk.told(3)), (2, vec!["promote"], vec!["follow"]));
    desk.starts(1, None);
    desk.pass(500);
    assert_eq!(desk.told(1), ["copy"]);
}

#[test]
fn one_that_is_parted_takes_over_when_its_master_dies() {
    let mut desk = Desk::new();
    desk.kill(3);
    desk.kill(1);
    desk.starts(1, None);
    desk.pass(500);
    desk.copied(1);
    desk.pass(2000);
    assert_eq!(desk.copy(1), Some(FullCopy::Parted));
    desk.kill(2);
    desk.pass(500);
    assert_eq!((desk.master(), desk.copy(1)), (1, None));
    assert_eq!(desk.told(1), ["copy", "part", "promote"]);
    // Its log is empty: whoever follows it now has to copy, whatever it has.
    desk.starts(3, Some(1));
    desk.pass(500);
    assert_eq!(desk.told(3), ["copy"]);
}

#[test]
fn the_next_leader_goes_on_with_a_copy_where_it_was() {
    let mut desk = Desk::new();
    desk.kill(1);
    desk.starts(1, None);
    desk.pass(500);
    desk.another_leader();
    desk.pass(2000);
    assert_eq!(desk.told(1), ["copy"], "it is not told twice");
    desk.copied(1);
    desk.pass(1500);
    assert_eq!(desk.told(1), ["part"]);
    desk.another_leader();
    desk.pass(5000);
    assert_eq!((desk.told(1), desk.copy(1)), (vec!["follow"], None));
    desk.pass(60_000);
    assert!(desk.told(1).is_empty());
}

#[test]
fn one_that_restarts_in_the_middle_of_its_copy_begins_anew() {
    let mut desk = Desk::new();
    desk.kill(1);
    desk.starts(1, None);
    desk.pass(500);
    assert_eq!(desk.told(1), ["copy"]);
    // Its flags lead it to the right master, and its link is up, with a part of the data.
    desk.kill(1);
    desk.server(1).offset = 50;
    let new = desk.master();
    desk.starts(1, Some(new));
    desk.server(1).link = UP;
    desk.pass(500);
    assert_eq!(desk.told(1), ["copy"]);
}

#[test]
fn a_promotion_that_is_done_later_is_undone_and_costs_a_copy() {
    let mut desk = Desk::new();
    desk.server(2).is_deaf = true;
    desk.server(2).offset = 120;
    desk.pass(500);
    desk.kill(1);
    desk.pass(3000);
    assert_eq!((desk.master(), desk.told(2), desk.told(3)), (3, vec!["promote"], vec!["promote"]));
    assert_eq!(desk.copy(2), Some(FullCopy::Owed));
    // It wakes, and does what it was told.
    let late = desk.server(2).late.take().expect("it was told");
    desk.server(2).is_deaf = false;
    desk.server(2).mood = Mood::Serves;
    desk.act(2, &late).expect("nothing is in the way");
    desk.pass(500);
    assert_eq!((desk.told(2), desk.servers[&2].follows), (vec!["copy"], Some(3)));
    assert_eq!(desk.master(), 3);
}

#[test]
fn without_a_word_of_how_far_the_new_master_was_everyone_copies_one_after_the_other() {
    let mut desk = Desk::new();
    desk.server(2).is_vague = true;
    desk.server(2).offset = 110;
    desk.pass(500);
    desk.kill(1);
    desk.pass(500);
    assert_eq!((desk.master(), desk.told(3)), (2, vec!["copy"]));
    desk.starts(1, Some(2));
    desk.server(1).link = UP;
    desk.pass(5000);
    assert!(desk.told(1).is_empty(), "one at a time");
    desk.copied(3);
    desk.pass(10_000);
    assert_eq!((desk.told(3), desk.told(1)), (vec!["part", "follow"], vec!["copy"]));
}

#[test]
fn a_link_that_is_up_is_no_news_and_a_growing_offset_is() {
    let mut desk = Desk::new();
    desk.server(1).mood = Mood::Unreachable;
    desk.handle(Event::Ended { addr: addr(1) });
    // Its replicas get writes from it.
    for _ in 0..50 {
        for port in [2, 3] {
            desk.server(port).offset += 1;
        }
        desk.pass(100);
    }
    assert_eq!((desk.master(), desk.view().diagnosis.name), (1, "MasterUnreachableFromHere"));
    desk.pass(15_000);
    assert_eq!(desk.master(), 2, "{:?}", desk.view().diagnosis);
    // One that is idle is not waited for longer.
    let mut desk = Desk::new();
    desk.server(1).mood = Mood::Unreachable;
    desk.handle(Event::Ended { addr: addr(1) });
    desk.pass(3000);
    assert_eq!(desk.master(), 2);
}

#[test]
fn roles_that_were_forgotten_over_a_power_cut_are_those_of_the_record_again() {
    let mut desk = Desk::new();
    desk.kill(1);
    desk.server(2).offset = 200;
    desk.server(3).offset = 200;
    desk.pass(1000);
    assert_eq!(desk.master(), 2);
    desk.kill(3);
    desk.kill(2);
    desk.commands.clear();
    // All of them are what their flags say.
    for (port, follows) in [(1, None), (2, Some(1)), (3, Some(1))] {
        desk.starts(port, follows);
        desk.server(port).link = UP;
    }
    desk.pass(1000);
    assert_eq!((desk.master(), desk.told(2)), (2, vec!["promote"]));
    assert_eq!(desk.told(1), ["copy"]);
    desk.copied(1);
    desk.pass(5000);
    assert_eq!(desk.told(3), ["copy"], "it followed a master that had less");
}

#[test]
fn a_master_that_somebody_made_by_hand_is_adopted_when_the_old_one_follows_it() {
    let mut desk = Desk::new();
    desk.server(2).follows = None;
    desk.server(1).follows = Some(2);
    desk.pass(1000);
    assert_eq!(desk.master(), 2);
    assert_eq!(desk.of_kind(Kind::Adoption).len(), 1);
    // Whoever made it one by hand does not say from where on the others differ.
    assert_eq!((desk.told(1), desk.told(2)), (vec!["copy"], vec![]));
    desk.copied(1);
    desk.pass(10_000);
    desk.copied(3);
    desk.pass(10_000);
    assert_eq!(
        (desk.told(1), desk.told(3)),
        (vec!["part", "follow"], vec!["copy", "part", "follow"])
    );
    assert_eq!([1, 2, 3].map(|port| desk.copy(port)), [None; 3]);
}

#[test]
fn what_a_second_master_took_is_counted_in_log_entries() {
    let mut desk = Desk::new();
    desk.server(3).follows = None;
    desk.pass(1000);
    desk.server(3).offset += 7;
    desk.pass(15_000);
    assert_eq!(desk.told(3), ["copy"]);
    let demotion = desk.of_kind(Kind::Demotion)[0];
    assert_eq!(demotion.bytes_possibly_lost, Some(7), "{demotion:?}");
    assert!(demotion.reason.contains("7 log entries were written to it"), "{}", demotion.reason);
}

#[test]
fn a_replica_that_is_pointed_away_and_back_has_to_copy() {
    let mut desk = Desk::new();
    desk.server(3).follows = Some(99);
    desk.server(3).link = LOST;
    desk.pass(9000);
    assert!(desk.commands.is_empty());
    desk.pass(3000);
    assert_eq!(desk.told(3), ["copy"]);
}

#[test]
fn a_replica_that_is_ahead_of_its_master_copies_after_a_while() {
    let mut desk = Desk::new();
    desk.server(3).offset = 105;
    desk.pass(9000);
    assert!(desk.commands.is_empty(), "{:?}", desk.commands);
    desk.pass(3000);
    assert_eq!(desk.told(3), ["copy"]);
    // One that is read a moment later than its master may have more each time.
    let mut desk = Desk::new();
    for _ in 0..300 {
        for server in desk.servers.values_mut() {
            server.offset += 1;
        }
        desk.pass(50);
    }
    assert!(desk.commands.is_empty(), "{:?}", desk.commands);
}

#[test]
fn a_master_with_less_than_it_had_is_replaced_by_who_has_it() {
    let mut desk = Desk::new();
    desk.server(1).offset = 0;
    desk.pass(1000);
    assert_eq!(
        (desk.master(), desk.of_kind(Kind::Failover)[0].cause.as_str()),
        (2, "MasterRestartedEmpty")
    );
    assert_eq!((desk.told(1), desk.told(3)), (vec!["copy"], vec!["follow"]));
}

#[test]
fn a_switchover_fences_first_and_copies_nothing() {
    let mut desk = Desk::new();
    let timeout = Duration::from_secs(2);
    let request =
        Request::Switchover { group: group(), to: Some(addr(3)), timeout, dry_run: false };
    desk.handle(Event::Request { id: 2, request });
    desk.pass(1000);
    assert_eq!(desk.master(), 3);
    let order: Vec<u16> = desk.commands.iter().map(|(to, _)| *to).collect();
    assert_eq!(order[..3], [1, 1, 3], "{:?}", desk.commands);
    assert_eq!(desk.told(1), ["pause", "demote", "follow"]);
    assert_eq!((desk.told(3), desk.told(2)), (vec!["promote"], vec!["follow"]));
    assert_eq!([1, 2, 3].map(|port| desk.copy(port)), [None; 3]);
    desk.pass(60_000);
    assert!(desk.commands.is_empty());
}

#[test]
fn a_switchover_that_is_given_up_lets_writes_go_on() {
    let mut desk = Desk::new();
    // It never has everything.
    desk.server(1).offset = 150;
    let timeout = Duration::from_secs(2);
    let request =
        Request::Switchover { group: group(), to: Some(addr(3)), timeout, dry_run: false };
    desk.handle(Event::Request { id: 2, request });
    desk.pass(10_000);
    assert_eq!((desk.master(), desk.told(1)), (1, vec!["pause", "unpause"]));
    assert_eq!(desk.of_kind(Kind::Switchover)[0].outcome, Outcome::Undone);
}

/// Its connection ends, and the next one stands at once: it is another process, or is not.
fn blinks(desk: &mut Desk, port: u16) {
    desk.handle(Event::Ended { addr: addr(port) });
}

#[test]
fn a_candidate_that_began_anew_with_nothing_is_not_promoted() {
    let mut desk = Desk::new();
    desk.server(2).offset = 110;
    desk.server(2).begins_anew = true;
    desk.pass(500);
    desk.kill(1);
    desk.pass(500);
    assert_eq!((desk.master(), desk.told(3)), (3, vec!["promote"]));
    assert_eq!(desk.told(2), ["promote", "copy"], "it refused");
}

#[test]
fn a_master_that_came_back_with_nothing_as_a_replica_is_replaced_by_whoever_has_its_data() {
    let mut desk = Desk::new();
    desk.kill(1);
    assert_eq!(desk.master(), 2);
    desk.server(2).offset = 300;
    desk.server(3).offset = 300;
    desk.pass(1000);
    desk.commands.clear();
    // Its flags point at the dead one, and its data is gone.
    desk.starts(2, Some(1));
    (desk.server(2).offset, desk.server(2).link) = (0, Link::Down { since_secs: None });
    desk.server(3).link = LOST;
    blinks(&mut desk, 2);
    desk.pass(1000);
    assert_eq!((desk.master(), desk.told(3), desk.told(2)), (3, vec!["promote"], vec!["copy"]));
}

#[test]
fn what_is_a_master_after_its_connection_ended_was_not_made_one_by_hand() {
    let mut desk = Desk::new();
    desk.starts(3, None);
    blinks(&mut desk, 3);
    desk.pass(500);
    assert_eq!(desk.told(3), ["copy"]);
    let demotion = desk.of_kind(Kind::Demotion)[0];
    assert!(demotion.reason.contains("returned as a master"), "{}", demotion.reason);
}

#[test]
fn an_order_of_unknown_end_is_not_done_because_its_server_follows() {
    let mut desk = Desk::new();
    desk.kill(1);
    desk.server(1).is_deaf = true;
    desk.server(1).offset = 130;
    desk.starts(1, None);
    desk.pass(300);
    assert_eq!((desk.told(1), desk.servers[&1].mood), (vec!["copy"], Mood::Hangs));
    // It never read the order, and its next process follows by its flags, with what it had.
    let new = desk.master();
    desk.server(new).offset = 140;
    desk.server(1).is_deaf = false;
    desk.server(1).late = None;
    desk.starts(1, Some(new));
    desk.server(1).link = UP;
    desk.pass(5000);
    assert_eq!((desk.told(1), desk.copy(1)), (vec!["copy"], Some(FullCopy::Told)));
}

#[test]
fn one_that_goes_away_while_it_is_parted_holds_nobody_up() {
    let mut desk = Desk::new();
    desk.kill(1);
    desk.starts(1, None);
    desk.pass(500);
    desk.copied(1);
    desk.pass(2000);
    assert_eq!((desk.told(1), desk.copy(1)), (vec!["copy", "part"], Some(FullCopy::Parted)));
    desk.kill(1);
    desk.starts(3, None);
    blinks(&mut desk, 3);
    desk.pass(1000);
    assert_eq!(desk.told(3).last(), Some(&"copy"));
}

#[test]
fn one_that_could_not_be_parted_is_demoted_without_a_wait() {
    let mut desk = Desk::new();
    desk.kill(1);
    desk.starts(1, None);
    desk.pass(500);
    desk.copied(1);
    desk.server(1).stays = true;
    desk.pass(60_000);
    let parts = desk.told(1).into_iter().filter(|told| *told == "part").count();
    assert!((4..8).contains(&parts), "each of {parts} fails, and the next one waits for longer");
    desk.starts(1, None);
    blinks(&mut desk, 1);
    desk.pass(500);
    assert_eq!(desk.told(1), ["copy"]);
}

#[test]
fn one_that_restarted_before_it_had_its_copy_is_told_again_by_the_next_leader() {
    let mut desk = Desk::new();
    desk.kill(1);
    desk.starts(1, None);
    desk.pass(500);
    assert_eq!((desk.told(1), desk.copy(1)), (vec!["copy"], Some(FullCopy::Told)));
    // It has what it had, its flags lead it to the right master, and nobody sees that it was away.
    desk.server(1).offset = 300;
    desk.server(1).link = UP;
    desk.another_leader();
    desk.pass(10_000);
    assert_eq!(desk.told(1), ["copy"]);
}

#[test]
fn a_second_master_is_not_left_alone_for_long_however_often_it_refused() {
    let mut desk = Desk::new();
    desk.kill(1);
    desk.starts(1, None);
    desk.server(1).stays = true;
    desk.pass(60_000);
    desk.told(1);
    desk.server(1).stays = false;
    desk.pass(6_000);
    assert_eq!(desk.told(1), ["copy"]);
}

#[test]
fn whoever_goes_on_behind_a_master_that_lost_its_data_copies_what_it_has_now() {
    let mut desk = Desk::new();
    for port in [2, 3] {
        desk.server(port).mood = Mood::Unreachable;
    }
    desk.pass(3000);
    desk.server(1).offset = 3;
    blinks(&mut desk, 1);
    desk.pass(1000);
    // It took more than it had before they are heard again.
    desk.server(1).offset = 150;
    for port in [2, 3] {
        (desk.server(port).mood, desk.server(port).offset) = (Mood::Serves, 150);
    }
    desk.pass(5000);
    assert_eq!((desk.master(), desk.told(1)), (1, vec![]));
    assert_eq!((desk.copy(2), desk.copy(3)), (Some(FullCopy::Told), Some(FullCopy::Owed)));
    desk.copied(2);
    desk.pass(10_000);
    desk.copied(3);
    desk.pass(10_000);
    let whole = vec!["copy", "part", "follow"];
    assert_eq!((desk.told(2), desk.told(3)), (whole.clone(), whole));
    desk.pass(3_600_000);
    assert!(desk.commands.is_empty(), "{:?}", desk.commands);
}
