//! Changing the master on request, at the level of the fleet: each phase, each way back, and the next leader.

use std::collections::BTreeMap;
use std::time::Duration;

use failover_core::action::{Action, Command};
use failover_core::addr::Addr;
use failover_core::event::{
    Answer, CommandResult, Event, GroupSpec, Health, Probed, RefusalCode, Replacement, Request,
};
use failover_core::fleet::{Fleet, Policies};
use failover_core::instance::{Facts, Flavor, Link, ReplicationId, Role};
use failover_core::node::{GroupName, Leadership, NodeId, Token};
use failover_core::record::{HistoryEntry, Kind, Outcome, Phase};
use failover_core::time::Time;
use failover_core::view::{GroupView, StatusView};

const MASTER: u16 = 1;
const REPLICA: u16 = 2;
const OTHER: u16 = 3;

/// A server as it is.
#[derive(Clone, Debug)]
struct Server {
    /// Whom it follows; `None` is a master.
    of: Option<u16>,
    offset: u64,
    run_id: u16,
    refuses: bool,
    silent: bool,
    can_pause: bool,
}

/// What a server does with a command of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Obey,
    Refuse,
    /// It does it, and nobody hears so.
    ObeyUnheard,
    /// It does not, and nobody hears so.
    Ignore,
    /// This node did not send it.
    Keep,
}

struct Desk {
    fleet: Fleet,
    now: Time,
    servers: BTreeMap<u16, Server>,
    manners: BTreeMap<(&'static str, u16), Manner>,
    told: Vec<(&'static str, u16)>,
    /// The leader dies right after the commit that begins this phase.
    dies_at: Option<Phase>,
    dead: bool,
    answers: Vec<Answer>,
}

fn addr(port: u16) -> Addr {
    Addr::new("127.0.0.1", port).expect("an address")
}

fn group() -> GroupName {
    GroupName::from(&addr(MASTER))
}

fn word(command: &Command) -> &'static str {
    match command {
        Command::Promote { .. } => "promote",
        Command::Follow { .. } => "follow",
        Command::Pause { .. } => "pause",
        Command::Unpause => "unpause",
        Command::Demote { .. } => "demote",
        Command::Part => "part",
        Command::Fence { .. } => "fence",
    }
}

impl Desk {
    fn new() -> Self {
        let server = |of| Server {
            of,
            offset: 100,
            run_id: 0,
            refuses: false,
            silent: false,
            can_pause: true,
        };
        let mut desk = Self {
            fleet: Fleet::new(NodeId::new("a"), Policies::default()),
            now: Time::from_millis(1_000_000),
            servers: BTreeMap::from([
                (MASTER, server(None)),
                (REPLICA, server(Some(MASTER))),
                (OTHER, server(Some(MASTER))),
            ]),
            manners: BTreeMap::new(),
            told: Vec::new(),
            dies_at: None,
            dead: false,
            answers: Vec::new(),
        };
        desk.handle(Event::Voters(vec![NodeId::new("a")]));
        desk.handle(Event::Leadership(Leadership::Leader(Token(1))));
        let spec = GroupSpec { name: None, master: addr(MASTER), replicas: Vec::new() };
        desk.handle(Event::Request { id: 1, request: Request::Add(vec![spec]) });
        desk.pass(5_000);
        assert_eq!(desk.view().diagnosis.name, "Healthy");
        desk.answers.clear();
        desk
    }

    fn handle(&mut self, event: Event) {
        self.fleet.handle(self.now, event);
        self.drain();
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        let mut rounds = 0;
        while let Some(at) = self.fleet.poll_timeout().filter(|at| *at <= end) {
            rounds += 1;
            assert!(rounds < 100_000, "a busy loop at {at}");
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
                Action::Propose { id, changes, .. } if !self.dead => {
                    let phase = changes
                        .iter()
                        .find_map(|change| change.entry.as_ref()?.saga.as_ref())
                        .map(|saga| saga.phase);
                    self.dead = phase.is_some() && phase == self.dies_at;
                    self.fleet.handle(self.now, Event::Committed { id: Some(id), changes });
                }
                Action::Command { id, addr, command, .. } if !self.dead => {
                    let port = addr.port();
                    self.told.push((word(&command), port));
                    let result = self.obey(port, &command);
                    // A moment later, as a server would.
                    self.now = self.now + Duration::from_micros(200);
                    self.fleet.handle(self.now, Event::Commanded { group: group(), id, result });
                }
                Action::Probe { addr, seq, .. } => self.probed(addr.port(), seq),
                Action::Vet { group, id, .. } => {
                    self.fleet.handle(self.now, Event::Vetted { group, id, veto: None });
                }
                Action::Answer { answer, .. } => self.answers.push(answer),
                Action::Propose { .. }
                | Action::Command { .. }
                | Action::AskPeer { .. }
                | Action::Hint { .. }
                | Action::Tell { .. }
                | Action::Publish(_)
                | Action::Forget { .. } => {}
            }
        }
    }

    fn obey(&mut self, port: u16, command: &Command) -> CommandResult {
        if self.servers[&port].refuses {
            return CommandResult::Refused("its host refuses connections".to_owned());
        }
        if self.servers[&port].silent {
            return CommandResult::Unknown("no reply".to_owned());
        }
        let manner = self.manners.get(&(word(command), port)).copied().unwrap_or(Manner::Obey);
        match manner {
            Manner::Refuse => return CommandResult::Refused("-NOPERM".to_owned()),
            Manner::Keep => return CommandResult::NotSent("the lease ran out".to_owned()),
            Manner::Ignore => return CommandResult::Unknown("no reply".to_owned()),
            Manner::Obey | Manner::ObeyUnheard => {}
        }
        let server = self.servers.get_mut(&port).expect("a server");
        match command {
            Command::Promote { .. } => server.of = None,
            Command::Follow { master, .. } | Command::Demote { master, .. } => {
                server.of = Some(master.port());
            }
            Command::Part | Command::Pause { .. } | Command::Unpause | Command::Fence { .. } => {}
        }
        if manner == Manner::ObeyUnheard {
            return CommandResult::Unknown("no reply".to_owned());
        }
        let facts = Box::new(self.facts(port));
        CommandResult::Done { facts, warnings: Vec::new() }
    }

    fn facts(&self, port: u16) -> Facts {
        let server = &self.servers[&port];
        let replicas =
            self.servers.iter().filter(|(_, other)| other.of == Some(port)).map(|(p, _)| addr(*p));
        Facts {
            asked_at: self.now,
            flavor: Flavor::Redis,
            version: "7.0.15".into(),
            run_id: Some(format!("{port}-{}", server.run_id).into()),
            role: match server.of {
                None => Role::Master { replicas: replicas.collect() },
                Some(of) => Role::Replica { master: addr(of), link: Link::Up { last_io_secs: 0 } },
            },
            replication_id: Some(ReplicationId("h".into())),
            second_replication_id: None,
            second_offset: None,
            offset: server.offset,
            priority: 100,
            ping_period_secs: Some(10),
            can_pause_writes: server.can_pause,
            keys: None,
            fence: None,
            read_only: false,
            log_is_empty: false,
        }
    }

    fn probed(&mut self, port: u16, seq: u64) {
        let server = &self.servers[&port];
        let outcome = if server.silent {
            return;
        } else if server.refuses {
            Probed::Refused
        } else {
            let facts = Some(Box::new(self.facts(port)));
            Probed::Replied { health: Health::Fine, facts, socket: None }
        };
        self.fleet.handle(self.now, Event::Probed { addr: addr(port), seq, outcome });
    }

    fn kill(&mut self, port: u16) {
        self.servers.get_mut(&port).expect("a server").refuses = true;
        self.handle(Event::Ended { addr: addr(port) });
    }

    fn server(&mut self, port: u16) -> &mut Server {
        self.servers.get_mut(&port).expect("a server")
    }

    fn switch_over(&mut self, to: Option<u16>, dry_run: bool) {
        self.pass(1);
        let to = to.map(addr);
        let timeout = Duration::from_secs(2);
        let request = Request::Switchover { group: group(), to, timeout, dry_run };
        self.told.clear();
        self.handle(Event::Request { id: 2, request });
    }

    fn fail_over(&mut self, to: Option<u16>, force: bool, dry_run: bool) {
        self.pass(1);
        let to = to.map(addr);
        let request = Request::Failover { group: group(), to, force, dry_run };
        self.told.clear();
        self.handle(Event::Request { id: 2, request });
    }

    /// Another node leads from now on, with the record as it stands, and everybody is seen by it.
    fn succeed(&mut self) {
        let record = self.fleet.record().clone();
        (self.dead, self.dies_at) = (false, None);
        self.told.clear();
        self.handle(Event::Leadership(Leadership::None));
        self.handle(Event::Restored(record));
        self.handle(Event::Leadership(Leadership::Leader(Token(2))));
    }

    fn view(&self) -> GroupView {
        self.fleet.view(self.now, &group()).expect("it is guarded")
    }

    fn replaced(&mut self) -> Replacement {
        match self.answers.pop() {
            Some(Answer::Replaced(replaced)) => *replaced,
            other => panic!("{other:?} for {:#?}", self.view().history.first()),
        }
    }

    fn refused(&mut self) -> (RefusalCode, String) {
        match self.answers.pop() {
            Some(Answer::Refused { code, message }) => (code, message),
            other => panic!("{other:?}"),
        }
    }

    /// The newest change of master, whatever became of a replica since.
    fn newest(&self) -> HistoryEntry {
        let newest = self.view().history.into_iter().find(|entry| entry.kind != Kind::ReplicaEvent);
        newest.expect("something was begun")
    }

    fn steps(&self) -> Vec<String> {
        self.newest().steps.iter().map(|step| step.name.clone()).collect()
    }

    /// The old master is master, takes writes, and nobody else is.
    fn assert_undone(&mut self) {
        let view = self.view();
        assert_eq!((view.master, view.status), (addr(MASTER), StatusView::Active));
        assert_eq!(self.newest().outcome, Outcome::Undone, "{:#?}", self.newest());
        assert_eq!(self.servers[&MASTER].of, None);
        assert_ne!(self.servers[&REPLICA].of, None);
        let paused = self.told.iter().rposition(|told| *told == ("pause", MASTER));
        let unpaused = self.told.iter().rposition(|told| *told == ("unpause", MASTER));
        assert!(unpaused >= paused, "{:?}", self.told);
    }
}

#[test]
fn everything_happens_in_its_order() {
    let mut desk = Desk::new();
    desk.switch_over(None, false);
    desk.pass(1_000);
    let told = [
        ("pause", MASTER),
        ("demote", MASTER),
        ("promote", REPLICA),
        ("unpause", MASTER),
        ("follow", MASTER),
        ("follow", OTHER),
    ];
    assert_eq!(desk.told, told);
    let answer = desk.replaced();
    assert_eq!((answer.old_master, answer.new_master), (addr(MASTER), addr(REPLICA)));
    assert_eq!((answer.outcome, answer.epoch), (Some(Outcome::Done), 1));
    assert_eq!(answer.bytes_possibly_lost, Some(0));
    assert!(answer.warnings.is_empty() && answer.plan.len() == 5, "{:?}", answer.plan);
    let steps = desk.steps();
    let wanted = [
        "committed",
        "write_paused",
        "offsets_equal",
        "demoted",
        "promote_sent",
        "promoted",
        "recorded",
        "told",
        "write_resumed",
        "repointed",
        "clients_cut",
        "link_verified",
        "repointed",
        "link_verified",
    ];
    assert_eq!(steps, wanted);
    assert_eq!(desk.view().diagnosis.name, "Healthy");
}

#[test]
fn a_dry_run_changes_nothing() {
    let mut desk = Desk::new();
    desk.switch_over(Some(OTHER), true);
    desk.pass(1_000);
    let answer = desk.replaced();
    assert!(answer.dry_run && answer.outcome.is_none() && answer.plan.len() == 5);
    assert_eq!(answer.new_master, addr(OTHER));
    assert_eq!((desk.told.len(), desk.view().epoch), (0, 0));
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let mut desk = Desk::new();
    desk.switch_over(Some(9), false);
    assert_eq!(desk.refused().0, RefusalCode::UnknownInstance);
    desk.switch_over(Some(MASTER), false);
    assert!(desk.refused().1.contains("is the master already"));
    desk.server(OTHER).of = Some(9);
    desk.switch_over(Some(OTHER), false);
    desk.pass(300);
    let (code, why) = desk.refused();
    assert!(code == RefusalCode::Refused && why.contains("127.0.0.1:3"), "{why}");
    desk.server(OTHER).of = Some(MASTER);
    desk.server(REPLICA).offset = 50;
    desk.switch_over(Some(REPLICA), false);
    desk.switch_over(Some(REPLICA), false);
    assert_eq!(desk.refused().0, RefusalCode::Busy);
    assert_eq!(desk.view().status, StatusView::SwitchingOver);
}

#[test]
fn a_candidate_that_is_behind_is_waited_for() {
    let mut desk = Desk::new();
    desk.server(REPLICA).offset = 50;
    desk.switch_over(Some(REPLICA), false);
    desk.pass(100);
    assert_eq!(desk.told, [("pause", MASTER)]);
    desk.server(REPLICA).offset = 114;
    desk.pass(5);
    assert!(desk.told.contains(&("promote", REPLICA)), "a PING more does no harm");
}

#[test]
fn a_candidate_that_never_has_everything_is_given_up_in_time() {
    let mut desk = Desk::new();
    desk.server(REPLICA).offset = 50;
    desk.switch_over(Some(REPLICA), false);
    desk.pass(1_740);
    assert_eq!(desk.told, [("pause", MASTER)]);
    desk.pass(120);
    assert_eq!(desk.told, [("pause", MASTER), ("unpause", MASTER)]);
    desk.assert_undone();
    let answer = desk.replaced();
    assert_eq!((answer.outcome, answer.new_master), (Some(Outcome::Undone), addr(MASTER)));
    assert!(answer.reason.contains("did not have everything in time"), "{}", answer.reason);
}

#[test]
fn a_candidate_that_dies_before_the_demotion_is_given_up_at_once() {
    let mut desk = Desk::new();
    desk.server(REPLICA).offset = 50;
    desk.switch_over(Some(REPLICA), false);
    desk.kill(REPLICA);
    desk.pass(5);
    assert_eq!(desk.told, [("pause", MASTER), ("unpause", MASTER)]);
    desk.assert_undone();
}

#[test]
fn a_pause_of_unknown_fate_is_ended() {
    for manner in [Manner::ObeyUnheard, Manner::Ignore] {
        let mut desk = Desk::new();
        desk.manners.insert(("pause", MASTER), manner);
        desk.switch_over(Some(REPLICA), false);
        desk.pass(100);
        assert_eq!(desk.told, [("pause", MASTER), ("unpause", MASTER)]);
        desk.assert_undone();
    }
    let mut desk = Desk::new();
    desk.manners.insert(("pause", MASTER), Manner::Refuse);
    desk.switch_over(Some(REPLICA), false);
    assert_eq!(desk.told, [("pause", MASTER)], "nothing is paused, so nothing is to be ended");
    assert_eq!(desk.replaced().outcome, Some(Outcome::Undone));
}

#[test]
fn a_master_that_dies_during_the_pause_is_replaced_in_the_ordinary_way() {
    let mut desk = Desk::new();
    desk.server(REPLICA).offset = 50;
    desk.switch_over(Some(REPLICA), false);
    desk.kill(MASTER);
    desk.pass(3_000);
    let view = desk.view();
    assert_eq!(view.history[0].outcome, Outcome::Undone, "{:#?}", view.history);
    assert_eq!(view.diagnosis.name, "MasterCrashed");
    assert_eq!(desk.told, [("pause", MASTER)], "nobody is asked to end the pause of a dead server");
    assert_eq!(desk.replaced().outcome, Some(Outcome::Undone));
}

#[test]
fn a_refused_demotion_is_undone() {
    let mut desk = Desk::new();
    desk.manners.insert(("demote", MASTER), Manner::Refuse);
    desk.switch_over(None, false);
    desk.pass(100);
    assert!(!desk.told.contains(&("promote", REPLICA)), "{:?}", desk.told);
    desk.assert_undone();
}

#[test]
fn a_demotion_of_unknown_fate_is_read_before_anything_else_is_sent() {
    let mut desk = Desk::new();
    desk.manners.insert(("demote", MASTER), Manner::ObeyUnheard);
    desk.switch_over(None, false);
    desk.pass(1_000);
    assert_eq!(desk.replaced().outcome, Some(Outcome::Done));
    assert_eq!(desk.told.iter().filter(|told| told.0 == "demote").count(), 1);
    // One that did not happen is sent again.
    let mut desk = Desk::new();
    desk.manners.insert(("demote", MASTER), Manner::Ignore);
    desk.switch_over(None, false);
    desk.manners.clear();
    desk.pass(1_000);
    assert_eq!(desk.told.iter().filter(|told| told.0 == "demote").count(), 2);
    assert_eq!(desk.replaced().outcome, Some(Outcome::Done));
}

#[test]
fn a_refused_promotion_gives_the_old_master_back() {
    let mut desk = Desk::new();
    desk.manners.insert(("promote", REPLICA), Manner::Refuse);
    desk.switch_over(None, false);
    desk.pass(100);
    let told = [
        ("pause", MASTER),
        ("demote", MASTER),
        ("promote", REPLICA),
        ("promote", MASTER),
        ("unpause", MASTER),
    ];
    assert_eq!(desk.told, told);
    desk.assert_undone();
    assert_eq!(desk.replaced().bytes_possibly_lost, Some(0));
}

#[test]
fn a_promotion_of_unknown_fate_is_read_and_nobody_else_is_promoted_meanwhile() {
    let mut desk = Desk::new();
    desk.manners.insert(("promote", REPLICA), Manner::ObeyUnheard);
    desk.switch_over(None, false);
    desk.pass(1_000);
    assert_eq!(desk.replaced().outcome, Some(Outcome::Done));
    assert!(!desk.told.contains(&("promote", MASTER)));
}

#[test]
fn a_candidate_that_falls_silent_after_the_promotion_is_waited_for_until_it_is_down() {
    let mut desk = Desk::new();
    desk.manners.insert(("promote", REPLICA), Manner::Ignore);
    desk.switch_over(None, false);
    desk.server(REPLICA).silent = true;
    desk.pass(1_000);
    assert!(!desk.told.contains(&("promote", MASTER)), "it may be a master: {:?}", desk.told);
    desk.pass(6_000);
    assert!(desk.told.contains(&("promote", MASTER)), "{:?}", desk.told);
    assert_eq!(desk.replaced().outcome, Some(Outcome::Undone), "its pause ended by itself");
    assert_eq!(desk.servers[&MASTER].of, None);
    let record = desk.fleet.record();
    let known = &record.entry(&group()).expect("it is recorded").instances[&addr(REPLICA)];
    assert_eq!(known.abandoned, Some(1), "it is demoted when it comes back as a master");
}

#[test]
fn what_was_not_sent_is_sent_later_and_never_in_a_busy_loop() {
    for (word, port) in [("pause", MASTER), ("demote", MASTER), ("promote", REPLICA)] {
        let mut desk = Desk::new();
        desk.manners.insert((word, port), Manner::Keep);
        desk.switch_over(None, false);
        desk.pass(200);
        let tries = desk.told.iter().filter(|told| **told == (word, port)).count();
        assert!((2..10).contains(&tries), "{word}: {:?}", desk.told);
        desk.manners.clear();
        desk.pass(500);
        assert_eq!(desk.replaced().outcome, Some(Outcome::Done), "{word}");
    }
}

#[test]
fn an_old_master_that_refuses_to_be_one_again_is_asked_ever_more_rarely() {
    let mut desk = Desk::new();
    desk.manners.insert(("promote", REPLICA), Manner::Refuse);
    desk.manners.insert(("promote", MASTER), Manner::Refuse);
    desk.switch_over(None, false);
    let restores =
        |desk: &Desk| desk.told.iter().filter(|told| **told == ("promote", MASTER)).count();
    desk.pass(400);
    assert!(restores(&desk) >= 3, "writes wait, so it hurries at first: {:?}", desk.told);
    desk.pass(59_600);
    assert!(restores(&desk) < 60, "{} times in a minute", restores(&desk));
}

#[test]
fn a_paused_group_is_left_alone() {
    let mut desk = Desk::new();
    let request = Request::Pause { group: Some(group()), reason: None, until: None };
    desk.handle(Event::Request { id: 3, request });
    desk.answers.clear();
    desk.switch_over(None, false);
    let (code, why) = desk.refused();
    assert!(code == RefusalCode::Refused && why.contains("resume it first"), "{why}");
}

#[test]
fn a_candidate_that_lost_its_data_is_not_promoted() {
    let mut desk = Desk::new();
    desk.server(REPLICA).offset = 50;
    desk.switch_over(Some(REPLICA), false);
    desk.server(REPLICA).run_id = 1;
    desk.server(REPLICA).offset = 100;
    desk.pass(100);
    desk.assert_undone();
}

#[test]
fn a_server_without_a_write_pause_is_demoted_without_one() {
    let mut desk = Desk::new();
    desk.server(MASTER).can_pause = false;
    desk.pass(3_000);
    desk.switch_over(None, false);
    desk.pass(100);
    assert_eq!(desk.told[..2], [("demote", MASTER), ("promote", REPLICA)]);
    let answer = desk.replaced();
    assert!(answer.warnings[0].contains("cannot pause writes"), "{:?}", answer.warnings);
}

#[test]
fn the_next_leader_ends_what_it_finds() {
    for phase in [Phase::Decided, Phase::Demoting, Phase::Promoted] {
        let mut desk = Desk::new();
        desk.dies_at = Some(phase);
        desk.switch_over(None, false);
        desk.pass(20);
        desk.succeed();
        desk.pass(1_500);
        let view = desk.view();
        let last = &view.history[0];
        assert_eq!((last.outcome, view.master), (Outcome::Done, addr(REPLICA)), "{last:#?}");
        assert_eq!(desk.servers.values().filter(|server| server.of.is_none()).count(), 1);
        assert!(desk.steps().contains(&"resumed_by".to_owned()));
        assert_eq!(desk.refused().0, RefusalCode::UnknownOutcome);
    }
}

#[test]
fn the_next_leader_that_comes_late_undoes_what_it_finds() {
    for phase in [Phase::Decided, Phase::Demoting] {
        let mut desk = Desk::new();
        desk.dies_at = Some(phase);
        desk.switch_over(None, false);
        desk.pass(1_900);
        desk.succeed();
        desk.pass(100);
        desk.assert_undone();
    }
}

#[test]
fn the_next_leader_reads_the_roles_first() {
    // The demotion happened and the promotion did not; then both; then neither, with the demotion under way.
    for (demoted, promoted) in [(true, false), (true, true), (false, false)] {
        let mut desk = Desk::new();
        desk.dies_at = Some(Phase::Demoting);
        desk.switch_over(None, false);
        desk.server(MASTER).of = demoted.then_some(REPLICA);
        desk.server(REPLICA).of = (!promoted).then_some(MASTER);
        desk.succeed();
        desk.pass(1_000);
        assert_eq!(desk.told.contains(&("demote", MASTER)), !demoted, "{:?}", desk.told);
        assert_eq!(desk.told.contains(&("promote", REPLICA)), !promoted, "{:?}", desk.told);
        assert_eq!(desk.view().history[0].outcome, Outcome::Done);
    }
}

#[test]
fn a_dead_master_is_replaced_on_request_without_its_down_time() {
    let mut desk = Desk::new();
    desk.server(MASTER).silent = true;
    desk.pass(2_500);
    desk.fail_over(None, false, false);
    desk.pass(300);
    assert!(desk.refused().1.contains("is not down for this node"), "it may live");
    desk.fail_over(None, true, true);
    desk.pass(300);
    let answer = desk.replaced();
    assert!(answer.dry_run && answer.bytes_possibly_lost == Some(0) && !answer.warnings.is_empty());
    desk.fail_over(Some(OTHER), true, false);
    desk.pass(3_000);
    let answer = desk.replaced();
    assert_eq!((answer.outcome, answer.new_master), (Some(Outcome::Done), addr(OTHER)));
    assert_eq!(desk.told[..2], [("promote", OTHER), ("follow", REPLICA)]);
}

#[test]
fn a_healthy_master_is_replaced_by_force_alone() {
    let mut desk = Desk::new();
    desk.fail_over(None, false, false);
    let (code, why) = desk.refused();
    assert!(code == RefusalCode::Refused && why.contains("use switchover"), "{why}");
    desk.server(REPLICA).offset = 60;
    desk.fail_over(Some(REPLICA), true, false);
    desk.pass(500);
    let answer = desk.replaced();
    assert_eq!(answer.bytes_possibly_lost, Some(40));
    assert_eq!(answer.warnings.len(), 2, "{:?}", answer.warnings);
    assert_eq!(desk.told[..2], [("promote", REPLICA), ("follow", MASTER)]);
    assert_eq!(desk.view().master, addr(REPLICA));
}
