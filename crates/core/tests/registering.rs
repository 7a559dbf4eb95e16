//! Registering, at the level of the fleet: what an address leads to, and what it never undoes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use failover_core::action::Action;
use failover_core::addr::Addr;
use failover_core::event::{Answer, Event, GroupSpec, Health, Probed, Request};
use failover_core::fleet::{Fleet, Policies};
use failover_core::instance::{Facts, Flavor, Link, ReplicationId, Role};
use failover_core::node::{GroupName, Leadership, NodeId, Token};
use failover_core::policy::{
    FIRST_LOOK_PATIENCE, FIRST_LOOKS_MAX, LOST_LOOKS_PER_SECOND_MAX, Room,
};
use failover_core::time::Time;

/// A fleet on its own, and servers that answer at once.
struct Desk {
    fleet: Fleet,
    now: Time,
    servers: BTreeMap<Addr, Role>,
    /// Of those whose history is not "h".
    histories: BTreeMap<Addr, &'static str>,
    answers: Vec<Answer>,
    /// Whom the core wanted to promote, where a test expects that.
    promoted: Option<Vec<u16>>,
    /// Proposals that wait until nothing else is to be done, as with a broker that takes its time.
    proposed: Vec<Event>,
}

fn addr(port: u16) -> Addr {
    Addr::new("127.0.0.1", port).expect("an address")
}

fn replica_of(port: u16) -> Role {
    Role::Replica { master: addr(port), link: Link::Up { last_io_secs: 0 } }
}

fn master_of(ports: &[u16]) -> Role {
    Role::Master { replicas: ports.iter().copied().map(addr).collect() }
}

fn specs(ports: &[u16]) -> Vec<GroupSpec> {
    let spec = |port: &u16| GroupSpec { name: None, master: addr(*port), replicas: Vec::new() };
    ports.iter().map(spec).collect()
}

impl Desk {
    fn new(servers: &[(u16, Role)]) -> Self {
        let me = NodeId::new("me");
        let mut desk = Self {
            fleet: Fleet::new(me.clone(), Policies::default()),
            now: Time::from_millis(1_000_000),
            servers: servers.iter().map(|(port, role)| (addr(*port), role.clone())).collect(),
            histories: BTreeMap::new(),
            answers: Vec::new(),
            promoted: None,
            proposed: Vec::new(),
        };
        desk.handle(Event::Voters(vec![me]));
        desk.handle(Event::Leadership(Leadership::Leader(Token(1))));
        desk
    }

    fn handle(&mut self, event: Event) {
        self.fleet.handle(self.now, event);
        self.drain();
    }

    fn ask(&mut self, request: Request) -> Answer {
        self.handle(Event::Request { id: 1, request });
        self.answers.pop().expect("an answer")
    }

    fn drain(&mut self) {
        loop {
            let Some(action) = self.fleet.poll() else {
                if self.proposed.is_empty() {
                    return;
                }
                for event in std::mem::take(&mut self.proposed) {
                    self.fleet.handle(self.now, event);
                }
                continue;
            };
            match action {
                Action::Propose { id, changes, .. } => {
                    self.proposed.push(Event::Committed { id: Some(id), changes });
                }
                Action::Probe { addr, seq, .. } => self.answer_probe(addr, seq),
                Action::Answer { answer, .. } => self.answers.push(answer),
                Action::Command { ref addr, .. } => match &mut self.promoted {
                    Some(promoted) => promoted.push(addr.port()),
                    None => panic!("nothing is to be changed here: {action:?}"),
                },
                Action::Vet { group, id, .. } => {
                    self.fleet.handle(self.now, Event::Vetted { group, id, veto: None });
                }
                Action::AskPeer { .. } | Action::Hint { .. } => panic!("there is no other node"),
                Action::Tell { .. } | Action::Publish(_) | Action::Forget { .. } => {}
            }
        }
    }

    fn answer_probe(&mut self, addr: Addr, seq: u64) {
        let outcome = match self.servers.get(&addr) {
            None => Probed::Refused,
            Some(role) => Probed::Replied {
                health: Health::Fine,
                facts: Some(Box::new(Facts {
                    asked_at: self.now,
                    flavor: Flavor::Redis,
                    version: "7.0.15".into(),
                    run_id: Some(addr.to_string().into()),
                    role: role.clone(),
                    replication_id: Some(ReplicationId(
                        self.histories.get(&addr).copied().unwrap_or("h").into(),
                    )),
                    second_replication_id: None,
                    second_offset: None,
                    offset: 1,
                    priority: 100,
                    ping_period_secs: None,
                    can_pause_writes: true,
                    keys: None,
                    fence: None,
                    read_only: false,
                    log_is_empty: false,
                })),
                socket: Some(addr.clone()),
            },
        };
        self.fleet.handle(self.now, Event::Probed { addr, seq, outcome });
    }

    fn pass(&mut self, ms: u64) {
        let end = Time::from_millis(self.now.as_millis() + ms);
        while let Some(at) = self.fleet.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.fleet.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    /// Every group with its recorded master and its instances.
    fn groups(&self) -> Vec<(String, u16, Vec<u16>)> {
        self.fleet
            .record()
            .entries()
            .map(|(name, entry)| {
                let instances = entry.instances.keys().map(Addr::port).collect();
                (name.to_string(), entry.master.port(), instances)
            })
            .collect()
    }
}

#[test]
fn a_replica_leads_to_its_master_and_the_group_keeps_its_name() {
    let mut desk = Desk::new(&[(1, master_of(&[2, 3])), (2, replica_of(1)), (3, replica_of(1))]);
    assert_eq!(desk.ask(Request::Add(specs(&[2]))), Answer::Done);
    desk.pass(3000);
    assert_eq!(desk.groups(), [("127.0.0.1:2".to_owned(), 1, vec![1, 2, 3])]);
}

#[test]
fn all_addresses_of_one_group_registered_at_once_become_one_group() {
    let mut desk = Desk::new(&[(1, master_of(&[2, 3])), (2, replica_of(1)), (3, replica_of(1))]);
    assert_eq!(desk.ask(Request::Add(specs(&[1, 2, 3]))), Answer::Done);
    desk.pass(5000);
    assert_eq!(desk.groups(), [("127.0.0.1:1".to_owned(), 1, vec![1, 2, 3])]);
}

#[test]
fn two_replicas_registered_at_once_become_one_group() {
    let mut desk = Desk::new(&[(1, master_of(&[2, 3])), (2, replica_of(1)), (3, replica_of(1))]);
    assert_eq!(desk.ask(Request::Add(specs(&[2, 3]))), Answer::Done);
    desk.pass(5000);
    assert_eq!(desk.groups(), [("127.0.0.1:2".to_owned(), 1, vec![1, 2, 3])]);
}

#[test]
fn a_known_address_in_any_role_adds_and_changes_nothing() {
    let mut desk = Desk::new(&[(1, master_of(&[2])), (2, replica_of(1))]);
    desk.ask(Request::Add(specs(&[1])));
    desk.pass(3000);
    let before = desk.fleet.record().clone();
    assert_eq!(desk.ask(Request::Add(specs(&[1, 2]))), Answer::Done);
    desk.pass(3000);
    assert_eq!(*desk.fleet.record(), before);
}

#[test]
fn an_address_that_never_answers_is_kept_as_a_group_that_is_not_acted_on() {
    let mut desk = Desk::new(&[]);
    desk.ask(Request::Add(specs(&[1])));
    desk.pass(60_000);
    assert_eq!(desk.groups(), [("127.0.0.1:1".to_owned(), 1, vec![1])]);
    let name = GroupName::new("127.0.0.1:1").expect("a name");
    let view = desk.fleet.view(desk.now, &name).expect("it is guarded");
    assert_eq!(view.diagnosis.name, "WholeGroupUnreachable");
    assert!(view.diagnosis.not_acting_because.is_some());
}

#[test]
fn a_master_that_was_dead_from_the_start_is_replaced_by_a_listed_replica_that_follows_it() {
    let orphan = || Role::Replica { master: addr(1), link: Link::Down { since_secs: Some(2) } };
    let spec = |replicas: &[u16]| GroupSpec {
        name: None,
        master: addr(1),
        replicas: replicas.iter().copied().map(addr).collect(),
    };
    let mut desk = Desk::new(&[(2, orphan()), (3, replica_of(9))]);
    desk.promoted = Some(Vec::new());
    assert_eq!(desk.ask(Request::Add(vec![spec(&[2, 3])])), Answer::Done);
    desk.pass(10);
    assert_eq!(desk.promoted, Some(vec![2]), "the one that follows another is left alone");
    // One that only led there may be the middle of a chain below a living master.
    let mut desk = Desk::new(&[(2, orphan())]);
    assert_eq!(desk.ask(Request::Add(specs(&[2]))), Answer::Done);
    desk.pass(60_000);
}

#[test]
fn a_ring_of_replicas_is_not_followed_for_ever() {
    let mut desk = Desk::new(&[(1, replica_of(2)), (2, replica_of(1))]);
    desk.ask(Request::Add(specs(&[1])));
    let revision =
        |desk: &Desk| desk.fleet.record().revision(&GroupName::new("127.0.0.1:1").expect("a name"));
    desk.pass(5000);
    let settled = revision(&desk);
    desk.pass(60_000);
    assert_eq!(revision(&desk), settled);
}

#[test]
fn replacing_keeps_what_overlaps_and_removing_takes_names_and_masters() {
    let mut desk = Desk::new(&[
        (1, master_of(&[2])),
        (2, replica_of(1)),
        (5, master_of(&[])),
        (6, master_of(&[])),
    ]);
    desk.ask(Request::Add(specs(&[1, 5])));
    desk.pass(3000);
    assert_eq!(desk.ask(Request::Replace(specs(&[2, 6]))), Answer::Done);
    let names: Vec<_> = desk.groups().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["127.0.0.1:1", "127.0.0.1:6"]);
    let which = ["127.0.0.1:1", "127.0.0.1:99", "nobody"].map(str::to_owned).to_vec();
    assert_eq!(desk.ask(Request::Remove(which)), Answer::Done);
    assert_eq!(desk.groups().len(), 1);
    assert_eq!(desk.ask(Request::Remove(vec!["127.0.0.1:2".to_owned()])), Answer::Done);
    assert_eq!(desk.groups().len(), 1);
}

#[test]
fn a_name_that_is_taken_by_other_instances_is_refused_and_changes_nothing() {
    let mut desk = Desk::new(&[(1, master_of(&[])), (2, master_of(&[]))]);
    let named = |port| GroupSpec {
        name: Some(GroupName::new("a").expect("a name")),
        master: addr(port),
        replicas: Vec::new(),
    };
    assert_eq!(desk.ask(Request::Add(vec![named(1)])), Answer::Done);
    let before = desk.groups();
    assert!(matches!(desk.ask(Request::Add(vec![named(2)])), Answer::Refused { .. }));
    assert_eq!(desk.groups(), before);
}

#[test]
fn a_history_that_only_a_replica_with_its_link_up_has_told_is_the_groups() {
    let mut desk = Desk::new(&[(1, master_of(&[2, 3])), (2, replica_of(1)), (3, replica_of(1))]);
    desk.histories.insert(addr(2), "of-the-restarted-master");
    desk.histories.insert(addr(3), "its-own");
    let link = Link::Down { since_secs: Some(1) };
    desk.servers.insert(addr(3), Role::Replica { master: addr(1), link });
    desk.ask(Request::Add(specs(&[1])));
    desk.pass(5000);
    let name = GroupName::new("127.0.0.1:1").expect("a name");
    let lineage = |desk: &Desk| -> Vec<String> {
        let entry = desk.fleet.record().entry(&name).expect("it is guarded");
        entry.lineage.iter().map(|id| id.0.to_string()).collect()
    };
    assert_eq!(lineage(&desk), ["h", "of-the-restarted-master"]);
    let settled = desk.fleet.record().revision(&name);
    desk.pass(60_000);
    assert_eq!(desk.fleet.record().revision(&name), settled, "nothing goes to and fro");
    desk.histories.insert(addr(1), "of-the-restarted-master");
    desk.pass(5000);
    assert_eq!(lineage(&desk), ["of-the-restarted-master", "h"]);
}

#[test]
fn groups_for_whose_instances_there_is_no_room_are_refused_in_words() {
    let mut desk = Desk::new(&[(1, master_of(&[2, 3])), (2, replica_of(1)), (3, replica_of(1))]);
    let room = Room { instances_max: 7, why: "somebody must raise something".to_owned() };
    let policies = Policies { room: Some(room), ..Policies::default() };
    desk.fleet = Fleet::new(NodeId::new("me"), policies);
    desk.handle(Event::Leadership(Leadership::Leader(Token(1))));
    assert_eq!(desk.ask(Request::Add(specs(&[1, 11]))), Answer::Done);
    // Three instances and two are there; a group counts for its replica also before that is known.
    assert_eq!(desk.ask(Request::Add(specs(&[12]))), Answer::Done);
    let Answer::Refused { message, .. } = desk.ask(Request::Add(specs(&[13]))) else {
        panic!("it does not fit");
    };
    assert!(message.starts_with("1 new group would need connections to 2 instances"), "{message}");
    assert!(message.contains("beside the 7 that this node has to hold already"), "{message}");
    assert!(message.contains("it can hold 7: somebody must raise something"), "{message}");
    assert_eq!(desk.fleet.record().len(), 3, "nothing was added");
    assert_eq!(desk.ask(Request::Add(specs(&[2, 12]))), Answer::Done, "they are there already");
    assert_eq!(desk.ask(Request::Replace(specs(&[1, 13]))), Answer::Done, "two go and one comes");
}

/// Whom the fleet asks, with the number of the question, when nobody answers.
fn asked(desk: &mut Desk) -> Vec<(Addr, u64)> {
    let mut asked = Vec::new();
    while let Some(action) = desk.fleet.poll() {
        if let Action::Propose { id, changes, .. } = action {
            desk.fleet.handle(desk.now, Event::Committed { id: Some(id), changes });
        } else if let Action::Probe { addr, seq, .. } = action {
            asked.push((addr, seq));
        }
    }
    asked
}

#[test]
fn a_fleet_that_begins_with_many_groups_looks_at_them_in_turn() {
    let mut desk = Desk::new(&[]);
    let ports: Vec<u16> = (1..=u16::try_from(2 * FIRST_LOOKS_MAX).expect("it fits") + 1).collect();
    let registers = Event::Request { id: 1, request: Request::Add(specs(&ports)) };
    desk.fleet.handle(desk.now, registers);
    let first = asked(&mut desk);
    assert_eq!(first.len(), FIRST_LOOKS_MAX);
    desk.now = desk.now + Duration::from_millis(1);
    let (addr, seq) = first[0].clone();
    let outcome = Probed::Refused;
    desk.fleet.handle(desk.now, Event::Probed { addr: addr.clone(), seq, outcome });
    let next: BTreeSet<Addr> = asked(&mut desk).into_iter().map(|(addr, _)| addr).collect();
    assert_eq!(next.iter().filter(|next| **next != addr).count(), 1, "its place is free");
    // Those that say nothing hold the others up for a while only.
    desk.now = desk.now + FIRST_LOOK_PATIENCE;
    assert!(desk.fleet.poll_timeout().is_some_and(|at| at <= desk.now));
    desk.fleet.handle_timeout(desk.now);
    let known: BTreeSet<Addr> = first.into_iter().map(|(addr, _)| addr).chain(next).collect();
    let news = asked(&mut desk).into_iter().filter(|(addr, _)| !known.contains(addr));
    assert_eq!(news.map(|(addr, _)| addr).collect::<BTreeSet<_>>().len(), FIRST_LOOKS_MAX);
}

#[test]
fn however_many_instances_are_down_a_node_is_not_kept_busy_by_looking_at_them() {
    let looks_per_second = |groups: u16| {
        let mut desk = Desk::new(&[]);
        let ports: Vec<u16> = (1..=groups).collect();
        desk.handle(Event::Request { id: 1, request: Request::Add(specs(&ports)) });
        let mut seconds = [0_u32; 5];
        let begun = desk.now;
        while let Some(at) = desk.fleet.poll_timeout() {
            let second = usize::try_from(at.since(begun).as_secs()).expect("a few");
            if second >= seconds.len() {
                break;
            }
            desk.now = desk.now.max(at);
            desk.fleet.handle_timeout(desk.now);
            for (addr, seq) in asked(&mut desk) {
                seconds[second] += 1;
                desk.fleet.handle(desk.now, Event::Probed { addr, seq, outcome: Probed::Refused });
            }
        }
        seconds[2..].iter().copied().max().expect("three seconds")
    };
    // A few are looked at every 25 ms, so that their return is noticed at once.
    let few = looks_per_second(10);
    assert!((350..=400).contains(&few), "{few}");
    let many = looks_per_second(2000);
    assert!(many <= LOST_LOOKS_PER_SECOND_MAX * 11 / 10, "{many}");
    assert!(many >= LOST_LOOKS_PER_SECOND_MAX / 2, "{many}: they are looked at");
}
