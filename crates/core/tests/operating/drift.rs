//! Roles that somebody changed by hand: undone, adopted, or reported.

use super::desk::*;

/// What was done to the servers, in order.
fn told(desk: &Desk) -> Vec<(u16, Option<u16>)> {
    let follow = |(port, command): &(u16, Command)| match command {
        Command::Follow { master, .. } => Some((*port, Some(master.port()))),
        Command::Promote { .. } => Some((*port, None)),
        Command::Demote { .. }
        | Command::Part
        | Command::Pause { .. }
        | Command::Unpause
        | Command::Fence { .. } => None,
    };
    desk.commands.iter().filter_map(follow).collect()
}

fn why(desk: &Desk) -> String {
    desk.view().diagnosis.not_acting_because.expect("a sentence")
}

#[test]
fn a_replica_that_was_made_a_master_by_hand_is_one_for_ten_seconds() {
    let mut desk = Desk::new();
    desk.promote_by_hand(2);
    desk.pass(8_000);
    assert_eq!(desk.view().diagnosis.name, "TwoMasters");
    assert!(why(&desk).contains("by hand") && why(&desk).contains("undone at"), "{}", why(&desk));
    assert_eq!(told(&desk), []);
    desk.pass(6_000);
    assert_eq!(told(&desk), [(2, Some(1))]);
    let [demotion] = desk.of_kind(Kind::Demotion)[..] else { panic!("one demotion") };
    assert!(demotion.reason.contains("by hand") && demotion.reason.contains("it stood for"));
    assert_eq!(desk.view().diagnosis.name, "Healthy");
}

#[test]
fn a_change_that_is_taken_back_in_time_is_nobodys_business() {
    let mut desk = Desk::new();
    for _ in 0..3 {
        desk.promote_by_hand(2);
        desk.pass(7_000);
        desk.server(2).follows = Some(1);
        desk.pass(7_000);
    }
    assert_eq!(told(&desk), [], "each time the ten seconds began anew");
}

#[test]
fn a_replica_of_a_stranger_is_brought_back() {
    let mut desk = Desk::new();
    desk.server(3).follows = Some(99);
    desk.pass(15_000);
    assert_eq!(told(&desk), [(3, Some(1))]);
    let repair = desk.of_kind(Kind::Repair)[0];
    assert!(repair.reason.contains("127.0.0.1:99"), "{}", repair.reason);
}

#[test]
fn what_is_changed_again_and_again_is_undone_three_times_an_hour_also_by_another_leader() {
    let mut desk = Desk::new();
    for count in 1..=5 {
        desk.promote_by_hand(2);
        desk.pass(15_000);
        if count == 2 {
            desk.restart();
            desk.pass(1_000);
        }
    }
    assert_eq!(told(&desk).len(), 3, "{:?}", told(&desk));
    assert!(why(&desk).contains("3 times within an hour"), "{}", why(&desk));
    desk.pass(3_600_000);
    assert_eq!(told(&desk).len(), 4, "an hour later once more");
}

#[test]
fn a_master_that_was_made_a_replica_of_another_new_master_by_hand_is_followed_there() {
    let mut desk = Desk::new();
    desk.promote_by_hand(2);
    desk.server(1).follows = Some(2);
    desk.pass(3_000);
    assert_eq!((desk.master(), desk.entry().epoch), (2, 1));
    let [adoption] = desk.of_kind(Kind::Adoption)[..] else { panic!("one adoption") };
    assert_eq!(adoption.cause, "MasterBecameReplica");
    desk.pass(5_000);
    assert_eq!(told(&desk), [(3, Some(2))], "the rest of the group follows");
    assert_eq!(desk.view().diagnosis.name, "Healthy");
}

#[test]
fn a_master_that_was_made_a_replica_of_its_replica_is_made_a_master_again() {
    let mut desk = Desk::new();
    desk.server(1).follows = Some(2);
    desk.pass(8_000);
    assert_eq!(desk.view().diagnosis.name, "MasterBecameReplica");
    assert_eq!((told(&desk), desk.entry().epoch), (vec![], 0));
    desk.pass(6_000);
    assert_eq!(told(&desk), [(1, None)]);
    assert_eq!((desk.master(), desk.entry().epoch), (1, 1), "every promotion has an epoch");
    assert_eq!(desk.view().diagnosis.name, "Healthy");
}

#[test]
fn a_master_that_took_over_anothers_data_is_left_to_people() {
    let mut desk = Desk::new();
    desk.server(1).follows = Some(99);
    desk.server(1).history = "of another world".to_owned();
    desk.pass(60_000);
    assert_eq!(told(&desk), []);
    assert!(why(&desk).contains("nothing is left to be undone"), "{}", why(&desk));
    // What the sentence says works.
    let to = Request::Failover { group: group(), to: Some(addr(2)), force: true, dry_run: false };
    desk.handle(Event::Request { id: 9, request: to });
    desk.pass(1000);
    assert_eq!((desk.master(), desk.servers[&2].follows), (2, None), "{:?}", desk.answers);
}

#[test]
fn a_chain_is_reported_and_left_alone() {
    let mut desk = Desk::new();
    desk.server(3).follows = Some(2);
    desk.pass(60_000);
    assert_eq!(told(&desk), []);
    assert_eq!(desk.view().diagnosis.name, "ReplicaOfWrongMaster");
    assert!(why(&desk).contains("chain"), "{}", why(&desk));
}

#[test]
fn an_address_that_another_groups_server_was_given_is_left_alone() {
    // A second group with a history of its own.
    let with_other = |desk: &mut Desk| {
        let server = Server { history: "other".to_owned(), ..desk.servers[&1].clone() };
        desk.servers.insert(7, server);
        let spec = GroupSpec { name: None, master: addr(7), replicas: Vec::new() };
        assert_eq!(desk.ask(Request::Add(vec![spec])), Answer::Done);
        desk.pass(3_000);
    };
    // A master comes back at a replica's address, a replica of the other group does, and the same at a failover.
    for follows in [None, Some(7)] {
        let mut desk = Desk::new();
        with_other(&mut desk);
        desk.kill(2);
        desk.pass(2_000);
        let stranger = desk.server(2);
        stranger.follows = follows;
        stranger.history = "other".to_owned();
        stranger.life += 1;
        desk.start(2);
        desk.pass(60_000);
        assert_eq!(told(&desk), [], "it follows {follows:?}");
        assert!(why(&desk).contains("forget it here"), "{}", why(&desk));
        desk.kill(1);
        desk.pass(5_000);
        assert_eq!((desk.master(), told(&desk)), (3, vec![(3, None)]), "it follows {follows:?}");
    }
    // And at the master's own address.
    let mut desk = Desk::new();
    with_other(&mut desk);
    let stranger = desk.server(1);
    stranger.history = "other".to_owned();
    stranger.life += 1;
    stranger.keys = 1_000;
    for port in [2, 3] {
        desk.server(port).broken = true;
    }
    desk.handle(Event::Ended { addr: addr(1) });
    desk.pass(20);
    assert_eq!(desk.master(), 2);
    desk.server(3).broken = false;
    desk.pass(20_000);
    assert_eq!(told(&desk), [(2, None), (3, Some(2))], "it is no second master of this group");
}

#[test]
fn an_address_whose_master_has_replicas_of_its_own_is_left_alone() {
    let mut desk = Desk::new();
    desk.kill(2);
    desk.pass(2_000);
    let stranger = desk.server(2);
    stranger.follows = None;
    stranger.history = "unknown".to_owned();
    stranger.life += 1;
    let its_replica = Server { follows: Some(2), mood: Mood::Serves, ..stranger.clone() };
    desk.servers.insert(50, its_replica);
    desk.start(2);
    desk.pass(30_000);
    assert_eq!(told(&desk), []);
    assert!(why(&desk).contains("not of this group"), "{}", why(&desk));
}

#[test]
fn one_replica_is_copied_at_a_time() {
    let mut desk = Desk::new();
    for port in [2, 3] {
        desk.server(port).follows = Some(99);
        desk.server(port).broken = true;
    }
    desk.pass(20_000);
    assert_eq!(told(&desk).len(), 1, "the copy of the first is not there yet: {:?}", told(&desk));
    assert!(why(&desk).contains("waits until"), "{}", why(&desk));
    for port in [2, 3] {
        desk.server(port).broken = false;
    }
    desk.pass(5_000);
    assert_eq!(told(&desk).len(), 2);
}

#[test]
fn the_end_of_a_chain_stays_when_its_middle_goes_astray_and_a_ring_is_undone() {
    let mut desk = Desk::new();
    desk.server(3).follows = Some(2);
    desk.pass(1_000);
    desk.server(2).follows = Some(99);
    desk.pass(20_000);
    assert_eq!(told(&desk), [(2, Some(1))], "only the middle was astray");

    let mut desk = Desk::new();
    desk.server(3).follows = Some(2);
    desk.server(2).follows = Some(3);
    for port in [2, 3] {
        desk.server(port).broken = true;
    }
    desk.pass(100_000);
    assert_eq!(told(&desk), [(2, Some(1))], "what is left is a chain");
}

/// Everything was power-cycled, and the recorded master came back by an old configuration file.
fn ring(change: impl FnOnce(&mut Desk)) -> Desk {
    let policy = Policy {
        max_down_time: Duration::from_secs(1),
        crash_down_time: Duration::from_secs(1),
        ..Policy::default()
    };
    let mut desk = Desk::with(policy);
    for port in [1, 2, 3] {
        let server = desk.server(port);
        server.life += 1;
        server.broken = true;
    }
    let master = desk.server(1);
    master.follows = Some(2);
    master.history = "from an append-only file".to_owned();
    change(&mut desk);
    for port in [1, 2, 3] {
        desk.handle(Event::Ended { addr: addr(port) });
    }
    desk.pass(500);
    for port in [1, 2, 3] {
        desk.server(port).broken = false;
    }
    desk.pass(5_000);
    desk
}

#[test]
fn a_master_that_restarts_as_a_replica_of_its_replica_is_a_master_again_at_once() {
    let desk = ring(|_| {});
    assert_eq!(told(&desk), [(1, None)], "{}", desk.view().diagnosis.reason);
    assert_eq!((desk.master(), desk.entry().epoch), (1, 1));
    assert_eq!(desk.entry().drifts_undone, [], "nobody did it by hand");
    assert_eq!(desk.view().diagnosis.name, "Healthy");
}

#[test]
fn and_when_it_lost_its_data_its_replica_is_the_next_master() {
    let desk = ring(|desk| desk.server(1).keys = 0);
    assert_eq!(desk.master(), 2, "{}", desk.view().diagnosis.reason);
    assert!(desk.servers.values().all(|server| server.keys == 10));
    assert_eq!(desk.view().diagnosis.name, "Healthy");
}

#[test]
fn a_master_that_a_failover_elsewhere_left_behind_was_not_made_one_by_hand() {
    // This node saw the old master all the time, as a replica first; another one, which did not, replaced it.
    let mut desk = Desk::new();
    desk.kill(1);
    desk.start(1);
    assert_eq!(desk.master(), 2);
    desk.handle(Event::Leadership(Leadership::Follower { leader: NodeId::new("other") }));
    desk.promote_by_hand(3);
    desk.commit(|entry| {
        entry.master = addr(3);
        entry.epoch = 2;
    });
    desk.commands.clear();
    desk.lead();
    desk.pass(2_000);
    assert_eq!(told(&desk).first(), Some(&(2, Some(3))), "{}", desk.view().diagnosis.reason);
    let demotion = desk.of_kind(Kind::Demotion).last().map(|entry| entry.reason.clone());
    assert!(demotion.as_ref().is_some_and(|why| why.contains("a master still")), "{demotion:?}");
}

#[test]
fn a_master_that_cannot_be_made_one_again_is_told_so_ever_less_often() {
    let mut desk = ring(|desk| desk.server(1).refuses_commands = true);
    desk.pass(600_000);
    let asked = told(&desk).len();
    assert!((3..12).contains(&asked), "{asked} times in ten minutes");
    assert!(why(&desk).contains("the last repair of"), "{}", why(&desk));
    desk.server(1).refuses_commands = false;
    desk.pass(400_000);
    assert_eq!(desk.view().diagnosis.name, "Healthy");
}

#[test]
fn another_groups_server_that_takes_an_address_within_a_moment_is_left_alone() {
    let mut desk = Desk::new();
    let server = Server { history: "other".to_owned(), ..desk.servers[&1].clone() };
    desk.servers.insert(7, server);
    let spec = GroupSpec { name: None, master: addr(7), replicas: Vec::new() };
    assert_eq!(desk.ask(Request::Add(vec![spec])), Answer::Done);
    desk.pass(3_000);
    // A container stops and another one gets its address, before anybody sees a refusal.
    let stranger = desk.server(2);
    stranger.follows = None;
    stranger.history = "other".to_owned();
    stranger.life += 1;
    desk.handle(Event::Ended { addr: addr(2) });
    desk.pass(60_000);
    assert_eq!(told(&desk), []);
    assert!(why(&desk).contains("forget it here"), "{}", why(&desk));
}

#[test]
fn a_master_is_not_made_one_again_beside_another() {
    // Another instance than the one that it follows by its old file was made a master.
    let desk = ring(|desk| {
        desk.promote_by_hand(3);
        desk.server(3).broken = false;
    });
    assert_eq!(told(&desk), [], "{}", desk.view().diagnosis.reason);
    assert!(why(&desk).contains("decide with a failover"), "{}", why(&desk));

    // By hand, and within the ten seconds.
    let mut desk = Desk::new();
    desk.server(1).follows = Some(2);
    desk.promote_by_hand(3);
    desk.pass(60_000);
    assert!(!told(&desk).contains(&(1, None)), "{:?}", told(&desk));
}

#[test]
fn a_leader_does_not_adopt_by_what_it_saw_before_it_led() {
    let mut desk = Desk::new();
    desk.handle(Event::Leadership(Leadership::Follower { leader: NodeId::new("b") }));
    desk.promote_by_hand(2);
    desk.server(1).follows = Some(2);
    desk.pass(3_000);
    // Taken back a moment before this node leads.
    desk.server(1).follows = None;
    desk.server(2).follows = Some(1);
    desk.lead();
    desk.pass(5_000);
    assert_eq!((desk.master(), desk.entry().epoch), (1, 0));
    assert_eq!(desk.of_kind(Kind::Adoption).len(), 0);
}

#[test]
fn the_ten_seconds_of_a_change_begin_anew_under_another_leadership_and_after_a_pause() {
    for pause in [false, true] {
        let mut desk = Desk::new();
        desk.promote_by_hand(2);
        desk.pass(5_000);
        match pause {
            true => desk.pause(None),
            false => {
                desk.handle(Event::Leadership(Leadership::Follower { leader: NodeId::new("b") }));
            }
        }
        desk.server(2).follows = Some(1);
        desk.pass(600_000);
        desk.promote_by_hand(2);
        desk.pass(3_000);
        match pause {
            true => desk.resume(),
            false => desk.lead(),
        }
        desk.pass(7_000);
        assert_eq!(told(&desk), [], "pause: {pause}, {:?}", desk.of_kind(Kind::Demotion));
        desk.pass(7_000);
        assert_eq!(told(&desk), [(2, Some(1))], "pause: {pause}");
    }
}

#[test]
fn an_old_master_of_this_groups_history_returns_also_with_replicas_that_nobody_knows() {
    let mut desk = Desk::new();
    desk.hang(1);
    desk.pass(5_000);
    let master = desk.master();
    assert_ne!(master, 1);
    // Attached while it was cut off from here.
    let its_replica = Server { follows: Some(1), ..desk.servers[&1].clone() };
    desk.servers.insert(50, Server { mood: Mood::Serves, ..its_replica });
    desk.commands.clear();
    desk.server(1).mood = Mood::Serves;
    desk.pass(20_000);
    assert_eq!(told(&desk), [(1, Some(master))]);
}

#[test]
fn a_master_that_restarts_as_a_replica_with_older_data_is_not_followed() {
    let desk = ring(|desk| {
        desk.server(1).history = "h0".to_owned();
        desk.server(1).offset = 60;
    });
    assert_eq!(desk.master(), 2, "{:?}", told(&desk));
    assert!(!told(&desk).contains(&(1, None)), "{:?}", told(&desk));
}

#[test]
fn a_switchover_by_hand_is_adopted_whenever_its_second_half_comes() {
    let mut adopted = 0;
    for delay in (8_000..12_500).step_by(100) {
        let mut desk = Desk::new();
        desk.promote_by_hand(2);
        desk.pass(delay);
        if !told(&desk).is_empty() {
            continue;
        }
        desk.server(1).follows = Some(2);
        desk.pass(5_000);
        assert!(!told(&desk).contains(&(2, Some(1))), "after {delay} ms: {:?}", told(&desk));
        assert_eq!(desk.master(), 2, "after {delay} ms");
        adopted += 1;
    }
    assert!(adopted > 10, "{adopted}");
}

#[test]
fn a_switchover_by_hand_that_begins_with_the_old_master_is_adopted_whenever_it_ends() {
    let mut adopted = 0;
    for delay in (8_000..12_500).step_by(100) {
        let mut desk = Desk::new();
        desk.server(1).follows = Some(2);
        desk.pass(delay);
        if !told(&desk).is_empty() {
            continue;
        }
        desk.promote_by_hand(2);
        desk.pass(5_000);
        assert_eq!(told(&desk).first(), Some(&(3, Some(2))), "after {delay} ms: {:?}", told(&desk));
        assert_eq!(desk.master(), 2, "after {delay} ms");
        adopted += 1;
    }
    assert!(adopted > 10, "{adopted}");
}

#[test]
fn a_repair_of_the_master_that_another_leader_decided_does_not_make_a_second_one() {
    let mut desk = Desk::new();
    desk.handle(Event::Leadership(Leadership::Follower { leader: NodeId::new("b") }));
    desk.server(1).follows = Some(2);
    desk.pass(12_000);
    // That leader decides to make 1 a master again and dies, and somebody makes 2 one.
    let now = desk.now;
    desk.commit(|entry| {
        let history = HistoryEntry {
            id: "of another".to_owned(),
            kind: Kind::Repair,
            epoch: 1,
            old_master: addr(1),
            new_master: Some(addr(1)),
            cause: "MasterBecameReplica".to_owned(),
            reason: "it was made a replica by hand".to_owned(),
            outcome: Outcome::Running,
            started_at: now,
            finished_at: None,
            leader: NodeId::new("b"),
            write_gap_ms: None,
            bytes_possibly_lost: None,
            steps: Vec::new(),
            ranking: Vec::new(),
        };
        entry.epoch = 1;
        entry.history_next += 1;
        entry.saga = Some(Saga {
            phase: Phase::Decided,
            target: addr(1),
            target_run_id: None,
            deadline: None,
            forced: false,
            promoted_at: None,
            attempts: Vec::new(),
            history,
        });
    });
    desk.promote_by_hand(2);
    desk.lead();
    desk.pass(8_000);
    assert!(!told(&desk).contains(&(1, None)), "{:?}", told(&desk));
    assert_eq!(desk.master(), 2, "the old one follows it");
    let repair = desk.of_kind(Kind::Repair)[0];
    assert!(repair.reason.contains("became a master meanwhile"), "{}", repair.reason);
}

#[test]
fn a_master_that_was_pointed_elsewhere_and_restarts_as_that_is_made_one_again_at_once() {
    let mut desk = Desk::new();
    desk.server(1).follows = Some(2);
    desk.pass(2_000);
    desk.server(1).life += 1;
    desk.handle(Event::Ended { addr: addr(1) });
    desk.pass(1_000);
    assert_eq!(told(&desk), [(1, None)]);
}

#[test]
fn the_clock_of_an_earlier_leader_that_was_days_ahead_lets_nothing_stand_for_days() {
    let mut desk = Desk::new();
    let ahead = desk.now + Duration::from_secs(3 * 86_400);
    desk.commit(|entry| entry.drifts_undone = vec![ahead; 3]);
    desk.promote_by_hand(2);
    desk.pass(15_000);
    assert_eq!(told(&desk), [(2, Some(1))], "{}", desk.view().diagnosis.reason);
}

#[test]
fn a_master_that_loads_while_another_one_is_to_follow_it_is_not_asked_without_a_pause() {
    let mut desk = Desk::new();
    let now = desk.now;
    desk.handle(Event::Leadership(Leadership::None));
    desk.commit(|entry| {
        let history = HistoryEntry {
            id: "of another".to_owned(),
            kind: Kind::Repair,
            epoch: 0,
            old_master: addr(2),
            new_master: None,
            cause: "TwoMasters".to_owned(),
            reason: "it returned as a master".to_owned(),
            outcome: Outcome::Running,
            started_at: now,
            finished_at: None,
            leader: NodeId::new("b"),
            write_gap_ms: None,
            bytes_possibly_lost: None,
            steps: Vec::new(),
            ranking: Vec::new(),
        };
        entry.history_next += 1;
        entry.saga = Some(Saga {
            phase: Phase::Decided,
            target: addr(2),
            target_run_id: None,
            deadline: None,
            forced: false,
            promoted_at: None,
            attempts: Vec::new(),
            history,
        });
    });
    desk.server(2).follows = None;
    desk.server(1).mood = Mood::Loads;
    desk.pass(5_000);
    desk.lead();
    // Every answer comes at once: who asks again for each of them never comes to rest.
    desk.pass(2_000);
    desk.server(1).mood = Mood::Serves;
    desk.pass(3_000);
    assert_eq!(told(&desk), [(2, Some(1))]);
}
