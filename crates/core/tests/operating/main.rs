//! What operators ask of a group, at the level of the fleet: a pause and its end, what becomes of replicas,
//! and what failovers of a moment ago hold back.

mod desk;
mod drift;
mod emptied;
mod hooks;

use desk::*;

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

fn events(desk: &Desk) -> Vec<(u16, String)> {
    let events = desk.of_kind(Kind::ReplicaEvent);
    events.iter().map(|entry| (entry.old_master.port(), entry.reason.clone())).collect()
}

#[test]
fn a_replica_that_goes_and_comes_back_is_in_the_history_once_whoever_leads() {
    let mut desk = Desk::new();
    assert_eq!(events(&desk), []);
    desk.kill(2);
    desk.pass(5000);
    let told = events(&desk);
    assert_eq!((told.len(), told[0].0), (1, 2), "{told:?}");
    assert!(told[0].1.contains("went down"), "{told:?}");
    desk.restart();
    desk.pass(5000);
    assert_eq!(events(&desk).len(), 1, "the next leader does not tell it again");
    desk.start(2);
    let told = events(&desk);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].1.contains("is back"), "{told:?}");
    assert_eq!((desk.commands.len(), desk.entry().epoch), (0, 0));
}

#[test]
fn a_link_that_is_lost_for_long_is_in_the_history_and_a_short_loss_is_not() {
    let mut desk = Desk::new();
    desk.server(2).broken = true;
    desk.pass(900);
    desk.server(2).broken = false;
    desk.pass(3000);
    assert_eq!(events(&desk), []);
    desk.server(2).broken = true;
    desk.pass(5000);
    let told = events(&desk);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].1.contains("has no link"), "{told:?}");
    desk.server(2).broken = false;
    desk.pass(5000);
    assert_eq!(events(&desk).len(), 2);
}

#[test]
fn a_replica_that_comes_and_goes_floods_nothing_and_pushes_no_failover_out() {
    let mut desk = Desk::new();
    desk.kill(1);
    desk.pass(1000);
    assert_eq!(desk.of_kind(Kind::Failover).len(), 1);
    let flapping = if desk.master() == 2 { 3 } else { 2 };
    for _ in 0..60 {
        desk.kill(flapping);
        desk.pass(2000);
        desk.start(flapping);
    }
    let told = events(&desk).iter().filter(|(port, _)| *port == flapping).count();
    assert!((8..=14).contains(&told), "two a minute in five minutes: {told}");
    for _ in 0..40 {
        desk.kill(flapping);
        desk.pass(70_000);
        desk.start(flapping);
        desk.pass(70_000);
    }
    assert_eq!(desk.of_kind(Kind::ReplicaEvent).len(), 32);
    assert_eq!(desk.of_kind(Kind::Failover).len(), 1);
}

#[test]
fn the_old_master_of_a_failover_is_no_replica_that_went_down() {
    let mut desk = Desk::new();
    desk.kill(1);
    desk.pass(70_000);
    desk.start(1);
    desk.pass(5000);
    assert_eq!(desk.view().diagnosis.name, "Healthy");
    assert_eq!(events(&desk), []);
}

/// The only demotion in the history, and the names of its steps.
fn demotion(desk: &Desk) -> (HistoryEntry, Vec<String>) {
    let demotions = desk.of_kind(Kind::Demotion);
    assert_eq!(demotions.len(), 1);
    let names = demotions[0].steps.iter().map(|step| step.name.clone()).collect();
    (demotions[0].clone(), names)
}

#[test]
fn what_a_master_takes_that_was_only_silent_is_in_the_history_when_it_is_demoted() {
    let mut desk = Desk::new();
    desk.hang(1);
    desk.pass(5000);
    assert_ne!(desk.master(), 1);
    desk.server(1).offset += 50;
    desk.server(1).mood = Mood::Serves;
    desk.pass(3000);
    let master = desk.master();
    assert_eq!(desk.server(1).follows, Some(master));
    let (entry, steps) = demotion(&desk);
    assert_eq!((entry.outcome, entry.bytes_possibly_lost), (Outcome::Done, Some(50)));
    assert!(entry.reason.contains("50 bytes were written to it"), "{}", entry.reason);
    assert_eq!(steps, ["returned", "committed", "demoted", "clients_cut"]);
    let silent = entry.steps[0].note.as_deref().expect("how it came back");
    assert!(silent.contains("was silent here"), "{silent}");
    let window = entry.steps[2].note.as_deref().expect("the window");
    assert!(entry.reason.ends_with(window), "{} and {window}", entry.reason);
}

#[test]
fn a_master_that_takes_nothing_before_it_is_demoted_lost_nothing() {
    let mut desk = Desk::new();
    desk.hang(1);
    desk.pass(5000);
    desk.server(1).mood = Mood::Serves;
    desk.pass(3000);
    let (entry, _) = demotion(&desk);
    assert_eq!(entry.bytes_possibly_lost, Some(0));
    assert!(entry.reason.contains("nothing was written"), "{}", entry.reason);
}

#[test]
fn a_returned_master_goes_before_a_straggler() {
    let mut desk = Desk::new();
    let another = desk.servers[&3].clone();
    desk.servers.insert(4, another);
    desk.pass(3000);
    // Both miss the failover, the later one in the order of addresses as a master.
    for port in [2, 4] {
        desk.kill(port);
    }
    desk.promote_by_hand(4);
    desk.kill(1);
    desk.pass(1000);
    assert_eq!(desk.master(), 3);
    desk.commands.clear();
    for port in [2, 4] {
        desk.server(port).mood = Mood::Serves;
    }
    desk.server(3).mood = Mood::Silent;
    desk.pass(500);
    assert_eq!(desk.commands.len(), 0, "nobody is told to follow one that gives no answer");
    desk.server(3).mood = Mood::Serves;
    desk.pass(3000);
    let told: Vec<u16> = desk.commands.iter().map(|(port, _)| *port).collect();
    assert_eq!(told, [4, 2]);
}

#[test]
fn a_replica_is_forgotten_for_good_only_when_it_is_not_attached() {
    let mut desk = Desk::new();
    let forget = |port| Request::Forget { group: group(), addr: addr(port) };
    for (port, expected, words) in [
        (2, RefusalCode::Refused, "found again at once"),
        (1, RefusalCode::Refused, "recorded master"),
        (7, RefusalCode::UnknownInstance, "no instance"),
    ] {
        let answer = desk.ask(forget(port));
        let Answer::Refused { code, message } = answer else { panic!("{answer:?}") };
        assert_eq!(code, expected);
        assert!(message.contains(words), "{message}");
    }
    desk.kill(2);
    desk.pass(5000);
    assert_eq!(desk.ask(forget(2)), Answer::Done);
    desk.pass(5000);
    assert!(!desk.entry().instances.contains_key(&addr(2)));
    assert!(events(&desk).last().expect("one").1.contains("forgotten on request"));
    desk.start(2);
    assert!(desk.entry().instances.contains_key(&addr(2)), "the master names it again");
    assert_eq!(desk.view().diagnosis.name, "Healthy");
}

/// Kills the master and gives the time until another one is recorded.
fn replaced_after(desk: &mut Desk, limit_ms: u64) -> Option<u64> {
    let old = desk.master();
    let began = desk.now;
    desk.kill(old);
    while desk.master() == old && desk.now.since(began) < Duration::from_millis(limit_ms) {
        desk.pass(20);
    }
    let took = desk.now.since(began).as_millis().try_into().expect("it is short");
    let replaced = desk.master() != old;
    desk.start(old);
    replaced.then_some(took)
}

#[test]
fn after_three_failovers_within_a_minute_a_refusal_has_to_last_too() {
    let mut desk = Desk::new();
    for count in 1..=3 {
        let took = replaced_after(&mut desk, 5000).expect("it is replaced");
        assert!(took < 200, "failover {count} took {took} ms");
    }
    let view = desk.view();
    assert_eq!(view.diagnosis.name, "Flapping", "{}", view.diagnosis.reason);
    assert!(view.diagnosis.not_acting_because.expect("a sentence").contains("until"));
    let dead = desk.master();
    desk.kill(dead);
    let view = desk.view();
    assert_eq!((view.diagnosis.name, desk.master()), ("Flapping", dead));
    let why = view.diagnosis.not_acting_because.expect("a sentence");
    assert!(why.contains("3 failovers within 60 s") && why.contains("until"), "{why}");
    desk.pass(850);
    assert_eq!(desk.master(), dead, "max_down_time is 1 s");
    desk.pass(300);
    assert_ne!(desk.master(), dead);
    assert_eq!(desk.entry().epoch, 4);
    desk.start(dead);

    desk.pass(61_000);
    assert_eq!(desk.view().diagnosis.name, "Healthy");
    let took = replaced_after(&mut desk, 5000).expect("it is replaced");
    assert!(took < 200, "{took} ms after a quiet minute");
}

#[test]
fn one_that_restarts_in_time_is_kept_while_the_group_is_flapping() {
    let mut desk = Desk::new();
    for _ in 0..3 {
        replaced_after(&mut desk, 5000).expect("it is replaced");
    }
    let master = desk.master();
    desk.kill(master);
    desk.pass(500);
    desk.start(master);
    desk.pass(5000);
    assert_eq!((desk.master(), desk.entry().epoch), (master, 3));
}

/// The time until a master that hangs from now on is replaced.
fn hanging_for(desk: &mut Desk, limit: u64) -> Option<u64> {
    let old = desk.master();
    let began = desk.now;
    desk.hang(old);
    while desk.master() == old && desk.now.since(began) < Duration::from_secs(limit) {
        desk.pass(100);
    }
    (desk.master() != old).then(|| desk.now.since(began).as_secs())
}

#[test]
fn a_cooldown_delays_a_master_that_is_silent_and_says_so() {
    let mut desk = Desk::new();
    replaced_after(&mut desk, 5000).expect("it is replaced");
    let silent = desk.master();
    desk.hang(silent);
    desk.pass(20_000);
    assert_eq!(desk.master(), silent);
    let view = desk.view();
    let why = view.diagnosis.not_acting_because.expect("a sentence");
    assert!(why.contains("cooldown") && why.contains("before"), "{why}");
    desk.pass(10_000);
    assert_ne!(desk.master(), silent);
    // The very first one waits for nothing but max_down_time, and without a cooldown none does.
    let took = hanging_for(&mut Desk::new(), 60).expect("it is replaced");
    assert!(took < 5, "{took} s");
    let policy = Policy {
        max_down_time: Duration::from_secs(1),
        cooldown: Duration::ZERO,
        ..Policy::default()
    };
    let mut desk = Desk::with(policy);
    replaced_after(&mut desk, 5000).expect("it is replaced");
    let took = hanging_for(&mut desk, 60).expect("it is replaced");
    assert!(took < 5, "{took} s");
}

#[test]
fn a_node_that_just_started_takes_the_failovers_of_others_for_recent_and_dates_its_own() {
    let mut desk = Desk::new();
    replaced_after(&mut desk, 5000).expect("it is replaced");
    desk.pass(100_000);
    desk.restart();
    desk.pass(3000);
    let took = hanging_for(&mut desk, 60).expect("it is replaced");
    assert!(took < 5, "its own failover was long ago: {took} s");

    let mut desk = Desk::new();
    replaced_after(&mut desk, 5000).expect("it is replaced");
    desk.pass(100_000);
    desk.me = "another";
    desk.restart();
    desk.pass(3000);
    let took = hanging_for(&mut desk, 60).expect("it is replaced");
    assert!((25..=29).contains(&took), "the cooldown begins at its start: {took} s");
}

#[test]
fn a_candidate_that_refuses_is_not_told_so_in_a_busy_loop_while_another_is_in_doubt() {
    let policy = Policy {
        max_down_time: Duration::from_secs(2),
        crash_down_time: Duration::from_secs(2),
        ..Policy::default()
    };
    let mut desk = Desk::with(policy);
    desk.server(3).refuses_commands = true;
    desk.hang(1);
    desk.pass(2_000);
    desk.server(2).mood = Mood::Refuses;
    desk.handle(Event::Ended { addr: addr(2) });
    desk.pass(10_000);
    assert!((2..60).contains(&desk.commands.len()), "{} commands", desk.commands.len());
    let failed = desk.of_kind(Kind::Failover);
    assert_eq!((failed.len(), failed[0].outcome), (1, Outcome::Failed));
}
