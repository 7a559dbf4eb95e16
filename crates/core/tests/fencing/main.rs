//! Fencing at the level of the fleet: what is set on whom and when, by whichever leader, and that no healthy master is
//! ever stopped by it (the desk asserts that with each command).

mod desk;

use desk::*;

/// Everything is as it should be, once it had time.
#[track_caller]
fn assert_fenced(desk: &Desk, master: u16, doing: &str) {
    assert_eq!(desk.master(), master, "{doing}");
    assert_eq!(desk.settings(), vec![ON; desk.servers.len()], "{doing}");
    assert!(desk.takes_writes(master), "{doing}");
    assert_eq!(desk.view().fencing.min_replicas, Some(1), "{doing}");
    assert_eq!(desk.view().diagnosis.name, "Healthy", "{doing}: {:?}", desk.view().diagnosis);
    for known in desk.entry().instances.values() {
        let fenced = known.fenced.as_ref().expect("it is recorded");
        assert_eq!((fenced.former, fenced.set), (FORMER, ON), "{doing}");
    }
}

/// Plays a scenario with a leader that dies after so many of the things it asks for, for every number until it does not
/// die in it, and with every fate of its first proposals.
fn with_every_leader_change(mut start: impl FnMut() -> Desk, play: impl Fn(&mut Desk, &str)) {
    for after in 0..60 {
        let mut desk = start();
        desk.dies_after = Some(after);
        let doing = format!("the leader dies after {after}");
        play(&mut desk, &doing);
        if desk.dies_after.is_some() && !desk.dead {
            assert!(after > 2, "nothing was asked for");
            break;
        }
        assert!(after < 59, "it never ends");
    }
    for fate in [Fate::Lose, Fate::Forget, Fate::CommitUnheard] {
        for times in 1..4 {
            for first in 0..6 {
                let mut desk = start();
                desk.fates.extend(vec![Fate::Commit; first]);
                desk.fates.extend(vec![fate; times]);
                play(&mut desk, &format!("{times} proposals after {first} are {fate:?}"));
            }
        }
    }
}

/// Time passes; when the leader turns out to be dead, another one goes on.
fn settle(desk: &mut Desk) {
    desk.pass(8_000);
    if desk.dead {
        desk.succeed();
        desk.pass(8_000);
    }
}

#[test]
fn every_instance_is_fenced_and_the_former_values_are_recorded() {
    with_every_leader_change(
        || Desk::new(2),
        |desk, doing| {
            desk.configure(fenced());
            settle(desk);
            assert_fenced(desk, 1, doing);
        },
    );
    let mut desk = Desk::new(2);
    desk.configure(fenced());
    desk.pass(5000);
    assert_eq!(desk.fences(), [(2, ON), (3, ON), (1, ON)], "the master is the last");
    desk.pass(60_000);
    assert_eq!(desk.commands.len(), 3, "and nobody is told twice");
}

#[test]
fn without_fencing_nothing_is_set_and_nothing_recorded() {
    let mut desk = Desk::new(2);
    desk.server(1).set = Some(MinReplicas { to_write: 1, max_lag_secs: 5 });
    desk.pass(5000);
    desk.kill(1);
    desk.pass(5000);
    assert!(desk.fences().is_empty());
    assert!(desk.entry().instances.values().all(|known| known.fenced.is_none()));
    assert_eq!((desk.view().fencing.mode, desk.view().fencing.min_replicas), ("none", None));
}

#[test]
fn a_candidate_is_opened_by_its_promotion_and_fenced_when_another_follows_it() {
    with_every_leader_change(
        || Desk::fenced(2),
        |desk, doing| {
            desk.kill(1);
            settle(desk);
            let new = desk.master();
            assert_ne!(new, 1, "{doing}");
            desk.start(1);
            assert!(!desk.takes_writes(1), "{doing}: the old master waits for replicas");
            settle(desk);
            settle(desk);
            assert_fenced(desk, new, doing);
        },
    );
    let mut desk = Desk::fenced(2);
    desk.kill(1);
    let fence = desk.commands.iter().find_map(|(_, command)| match command {
        Command::Promote { fence, .. } => *fence,
        Command::Follow { .. }
        | Command::Demote { .. }
        | Command::Part
        | Command::Pause { .. }
        | Command::Unpause
        | Command::Fence { .. } => None,
    });
    assert_eq!(fence, Some(OPEN));
    let failover = desk.of_kind(Kind::Failover).pop().expect("it is done");
    assert!(!failover.reason.contains("not fenced"), "{}", failover.reason);
}

#[test]
fn a_replica_that_missed_the_failover_leaves_it_unfenced_until_it_is_repointed() {
    let mut desk = Desk::fenced(2);
    desk.server(3).mood = Mood::Silent;
    desk.pass(5000);
    desk.kill(1);
    desk.pass(5000);
    assert_eq!(desk.master(), 2);
    let failover = desk.of_kind(Kind::Failover).pop().expect("it is done");
    let why = format!("the old master {} is not fenced until {}", addr(1), addr(3));
    assert!(failover.reason.contains(&why), "{}", failover.reason);
    assert!(desk.takes_writes(2) && desk.view().fencing.min_replicas == Some(0));
    // It feeds the old master, which came back; it is the first to be told otherwise.
    desk.commands.clear();
    desk.start(1);
    desk.start(3);
    desk.pass(5000);
    let first = desk.commands.iter().map(|(port, _)| *port).next();
    assert!(matches!(first, Some(1 | 3)), "{:?}", desk.commands);
    assert_fenced(&desk, 2, "all are back");
}

#[test]
fn a_failover_of_an_opened_master_says_that_the_old_one_is_not_fenced() {
    let mut desk = Desk::fenced(1);
    desk.kill(2);
    desk.pass(5000);
    assert!(desk.takes_writes(1));
    // It comes back, and its master dies before it acknowledged anything to it.
    desk.server(1).mood = Mood::Silent;
    desk.server(2).mood = Mood::Serves;
    desk.pass(10_000);
    assert_eq!(desk.master(), 2);
    let failover = desk.of_kind(Kind::Failover).pop().expect("it is done");
    assert!(failover.reason.contains("is not fenced, because no replica"), "{}", failover.reason);
}

#[test]
fn the_last_replica_that_is_lost_opens_its_master_and_the_next_closes_it() {
    with_every_leader_change(
        || Desk::fenced(1),
        |desk, doing| {
            desk.kill(2);
            assert!(!desk.takes_writes(1), "{doing}");
            desk.pass(1_900);
            assert!(!desk.takes_writes(1), "{doing}: it is not sure yet");
            settle(desk);
            assert!(desk.takes_writes(1), "{doing}");
            assert_eq!(desk.view().fencing.min_replicas, Some(0), "{doing}");
            assert_eq!(desk.of_kind(Kind::Repair).len(), 1, "{doing}");
            desk.start(2);
            settle(desk);
            assert_fenced(desk, 1, doing);
        },
    );
    let mut desk = Desk::fenced(1);
    desk.kill(2);
    desk.pass(1_000);
    let why = desk.view().diagnosis.reason;
    assert!(why.contains("takes no writes"), "{why}");
    desk.pass(5000);
    let lowered = desk.of_kind(Kind::Repair).pop().expect("it is in the history").clone();
    assert_eq!((lowered.outcome, lowered.old_master), (Outcome::Done, addr(1)));
    assert!(lowered.reason.contains("lowered to 0"), "{}", lowered.reason);
    assert!(desk.told.contains(&lowered.reason), "{:?}", desk.told);
    desk.start(2);
    desk.pass(5000);
    let raised = desk.of_kind(Kind::Repair).pop().expect("it is in the history");
    assert!(raised.reason.contains("raised to 1 again"), "{}", raised.reason);
}

#[test]
fn a_master_that_cannot_write_its_setting_down_is_opened_as_soon_as_its_last_replica_is_lost() {
    let mut desk = Desk::new(1);
    desk.server(1).file = None;
    desk.configure(fenced());
    // It was tried so often by now that the next time is far away.
    desk.pass(60_000);
    desk.kill(2);
    assert!(!desk.takes_writes(1));
    desk.pass(5_000);
    assert!(desk.takes_writes(1), "{}", desk.view().diagnosis.reason);
}

#[test]
fn the_loss_of_one_of_two_replicas_changes_nothing() {
    let mut desk = Desk::fenced(2);
    desk.kill(2);
    desk.pass(60_000);
    assert!(desk.takes_writes(1) && desk.commands.is_empty());
}

/// A replica that copies everything cannot be promoted, and its master must not wait for it.
#[test]
fn a_replica_that_copies_everything_is_as_good_as_lost() {
    let mut desk = Desk::fenced(1);
    desk.server(2).copies = true;
    desk.pass(1_000);
    assert!(!desk.takes_writes(1));
    desk.pass(6_000);
    assert!(desk.takes_writes(1));
    desk.server(2).copies = false;
    desk.pass(6_000);
    assert_fenced(&desk, 1, "it has everything");
}

#[test]
fn a_replica_that_only_lost_its_link_is_waited_for() {
    let mut desk = Desk::fenced(1);
    // It follows nobody that is there: it answers, has data, and could be promoted.
    desk.server(2).follows = Some(1);
    desk.policy.repair_interval = Duration::from_secs(3600);
    desk.server(2).mood = Mood::Silent;
    desk.pass(900);
    desk.server(2).mood = Mood::Serves;
    desk.pass(10_000);
    assert!(desk.of_kind(Kind::Repair).is_empty());
    assert_eq!(desk.settings()[0], ON);
}

fn desk_of_three(b: Option<State>, c: Option<State>) -> Desk {
    let mut desk = Desk::fenced(1);
    for (name, state) in [("b", b), ("c", c)] {
        let states = state.map(|state| BTreeMap::from([(1, State::Up), (2, state)]));
        desk.voters.insert(name, states.unwrap_or_default());
    }
    desk.succeed();
    desk.pass(1000);
    desk
}

#[test]
fn a_master_is_opened_only_when_a_quorum_sees_its_replica_lost_and_nobody_sees_it_alive() {
    let cases = [
        (Some(State::Down), Some(State::Down), true),
        (Some(State::Down), None, true),
        (None, None, false),
        (Some(State::Unknown), None, false),
        (Some(State::Down), Some(State::Up), false),
        (Some(State::Up), None, false),
    ];
    for (b, c, opens) in cases {
        let mut desk = desk_of_three(b, c);
        desk.kill(2);
        desk.pass(20_000);
        assert_eq!(desk.takes_writes(1), opens, "{b:?} {c:?}");
        assert_eq!(desk.of_kind(Kind::Repair).len(), usize::from(opens), "{b:?} {c:?}");
    }
}

#[test]
fn a_leader_that_cannot_commit_opens_nobody() {
    let mut desk = Desk::fenced(1);
    desk.fates.extend([Fate::Lose; 1000]);
    desk.kill(2);
    desk.pass(20_000);
    assert_eq!(desk.settings()[0], ON);
    assert!(desk.fences().is_empty());
    desk.fates.clear();
    desk.pass(5_000);
    assert!(desk.takes_writes(1));
}

#[test]
fn a_group_that_is_removed_gives_its_servers_their_settings_back() {
    with_every_leader_change(
        || Desk::fenced(2),
        |desk, doing| {
            desk.handle(Event::Request {
                id: 2,
                request: Request::Remove(vec![addr(1).to_string()]),
            });
            settle(desk);
            // A request of which nothing was committed is made again by whoever wants it.
            for _ in 0..3 {
                if desk.entry_is_there() {
                    desk.ask(Request::Remove(vec![addr(1).to_string()]));
                    desk.pass(8_000);
                }
            }
            assert!(!desk.entry_is_there(), "{doing}");
            assert_eq!(desk.settings(), [FORMER; 3], "{doing}");
        },
    );
}

impl Desk {
    fn entry_is_there(&self) -> bool {
        self.fleet.record().entry(&group()).is_some()
    }
}

#[test]
fn a_group_that_leaves_is_seen_by_nobody_and_can_be_added_again() {
    let mut desk = Desk::fenced(2);
    desk.server(3).mood = Mood::Silent;
    desk.pass(10);
    assert_eq!(desk.ask(Request::Remove(vec![addr(1).to_string()])), Answer::Done);
    assert!(desk.entry().leaving.is_some(), "it waits for the one that is silent");
    assert!(desk.fleet.view(desk.now, &group()).is_none());
    assert!(matches!(desk.ask(Request::Resume(group())), Answer::Refused { .. }));
    let pause = Request::Pause { group: Some(group()), reason: None, until: None };
    assert!(matches!(desk.ask(pause), Answer::Refused { .. }));
    assert_eq!(desk.ask(Request::Remove(vec![addr(1).to_string()])), Answer::Done);
    assert_eq!(desk.ask(Request::Add(vec![spec()])), Answer::Done);
    assert_eq!(desk.view().name, group());
    desk.server(3).mood = Mood::Serves;
    desk.pass(10_000);
    assert_fenced(&desk, 1, "it is guarded again");
}

#[test]
fn who_cannot_be_reached_when_its_group_is_removed_is_named() {
    let mut desk = Desk::fenced(2);
    desk.kill(3);
    desk.told.clear();
    assert_eq!(desk.ask(Request::Remove(vec![addr(1).to_string()])), Answer::Done);
    desk.pass(12_000);
    assert!(!desk.entry_is_there());
    assert_eq!(desk.settings(), [FORMER, FORMER, ON]);
    let named = |told: &&String| told.contains(&format!("{} could not be reached", addr(3)));
    let told: Vec<&String> = desk.told.iter().filter(named).collect();
    assert!(told.len() == 1 && told[0].contains("stays 1, and was 0"), "{:?}", desk.told);
}

#[test]
fn a_server_that_refuses_its_setting_back_does_not_hold_up_a_removal() {
    let mut desk = Desk::fenced(2);
    desk.server(2).may_be_set = false;
    assert_eq!(desk.ask(Request::Remove(vec![addr(1).to_string()])), Answer::Done);
    desk.pass(20_000);
    assert!(!desk.entry_is_there());
    assert_eq!(desk.settings(), [FORMER, ON, FORMER]);
    assert!(desk.fences().len() < 8, "{:?}", desk.fences());
}

#[test]
fn fencing_that_is_turned_off_is_undone_also_on_those_that_come_back_later() {
    with_every_leader_change(
        || Desk::fenced(2),
        |desk, doing| {
            desk.configure(Policy { fencing: Fencing::None, ..fenced() });
            settle(desk);
            assert_eq!(desk.settings(), [FORMER; 3], "{doing}");
            assert!(desk.entry().instances.values().all(|known| known.fenced.is_none()), "{doing}");
        },
    );
    let mut desk = Desk::fenced(2);
    desk.kill(3);
    desk.configure(Policy { fencing: Fencing::None, ..fenced() });
    desk.pass(10_000);
    assert_eq!(desk.settings(), [FORMER, FORMER, ON]);
    desk.start(3);
    desk.pass(10_000);
    assert_eq!(desk.settings(), [FORMER; 3]);
}

#[test]
fn a_switchover_leaves_a_master_that_takes_writes_whoever_drives_it() {
    with_every_leader_change(
        || Desk::fenced(2),
        |desk, doing| {
            let timeout = Duration::from_secs(2);
            let request =
                Request::Switchover { group: group(), to: Some(addr(2)), timeout, dry_run: false };
            desk.handle(Event::Request { id: 2, request });
            settle(desk);
            settle(desk);
            let master = desk.master();
            assert_fenced(desk, master, doing);
        },
    );
}

/// Its replicas follow it again only after it is one.
#[test]
fn a_master_that_is_brought_back_after_a_change_by_hand_is_open_until_then() {
    let mut desk = Desk::fenced(1);
    desk.server(1).follows = Some(2);
    desk.server(2).copies = true;
    desk.pass(20_000);
    assert_eq!(desk.servers[&1].follows, None, "{:?}", desk.view().diagnosis);
    assert!(desk.takes_writes(1));
    desk.server(2).copies = false;
    desk.pass(10_000);
    assert_fenced(&desk, 1, "its replica is back");
}

#[test]
fn a_server_that_cannot_be_set_is_named_and_asked_ever_less_often() {
    let mut desk = Desk::new(2);
    desk.server(2).may_be_set = false;
    desk.configure(fenced());
    desk.pass(600_000);
    assert_eq!((desk.settings()[0], desk.settings()[2]), (ON, ON));
    let asked = desk.fences().iter().filter(|(port, _)| *port == 2).count();
    assert!((5..12).contains(&asked), "{asked} times in ten minutes");
    assert!(desk.told.iter().any(|told| told.contains("NOPERM") && told.contains("CONFIG SET")));
    desk.server(2).may_be_set = true;
    desk.pass(400_000);
    assert_fenced(&desk, 1, "it is allowed");
}

#[test]
fn a_server_without_a_file_is_fenced_and_said_to_be_so_only_until_its_restart() {
    let mut desk = Desk::new(2);
    desk.server(2).file = None;
    desk.configure(fenced());
    desk.pass(5_000);
    assert_eq!(desk.settings(), [ON; 3]);
    let diagnosis = desk.view().diagnosis;
    assert_eq!(diagnosis.name, "FencingNotDurable");
    assert!(diagnosis.reason.contains(&addr(2).to_string()), "{}", diagnosis.reason);
    assert!(diagnosis.not_acting_because.is_some());
    desk.succeed();
    desk.pass(5_000);
    assert_eq!(desk.view().diagnosis.name, "FencingNotDurable", "every leader knows it");
    desk.kill(2);
    desk.start(2);
    desk.pass(5_000);
    assert_eq!(desk.settings(), [ON; 3]);
    desk.server(2).file = Some(FORMER);
    desk.pass(400_000);
    assert_fenced(&desk, 1, "it may write a file");
}

#[test]
fn a_flavor_without_the_setting_is_said_to_be_unfenced() {
    let mut desk = Desk::new(2);
    for port in 1..=3 {
        desk.server(port).set = None;
    }
    desk.configure(fenced());
    desk.pass(60_000);
    assert!(desk.commands.is_empty());
    let told = desk.told.iter().filter(|told| told.contains("cannot be fenced")).count();
    assert_eq!(told, 3, "{:?}", desk.told);
    let view = desk.view();
    assert!(view.diagnosis.reason.contains("has no min-replicas-to-write"), "{view:?}");
    assert_eq!((view.fencing.mode, view.fencing.min_replicas), ("min-replicas", None));
}

#[test]
fn what_somebody_else_changes_is_set_again_ever_less_often_unless_it_opens_a_lonely_master() {
    let mut desk = Desk::fenced(2);
    let by_hand = MinReplicas { to_write: 2, max_lag_secs: 7 };
    for _ in 0..200 {
        desk.server(3).set = Some(by_hand);
        desk.pass(3_000);
    }
    let times = desk.fences().len();
    assert!((3..12).contains(&times), "{times} times in ten minutes");
    desk.pass(400_000);
    assert_fenced(&desk, 1, "nobody changes it any more");

    let mut desk = Desk::fenced(1);
    desk.kill(2);
    desk.server(1).set = Some(FORMER);
    desk.pass(1_500);
    desk.pass(60_000);
    assert!(desk.takes_writes(1));
    desk.start(2);
    desk.pass(20_000);
    assert_fenced(&desk, 1, "its replica is back");
}

#[test]
fn nothing_is_set_on_a_paused_group() {
    let mut desk = Desk::fenced(1);
    let pause = Request::Pause { group: Some(group()), reason: None, until: None };
    assert_eq!(desk.ask(pause), Answer::Done);
    desk.kill(2);
    desk.pass(20_000);
    assert!(desk.commands.is_empty() && !desk.takes_writes(1));
    assert_eq!(desk.ask(Request::Resume(group())), Answer::Done);
    desk.pass(5_000);
    assert!(desk.takes_writes(1));
}

#[test]
fn a_replica_that_is_forgotten_keeps_its_setting_and_the_history_says_so() {
    let mut desk = Desk::fenced(2);
    desk.kill(3);
    desk.pass(5_000);
    let forget = Request::Forget { group: group(), addr: addr(3) };
    assert_eq!(desk.ask(forget), Answer::Done);
    let event = desk.of_kind(Kind::ReplicaEvent).pop().expect("it is in the history");
    assert!(event.reason.contains("stays 1, and was 0"), "{}", event.reason);
}

#[test]
fn a_name_that_goes_and_comes_back_in_one_request_leaves_no_server_fenced_and_forgotten() {
    let mut desk = Desk::fenced(2);
    let another = desk.servers[&1].clone();
    desk.servers.insert(9, another);
    let spec = GroupSpec { name: Some(group()), master: addr(9), replicas: Vec::new() };
    let answer = desk.ask(Request::Replace(vec![spec.clone()]));
    let Answer::Refused { message, .. } = answer else { panic!("{answer:?}") };
    assert!(message.contains("settings back"), "{message}");
    assert_eq!(desk.settings()[..3], [ON; 3], "nothing was done");
    // In two steps it is done.
    assert_eq!(desk.ask(Request::Remove(vec![group().to_string()])), Answer::Done);
    desk.pass(10_000);
    assert_eq!(desk.settings()[..3], [FORMER; 3]);
    assert_eq!(desk.ask(Request::Replace(vec![spec])), Answer::Done);
    assert_eq!(desk.master(), 9);
}

#[test]
fn a_setting_of_which_nothing_is_heard_keeps_nobody_busy() {
    let mut desk = Desk::new(2);
    desk.unheard = true;
    desk.configure(fenced());
    desk.pass(100);
    assert_eq!(desk.fences().len(), 1);
    let pause = Request::Pause { group: Some(group()), reason: None, until: None };
    assert_eq!(desk.ask(pause), Answer::Done);
    desk.pass(5_000);
    desk.unheard = false;
    assert_eq!(desk.ask(Request::Resume(group())), Answer::Done);
    desk.pass(20_000);
    assert_fenced(&desk, 1, "it is resumed");
}
