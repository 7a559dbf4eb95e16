//! A new leader, and one that lost its lead for a moment: how they go on with what is half done.

use std::collections::BTreeSet;
use std::time::Duration;

use failover_core::record::{Kind, Saga};
use failover_core::view::StatusView;

use crate::desk::*;

#[test]
fn a_promotion_that_happened_already_is_recorded_and_not_sent_again() {
    let mut desk = Desk::new();
    let record = desk.decided_elsewhere();
    desk.servers.insert(REPLICA, master(&[]));
    // The old master is back: what counts is that its successor is one already.
    desk.servers.insert(MASTER, master(&[]));
    desk.succeed(record);
    desk.pass(5);
    assert_eq!(desk.promotions(), Vec::<u16>::new());
    assert_eq!((desk.view().master, desk.epoch()), (addr(REPLICA), 1));
    let steps: Vec<String> =
        desk.view().history[0].steps.iter().map(|step| step.name.clone()).collect();
    assert!(steps.contains(&"resumed_by".to_owned()), "{steps:?}");
}

#[test]
fn a_promotion_that_did_not_happen_is_sent_when_the_voters_still_agree() {
    let mut desk = Desk::new();
    let record = desk.decided_elsewhere();
    desk.succeed(record);
    desk.pass(50);
    assert_eq!(desk.promotions(), Vec::<u16>::new(), "nobody else was heard by this leader");
    desk.testify("c", 2, desk.now, Some(Death::Refusing));
    assert_eq!((desk.promotions(), desk.epoch()), (vec![REPLICA], 1));
}

#[test]
fn a_failover_whose_reason_is_gone_is_undone() {
    let mut desk = Desk::new();
    let record = desk.decided_elsewhere();
    desk.servers.insert(MASTER, master(&[REPLICA, OTHER]));
    for port in [REPLICA, OTHER] {
        desk.servers.insert(port, replica(up()));
    }
    desk.pass(1_000);
    desk.succeed(record);
    desk.pass(1_000);
    let last = desk.view().history[0].clone();
    assert_eq!((last.outcome, desk.promotions()), (Outcome::Undone, vec![]));
    assert_eq!((desk.view().master, desk.epoch()), (addr(MASTER), 1), "its epoch is used up");
}

/// The candidate was a replica when it was read, and what it was told may still lie in its socket.
#[test]
fn an_old_master_that_comes_back_as_a_replica_undoes_no_promotion_that_may_have_been_sent() {
    let follows = Server::Is(Role::Replica { master: addr(OTHER), link: down() });
    for (is, outcome) in [(master(&[OTHER]), Outcome::Undone), (follows, Outcome::Failed)] {
        let mut desk = Desk::new();
        let record = desk.decided_elsewhere();
        desk.servers.insert(MASTER, is);
        desk.pass(1_000);
        desk.succeed(record);
        desk.pass(1_000);
        let view = desk.view();
        let failover = view.history.iter().find(|entry| entry.kind == Kind::Failover);
        let ended = failover.map(|failover| failover.outcome);
        assert_eq!((ended, desk.promotions()), (Some(outcome), vec![]));
        let is_halted = desk.view().status == StatusView::Halted;
        assert_eq!(is_halted, outcome == Outcome::Failed, "{:?}", desk.view().status);
    }
}

#[test]
fn a_candidate_that_another_leader_may_have_promoted_and_that_is_silent_is_abandoned() {
    let mut desk = Desk::new();
    let record = desk.decided_elsewhere();
    desk.servers.insert(REPLICA, Server::Silent);
    desk.succeed(record);
    for _ in 0..30 {
        desk.testify("b", 2, desk.now, Some(Death::Refusing));
        desk.pass(100);
    }
    assert_eq!((desk.promotions(), desk.epoch()), (vec![OTHER], 2));
    let record = desk.fleet.record();
    let known = &record.entry(&group()).expect("it is recorded").instances[&addr(REPLICA)];
    assert_eq!(known.abandoned, Some(1));
}

/// Its answer from before says that it is a replica; that it may become a master yet is not forgotten for that.
#[test]
fn an_answer_from_before_does_not_prove_that_an_abandoned_promotion_did_not_happen() {
    let mut desk = Desk::new();
    let mut entry = desk.fleet.record().entry(&group()).expect("it is recorded").clone();
    entry.instances.get_mut(&addr(REPLICA)).expect("it is known").abandoned = Some(1);
    desk.servers.insert(REPLICA, Server::Silent);
    let change = Change {
        group: group(),
        expect: desk.fleet.record().revision(&group()),
        what: "its promotion was given up".to_owned(),
        entry: Some(entry),
        history: None,
    };
    desk.handle(Event::Committed { id: None, changes: vec![change] });
    let abandoned = |desk: &Desk| {
        let record = desk.fleet.record();
        record.entry(&group()).expect("it is recorded").instances[&addr(REPLICA)].abandoned
    };
    desk.pass(100);
    assert_eq!(abandoned(&desk), Some(1), "nothing was heard of it since");
    desk.servers.insert(REPLICA, replica(up()));
    desk.pass(10_000);
    assert_eq!(abandoned(&desk), None, "it was read, and is a replica");
}

#[test]
fn a_decision_of_unknown_fate_does_no_harm_when_it_is_committed_after_all() {
    let mut desk = Desk::new();
    desk.slow = true;
    desk.kill_master();
    desk.testify("b", 1, desk.now, Some(Death::Refusing));
    let (id, changes) = desk.proposed.pop().expect("it is proposed");
    desk.handle(Event::Unsettled { id: id.clone(), why: "the leader changed".to_owned() });
    assert_eq!(desk.promotions(), Vec::<u16>::new());
    desk.pass(1_500);
    desk.testify("b", 1, desk.now, Some(Death::Refusing));
    let (second, again) = desk.proposed.pop().expect("it is proposed again");
    desk.handle(Event::Committed { id: Some(id), changes });
    desk.handle(Event::Committed { id: Some(second), changes: again });
    assert_eq!((desk.epoch(), desk.promotions()), (1, vec![REPLICA]));
}

#[test]
fn a_request_of_unknown_fate_is_answered_as_such() {
    let mut desk = Desk::new();
    desk.slow = true;
    desk.answers.clear();
    let request = Request::Remove(vec![group().to_string()]);
    desk.handle(Event::Request { id: 2, request });
    let (id, _) = desk.proposed.pop().expect("it is proposed");
    desk.handle(Event::Unsettled { id, why: "the leader changed".to_owned() });
    let [Answer::Refused { code: RefusalCode::UnknownOutcome, message }] = &desk.answers[..] else {
        panic!("another answer: {:?}", desk.answers);
    };
    assert!(message.contains("may still be"), "{message}");
}

#[test]
fn a_restored_record_tells_nothing_that_is_old() {
    let mut desk = Desk::new();
    let record = desk.fleet.record().clone();
    let mut fleet = Fleet::new(node("b"), Policies::default());
    fleet.handle(desk.now, Event::Restored(record));
    let mut told = Vec::new();
    let mut probed = BTreeSet::new();
    while let Some(action) = fleet.poll() {
        if let Action::Publish(notice) = action {
            told.push(notice);
        } else if let Action::Probe { addr, .. } = action {
            probed.insert(addr);
        } else {
            panic!("nothing else is to be done: {action:?}");
        }
    }
    let old = |notice: &&Notice| !matches!(notice.what, What::Diagnosed { .. });
    assert_eq!(told.iter().find(old), None);
    assert_eq!(probed.len(), 3, "every instance is watched");
    desk.drain();
}

#[test]
fn an_election_alarms_nobody_and_a_lost_quorum_does() {
    let mut desk = Desk::new();
    desk.handle(Event::Leadership(Leadership::None));
    desk.pass(1_000);
    assert_eq!(desk.diagnosis(), "Healthy");
    desk.pass(1_500);
    assert_eq!(desk.diagnosis(), "QuorumLost");
    desk.handle(Event::Leadership(Leadership::Follower { leader: node("b") }));
    assert_eq!(desk.diagnosis(), "Healthy");
}

#[test]
fn a_resumed_failover_does_not_halt_before_everyone_was_asked() {
    let mut desk = Desk::new();
    let record = desk.decided_elsewhere();
    desk.servers.insert(REPLICA, Server::Silent);
    desk.servers.insert(MASTER, Server::Silent);
    // Another node leads now, one that was started a moment ago: for it the master is not even down yet.
    let policy = Policy { max_down_time: Duration::from_secs(3), ..Policy::default() };
    desk.fleet = Fleet::new(node("a"), Policies { default: policy, ..Policies::default() });
    desk.handle(Event::Voters(vec![node("a"), node("b"), node("c")]));
    desk.succeed(record);
    for _ in 0..80 {
        desk.testify("b", 2, desk.now, Some(Death::Unreachable));
        desk.pass(100);
    }
    assert_eq!((desk.promotions(), desk.epoch()), (vec![OTHER], 2), "{:?}", desk.view().status);
}

#[test]
fn a_failover_whose_candidate_restarted_ends_also_where_the_old_master_is_a_replica_and_not_dead() {
    let mut desk = Desk::new();
    // The candidate was promoted by another leader, and is another process since.
    let record = changed(desk.decided_elsewhere(), |saga| {
        saga.target_run_id = Some("gone".into());
    });
    desk.servers.insert(REPLICA, master(&[]));
    let role = Role::Replica { master: addr(REPLICA), link: down() };
    desk.servers.insert(MASTER, Server::Is(role));
    desk.pass(1_000);
    desk.succeed(record);
    desk.pass(5_000);
    let view = desk.view();
    assert_eq!((desk.promotions(), view.status), (vec![], StatusView::Halted), "a person decides");
    let reason = view.status_reason.expect("it says why");
    assert!(reason.contains("answers again, as a replica of 127.0.0.1:2"), "{reason}");
}

#[test]
fn a_decision_that_the_voters_do_not_carry_any_more_is_undone() {
    let mut desk = Desk::new();
    let record = desk.decided_elsewhere();
    desk.succeed(record);
    for _ in 0..20 {
        desk.testify("b", 2, desk.now, None);
        desk.testify("c", 2, desk.now, None);
        desk.pass(100);
    }
    let last = desk.view().history[0].clone();
    assert_eq!((last.outcome, desk.promotions()), (Outcome::Undone, vec![]), "{last:?}");
    assert_eq!(desk.diagnosis(), "MasterUnreachableFromHere");
    desk.testify("b", 2, desk.now, Some(Death::Refusing));
    assert_eq!((desk.epoch(), desk.promotions()), (2, vec![REPLICA]), "it is elected anew");
}

/// The record as another node has it, whose clock is hours ahead.
fn of_another_clock(record: Record) -> Record {
    changed(record, |saga| {
        saga.history.leader = node("b");
        saga.history.started_at = saga.history.started_at + Duration::from_secs(7_200);
    })
}

/// The record with something else in what is open.
fn changed(mut record: Record, change: impl FnOnce(&mut Saga)) -> Record {
    let mut entry = record.entry(&group()).expect("it is guarded").clone();
    change(entry.saga.as_mut().expect("it is open"));
    let change = Change {
        group: group(),
        expect: record.revision(&group()),
        what: String::new(),
        entry: Some(entry),
        history: None,
    };
    record.apply(&[change]).expect("it fits");
    record
}

#[test]
fn what_another_leader_began_is_timed_by_the_own_clock() {
    let mut desk = Desk::new();
    let record = of_another_clock(desk.decided_elsewhere());
    desk.servers.insert(REPLICA, master(&[]));
    desk.pass(500);
    desk.succeed(record);
    desk.pass(5);
    let history = desk.view().history[0].clone();
    let gap = history.write_gap_ms.expect("it is promoted");
    assert!((1.0..1_000.0).contains(&gap), "{gap} ms");
    let resumed = history.steps.iter().find(|step| step.name == "resumed_by").expect("noted");
    assert!((1.0..1_000.0).contains(&resumed.at_ms), "{resumed:?}");
}

#[test]
fn nobody_is_demoted_for_a_master_that_the_new_leader_has_not_heard() {
    let mut desk = Desk::new();
    let record = desk.decided_elsewhere();
    desk.servers.insert(REPLICA, master(&[]));
    desk.slow = true;
    desk.succeed(record);
    desk.pass(5);
    // The result is recorded, and the new master's host is lost together with the leader.
    let (id, changes) = desk.proposed.pop().expect("the result is proposed");
    desk.handle(Event::Leadership(Leadership::None));
    desk.handle(Event::Committed { id: Some(id), changes });
    desk.servers.insert(REPLICA, Server::Silent);
    desk.servers.insert(MASTER, master(&[]));
    desk.pass(400);
    desk.commands.clear();
    desk.lead(3);
    desk.pass(400);
    assert_eq!(desk.view().master, addr(REPLICA));
    assert_eq!(desk.commands, [], "the old master has come back and keeps its data");
}

#[test]
fn a_node_that_was_far_behind_tells_of_a_new_master() {
    let mut desk = Desk::new();
    let mut record = desk.fleet.record().clone();
    let mut entry = record.entry(&group()).expect("it is guarded").clone();
    (entry.master, entry.epoch) = (addr(OTHER), 1);
    let change = Change {
        group: group(),
        expect: record.revision(&group()),
        what: String::new(),
        entry: Some(entry),
        history: None,
    };
    record.apply(&[change]).expect("it fits");
    desk.handle(Event::Leadership(Leadership::Follower { leader: node("b") }));
    desk.handle(Event::Restored(record));
    let changed =
        What::MasterChanged { old_master: addr(MASTER), new_master: addr(OTHER), epoch: 1 };
    assert!(desk.notices.iter().any(|notice| notice.what == changed), "{:?}", desk.notices);
}

#[test]
fn a_start_alarms_nobody_before_a_leader_could_be_elected() {
    let mut desk = Desk::new();
    let record = desk.fleet.record().clone();
    desk.fleet = Fleet::new(node("a"), Policies::default());
    desk.notices.clear();
    desk.handle(Event::Restored(record));
    desk.pass(1_500);
    let lost = |notice: &Notice| notice.sentence.contains("QuorumLost");
    assert!(!desk.notices.iter().any(lost), "{:?}", desk.notices);
    desk.pass(1_000);
    assert!(desk.notices.iter().any(lost), "nobody leads");
}
