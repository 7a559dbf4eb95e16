//! Several voters, at the level of the fleet: whose word counts, and how a new leader goes on.

mod desk;
mod resume;

use std::collections::BTreeSet;
use std::time::Duration;

use desk::*;

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
fn a_follower_of_a_silent_master_hints_again_when_it_is_down() {
    let mut desk = Desk::new();
    desk.handle(Event::Leadership(Leadership::Follower { leader: node("b") }));
    desk.servers.insert(MASTER, Server::Silent);
    while desk.hinted.is_empty() {
        desk.pass(1);
    }
    assert!(desk.down_by_silence().is_none(), "it is only suspected");
    while desk.hinted.len() < 2 {
        assert!(desk.down_by_silence().is_none(), "the leader hears of it in the same moment");
        desk.pass(1);
    }
    assert_eq!(desk.down_by_silence(), Some(Death::Unreachable));
    desk.pass(5_000);
    assert_eq!(desk.hinted.len(), 2, "once each");
}

#[test]
fn a_hint_has_whoever_saw_the_master_up_asked_at_once() {
    let mut desk = Desk::new();
    desk.servers.insert(MASTER, Server::Silent);
    while desk.diagnosis() == "Healthy" {
        desk.pass(1);
    }
    for voter in ["b", "c"] {
        desk.testify(voter, 1, desk.now, None);
    }
    desk.asked.clear();
    desk.handle(Event::Hinted { group: group() });
    assert_eq!(desk.asked, [node("b"), node("c")], "and not when their turn comes");
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
fn what_another_node_read_before_the_death_is_waited_for_anew() {
    let mut desk = Desk::new();
    desk.servers.insert(OTHER, Server::Silent);
    desk.pass(3_500);
    desk.servers.insert(MASTER, Server::Refuses);
    desk.servers.insert(REPLICA, replica(down()));
    desk.handle(Event::Ended { addr: addr(MASTER) });
    let reached = |age_us: u64| {
        let role = Role::Replica { master: addr(MASTER), link: down() };
        let mut sight = sight(OTHER, role);
        if let Some((facts, age)) = &mut sight.facts {
            facts.offset += 1_000;
            *age = age_us;
        }
        vec![sight]
    };
    desk.testify_with("b", 1, desk.now, Some(Death::Refusing), reached(900_000));
    desk.pass(20);
    assert_eq!(desk.promotions(), vec![], "the one that is ahead was read before the death");
    desk.testify_with("b", 1, desk.now, Some(Death::Refusing), reached(0));
    assert_eq!(desk.promotions(), [OTHER], "{}", desk.view().diagnosis.reason);
}

#[test]
fn what_another_node_read_before_a_candidate_was_lost_here_is_waited_for_anew() {
    let mut desk = Desk::new();
    desk.kill_master();
    desk.servers.insert(REPLICA, Server::Refuses);
    desk.servers.insert(OTHER, Server::Refuses);
    let asked_at = desk.now;
    desk.pass(20);
    for port in [REPLICA, OTHER] {
        desk.handle(Event::Ended { addr: addr(port) });
    }
    desk.pass(20);
    let reached = || vec![sight(OTHER, Role::Replica { master: addr(MASTER), link: down() })];
    desk.testify_with("b", 1, asked_at, Some(Death::Refusing), reached());
    desk.pass(20);
    assert_eq!(desk.promotions(), [], "it died after it was read there");
    desk.testify_with("b", 1, desk.now, Some(Death::Refusing), reached());
    assert_eq!(desk.promotions(), [OTHER], "{}", desk.view().diagnosis.reason);
}

#[test]
fn what_was_said_of_the_master_before_is_no_word_about_its_successor() {
    let mut desk = Desk::new();
    for port in [REPLICA, OTHER] {
        desk.servers.insert(port, Server::Silent);
    }
    desk.servers.insert(MASTER, Server::Refuses);
    desk.handle(Event::Ended { addr: addr(MASTER) });
    desk.pass(3_500);
    let follows = || Role::Replica { master: addr(MASTER), link: down() };
    let sights = vec![sight(REPLICA, follows()), sight(OTHER, follows())];
    desk.testify_with("b", 1, desk.now, Some(Death::Refusing), sights);
    let id = desk.commands.last().expect("a command").3;
    let promoted = facts(desk.now, REPLICA, Role::Master { replicas: Vec::new() });
    let result = CommandResult::Done { facts: Box::new(promoted), warnings: Vec::new() };
    desk.handle(Event::Commanded { group: group(), id, result });
    assert_eq!(desk.view().master, addr(REPLICA));
    desk.pass(100);
    assert_eq!((desk.promotions(), desk.epoch()), (vec![REPLICA], 1), "nobody called it dead");
}

#[test]
fn a_voter_that_lags_behind_the_record_does_not_vote_about_its_old_master() {
    let mut desk = Desk::new();
    desk.kill_master();
    let testimony =
        Testimony { master: addr(OTHER), dead: Some(Death::Refusing), sights: Vec::new() };
    let (token, asked_at) = (Token(1), desk.now);
    desk.handle(Event::Testified { node: node("b"), token, group: group(), asked_at, testimony });
    assert_eq!((desk.epoch(), desk.promotions()), (0, vec![]));
}

#[test]
fn a_candidate_is_not_given_up_for_a_lease_that_ran_out_for_a_moment() {
    let mut desk = Desk::new();
    desk.kill_master();
    desk.testify("b", 1, desk.now, Some(Death::Refusing));
    for round in 1..5 {
        assert_eq!(desk.promotions(), vec![REPLICA; round]);
        let id = desk.commands.last().expect("a command").3;
        let result = CommandResult::NotSent("the lease ran out".to_owned());
        desk.handle(Event::Commanded { group: group(), id, result });
        assert_eq!(desk.promotions(), vec![REPLICA; round], "not in a busy loop");
        desk.testify("b", 1, desk.now, Some(Death::Refusing));
        desk.pass(250);
    }
    assert_eq!(desk.epoch(), 1);
}

#[test]
fn a_replica_that_only_another_node_reaches_can_veto() {
    let mut desk = Desk::new();
    for port in [MASTER, REPLICA, OTHER] {
        desk.servers.insert(port, Server::Silent);
    }
    desk.pass(5_000);
    // The master is cut off from all nodes, and its replicas from this one: they follow it all the time.
    for _ in 0..600 {
        let follows = || Role::Replica { master: addr(MASTER), link: up() };
        let sights = vec![sight(REPLICA, follows()), sight(OTHER, follows())];
        desk.testify_with("b", 1, desk.now, Some(Death::Unreachable), sights);
        desk.pass(100);
    }
    assert_eq!((desk.epoch(), desk.promotions()), (0, vec![]));
    assert_eq!(desk.diagnosis(), "MasterUnreachableFromHere");
}

#[test]
fn a_master_that_restarted_empty_needs_the_voters_too_and_a_follower_says_so_of_it() {
    let restarted = |desk: &mut Desk| {
        desk.emptied = true;
        for port in [REPLICA, OTHER] {
            desk.servers.insert(port, replica(down()));
        }
        desk.handle(Event::Ended { addr: addr(MASTER) });
        desk.pass(20);
    };
    let mut desk = Desk::new();
    restarted(&mut desk);
    assert_eq!(desk.commands, [], "one voter of three is not enough");
    assert_eq!(desk.diagnosis(), "MasterRestartedEmpty");
    desk.testify("b", 1, desk.now, Some(Death::Emptied));
    desk.pass(20);
    assert!(matches!(desk.commands[..], [(_, Command::Promote { .. }, _, _), ..]));

    let mut desk = Desk::new();
    desk.handle(Event::Leadership(Leadership::Follower { leader: node("b") }));
    restarted(&mut desk);
    let testimony = desk.fleet.testify(desk.now, &group()).expect("it guards the group");
    assert_eq!(testimony.dead, Some(Death::Emptied));
}

#[test]
fn one_that_took_over_nothing_does_not_come_before_one_with_the_data_when_an_empty_master_dies() {
    let mut desk = Desk::new();
    desk.emptied = true;
    desk.wiped = Some(OTHER);
    desk.servers.insert(REPLICA, replica(down()));
    desk.handle(Event::Ended { addr: addr(MASTER) });
    desk.pass(1_000);
    assert_eq!((desk.diagnosis(), desk.commands.len()), ("MasterRestartedEmpty", 0));
    desk.kill_master();
    desk.testify("b", 1, desk.now, Some(Death::Refusing));
    desk.pass(20);
    assert_eq!(desk.promotions(), [REPLICA]);
    let saga = desk.view().history[0].clone();
    assert_eq!(saga.bytes_possibly_lost, None, "it cannot be known");
}

#[test]
fn a_repointing_that_was_not_sent_is_put_off_without_a_busy_loop() {
    let mut desk = Desk::new();
    desk.kill_master();
    desk.testify("b", 1, desk.now, Some(Death::Refusing));
    let promoted = facts(desk.now, REPLICA, Role::Master { replicas: Vec::new() });
    desk.servers.insert(REPLICA, master(&[]));
    let id = desk.commands.last().expect("a promotion").3;
    let result = CommandResult::Done { facts: Box::new(promoted), warnings: Vec::new() };
    desk.handle(Event::Commanded { group: group(), id, result });
    for _ in 0..3 {
        let (port, _, _, id) = desk.commands.pop().expect("a command");
        assert_eq!(port, OTHER);
        desk.commands.clear();
        let result = CommandResult::NotSent("the lease ran out".to_owned());
        desk.handle(Event::Commanded { group: group(), id, result });
        desk.pass(250);
    }
    assert_eq!(desk.commands.len(), 1, "it is sent again");
}

#[test]
fn a_request_that_waits_for_answers_keeps_nobody_busy_while_the_master_is_heard_of() {
    let mut desk = Desk::new();
    for port in [REPLICA, OTHER] {
        desk.servers.insert(port, Server::Silent);
    }
    desk.kill_master_alone();
    desk.pass(100);
    let (group, to, timeout) = (group(), None, Duration::from_secs(2));
    let request = Request::Switchover { group, to, timeout, dry_run: false };
    desk.handle(Event::Request { id: 7, request });
    desk.pass(500);
    assert!(matches!(desk.answers.last(), Some(Answer::Refused { .. })), "{:?}", desk.answers);
}

#[test]
fn a_connection_that_ends_for_a_moment_settles_nothing_of_a_master_that_lost_its_data() {
    let mut desk = Desk::new();
    (desk.emptied, desk.keys_left) = (true, 4);
    for port in [REPLICA, OTHER] {
        desk.servers.insert(port, replica(down()));
    }
    desk.handle(Event::Ended { addr: addr(MASTER) });
    desk.pass(500);
    assert_eq!(desk.diagnosis(), "MasterRestartedEmpty", "the voters are waited for");
    for port in [REPLICA, OTHER] {
        desk.servers.insert(port, Server::Silent);
        desk.handle(Event::Ended { addr: addr(port) });
    }
    desk.pass(300);
    for port in [REPLICA, OTHER] {
        desk.servers.insert(port, replica(down()));
        desk.handle(Event::Ended { addr: addr(port) });
    }
    desk.pass(500);
    desk.testify("b", 1, desk.now, Some(Death::Emptied));
    desk.pass(20);
    assert_eq!(desk.promotions(), [REPLICA], "{}", desk.view().diagnosis.reason);
}

#[test]
fn a_leader_that_is_cut_off_learns_from_the_replicas_that_its_master_began_another_history() {
    // The master restarted where this node cannot see it; one replica followed it there, the other is cut off as well.
    let mut desk = Desk::new();
    desk.servers.insert(MASTER, Server::Silent);
    desk.handle(Event::Ended { addr: addr(MASTER) });
    desk.servers.insert(REPLICA, replica(Link::Up { last_io_secs: 60 }));
    desk.of_history = BTreeMap::from([(OTHER, "of its new process".to_owned())]);
    for _ in 0..20 {
        desk.testify("b", 1, desk.now, None);
        desk.testify("c", 1, desk.now, None);
        desk.pass(500);
    }
    assert_eq!(desk.promotions(), vec![], "the others see it");
    let record = desk.fleet.record().clone();
    let lineage = &record.entry(&group()).expect("it is guarded").lineage;
    assert_eq!(lineage.first().map(|id| &*id.0), Some("of its new process"));
    // Now it dies, and the link of the one that followed it to the end goes down.
    desk.servers.insert(OTHER, replica(down()));
    for _ in 0..10 {
        desk.testify("b", 1, desk.now, Some(Death::Refusing));
        desk.testify("c", 1, desk.now, Some(Death::Refusing));
        desk.pass(1_500);
    }
    assert_eq!(desk.promotions().first(), Some(&OTHER), "{}", desk.view().diagnosis.reason);
}

#[test]
fn a_leader_that_is_cut_off_takes_no_history_for_its_masters_that_another_one_calls_its_own() {
    // The master was made a replica where this node cannot see it, and passes on what it gets.
    let mut desk = Desk::new();
    desk.servers.insert(MASTER, Server::Silent);
    desk.handle(Event::Ended { addr: addr(MASTER) });
    desk.servers.insert(REPLICA, master(&[MASTER]));
    let own = || "its own".to_owned();
    desk.of_history = BTreeMap::from([(REPLICA, own()), (OTHER, own())]);
    for _ in 0..20 {
        desk.testify("b", 1, desk.now, None);
        desk.testify("c", 1, desk.now, None);
        desk.pass(500);
    }
    let record = desk.fleet.record().clone();
    let lineage = &record.entry(&group()).expect("it is guarded").lineage;
    assert_eq!(lineage.iter().map(|id| &*id.0).collect::<Vec<_>>(), ["h"]);
}

#[test]
fn a_vote_that_is_half_a_second_old_is_asked_for_again_before_anybody_is_promoted() {
    let mut desk = Desk::new();
    // Nobody can take over at first: what the others say meanwhile explains why, and nothing is done upon it.
    for port in [REPLICA, OTHER] {
        desk.servers.insert(port, Server::Silent);
    }
    desk.servers.insert(MASTER, Server::Refuses);
    desk.handle(Event::Ended { addr: addr(MASTER) });
    desk.pass(3_500);
    for voter in ["b", "c"] {
        desk.testify(voter, 1, desk.now, Some(Death::Refusing));
    }
    // The master comes back where this node cannot see it, and a replica is found that could take over.
    desk.asked.clear();
    desk.pass(500);
    desk.servers.insert(REPLICA, replica(down()));
    desk.handle(Event::Ended { addr: addr(REPLICA) });
    desk.pass(100);
    assert_eq!((desk.epoch(), desk.promotions()), (0, vec![]), "the votes are old");
    assert!(desk.asked.contains(&node("b")) && desk.asked.contains(&node("c")));
    assert!(desk.asked.len() <= 10, "no busy loop: {:?}", desk.asked);
    for voter in ["b", "c"] {
        desk.testify(voter, 1, desk.now, None);
    }
    desk.pass(100);
    assert_eq!((desk.epoch(), desk.promotions()), (0, vec![]), "they see it");
    desk.testify("b", 1, desk.now, Some(Death::Refusing));
    desk.pass(10);
    assert_eq!(desk.promotions(), [REPLICA], "{}", desk.view().diagnosis.reason);
}

#[test]
fn a_replica_that_was_asked_a_moment_ago_is_waited_for_when_a_silent_master_begins_to_refuse() {
    let mut desk = Desk::new();
    desk.servers.insert(MASTER, Server::Silent);
    desk.servers.insert(REPLICA, replica(down()));
    desk.pass(3_000);
    desk.servers.insert(OTHER, Server::Silent);
    desk.pass(300);
    desk.servers.insert(MASTER, Server::Refuses);
    desk.handle(Event::Ended { addr: addr(MASTER) });
    desk.testify("b", 1, desk.now, Some(Death::Refusing));
    desk.pass(50);
    assert_eq!(desk.promotions(), vec![], "the other one may have more");
    desk.testify("b", 1, desk.now, Some(Death::Refusing));
    desk.pass(170);
    assert_eq!(desk.promotions(), [REPLICA], "{}", desk.view().diagnosis.reason);
}

#[test]
fn replicas_are_asked_again_when_the_path_to_an_unreachable_master_is_whole_and_it_hangs() {
    let mut desk = Desk::new();
    desk.servers.insert(MASTER, Server::Unreachable);
    desk.pass(1_750);
    assert_eq!(desk.diagnosis(), "MasterUnreachableFromHere");
    // What they missed while their path was cut as well reaches them now.
    desk.servers.insert(MASTER, Server::Silent);
    desk.servers.insert(OTHER, Server::Silent);
    desk.handle(Event::Accepted { addr: addr(MASTER) });
    desk.pass(201);
    desk.testify("b", 1, desk.now, Some(Death::Hung));
    desk.pass(50);
    assert_eq!(desk.promotions(), vec![], "the other one may have more");
    desk.testify("b", 1, desk.now, Some(Death::Hung));
    desk.pass(200);
    assert_eq!(desk.promotions(), [REPLICA], "{}", desk.view().diagnosis.reason);
}

#[test]
fn who_copied_from_a_hung_master_before_the_quorum_was_heard_is_asked_what_it_has_by_now() {
    let mut desk = Desk::new();
    desk.servers.insert(MASTER, Server::Silent);
    desk.servers.insert(REPLICA, replica(down()));
    desk.servers.insert(OTHER, replica(Link::Syncing));
    desk.pass(1_950);
    assert_eq!(desk.promotions(), vec![]);
    desk.servers.insert(OTHER, Server::Silent);
    desk.testify("b", 1, desk.now, Some(Death::Hung));
    desk.pass(20);
    assert_eq!(desk.promotions(), vec![], "the other one may have more");
    desk.testify("b", 1, desk.now, Some(Death::Hung));
    desk.pass(400);
    assert_eq!(desk.promotions(), [REPLICA], "{}", desk.view().diagnosis.reason);
}

#[test]
fn a_decision_whose_master_is_neither_dead_nor_back_keeps_nobody_busy() {
    let mut desk = Desk::new();
    desk.slow = true;
    desk.kill_master();
    desk.testify("b", 1, desk.now, Some(Death::Refusing));
    let (id, changes) = desk.proposed.pop().expect("a decision");
    // It is committed late, when nobody says any more that the master is down.
    desk.slow = false;
    desk.pass(300);
    desk.servers.insert(MASTER, Server::Silent);
    desk.handle(Event::Committed { id: Some(id), changes });
    desk.testify("b", 1, desk.now, None);
    desk.testify("c", 1, desk.now, None);
    desk.handle(Event::Accepted { addr: addr(MASTER) });
    desk.pass(900);
    assert_eq!(desk.promotions(), vec![]);
}

#[test]
fn what_a_replica_said_half_a_second_ago_is_asked_again_before_it_is_promoted() {
    let mut desk = Desk::new();
    desk.kill_master();
    // It is wiped: another old master came back with nothing, and it follows that one.
    desk.of_history = BTreeMap::from([(REPLICA, "of nothing".to_owned())]);
    desk.pass(600);
    desk.testify("b", 1, desk.now, Some(Death::Refusing));
    desk.pass(5);
    assert_eq!(desk.promotions(), [OTHER], "{}", desk.view().diagnosis.reason);
}
